//! Packages indexes: fetched by the digest that the Release lists, read as a stream.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use bundle::{Architecture, Digest};

use super::archive::Archive;
use super::release::Listed;
use crate::failure::Failure;
use crate::http::{Fetched, Wanted};
use crate::session::Session;
use crate::source::check_location;

/// No index unpacks to more (Debian's main has about 50 MB), unless the Release says exactly how much.
const UNPACKED_LIMIT: u64 = 1 << 30;
/// No entry is longer (the longest of Debian has about 20 KiB).
const ENTRY_LIMIT: u64 = 1 << 20;

/// A field of a package that relates it to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Must be there before it is unpacked.
    PreDepends,
    /// Must be there before it is configured.
    Depends,
    /// Is usually there.
    Recommends,
    /// Virtual packages that it is.
    Provides,
    /// Must not be there at the same time.
    Conflicts,
    /// Cannot be configured at the same time.
    Breaks,
    /// Packages whose files it may overwrite, or whose place it takes.
    Replaces,
}

const FIELDS: [(&str, Field); 7] = [
    ("Pre-Depends", Field::PreDepends),
    ("Depends", Field::Depends),
    ("Recommends", Field::Recommends),
    ("Provides", Field::Provides),
    ("Conflicts", Field::Conflicts),
    ("Breaks", Field::Breaks),
    ("Replaces", Field::Replaces),
];

/// One package on offer. An index has tens of thousands: nothing is kept that a closure does not need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: Box<str>,
    /// Version with epoch.
    pub version: Box<str>,
    /// Path below the archive's base address.
    pub path: Box<str>,
    /// Bytes.
    pub size: u64,
    /// Digest of the .deb.
    pub sha256: Digest,
    /// `Multi-Arch: allowed` or `foreign`: it satisfies `NAME:any`.
    pub any_architecture: bool,
    /// `Essential: yes`: it is never removed.
    pub essential: bool,
    relations: Box<[(Field, Box<str>)]>,
}

impl Package {
    /// A field's value as written, continuation lines joined; empty if the package has none.
    pub fn field(&self, wanted: Field) -> &str {
        self.relations.iter().find(|(field, _)| *field == wanted).map_or("", |(_, text)| text)
    }

    /// Names of all packages that its `Pre-Depends` and `Depends` mention, alternatives included.
    pub fn dependencies(&self) -> Vec<String> {
        let name = |text: &str| text.split([' ', '(', '[', ':']).next().unwrap_or("").to_owned();
        let fields = [Field::PreDepends, Field::Depends].map(|field| self.field(field));
        let relations = fields.iter().flat_map(|text| text.split([',', '|']));
        relations.map(str::trim).map(name).filter(|name| !name.is_empty()).collect()
    }
}

/// Downloads an index that the Release lists, from whichever of the archive's addresses has it.
pub(super) fn fetch(archive: &Archive, listed: &Listed, session: &Session) -> anyhow::Result<Fetched> {
    let directory = listed.path.rfind('/').map_or("", |end| &listed.path[..=end]);
    let urls = archive.sources.iter().flat_map(|source| {
        let base = source.directory();
        let by_hash = format!("{base}/{directory}by-hash/SHA256/{}", listed.sha256.hex());
        archive.release.by_hash.then_some(by_hash).into_iter().chain([format!("{base}/{}", listed.path)])
    });
    let wanted = Wanted {
        name: format!("{} {}", archive.name(), listed.path),
        urls: urls.collect(),
        size: Some(listed.size),
        limit: listed.size,
        sha256: Some(listed.sha256),
        login: Some(session.apt_login()?),
        ..Wanted::default()
    };
    session.network.fetch(&session.cache, &wanted)
}

/// Reads the packages for an architecture whose names are wanted.
pub(super) fn read(
    path: &Path,
    listed: &Listed,
    architecture: Architecture,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<Package>> {
    let file = BufReader::new(fs_err::File::open(path)?);
    let plain: Box<dyn Read> = match listed.path.rsplit_once('.') {
        Some((_, "xz")) => Box::new(liblzma::read::XzDecoder::new_stream(file, crate::archive::xz()?)),
        Some((_, "gz")) => Box::new(flate2::read::MultiGzDecoder::new(file)),
        _ => Box::new(file),
    };
    let limit = listed.unpacked.unwrap_or(UNPACKED_LIMIT);
    let plain = Limited { reader: plain, left: limit, limit };
    select(BufReader::new(plain), architecture, wanted).with_context(|| format!("reading the index `{}`", listed.path))
}

/// A reader that refuses to give more than it should: a small file can unpack to any size.
struct Limited<R> {
    reader: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(std::io::Error::other(format!("it unpacks to more than {} bytes", self.limit))),
        }
        Ok(read)
    }
}

fn select(
    mut lines: impl BufRead,
    architecture: Architecture,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<Package>> {
    // An archive without suites has one index for all architectures.
    let fits = |entry: &str| line(entry, "Architecture:").is_none_or(|is| is == "all" || is == architecture.as_str());
    let mut packages = Vec::new();
    let mut paragraph = String::new();
    loop {
        let start = paragraph.len();
        let read = lines.by_ref().take(ENTRY_LIMIT - start as u64).read_line(&mut paragraph)?;
        if paragraph.len() as u64 >= ENTRY_LIMIT {
            return Err(Failure::new(format!("an entry is longer than {ENTRY_LIMIT} bytes")).into());
        }
        if read > 0 && !paragraph[start..].trim().is_empty() {
            continue;
        }
        let name = line(&paragraph, "Package:");
        if let Some(name) = name.filter(|name| wanted(name) && fits(&paragraph)) {
            packages.push(package(&paragraph).with_context(|| format!("reading the entry of `{name}`"))?);
        } else if name.is_none() && !paragraph.trim().is_empty() {
            return Err(Failure::new("an entry has no `Package`").into());
        }
        if read == 0 {
            packages.shrink_to_fit();
            return Ok(packages);
        }
        paragraph.clear();
    }
}

/// The rest of the first line that begins so.
fn line<'a>(paragraph: &'a str, start: &str) -> Option<&'a str> {
    paragraph.lines().find_map(|line| line.strip_prefix(start)).map(str::trim)
}

fn package(paragraph: &str) -> anyhow::Result<Package> {
    let fields = fields(paragraph)?;
    let find =
        |name: &str| fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, text)| &text[..]);
    let field = |name: &str| find(name).with_context(|| format!("it has no `{name}`"));
    let path = field("Filename")?;
    let path = path.strip_prefix("./").unwrap_or(path);
    check_location(path)?;
    let name = field("Package")?;
    // Names and versions become parts of URLs, of the lock and of messages.
    let plain = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let version = field("Version")?;
    if name.is_empty() || version.is_empty() || !plain(name, "+-.") || !plain(version, "+-.:~") {
        return Err(Failure::new(format!("`{name}` {version} is no name and version of a package")).into());
    }
    let relations = FIELDS.iter().filter_map(|(name, field)| Some((*field, find(name)?.into())));
    Ok(Package {
        name: name.into(),
        version: version.into(),
        path: path.into(),
        size: field("Size")?.parse().context("`Size` is not a number")?,
        sha256: Digest::from_hex(field("SHA256")?)?,
        any_architecture: find("Multi-Arch").is_some_and(|value| ["allowed", "foreign"].contains(&value)),
        essential: find("Essential").is_some_and(|value| value == "yes"),
        relations: relations.collect(),
    })
}

/// Fields of one entry; continuation lines are joined with spaces.
fn fields(paragraph: &str) -> anyhow::Result<Vec<(&str, String)>> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in paragraph.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with([' ', '\t']) {
            let (_, text) = fields.last_mut().context("it begins with a continuation line")?;
            text.push(' ');
            text.push_str(line.trim());
            continue;
        }
        let (name, text) = line.split_once(':').with_context(|| format!("`{line}` is no field"))?;
        if fields.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Err(Failure::new(format!("it has `{name}` twice")).into());
        }
        fields.push((name, text.trim().to_owned()));
    }
    Ok(fields)
}

/// The packages of an index that is at hand.
#[cfg(test)]
pub(crate) fn parse(text: &str) -> Vec<Package> {
    select(text.as_bytes(), Architecture::Amd64, |_| true).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, path: &str) -> String {
        format!(
            "Package: {name}\nVersion: 1:1.0-1\nMulti-Arch: allowed\nDepends: libc6 (>= 2.36),\n foo:any | bar\nFilename: {path}\nSize: 7\nSHA256: {}\nDescription: x\n y\n",
            Digest::of(b"x").hex()
        )
    }

    #[test]
    fn wanted_packages_are_found_in_a_stream() {
        let text =
            format!("{}\n{}\n{}", entry("a", "pool/a.deb"), entry("b", "pool/b.deb"), entry("ab", "pool/ab.deb"));
        let found = select(text.as_bytes(), Architecture::Amd64, |name| name == "b").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].path, found[0].size), ("pool/b.deb", 7));
        assert_eq!(found[0].dependencies(), ["libc6", "foo", "bar"]);
        assert_eq!(found[0].field(Field::Depends), "libc6 (>= 2.36), foo:any | bar");
        assert_eq!(found[0].field(Field::Breaks), "");
        assert!(found[0].any_architecture && !found[0].essential);
    }

    #[test]
    fn packages_of_other_architectures_are_left_out() {
        let of = |architecture: &str| format!("Architecture: {architecture}\n{}\n", entry(architecture, "pool/a.deb"));
        let text = ["amd64", "arm64", "all"].map(of).concat();
        let found = select(text.as_bytes(), Architecture::Arm64, |_| true).unwrap();
        assert_eq!(found.iter().map(|package| &*package.name).collect::<Vec<_>>(), ["arm64", "all"]);
    }

    #[test]
    fn paths_out_of_the_archive_are_refused() {
        for path in ["../x.deb", "/etc/x.deb", "pool/../../x.deb", "pool/x.deb?y", "pool\\x.deb"] {
            let error = select(entry("a", path).as_bytes(), Architecture::Amd64, |_| true).unwrap_err();
            assert!(format!("{error:#}").contains("is none in the repository"), "{path}: {error:#}");
        }
        // Debian 13 has a file name of 102, more than a layer takes.
        let long = |length: usize| format!("pool/a/{}.deb", "x".repeat(length - 4));
        let found = select(entry("a", &long(255)).as_bytes(), Architecture::Amd64, |_| true).unwrap();
        assert_eq!(&*found[0].path, long(255));
        assert!(select(entry("a", &long(256)).as_bytes(), Architecture::Amd64, |_| true).is_err());
    }

    #[test]
    fn entries_that_cannot_be_meant_are_refused() {
        let good = entry("a", "pool/a.deb");
        for (bad, says) in [
            (good.replace("Size: 7", "Size: 7\nSize: 8"), "twice"),
            (good.replace("Version: 1:1.0-1", "Version: 1.0 evil"), "is no name and version"),
            (good.replace("Package: a", "Package: a\u{1b}[31m"), "is no name and version"),
            (good.replace("Package: a\n", ""), "no `Package`"),
            (good.replace("Filename", "Dirname"), "no `Filename`"),
        ] {
            let error = format!("{:#}", select(bad.as_bytes(), Architecture::Amd64, |_| true).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_index_is_not_unpacked_without_end() {
        // An entry, or a line, that never ends.
        let endless = std::io::repeat(b'x');
        let error = select(BufReader::new(endless), Architecture::Amd64, |_| true).unwrap_err();
        assert_eq!(error.to_string(), "an entry is longer than 1048576 bytes");
        // Many entries, more than the Release lists.
        let text = entry("a", "pool/a.deb").repeat(3);
        let limited = Limited { reader: text.as_bytes(), left: 100, limit: 100 };
        let error = select(BufReader::new(limited), Architecture::Amd64, |_| true).unwrap_err();
        assert_eq!(error.to_string(), "it unpacks to more than 100 bytes");
    }
}
