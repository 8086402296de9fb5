//! `[packages.…]` and `[kernel.…]` through the program: what the lock says, and what it says when there is no way.

use bundle::Digest;

use super::Archive;
use crate::workshop::stderr;

fn entry(name: &str, version: &str, relations: &str) -> String {
    let digest = Digest::of(name.as_bytes()).hex();
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{relations}Filename: pool/{name}.deb\nSize: 1\nSHA256: {digest}\n\n"
    )
}

impl Archive {
    /// An archive with these packages beside `tool`, and a manifest whose tables ask for them.
    fn with(packages: &[String], tables: &str) -> Self {
        let archive = Self::new();
        archive
            .publish_index(&format!("{}\n{}", archive.packages(), packages.concat()), "Sat, 07 Nov 2026 10:00:00 UTC");
        let manifest = fs_err::read_to_string(archive.workshop.path("deb.toml")).unwrap();
        let (head, component) = manifest.split_once("[component").unwrap();
        let text = format!("{head}distributions = [\"debian-12\"]\n{tables}\n[component{component}");
        archive.workshop.write("deb.toml", text.as_bytes());
        let base = "distribution = \"debian-12\"\nfamily = \"deb\"\nglibc = \"2.36\"\nlibraries = []\nprograms = []\nmodules = []\n\
                    [packages]\nlibc6 = \"2.36-9\"\n[provides]\nlibc6 = \"base-api\"\n";
        archive.workshop.write("bases/debian-12.toml", base.as_bytes());
        archive
    }
}

#[test]
fn packages_and_kernels_become_components_with_their_closure() {
    let packages = [
        entry("jq", "1.6-2", "Depends: libjq1 (= 1.6-2), libc6 (>= 2.36), base-api\n"),
        entry("libjq1", "1.6-2", "Depends: libc6\n"),
        entry("linux-image-amd64", "6.1.99-1", "Depends: linux-image-6.1.0-9-amd64\n"),
        entry("linux-image-6.1.0-9-amd64", "6.1.99-1", ""),
    ];
    let tables = "[packages.debian-12]\ninstall = [\"jq\"]\nsuites = [\"stable\"]\n\
                  [kernel.debian-12]\ninstall = [\"linux-image-amd64\"]\nsuites = [\"testing-x\"]\n";
    let archive = Archive::with(&packages, tables);
    archive.lock().success();
    let text = fs_err::read_to_string(archive.workshop.path("deb.lock")).unwrap();
    let lock: toml::Table = toml::from_str(&text).unwrap();
    let component = |name: &str| lock["component"][name].as_table().unwrap().clone();
    let (packages, kernel) = (component("packages-debian-12"), component("kernel-debian-12"));
    assert_eq!(packages["distribution"].as_str(), Some("debian-12"));
    assert_eq!(kernel["version"].as_str(), Some("6.1.99"));
    let urls = |component: &toml::Table| {
        let entries = component["amd64"].as_array().unwrap().clone();
        let needed = |entry: &toml::Value| entry.get("needed_by").map(|name| name.as_str().unwrap().to_owned());
        entries.iter().map(|entry| (entry["url"].as_str().unwrap().to_owned(), needed(entry))).collect::<Vec<_>>()
    };
    let of = |url: &str, needed: Option<&str>| (url.to_owned(), needed.map(str::to_owned));
    assert_eq!(urls(&packages), [of("apt:jq=1.6-2", None), of("apt:libjq1=1.6-2", Some("jq"))]);
    let image = of("apt:linux-image-6.1.0-9-amd64=6.1.99-1", Some("linux-image-amd64"));
    assert_eq!(urls(&kernel), [image, of("apt:linux-image-amd64=6.1.99-1", None)]);
    assert!(text.contains("proof = \"apt:stable/main/amd64\""), "{text}");
    // The same again: the same bytes.
    archive.lock().success();
    assert_eq!(fs_err::read_to_string(archive.workshop.path("deb.lock")).unwrap(), text);
}

#[test]
fn recommended_packages_come_along_if_the_manifest_says_so() {
    let packages = [
        entry("jq", "1.6-2", "Depends: libc6\nRecommends: jq-extra, gone\n"),
        entry("jq-extra", "2", "Depends: libextra\n"),
        entry("libextra", "3", "Recommends: jq\n"),
    ];
    let archive = Archive::with(
        &packages,
        "[packages.debian-12]\ninstall = [\"jq\"]\nsuites = [\"stable\"]\nrecommends = true\n",
    );
    let members = || {
        archive.lock().success();
        let text = fs_err::read_to_string(archive.workshop.path("deb.lock")).unwrap();
        let lock: toml::Table = toml::from_str(&text).unwrap();
        let entries = lock["component"]["packages-debian-12"]["amd64"].as_array().unwrap().clone();
        let mut names: Vec<String> = entries.iter().map(|entry| entry["url"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(members(), ["apt:jq-extra=2", "apt:jq=1.6-2", "apt:libextra=3"]);
    archive.workshop.edit("deb.toml", "recommends = true", "recommends = false");
    assert_eq!(members(), ["apt:jq=1.6-2"]);
}

#[test]
fn what_stands_in_the_way_of_a_closure_is_said_at_once() {
    let packages = [
        entry("one", "1", "Depends: gone, mid\n"),
        entry("mid", "1", "Depends: libc6 (>= 2.40)\nConflicts: two\n"),
        entry("two", "2", ""),
    ];
    let tables = "[packages.debian-12]\ninstall = [\"one\", \"two\"]\nsuites = [\"stable\"]\n";
    let archive = Archive::with(&packages, tables);
    let text = stderr(&archive.lock().code(1));
    for says in [
        "computing `packages-debian-12` for amd64",
        "`gone` is needed by `one`: nothing of that name is on offer",
        "`libc6 (>= 2.40)` is needed by `one` → `mid`: on offer is `libc6` 2.36-9 in the base",
        "`mid` 1 conflicts with `two`: `two` 2",
        "hint: name a suite that has what is missing",
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
    assert!(!archive.workshop.path("deb.lock").exists());
    archive.workshop.edit("deb.toml", "suites = [\"stable\"]", "suites = [\"stable-security\"]");
    // Who has no source for one distribution can still write the lock of the others; what is unresolved is not built.
    let text = stderr(&archive.lock().success());
    assert!(text.contains("unresolved: packages-debian-12 (amd64): apt:one: no apt source had the suite"), "{text}");
    archive.workshop.edit("deb.toml", "suites = [\"stable-security\"]", "suites = [\"stable\"]");
    fs_err::remove_file(archive.workshop.path("bases/debian-12.toml")).unwrap();
    let text = stderr(&archive.lock().code(2));
    assert!(text.contains("nothing states what a target with `debian-12` has"), "{text}");
}
