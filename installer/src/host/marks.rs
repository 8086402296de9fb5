//! Our part in a text file that belongs to others (`/etc/hosts`, `/etc/fstab`): a block between two marks, and lines that
//! are commented out with a mark.
//!
//! Taking the marks away gives the file as others left it, also when they have changed it since: no before-image could.
//! Files are bytes: a comment in another encoding than UTF-8 is nobody's business.

use std::path::Path;

use anyhow::Result;

use super::{Entry, Host};

const BEGIN: &str = "# BEGIN sealift";
/// The file did not end with a line break; one was added before the block.
const BEGIN_BROKEN: &str = "# BEGIN sealift (the line before had no end)";
const END: &str = "# END sealift";
const OUT: &str = "# sealift: ";

/// How a file shall differ from what others wrote.
#[derive(Debug)]
pub struct Marks<'a> {
    /// Lines of our block; no block when empty.
    pub block: &'a [String],
    /// Which lines of others are commented out.
    pub out: fn(&str) -> bool,
}

/// Nothing is commented out.
pub const NONE_OUT: fn(&str) -> bool = |_| false;

impl Marks<'_> {
    /// A file's text with the marks, whatever of them it has already. A block keeps its place.
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        let mut found = false;
        let mut wanted = Vec::new();
        for part in parts(text) {
            match part {
                Part::Block(begin) if !found && !self.block.is_empty() => {
                    found = true;
                    self.write(begin, &mut wanted);
                }
                Part::Block(..) => {}
                Part::Line(line) => {
                    let line = line.strip_prefix(OUT.as_bytes()).unwrap_or(line);
                    if (self.out)(String::from_utf8_lossy(line).trim_end()) {
                        wanted.extend_from_slice(OUT.as_bytes());
                    }
                    wanted.extend_from_slice(line);
                }
            }
        }
        if !found && !self.block.is_empty() {
            let whole = wanted.is_empty() || wanted.ends_with(b"\n");
            if !whole {
                wanted.push(b'\n');
            }
            self.write(if whole { BEGIN } else { BEGIN_BROKEN }, &mut wanted);
        }
        wanted
    }

    fn write(&self, begin: &str, text: &mut Vec<u8>) {
        for line in [begin].into_iter().chain(self.block.iter().map(String::as_str)).chain([END]) {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
    }
}

/// A file's text as it would be without Sealift.
pub fn without(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut unbroken = false;
    for part in parts(text) {
        match part {
            Part::Block(begin) => unbroken = begin == BEGIN_BROKEN,
            Part::Line(line) => {
                unbroken = false;
                plain.extend_from_slice(line.strip_prefix(OUT.as_bytes()).unwrap_or(line));
            }
        }
    }
    if unbroken {
        plain.pop();
    }
    plain
}

enum Part<'a> {
    /// A whole block, by its first line without its end.
    Block(&'static str),
    /// A line with its end.
    Line(&'a [u8]),
}

/// A block without an end is no block: whatever follows may be somebody's.
fn parts(text: &[u8]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(line) = rest.split_inclusive(|byte| *byte == b'\n').next() {
        let block = begin(line).zip(block_length(rest));
        parts.push(block.map_or(Part::Line(line), |(begin, _)| Part::Block(begin)));
        rest = &rest[block.map_or(line.len(), |(_, length)| length)..];
    }
    parts
}

fn block_length(text: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        length += line.len();
        if line.trim_ascii_end() == END.as_bytes() {
            return Some(length);
        }
        if number > 0 && begin(line).is_some() {
            return None;
        }
    }
    None
}

/// The mark that a line is, when it begins a block.
fn begin(line: &[u8]) -> Option<&'static str> {
    [BEGIN, BEGIN_BROKEN].into_iter().find(|begin| line.trim_ascii_end() == begin.as_bytes())
}

impl Host {
    /// Replaces the content of somebody else's file: mode, owner and label stay, a link at its end is followed.
    pub fn edit(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let path = self.resolve(path)?;
        match self.entry(&path)? {
            Some(Entry { mode, uid, gid, .. }) => self.write_owned(&path, bytes, mode, (uid, gid)),
            None => self.write(&path, bytes, 0o644),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in the file, as text.
    fn apply(marks: &Marks<'_>, text: &str) -> String {
        String::from_utf8(marks.apply(text.as_bytes())).unwrap()
    }

    fn plain(text: &str) -> String {
        String::from_utf8(without(text.as_bytes())).unwrap()
    }

    const SWAP: fn(&str) -> bool = |line| line.ends_with("swap");

    fn block(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn what_is_marked_can_be_taken_away_to_the_byte() {
        let lines = block(&["192.0.2.1 m1"]);
        let marks = Marks { block: &lines, out: SWAP };
        for text in ["", "a\n", "a", "a\nx swap\nb\n", "x swap", "\n\n", "a\r\nx swap\r\n", "# END sealift\na\n"] {
            let marked = apply(&marks, text);
            assert!(marked.contains("192.0.2.1 m1\n"), "{text:?}");
            assert_eq!(marked.matches(OUT).count(), text.matches("swap").count(), "{text:?}");
            assert_eq!(apply(&marks, &marked), marked, "twice: {text:?}");
            assert_eq!(plain(&marked), text);
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn another_encoding_than_utf_8_stays_to_the_byte() {
        let lines = block(&["192.0.2.1 m1"]);
        let marks = Marks { block: &lines, out: SWAP };
        // Latin 1, and a line that is commented out.
        let text = b"10.0.0.9 b\xfcro # K\xf6ln\n/dev/\xe4 swap\n";
        let marked = marks.apply(text);
        assert_eq!(marked[..text.len() + OUT.len()].iter().filter(|byte| **byte > 127).count(), 3);
        assert_eq!((marks.apply(&marked), without(&marked)), (marked.clone(), text.to_vec()));
    }

    #[test]
    fn what_others_change_later_stays() {
        let lines = block(&["192.0.2.1 m1"]);
        let marked = apply(&Marks { block: &lines, out: NONE_OUT }, "a") + "later\n";
        let renewed = block(&["192.0.2.1 m1", "192.0.2.2 m2"]);
        let marked = apply(&Marks { block: &renewed, out: NONE_OUT }, &marked);
        assert_eq!(
            marked,
            "a\n# BEGIN sealift (the line before had no end)\n192.0.2.1 m1\n192.0.2.2 m2\n# END sealift\nlater\n"
        );
        assert_eq!(plain(&marked), "a\nlater\n");
        // A second block, somebody's copy, goes; without lines there is none.
        let twice = format!("{marked}{}", apply(&Marks { block: &lines, out: NONE_OUT }, ""));
        assert_eq!(apply(&Marks { block: &renewed, out: NONE_OUT }, &twice), marked);
        assert_eq!(apply(&Marks { block: &[], out: NONE_OUT }, &twice), "a\nlater\n");
    }

    #[test]
    fn a_block_without_an_end_takes_nothing_with_it() {
        let text = "a\n# BEGIN sealift\n10.0.0.9 printer\n";
        assert_eq!(plain(text), text);
        let lines = block(&["192.0.2.1 m1"]);
        let marked = apply(&Marks { block: &lines, out: NONE_OUT }, text);
        assert_eq!(marked, format!("{text}# BEGIN sealift\n192.0.2.1 m1\n# END sealift\n"));
        assert_eq!(apply(&Marks { block: &lines, out: NONE_OUT }, &marked), marked);
        assert_eq!(plain(&marked), text);
    }

    #[test]
    fn a_file_keeps_mode_and_owner_and_its_link() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        host.write(Path::new("/etc/static/hosts"), b"a\n", 0o640).unwrap();
        host.symlink(Path::new("/etc/hosts"), Path::new("static/hosts")).unwrap();
        host.edit(Path::new("/etc/hosts"), b"b\n").unwrap();
        assert_eq!(host.link_target(Path::new("/etc/hosts")).unwrap().unwrap(), Path::new("static/hosts"));
        let entry = host.entry(Path::new("/etc/static/hosts")).unwrap().unwrap();
        assert_eq!(
            (entry.mode, host.read_text(Path::new("/etc/static/hosts")).unwrap().unwrap().as_str()),
            (0o640, "b\n")
        );
    }
}
