//! Renders the unit and config templates that components carry (minijinja, strict undefined).
//!
//! Trusts the templates (they are signed with the component) but not their being right: every undefined name, every
//! program no component promises and every value that cannot stand in a unit file is an error that names component,
//! template and line. Rendering is a pure function of the context: no clock, no host.
//!
//! Beside minijinja's builtins a template has the functions `program(component, path)`, `has_program(component, path)`,
//! `component_dir(component)` and `etc(component)`, the tests `at_least(version)` and `below(version)`, and the filters
//! `systemd` (one word of an `Exec…=` line), `url_host` (brackets around an IPv6 address) and `tojson` (strict: an
//! undefined value inside is an error; a field that is `none` is left out, which is how templates say "not in this version").

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use bundle::component::{Component, Template};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde::Serialize;

/// Where units and config files find the programs and files of the current generation.
const CURRENT: &str = "/opt/sealift/current";

/// The programs each component promises, by component name, and where each is on this host.
type Programs = BTreeMap<String, BTreeMap<String, String>>;

/// A template engine bound to one host's context; see the module head for what templates can use.
#[derive(Debug)]
pub struct Renderer {
    environment: Environment<'static>,
    context: BTreeMap<String, Value>,
}

impl Renderer {
    /// Binds the context (a struct or map) and the programs that the bundle's components bring, or that packages of this
    /// distribution bring for them.
    pub fn new<'a>(
        context: &impl Serialize,
        components: impl IntoIterator<Item = &'a Component>,
        distribution: &str,
    ) -> anyhow::Result<Self> {
        let programs: Programs = components
            .into_iter()
            .map(|component| (component.name.to_string(), programs(component, distribution)))
            .collect();
        Ok(Self { environment: environment(programs, distribution)?, context: entries(&Value::from(Serde(context)))? })
    }

    /// Renders one template of a component; the text ends with exactly one newline.
    pub fn render(&self, component: &Component, template: &Template) -> anyhow::Result<String> {
        let mut context = self.context.clone();
        let this = [("name", component.name.as_str()), ("version", component.version.as_str())];
        context.insert("component".to_owned(), Value::from_pairs(this));
        self.environment
            .template_from_named_str(template.name.as_str(), &template.text)
            .and_then(|compiled| compiled.render(Value::from_pairs(context)))
            .map(|text| format!("{}\n", text.trim_end()))
            .map_err(|error| describe(&error))
            .with_context(|| format!("rendering `{}` of component `{}`", template.name, component.name))
    }
}

fn programs(component: &Component, distribution: &str) -> BTreeMap<String, String> {
    let host = component.host_programs.get(distribution).into_iter().flatten();
    let own = component.programs.iter().map(|path| (path.to_string(), format!("{CURRENT}/{}/{path}", component.name)));
    host.map(|(name, path)| (name.to_string(), path.clone())).chain(own).collect()
}

fn entries(context: &Value) -> anyhow::Result<BTreeMap<String, Value>> {
    let keys = context.try_iter().context("reading the template context")?;
    keys.map(|key| Ok((key.to_string(), context.get_item(&key)?))).collect()
}

/// One line: what is wrong, where, and the deepest reason.
fn describe(error: &Error) -> anyhow::Error {
    let place = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let reason = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    anyhow::anyhow!("{place}{}{detail}{reason}", error.kind())
}

fn environment(programs: Programs, distribution: &str) -> anyhow::Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // A block tag takes its own line away.
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    // Keeps the origin of undefined values, so that errors say which name is undefined.
    environment.set_debug(true);

    let programs = Arc::new(programs);
    let promised = Arc::clone(&programs);
    let distribution = distribution.to_owned();
    environment.add_function("program", move |component: &str, path: &str| match promised.get(component) {
        Some(paths) => paths.get(path).cloned().ok_or_else(|| {
            invalid(format!("component `{component}` does not promise the program `{path}` on {distribution}"))
        }),
        None => Err(invalid(format!("no component `{component}` in the bundle"))),
    });
    let promised = Arc::clone(&programs);
    environment.add_function("has_program", move |component: &str, path: &str| {
        promised.get(component).is_some_and(|paths| paths.contains_key(path))
    });
    environment.add_function("component_dir", move |component: &str| {
        if programs.contains_key(component) {
            return Ok(format!("{CURRENT}/{component}"));
        }
        Err(invalid(format!("no component `{component}` in the bundle")))
    });
    environment.add_function("etc", |component: &str| format!("{CURRENT}/etc/{component}"));

    environment.add_test("at_least", |version: &Value, bound: &str| Ok::<_, Error>(compare(version, bound)?.is_ge()));
    environment.add_test("below", |version: &Value, bound: &str| Ok::<_, Error>(compare(version, bound)?.is_lt()));
    environment.add_filter("systemd", systemd_word);
    environment
        .add_filter("url_host", |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() });
    environment.add_filter("tojson", json);
    Ok(environment)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Compares the leading dotted numbers of two versions: `1.6.20~ds1` and `1.6.20+dfsg` count as 1.6.20, `1.27` as 1.27.0.
fn compare(version: &Value, bound: &str) -> Result<Ordering, Error> {
    let version = version.as_str().ok_or_else(|| Error::new(ErrorKind::UndefinedError, "no version to compare"))?;
    let (mut version, mut bound) = (numbers(version)?, numbers(bound)?);
    let length = version.len().max(bound.len());
    version.resize(length, 0);
    bound.resize(length, 0);
    Ok(version.cmp(&bound))
}

fn numbers(version: &str) -> Result<Vec<u64>, Error> {
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    version[..end]
        .trim_end_matches('.')
        .split('.')
        .map(|part| {
            part.parse().map_err(|_| invalid(format!("`{version}` does not begin with a dotted version number")))
        })
        .collect()
}

/// Escapes a value for use inside one word of an `Exec…=` line (systemd.service(5), systemd.syntax(7)): specifiers,
/// variables, quotes, separators and blanks are taken literally.
fn systemd_word(value: &Value) -> Result<String, Error> {
    let text = match value.kind() {
        ValueKind::String | ValueKind::Number => value.to_string(),
        other => return Err(invalid(format!("cannot use a value of type {other} as a word of a unit file"))),
    };
    let mut word = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' => word.push_str("%%"),
            '$' => word.push_str("$$"),
            ' ' => word.push_str(r"\x20"),
            '"' => word.push_str(r"\x22"),
            '\'' => word.push_str(r"\x27"),
            ';' => word.push_str(r"\x3b"),
            '\\' => word.push_str(r"\x5c"),
            c if c.is_control() => return Err(invalid(format!("control character in {text:?}"))),
            c => word.push(c),
        }
    }
    Ok(word)
}

/// JSON with sorted keys and without the fields that are `none`; indented by two blanks with `indent=2`.
#[expect(clippy::needless_pass_by_value, reason = "minijinja hands keyword arguments over by value")]
fn json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<u32> = options.get("indent")?;
    options.assert_all_used()?;
    refuse_undefined(value, "")?;
    let failed = |error| Error::new(ErrorKind::BadSerialization, "writing JSON").with_source(error);
    let mut value = serde_json::to_value(value).map_err(failed)?;
    drop_absent(&mut value);
    match indent {
        None => serde_json::to_string(&value).map_err(failed),
        Some(2) => serde_json::to_string_pretty(&value).map_err(failed),
        Some(other) => Err(invalid(format!("tojson can indent by 2, not by {other}"))),
    }
}

fn drop_absent(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_absent);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_absent),
        _ => {}
    }
}

fn refuse_undefined(value: &Value, path: &str) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => Err(Error::new(ErrorKind::UndefinedError, format!("JSON value `{path}`"))),
        ValueKind::Map => {
            value.try_iter()?.try_for_each(|key| refuse_undefined(&value.get_item(&key)?, &format!("{path}.{key}")))
        }
        ValueKind::Seq | ValueKind::Iterable => value
            .try_iter()?
            .enumerate()
            .try_for_each(|(index, item)| refuse_undefined(&item, &format!("{path}[{index}]"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bundle::component::{Component, Kind, Template, TemplateKind};

    use super::Renderer;

    fn etcd() -> Component {
        Component {
            name: "etcd".parse().unwrap(),
            version: "3.4.23".parse().unwrap(),
            kind: Kind::Program,
            roles: vec![],
            licence: "Apache-2.0".to_owned(),
            upstream: vec![],
            programs: vec!["bin/etcd".parse().unwrap()],
            modules: vec![],
            templates: vec![],
            packages: vec![],
            distribution: None,
            host_programs: BTreeMap::new(),
            images: vec![],
        }
    }

    #[test]
    fn programs_of_packages_are_where_the_distribution_puts_them() {
        let mut nginx = etcd();
        nginx.name = "nginx".parse().unwrap();
        nginx.programs.clear();
        let path = BTreeMap::from([("bin/nginx".parse().unwrap(), "/usr/sbin/nginx".to_owned())]);
        nginx.host_programs = BTreeMap::from([("debian-12".to_owned(), path)]);
        let text = "{{ program('nginx', 'bin/nginx') }}{{ has_program('nginx', 'modules/x.so') }}".to_owned();
        let template = Template { name: "t.service".parse().unwrap(), kind: TemplateKind::Unit, text };
        let render = |distribution| {
            let renderer = Renderer::new(&BTreeMap::<&str, &str>::new(), [&nginx], distribution).unwrap();
            renderer.render(&nginx, &template).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(render("debian-12").unwrap(), "/usr/sbin/nginxFalse\n");
        let error = render("el9").unwrap_err();
        assert!(error.contains("does not promise the program `bin/nginx` on el9"), "{error}");
    }

    fn render(text: &str) -> Result<String, String> {
        let context = BTreeMap::from([
            ("versions", BTreeMap::from([("kubernetes", "1.27.16"), ("containerd", "1.6.20~ds1")])),
            ("node", BTreeMap::from([("name", "a b%c$d\"e;f"), ("address", "192.0.2.1")])),
        ]);
        let template = Template { name: "t.service".parse().unwrap(), kind: TemplateKind::Unit, text: text.to_owned() };
        let component = etcd();
        let renderer = Renderer::new(&context, [&component], "debian-12").unwrap();
        renderer.render(&component, &template).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn paths_and_the_component_itself() {
        let text =
            "{{ program('etcd', 'bin/etcd') }} {{ component_dir('etcd') }} {{ etc('nginx') }} {{ component.version }}";
        let expected =
            "/opt/sealift/current/etcd/bin/etcd /opt/sealift/current/etcd /opt/sealift/current/etc/nginx 3.4.23\n";
        assert_eq!(render(text).unwrap(), expected);
        assert_eq!(render("{{ has_program('etcd', 'bin/etcdutl') }}").unwrap(), "False\n");
    }

    #[test]
    fn versions_compare_by_number() {
        for (condition, holds) in [
            ("versions.kubernetes is at_least('1.27')", true),
            ("versions.kubernetes is at_least('1.27.16')", true),
            ("versions.kubernetes is at_least('1.27.17')", false),
            ("versions.kubernetes is below('1.100')", true),
            ("versions.kubernetes is below('1.4')", false),
            ("versions.containerd is at_least('1.6.20')", true),
            ("versions.containerd is below('1.6.20')", false),
            ("'1.6.20+dfsg' is at_least('1.6.20')", true),
            ("'3.4.23' is below('3.5')", true),
        ] {
            let text = format!("{{{{ 'yes' if {condition} else 'no' }}}}");
            assert_eq!(render(&text).unwrap().trim(), if holds { "yes" } else { "no" }, "{condition}");
        }
        assert!(
            render("{{ 'sid' is at_least('1') }}")
                .unwrap_err()
                .contains("`sid` does not begin with a dotted version number")
        );
    }

    #[test]
    fn words_of_units_are_literal() {
        assert_eq!(render("{{ node.name | systemd }}").unwrap(), "a\\x20b%%c$$d\\x22e\\x3bf\n");
        assert!(render("{{ \"a\nb\" | systemd }}").unwrap_err().contains("control character"));
        assert!(render("{{ [1] | systemd }}").unwrap_err().contains("as a word of a unit file"));
    }

    #[test]
    fn hosts_in_urls() {
        assert_eq!(
            render("{{ node.address | url_host }} {{ '2001:db8::1' | url_host }}").unwrap(),
            "192.0.2.1 [2001:db8::1]\n"
        );
    }

    #[test]
    fn json_is_sorted_and_strict() {
        assert_eq!(render("{{ {'b': [1, true], 'a': '<&>'} | tojson }}").unwrap(), "{\"a\":\"<&>\",\"b\":[1,true]}\n");
        assert_eq!(render("{{ {'a': 1} | tojson(indent=2) }}").unwrap(), "{\n  \"a\": 1\n}\n");
        assert_eq!(render("{{ {'a': none, 'b': [{'c': none}]} | tojson }}").unwrap(), "{\"b\":[{}]}\n");
        let error = render("{{ {'a': [node.adress]} | tojson }}").unwrap_err();
        assert!(error.contains("JSON value `.a[0]`"), "{error}");
    }

    #[test]
    fn errors_name_component_template_line_and_cause() {
        for (text, reason) in [
            ("first\n{{ node.adress }}", "line 2: undefined value: `node.adress` is undefined"),
            ("{% if nodes.x %}{% endif %}", "line 1: undefined value: `nodes` is undefined"),
            (
                "{{ program('etcd', 'bin/etcdutl') }}",
                "line 1: invalid operation: component `etcd` does not promise the program `bin/etcdutl` on debian-12",
            ),
            (
                "{{ program('flannel', 'bin/flanneld') }}",
                "line 1: invalid operation: no component `flannel` in the bundle",
            ),
            ("\n\n{% if x %}", "line 3: syntax error: unexpected end of input, expected end of block"),
            ("\n{{ versions.etcd is at_least('3') }}", "line 2: undefined value: no version to compare"),
        ] {
            assert_eq!(render(text).unwrap_err(), format!("rendering `t.service` of component `etcd`: {reason}"));
        }
    }
}
