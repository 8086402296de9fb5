//! What is missing in a bundle is said at build time, with a remedy; what the builder reads of programs is what binutils read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use builder::elf::{self, Elf, GlibcVersion};

/// The programs and libraries of this machine, some hundred of them.
fn programs() -> Vec<PathBuf> {
    let libraries = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let files = ["/usr/bin", "/usr/sbin", &libraries].into_iter().flat_map(|directory| {
        fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    });
    let mut files: Vec<PathBuf> =
        files.filter_map(|path| fs_err::canonicalize(path).ok()).filter(|path| path.is_file()).collect();
    files.sort();
    files.dedup();
    files
}

/// What `readelf` (binutils) says about many files, in the same words.
fn readelf(files: &[&PathBuf]) -> BTreeMap<PathBuf, Elf> {
    let output = Command::new("readelf").env("LC_ALL", "C").arg("-hldVW").args(files).output();
    let output =
        output.unwrap_or_else(|error| panic!("readelf of build-essential (scripts/prerequisites.sh): {error}"));
    let text = String::from_utf8(output.stdout).unwrap();
    let bracket = |line: &str| line.split_once('[').unwrap().1.rsplit_once(']').unwrap().0.to_owned();
    let mut all = BTreeMap::new();
    for part in text.split("\nFile: ").skip(1) {
        let (path, rest) = part.split_once('\n').unwrap();
        let mut elf = Elf {
            machine: if rest.contains("X86-64") { "x86_64".into() } else { "aarch64".into() },
            interpreter: None,
            soname: None,
            needed: Vec::new(),
            run_path: Vec::new(),
            glibc: None,
            unusual: Vec::new(),
        };
        for line in rest.lines() {
            if line.contains("[Requesting program interpreter: ") {
                elf.interpreter = Some(bracket(line).replace("Requesting program interpreter: ", ""));
            } else if line.contains("(NEEDED)") {
                elf.needed.push(bracket(line));
            } else if line.contains("(SONAME)") {
                elf.soname = Some(bracket(line));
            } else if line.contains("(RUNPATH)") || line.contains("(RPATH)") {
                elf.run_path = bracket(line).split(':').map(str::to_owned).collect();
            } else if let Some((_, version)) = line.split_once(" Name: GLIBC_")
                && line.contains("Version: ")
                && !line.contains("WEAK")
            {
                let version = version.split_whitespace().next().unwrap();
                match if version == "ABI_DT_RELR" { "2.36" } else { version }.parse::<GlibcVersion>() {
                    Ok(version) => elf.glibc = elf.glibc.max(Some(version)),
                    Err(_) => elf.unusual.push(format!("GLIBC_{version}")),
                }
            }
        }
        all.insert(Path::new(path).to_owned(), elf);
    }
    all
}

/// Every program and library in this machine's directories: the same as readelf says, name by name.
#[test]
fn programs_need_what_readelf_says() {
    let files = programs();
    let ours: Vec<(&PathBuf, Elf)> = files
        .iter()
        .filter_map(|path| {
            let read = elf::read(&mut fs_err::File::open(path).unwrap());
            Some((path, read.unwrap_or_else(|error| panic!("{}: {error}", path.display()))?))
        })
        .collect();
    let theirs = readelf(&ours.iter().map(|(path, _)| *path).collect::<Vec<_>>());
    assert!(ours.len() > 100 && theirs.len() == ours.len(), "{} files, readelf {}", ours.len(), theirs.len());
    for (path, elf) in &ours {
        assert_eq!(&theirs[*path], elf, "{}", path.display());
    }
    assert!(ours.iter().any(|(_, elf)| elf.glibc > Some("2.30".parse().unwrap())));
}
