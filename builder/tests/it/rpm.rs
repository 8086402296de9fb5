//! The rpm-md source against a repository made here: the chain holds, and each lie is refused.

use crate::rpm_yard::{Yard, run};
use crate::workshop::stderr;

const PACKAGE: &str = "repo/tool-1.0-1.el9.x86_64.rpm";

/// Changes one byte of a file, `from` its end.
fn flip(yard: &Yard, name: &str, from: usize) {
    let path = yard.workshop.path(name);
    let mut bytes = fs_err::read(&path).unwrap();
    let at = bytes.len() - from;
    bytes[at] ^= 1;
    fs_err::write(path, bytes).unwrap();
}

#[test]
fn a_package_comes_through_the_whole_chain() {
    let yard = Yard::new();
    let said = stderr(&yard.lock().success());
    assert!(said.contains("revision 100, signed by "), "{said}");
    let lock = yard.lock_text();
    for says in [
        "url = \"rpm:tool=1.0-1.el9\"",
        "path = \"tool-1.0-1.el9.x86_64.rpm\"",
        "licence = \"MIT and BSD\"",
        "proof = \"rpm:base/amd64\"",
        "[rpm.\"base/amd64\"]\nrevision = 100\nrepomd = \"sha256:",
        "key = \"",
    ] {
        assert!(lock.contains(says), "{says}\n{lock}");
    }
    assert!(!lock.contains(&yard.text_path("")), "no address of this machine: {lock}");
    yard.build_bundle().success();
    assert!(yard.workshop.path("dist/el-1-amd64.bundle").exists());
    // The same again, a newer index, an exact older version: all fine.
    yard.lock().success();
    assert_eq!(yard.lock_text(), lock);
    yard.publish(101, &["--general-compress-type=xz"]);
    yard.sign_index("gpg");
    yard.lock().success();
    yard.workshop.edit("el.toml", "rpm = \"tool\"", "rpm = \"tool\"\nversion = \"1.0~rc1-1.el9\"");
    yard.lock().success();
    assert!(yard.lock_text().contains("rpm:tool=1.0~rc1-1.el9"));
    yard.build_bundle().success();
    yard.workshop.edit("el.toml", "1.0~rc1-1.el9", "2-1");
    yard.assert_refused("no repository offers `tool` 2-1");
}

#[test]
fn an_index_without_a_good_signature_is_refused() {
    let yard = Yard::new();
    let index = "repo/repodata/repomd.xml";
    let text = fs_err::read_to_string(yard.workshop.path(index)).unwrap();
    yard.workshop.write(index, text.replace("<revision>100", "<revision>200").as_bytes());
    yard.assert_refused("no good signature by a key of its .repo file");
    yard.workshop.write(index, text.as_bytes());
    yard.sign_index("gpg-other");
    yard.assert_refused("no good signature by a key of its .repo file");
    fs_err::remove_file(yard.workshop.path("repo/repodata/repomd.xml.asc")).unwrap();
    yard.assert_refused("its index is not signed, although its .repo file names a key");
    yard.sign_index("gpg");
    yard.lock().success();
}

#[test]
fn a_lock_never_goes_back() {
    let yard = Yard::new();
    yard.lock().success();
    yard.publish(99, &[]);
    yard.sign_index("gpg");
    yard.assert_refused("its index has the revision 99, the lock has seen 100");
    yard.publish(100, &[]);
    yard.repo_file("", false);
    yard.assert_refused("its index is not signed, the lock has seen it signed by");
}

#[test]
fn without_a_key_a_repository_is_refused_unless_the_manifest_trusts_the_first_use() {
    let yard = Yard::new();
    yard.repo_file("", false);
    yard.assert_refused("no key vouches for the repository `base` and its packages");
    // A key that nothing is checked with is none.
    yard.repo_file("gpgcheck=0\nrepo_gpgcheck=0\n", true);
    yard.assert_refused("say `trust = \"first-use\"` in the manifest");
    assert!(!yard.workshop.path("el.lock").exists());

    yard.workshop.edit("el.toml", "rpm = \"tool\"", "rpm = \"tool\"\ntrust = \"first-use\"");
    let said = stderr(&yard.lock().success());
    assert!(said.contains("nothing vouches for its packages but the connection"), "{said}");
    let lock = yard.lock_text();
    assert!(lock.contains("[rpm.\"base/amd64\"]") && !lock.contains("key = "), "{lock}");
    assert!(lock.contains("proof = \"first-use:base/amd64\"") && !lock.contains("\"rpm:base"), "{lock}");
    yard.build_bundle().success();
    let bundle = yard.workshop.path("dist/el-1-amd64.bundle");
    let said = crate::workshop::plain().args(["inspect", "--files"]).arg(bundle).assert().success();
    assert!(crate::workshop::stdout(&said).contains("FIRST USE"), "{}", crate::workshop::stdout(&said));

    // What is signed needs no trust, and is told as signed.
    yard.repo_file("", true);
    yard.lock().success();
    assert!(yard.lock_text().contains("proof = \"rpm:base/amd64\""), "{}", yard.lock_text());
}

#[test]
fn a_closure_out_of_a_repository_without_a_key_needs_trust_as_well() {
    let yard = Yard::new();
    yard.repo_file("", false);
    let base = "distribution = \"el9\"\nfamily = \"rpm\"\nglibc = \"2.34\"\nlibraries = []\nprograms = [\"/bin/sh\"]\nmodules = []\n[packages]\n";
    yard.workshop.write("bases/el9.toml", base.as_bytes());
    let head = "name = \"el\"\nversion = \"1\"\nsequence = 1\ncreated = \"2026-11-21\"\narchitectures = [\"amd64\"]\ndistributions = [\"el9\"]\n";
    let table_end =
        "[component.x]\nversion = \"1\"\n[[component.x.artifact]]\nfile = \"test.repo\"\ntrust = \"first-use\"\n";
    for table in ["packages", "kernel"] {
        let text = format!("{head}[{table}.el9]\ninstall = [\"tool\"]\nrepositories = [\"base\"]\n{table_end}");
        yard.workshop.write("el.toml", text.as_bytes());
        yard.assert_refused("no key vouches for the repository `base` and its packages");
        yard.workshop.write("el.toml", text.replace("[\"base\"]\n", "[\"base\"]\ntrust = \"first-use\"\n").as_bytes());
        yard.lock().success();
        assert!(yard.lock_text().contains("proof = \"first-use:base/amd64\""), "{}", yard.lock_text());
    }
    yard.workshop.edit("el.toml", "repositories = [\"base\"]", "suites = [\"bookworm\"]");
    yard.assert_refused("`trust` is for rpm-md");
}

#[test]
fn metadata_and_packages_that_do_not_fit_are_refused() {
    let yard = Yard::new();
    let primary = yard.metadata("-primary.xml.gz");
    let good = fs_err::read(&primary).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs_err::write(&primary, bad).unwrap();
    yard.assert_refused("wrong content");
    fs_err::write(&primary, good).unwrap();
    yard.lock().success();
    flip(&yard, PACKAGE, 1);
    let said = stderr(&yard.build_bundle().code(1));
    assert!(said.contains("wrong content"), "{said}");
}

#[test]
fn where_only_packages_are_signed_each_is_checked() {
    let yard = Yard::new();
    let publish = || yard.publish(100, &[]);
    yard.repo_file("gpgcheck=1\nrepo_gpgcheck=0\n", true);
    yard.assert_refused("it has no signature, and its .repo file says `gpgcheck=1`");
    yard.sign_package("gpg", PACKAGE);
    publish();
    let said = stderr(&yard.lock().success());
    assert!(said.contains("the index of `base` is not signed: its packages' own signatures are checked"), "{said}");
    let lock = yard.lock_text();
    assert!(lock.contains("package_keys = [\"") && !lock.contains("\nkey = "), "{lock}");
    // rpm itself accepts that signature.
    run(
        "rpmkeys",
        &["--define", &format!("_dbpath {}", yard.text_path("rpmdb")), "--import", &yard.text_path("gpg/key.asc")],
    );
    let checked = run(
        "rpmkeys",
        &[
            "--define",
            &format!("_dbpath {}", yard.text_path("rpmdb")),
            "--checksig",
            "--verbose",
            &yard.text_path(PACKAGE),
        ],
    );
    assert!(checked.contains("Header V4 RSA/SHA") && checked.contains(": OK"), "{checked}");

    let good = fs_err::read(yard.workshop.path(PACKAGE)).unwrap();
    // A payload that the signed header does not name, with an index that fits.
    flip(&yard, PACKAGE, 1);
    publish();
    yard.assert_refused("its signed header says");
    // A header that was not signed so: the release of the package, in its main header.
    let mut changed = good.clone();
    let at = changed.windows(5).rposition(|window| window == b"1.el9").unwrap();
    changed[at] = b'2';
    fs_err::write(yard.workshop.path(PACKAGE), changed).unwrap();
    publish();
    yard.assert_refused("no good signature by a key of its .repo file");
    fs_err::write(yard.workshop.path(PACKAGE), &good).unwrap();
    // Another key's signature.
    yard.sign_package("gpg-other", PACKAGE);
    publish();
    yard.assert_refused("no good signature by a key of its .repo file");
}

#[test]
fn mirrors_stand_in_for_each_other() {
    let yard = Yard::new();
    let repo = yard.text_path("repo");
    yard.workshop.edit(
        "test.repo",
        &format!("baseurl=file://{repo}"),
        &format!("baseurl=file:///nowhere/x file://{repo}"),
    );
    yard.lock().success();
    yard.build_bundle().success();
    yard.workshop.write("test.repo", b"[base]\nmirrorlist=https://mirrors.example.invalid/\n");
    yard.assert_refused("has only a `mirrorlist`");
    yard.workshop.write("test.repo", b"[other]\nbaseurl=file:///nowhere\n");
    yard.assert_refused("no .repo file has the repository `base`");
}

#[test]
fn sha512_is_taken_and_sha1_is_refused() {
    let yard = Yard::new();
    yard.publish(101, &["--checksum", "sha512"]);
    yard.sign_index("gpg");
    yard.lock().success();
    let lock = yard.lock_text();
    assert!(lock.contains("sha512 = \"") && lock.contains("sha256 = \"sha256:"), "{lock}");
    yard.build_bundle().success();
    flip(&yard, PACKAGE, 1);
    fs_err::remove_dir_all(yard.workshop.path("cache")).unwrap();
    yard.assert_refused("wrong content");
    yard.publish(102, &["--checksum", "sha"]);
    yard.sign_index("gpg");
    yard.assert_refused("neither SHA-256 nor SHA-512");
}

#[test]
fn every_kind_of_payload_gives_the_same_files() {
    let yard = Yard::new();
    for (number, payload) in ["w6.gzdio", "w6.xzdio", "w3.zstdio"].into_iter().enumerate() {
        yard.build(&[crate::rpm_yard::TOOL], payload);
        yard.publish(101 + number as u64, &[]);
        yard.sign_index("gpg");
        yard.lock().success();
        yard.build_bundle().success();
        let compressor = run("rpm", &["-qp", "--qf", "%{PAYLOADCOMPRESSOR}", &yard.text_path(PACKAGE)]);
        assert_eq!(compressor, ["gzip", "xz", "zstd"][number]);
        let inspected = yard.workshop.path("dist/el-1-amd64.bundle");
        let said = crate::workshop::plain().args(["inspect", "--files"]).arg(inspected).assert().success();
        let text = crate::workshop::stdout(&said);
        assert!(text.contains(&bundle::Digest::of(b"tool 1.0").hex()[..12]), "{text}");
    }
    yard.build(&[crate::rpm_yard::TOOL], "w6.bzdio");
    yard.publish(110, &[]);
    yard.sign_index("gpg");
    yard.lock().success();
    let said = stderr(&yard.build_bundle().failure());
    assert!(said.contains("packed with `bzip2`"), "{said}");
}
