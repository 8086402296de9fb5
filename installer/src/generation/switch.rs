//! The step that makes the desired generation the current one.
//!
//! The generation is written beside the others and renamed into place whole; then the bundle is recorded as accepted; then
//! one atomic rename moves `current`. Equal content makes no new generation.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bundle::{Digest, Image};

use super::{BUNDLE, Generation};
use crate::context::{CURRENT, Context, HOME};
use crate::facts::OWN_RESOLV_CONF;
use crate::host::{FileKind, Host};
use crate::step::{Change, Check, Step, Target};
use crate::trust::Acceptance;

/// Where the cluster config ends up.
const CLUSTER_CONFIG: &str = "/etc/sealift/cluster.toml";

/// The step.
#[derive(Debug)]
pub struct Switch {
    /// What to record as accepted; `None` when resuming, where that is done.
    pub acceptance: Option<Acceptance>,
    /// Text of `cluster.toml`.
    pub config: String,
}

impl Switch {
    fn files(&self, context: &Context<'_>) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = vec![(PathBuf::from(CLUSTER_CONFIG), self.config.clone().into_bytes())];
        if context.facts.resolv_conf == Path::new(OWN_RESOLV_CONF) {
            let text = "# This host has no nameserver that pods could use (Sealift).\n";
            files.push((PathBuf::from(OWN_RESOLV_CONF), text.as_bytes().to_vec()));
        }
        files
    }
}

impl Step for Switch {
    fn name(&self) -> &'static str {
        "generation"
    }

    fn title(&self) -> &'static str {
        "Render the configuration and switch to it"
    }

    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let files = self.files(context).into_iter().map(|(path, _)| Target::File(path));
        Ok(files.chain([Target::File(PathBuf::from(CURRENT))]).collect())
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let host = context.host;
        let mut changes = Vec::new();
        for (path, bytes) in self.files(context) {
            if !host.has(&path, &bytes, 0o644)? {
                changes.push(Change::new(format!("write {} ({} B)", path.display(), bytes.len())));
            }
        }
        if !is_current(host, context.desired)? {
            let Generation { links, files, .. } = context.desired;
            let next = next_number(host)?;
            let (links, files) = (links.len(), files.len());
            changes.push(Change::new(format!("make generation {next} current ({links} components, {files} files)")));
        }
        if let Some(acceptance) = &self.acceptance
            && !acceptance.is_recorded(host)?
        {
            changes.push(Change::new(format!("record {acceptance} as accepted")));
        }
        Ok(if changes.is_empty() { Check::Done } else { Check::Needed(changes) })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let host = context.host;
        for (path, bytes) in self.files(context) {
            if !host.has(&path, &bytes, 0o644)? {
                host.write(&path, &bytes, 0o644)?;
            }
        }
        let switch = if is_current(host, context.desired)? { None } else { Some(write(host, context.desired)?) };
        // Before the switch: a host with a current generation always has its record.
        if let Some(acceptance) = &self.acceptance
            && !acceptance.is_recorded(host)?
        {
            acceptance.record(host)?;
        }
        if let Some(number) = switch {
            host.symlink(Path::new(CURRENT), &Path::new("generations").join(number.to_string()))?;
        }
        Ok(())
    }
}

/// The images of the current generation; `None` before the first.
pub fn current_images(host: &Host) -> Result<Option<Vec<Image>>> {
    let path = Path::new(CURRENT).join("components.json");
    let Some(bytes) = host.read(&path)? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("reading `{}`", path.display()))?))
}

/// Digest of the index of the bundle that the current generation was made from; `None` when there is none or it does not
/// say so.
pub fn current_bundle(host: &Host) -> Result<Option<Digest>> {
    let path = Path::new(CURRENT).join(BUNDLE);
    let Some(text) = host.read_text(&path)? else { return Ok(None) };
    Ok(Some(text.trim_end().parse().with_context(|| format!("reading `{}`", path.display()))?))
}

fn directory() -> PathBuf {
    Path::new(HOME).join("generations")
}

fn next_number(host: &Host) -> Result<u64> {
    let names = host.list(&directory())?;
    Ok(names.iter().filter_map(|name| name.parse::<u64>().ok()).max().unwrap_or(0) + 1)
}

fn is_current(host: &Host, wanted: &Generation) -> Result<bool> {
    let Some(target) = host.link_target(Path::new(CURRENT))? else { return Ok(false) };
    is_exactly(host, &Path::new(HOME).join(target), wanted)
}

/// Whether a directory is exactly this generation: every file, every link, and nothing else.
fn is_exactly(host: &Host, root: &Path, wanted: &Generation) -> Result<bool> {
    let mut found = BTreeSet::new();
    if !collect(host, root, "", &mut found)? {
        return Ok(false);
    }
    let links = wanted.links.keys().map(ToString::to_string);
    let expected: BTreeSet<String> = wanted.files.keys().cloned().chain(links).collect();
    if found != expected {
        return Ok(false);
    }
    for (name, bytes) in &wanted.files {
        if !host.has(&root.join(name), bytes, 0o644)? {
            return Ok(false);
        }
    }
    for (name, entry) in &wanted.links {
        if host.link_target(&root.join(name.as_str()))? != Some(store_link(entry)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn store_link(entry: &str) -> PathBuf {
    Path::new("../../store").join(entry)
}

/// Paths of everything but directories below `root`; false when it is not a directory.
fn collect(host: &Host, root: &Path, below: &str, found: &mut BTreeSet<String>) -> Result<bool> {
    let here = if below.is_empty() { root.to_owned() } else { root.join(below) };
    if host.entry(&here)?.is_none_or(|entry| entry.kind != FileKind::Directory) {
        return Ok(false);
    }
    for name in host.list(&here)? {
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if !collect(host, root, &path, found)? {
            found.insert(path);
        }
    }
    Ok(true)
}

/// Writes a generation under the next number and gives the number. One that a killed run wrote and did not switch to is
/// taken as it is.
fn write(host: &Host, wanted: &Generation) -> Result<u64> {
    let directory = directory();
    host.create_dir(&directory, 0o755)?;
    for left in host.list(&directory)? {
        if left.starts_with(".tmp-") {
            host.remove_tree(&directory.join(left))?;
        }
    }
    let number = next_number(host)?;
    let last = number - 1;
    if is_exactly(host, &directory.join(last.to_string()), wanted)? {
        return Ok(last);
    }
    let staging = directory.join(format!(".tmp-{number}"));
    host.create_dir(&staging, 0o755)?;
    for (name, bytes) in &wanted.files {
        host.write(&staging.join(name), bytes, 0o644)?;
    }
    for (name, entry) in &wanted.links {
        host.symlink(&staging.join(name.as_str()), &store_link(entry))?;
    }
    host.rename(&staging, &directory.join(number.to_string()))?;
    Ok(number)
}
