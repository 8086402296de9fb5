//! What a closure has to get right, on packages made up here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bundle::{Architecture, Digest};

use super::resolve;
use crate::base::{Base, Family};
use crate::source::rpm_md::checksum::Checksum;
use crate::source::rpm_md::{Dependency, Package};
use bundle::rpm_version::{Evr, Relation};

/// `name`, or `name >= 1`.
fn dependency(text: &str) -> Dependency {
    let mut words = text.split(' ');
    let range = |relation: &str, version: &str| Box::new((Relation::parse(relation).unwrap(), Evr::parse(version)));
    match (words.next().unwrap(), words.next(), words.next()) {
        (name, Some(relation), Some(version)) if !text.starts_with('(') => {
            Dependency { name: name.into(), range: Some(range(relation, version)) }
        }
        _ => Dependency::any(text),
    }
}

/// `NAME-VERSION-RELEASE`, then lines such as `requires a, b >= 1`, `files /usr/bin/x`.
fn package(name: &str, version: &str, lines: &[&str]) -> Package {
    let list = |key: &str| -> Vec<Dependency> {
        let lines = lines.iter().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        lines.flat_map(|line| line.split(", ")).map(dependency).collect()
    };
    let mut provides = list("provides");
    provides.push(dependency(&format!("{name} = {version}")));
    provides.push(dependency(&format!("{name}(x86-64) = {version}")));
    Package {
        name: name.into(),
        evr: Evr::parse(version),
        arch: "x86_64".into(),
        path: format!("{name}.rpm"),
        size: 1,
        checksum: Checksum::Sha256(Digest::of(name.as_bytes())),
        licence: "MIT".into(),
        provides,
        requires: list("requires"),
        conflicts: list("conflicts"),
        obsoletes: list("obsoletes"),
        files: list("files").into_iter().map(|file| file.name).collect(),
    }
}

fn base(packages: &[(&str, &str)]) -> Base {
    Base {
        provides: std::collections::BTreeMap::new(),
        distribution: "el9".into(),
        family: Family::Rpm,
        glibc: "2.34".into(),
        libraries: ["libc.so.6".to_owned(), "libm.so.6".to_owned()].into(),
        programs: ["/usr/bin/sh".to_owned()].into(),
        modules: [].into(),
        packages: packages.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect(),
    }
}

/// Labels of the closure and who needs each.
fn closure(packages: &[Package], base: &Base, roots: &[&str]) -> Result<Vec<String>, String> {
    let packages: Vec<&Package> = packages.iter().collect();
    let roots: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
    let members = resolve(&packages, base, Architecture::Amd64, &roots, &mut |_| Ok(BTreeMap::new()));
    let shown = |member: super::Member| match member.needed_by {
        Some(by) => format!("{}-{} by {by}", packages[member.package].name, packages[member.package].evr),
        None => format!("{}-{}", packages[member.package].name, packages[member.package].evr),
    };
    members.map(|members| members.into_iter().map(shown).collect()).map_err(|error| format!("{error:#}"))
}

#[test]
fn requirements_are_followed_with_their_versions() {
    let packages = [
        package("a", "1-1", &["requires b >= 2, libx.so.1()(64bit), config(a) = 1-1", "provides config(a) = 1-1"]),
        package("b", "1-1", &[]),
        package("b", "2-1", &["requires a"]),
        package("b", "10-1", &["requires c"]),
        package("c", "0-1", &[]),
        package("x-libs", "1-1", &["provides libx.so.1()(64bit)"]),
        package("unused", "1-1", &[]),
    ];
    let found = closure(&packages, &base(&[]), &["a"]).unwrap();
    assert_eq!(found, ["a-1-1", "b-10-1 by a", "c-0-1 by b", "x-libs-1-1 by a"]);
    assert_eq!(closure(&packages, &base(&[]), &["b", "b=2"]).unwrap(), ["a-1-1 by b", "b-2-1", "x-libs-1-1 by a"]);
    let error = closure(&packages, &base(&[]), &["b=1", "b=2"]).unwrap_err();
    assert!(error.contains("`b=2` contradicts the choice of `b-1-1.x86_64`"), "{error}");
    let found = closure(&packages, &base(&[]), &["a", "b=2"]).unwrap();
    assert_eq!(found, ["a-1-1", "b-2-1", "x-libs-1-1 by a"]);
}

#[test]
fn what_the_base_has_is_left_out() {
    let packages = [
        package(
            "a",
            "1-1",
            &[
                "requires b >= 2, c, /bin/sh, /usr/bin/c-tool, libc.so.6(GLIBC_2.34)(64bit), libm.so.6()(64bit), rtld(GNU_HASH), rpmlib(PayloadIsZstd) <= 5.4.18-1",
            ],
        ),
        package("b", "2-1", &[]),
        package("c", "1-1", &["files /usr/bin/c-tool"]),
    ];
    assert_eq!(closure(&packages, &base(&[("b", "2-1"), ("c", "")]), &["a"]).unwrap(), ["a-1-1"]);
    assert_eq!(closure(&packages, &base(&[("b", "2-1"), ("c", "")]), &["a", "b"]).unwrap(), ["a-1-1"]);
    // A base that is too old, or does not know its version, gets the newer one.
    for version in ["1-1", ""] {
        assert_eq!(closure(&packages, &base(&[("b", version), ("c", "")]), &["a"]).unwrap(), ["a-1-1", "b-2-1 by a"]);
    }
    // Beyond the base's C library and rpm.
    for beyond in
        ["libc.so.6(GLIBC_2.35)(64bit)", "libc.so.6(GLIBC_PRIVATE)(64bit)", "rpmlib(Teleportation) <= 1", "libc.so.6"]
    {
        let packages = [package("a", "1-1", &[&format!("requires {beyond}")])];
        let error = closure(&packages, &base(&[]), &["a"]).unwrap_err();
        assert!(error.contains(beyond), "{error}");
    }
}

#[test]
fn a_provider_is_chosen_by_the_documented_rule() {
    let server = |name: &str, version: &str, lines: &[&str]| {
        let mut all = vec!["provides webserver"];
        all.extend(lines);
        package(name, version, &all)
    };
    let user = package("user", "1-1", &["requires webserver"]);
    let plain = [user.clone(), server("alpha", "1-1", &[]), server("beta", "2-1", &[]), server("gamma", "2-1", &[])];
    assert_eq!(
        closure(&plain, &base(&[]), &["user"]).unwrap(),
        ["beta-2-1 by user", "user-1-1"],
        "highest version, then name"
    );
    assert_eq!(closure(&plain, &base(&[]), &["user", "gamma"]).unwrap(), ["gamma-2-1", "user-1-1"], "chosen already");
    assert_eq!(closure(&plain, &base(&[("alpha", "1-1")]), &["user"]).unwrap(), ["user-1-1"], "in the base");
    // Even if it is chosen later, and for another reason.
    let later = [plain.to_vec(), vec![package("other", "1-1", &["requires alpha"])]].concat();
    assert_eq!(
        closure(&later, &base(&[]), &["user", "other"]).unwrap(),
        ["alpha-1-1 by other", "other-1-1", "user-1-1"]
    );
    let named = [plain.to_vec(), vec![server("webserver", "0.1-1", &[])]].concat();
    assert_eq!(
        closure(&named, &base(&[]), &["user"]).unwrap(),
        ["user-1-1", "webserver-0.1-1 by user"],
        "the name itself"
    );
    let conflicting = [user.clone(), server("alpha", "1-1", &[]), server("beta", "2-1", &["conflicts base"])];
    assert_eq!(closure(&conflicting, &base(&[("base", "1-1")]), &["user"]).unwrap(), ["alpha-1-1 by user", "user-1-1"]);
    let obsolete = [user, server("alpha", "1-1", &["obsoletes beta < 3"]), server("beta", "2-1", &[])];
    assert_eq!(closure(&obsolete, &base(&[]), &["user"]).unwrap(), ["alpha-1-1 by user", "user-1-1"]);
}

#[test]
fn boolean_requirements_are_followed() {
    let with = |requirement: &str| {
        vec![
            package("a", "1-1", &[&format!("requires {requirement}")]),
            package("b", "1-1", &["provides f = 1"]),
            package("c", "2-1", &["provides f = 2, g"]),
            package("d", "1-1", &["requires e"]),
            package("e", "1-1", &[]),
        ]
    };
    let names = |requirement: &str, roots: &[&str]| -> String {
        let found = closure(&with(requirement), &base(&[("h", "1-1")]), roots);
        found.map_or_else(|error| error, |all| all.iter().map(|label| &label[..1]).collect::<String>())
    };
    assert_eq!(names("(b and c)", &["a"]), "abc");
    assert_eq!(names("(b or c)", &["a"]), "ab");
    assert_eq!(names("(b or c)", &["a", "c"]), "ac");
    assert_eq!(names("(nothing or c)", &["a"]), "ac");
    assert_eq!(names("(b or h)", &["a"]), "a");
    assert_eq!(names("(b if e)", &["a"]), "a");
    assert_eq!(names("(b if e)", &["a", "d"]), "abde", "the condition comes true later");
    assert_eq!(names("(b if h)", &["a"]), "ab");
    assert_eq!(names("(b if e else c)", &["a"]), "ac");
    assert_eq!(names("(b if e else c)", &["a", "d"]), "abde");
    assert_eq!(names("(f >= 1 with g)", &["a"]), "ac");
    assert_eq!(names("(f without g)", &["a"]), "ab");
    assert_eq!(names("((b and c) if (d or e))", &["a", "e"]), "abce");
    for (requirement, says) in [
        ("(b unless c)", "a requirement with `unless`"),
        ("(b xor c)", "the boolean dependency `(b xor c)` cannot be read"),
        ("(nothing or no-one)", "no package offers one of `nothing`, `no-one`"),
        ("(f > 2 with g)", "no package offers `f > 2` and `g`"),
    ] {
        let error = names(requirement, &["a"]);
        assert!(error.contains(says) && error.contains("`a-1-1.x86_64`"), "{error}");
    }
}

#[test]
fn files_are_looked_for_in_the_file_lists_once() {
    let packages = [
        package("a", "1-1", &["requires /usr/share/x/data, /usr/bin/tool"]),
        package("data", "1-1", &["requires /usr/share/y"]),
        package("tool", "1-1", &["files /usr/bin/tool"]),
        package("y", "1-1", &[]),
    ];
    let packages: Vec<&Package> = packages.iter().collect();
    let mut asked = Vec::new();
    let members = resolve(&packages, &base(&[]), Architecture::Amd64, &["a".to_owned()], &mut |paths| {
        asked.push(paths.iter().map(ToString::to_string).collect::<Vec<_>>());
        Ok(BTreeMap::from([(Arc::from("/usr/share/x/data"), vec![1]), (Arc::from("/usr/share/y"), vec![3])]))
    });
    let names: Vec<&str> = members.unwrap().iter().map(|member| &*packages[member.package].name).collect();
    assert_eq!(names, ["a", "data", "tool", "y"]);
    assert_eq!(asked, [["/usr/share/x/data", "/usr/share/y"]]);
    let missing = resolve(&packages, &base(&[]), Architecture::Amd64, &["a".to_owned()], &mut |_| Ok(BTreeMap::new()));
    let error = format!("{:#}", missing.unwrap_err());
    assert!(error.contains("`a-1-1.x86_64`: no package offers `/usr/share/x/data`"), "{error}");
}

#[test]
fn every_contradiction_is_reported_with_the_way_to_it() {
    let packages = [
        package("a", "1-1", &["requires b"]),
        package("b", "1-1", &["requires missing >= 2, c"]),
        package("c", "1-1", &["conflicts a < 2, old"]),
        package("d", "1-1", &["obsoletes old < 2, a"]),
        package("old", "1-1", &["conflicts d"]),
        package("missing", "1-1", &[]),
    ];
    let error = closure(&packages, &base(&[("old", "1-1")]), &["a", "d", "zz"]).unwrap_err();
    for says in [
        "no package is called `zz`",
        "`b-1-1.x86_64`, needed by `a`: no package offers `missing >= 2`, only missing-1-1.x86_64",
        "`c-1-1.x86_64`, needed by `b`, needed by `a`: it conflicts with `a < 2`, which is `a-1-1.x86_64`",
        "`c-1-1.x86_64`, needed by `b`, needed by `a`: it conflicts with `old`, which is the base's `old`",
        "`d-1-1.x86_64`: it makes the base's `old` obsolete (`old < 2`)",
        "`d-1-1.x86_64`: it makes `a-1-1.x86_64` obsolete (`a`)",
        "`d-1-1.x86_64`: the base's `old` conflicts with it",
    ] {
        assert!(error.contains(says), "{says}\n{error}");
    }
    let two = [
        package("a", "1-1", &["requires b = 1, c"]),
        package("b", "1-1", &[]),
        package("b", "2-1", &[]),
        package("c", "1-1", &["requires b = 2"]),
    ];
    let error = closure(&two, &base(&[]), &["a"]).unwrap_err();
    assert!(
        error.contains("`c-1-1.x86_64`, needed by `a`: `b = 2` contradicts the choice of `b-1-1.x86_64`"),
        "{error}"
    );
    let error = closure(&two, &base(&[]), &["b=3"]).unwrap_err();
    assert!(error.contains("`b=3` is not on offer: there is 1-1, 2-1"), "{error}");
    assert!(closure(&two, &base(&[("b", "2-1")]), &["b=1"]).unwrap_err().contains("older than the base's 2-1"));
}

#[test]
fn what_depends_on_a_replaced_package_of_the_base_follows() {
    let packages = [
        package("a", "1-1", &["requires ssl-libs >= 3"]),
        package("ssl-libs", "2-1", &[]),
        package("ssl-libs", "3-1", &[]),
        package("ssl", "2-1", &["requires ssl-libs = 2-1"]),
        package("ssl", "3-1", &["requires ssl-libs = 3-1"]),
        package("other", "1-1", &["requires ssl-libs"]),
    ];
    let base = base(&[("ssl", "2-1"), ("ssl-libs", "2-1"), ("other", "1-1")]);
    assert_eq!(closure(&packages, &base, &["a"]).unwrap(), ["a-1-1", "ssl-3-1 by ssl-libs", "ssl-libs-3-1 by a"]);
}

#[test]
fn kernels_are_installed_beside_the_bases() {
    let kernel = |version: &str| {
        package("kernel-core", version, &["provides installonlypkg(kernel)", "conflicts kernel-core < 5"])
    };
    let packages = [kernel("6-1"), package("tool", "1-1", &["requires kernel-core = 5-1"])];
    let found = closure(&packages, &base(&[("kernel-core", "5-1")]), &["kernel-core=6", "tool"]).unwrap();
    assert_eq!(found, ["kernel-core-6-1", "tool-1-1"]);
}

#[test]
fn the_order_of_what_is_asked_for_does_not_matter() {
    let packages = [
        package("a", "1-1", &["requires x"]),
        package("b", "1-1", &["requires y"]),
        package("p", "1-1", &["provides x, y"]),
        package("q", "2-1", &["provides x"]),
    ];
    let one = closure(&packages, &base(&[]), &["a", "b"]).unwrap();
    assert_eq!(one, closure(&packages, &base(&[]), &["b", "a", "b"]).unwrap());
    assert_eq!(one, ["a-1-1", "b-1-1", "p-1-1 by b"]);
}
