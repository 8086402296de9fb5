//! What a component's templates name must be in the bundle: programs, directories of components, container images.
//!
//! A plain scan of the template text. A program that is guarded by `has_program` with the same arguments may be absent.

use std::collections::BTreeMap;

use bundle::component::Kind;

use super::Piece;
use super::problem::Problem;
use super::target::Target;

pub(super) fn problems(pieces: &[Piece], targets: &[Target]) -> Vec<Problem> {
    let named: BTreeMap<&str, &Piece> = pieces.iter().map(|piece| (piece.component.name.as_str(), piece)).collect();
    let mut problems = Vec::new();
    for component in pieces.iter().map(|piece| &piece.component) {
        for template in &component.templates {
            let who = format!("template `{}` of `{}`", template.name, component.name);
            let guarded: Vec<_> = calls(&template.text, "has_program").collect();
            for arguments in calls(&template.text, "program").filter(|call| !guarded.contains(call)) {
                if let [name, program] = arguments[..] {
                    problems.extend(missing_program(&who, &named, name, program, targets));
                }
            }
            for name in calls(&template.text, "component_dir").filter_map(|arguments| arguments.first().copied()) {
                if !named.contains_key(name) {
                    let remedy = format!("add `[component.{name}]` to the manifest");
                    problems.push(Problem::written(&who, format!("the component `{name}`"), remedy));
                }
            }
            for name in image_names(&template.text) {
                let is_image = |(other, piece): (&&str, &&Piece)| {
                    piece.component.kind == Kind::Container && other.replace('-', "_") == name
                };
                if !named.iter().any(is_image) {
                    let remedy = format!("add `[component.{}]` to the manifest", name.replace('_', "-"));
                    problems.push(Problem::written(&who, format!("the container image `{name}`"), remedy));
                }
            }
        }
    }
    problems
}

/// A program comes with its component, or on each promised distribution as an OS package.
fn missing_program(
    who: &str,
    named: &BTreeMap<&str, &Piece>,
    name: &str,
    program: &str,
    targets: &[Target],
) -> Vec<Problem> {
    let Some(piece) = named.get(name) else {
        let missing = format!("`{program}` of component `{name}`, which is not in the bundle");
        return vec![Problem::written(who, missing, format!("add `[component.{name}]` to the manifest"))];
    };
    let component = &piece.component;
    if component.programs.iter().any(|promised| promised.as_str() == program) {
        return Vec::new();
    }
    if component.host_programs.is_empty() {
        let missing = format!("`{program}`, which component `{name}` does not promise");
        let remedy = "add it to `programs` in its component.toml and to `files` in the manifest";
        return vec![Problem::written(who, missing, remedy)];
    }
    let mut problems = Vec::new();
    for target in targets {
        let on = target.name();
        let programs = component.host_programs.get(on);
        let path = programs.and_then(|programs| programs.iter().find(|(known, _)| known.as_str() == program));
        match path {
            None => problems.push(Problem::written(
                who,
                format!("`{program}` of component `{name}` on {on}"),
                format!("add it to `[component.{name}.packages.{on}]` in the manifest, or to the component's `files`"),
            )),
            Some((_, path)) if !target.has_program(path) => problems.push(Problem::content(
                who,
                format!("`{path}` on {on}, where `[component.{name}.packages.{on}]` says that `{program}` is"),
                format!("no package of {} brings it and the base does not list it: correct the path, or add the package that has it to `install`", target.packages_table()),
            )),
            Some(_) => {}
        }
    }
    problems
}

/// Quoted arguments of every call of `function` in the text.
pub(super) fn calls<'a>(text: &'a str, function: &str) -> impl Iterator<Item = Vec<&'a str>> {
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
    use super::super::fake;
    use super::*;

    fn texts(pieces: &[Piece], targets: &[Target]) -> Vec<String> {
        problems(pieces, targets).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_a_template_names_must_be_there() {
        let text = r#"ExecStart={{ program("runc", "bin/runc") }} {{ program( 'etcd' , 'bin/etcdctl') }} {{ component_dir("cni") }} {{ images.pause | tojson }}
            {% if has_program("nginx", "m.so") %}{{ program("nginx", "m.so") }}{% endif %}"#;
        let user = fake::unit("user", text);
        let etcd = fake::program("etcd", &["bin/etcd"]);
        let found = texts(&[user.clone(), etcd], &[]);
        assert_eq!(found.len(), 4, "{found:#?}");
        for part in [
            "`bin/runc` of component `runc`, which is not in the bundle: add `[component.runc]`",
            "`bin/etcdctl`, which component `etcd` does not promise: add it to `programs`",
            "template `x.service` of `user` needs the component `cni`",
            "container image `pause`",
        ] {
            assert!(found.iter().any(|problem| problem.contains(part)), "{part} in {found:#?}");
        }

        let mut pause = fake::program("pause", &[]);
        pause.component.kind = Kind::Container;
        let etcd = fake::program("etcd", &["bin/etcd", "bin/etcdctl"]);
        let all = [user, etcd, fake::program("runc", &["bin/runc"]), fake::program("cni", &[]), pause];
        assert_eq!(texts(&all, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_program_of_an_os_package_must_come_on_each_distribution() {
        let user = fake::unit("user", "ExecStart={{ program(\"nginx\", \"bin/nginx\") }}");
        let mut nginx = fake::program("nginx", &[]);
        let mut on = |distribution: &str, path: &str| {
            let programs = [("bin/nginx".parse().unwrap(), path.to_owned())].into();
            nginx.component.host_programs.insert(distribution.into(), programs);
            nginx.clone()
        };
        let mut el = fake::target();
        el.base.distribution = "el9".into();
        let targets = [fake::target(), el];
        let found = texts(&[user.clone(), on("debian-12", "/usr/bin/mkdir")], &targets);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].contains("`bin/nginx` of component `nginx` on el9: add it to `[component.nginx.packages.el9]`")
        );
        let found = texts(&[user.clone(), on("el9", "/usr/sbin/nginx")], &targets);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("`/usr/sbin/nginx` on el9") && found[0].contains("`install`"), "{found:#?}");
        assert_eq!(texts(&[user, on("el9", "/usr/bin/mkdir")], &targets), Vec::<String>::new());
    }
}
