//! Whole commands on a small release: lock, build, sign, verify, inspect; reproducible, complete, and safe to kill.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use bundle::Digest;
use rustix::process::{Pid, Signal};

use crate::workshop::{Workshop, names, plain, stderr, stdout};

#[test]
fn from_manifest_to_a_signed_bundle_that_verifies() {
    let workshop = Workshop::new(20_000);
    workshop.lock().success();
    let keygen =
        plain().current_dir(workshop.path("")).args(["keygen", "--no-password", "--out", "k"]).assert().success();
    assert!(stdout(&keygen).contains("k.pub"));
    assert_eq!(fs_err::metadata(workshop.path("k.key")).unwrap().permissions().mode() & 0o777, 0o600);
    plain().current_dir(workshop.path("")).args(["keygen", "--no-password", "--out", "k"]).assert().code(1);

    workshop.build("dist").args(["--key", "k.key"]).assert().success();
    assert_eq!(names(&workshop.path("dist")), ["demo-1.0-1-amd64.bundle", "installer", "installer.minisig"]);
    assert_eq!(fs_err::metadata(workshop.path("dist/installer")).unwrap().permissions().mode() & 0o777, 0o755);
    let verify = |bundle: &str, key: &str| {
        plain().current_dir(workshop.path("")).args(["verify", bundle, "--key", key]).assert()
    };
    let good = stdout(&verify("dist/demo-1.0-1-amd64.bundle", "k.pub").success());
    assert!(good.contains("5 components") && good.contains("MB/s"), "{good}");

    plain().current_dir(workshop.path("")).args(["keygen", "--no-password", "--out", "other"]).assert().success();
    let refused = verify("dist/demo-1.0-1-amd64.bundle", "other.pub").code(4);
    assert!(
        stderr(&refused).starts_with("error: bundle refused") && stderr(&refused).contains("hint:"),
        "{}",
        stderr(&refused)
    );
    // A second signature; then both keys together reach a threshold of two.
    plain()
        .current_dir(workshop.path(""))
        .args(["sign", "dist/demo-1.0-1-amd64.bundle", "--key", "other.key"])
        .assert()
        .success();
    let both = ["verify", "dist/demo-1.0-1-amd64.bundle", "--key", "k.pub", "--key", "other.pub", "--threshold", "2"];
    plain().current_dir(workshop.path("")).args(both).assert().success();

    let mut bytes = fs_err::read(workshop.bundle("dist")).unwrap();
    let last = bytes.len() - 2000;
    bytes[last] ^= 1;
    workshop.write("flipped", &bytes);
    verify("flipped", "k.pub").code(4);
    // Nobody signs what is damaged.
    plain().current_dir(workshop.path("")).args(["sign", "flipped", "--key", "k.key"]).assert().code(4);
}

#[test]
fn a_key_with_a_password_opens_with_it_only() {
    let workshop = Workshop::new(100);
    workshop.write("password", b"correct horse\n");
    workshop.write("wrong", b"battery staple\n");
    plain()
        .current_dir(workshop.path(""))
        .args(["keygen", "--out", "k", "--password-file", "password"])
        .assert()
        .success();
    workshop.lock().success();
    let wrong = workshop.build("dist").args(["--key", "k.key", "--password-file", "wrong"]).assert().code(1);
    assert!(stderr(&wrong).contains("check the password"), "{}", stderr(&wrong));
    assert_eq!(names(&workshop.path("dist")), Vec::<String>::new());
    workshop.build("dist").args(["--key", "k.key"]).env("SEALIFT_KEY_PASSWORD", "correct horse").assert().success();
}

#[test]
fn inspect_shows_what_is_inside_and_says_when_it_is_not_proven() {
    let workshop = Workshop::new(1000);
    workshop.lock().success();
    workshop.build("dist").assert().success();
    let table = stdout(&plain().arg("inspect").arg(workshop.bundle("dist")).assert().success());
    for part in [
        "UNVERIFIED",
        "alpha",
        "sealift.invalid/shell:2",
        "https://upstream.invalid/v1.0/server.tar.gz",
        "MIT",
        "master,worker",
    ] {
        assert!(table.contains(part), "{part} in {table}");
    }
    let json = plain().args(["inspect", "--json", "--files"]).arg(workshop.bundle("dist")).assert().success();
    let json: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(json["verified"], false);
    assert_eq!(json["components"].as_array().unwrap().len(), 5, "four and the bill of materials");
    assert_eq!(json["components"][0]["files"][1]["path"], "bin/alpha");
    let text = fs_err::read(workshop.bundle("dist")).unwrap();
    let here = workshop.path("").to_str().unwrap().to_owned();
    assert!(
        !text.windows(here.len()).any(|window| window == here.as_bytes()),
        "a path of this machine is in the bundle"
    );
}

#[test]
fn builds_are_identical_whatever_the_surroundings() {
    let size = 3_000_000;
    let first = Workshop::new(size);
    first.lock().success();
    first.build("dist").args(["--jobs", "1"]).env("TZ", "UTC").env("LC_ALL", "POSIX").assert().success();
    let second = Workshop::new(size);
    second.lock().success();
    let mut shell = Command::new("sh");
    shell
        .current_dir(second.path(""))
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(assert_cmd::cargo::cargo_bin("builder"));
    shell.args([
        "build",
        "release/demo.toml",
        "--installer",
        "installer.bin",
        "--out",
        "elsewhere/deep",
        "--jobs",
        "7",
        "--cache",
        "other-cache",
    ]);
    shell.arg("--mirror").arg(format!("https://upstream.invalid/v1.0/=file://{}/", second.path("release").display()));
    shell.env("TZ", "Pacific/Kiritimati").env("LC_ALL", "C.UTF-8");
    assert!(shell.status().unwrap().success());
    assert_eq!(
        fs_err::read(first.path("release/demo.lock")).unwrap(),
        fs_err::read(second.path("release/demo.lock")).unwrap()
    );
    assert!(
        fs_err::read(first.bundle("dist")).unwrap() == fs_err::read(second.bundle("elsewhere/deep")).unwrap(),
        "bundles differ"
    );
    assert_eq!(fs_err::metadata(second.bundle("elsewhere/deep")).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn a_warm_build_packs_nothing_and_one_change_packs_one() {
    let workshop = Workshop::new(50_000);
    workshop.lock().success();
    let packed = |out: &str| {
        let build = workshop.build(out).arg("--json").assert().success();
        let last = stdout(&build).lines().last().unwrap().to_owned();
        serde_json::from_str::<serde_json::Value>(&last).unwrap()["packed"].as_u64().unwrap()
    };
    assert_eq!(packed("one"), 3);
    // The archive is not needed any more: layers come from the cache.
    fs_err::remove_file(workshop.path("release/server.tar.gz")).unwrap();
    assert_eq!(packed("two"), 0);
    assert!(fs_err::read(workshop.bundle("one")).unwrap() == fs_err::read(workshop.bundle("two")).unwrap());

    workshop.edit("release/components/shell/component.toml", "\"shell\" }", "\"shell\", \"bin/ash\" = \"shell\" }");
    assert_eq!(packed("three"), 1);
    // A damaged layer is noticed and packed anew.
    for layer in names(&workshop.path("cache/layer")) {
        workshop.write(&format!("cache/layer/{layer}/layer"), b"damaged");
    }
    workshop.write("release/server.tar.gz", &[]);
    assert!(packed("four") > 0);
    assert!(fs_err::read(workshop.bundle("three")).unwrap() == fs_err::read(workshop.bundle("four")).unwrap());
}

#[test]
fn a_layer_that_no_host_would_take_is_not_signed() {
    let workshop = Workshop::new(50_000);
    workshop.lock().success();
    plain().current_dir(workshop.path("")).args(["keygen", "--no-password", "--out", "k"]).assert().success();
    workshop.build("dist").args(["--key", "k.key"]).assert().success();
    fs_err::remove_dir_all(workshop.path("dist")).unwrap();
    // Someone changes a layer and its description together: the cache itself has nothing to say against it.
    let of_alpha = |layer: &String| {
        let record = fs_err::read_to_string(workshop.path("cache/layer").join(layer).join("record.json")).unwrap();
        record.contains("bin/alpha")
    };
    let layer = names(&workshop.path("cache/layer")).into_iter().find(of_alpha).unwrap();
    let forged = b"no layer at all";
    workshop.write(&format!("cache/layer/{layer}/layer"), forged);
    let record = format!("cache/layer/{layer}/record.json");
    let text = fs_err::read(workshop.path(&record)).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    value["digest"] = serde_json::to_value(Digest::of(forged)).unwrap();
    value["size"] = forged.len().into();
    workshop.write(&record, &serde_json::to_vec(&value).unwrap());
    let build = workshop.build("dist").args(["--key", "k.key"]).assert().code(4);
    assert!(stderr(&build).contains("nothing was signed"), "{}", stderr(&build));
    assert_eq!(names(&workshop.path("dist")), Vec::<String>::new());
}

#[test]
fn the_cache_is_its_owners_alone() {
    let workshop = Workshop::new(100);
    workshop.lock().success();
    let cache = workshop.path("cache");
    assert_eq!(fs_err::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    for part in ["", "layer"] {
        let path = cache.join(part);
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o770)).unwrap();
        let build = workshop.build("dist").assert().code(1);
        assert!(stderr(&build).contains("others may write to the cache directory"), "{}", stderr(&build));
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        workshop.build("dist").assert().success();
    }
}

#[test]
fn the_lock_is_stable_and_must_fit() {
    let workshop = Workshop::new(1000);
    let missing = workshop.build("dist").assert().code(1);
    assert!(stderr(&missing).contains("builder lock"), "{}", stderr(&missing));
    workshop.lock().success();
    let lock = fs_err::read(workshop.path("release/demo.lock")).unwrap();
    assert!(stdout(&workshop.lock().success()).contains("is current"));
    fs_err::remove_file(workshop.path("release/demo.lock")).unwrap();
    workshop.lock().success();
    assert_eq!(lock, fs_err::read(workshop.path("release/demo.lock")).unwrap());
    workshop.builder("lock").args(["--check", "release/demo.toml"]).assert().success();

    workshop.edit("release/demo.toml", "sequence = 3", "sequence = 4");
    let stale = workshop.build("dist").assert().code(1);
    assert!(stderr(&stale).contains("does not fit"), "{}", stderr(&stale));
    workshop.builder("lock").args(["--check", "release/demo.toml"]).assert().code(1);
}

#[test]
fn what_cannot_be_reached_stays_unresolved_and_is_refused_by_name() {
    let workshop = Workshop::new(1000);
    let lock = plain()
        .current_dir(workshop.path(""))
        .args(["lock", "--offline", "--cache", "empty", "release/demo.toml"])
        .assert()
        .success();
    assert!(stderr(&lock).contains("unresolved: alpha (amd64)"), "{}", stderr(&lock));
    let refused = workshop.build("dist").assert().code(1);
    for part in ["`alpha`", "`shell`: file:shell: size and sha256 not known", "builder lock"] {
        assert!(stderr(&refused).contains(part), "{part} in {}", stderr(&refused));
    }
    let check = workshop.builder("lock").args(["--check", "release/demo.toml"]).assert().code(1);
    assert!(stdout(&check).contains("unresolved: beta (amd64)"), "{}", stdout(&check));
    workshop.lock().success();
    workshop.build("dist").assert().success();
}

#[test]
fn a_digest_that_upstream_contradicts_is_an_error_that_shows_both() {
    let workshop = Workshop::new(1000);
    let real = Digest::of(&fs_err::read(workshop.path("release/server.tar.gz")).unwrap());
    let wrong = Digest::of(b"wrong");
    workshop.edit("release/demo.toml", &real.hex(), &wrong.hex());
    let lock = workshop.lock().code(1);
    assert!(stderr(&lock).contains(&real.hex()) && stderr(&lock).contains(&wrong.hex()), "{}", stderr(&lock));
    assert!(!workshop.path("release/demo.lock").exists());
}

#[test]
fn an_incomplete_bundle_is_not_built() {
    let workshop = Workshop::new(1000);
    workshop.lock().success();
    workshop.edit("release/components/alpha/alpha.service.j2", "bin/beta", "bin/gamma");
    let build = workshop.build("dist").assert().code(2);
    assert!(stderr(&build).contains("template `alpha.service` of `alpha` needs `bin/gamma`"), "{}", stderr(&build));
    workshop.edit("release/components/alpha/alpha.service.j2", "bin/gamma", "bin/beta");
    workshop.edit("release/components/beta/component.toml", "bin/beta", "bin/other");
    let build = workshop.build("dist").assert().code(2);
    assert!(stderr(&build).contains("`bin/other` is promised"), "{}", stderr(&build));
    assert_eq!(names(&workshop.path("dist")), Vec::<String>::new());
}

#[test]
fn a_killed_build_leaves_no_half_file_and_the_next_one_completes() {
    ended_builds_leave_no_half_file(Signal::KILL, 8);
}

/// Ctrl-C ends it at once too: what it spools is removed by the next run, and nothing else needs to be.
#[test]
fn an_interrupted_build_leaves_no_half_file_and_the_next_one_completes() {
    ended_builds_leave_no_half_file(Signal::INT, 5);
}

/// Ends a build at `parts` moments of it.
fn ended_builds_leave_no_half_file(signal: Signal, parts: u32) {
    let workshop = Workshop::new(6_000_000);
    workshop.lock().success();
    let started = Instant::now();
    workshop.build("reference").assert().success();
    let whole = started.elapsed();
    let expected = fs_err::read(workshop.bundle("reference")).unwrap();
    let mut ended = 0;
    for part in 1..=parts {
        fs_err::remove_dir_all(workshop.path("cache")).unwrap();
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("builder"))
            .current_dir(workshop.path(""))
            .args(["build", "release/demo.toml", "--installer", "installer.bin", "--out", "dist", "--cache", "cache"])
            .arg("--mirror")
            .arg(format!("https://upstream.invalid/v1.0/=file://{}/", workshop.path("release").display()))
            .stderr(fs_err::File::create(workshop.path("stderr")).unwrap().into_parts().0)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * part / (parts + 1));
        rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        if signal == Signal::INT && status.code() == Some(130) {
            let said = fs_err::read_to_string(workshop.path("stderr")).unwrap();
            assert!(said.contains("error: interrupted") && said.contains("hint: run the same command again"), "{said}");
            assert_eq!(names(&workshop.path("cache/tmp")), Vec::<String>::new(), "what it spooled is gone at once");
            let hidden = names(&workshop.path("dist")).into_iter().find(|name| name.starts_with('.'));
            assert_eq!(hidden, None, "a temporary file is left");
            ended += 1;
        }
        ended += u32::from(status.signal() == Some(signal.as_raw()));
        let finals = names(&workshop.path("dist")).into_iter().filter(|name| !name.starts_with('.'));
        for name in finals.filter(|name| name.ends_with(".bundle")) {
            assert!(
                fs_err::read(workshop.path("dist").join(name)).unwrap() == expected,
                "a half-written bundle under its final name"
            );
        }
        for name in names(&workshop.path("cache/layer")) {
            let files = names(&workshop.path("cache/layer").join(name));
            assert_eq!(files, ["layer", "record.json"], "a half-written layer under its final name");
        }
        if let Ok(installer) = fs_err::read(workshop.path("dist/installer")) {
            assert_eq!(installer, fs_err::read(workshop.path("installer.bin")).unwrap());
        }
        for name in names(&workshop.path("cache/sha256")) {
            assert_eq!(name, Digest::of(&fs_err::read(workshop.path("cache/sha256").join(&name)).unwrap()).hex());
        }
        workshop.build("dist").assert().success();
        assert!(fs_err::read(workshop.bundle("dist")).unwrap() == expected);
        assert_eq!(names(&workshop.path("dist")), ["demo-1.0-1-amd64.bundle", "installer"]);
        assert_eq!(names(&workshop.path("cache/tmp")), Vec::<String>::new(), "what the killed run spooled is gone");
        fs_err::remove_dir_all(workshop.path("dist")).unwrap();
    }
    assert!(ended > 0, "no build was ended before it was done");
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    plain().args(["build"]).assert().code(2);
    let workshop = Workshop::new(10);
    workshop.edit("release/demo.toml", "sequence = 3", "sequence = 3\nsequenze = 4");
    let lock = workshop.lock().code(2);
    assert!(stderr(&lock).contains("unknown field `sequenze`") && stderr(&lock).contains("line"), "{}", stderr(&lock));
    assert!(stdout(&plain().args(["completions", "bash"]).assert().success()).contains("builder"));
    assert!(stdout(&plain().arg("man").assert().success()).contains(".TH"));
}
