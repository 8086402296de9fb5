//! What programs and libraries say of themselves must hold on every promised distribution: architecture, libraries, loader,
//! version of glibc.
//!
//! A library that a program needs is found (ld.so(8)) in the component itself if the program's own run path leads there with
//! `$ORIGIN`; in an absolute run path, if a package of the bundle puts it there; or in the loader's own directories, where
//! the bundle's packages and the stated base put theirs. Container images that are packed from files bring everything.

use std::collections::BTreeMap;

use bundle::component::{Entry, Kind};
use bundle::{Architecture, LayerPath};

use super::Piece;
use super::problem::Problem;
use super::target::Target;
use crate::archive;
use crate::elf::Elf;

/// What is missing and its remedy, and the files that need it.
type Findings = BTreeMap<(String, String), Vec<String>>;

pub(super) fn problems(pieces: &[Piece], architecture: Architecture, targets: &[Target]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for piece in pieces {
        let mut findings = Findings::new();
        for (path, elf) in &piece.elf {
            let mut found = of_file(path, elf.as_ref(), architecture);
            if let Ok(elf) = elf {
                match piece.component.kind {
                    Kind::Container => found.extend(in_image(piece, elf)),
                    _ => found.extend(targets.iter().flat_map(|target| on_target(piece, path, elf, target))),
                }
            }
            for finding in found {
                findings.entry(finding).or_default().push(path.to_string());
            }
        }
        problems.extend(findings.into_iter().map(|((missing, remedy), files)| {
            Problem::content(format!("`{}` ({})", piece.component.name, files.join(", ")), missing, remedy)
        }));
    }
    problems
}

fn of_file(path: &LayerPath, elf: Result<&Elf, &String>, architecture: Architecture) -> Vec<(String, String)> {
    match elf {
        Err(damage) => vec![(
            format!("a whole ELF file, but its `{path}` is damaged ({damage})"),
            "compare the artifact with upstream's; nothing that cannot be checked goes into a bundle".into(),
        )],
        Ok(elf) if elf.machine != architecture.machine() => vec![(
            format!(
                "a machine that is {}, but the bundle is for {architecture} ({})",
                elf.machine,
                architecture.machine()
            ),
            format!(
                "name the artifact for {architecture}: `{{arch}}` and `{{machine}}` are replaced by the architecture"
            ),
        )],
        Ok(_) => Vec::new(),
    }
}

fn on_target(piece: &Piece, path: &LayerPath, elf: &Elf, target: &Target) -> Vec<(String, String)> {
    let (on, component, table) = (target.name(), &piece.component.name, target.packages_table());
    let mut found = Vec::new();
    let loader = elf.interpreter.iter().map(|path| path.rsplit('/').next().unwrap_or(path));
    for name in loader.chain(elf.needed.iter().map(String::as_str)) {
        if target.has_library(name) || on_run_path(piece, path, elf, name, target) {
            continue;
        }
        let inside = piece.files.iter().find(|file| file.path.as_str().rsplit('/').next() == Some(name));
        let remedy = match inside {
            Some(file) => format!(
                "the component has `{}`, but the program's run path does not lead there: take a build with the run path `$ORIGIN/…`",
                file.path
            ),
            None => format!(
                "add the package that brings it to {table} (for one component: `[component.{component}.packages.{on}]`), or take a static build"
            ),
        };
        found.push((format!("the library `{name}`, which {on} does not have"), remedy));
    }
    if let Some(needed) = elf.glibc.filter(|needed| *needed > target.glibc) {
        found.push((
            format!("glibc {needed}, but {on} has {}", target.glibc),
            format!("take a build made for {on} or an older distribution, or a static one"),
        ));
    }
    found.extend(elf.unusual.iter().map(|name| {
        let missing = format!("the symbol version `{name}`, which no release of glibc promises");
        (missing, "take a build that keeps to glibc's public interface".to_owned())
    }));
    found
}

fn on_run_path(piece: &Piece, path: &LayerPath, elf: &Elf, name: &str, target: &Target) -> bool {
    elf.run_path.iter().any(|directory| {
        let relative = directory.strip_prefix("$ORIGIN").or_else(|| directory.strip_prefix("${ORIGIN}"));
        match relative {
            Some(rest) => has_file(piece, archive::link_target(path.as_str(), &format!("./{rest}/{name}")).as_deref()),
            None => directory.starts_with('/') && target.has_packaged(&format!("{directory}/{name}")),
        }
    })
}

/// In a container there is nothing but the image: wherever its libraries lie, they are among its files.
fn in_image(piece: &Piece, elf: &Elf) -> Vec<(String, String)> {
    let name_of = |path: &str| path.rsplit('/').next().map(str::to_owned);
    let there = |name: &str| piece.files.iter().any(|file| name_of(file.path.as_str()).as_deref() == Some(name));
    let missing =
        elf.needed.iter().filter(|name| !there(name)).map(|name| format!("the library `{name}` in its image"));
    let loader = elf.interpreter.as_deref().map(|path| path.trim_start_matches('/'));
    let loader =
        loader.filter(|path| !has_file(piece, Some(path))).map(|path| format!("the loader `/{path}` in its image"));
    let remedy = "add it to the component's `files`, or take a static build";
    missing.chain(loader).map(|missing| (missing, remedy.to_owned())).collect()
}

fn has_file(piece: &Piece, path: Option<&str>) -> bool {
    piece.files.iter().any(|file| Some(file.path.as_str()) == path && !matches!(file.entry, Entry::Directory))
}

#[cfg(test)]
mod tests {
    use bundle::component::File;

    use super::super::fake;
    use super::*;

    fn with(path: &str, elf: Elf) -> Piece {
        let mut piece = fake::program("tool", &[]);
        piece.elf.insert(path.parse().unwrap(), Ok(elf));
        piece
    }

    fn texts(piece: Piece, targets: &[Target]) -> Vec<String> {
        problems(&[piece], Architecture::Amd64, targets).iter().map(ToString::to_string).collect()
    }

    fn file(path: &str) -> File {
        File { path: path.parse().unwrap(), entry: Entry::Symlink { target: "x".into() } }
    }

    #[test]
    fn a_program_that_fits_is_no_problem() {
        let elf = fake::elf(&["libc.so.6", "libseccomp.so.2"], "2.36");
        assert_eq!(texts(with("bin/tool", elf), &[fake::target()]), Vec::<String>::new());
    }

    #[test]
    fn a_newer_glibc_is_a_problem_for_each_file_that_needs_it() {
        let mut piece = with("bin/tool", fake::elf(&["libc.so.6"], "2.38"));
        piece.elf.insert("bin/other".parse().unwrap(), Ok(fake::elf(&[], "2.38")));
        piece.elf.insert("bin/old".parse().unwrap(), Ok(fake::elf(&[], "2.2.5")));
        let found = texts(piece.clone(), &[fake::target()]);
        assert_eq!(
            found,
            [
                "`tool` (bin/other, bin/tool) needs glibc 2.38, but debian-12 has 2.36: take a build made for debian-12 or an older distribution, or a static one"
            ]
        );
        let mut newer = fake::target();
        newer.glibc = "2.41".parse().unwrap();
        assert_eq!(texts(piece.clone(), &[newer]), Vec::<String>::new());
        assert_eq!(texts(piece, &[]), Vec::<String>::new(), "nothing is known of any host");
        let private = Elf { unusual: vec!["GLIBC_PRIVATE".into()], ..fake::elf(&[], "2.36") };
        assert!(texts(with("bin/tool", private), &[fake::target()])[0].contains("symbol version `GLIBC_PRIVATE`"));
    }

    #[test]
    fn every_library_must_be_found() {
        let elf = || fake::elf(&["libodd.so.3"], "2.36");
        let found = texts(with("bin/tool", elf()), &[fake::target()]);
        assert_eq!(found.len(), 1, "{found:#?}");
        for part in ["`tool` (bin/tool) needs the library `libodd.so.3`", "debian-12", "`[packages.debian-12]`"] {
            assert!(found[0].contains(part), "{part} in {found:#?}");
        }
        // In the component, but nothing leads there.
        let mut inside = with("bin/tool", elf());
        inside.files.push(file("lib/libodd.so.3"));
        assert!(texts(inside.clone(), &[fake::target()])[0].contains("run path does not lead there"));
        // The run path leads there, or elsewhere, or out of the component.
        for (run_path, fits) in [
            ("$ORIGIN/../lib", true),
            ("${ORIGIN}/../lib/", true),
            ("$ORIGIN", false),
            ("$ORIGIN/../../lib", false),
            ("/lib", false),
        ] {
            let mut led = inside.clone();
            let elf = Elf { run_path: vec![run_path.into()], ..elf() };
            led.elf.insert("bin/tool".parse().unwrap(), Ok(elf));
            assert_eq!(texts(led, &[fake::target()]).is_empty(), fits, "{run_path}");
        }
        let musl = Elf { interpreter: Some("/lib/ld-musl-x86_64.so.1".into()), ..fake::elf(&[], "2.36") };
        assert!(texts(with("bin/tool", musl), &[fake::target()])[0].contains("`ld-musl-x86_64.so.1`"));
    }

    #[test]
    fn programs_of_another_architecture_and_damaged_ones_are_a_problem_without_any_target() {
        let arm = Elf { machine: "aarch64".into(), ..fake::elf(&[], "2.36") };
        let found = texts(with("bin/tool", arm), &[]);
        assert!(found[0].contains("a machine that is aarch64, but the bundle is for amd64 (x86_64)"), "{found:#?}");
        let mut damaged = fake::program("tool", &[]);
        damaged.elf.insert("bin/tool".parse().unwrap(), Err("it ends too early".into()));
        let found = texts(damaged, &[]);
        assert!(found[0].contains("`bin/tool` is damaged (it ends too early)"), "{found:#?}");
    }

    #[test]
    fn an_image_brings_its_own_libraries() {
        let mut image = with("bin/sh", fake::elf(&["libc.so.6"], "2.99"));
        image.component.kind = Kind::Container;
        let found = texts(image.clone(), &[fake::target()]);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found.iter().any(|text| text.contains("the library `libc.so.6` in its image")), "{found:#?}");
        assert!(found.iter().any(|text| text.contains("the loader `/lib64/ld-linux-x86-64.so.2` in its image")));
        image.files.extend([file("usr/lib/libc.so.6"), file("lib64/ld-linux-x86-64.so.2")]);
        assert_eq!(texts(image, &[]), Vec::<String>::new());
    }
}
