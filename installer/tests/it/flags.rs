//! Every flag, config field and directive a template uses must be in `manifests/flags.toml`, and the version it is
//! rendered for must lie in that entry's window. Rendered, not run: the real programs run in the e2e tests.

use std::collections::{BTreeMap, BTreeSet};

use bundle::component::Role;
use installer::facts::Cgroup;
use serde::Deserialize;

use crate::manifests::{self, Packets, Rendered, SETS, Shape};

type Table = BTreeMap<String, BTreeMap<String, Window>>;

/// First and last version of a flag, field or value; a last version counts with all its patch releases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    since: String,
    last: Option<String>,
    source: String,
}

fn table() -> Table {
    toml::from_str(&fs_err::read_to_string(manifests::directory().join("flags.toml")).unwrap()).unwrap()
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for roles in [&[Role::Master][..], &[Role::Master, Role::Worker], &[Role::Worker], &[Role::Etcd]] {
        for (cgroup, container) in [(Cgroup::V1, false), (Cgroup::V1, true), (Cgroup::V2, false)] {
            for packets in [Packets::Iptables, Packets::Ipvs, Packets::Nftables] {
                shapes.push(Shape { roles, cgroup, packets, container, plugin: "bridge" });
            }
        }
    }
    shapes
}

/// What a rendered file uses: flags of its programs, paths of its fields, and `path=value` of fields whose values are in
/// the table too.
fn used(file: &Rendered) -> BTreeSet<String> {
    let extension = file.name.rsplit('.').next().unwrap();
    if file.text.trim().is_empty() {
        return BTreeSet::new();
    }
    match extension {
        "service" => flags(&file.text),
        "json" => {
            let value: serde_json::Value = serde_json::from_str(&file.text).unwrap();
            let kind = value["kind"].as_str().unwrap().to_owned();
            fields(&value, &kind)
        }
        "toml" => {
            let value: toml::Value = toml::from_str(&file.text).unwrap();
            fields(&serde_json::to_value(value).unwrap(), "")
        }
        "conf" => directives(&file.text),
        "yaml" => file.text.lines().map(|line| line.split(':').next().unwrap().to_owned()).collect(),
        other => panic!("no way to read a .{other} file: teach this test"),
    }
}

fn flags(unit: &str) -> BTreeSet<String> {
    let joined = unit.replace("\\\n", " ");
    let commands =
        joined.lines().filter_map(|line| line.strip_prefix("ExecStart=").or(line.strip_prefix("ExecReload=")));
    let ours = commands.filter(|command| command.starts_with("/opt/sealift/"));
    let words = ours.flat_map(|command| command.split_whitespace().skip(1));
    words.filter(|word| word.starts_with('-')).map(|word| word.split('=').next().unwrap().to_owned()).collect()
}

fn fields(value: &serde_json::Value, path: &str) -> BTreeSet<String> {
    let below = |key: &str| match (path, key.contains('.')) {
        ("", _) => key.to_owned(),
        (path, true) => format!("{path}.{key:?}"),
        (path, false) => format!("{path}.{key}"),
    };
    match value {
        serde_json::Value::Object(map) => map.iter().flat_map(|(key, value)| fields(value, &below(key))).collect(),
        serde_json::Value::Array(items) if items.iter().any(serde_json::Value::is_object) => {
            items.iter().flat_map(|item| fields(item, &format!("{path}[]"))).collect()
        }
        serde_json::Value::String(text) => BTreeSet::from([path.to_owned(), format!("{path}={text}")]),
        serde_json::Value::Number(number) => BTreeSet::from([path.to_owned(), format!("{path}={number}")]),
        _ => BTreeSet::from([path.to_owned()]),
    }
}

fn directives(nginx: &str) -> BTreeSet<String> {
    let lines = nginx.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#') && *line != "}");
    lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// Everything wrong with a rendered file, one line each.
fn problems(table: &Table, file: &Rendered) -> Vec<String> {
    let place = format!("{} {}: {}", file.component, file.version, file.name);
    let Some(known) = table.get(&file.component) else {
        return vec![format!("{place}: no section `{}` in flags.toml", file.component)];
    };
    let check = |name: &String| {
        let wildcard =
            |(pattern, _): &(&String, &Window)| pattern.strip_suffix('*').is_some_and(|stem| name.starts_with(stem));
        let window = known.get(name).or_else(|| known.iter().find(wildcard).map(|(_, window)| window));
        match window {
            Some(window) if part_of(&file.version, &window.since).is_lt() => {
                Some(format!("{place}: {name} is there from {} on ({})", window.since, window.source))
            }
            Some(Window { last: Some(last), source, .. }) if part_of(&file.version, last).is_gt() => {
                Some(format!("{place}: {name} was there until {last} ({source})"))
            }
            Some(_) => None,
            // Values are only checked where the table lists values of that field.
            None if name.contains('=') => {
                let listed = format!("{}=", name.split('=').next().unwrap());
                known
                    .keys()
                    .any(|key| key.starts_with(&listed))
                    .then(|| format!("{place}: {name} is not in flags.toml"))
            }
            None => Some(format!("{place}: {name} is not in flags.toml")),
        }
    };
    used(file).iter().filter_map(check).collect()
}

/// Compares as many numbers as the bound has: 1.23.17 is equal to 1.23.
fn part_of(version: &str, bound: &str) -> std::cmp::Ordering {
    let numbers = |text: &str| -> Vec<u32> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        text[..end].split('.').map(|part| part.parse().unwrap()).collect()
    };
    let bound = numbers(bound);
    numbers(version).into_iter().take(bound.len()).cmp(bound)
}

#[test]
fn every_flag_and_field_is_known_to_its_version() {
    let table = table();
    let mut found = BTreeSet::new();
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for set in SETS {
        for shape in shapes() {
            for file in manifests::render(set, shape) {
                found.extend(problems(&table, &file));
                seen.entry(file.component.clone()).or_default().extend(used(&file));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.into_iter().collect::<Vec<_>>().join("\n"));

    // The table holds what templates use and nothing else: an entry nobody uses is a fact nobody checks.
    for (component, entries) in &table {
        for name in entries.keys() {
            let parent = name.strip_suffix('*');
            let used = seen[component]
                .iter()
                .any(|used| used == name || parent.is_some_and(|parent| used.starts_with(parent)));
            assert!(used, "{component}: no template uses {name}");
        }
    }
}

#[test]
fn every_entry_says_where_it_is_from() {
    for (component, entries) in table() {
        for (name, window) in entries {
            assert!(!window.source.is_empty(), "{component}: {name}");
            assert!(window.last.is_none_or(|last| part_of(&last, &window.since).is_ge()), "{component}: {name}");
        }
    }
}

fn unit(component: &str, version: &str, flag: &str) -> Rendered {
    let text =
        format!("[Service]\nExecStart=/opt/sealift/current/{component}/bin/{component} \\\n  {flag} \\\n  --v=2\n");
    Rendered {
        component: component.to_owned(),
        version: version.to_owned(),
        name: format!("{component}.service"),
        text,
    }
}

#[test]
fn a_removed_early_or_unlisted_flag_is_found() {
    let table = table();
    for (component, version, flag, problem) in [
        ("kube-controller-manager", "1.23.17", "--port=0", None),
        ("kube-controller-manager", "1.24.17", "--port=0", Some("--port was there until 1.23")),
        (
            "kubelet",
            "1.35.0",
            "--pod-infra-container-image=pause",
            Some("--pod-infra-container-image was there until 1.34"),
        ),
        ("kubelet", "1.37.1", "--containerd=x", Some("--containerd is not in flags.toml")),
    ] {
        let found = problems(&table, &unit(component, version, flag));
        match problem {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(problem) => assert!(found.len() == 1 && found[0].contains(problem), "{found:?}"),
        }
    }
    for (version, field, problem) in [
        ("1.31.0", "failCgroupV1", None),
        ("1.30.9", "failCgroupV1", Some("KubeletConfiguration.failCgroupV1 is there from 1.31 on")),
        ("1.37.1", "failCgroup", Some("KubeletConfiguration.failCgroup is not in flags.toml")),
    ] {
        let text = format!("{{\"kind\": \"KubeletConfiguration\", \"{field}\": false}}");
        let (component, name, version) = ("kubelet".to_owned(), "config.json".to_owned(), version.to_owned());
        let found = problems(&table, &Rendered { component, version, name, text });
        match problem {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(problem) => assert!(found.len() == 1 && found[0].contains(problem), "{found:?}"),
        }
    }
}
