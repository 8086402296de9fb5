//! What a component's templates name must be in the bundle: programs, directories of components, container images.
//!
//! A plain scan of the template text. A program that is guarded by `has_program` with the same arguments may be absent.

use std::collections::BTreeMap;

use bundle::Component;
use bundle::component::Kind;

/// All problems, each naming what is missing, who needs it, and what to add.
pub fn problems(components: &[&Component]) -> Vec<String> {
    let named: BTreeMap<&str, &Component> =
        components.iter().map(|component| (component.name.as_str(), *component)).collect();
    let mut problems = Vec::new();
    for component in components {
        for template in &component.templates {
            let who = format!("template `{}` of `{}`", template.name, component.name);
            let guarded: Vec<_> = calls(&template.text, "has_program").collect();
            for arguments in calls(&template.text, "program").filter(|call| !guarded.contains(call)) {
                if let [name, program] = arguments[..] {
                    problems.extend(missing_program(&named, name, program).map(|what| format!("{who} needs {what}")));
                }
            }
            for name in calls(&template.text, "component_dir").filter_map(|arguments| arguments.first().copied()) {
                if !named.contains_key(name) {
                    problems
                        .push(format!("{who} needs the component `{name}`: add `[component.{name}]` to the manifest"));
                }
            }
            for name in image_names(&template.text) {
                let is_image = |(other, component): (&&str, &&Component)| {
                    component.kind == Kind::Container && other.replace('-', "_") == name
                };
                if !named.iter().any(is_image) {
                    problems.push(format!(
                        "{who} needs the container image `{name}`: add `[component.{}]` to the manifest",
                        name.replace('_', "-")
                    ));
                }
            }
        }
    }
    problems.sort();
    problems.dedup();
    problems
}

fn missing_program(named: &BTreeMap<&str, &Component>, name: &str, program: &str) -> Option<String> {
    let Some(component) = named.get(name) else {
        return Some(format!(
            "`{program}` of component `{name}`, which is not in the bundle: add `[component.{name}]` to the manifest"
        ));
    };
    if component.programs.iter().any(|promised| promised.as_str() == program) {
        return None;
    }
    Some(format!(
        "`{program}`, which component `{name}` does not promise: add it to `programs` in its component.toml and to `files` in the manifest"
    ))
}

/// Quoted arguments of every call of `function` in the text.
fn calls<'a>(text: &'a str, function: &str) -> impl Iterator<Item = Vec<&'a str>> {
    let starts: Vec<usize> = text.match_indices(&format!("{function}(")).map(|(at, found)| at + found.len()).collect();
    let length = function.len() + 1;
    starts.into_iter().filter_map(move |start| {
        let before = text[..start - length].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.') {
            return None;
        }
        let (arguments, _) = text[start..].split_once(')')?;
        Some(arguments.split(',').map(|argument| argument.trim().trim_matches(['"', '\''])).collect())
    })
}

/// Names after `images.`.
fn image_names(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("images.").filter_map(|(at, found)| {
        if text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.' || c == '/') {
            return None;
        }
        let rest = &text[at + found.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        (end > 0).then(|| &rest[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundle::component::{Template, TemplateKind};

    fn component(name: &str, kind: Kind, programs: &[&str], text: &str) -> Component {
        let template = Template { name: "x.service".parse().unwrap(), kind: TemplateKind::Unit, text: text.into() };
        Component {
            name: name.parse().unwrap(),
            version: "1".parse().unwrap(),
            kind,
            roles: vec![],
            licence: "MIT".into(),
            upstream: vec![],
            programs: programs.iter().map(|program| program.parse().unwrap()).collect(),
            modules: vec![],
            templates: vec![template],
            packages: vec![],
            distribution: None,
            host_programs: BTreeMap::new(),
            images: vec![],
        }
    }

    #[test]
    fn everything_a_template_names_must_be_there() {
        let text = r#"ExecStart={{ program("runc", "bin/runc") }} {{ program( 'etcd' , 'bin/etcdctl') }} {{ component_dir("cni") }} {{ images.pause | tojson }}
            {% if has_program("nginx", "m.so") %}{{ program("nginx", "m.so") }}{% endif %}"#;
        let user = component("user", Kind::Program, &[], text);
        let etcd = component("etcd", Kind::Program, &["bin/etcd"], "");
        let found = problems(&[&user, &etcd]);
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(
            found.iter().any(|problem| problem.contains("`bin/runc` of component `runc`, which is not in the bundle")),
            "{found:#?}"
        );
        assert!(
            found.iter().any(|problem| problem.contains("`bin/etcdctl`, which component `etcd` does not promise")),
            "{found:#?}"
        );
        assert!(
            found.iter().any(|problem| problem.contains("template `x.service` of `user` needs the component `cni`")),
            "{found:#?}"
        );
        assert!(found.iter().any(|problem| problem.contains("container image `pause`")), "{found:#?}");

        let rest =
            [("runc", Kind::Program, &["bin/runc"][..]), ("cni", Kind::Program, &[]), ("pause", Kind::Container, &[])];
        let mut all = vec![user, component("etcd", Kind::Program, &["bin/etcd", "bin/etcdctl"], "")];
        all.extend(rest.map(|(name, kind, programs)| component(name, kind, programs, "")));
        assert_eq!(problems(&all.iter().collect::<Vec<_>>()), Vec::<String>::new());
    }
}
