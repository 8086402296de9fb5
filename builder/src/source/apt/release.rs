//! InRelease: fetched, checked by `gpgv` with exactly the source's keyring, and read from gpgv's output alone.
//!
//! Text before or after the signed part, more than one signed part, a bad signature, another suite, or a Release that is
//! older than the lock's are refused.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::{Architecture, Digest};
use deb822_fast::{Deb822, Paragraph};

use super::sources::{AptSource, SignedBy};
use crate::failure::Failure;
use crate::http::Wanted;
use crate::lock::AptProof;
use crate::process;
use crate::session::Session;
use crate::source::openpgp::{signer, unarmour};

/// Largest InRelease: those of Debian have a quarter of a MiB.
const LIMIT: u64 = 16 << 20;

/// A Release whose signature is good.
#[derive(Debug)]
pub struct Release {
    /// `Date`, as written.
    pub date: String,
    /// `Valid-Until`, as written; archives that never expire have none.
    pub valid_until: Option<String>,
    /// Fingerprint of the (primary) key that signed it.
    pub key: String,
    /// `Origin`, `Label`, `Suite`, `Codename`: addresses that agree on them serve the same archive.
    pub identity: [String; 4],
    inrelease: Digest,
    /// Whether files can be fetched by digest.
    pub by_hash: bool,
    /// Whether packages for all architectures are in the index of each (`No-Support-for-Architecture-all`, or no
    /// architecture `all`).
    all_in_each: bool,
    files: Vec<Listed>,
}

/// A file that a Release vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path below `dists/SUITE/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
    /// Bytes when it is unpacked, if that is listed.
    pub unpacked: Option<u64>,
}

/// Downloads the InRelease of a source.
pub(super) fn fetch(source: &AptSource, session: &Session) -> anyhow::Result<Vec<u8>> {
    let wanted = Wanted {
        name: format!("{} InRelease", source.suite),
        urls: vec![format!("{}/InRelease", source.directory())],
        limit: LIMIT,
        login: Some(session.apt_login()?),
        ..Wanted::default()
    };
    let fetched = session.network.fetch(&session.cache, &wanted)?;
    // Found by no digest later: what is needed of it goes into the lock.
    let bytes = fs_err::read(&fetched.path)?;
    fs_err::remove_file(&fetched.path)?;
    Ok(bytes)
}

/// Checks an InRelease; `scratch` is a private directory for keyrings and gpgv's output.
pub fn check(source: &AptSource, bytes: &[u8], scratch: &Path) -> anyhow::Result<Release> {
    checked(source, bytes, scratch)
        .with_context(|| Failure::new(format!("the InRelease of `{}` is refused", source.suite)))
}

fn checked(source: &AptSource, bytes: &[u8], scratch: &Path) -> anyhow::Result<Release> {
    one_signed_part(bytes)?;
    let (text, key) = verify(source, bytes, scratch)?;
    let document: Deb822 =
        text.parse().map_err(|error| Failure::new(format!("the signed text is not a Release: {error}")))?;
    let paragraph = match document.len() {
        1 => document.iter().next(),
        _ => None,
    };
    let paragraph = paragraph.context("the signed text is not one paragraph")?;
    let field = |name: &str| paragraph.get(name).map(str::trim).unwrap_or_default().to_owned();
    let identity = ["Origin", "Label", "Suite", "Codename"].map(field);
    let [_, _, suite, codename] = &identity;
    if !source.is_flat() && source.suite != *suite && source.suite != *codename {
        let text = format!("it is for suite `{suite}`, codename `{codename}`, not for `{}`", source.suite);
        return Err(Failure::new(text).hint("the mirror serves another suite under this name").into());
    }
    let date = field("Date");
    sortable(&date).with_context(|| format!("its date `{date}` cannot be read"))?;
    let valid_until = Some(field("Valid-Until")).filter(|text| !text.is_empty());
    if let Some(text) = &valid_until {
        sortable(text).with_context(|| format!("its `Valid-Until: {text}` cannot be read"))?;
    }
    let by_hash = field("Acquire-By-Hash") == "yes";
    let (inrelease, files) = (Digest::of(bytes), listed(paragraph)?);
    // As apt reads it: a Release whose architectures do not name `all` has an index for it only by accident.
    let names = |key: &str, wanted: &str| field(key).split_whitespace().any(|name| name == wanted);
    let without_all = !field("Architectures").is_empty() && !names("Architectures", "all");
    let all_in_each = without_all || names("No-Support-for-Architecture-all", "Packages");
    Ok(Release { date, valid_until, key, identity, inrelease, by_hash, all_in_each, files })
}

/// Exactly one clear-signed message and nothing else.
fn one_signed_part(bytes: &[u8]) -> anyhow::Result<()> {
    let text = std::str::from_utf8(bytes).context("it is not UTF-8")?;
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let count = |marker: &str| lines.iter().filter(|line| **line == marker).count();
    let (begin, signature, end) =
        ("-----BEGIN PGP SIGNED MESSAGE-----", "-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----");
    let alone = lines.first() == Some(&begin) && lines.last() == Some(&end);
    if alone && [begin, signature, end].into_iter().all(|marker| count(marker) == 1) {
        return Ok(());
    }
    Err(Failure::new("it is not one signed message and nothing else")
        .hint("text around the signed part is a known attack; try another mirror")
        .into())
}

/// The signed text and the fingerprint of its signer.
fn verify(source: &AptSource, bytes: &[u8], scratch: &Path) -> anyhow::Result<(String, String)> {
    let (input, plain) = (scratch.join("InRelease"), scratch.join("Release"));
    fs_err::write(&input, bytes)?;
    if plain.exists() {
        fs_err::remove_file(&plain)?;
    }
    let mut arguments: Vec<PathBuf> = ["--homedir".into(), scratch.into(), "--status-fd".into(), "1".into()].into();
    arguments.extend(["--weak-digest".into(), "SHA1".into()]);
    for keyring in keyrings(source, scratch)? {
        arguments.extend(["--keyring".into(), keyring]);
    }
    arguments.extend(["--output".into(), plain.clone(), "--".into(), input]);
    let finished = process::run("gpgv", "gpgv", &arguments)?;
    let status = String::from_utf8_lossy(&finished.stdout);
    let key = signer(&status).ok_or_else(|| {
        let text = format!("no good signature by a key of its keyring (gpgv: {})", finished.tail());
        Failure::new(text).hint("the index was changed on its way, or the archive has a new key: check Signed-By")
    })?;
    let text = fs_err::read_to_string(&plain).context("reading what gpgv verified")?;
    Ok((text, key))
}

/// The keyrings as files that gpgv reads: armoured ones are unwrapped.
fn keyrings(source: &AptSource, scratch: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let SignedBy::Keyrings(paths) = &source.signed_by else {
        let SignedBy::Embedded(key) = &source.signed_by else { return Ok(Vec::new()) };
        let path = scratch.join("embedded.gpg");
        fs_err::write(&path, unarmour(key)?)?;
        return Ok(vec![path]);
    };
    let mut files = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let bytes = fs_err::read(path)
            .with_context(|| Failure::new(format!("the keyring of `{}` cannot be read", source.suite)))?;
        if bytes.starts_with(b"-----BEGIN PGP") {
            let unwrapped = scratch.join(format!("keyring-{number}.gpg"));
            fs_err::write(&unwrapped, unarmour(&String::from_utf8_lossy(&bytes))?)?;
            files.push(unwrapped);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn listed(paragraph: &Paragraph) -> anyhow::Result<Vec<Listed>> {
    let mut files = Vec::new();
    for line in paragraph
        .get("SHA256")
        .context("it lists no SHA-256 digests")?
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let wrong = || Failure::new(format!("it lists `{line}`, expected digest, size and path"));
        let mut words = line.split_whitespace();
        let (Some(hex), Some(size), Some(path), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(wrong().into());
        };
        let size = size.parse().map_err(|_| wrong())?;
        let path = path.strip_prefix("./").unwrap_or(path).to_owned();
        files.push(Listed { path, size, sha256: Digest::from_hex(hex).map_err(|_| wrong())?, unpacked: None });
    }
    Ok(files)
}

impl Release {
    /// The Packages indexes of a component for an architecture, each by the name it has in proofs: that of the architecture,
    /// and the one for all architectures if packages for all are not in each.
    pub fn indexes(&self, component: &str, architecture: Architecture) -> Vec<(String, Listed)> {
        let index = |name: &str| Some((name.to_owned(), self.packages(&format!("{component}/binary-{name}/"))?));
        let all = if self.all_in_each { None } else { index("all") };
        index(architecture.as_str()).into_iter().chain(all).collect()
    }

    /// The Packages index in a directory: xz, gzip or plain, in this order; `None` if it has none.
    pub fn packages(&self, directory: &str) -> Option<Listed> {
        let find = |end: &str| self.files.iter().find(|file| file.path == format!("{directory}Packages{end}")).cloned();
        let listed = find(".xz").or_else(|| find(".gz")).or_else(|| find(""))?;
        Some(Listed { unpacked: find("").map(|plain| plain.size), ..listed })
    }

    /// What the lock records about this Release and one of its Packages.
    pub fn proof(&self, packages: Digest) -> AptProof {
        let Self { date, key, identity: [_, _, suite, codename], inrelease, .. } = self;
        AptProof {
            suite: suite.clone(),
            codename: codename.clone(),
            date: date.clone(),
            key: key.clone(),
            inrelease: *inrelease,
            packages,
        }
    }

    /// Refuses a Release that says it is out of date; `now` is written as its dates are.
    pub fn check_not_expired(&self, now: &str) -> anyhow::Result<()> {
        let Some(until) = self.valid_until.as_deref().filter(|until| sortable(until) < sortable(now)) else {
            return Ok(());
        };
        Err(Failure::new(format!("the Release of `{}` was valid until {until}, now is {now}", self.identity[3]))
            .hint("a mirror that is behind, an attack with an old index, or a wrong clock; for a snapshot say `Check-Valid-Until: no` in the apt source")
            .into())
    }

    /// Its date, in an order that compares.
    pub fn age(&self) -> impl Ord + use<> {
        sortable(&self.date)
    }

    /// Refuses to go back behind the Release that the last lock saw.
    pub fn check_not_older(&self, before: &AptProof, index: &str) -> anyhow::Result<()> {
        if sortable(&self.date) >= sortable(&before.date) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "the Release of `{index}` is of {}, the lock has seen one of {}",
            self.date, before.date
        ))
        .hint("a mirror that is behind, or an attack with an old index; if you mean to go back, delete the lock")
        .into())
    }
}

/// A date of RFC 5322 in UTC (`Sat, 07 Jun 2025 09:43:01 UTC`) in an order that compares.
fn sortable(date: &str) -> Option<(u16, u8, u8, u8, u8, u8)> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = date.split_whitespace().collect();
    let [_, day, month, year, time, "UTC" | "GMT" | "+0000"] = words[..] else { return None };
    let month = u8::try_from(MONTHS.iter().position(|name| *name == month)? + 1).ok()?;
    let mut clock = time.split(':').map(|part| part.parse::<u8>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    Some((year.parse().ok()?, month, day.parse().ok()?, hour, minute, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_compare() {
        let dates = [
            "Sat, 07 Jun 2025 09:43:01 UTC",
            "Sat, 07 Jun 2025 10:00:00 UTC",
            "Tue,  1 Jul 2025 00:00:00 UTC",
            "Thu, 01 Jan 2026 00:00:00 GMT",
        ];
        assert!(dates.windows(2).all(|pair| sortable(pair[0]).unwrap() < sortable(pair[1]).unwrap()));
        assert_eq!(sortable("yesterday"), None);
    }

    #[test]
    fn a_release_expires_after_its_last_second() {
        let mut release = Release {
            date: "Sat, 07 Nov 2026 10:00:00 UTC".into(),
            valid_until: Some("Sat, 14 Nov 2026 10:00:00 UTC".into()),
            key: String::new(),
            identity: ["", "", "stable", "x"].map(str::to_owned),
            inrelease: Digest::of(b""),
            by_hash: false,
            all_in_each: false,
            files: Vec::new(),
        };
        assert!(release.check_not_expired("Sat, 14 Nov 2026 10:00:00 UTC").is_ok());
        let error = release.check_not_expired("Sat, 14 Nov 2026 10:00:01 UTC").unwrap_err().to_string();
        assert_eq!(
            error,
            "the Release of `x` was valid until Sat, 14 Nov 2026 10:00:00 UTC, now is Sat, 14 Nov 2026 10:00:01 UTC"
        );
        release.valid_until = None;
        assert!(release.check_not_expired("Sat, 14 Nov 2099 10:00:01 UTC").is_ok());
        assert!(sortable(&crate::clock::release_date().unwrap()).is_some());
    }

    #[test]
    fn one_signed_part_and_nothing_around_it() {
        let good = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSuite: x\n-----BEGIN PGP SIGNATURE-----\n\nAA==\n-----END PGP SIGNATURE-----\n";
        assert!(one_signed_part(good.as_bytes()).is_ok());
        for bad in
            [format!("Suite: y\n{good}"), format!("{good}Suite: y\n"), format!("{good}{good}"), format!("\n{good}")]
        {
            assert!(one_signed_part(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
