//! Packages indexes: fetched by the digest that the Release lists, read as a stream.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use bundle::{Digest, LayerPath};
use deb822_fast::Deb822;

use super::release::{Listed, Release};
use super::sources::AptSource;
use crate::cache::Cache;
use crate::failure::Failure;
use crate::http::{Fetched, Network, Wanted};

/// No index unpacks to more (Debian's main has about 50 MB).
const UNPACKED_LIMIT: u64 = 1 << 30;

/// One package on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version with epoch.
    pub version: String,
    /// Path below the archive's base address.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of the .deb.
    pub sha256: Digest,
    /// `Pre-Depends` and `Depends`, as written.
    pub depends: String,
}

impl Package {
    /// Names of all packages that its dependencies mention, alternatives included.
    pub fn dependencies(&self) -> Vec<String> {
        let name = |text: &str| text.split([' ', '(', '[', ':']).next().unwrap_or("").to_owned();
        self.depends.split([',', '|']).map(str::trim).map(name).filter(|name| !name.is_empty()).collect()
    }
}

/// Downloads an index that the Release lists.
pub(super) fn fetch(
    source: &AptSource,
    release: &Release,
    listed: &Listed,
    network: &Network,
    cache: &Cache,
) -> anyhow::Result<Fetched> {
    let base = format!("{}/dists/{}", source.uri, source.suite);
    let direct = format!("{base}/{}", listed.path);
    let directory = listed.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let by_hash = release.by_hash.then(|| format!("{base}/{directory}/by-hash/SHA256/{}", listed.sha256.hex()));
    let wanted = Wanted {
        name: format!("{} {}", source.suite, listed.path),
        urls: by_hash.into_iter().chain([direct]).collect(),
        size: Some(listed.size),
        limit: listed.size,
        sha256: Some(listed.sha256),
        ..Wanted::default()
    };
    network.fetch(cache, &wanted)
}

/// Reads the packages whose names are wanted.
pub(super) fn read(path: &Path, name: &str, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Package>> {
    let file = BufReader::new(fs_err::File::open(path)?);
    let plain: Box<dyn Read> = match name.rsplit_once('.') {
        Some((_, "xz")) => Box::new(liblzma::read::XzDecoder::new_multi_decoder(file)),
        Some((_, "gz")) => Box::new(flate2::read::MultiGzDecoder::new(file)),
        _ => Box::new(file),
    };
    select(BufReader::new(plain.take(UNPACKED_LIMIT)), wanted).with_context(|| format!("reading the index `{name}`"))
}

fn select(mut lines: impl BufRead, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Package>> {
    let mut packages = Vec::new();
    let mut paragraph = String::new();
    loop {
        let start = paragraph.len();
        let read = lines.read_line(&mut paragraph)?;
        let ended = read == 0 || paragraph[start..].trim().is_empty();
        if !ended {
            continue;
        }
        let name = paragraph.lines().find_map(|line| line.strip_prefix("Package:")).map(str::trim);
        if name.is_some_and(&wanted) {
            packages.push(package(&paragraph)?);
        }
        if read == 0 {
            return Ok(packages);
        }
        paragraph.clear();
    }
}

fn package(paragraph: &str) -> anyhow::Result<Package> {
    let document: Deb822 =
        paragraph.parse().map_err(|error| Failure::new(format!("an entry cannot be read: {error}")))?;
    let fields = document.iter().next().context("an entry is empty")?;
    let field = |name: &str| fields.get(name).map(str::trim).with_context(|| format!("an entry has no `{name}`"));
    let path = field("Filename")?;
    let path = path.strip_prefix("./").unwrap_or(path);
    path.parse::<LayerPath>()
        .map_err(|error| Failure::new(format!("`Filename: {path}` leads out of the archive: {error}")))?;
    let depends = ["Pre-Depends", "Depends"].iter().filter_map(|name| fields.get(name)).collect::<Vec<_>>().join(", ");
    Ok(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        path: path.to_owned(),
        size: field("Size")?.parse().context("`Size` is not a number")?,
        sha256: Digest::from_hex(field("SHA256")?)?,
        depends,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, path: &str) -> String {
        format!(
            "Package: {name}\nVersion: 1:1.0-1\nDepends: libc6 (>= 2.36), foo:any | bar\nFilename: {path}\nSize: 7\nSHA256: {}\nDescription: x\n y\n",
            Digest::of(b"x").hex()
        )
    }

    #[test]
    fn wanted_packages_are_found_in_a_stream() {
        let text =
            format!("{}\n{}\n{}", entry("a", "pool/a.deb"), entry("b", "pool/b.deb"), entry("ab", "pool/ab.deb"));
        let found = select(text.as_bytes(), |name| name == "b").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), found[0].size), ("pool/b.deb", 7));
        assert_eq!(found[0].dependencies(), ["libc6", "foo", "bar"]);
    }

    #[test]
    fn paths_out_of_the_archive_are_refused() {
        for path in ["../x.deb", "/etc/x.deb", "pool/../../x.deb"] {
            assert!(select(entry("a", path).as_bytes(), |_| true).is_err(), "{path}");
        }
    }
}
