//! What is inside a bundle: described, compared with another, listed for scanners, and built again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::workshop::{Workshop, deb, names, plain, stderr, stdout};

fn built() -> Workshop {
    let workshop = Workshop::new(20_000);
    workshop.lock().success();
    workshop.build("dist").assert().success();
    workshop
}

fn inspect(arguments: &[&str], bundle: &Path) -> String {
    stdout(&plain().arg("inspect").args(arguments).arg(bundle).assert().success())
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The text with all digests alike.
fn without_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| format!("{text}sha256:…{}", &part[64..]))
}

/// Blobs by name with their sizes, as any reader of tar files sees them.
fn blobs(bundle: &Path) -> BTreeMap<String, u64> {
    let mut archive = tar::Archive::new(fs_err::File::open(bundle).unwrap());
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let named = entries.map(|entry| (entry.path().unwrap().display().to_string(), entry.size()));
    named.filter(|(name, _)| name.starts_with("blobs/")).collect()
}

#[test]
fn inspect_shows_all_of_a_small_release() {
    let workshop = built();
    let text = inspect(&[], &workshop.bundle("dist"));
    insta::assert_snapshot!(without_digests(&text));
    for line in text.lines().filter(|line| !line.contains("://")) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    assert!(!text.contains('\u{1b}'), "colours in a pipe");
}

#[test]
fn what_nobody_vouched_for_is_shown_loudly() {
    let workshop = built();
    let text = inspect(&[], &workshop.bundle("dist"));
    assert!(text.contains("!! 1 artifact on first use"), "{text}");
    assert!(text.contains("!!   file:shell (shell)") && text.contains("FIRST USE"), "{text}");
    let json = parsed(&inspect(&["--json"], &workshop.bundle("dist")));
    assert_eq!(json["first_use"], serde_json::json!([{ "url": "file:shell", "components": ["shell"] }]));
    assert_eq!(json["format"], 1);
    assert_eq!(json["totals"]["artifacts"], 3);

    let digest = bundle::Digest::of(&fs_err::read(workshop.path("release/shell")).unwrap()).hex();
    let vouched = format!("sha256 = {{ amd64 = \"{digest}\" }}");
    workshop.edit("release/demo.toml", "trust = \"first-use\"", &vouched);
    workshop.lock().success();
    workshop.build("vouched").assert().success();
    let text = inspect(&[], &workshop.bundle("vouched"));
    assert!(!text.contains("!!") && !text.contains("FIRST USE"), "{text}");
}

#[test]
fn a_diff_says_what_changed_and_what_a_transfer_would_carry() {
    let workshop = built();
    let old = workshop.bundle("dist");
    let same = inspect(&["--diff", old.to_str().unwrap()], &old);
    assert!(same.contains("nothing differs") && same.contains("0 B of"), "{same}");

    // Another shell, no beta (which alpha's unit names), another package, a new sequence.
    workshop.write("release/shell", b"#!another");
    workshop.write("release/tool_1.1-1_amd64.deb", &deb("tool", "1.1-1", "amd64", &[]));
    let package = |name: &str| bundle::Digest::of(&fs_err::read(workshop.path(name)).unwrap()).hex();
    let (before, after) = (package("release/tool_1.0-1_amd64.deb"), package("release/tool_1.1-1_amd64.deb"));
    workshop.edit("release/demo.toml", &before, &after);
    workshop.edit("release/demo.toml", "tool_1.0-1_amd64.deb", "tool_1.1-1_amd64.deb");
    workshop.edit("release/demo.toml", "sequence = 3", "sequence = 4");
    workshop.edit("release/demo.toml", "[component.beta]", "[component.gamma]");
    workshop.edit("release/demo.toml", "[[component.beta.artifact]]", "[[component.gamma.artifact]]");
    workshop.edit("release/components/alpha/alpha.service.j2", "program(\"beta\"", "program(\"gamma\"");
    let recipe = fs_err::read_to_string(workshop.path("release/components/beta/component.toml")).unwrap();
    let recipe = recipe.replace("name = \"beta\"", "name = \"gamma\"");
    workshop.write("release/components/gamma/component.toml", recipe.as_bytes());
    fs_err::remove_file(workshop.path("release/demo.lock")).unwrap();
    workshop.lock().success();
    workshop.build("new").assert().success();
    let new = workshop.bundle("new");

    let text = inspect(&["--diff", old.to_str().unwrap()], &new);
    for part in [
        "UNVERIFIED",
        "~ sequence 3 -> 4",
        "+ component gamma 1.0",
        "- component beta 1.0",
        "~ component shell 2",
        "~ package tool 1.0-1 -> 1.1-1",
        "~ template alpha.service",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("component alpha 1.0 ->"), "{text}");

    let json = parsed(&inspect(&["--json", "--diff", old.to_str().unwrap()], &new));
    let (had, has) = (blobs(&old), blobs(&new));
    let added: u64 = has.iter().filter(|(name, _)| !had.contains_key(*name)).map(|(_, size)| size).sum();
    assert_eq!(json["difference"]["bytes"]["added"], added);
    assert_eq!(json["difference"]["bytes"]["total"], has.values().sum::<u64>());
    assert!(added > 0 && added < has.values().sum());
    assert_eq!(json["difference"]["added"], serde_json::json!(["gamma 1.0"]));
}

#[test]
fn a_diff_believes_only_what_the_key_signed() {
    let workshop = built();
    plain().current_dir(workshop.path("")).args(["keygen", "--no-password", "--out", "k"]).assert().success();
    workshop.build("signed").args(["--key", "k.key"]).assert().success();
    let (signed, unsigned) = (workshop.bundle("signed"), workshop.bundle("dist"));
    let diff = |new: &Path, old: &Path| {
        let key = workshop.path("k.pub");
        plain().arg("inspect").arg(new).arg("--diff").arg(old).arg("--key").arg(key).assert()
    };
    let good = stdout(&diff(&signed, &signed).success());
    assert!(!good.contains("UNVERIFIED"), "{good}");
    for (new, old) in [(&signed, &unsigned), (&unsigned, &signed)] {
        let refused = stderr(&diff(new, old).code(4));
        assert!(refused.contains(&unsigned.display().to_string()), "{refused}");
    }
}

#[test]
fn the_bill_of_materials_is_complete_and_the_same_everywhere() {
    let workshop = built();
    let text = inspect(&["--sbom"], &workshop.bundle("dist"));
    let document = parsed(&text);
    assert_eq!((&document["bomFormat"], &document["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
    assert_eq!(document["metadata"]["timestamp"], "2026-11-21T00:00:00Z");
    let serial = document["serialNumber"].as_str().unwrap().strip_prefix("urn:uuid:").unwrap();
    let shape: Vec<usize> = serial.split('-').map(str::len).collect();
    assert_eq!(shape, [8, 4, 4, 4, 12], "{serial}");
    assert!(serial[14..].starts_with('8') && "89ab".contains(&serial[19..20]), "{serial}");

    let inside = parsed(&inspect(&["--json"], &workshop.bundle("dist")));
    let listed = document["components"].as_array().unwrap();
    let mut wanted = BTreeSet::new();
    for component in inside["components"].as_array().unwrap() {
        if component["name"] == "sbom" {
            assert_eq!(component["roles"], serde_json::json!([]));
            continue;
        }
        assert!(listed.iter().any(|one| one["name"] == component["name"] && one["version"] == component["version"]));
        for upstream in component["upstream"].as_array().unwrap() {
            wanted.insert(upstream["sha256"].as_str().unwrap().trim_start_matches("sha256:").to_owned());
        }
    }
    let hashed: Vec<String> = listed
        .iter()
        .filter_map(|one| Some(one["hashes"].as_array()?.first()?["content"].as_str()?.to_owned()))
        .collect();
    assert_eq!(hashed.len(), wanted.len(), "each once");
    assert_eq!(hashed.into_iter().collect::<BTreeSet<_>>(), wanted);
    let archive = listed.iter().find(|one| one["name"] == "server.tar.gz").unwrap();
    assert!(archive["purl"].as_str().unwrap().starts_with("pkg:generic/server.tar.gz@1.0?checksum=sha256:"));

    let other = built();
    assert_eq!(text, inspect(&["--sbom"], &other.bundle("dist")));
    other.edit("release/demo.toml", "sequence = 3", "sequence = 4");
    other.lock().success();
    other.build("dist").assert().success();
    let later = parsed(&inspect(&["--sbom"], &other.bundle("dist")));
    assert_ne!(later["serialNumber"], document["serialNumber"]);
}

#[test]
fn a_damaged_bill_of_materials_is_not_printed() {
    let workshop = built();
    let bundle = workshop.bundle("dist");
    let inside = parsed(&inspect(&["--json"], &bundle));
    let sbom = inside["components"].as_array().unwrap().iter().find(|one| one["name"] == "sbom").unwrap();
    let size = usize::try_from(sbom["bytes"].as_u64().unwrap()).unwrap();
    let name = blobs(&bundle).into_iter().find(|(_, length)| *length == size as u64).unwrap().0;
    let mut bytes = fs_err::read(&bundle).unwrap();
    let header = bytes.windows(name.len()).rposition(|window| window == name.as_bytes()).unwrap();
    bytes[header + 512 + size / 2] ^= 1;
    workshop.write("damaged", &bytes);
    let refused = plain().args(["inspect", "--sbom"]).arg(workshop.path("damaged")).assert().code(4);
    assert_eq!(stdout(&refused), "");
}

/// `verify --rebuild` of the bundle in `dist`, signed with `k`.
fn rebuild(workshop: &Workshop, more: &[&str]) -> assert_cmd::assert::Assert {
    let mut verify = workshop.builder("verify");
    verify.arg(workshop.bundle("dist")).args(["--key", "k.pub", "--rebuild", "release/demo.lock"]).args(more);
    verify.assert()
}

#[test]
fn a_rebuild_is_the_same_or_says_what_differs() {
    let workshop = Workshop::new(20_000);
    workshop.lock().success();
    plain().current_dir(workshop.path("")).args(["keygen", "--no-password", "--out", "k"]).assert().success();
    workshop.build("dist").args(["--key", "k.key"]).assert().success();
    let layers = names(&workshop.path("cache/layer"));
    let same = rebuild(&workshop, &[]).success();
    assert!(stdout(&same).contains("the same, byte for byte"), "{}", stdout(&same));
    // It was packed anew, and nothing of it is left.
    assert_eq!(stderr(&same).lines().filter(|line| line.contains(" packed ")).count(), 3, "{}", stderr(&same));
    assert_eq!(names(&workshop.path("cache/layer")), layers);
    assert_eq!(names(&workshop.path("cache/tmp")), Vec::<String>::new());

    let differs = |more: &[&str], parts: &[&str]| {
        let error = stderr(&rebuild(&workshop, more).code(1));
        for part in parts {
            assert!(error.contains(part), "{part} in {error}");
        }
        error
    };
    workshop.write("other installer", b"#!another");
    let error = differs(&["--installer", "other installer"], &["~ installer", "the rebuild differs"]);
    assert!(!error.contains("~ component alpha"), "{error}");

    let shell = "release/components/shell/component.toml";
    workshop.edit(shell, "\"shell\" }", "\"shell\", \"bin/ash\" = \"shell\" }");
    let error = differs(&[], &["~ component shell 2", "layers"]);
    assert!(!error.contains("~ component alpha") && !error.contains("~ lock"), "{error}");
    workshop.edit(shell, "\"shell\", \"bin/ash\" = \"shell\" }", "\"shell\" }");

    let beta = "release/components/beta/component.toml";
    workshop.edit(beta, "programs", "links = { \"bin/bet\" = \"beta\" }\nprograms");
    differs(&[], &["~ component beta 1.0", "+ file bin/bet -> beta"]);
    workshop.edit(beta, "links = { \"bin/bet\" = \"beta\" }\n", "");

    // Another level: the same files in other layers, and another lock.
    workshop.edit("release/demo.lock", "level = 12", "level = 3");
    let error = differs(&[], &["~ lock", "~ component alpha 1.0", "~ layers"]);
    assert!(!error.contains("file bin/"), "{error}");
    workshop.edit("release/demo.lock", "level = 3", "level = 12");
    rebuild(&workshop, &[]).success();
}

#[test]
fn a_rebuild_does_not_believe_what_was_packed_before() {
    let workshop = Workshop::new(20_000);
    workshop.lock().success();
    plain().current_dir(workshop.path("")).args(["keygen", "--no-password", "--out", "k"]).assert().success();
    workshop.build("honest").assert().success();
    // A layer of another release in the place of alpha's: well-formed, so the build takes it.
    let other = Workshop::new(20_000);
    other.edit("release/demo.toml", "from = \"pkg/bin/alpha\"", "from = \"pkg/bin/beta-1.0\"");
    other.lock().success();
    other.build("dist").assert().success();
    let of_alpha = |workshop: &Workshop| {
        let holds = |layer: &String| {
            let record = workshop.path("cache/layer").join(layer).join("record.json");
            fs_err::read_to_string(record).unwrap().contains("bin/alpha")
        };
        let layer = names(&workshop.path("cache/layer")).into_iter().find(holds).unwrap();
        workshop.path("cache/layer").join(layer)
    };
    for file in ["layer", "record.json"] {
        fs_err::copy(of_alpha(&other).join(file), of_alpha(&workshop).join(file)).unwrap();
    }
    workshop.build("dist").args(["--key", "k.key"]).assert().success();
    let error = stderr(&rebuild(&workshop, &[]).code(1));
    assert!(error.contains("~ component alpha") && error.contains("file bin/alpha"), "{error}");
}

#[test]
fn a_warm_build_makes_no_layer_at_all() {
    let workshop = built();
    let layers = names(&workshop.path("cache/layer"));
    assert_eq!(layers.len(), 4, "three components and the bill of materials");
    let build = workshop.build("again").assert().success();
    assert!(!stderr(&build).contains("packed "), "{}", stderr(&build));
    assert!(stdout(&build).contains("5 components, 0 packed anew"), "{}", stdout(&build));
    assert_eq!(names(&workshop.path("cache/layer")), layers);
    assert!(fs_err::read(workshop.bundle("dist")).unwrap() == fs_err::read(workshop.bundle("again")).unwrap());
}

#[test]
fn no_name_talks_to_the_terminal() {
    let said = stderr(&plain().args(["inspect", "\u{1b}]0;evil\u{7}.bundle"]).assert().failure());
    assert!(said.contains("evil") && !said.contains(['\u{1b}', '\u{7}']), "{said:?}");
}

#[test]
fn a_bill_of_materials_is_all_that_stands_on_standard_output() {
    let workshop = built();
    let shown = plain().args(["inspect", "--json", "--sbom"]).arg(workshop.bundle("dist")).assert().success();
    assert_eq!(parsed(&stdout(&shown))["bomFormat"], "CycloneDX");
    assert!(stderr(&shown).contains("not verified"));
}
