//! dpkg's database: `/var/lib/dpkg/status`, and the changes beside it that a killed dpkg had not merged yet.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Installed, MultiArch, Relation, State};
use crate::host::Host;

/// The database.
const STATUS: &str = "/var/lib/dpkg/status";
/// Stanzas that replace those of the database, in files named by number; dpkg merges them when it ends (deb-old(5) names
/// them `updates`).
const UPDATES: &str = "/var/lib/dpkg/updates";

/// Packages by name; empty when this host has no dpkg.
pub(super) fn read(host: &Host) -> Result<BTreeMap<String, Vec<Installed>>> {
    let mut packages = BTreeMap::new();
    let Some(status) = host.read(Path::new(STATUS))? else { return Ok(packages) };
    merge(&mut packages, &String::from_utf8_lossy(&status)).with_context(|| format!("reading `{STATUS}`"))?;
    // Sorted by name, which is by number: they all have the same length.
    for name in host.list(Path::new(UPDATES))? {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let path = Path::new(UPDATES).join(&name);
        let Some(update) = host.read(&path)? else { continue };
        merge(&mut packages, &String::from_utf8_lossy(&update))
            .with_context(|| format!("reading `{}`", path.display()))?;
    }
    packages.retain(|_, entries| !entries.is_empty());
    Ok(packages)
}

/// Takes stanzas over; one of the same name and architecture replaces what was there.
fn merge(packages: &mut BTreeMap<String, Vec<Installed>>, text: &str) -> Result<()> {
    for stanza in text.split("\n\n").filter(|stanza| !stanza.trim().is_empty()) {
        let fields = fields(stanza);
        let name = fields.get("package").context("a stanza without `Package`")?;
        let status = fields.get("status").with_context(|| format!("package `{name}` has no `Status`"))?;
        let architecture = fields.get("architecture").cloned().unwrap_or_default();
        let entries = packages.entry(name.clone()).or_default();
        entries.retain(|entry| entry.architecture != architecture);
        let mut words = status.split_whitespace();
        let (want, flag, state) = (words.next(), words.next(), words.next());
        let Some(state) = parse_state(state.unwrap_or_default())
            .with_context(|| format!("package `{name}` has the status `{status}`"))?
        else {
            continue;
        };
        let relation = |field: &str, relation| Some((relation, fields.get(field)?.clone()));
        entries.push(Installed {
            version: fields.get("version").cloned().unwrap_or_default(),
            architecture,
            multi_arch: match fields.get("multi-arch").map(String::as_str) {
                Some("same") => MultiArch::Same,
                Some("foreign") => MultiArch::Foreign,
                Some("allowed") => MultiArch::Allowed,
                _ => MultiArch::No,
            },
            state,
            reinstall: flag == Some("reinstreq"),
            held: want == Some("hold"),
            provides: list(fields.get("provides")),
            relations: [
                relation("depends", Relation::Depends),
                relation("pre-depends", Relation::PreDepends),
                relation("conflicts", Relation::Conflicts),
                relation("breaks", Relation::Breaks),
            ]
            .into_iter()
            .flatten()
            .collect(),
        });
    }
    Ok(())
}

/// The fields of a stanza, names in lower case; lines that go on are joined with a space.
fn fields(stanza: &str) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last = String::new();
    for line in stanza.lines() {
        if line.starts_with([' ', '\t']) {
            // Descriptions and lists of files are of no interest, and long.
            if let Some(value) = fields.get_mut(&last).filter(|_| last != "description" && last != "conffiles") {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.to_ascii_lowercase();
            fields.insert(last.clone(), value.trim().to_owned());
        }
    }
    fields
}

fn list(value: Option<&String>) -> Vec<String> {
    let items = value.into_iter().flat_map(|value| value.split(','));
    items.map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// `None` for a package that dpkg only knows by name.
fn parse_state(word: &str) -> Result<Option<State>> {
    Ok(Some(match word {
        "not-installed" => return Ok(None),
        "config-files" => State::ConfigFiles,
        "half-installed" => State::HalfInstalled,
        "unpacked" => State::Unpacked,
        "half-configured" => State::HalfConfigured,
        "triggers-awaited" => State::TriggersAwaited,
        "triggers-pending" => State::TriggersPending,
        "installed" => State::Installed,
        _ => anyhow::bail!("expected a state that dpkg(1) knows"),
    }))
}
