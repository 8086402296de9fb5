//! Small worlds of packages: each rule, and each way of failing.

use std::collections::BTreeMap;

use bundle::{Architecture, Digest};

use super::*;
use crate::source::apt::{Package, parse_packages};

/// Entries of one line each, fields separated by semicolons: `NAME VERSION; Depends: x; …`.
fn world(lines: &[&str]) -> Vec<Package> {
    let entry = |line: &&str| {
        let mut parts = line.split("; ");
        let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
        let fields = ["Section: x"].into_iter().chain(parts).collect::<Vec<_>>().join("\n");
        let digest = Digest::of(line.as_bytes()).hex();
        format!(
            "Package: {name}\nVersion: {version}\n{fields}\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {digest}\n\n"
        )
    };
    parse_packages(&lines.iter().map(entry).collect::<String>())
}

fn universe(packages: &[Package]) -> Universe<'_> {
    let suites = vec![vec!["bookworm".to_owned(), "stable".to_owned()], vec!["backports".to_owned()]];
    // Everything with a `~bpo` is of the second index.
    let indexed = |package| (package, usize::from(Package::version_contains(package, "~bpo")));
    Universe::new(packages.iter().map(indexed).collect(), Architecture::Amd64, suites)
}

impl Package {
    fn version_contains(&self, text: &str) -> bool {
        self.version.contains(text)
    }
}

/// The closure as `NAME=VERSION<NEEDED_BY` in order, stages separated by a bar; or the error.
fn solve(lines: &[&str], base: &[(&str, &str)], install: &[&str]) -> String {
    solve_with(lines, base, install, false)
}

fn solve_with(lines: &[&str], base: &[(&str, &str)], install: &[&str], recommends: bool) -> String {
    let packages = world(lines);
    let universe = universe(&packages);
    // `NAME VERSION` of the base, or `NAME provides TEXT`.
    let provides = base.iter().filter_map(|(name, text)| Some((name, text.strip_prefix("provides ")?)));
    let provides: BTreeMap<String, String> =
        provides.map(|(name, text)| ((*name).to_owned(), text.to_owned())).collect();
    let base: BTreeMap<String, String> = base
        .iter()
        .map(|(name, version)| {
            ((*name).to_owned(), version.strip_prefix("provides ").map_or(*version, |_| "1").to_owned())
        })
        .collect();
    let install: Vec<String> = install.iter().map(|name| (*name).to_owned()).collect();
    let closure = match resolve(&universe, &Request { install: &install, base: &base, provides: &provides, recommends })
    {
        Ok(closure) => closure,
        Err(error) => return error.to_string(),
    };
    let mut stage = 0;
    let shown = |member: &Member<'_>| {
        let bar = if member.stage > stage { "| " } else { "" };
        stage = member.stage;
        let needed = member.needed_by.map(|name| format!("<{name}")).unwrap_or_default();
        let renews = member.renews.map(|version| format!("[{version}]")).unwrap_or_default();
        format!("{bar}{}={}{renews}{needed}", member.package.name, member.package.version)
    };
    closure.members.iter().map(shown).collect::<Vec<_>>().join(" ")
}

#[test]
fn dependencies_come_with_what_was_asked_for_and_the_base_stays_out() {
    let lines = [
        "tool 1.0; Depends: libfoo (>= 1.1), libc6 (>= 2.36), perl:any; Recommends: docs",
        "libfoo 1.0",
        "libfoo 1.2; Depends: libbar",
        "libbar 3",
        "libc6 2.36",
        "perl 5.36; Multi-Arch: allowed",
        "docs 1",
    ];
    let base = [("libc6", "2.36-9"), ("perl", "5.36")];
    let mut members: Vec<String> = solve(&lines, &base, &["tool"]).split(' ').map(str::to_owned).collect();
    members.sort();
    assert_eq!(members, ["libbar=3<libfoo", "libfoo=1.2<tool", "tool=1.0"]);
    assert!(solve_with(&lines, &base, &["tool"], true).contains("docs=1<tool"));
    // What is recommended and cannot be had does no harm.
    assert!(!solve_with(&["tool 1; Recommends: docs", "docs 1; Depends: gone"], &[], &["tool"], true).contains("docs"));
    // In the base already: nothing to bring.
    assert_eq!(solve(&lines, &base, &["libc6"]), "");
}

#[test]
fn roots_can_name_a_version_or_a_suite() {
    let lines = ["tool 1.0", "tool 1.1", "tool 2~bpo1; Depends: new", "new 1~bpo1"];
    assert_eq!(solve(&lines[..2], &[], &["tool"]), "tool=1.1");
    assert_eq!(solve(&lines, &[], &["tool=1.0"]), "tool=1.0");
    assert_eq!(solve(&lines, &[], &["tool/stable"]), "tool=1.1");
    let both = solve(&lines, &[], &["tool/backports"]);
    assert!(both.contains("tool=2~bpo1") && both.contains("new=1~bpo1<tool"), "{both}");
    for wrong in ["", "a b", "a (>= 1)", "a=1/x", "../a", "a=", "a | b"] {
        assert!(solve(&lines, &[], &[wrong]).contains("is no package"), "{wrong}");
    }
}

#[test]
fn alternatives_prefer_what_is_there_then_the_first_possible() {
    let lines = [
        "tool 1; Depends: first | second",
        "first 1; Depends: gone",
        "second 1",
        "third 1",
        "user 1; Depends: second",
        "either 1; Depends: third | second",
    ];
    let sorted = |text: String| {
        let mut names: Vec<String> = text.split(' ').map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    // `first` cannot be installed.
    assert_eq!(sorted(solve(&lines, &[], &["tool"])), "second=1<tool tool=1");
    // `second` is chosen anyway, though `either` comes first and would prefer `third`.
    assert_eq!(sorted(solve(&lines, &[], &["either", "user"])), "either=1 second=1<user user=1");
    assert_eq!(sorted(solve(&lines, &[], &["either"])), "either=1 third=1<either");
    assert_eq!(solve(&lines, &[("second", "1")], &["either"]), "either=1");
}

#[test]
fn virtual_packages_count_with_their_versions() {
    let lines = [
        "tool 1; Depends: api (>= 2), mta",
        "old 9; Provides: api (= 1), mta",
        "new 1; Provides: api (= 2)",
        "plain 9; Provides: api",
    ];
    let text = solve(&lines, &[("old", "9")], &["tool"]);
    assert!(text.contains("new=1<tool") && !text.contains("old") && !text.contains("plain"), "{text}");
    let text = solve(&lines[..2], &[("old", "9")], &["tool"]);
    assert!(
        text.contains("`api (>= 2)` is needed by `tool`: on offer is `old` 9 in bookworm, which provides it"),
        "{text}"
    );
}

#[test]
fn what_the_base_states_to_be_provided_counts_though_no_index_lists_the_package() {
    let lines = ["tool 1; Depends: lsb-base (>= 3)"];
    assert_eq!(solve(&lines, &[("sysvinit-utils", "provides lsb-base (= 11), x")], &["tool"]), "tool=1");
    let text = solve(&lines, &[("sysvinit-utils", "provides lsb-base (= 2)")], &["tool"]);
    assert!(text.contains("`lsb-base (>= 3)` is needed by `tool`"), "{text}");
    // What is stated is right even where an index lists a newer version that provides more.
    let newer = ["tool 1; Depends: api", "base 2; Provides: api"];
    assert!(solve(&newer, &[("base", "provides other")], &["tool"]).contains("base=2[1]<tool"));
}

#[test]
fn a_base_package_that_is_too_old_is_renewed_with_its_siblings() {
    let lines = [
        "tool 1; Depends: perl",
        "perl 5.36-7+u2; Depends: perl-base (= 5.36-7+u2)",
        "perl-base 5.36-7+u2; Essential: yes",
        "perl-extra 5.36-7+u2; Depends: perl-base (= 5.36-7+u2)",
        "lib-perl 5; Depends: perl-base (>= 5)",
    ];
    let base = [("perl-base", "5.36-7"), ("perl-extra", "5.36-7"), ("lib-perl", "5")];
    let text = solve(&lines, &base, &["tool"]);
    assert!(text.contains("perl-base=5.36-7+u2[5.36-7]<perl"), "{text}");
    // `perl-extra` of the base needs the very version of `perl-base` that goes.
    assert!(text.contains("perl-extra=5.36-7+u2[5.36-7]<perl-base"), "{text}");
    assert!(!text.contains("lib-perl"), "{text}");
    // Without the newer sibling there is no way.
    let without: Vec<&str> = lines.into_iter().filter(|line| !line.starts_with("perl-extra")).collect();
    let text = solve(&[&without[..], &["perl-extra 5.36-7; Depends: perl-base (= 5.36-7)"]].concat(), &base, &["tool"]);
    assert!(text.contains("`perl-extra (>> 5.36-7)` must come with `tool` → `perl` → `perl-base`: on offer is `perl-extra` 5.36-7 in bookworm"), "{text}");
}

#[test]
fn a_base_package_is_never_taken_back() {
    let text = solve(&["tool 1; Depends: lib (<< 2)", "lib 1"], &[("lib", "3")], &["tool"]);
    assert!(text.contains("`lib (<< 2)` is needed by `tool`: `lib` 1 is older than 3 in the base"), "{text}");
}

#[test]
fn the_search_goes_back_when_a_choice_was_wrong() {
    // The highest `lib` is chosen for `a` before `b` asks for another.
    let lines = ["a 1; Depends: lib", "b 1; Depends: mid", "mid 1; Depends: lib (<< 2)", "lib 1", "lib 2"];
    let text = solve(&lines, &[], &["a", "b"]);
    assert!(text.contains("lib=1<"), "{text}");
    // Two alternatives that exclude each other's needs.
    let lines = [
        "a 1; Depends: x | y",
        "x 1; Conflicts: z",
        "y 1",
        "b 1; Depends: w | v",
        "w 1; Depends: z",
        "z 1",
        "v 1; Depends: gone",
    ];
    let text = solve(&lines, &[], &["a", "b"]);
    assert!(text.contains("y=1<a") && text.contains("z=1<w"), "{text}");
}

#[test]
fn everything_that_is_missing_is_named_with_its_chain() {
    let lines = [
        "tool 1; Depends: mid, gone (>= 2)",
        "mid 1; Depends: deep, libc6 (>= 2.40)",
        "deep 1; Depends: lost | away",
        "libc6 2.36",
    ];
    let text = solve(&lines, &[("libc6", "2.36-9")], &["tool", "unknown"]);
    let expected = [
        "they cannot be installed on the base:",
        "    `unknown` was asked for: nothing of that name is on offer",
        "    `gone (>= 2)` is needed by `tool`: nothing of that name is on offer",
        "    `libc6 (>= 2.40)` is needed by `tool` → `mid`: on offer is `libc6` 2.36 in bookworm, `libc6` 2.36-9 in the base",
        "    `lost | away` is needed by `tool` → `mid` → `deep`: nothing of that name is on offer",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn exclusions_are_named_all_at_once() {
    let lines = [
        "a 1; Conflicts: b; Depends: gone",
        "b 1; Breaks: virtual (<< 2)",
        "c 1; Provides: virtual (= 1)",
        "d 1; Breaks: based (<< 5)",
        "based 4",
        "e 1",
        "jealous 1; Conflicts: e",
    ];
    let text = solve(&lines, &[("based", "4"), ("jealous", "1")], &["a", "b", "c", "d", "e"]);
    for says in [
        "`gone` is needed by `a`: nothing of that name is on offer",
        "`a` 1 conflicts with `b`: `b` 1",
        "`b` 1 breaks `virtual (<< 2)`: `c` 1",
        "`d` 1 breaks `based (<< 5)`: `based` 4 of the base",
        "`jealous` 1 conflicts with `e`: `e` 1 of the base",
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
    // A package may conflict with what it provides itself.
    assert_eq!(solve(&["a 1; Provides: x; Conflicts: x"], &[], &["a"]), "a=1");
}

#[test]
fn what_breaks_a_base_package_brings_its_newer_version() {
    let lines = ["a 2; Breaks: helper (<< 2); Replaces: helper (<< 2)", "helper 2", "helper 1"];
    let text = solve(&lines, &[("helper", "1")], &["a"]);
    assert!(text.contains("a=2") && text.contains("helper=2[1]<a"), "{text}");
}

#[test]
fn a_base_package_may_be_replaced_when_all_that_need_it_are_served() {
    let lines = [
        "new-cron 1; Provides: cron; Conflicts: old-cron; Replaces: old-cron",
        "old-cron 1; Provides: cron",
        "user 1; Depends: cron",
        "strict 1; Depends: old-cron",
    ];
    assert_eq!(solve(&lines, &[("old-cron", "1"), ("user", "1")], &["new-cron"]), "new-cron=1");
    let text = solve(&lines, &[("old-cron", "1"), ("strict", "1")], &["new-cron"]);
    assert!(text.contains("`strict (>> 1)` must come with `new-cron`"), "{text}");
    let essential = ["new 1; Conflicts: old; Replaces: old", "old 1; Essential: yes"];
    assert!(solve(&essential, &[("old", "1")], &["new"]).contains("`new` 1 conflicts with `old`"));
}

#[test]
fn pre_depends_come_first_and_in_an_earlier_stage() {
    let lines = [
        "tool 1; Depends: early",
        "early 1; Pre-Depends: zlib; Depends: late",
        "zlib 1; Depends: zdata",
        "zdata 1",
        "late 1; Depends: early",
    ];
    assert_eq!(solve(&lines, &[], &["tool"]), "zlib=1<early zdata=1<zlib | early=1<tool late=1<early tool=1");
    let circle = ["a 1; Depends: b", "b 1; Pre-Depends: a"];
    assert!(solve(&circle, &[], &["a"]).contains("must be configured before each other"));
}

#[test]
fn the_result_does_not_depend_on_the_order_of_the_index() {
    let mut lines = vec![
        "a 1; Depends: v, c | d",
        "p 1; Provides: v",
        "q 1; Provides: v",
        "c 1; Depends: e",
        "d 1",
        "e 1; Depends: a",
    ];
    let first = solve(&lines, &[], &["a"]);
    for _ in 0..lines.len() {
        lines.rotate_left(1);
        assert_eq!(solve(&lines, &[], &["a"]), first);
    }
    assert!(first.contains("p=1<a") && first.contains("c=1<a"), "{first}");
}

#[test]
fn entries_that_cannot_be_relied_on_are_not_chosen() {
    let text = solve(&["a 1; Depends: b (>> "], &[], &["a"]);
    assert!(text.contains("the entry of `a` cannot be read: `b (>>` is no relation to a package"), "{text}");
    let text = solve(&["a 1", "a 1; Essential: yes"], &[], &["a"]);
    assert!(text.contains("two sources offer `a` 1 with different digests"), "{text}");
    // An architecture of its own is not met by this one.
    let text = solve(&["a 1; Depends: b:arm64", "b 1"], &[], &["a"]);
    assert!(text.contains("`b:arm64` is needed by `a`"), "{text}");
    let text = solve(&["a 1; Depends: b:any", "b 1"], &[], &["a"]);
    assert!(text.contains("`b:any` is needed by `a`"), "{text}");
}

#[test]
fn a_search_that_takes_too_much_work_is_given_up() {
    let packages = world(&["a 1; Depends: b", "b 1; Depends: c", "c 1; Conflicts: x"]);
    let universe = universe(&packages);
    let (install, nothing) = (["a".to_owned()], BTreeMap::new());
    let request = Request { install: &install, base: &nothing, provides: &nothing, recommends: false };
    let roots = vec![requirement::root("a").unwrap()];
    let search = |work: Option<u64>| {
        let mut solver = Solver::new(&universe, &request, &roots).unwrap();
        let whole = solver.work.get();
        solver.work.set(work.unwrap_or(whole));
        (solver.search(), whole - solver.work.get())
    };
    let (found, spent) = search(None);
    assert!(found == Ok(()) && (5..100).contains(&spent), "{spent}");
    for work in 1..=spent {
        assert_eq!(search(Some(work)).0, Err(true), "{work}");
    }
    assert_eq!(search(Some(spent + 1)).0, Ok(()));
}
