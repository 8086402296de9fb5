//! GRUB's environment block (`grubenv`): 1024 bytes (a multiple of 512), a header line, `name=value` lines in which `\`
//! escapes, and `#` up to the end. GRUB writes into its blocks in place while it boots, so its length never changes.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

const HEADER: &[u8] = b"# GRUB Environment Block\n";

/// The variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the block. One that GRUB would not read either is an error.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.starts_with(HEADER), "no environment block of GRUB: its first line is another one");
        ensure!(bytes.len().is_multiple_of(512), "{} bytes long, expected a multiple of 512", bytes.len());
        let mut variables = BTreeMap::new();
        let (mut line, mut escaped) = (Vec::new(), false);
        for byte in &bytes[HEADER.len()..] {
            match (escaped, byte) {
                (false, b'\\') => escaped = true,
                (false, b'\n') => {
                    let text = String::from_utf8_lossy(&line).into_owned();
                    if let Some((name, value)) = text.split_once('=').filter(|_| !text.starts_with('#')) {
                        variables.insert(name.to_owned(), value.to_owned());
                    }
                    line.clear();
                }
                _ => {
                    escaped = false;
                    line.push(*byte);
                }
            }
        }
        Ok(Self(variables))
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The entry that is booted by default, where the menu asks for the saved one.
    pub fn saved(&self) -> Option<&str> {
        self.get("saved_entry").filter(|id| !id.is_empty())
    }

    /// The entry that the next boot boots, once.
    pub fn next(&self) -> Option<&str> {
        self.get("next_entry").filter(|id| !id.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grub_editenv_wrote_is_read() {
        // Made by `grub-editenv` of Debian 12 (2.06-13+deb12u2).
        let found = Environment::parse(include_bytes!("fixtures/grubenv")).unwrap();
        assert_eq!(found.saved(), Some("gnulinux-advanced-0c8a>gnulinux-6.1.0-40-amd64-advanced-0c8a"));
        assert_eq!(found.get("odd"), Some("a\\b"));
        assert_eq!((found.next(), found.get("#")), (None, None));
    }

    #[test]
    fn damage_is_an_error() {
        let whole = include_bytes!("fixtures/grubenv");
        assert!(Environment::parse(&whole[..1000]).is_err());
        assert!(Environment::parse(&[b'#'; 1024]).is_err());
        assert!(Environment::parse(b"").is_err());
    }
}
