//! The fsynced record of runs on this host: what was asked for, how things were before, which steps were applied.
//!
//! One append-only file of lines `CHECKSUM JSON`, private to root because it holds before-images. A torn last line (power
//! cut while writing) is dropped; damage anywhere else is an error, never skipped. 12 MiB are reserved up front, so that
//! a full disk does not keep a run from recording what it did. The first before-image of a target ever taken stays: undo
//! leads to the host as it was before Sealift, not to some state in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use bundle::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::report::{Exit, Explain as _};
use crate::restart::Mode;
use crate::step::Target;

mod image;

pub use image::BeforeImage;

/// Where it is.
pub const PATH: &str = "/var/lib/sealift/journal";
/// Reserved on disk up front, bytes.
const RESERVED: u64 = 12 << 20;

/// What a run was asked for. While it is pending, only a run with the same inputs may go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Digest of the bundle's `index.json`.
    pub index: Digest,
    /// Digest of `cluster.toml`.
    pub config: Digest,
    /// Roles, comma-separated.
    pub roles: String,
    /// Digest of the installer program.
    pub installer: Digest,
    /// It was given a join file: whatever goes on with it must not found a cluster. Absent from records of older versions.
    #[serde(default)]
    pub joined: bool,
    /// Checks of preflight that the operator said to ignore: whatever goes on with the run ignores them too.
    #[serde(default)]
    pub ignored: BTreeSet<String>,
    /// What the operator said about reboots. What goes on by itself keeps to it.
    #[serde(default)]
    pub reboot: Mode,
    /// The operator said `--retry-kernel` when so many kernels had failed here: whatever goes on with the run tries one again
    /// for as long as no further one has.
    #[serde(default)]
    pub retry_kernel: Option<usize>,
}

impl Inputs {
    /// What differs, for people.
    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let pairs = [
            ("bundle", self.index != other.index),
            ("cluster config", self.config != other.config),
            ("roles", self.roles != other.roles),
            ("installer", self.installer != other.installer),
            // One may be given later, and need not be given again: who goes on takes this over.
            ("join file", self.joined && !other.joined),
        ];
        pairs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
enum Record {
    /// A run begins.
    Begin { time: Timestamp, inputs: Inputs, config: String },
    /// How a target was before Sealift first changed it.
    Before { step: String, target: Target, image: BeforeImage },
    /// A step is about to change the host.
    Applying { time: Timestamp, step: String },
    /// A step's check said so afterwards.
    Applied { time: Timestamp, step: String, milliseconds: u64 },
    /// A step was undone.
    Undone { time: Timestamp, step: String },
    /// `installer reset` has done this part of its work.
    Reset { time: Timestamp, part: String },
    /// The run ended well.
    End { time: Timestamp },
    /// The operator gave a pending run up.
    Abandoned { time: Timestamp },
    /// A record of a newer version.
    #[serde(other)]
    Unknown,
}

/// A run that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// What it was asked for.
    pub inputs: Inputs,
    /// The text of its `cluster.toml`.
    pub config: String,
    /// When it began.
    pub since: Timestamp,
    /// Steps applied so far.
    pub applied: Vec<String>,
    /// The step that was being applied when it ended, if any.
    pub interrupted: Option<String>,
}

/// The journal of this host.
#[derive(Debug)]
pub struct Journal<'a> {
    host: &'a Host,
    path: PathBuf,
    records: Vec<Record>,
    /// Bytes of good lines; a torn line behind them is overwritten by the next record.
    length: u64,
    reserved: bool,
}

impl<'a> Journal<'a> {
    /// Reads the journal; an absent one is empty. Changes nothing.
    pub fn read(host: &'a Host) -> Result<Self> {
        let path = PathBuf::from(PATH);
        let bytes = host.read(&path)?.unwrap_or_default();
        let (records, length) = parse(&bytes)
            .with_context(|| format!("reading the journal `{PATH}`"))
            .hint(format!("the disk may be failing; keep a copy of {PATH} and move it away to start a new journal"))?;
        Ok(Self { host, path, records, length, reserved: false })
    }

    /// Whether nothing was ever recorded.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The run that began and did not end.
    pub fn pending(&self) -> Option<Pending> {
        let mut pending: Option<Pending> = None;
        for record in &self.records {
            match (record, &mut pending) {
                (Record::Begin { time, inputs, config }, _) => {
                    pending = Some(Pending {
                        inputs: inputs.clone(),
                        config: config.clone(),
                        since: *time,
                        applied: Vec::new(),
                        interrupted: None,
                    });
                }
                (Record::End { .. } | Record::Abandoned { .. } | Record::Reset { .. }, _) => pending = None,
                (Record::Applying { step, .. }, Some(run)) => run.interrupted = Some(step.clone()),
                (Record::Applied { step, .. }, Some(run)) => {
                    run.interrupted = None;
                    run.applied.push(step.clone());
                }
                _ => {}
            }
        }
        pending
    }

    /// Whether a run that has not ended was given a join file.
    pub fn joined(&self) -> bool {
        self.pending().is_some_and(|pending| pending.inputs.joined)
    }

    /// Checks of preflight that a run that has not ended ignores.
    pub fn ignored(&self) -> BTreeSet<String> {
        self.pending().map(|pending| pending.inputs.ignored).unwrap_or_default()
    }

    /// What a run that has not ended was told about kernels that had failed.
    pub fn retry_kernel(&self) -> Option<usize> {
        self.pending().and_then(|pending| pending.inputs.retry_kernel)
    }

    /// What the last run was asked for, whether it has ended or not.
    pub fn last(&self) -> Option<&Inputs> {
        self.records.iter().rev().find_map(|record| match record {
            Record::Begin { inputs, .. } => Some(inputs),
            _ => None,
        })
    }

    /// Refuses inputs other than those of a pending run, and every run on a host that is half reset. Reads only.
    pub fn require(&self, inputs: &Inputs) -> Result<()> {
        self.require_whole()?;
        let Some(pending) = self.pending() else { return Ok(()) };
        let differences = pending.inputs.differences(inputs);
        if differences.is_empty() {
            return Ok(());
        }
        let since = pending.since;
        let error: Result<()> = Err(anyhow::anyhow!(
            "a run that began at {since} has not ended, and this one has another {}",
            differences.join(", another ")
        ));
        error
            .exit(Exit::Usage)
            .hint("finish it with the same inputs (or `installer resume`), or give it up with `--abandon`")
    }

    fn require_whole(&self) -> Result<()> {
        let part = self.records.iter().any(|record| matches!(record, Record::Reset { .. }));
        let error: Result<()> = Err(anyhow::anyhow!("this host is being reset, and that has not ended"));
        if part { error.exit(Exit::Usage).hint("`installer reset` goes on with it; then install anew") } else { Ok(()) }
    }

    /// Begins a run, or goes on with the pending one of the same inputs. With other inputs the pending one is given up:
    /// [`Journal::require`] has been asked before.
    pub fn begin(&mut self, inputs: &Inputs, config: &str) -> Result<()> {
        self.require_whole()?;
        if let Some(pending) = self.pending() {
            if pending.inputs == *inputs {
                return Ok(());
            }
            self.append(Record::Abandoned { time: self.host.now() })?;
        }
        self.append(Record::Begin { time: self.host.now(), inputs: inputs.clone(), config: config.to_owned() })?;
        // What programs will make for themselves: whether it was there decides what `reset` may take away.
        let places = crate::reset::places::of(config).into_iter().map(|place| Target::File(place.path));
        self.capture("host", &places.collect::<Vec<_>>())
    }

    /// Records how a step's targets are now, except those recorded before. Directories that will have to be made for a
    /// file count as well.
    pub fn capture(&mut self, step: &str, targets: &[Target]) -> Result<()> {
        for target in targets {
            if self.before(target).is_some() {
                continue;
            }
            if let Target::File(path) | Target::Marks(path) = target {
                let mut missing = Vec::new();
                for parent in path.ancestors().skip(1) {
                    if self.host.exists(parent)? {
                        break;
                    }
                    missing.push(Target::File(parent.to_owned()));
                }
                for parent in
                    missing.into_iter().rev().filter(|parent| self.before(parent).is_none()).collect::<Vec<_>>()
                {
                    self.append(Record::Before { step: step.to_owned(), target: parent, image: BeforeImage::Absent })?;
                }
            }
            let image = BeforeImage::capture(self.host, target)
                .with_context(|| format!("recording how `{target}` is before it is changed"))?;
            self.append(Record::Before { step: step.to_owned(), target: target.clone(), image })?;
        }
        Ok(())
    }

    /// The before-image of a target.
    pub fn before(&self, target: &Target) -> Option<&BeforeImage> {
        self.records.iter().find_map(|record| match record {
            Record::Before { target: found, image, .. } if found == target => Some(image),
            _ => None,
        })
    }

    /// All before-images a step took, newest first: the order of undoing.
    pub fn images_of(&self, step: &str) -> Vec<(&Target, &BeforeImage)> {
        let images = self.records.iter().rev().filter_map(|record| match record {
            Record::Before { step: found, target, image } if found == step => Some((target, image)),
            _ => None,
        });
        images.collect()
    }

    /// All before-images, newest first.
    pub fn images(&self) -> impl Iterator<Item = (&Target, &BeforeImage)> {
        self.records.iter().rev().filter_map(|record| match record {
            Record::Before { target, image, .. } => Some((target, image)),
            _ => None,
        })
    }

    /// Whether a step was ever about to change this host.
    pub fn attempted(&self, step: &str) -> bool {
        self.records.iter().any(|record| matches!(record, Record::Applying { step: found, .. } if found == step))
    }

    /// The text of the last run's `cluster.toml`.
    pub fn config(&self) -> Option<&str> {
        self.records.iter().rev().find_map(|record| match record {
            Record::Begin { config, .. } => Some(config.as_str()),
            _ => None,
        })
    }

    /// Says that `reset` has done a part of its work.
    pub fn reset(&mut self, part: &str) -> Result<()> {
        if self.was_reset(part) {
            return Ok(());
        }
        self.append(Record::Reset { time: self.host.now(), part: part.to_owned() })
    }

    /// Whether `reset` has done a part of its work.
    pub fn was_reset(&self, part: &str) -> bool {
        self.records.iter().any(|record| matches!(record, Record::Reset { part: found, .. } if found == part))
    }

    /// Says that a step is about to change the host.
    pub fn applying(&mut self, step: &str) -> Result<()> {
        self.append(Record::Applying { time: self.host.now(), step: step.to_owned() })
    }

    /// Says that a step is done.
    pub fn applied(&mut self, step: &str, milliseconds: u64) -> Result<()> {
        self.append(Record::Applied { time: self.host.now(), step: step.to_owned(), milliseconds })
    }

    /// Says that a step was undone.
    pub fn undone(&mut self, step: &str) -> Result<()> {
        self.append(Record::Undone { time: self.host.now(), step: step.to_owned() })
    }

    /// Ends the pending run; nothing when there is none.
    pub fn end(&mut self) -> Result<()> {
        if self.pending().is_none() { Ok(()) } else { self.append(Record::End { time: self.host.now() }) }
    }

    /// Duration of each step's last application, for the record of past runs.
    pub fn durations(&self) -> BTreeMap<&str, u64> {
        let applied = self.records.iter().filter_map(|record| match record {
            Record::Applied { step, milliseconds, .. } => Some((step.as_str(), *milliseconds)),
            _ => None,
        });
        applied.collect()
    }

    fn append(&mut self, record: Record) -> Result<()> {
        if !self.reserved {
            self.host.reserve(&self.path, 0o600, RESERVED).context("reserving space for the journal")?;
            self.reserved = true;
        }
        let line = line(&record)?;
        self.host.append_at(&self.path, self.length, line.as_bytes(), 0o600).context("writing the journal")?;
        self.length += line.len() as u64;
        self.records.push(record);
        Ok(())
    }
}

fn line(record: &Record) -> Result<String> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{} {json}\n", checksum(&json)))
}

/// 16 hex digits: against bit rot and torn writes, not against people who can write root's files.
fn checksum(json: &str) -> String {
    Digest::of(json.as_bytes()).hex()[..16].to_owned()
}

/// The good records and how many bytes they take. Only the last line may be bad, and only by being cut off.
fn parse(bytes: &[u8]) -> Result<(Vec<Record>, u64)> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let number = records.len() + 1;
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            break;
        };
        match parse_line(&rest[..end]) {
            Some(record) => records.push(record),
            // Blocks of a line can reach the disk in any order: a bad last line is torn, even with its end there.
            None if end + 1 == rest.len() => break,
            None => bail!("line {number} is damaged"),
        }
        rest = &rest[end + 1..];
    }
    Ok((records, (bytes.len() - rest.len()) as u64))
}

fn parse_line(line: &[u8]) -> Option<Record> {
    let (sum, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    (sum == checksum(json)).then(|| serde_json::from_str(json).ok())?
}

/// Whether this host has a journal at all.
pub fn exists(host: &Host) -> Result<bool> {
    host.exists(Path::new(PATH))
}

#[cfg(test)]
mod tests;
