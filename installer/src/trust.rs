//! Whom this host believes, and what it has accepted before.
//!
//! Keys come from `/etc/sealift/trusted-keys/` or from `--key`, never from the medium of the bundle; what others could
//! have written there is refused. `accepted.json` remembers the highest sequence of each release line: an older bundle
//! with a good signature is still an attack, or a mistake.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use bundle::{Architecture, ComponentName, Digest, PublicKey, Release, Trust};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::CURRENT;
use crate::host::{FileKind, Host};
use crate::report::{Exit, Explain as _};
use crate::store::classify;

/// Directory of trusted keys.
pub const KEYS: &str = "/etc/sealift/trusted-keys";
/// Settings of trust.
pub const SETTINGS: &str = "/etc/sealift/trust.toml";
/// What was accepted.
pub const ACCEPTED: &str = "/var/lib/sealift/accepted.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "one")]
    threshold: usize,
}

fn one() -> usize {
    1
}

/// The keys to believe: those named with `--key` (for this run, instead of the directory), else those of the directory.
pub fn trust(host: &Host, named: &[PathBuf]) -> Result<Trust> {
    let threshold = threshold(host)?;
    let keys = if named.is_empty() { directory(host)? } else { files(host, named)? };
    Trust::new(keys, threshold).map_err(classify)
}

fn threshold(host: &Host) -> Result<usize> {
    let path = Path::new(SETTINGS);
    if !host.exists(path)? {
        return Ok(1);
    }
    private_file(host, path)?;
    let Some(text) = host.read_text(path)? else { return Ok(1) };
    let settings: Settings = toml::from_str(&text)
        .map_err(|error| anyhow!("reading `{SETTINGS}`: {}", error.to_string().trim_end()))
        .exit(Exit::Usage)?;
    Ok(settings.threshold)
}

fn directory(host: &Host) -> Result<Vec<PublicKey>> {
    let directory = Path::new(KEYS);
    if host.exists(directory)? {
        private(host, directory)?;
    }
    let mut keys = Vec::new();
    for name in host.list(directory)? {
        let path = directory.join(&name);
        if path.extension().is_none_or(|kind| kind != "pub") {
            continue;
        }
        private_file(host, &path)?;
        keys.push(key(host, &path)?);
    }
    Ok(keys)
}

fn files(host: &Host, named: &[PathBuf]) -> Result<Vec<PublicKey>> {
    named.iter().map(|path| key(host, path)).collect()
}

fn key(host: &Host, path: &Path) -> Result<PublicKey> {
    let text =
        host.read_text(path)?.with_context(|| format!("`{}` does not exist", path.display())).exit(Exit::Usage)?;
    PublicKey::parse(&text).with_context(|| format!("reading the key `{}`", path.display())).exit(Exit::Bundle)
}

fn private(host: &Host, path: &Path) -> Result<()> {
    let hint = format!("check who put it there, then `chown root:root {0}` and `chmod go-w {0}`", path.display());
    host.require_private(path).context("others could change what this host trusts").exit(Exit::Bundle).hint(hint)
}

/// As [`private`], for a file that must be there itself: a link's target could be exchanged.
fn private_file(host: &Host, path: &Path) -> Result<()> {
    if host.entry(path)?.is_none_or(|entry| entry.kind != FileKind::Regular) {
        let error: Result<()> = Err(anyhow!("`{}` is not a regular file", path.display()));
        error.exit(Exit::Bundle).hint("put the file itself there, not a link to it")?;
    }
    private(host, path)
}

/// Refuses a bundle for another architecture.
pub fn require_architecture(release: &Release, host: Option<Architecture>) -> Result<()> {
    if host == Some(release.architecture) {
        return Ok(());
    }
    let is = host.map_or("of an unknown architecture", Architecture::as_str);
    let error: Result<()> = Err(anyhow!("bundle refused: it is for {}, this host is {is}", release.architecture));
    error.exit(Exit::Bundle).hint("build or fetch the bundle for this host's architecture")
}

/// `accepted.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Accepted(BTreeMap<ComponentName, Line>);

/// What was accepted of one release line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// The highest ever; a forced downgrade leaves it.
    sequence: u64,
    /// The bundle that had it.
    index: Digest,
    /// Bundles that an operator forced, with the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    downgrades: Vec<Downgrade>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Downgrade {
    time: Timestamp,
    /// The highest sequence by then; none when this release line was new to a host of another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    to: u64,
    index: Digest,
    reason: String,
}

impl Accepted {
    /// Reads the record. None on a host that has a generation is an error: without it any old bundle would do.
    pub fn read(host: &Host) -> Result<Self> {
        let path = Path::new(ACCEPTED);
        if host.exists(path)? {
            private_file(host, path)?;
        }
        let Some(bytes) = host.read(path)? else {
            if host.exists(Path::new(CURRENT))? {
                let error: Result<()> =
                    Err(anyhow!("`{ACCEPTED}` is missing on a host that has a generation: old bundles cannot be told"));
                error.exit(Exit::Bundle).hint(format!("restore {ACCEPTED} from a backup of this host"))?;
            }
            return Ok(Self::default());
        };
        serde_json::from_slice(&bytes)
            .with_context(|| format!("reading `{ACCEPTED}`"))
            .exit(Exit::Bundle)
            .hint(format!("restore {ACCEPTED} from a backup of this host"))
    }

    /// Decides whether a verified bundle may be used here. `reason` is the operator's, to take an older one or one of
    /// another release line.
    pub fn admit(&self, release: &Release, index: Digest, reason: Option<&str>) -> Result<Acceptance> {
        let acceptance = Acceptance {
            name: release.name.clone(),
            version: release.version.to_string(),
            sequence: release.sequence,
            index,
            reason: reason.map(str::trim).filter(|reason| !reason.is_empty()).map(str::to_owned),
        };
        self.needs_reason(&acceptance)?;
        Ok(acceptance)
    }

    /// Whether only the operator's reason lets this bundle in; an error when it may not be used at all.
    fn needs_reason(&self, bundle: &Acceptance) -> Result<bool> {
        let (name, new) = (&bundle.name, bundle.sequence);
        let because = match self.0.get(name) {
            Some(line) if new == line.sequence && bundle.index != line.index => {
                let error: Result<bool> = Err(anyhow!(
                    "bundle refused: {name} sequence {new} was accepted with index {}, this one has {}",
                    line.index,
                    bundle.index
                ));
                return error
                    .exit(Exit::Bundle)
                    .hint("two different bundles with one sequence: ask the publisher which is right");
            }
            Some(line) if new < line.sequence => {
                format!("{name} sequence {new} is older than {}, which was accepted before", line.sequence)
            }
            None if !self.0.is_empty() => {
                let known: Vec<&str> = self.0.keys().map(ComponentName::as_str).collect();
                format!("its name is {name}, this host has accepted {}", known.join(", "))
            }
            Some(_) | None => return Ok(false),
        };
        if bundle.reason.is_some() {
            return Ok(true);
        }
        let error: Result<bool> = Err(anyhow!("bundle refused: {because}"));
        error
            .exit(Exit::Bundle)
            .hint("use a newer bundle of this host's release line, or --allow-downgrade \"reason\", which is recorded")
    }
}

/// A bundle that may be used here; recorded when its generation becomes current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    name: ComponentName,
    version: String,
    sequence: u64,
    index: Digest,
    /// The operator's, whether it is needed or not.
    reason: Option<String>,
}

impl fmt::Display for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (sequence {})", self.name, self.version, self.sequence)
    }
}

impl Acceptance {
    /// Decides again, by what the record says now: another run may have ended since.
    pub fn check_again(&self, host: &Host) -> Result<()> {
        Accepted::read(host)?.needs_reason(self).map(drop)
    }

    /// Whether the record already says so.
    pub fn is_recorded(&self, host: &Host) -> Result<bool> {
        let accepted = match host.read(Path::new(ACCEPTED))? {
            Some(_) => Accepted::read(host)?,
            None => return Ok(false),
        };
        let Some(line) = accepted.0.get(&self.name) else { return Ok(false) };
        let forced = line.downgrades.last().is_some_and(|last| {
            let same =
                last.to == self.sequence && last.index == self.index && Some(&last.reason) == self.reason.as_ref();
            same && self.sequence < line.sequence
        });
        Ok(forced || (line.sequence == self.sequence && line.index == self.index))
    }

    /// Writes the record: the highest sequence stays, and what needed a reason stands beside it. Refuses what the record as
    /// it is now does not admit.
    pub fn record(&self, host: &Host) -> Result<()> {
        let mut accepted = Accepted::read(host)?;
        let forced = accepted.needs_reason(self)?;
        let from = accepted.0.get(&self.name).map(|line| line.sequence);
        let line = accepted.0.entry(self.name.clone()).or_insert_with(|| Line {
            sequence: self.sequence,
            index: self.index,
            downgrades: Vec::new(),
        });
        if self.sequence > line.sequence {
            (line.sequence, line.index) = (self.sequence, self.index);
        }
        if let (true, Some(reason)) = (forced, &self.reason) {
            let (time, to, index, reason) = (host.now(), self.sequence, self.index, reason.clone());
            line.downgrades.push(Downgrade { time, from, to, index, reason });
        }
        let mut bytes = serde_json::to_vec_pretty(&accepted)?;
        bytes.push(b'\n');
        if bytes.len() > 1 << 20 {
            bail!("`{ACCEPTED}` has grown beyond 1 MiB");
        }
        host.write(Path::new(ACCEPTED), &bytes, 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::exit_of;

    fn release(sequence: u64) -> Release {
        Release {
            name: "debian-12".parse().unwrap(),
            version: "1.20.2-1".parse().unwrap(),
            architecture: Architecture::Amd64,
            sequence,
            created: "2026-11-21".to_owned(),
            lock: Digest::of(b"lock"),
            installer: Digest::of(b"installer"),
        }
    }

    fn host() -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        (dir, host)
    }

    #[test]
    fn a_lower_sequence_needs_a_reason_which_is_recorded() {
        let (_dir, host) = host();
        let (old, new) = (Digest::of(b"3"), Digest::of(b"5"));
        Accepted::read(&host).unwrap().admit(&release(5), new, None).unwrap().record(&host).unwrap();
        let accepted = Accepted::read(&host).unwrap();
        for reason in [None, Some(""), Some("  ")] {
            let error = accepted.admit(&release(3), old, reason).unwrap_err();
            assert_eq!(exit_of(&error), Exit::Bundle, "{reason:?}");
        }
        let forced = accepted.admit(&release(3), old, Some("etcd bug 42")).unwrap();
        assert!(!forced.is_recorded(&host).unwrap());
        forced.record(&host).unwrap();
        assert!(forced.is_recorded(&host).unwrap());
        let text = host.read_text(Path::new(ACCEPTED)).unwrap().unwrap();
        assert!(text.contains("etcd bug 42") && text.contains("\"from\": 5"), "{text}");
        // What was accepted once stays the measure: what is older needs a reason again, also the forced one itself.
        let accepted = Accepted::read(&host).unwrap();
        for sequence in [3, 4] {
            let error = accepted.admit(&release(sequence), Digest::of(b"4"), None).unwrap_err();
            assert_eq!(exit_of(&error), Exit::Bundle, "{sequence}");
        }
        assert_eq!(exit_of(&accepted.admit(&release(5), old, Some("x")).unwrap_err()), Exit::Bundle);
        accepted.admit(&release(5), new, None).unwrap();
        // Going up again keeps the record of the downgrade.
        Accepted::read(&host).unwrap().admit(&release(6), Digest::of(b"6"), None).unwrap().record(&host).unwrap();
        assert!(host.read_text(Path::new(ACCEPTED)).unwrap().unwrap().contains("etcd bug 42"));
    }

    #[test]
    fn one_sequence_is_one_bundle() {
        let (_dir, host) = host();
        let accepted = Accepted::read(&host).unwrap();
        accepted.admit(&release(5), Digest::of(b"a"), None).unwrap().record(&host).unwrap();
        let accepted = Accepted::read(&host).unwrap();
        assert!(accepted.admit(&release(5), Digest::of(b"a"), None).is_ok());
        let error = accepted.admit(&release(5), Digest::of(b"b"), Some("because")).unwrap_err();
        assert_eq!(exit_of(&error), Exit::Bundle);
    }

    #[test]
    fn another_release_line_needs_a_reason_which_is_recorded() {
        let (_dir, host) = host();
        let other = Release { name: "kubernetes-1.37".parse().unwrap(), ..release(9) };
        let index = Digest::of(b"c");
        Accepted::default().admit(&other, index, None).unwrap();
        Accepted::read(&host).unwrap().admit(&release(5), Digest::of(b"a"), None).unwrap().record(&host).unwrap();
        let accepted = Accepted::read(&host).unwrap();
        let error = accepted.admit(&other, index, None).unwrap_err();
        assert_eq!(exit_of(&error), Exit::Bundle);
        assert!(error.to_string().contains("its name is kubernetes-1.37"), "{error}");
        let forced = accepted.admit(&other, index, Some("new line")).unwrap();
        assert!(!forced.is_recorded(&host).unwrap());
        forced.record(&host).unwrap();
        assert!(forced.is_recorded(&host).unwrap());
        assert!(host.read_text(Path::new(ACCEPTED)).unwrap().unwrap().contains("new line"));
        // Both lines are this host's now, each with its own measure.
        let accepted = Accepted::read(&host).unwrap();
        accepted.admit(&other, index, None).unwrap();
        assert!(accepted.admit(&release(4), Digest::of(b"4"), None).is_err());
    }

    #[test]
    fn the_record_is_asked_again_when_it_is_written() {
        let (_dir, host) = host();
        let empty = Accepted::read(&host).unwrap();
        let late = empty.admit(&release(3), Digest::of(b"3"), None).unwrap();
        let twin = empty.admit(&release(5), Digest::of(b"other 5"), Some("because")).unwrap();
        empty.admit(&release(5), Digest::of(b"5"), None).unwrap().record(&host).unwrap();
        let before = host.read(Path::new(ACCEPTED)).unwrap();
        for refused in [late, twin] {
            assert_eq!(exit_of(&refused.check_again(&host).unwrap_err()), Exit::Bundle, "{refused}");
            assert_eq!(exit_of(&refused.record(&host).unwrap_err()), Exit::Bundle, "{refused}");
        }
        assert_eq!(host.read(Path::new(ACCEPTED)).unwrap(), before);
    }

    #[test]
    fn a_host_with_a_generation_has_a_record() {
        let (_dir, host) = host();
        assert_eq!(Accepted::read(&host).unwrap(), Accepted::default());
        host.symlink(Path::new(CURRENT), Path::new("generations/1")).unwrap();
        assert_eq!(exit_of(&Accepted::read(&host).unwrap_err()), Exit::Bundle);
        host.write(Path::new(ACCEPTED), b"{", 0o644).unwrap();
        assert_eq!(exit_of(&Accepted::read(&host).unwrap_err()), Exit::Bundle);
    }

    const KEY: &str = "untrusted comment: minisign public key E7620F1842B4E81F\n\
        RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n";

    #[test]
    fn keys_that_others_can_change_are_refused() {
        let (_dir, host) = host();
        let error = trust(&host, &[]).unwrap_err();
        assert_eq!(exit_of(&error), Exit::Bundle, "no key at all");
        let path = Path::new(KEYS).join("publisher.pub");
        host.write(&path, KEY.as_bytes(), 0o644).unwrap();
        assert_eq!(trust(&host, &[]).unwrap().keys().len(), 1);

        for (place, mode, good) in
            [(path.as_path(), 0o664, 0o644), (Path::new(KEYS), 0o777, 0o755), (Path::new("/etc"), 0o775, 0o755)]
        {
            host.set_mode(place, mode).unwrap();
            let error = trust(&host, &[]).unwrap_err();
            assert!(format!("{error:#}").contains("can be written by others"), "{}: {error:#}", place.display());
            host.set_mode(place, good).unwrap();
        }
        assert!(trust(&host, &[]).is_ok());
        if rustix::process::geteuid().is_root() {
            host.set_owner(&path, 1000, 1000).unwrap();
            assert!(format!("{:#}", trust(&host, &[]).unwrap_err()).contains("belongs to user 1000"));
            host.set_owner(&path, 0, 0).unwrap();
        }
        for link in [&Path::new(KEYS).join("link.pub"), Path::new(SETTINGS), Path::new(ACCEPTED)] {
            host.symlink(link, Path::new("/tmp/evil")).unwrap();
            let error = trust(&host, &[]).and_then(|_| Accepted::read(&host)).unwrap_err();
            assert!(format!("{error:#}").contains("not a regular file"), "{}: {error:#}", link.display());
            assert_eq!(exit_of(&error), Exit::Bundle);
            host.remove(link).unwrap();
        }
    }

    #[test]
    fn the_threshold_must_be_reachable() {
        let (_dir, host) = host();
        let key = Path::new("/media/publisher.pub");
        host.write(key, KEY.as_bytes(), 0o644).unwrap();
        assert_eq!(trust(&host, &[key.to_owned()]).unwrap().threshold(), 1);
        host.write(Path::new(SETTINGS), b"threshold = 2\n", 0o644).unwrap();
        assert_eq!(exit_of(&trust(&host, &[key.to_owned()]).unwrap_err()), Exit::Bundle);
        host.write(Path::new(SETTINGS), b"treshold = 1\n", 0o644).unwrap();
        assert_eq!(exit_of(&trust(&host, &[key.to_owned()]).unwrap_err()), Exit::Usage);
    }
}
