//! Our part in a text file that belongs to others (`/etc/hosts`, `/etc/fstab`): a block between two marks, and lines that
//! are commented out with a mark.
//!
//! Taking the marks away gives the file as others left it, also when they have changed it since: no before-image could.

use std::path::Path;

use anyhow::Result;

use super::Host;

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
    pub fn apply(&self, text: &str) -> String {
        let mut found = false;
        let mut wanted = String::new();
        for part in parts(text) {
            match part {
                Part::Block(begin) if !found && !self.block.is_empty() => {
                    found = true;
                    self.write(begin, &mut wanted);
                }
                Part::Block(..) => {}
                Part::Line(line) => {
                    let line = line.strip_prefix(OUT).unwrap_or(line);
                    if (self.out)(line.trim_end()) {
                        wanted.push_str(OUT);
                    }
                    wanted.push_str(line);
                }
            }
        }
        if !found && !self.block.is_empty() {
            let whole = wanted.is_empty() || wanted.ends_with('\n');
            if !whole {
                wanted.push('\n');
            }
            self.write(if whole { BEGIN } else { BEGIN_BROKEN }, &mut wanted);
        }
        wanted
    }

    fn write(&self, begin: &str, text: &mut String) {
        for line in [begin].into_iter().chain(self.block.iter().map(String::as_str)).chain([END]) {
            text.push_str(line);
            text.push('\n');
        }
    }
}

/// A file's text as it would be without Sealift.
pub fn without(text: &str) -> String {
    let mut plain = String::new();
    let mut unbroken = false;
    for part in parts(text) {
        match part {
            Part::Block(begin) => unbroken = begin == BEGIN_BROKEN,
            Part::Line(line) => {
                unbroken = false;
                plain.push_str(line.strip_prefix(OUT).unwrap_or(line));
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
    Block(&'a str),
    /// A line with its end.
    Line(&'a str),
}

/// A block without an end is no block: whatever follows may be somebody's.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = rest.split_inclusive('\n').next().unwrap_or(rest);
        let begin = line.trim_end();
        let block = if is_begin(line) { block_length(rest) } else { None };
        parts.push(if block.is_some() { Part::Block(begin) } else { Part::Line(line) });
        let length = block.unwrap_or(line.len());
        rest = &rest[length..];
    }
    parts
}

fn block_length(text: &str) -> Option<usize> {
    let mut length = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        length += line.len();
        if line.trim_end() == END {
            return Some(length);
        }
        if number > 0 && is_begin(line) {
            return None;
        }
    }
    None
}

fn is_begin(line: &str) -> bool {
    [BEGIN, BEGIN_BROKEN].contains(&line.trim_end())
}

impl Host {
    /// Replaces the text of somebody else's file: mode and owner stay, a link at its end is followed.
    pub fn edit(&self, path: &Path, text: &str) -> Result<()> {
        let path = self.resolve(path)?;
        let before = self.entry(&path)?;
        self.write(&path, text.as_bytes(), before.map_or(0o644, |entry| entry.mode))?;
        let owner = |entry: Option<super::Entry>| entry.map(|entry| (entry.uid, entry.gid));
        match owner(before) {
            Some((uid, gid)) if owner(self.entry(&path)?) != Some((uid, gid)) => self.set_owner(&path, uid, gid),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWAP: fn(&str) -> bool = |line| line.ends_with("swap");

    fn block(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn what_is_marked_can_be_taken_away_to_the_byte() {
        let lines = block(&["192.0.2.1 m1"]);
        let marks = Marks { block: &lines, out: SWAP };
        for text in ["", "a\n", "a", "a\nx swap\nb\n", "x swap", "\n\n", "a\r\nx swap\r\n", "# END sealift\na\n"] {
            let marked = marks.apply(text);
            assert!(marked.contains("192.0.2.1 m1\n"), "{text:?}");
            assert_eq!(marked.matches(OUT).count(), text.matches("swap").count(), "{text:?}");
            assert_eq!(marks.apply(&marked), marked, "twice: {text:?}");
            assert_eq!(without(&marked), text);
            assert_eq!(without(text), text);
        }
    }

    #[test]
    fn what_others_change_later_stays() {
        let lines = block(&["192.0.2.1 m1"]);
        let marked = Marks { block: &lines, out: NONE_OUT }.apply("a") + "later\n";
        let renewed = block(&["192.0.2.1 m1", "192.0.2.2 m2"]);
        let marked = Marks { block: &renewed, out: NONE_OUT }.apply(&marked);
        assert_eq!(
            marked,
            "a\n# BEGIN sealift (the line before had no end)\n192.0.2.1 m1\n192.0.2.2 m2\n# END sealift\nlater\n"
        );
        assert_eq!(without(&marked), "a\nlater\n");
        // A second block, somebody's copy, goes; without lines there is none.
        let twice = format!("{marked}{}", Marks { block: &lines, out: NONE_OUT }.apply(""));
        assert_eq!(Marks { block: &renewed, out: NONE_OUT }.apply(&twice), marked);
        assert_eq!(Marks { block: &[], out: NONE_OUT }.apply(&twice), "a\nlater\n");
    }

    #[test]
    fn a_block_without_an_end_takes_nothing_with_it() {
        let text = "a\n# BEGIN sealift\n10.0.0.9 printer\n";
        assert_eq!(without(text), text);
        let lines = block(&["192.0.2.1 m1"]);
        let marked = Marks { block: &lines, out: NONE_OUT }.apply(text);
        assert_eq!(marked, format!("{text}# BEGIN sealift\n192.0.2.1 m1\n# END sealift\n"));
        assert_eq!(Marks { block: &lines, out: NONE_OUT }.apply(&marked), marked);
        assert_eq!(without(&marked), text);
    }

    #[test]
    fn a_file_keeps_mode_and_owner_and_its_link() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        host.write(Path::new("/etc/static/hosts"), b"a\n", 0o640).unwrap();
        host.symlink(Path::new("/etc/hosts"), Path::new("static/hosts")).unwrap();
        host.edit(Path::new("/etc/hosts"), "b\n").unwrap();
        assert_eq!(host.link_target(Path::new("/etc/hosts")).unwrap().unwrap(), Path::new("static/hosts"));
        let entry = host.entry(Path::new("/etc/static/hosts")).unwrap().unwrap();
        assert_eq!(
            (entry.mode, host.read_text(Path::new("/etc/static/hosts")).unwrap().unwrap().as_str()),
            (0o640, "b\n")
        );
    }
}
