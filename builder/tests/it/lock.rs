//! `builder lock --check` and `--update`: what is stale is said, and only what is named moves.

use std::sync::{Arc, Mutex};

use bundle::Digest;

use crate::server::{Server, honest};
use crate::workshop::{Workshop, plain, stderr, stdout};

fn lock_text(workshop: &Workshop) -> String {
    fs_err::read_to_string(workshop.path("release/demo.lock")).unwrap()
}

fn check(workshop: &Workshop) -> assert_cmd::assert::Assert {
    workshop.builder("lock").args(["release/demo.toml", "--check"]).assert()
}

fn update(workshop: &Workshop, names: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = workshop.builder("lock");
    command.arg("release/demo.toml");
    for name in names {
        command.args(["--update", name]);
    }
    command.assert()
}

#[test]
fn a_current_lock_is_current_and_checking_writes_nothing() {
    let workshop = Workshop::new(1000);
    let missing = stderr(&check(&workshop).code(1));
    assert!(missing.contains("there is no lock"), "{missing}");
    workshop.lock().success();
    let before = lock_text(&workshop);
    // Nothing is downloaded: neither cache nor upstream are there.
    fs_err::remove_dir_all(workshop.path("cache")).unwrap();
    fs_err::rename(workshop.path("release/server.tar.gz"), workshop.path("away")).unwrap();
    assert!(stdout(&check(&workshop).success()).contains("current and complete"));
    assert_eq!(lock_text(&workshop), before);

    workshop.edit("release/demo.toml", "sequence = 3", "sequence = 4");
    let output = stdout(&check(&workshop).code(1));
    assert!(output.contains("the manifest changed since, but in nothing that the lock repeats"), "{output}");
    assert_eq!(lock_text(&workshop), before);
}

#[test]
fn what_changed_in_the_manifest_is_named_with_both_values() {
    let workshop = Workshop::new(1000);
    workshop.lock().success();
    let (ours, other) =
        (Digest::of(&fs_err::read(workshop.path("release/tool_1.0-1_amd64.deb")).unwrap()), Digest::of(b"x"));
    workshop.edit("release/demo.toml", &ours.hex(), &other.hex());
    workshop.edit("release/demo.toml", "[component.beta]\nversion = \"1.0\"", "[component.beta]\nversion = \"1.1\"");
    let assert = check(&workshop).code(1);
    let (output, error) = (stdout(&assert), stderr(&assert));
    assert!(output.contains("the manifest changed: beta is 1.0 in the lock, 1.1 in the manifest"), "{output}");
    assert!(output.contains(&format!("{ours}")) && output.contains(&format!("{other}")), "{output}");
    assert!(!output.contains("alpha"), "{output}");
    assert!(error.contains("2 changed in the manifest") && error.contains("hint:"), "{error}");

    let json = workshop.builder("lock").args(["release/demo.toml", "--check", "--offline", "--json"]).assert().code(1);
    let result: serde_json::Value = stdout(&json)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|value: &serde_json::Value| value.get("current").is_some())
        .unwrap();
    assert_eq!((&result["current"], &result["manifest_changed"]), (&false.into(), &true.into()));
    assert!(result["misfits"]["tools"].as_str().unwrap().contains(&other.hex()), "{result}");
}

#[test]
fn a_lock_that_says_more_than_the_manifest_is_refused() {
    let workshop = Workshop::new(1000);
    workshop.lock().success();
    workshop.build("dist").assert().success();
    let home = workshop.path("");
    plain().current_dir(&home).args(["keygen", "--no-password", "--out", "k"]).assert().success();
    plain().current_dir(&home).arg("sign").arg(workshop.bundle("dist")).args(["--key", "k.key"]).assert().success();
    let good = lock_text(&workshop);
    let ours = Digest::of(&fs_err::read(workshop.path("release/tool_1.0-1_amd64.deb")).unwrap());
    let other = Digest::of(b"!<arch>\nevil content");
    workshop.write("release/tool_1.0-1_amd64.deb", b"!<arch>\nevil content");
    let evil = good.replace(&ours.hex(), &other.hex());
    let more = format!("{good}\n[component.packages-evil]\nversion = \"1\"\nmade = \"packages\"\namd64 = []\n");
    for (lock, says) in [
        (&evil, vec!["tools `file:tool_1.0-1_amd64.deb`".to_owned(), ours.to_string(), other.to_string()]),
        (&more, vec!["packages-evil is not in the manifest".to_owned()]),
    ] {
        workshop.write("release/demo.lock", lock.as_bytes());
        let bundle = workshop.bundle("dist");
        let mut rebuild = workshop.builder("verify");
        rebuild.arg(&bundle).args(["--key", "k.pub", "--rebuild", "release/demo.toml"]);
        let mut fetch = workshop.builder("fetch");
        fetch.arg("release/demo.toml");
        for mut command in [workshop.build("other"), fetch, rebuild] {
            let error = stderr(&command.assert().code(1));
            assert!(error.contains("the lock says what"), "{error}");
            assert!(says.iter().all(|says| error.contains(says)), "{error}");
        }
    }
}

#[test]
fn an_entry_that_is_not_resolved_is_not_current() {
    let workshop = Workshop::new(1000);
    workshop.edit("release/demo.toml", "trust = \"first-use\"\n", "");
    workshop.lock().success();
    let assert = check(&workshop).code(1);
    assert!(stdout(&assert).contains("unresolved: shell (amd64): file:shell"), "{}", stdout(&assert));
    assert!(stderr(&assert).contains("1 unresolved"), "{}", stderr(&assert));
}

/// A workshop in which upstream's list vouches for the archive of alpha and beta.
fn listed() -> (Workshop, Server, Arc<Mutex<String>>, String) {
    let workshop = Workshop::new(1000);
    let digest = Digest::of(&fs_err::read(workshop.path("release/server.tar.gz")).unwrap()).hex();
    let list = Arc::new(Mutex::new(format!("{digest}  server.tar.gz\n")));
    let shown = Arc::clone(&list);
    let server = Server::start(move |_, request, stream| honest(request, stream, shown.lock().unwrap().as_bytes()));
    let sums = "checksums = \"https://sums.invalid/SUMS\"\n".to_owned();
    workshop.edit("release/demo.toml", &format!("sha256 = {{ amd64 = \"{digest}\" }}\n"), &sums);
    (workshop, server, list, digest)
}

#[test]
fn a_list_that_upstream_changed_is_noticed_without_a_download() {
    let (workshop, server, list, digest) = listed();
    let mirror = format!("https://sums.invalid/={}/", server.url);
    let lock =
        |more: &[&str]| workshop.builder("lock").args(["--mirror", &mirror, "release/demo.toml"]).args(more).assert();
    let check = || lock(&["--check"]);
    lock(&[]).success();
    check().success();
    let other = Digest::of(b"another").hex();
    *list.lock().unwrap() = format!("{other}  server.tar.gz\n");
    let assert = check().code(1);
    let output = stdout(&assert);
    assert!(output.contains("alpha (amd64): https://upstream.invalid/v1.0/server.tar.gz"), "{output}");
    assert!(output.contains(&format!("sha256 {digest} -> {other}")), "{output}");
    assert!(stderr(&assert).contains("changed upstream"), "{}", stderr(&assert));
    // Not reached is not the same as current.
    drop(server);
    let assert = check().code(1);
    assert!(stdout(&assert).contains("not compared: alpha"), "{}", stdout(&assert));
    workshop.builder("lock").args(["release/demo.toml", "--check", "--offline"]).assert().success();
}

#[test]
fn update_moves_only_what_is_named() {
    let workshop = Workshop::new(1000);
    workshop.lock().success();
    let before = lock_text(&workshop);
    let old = fs_err::read(workshop.path("release/tool_1.0-1_amd64.deb")).unwrap();
    let new = b"!<arch>\nanother, never opened, too".to_vec();
    workshop.write("release/tool_1.1-1_amd64.deb", &new);
    workshop.edit("release/demo.toml", &Digest::of(&old).hex(), &Digest::of(&new).hex());
    workshop.edit("release/demo.toml", "tool_1.0-1_amd64.deb", "tool_1.1-1_amd64.deb");
    // Another component changed, too: refused, and named.
    let toml = fs_err::read(workshop.path("release/demo.toml")).unwrap();
    workshop.edit("release/demo.toml", "[component.beta]\nversion = \"1.0\"", "[component.beta]\nversion = \"1.1\"");
    let refused = stderr(&update(&workshop, &["tools"]).code(1));
    assert!(refused.contains("beta is 1.0 in the lock") && refused.contains("hint: name them"), "{refused}");
    assert_eq!(lock_text(&workshop), before);
    workshop.write("release/demo.toml", &toml);

    let output = stdout(&update(&workshop, &["tools"]).success());
    assert!(output.contains("url file:tool_1.0-1_amd64.deb -> file:tool_1.1-1_amd64.deb"), "{output}");
    assert!(output.contains(&format!("size {} -> {}", old.len(), new.len())), "{output}");
    assert!(output.contains(&format!("sha256 {} -> {}", Digest::of(&old).hex(), Digest::of(&new).hex())), "{output}");
    let head = |text: &str| text.split("[component.tools]").next().unwrap().to_owned();
    let without_manifest =
        |text: &str| head(text).lines().filter(|line| !line.starts_with("manifest =")).collect::<Vec<_>>().join("\n");
    let after = lock_text(&workshop);
    assert_eq!(without_manifest(&after), without_manifest(&before));
    assert!(head(&after) != head(&before), "the manifest's digest moved");
    check(&workshop).success();
    workshop.lock().success();
    assert_eq!(lock_text(&workshop), after, "a whole lock says the same");

    let unknown = stderr(&update(&workshop, &["alpah"]).code(2));
    assert!(unknown.contains("`alpah`") && unknown.contains("there is alpha"), "{unknown}");
    update(&workshop, &["tools", "alpha"]).success();
    assert_eq!(lock_text(&workshop), after);
}

#[test]
fn a_component_that_left_the_manifest_leaves_the_lock() {
    let workshop = Workshop::new(1000);
    workshop.lock().success();
    let text = fs_err::read_to_string(workshop.path("release/demo.toml")).unwrap();
    let (without, _) = text.split_once("[component.tools]").unwrap();
    workshop.write("release/demo.toml", without.as_bytes());
    let output = stdout(&check(&workshop).code(1));
    assert!(output.contains("tools is not in the manifest any more"), "{output}");
    let output = stdout(&update(&workshop, &["tools"]).success());
    assert!(output.contains("tools (amd64): file:tool_1.0-1_amd64.deb: gone"), "{output}");
    check(&workshop).success();
}

#[test]
fn a_first_use_digest_never_changes_silently() {
    let workshop = Workshop::new(1000);
    workshop.lock().success();
    let (old, new) = (Digest::of(b"#!static").hex(), Digest::of(b"#!other!").hex());
    workshop.write("release/shell", b"#!other!");
    fs_err::remove_dir_all(workshop.path("cache")).unwrap();
    // Locking again keeps the first digest; a download that differs is refused and shows both.
    let before = lock_text(&workshop);
    workshop.lock().success();
    assert_eq!(lock_text(&workshop), before);
    let error = stderr(&workshop.builder("fetch").arg("release/demo.toml").assert().code(1));
    assert!(error.contains(&old) && error.contains(&new), "{error}");
    // Only by name, and then it is said.
    let assert = update(&workshop, &["shell"]).success();
    let (output, warning) = (stdout(&assert), stderr(&assert));
    assert!(output.contains(&format!("sha256 {old} -> {new}")), "{output}");
    assert!(warning.contains("another digest than at its first use"), "{warning}");
}

#[test]
fn a_closure_without_its_index_stays_open_by_name_and_a_locked_one_stays() {
    let workshop = Workshop::new(1000);
    let base = "distribution = \"debian-12\"\nfamily = \"deb\"\nglibc = \"2.36\"\nlibraries = []\nprograms = []\nmodules = []\n[packages]\n";
    workshop.write("release/bases/debian-12.toml", base.as_bytes());
    workshop.write("none.sources", b"");
    let packages =
        "distributions = [\"debian-12\"]\n[packages.debian-12]\ninstall = [\"socat\"]\nsuites = [\"bookworm\"]\n";
    workshop.edit("release/demo.toml", "\n[component.alpha]", &format!("{packages}\n[component.alpha]"));
    let lock = || {
        let mut command = workshop.builder("lock");
        command.args(["release/demo.toml", "--apt-sources", "none.sources"]).assert().success();
        lock_text(&workshop)
    };
    let open = lock();
    assert!(open.contains("url = \"apt:socat\"\nunresolved = \"its index was not reached"), "{open}");
    let refused = stderr(&workshop.build("dist").assert().code(1));
    assert!(refused.contains("packages-debian-12") && refused.contains("apt:socat"), "{refused}");

    // As if it had been locked where the index was: it is kept, with what vouched for it.
    let reason = open.lines().find(|line| line.starts_with("unresolved")).unwrap();
    let (entry, digest) = ("path = \"pool/s.deb\"\nsize = 1\n", Digest::of(b"x"));
    let locked = open
        .replace("apt:socat\"", "apt:socat=1.7-1\"")
        .replace(reason, &format!("{entry}sha256 = \"{digest}\"\nproof = \"apt:bookworm/main/amd64\""));
    let proof = format!(
        "[apt.\"bookworm/main/amd64\"]\nsuite = \"stable\"\ncodename = \"bookworm\"\ndate = \"Sat, 07 Nov 2026 10:00:00 UTC\"\nkey = \"00\"\ninrelease = \"{digest}\"\npackages = \"{digest}\"\n\n[component.alpha]"
    );
    let locked = locked.replacen("[component.alpha]", &proof, 1);
    workshop.write("release/demo.lock", locked.as_bytes());
    assert_eq!(lock(), locked);
    let mut command = workshop.builder("lock");
    let assert = command.args(["release/demo.toml", "--apt-sources", "none.sources", "--check"]).assert().code(1);
    assert!(stdout(&assert).contains("not compared: packages-debian-12"), "{}", stdout(&assert));
    let mut command = workshop.builder("lock");
    command.args(["release/demo.toml", "--apt-sources", "none.sources", "--update", "packages-debian-12"]);
    let error = stderr(&command.assert().code(1));
    assert!(error.contains("`packages-debian-12` cannot be moved") && error.contains("stays as it is"), "{error}");
    assert_eq!(lock_text(&workshop), locked);
}
