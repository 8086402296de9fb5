//! Lists of checksums that upstreams publish beside their files: `SHA256SUMS` and its relatives.
//!
//! A list proves no more than the server it came from. It is read strictly: a line that is not understood, a file named
//! twice with different values, or a digest of a wrong length is an error, for a list that is half right proves nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context as _;
use bundle::Digest;

use crate::failure::Failure;
use crate::http::{Answer, Network, Request, Unreachable, host, shown};
use crate::output::Output;
use crate::sha512::Sha512;

/// The longest list that is read.
const LIMIT: u64 = 1 << 20;

/// What a list says of one file: at least one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksums {
    /// SHA-256.
    pub sha256: Option<Digest>,
    /// SHA-512.
    pub sha512: Option<Sha512>,
}

/// One line.
#[derive(Debug)]
struct Entry<'a> {
    /// Nothing in lists that hold one digest alone.
    name: Option<&'a str>,
    checksums: Checksums,
}

/// The lists of one run, each read once.
#[derive(Debug)]
pub struct Lists<'a> {
    network: &'a Network,
    output: &'a Output,
    known: RefCell<BTreeMap<String, Result<String, NotReached>>>,
}

/// Why a list was not reached.
#[derive(Clone, Debug)]
struct NotReached(String);

impl<'a> Lists<'a> {
    /// None is read yet.
    pub fn new(network: &'a Network, output: &'a Output) -> Self {
        Self { network, output, known: RefCell::default() }
    }

    /// What the list at the URL `list` says of the file that `artifact` (its URL) names; [`Unreachable`] if the list was not
    /// reached, now or before.
    pub fn find(&self, list: &str, artifact: &str) -> anyhow::Result<Checksums> {
        let context = || format!("reading the checksum of `{}`", shown(artifact));
        let mut known = self.known.borrow_mut();
        if !known.contains_key(list) {
            let text = match self.read(list) {
                Err(error) if error.is::<Unreachable>() => Err(NotReached(format!("{error:#}"))),
                text => Ok(text.with_context(context)?),
            };
            known.insert(list.to_owned(), text);
        }
        match known.get(list) {
            Some(Ok(text)) => find(text, artifact).with_context(|| format!("`{}`", shown(list))).with_context(context),
            Some(Err(NotReached(reason))) => Err(anyhow::Error::new(Failure::new(reason)).context(Unreachable)),
            None => Err(anyhow::Error::new(Failure::new("no list")).context(Unreachable)),
        }
    }

    /// Says why there is no list.
    pub fn warn(&self, list: &str, error: &anyhow::Error) {
        self.output.warning_once(host(list), &format!("{error:#}"));
    }

    fn read(&self, list: &str) -> anyhow::Result<String> {
        let body = self.network.get(&Request::new(list, LIMIT)).and_then(Answer::ok)?;
        String::from_utf8(body).ok().with_context(|| format!("`{}` is not text", shown(list)))
    }
}

/// What the list `text` says of the file that `artifact` (its URL or name) names.
pub fn find(text: &str, artifact: &str) -> anyhow::Result<Checksums> {
    let entries = entries(text)?;
    let path = artifact.split(['?', '#']).next().unwrap_or(artifact);
    let file = path.rsplit('/').next().unwrap_or(path);
    if let [Entry { name: None, checksums }] = entries[..] {
        return Ok(checksums);
    }
    // Lists of whole directories name paths: `bin/linux/amd64/kubectl`.
    let exact = |entry: &&Entry<'_>| {
        let rest = entry.name.and_then(|name| path.strip_suffix(name));
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    let similar = |entry: &&Entry<'_>| entry.name.and_then(|name| name.rsplit('/').next()) == Some(file);
    let mut fitting: Vec<&Entry<'_>> = entries.iter().filter(exact).collect();
    if fitting.is_empty() {
        fitting = entries.iter().filter(similar).collect();
    }
    let mut found = Checksums::default();
    for Checksums { sha256, sha512 } in fitting.into_iter().map(|entry| entry.checksums) {
        found.sha256 = one(file, found.sha256, sha256)?;
        found.sha512 = one(file, found.sha512, sha512)?;
    }
    if found == Checksums::default() {
        let hint = "a list for this version and file is needed; look at what it holds";
        return Err(Failure::new(format!("no checksum of `{file}` among {} entries", entries.len())).hint(hint).into());
    }
    Ok(found)
}

impl Checksums {
    /// Refuses a digest of the manifest that the list `list` contradicts.
    pub fn check(&self, list: &str, sha256: Option<Digest>, sha512: Option<Sha512>) -> anyhow::Result<()> {
        let against = |manifest: &dyn fmt::Display, published: &dyn fmt::Display| {
            let text = format!("the manifest says {manifest}, but upstream's list `{}` says {published}", shown(list));
            let hint = "find out which is right from a second source before you change either";
            Err(Failure::new(text).hint(hint).into())
        };
        match (self, sha256, sha512) {
            (Self { sha256: Some(published), .. }, Some(manifest), _) if *published != manifest => {
                against(&manifest, published)
            }
            (Self { sha512: Some(published), .. }, _, Some(manifest)) if *published != manifest => {
                against(&format_args!("sha512:{manifest}"), &format_args!("sha512:{published}"))
            }
            _ => Ok(()),
        }
    }
}

/// Both values if they are one.
fn one<T: PartialEq + fmt::Display>(file: &str, known: Option<T>, new: Option<T>) -> anyhow::Result<Option<T>> {
    match (known, new) {
        (Some(known), Some(new)) if known != new => {
            Err(Failure::new(format!("`{file}` is listed twice with different values: {known} and {new}"))
                .hint("pin the right one with `sha256` in the manifest instead of `checksums`")
                .into())
        }
        (known, new) => Ok(known.or(new)),
    }
}

fn entries(text: &str) -> anyhow::Result<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    for (number, line) in signed_part(text) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = match bsd(line) {
            Some((algorithm, name, hex)) => match algorithm {
                "SHA256" | "SHA512" => Some(Entry { name: Some(plain(name)), checksums: digest(hex, number)? }),
                // The same list often has other algorithms, too.
                _ => None,
            },
            None => Some(plain_line(line, number)?),
        };
        entries.extend(entry);
    }
    Ok(entries)
}

/// Numbered lines; of a clear-signed list those between head and signature (RFC 9580, 7). The signature is not checked.
fn signed_part(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let signed = text.trim_start().starts_with("-----BEGIN PGP SIGNED MESSAGE-----");
    let lines = text.trim_start_matches('\u{feff}').lines().zip(1..).map(|(line, number)| (number, line));
    let body = lines.skip_while(move |(_, line)| signed && !line.trim().is_empty());
    body.take_while(|(_, line)| !line.starts_with("-----BEGIN PGP SIGNATURE-----"))
}

/// `SHA256 (NAME) = HEX`.
fn bsd(line: &str) -> Option<(&str, &str, &str)> {
    let (head, hex) = line.rsplit_once('=')?;
    let (algorithm, name) = head.trim_end().strip_suffix(')')?.split_once('(')?;
    let algorithm = algorithm.trim_end();
    let is_name = algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_name.then(|| (algorithm, name, hex.trim_start()))
}

/// `HEX  NAME`, `HEX *NAME`, or `HEX` alone.
fn plain_line(line: &str, number: usize) -> anyhow::Result<Entry<'_>> {
    let (hex, name) = line.split_once([' ', '\t']).map_or((line, None), |(hex, name)| (hex, Some(name.trim_start())));
    // `sha256sum < FILE` names it `-`.
    let name = name.map(|name| plain(name.strip_prefix('*').unwrap_or(name))).filter(|name| *name != "-");
    Ok(Entry { name, checksums: digest(hex, number)? })
}

fn plain(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

fn digest(hex: &str, number: usize) -> anyhow::Result<Checksums> {
    let is_hex = !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let checksums = match hex.len() {
        64 if is_hex => Checksums { sha256: Digest::from_hex(&hex.to_lowercase()).ok(), sha512: None },
        128 if is_hex => Checksums { sha256: None, sha512: hex.parse().ok() },
        length if is_hex => {
            let text =
                format!("line {number}: a digest of {length} hex digits is neither SHA-256 (64) nor SHA-512 (128)");
            return Err(Failure::new(text).into());
        }
        _ => {
            return Err(Failure::new(format!("line {number} is not a checksum and a file name"))
                .hint("look at what the address of `checksums` really sends")
                .into());
        }
    };
    Ok(checksums)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://example.com/v1/bin/linux/amd64/tool.tar.gz?token=x";

    fn sha256(content: &[u8]) -> Checksums {
        Checksums { sha256: Some(Digest::of(content)), sha512: None }
    }

    #[test]
    fn all_published_shapes_are_read() {
        let (a, b) = (Digest::of(b"a").hex(), Digest::of(b"b").hex());
        for text in [
            a.clone(),
            format!("{}\r\n", a.to_uppercase()),
            format!("{a}  -\n"),
            format!("{a}  tool.tar.gz\n"),
            format!("{b}  other\n{a} *tool.tar.gz\n"),
            format!("# list\n\n{b}\ttool.tar.gz.asc\n{a}  ./tool.tar.gz\n{a}  tool.tar.gz\n"),
            format!("{b}  bin/linux/arm64/tool.tar.gz\n{a}  bin/linux/amd64/tool.tar.gz\n"),
            format!("{b}  build/other.tar.gz\n{a}  build/tool.tar.gz\n"),
            format!("MD5 (tool.tar.gz) = 0cc175b9c0f1b6a831c399e269772661\nSHA256 (tool.tar.gz) = {a}\n"),
            format!("SHA256(tool.tar.gz)= {a}\n"),
            format!(
                "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{a}  tool.tar.gz\n-----BEGIN PGP SIGNATURE-----\n\nxx\n"
            ),
        ] {
            assert_eq!(find(&text, URL).unwrap(), sha256(b"a"), "{text}");
        }
        let both = format!("SHA256 (tool.tar.gz) = {a}\nSHA512 (tool.tar.gz) = {}\n", Sha512::of(b"a"));
        let found = Checksums { sha512: Some(Sha512::of(b"a")), ..sha256(b"a") };
        assert_eq!(find(&both, URL).unwrap(), found);
        assert_eq!(find(&Sha512::of(b"a").to_string(), URL).unwrap().sha512, Some(Sha512::of(b"a")));
    }

    #[test]
    fn a_list_that_proves_nothing_is_refused() {
        let (a, b) = (Digest::of(b"a").hex(), Digest::of(b"b").hex());
        for (text, says) in [
            (String::new(), "no checksum of `tool.tar.gz` among 0 entries"),
            (format!("{a}  tool.tar.gz.asc\n{b}  my-tool.tar.gz\n"), "no checksum of `tool.tar.gz` among 2 entries"),
            (format!("{a}\n{b}\n"), "no checksum of `tool.tar.gz` among 2 entries"),
            (format!("{a}  tool.tar.gz\n{b}  tool.tar.gz\n"), "listed twice with different values"),
            (format!("{a}  x/tool.tar.gz\n{b}  y/tool.tar.gz\n"), "listed twice with different values"),
            ("0cc175b9c0f1b6a831c399e269772661  tool.tar.gz\n".into(), "line 1: a digest of 32 hex digits"),
            (format!("{}  tool.tar.gz\n", &a[1..]), "line 1: a digest of 63 hex digits"),
            (format!("{a}  x\n<html>no such file</html>\n"), "line 2 is not a checksum"),
            (format!("MD5 (tool.tar.gz) = {}", &a[..32]), "no checksum of `tool.tar.gz`"),
        ] {
            let error = format!("{:#}", find(&text, URL).unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_contradiction_shows_both() {
        let list = "https://user:secret@example.com/SHA256SUMS";
        let published = Checksums { sha512: Some(Sha512::of(b"a")), ..sha256(b"a") };
        published.check(list, Some(Digest::of(b"a")), Some(Sha512::of(b"a"))).unwrap();
        published.check(list, None, None).unwrap();
        let error = published.check(list, Some(Digest::of(b"b")), None).unwrap_err().to_string();
        assert!(error.contains(&Digest::of(b"a").hex()) && error.contains(&Digest::of(b"b").hex()), "{error}");
        assert!(!error.contains("secret"), "{error}");
        let error = published.check(list, None, Some(Sha512::of(b"b"))).unwrap_err().to_string();
        assert!(error.contains(&Sha512::of(b"b").to_string()), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(?s)(SHA256 ?\\(|[0-9a-f]{64}|-----BEGIN PGP SIGNED MESSAGE-----\n|[ \t*=)\n]|.){0,40}", url in ".*") {
            let _ = find(&text, &url);
        }
    }
}
