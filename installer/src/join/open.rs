//! Opening the join file that the command line names.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::contents::Needs;
use super::seal::{self, Key, Kind, MOST_SEALED};
use super::{Join, absolute, passphrase};
use crate::cli::joining::JoinSource;
use crate::host::Host;
use crate::pki::files::certificate_path;
use crate::pki::{AuthorityName, Inspection, Secret};
use crate::report::{Exit, Explain as _, has_exit};

/// Opens the join file that the command line names, if it names one. Refuses what cannot be opened (exit code 2), and what
/// has expired or is of another authority than the pinned one (3). Whether it is for this host is for preflight to say.
pub fn open(host: &Host, source: &JoinSource) -> Result<Option<Join>> {
    let Some(path) = &source.join else { return Ok(None) };
    let path = absolute(path)?;
    let mut warnings: Vec<String> = passphrase::warning(host, "join file", &path)?.into_iter().collect();
    for (what, path) in [("passphrase file", &source.passphrase_file), ("age identity file", &source.identity)] {
        if let Some(path) = path {
            warnings.extend(passphrase::warning(host, what, path)?);
        }
    }
    let join = read(host, &path).and_then(|bytes| Ok((Kind::of(&bytes)?, bytes)));
    let join = join.and_then(|(kind, bytes)| parse(host, source, kind, bytes).map(|join| (kind, join)));
    let (kind, mut join) =
        join.with_context(|| format!("join file `{}` was refused", path.display())).exit(Exit::Usage)?;
    join.warnings = warnings;
    let fit = check(host, source, kind, &join);
    let fit = fit.map_err(|error| if has_exit(&error) { error } else { error.exit(Exit::Preflight) });
    fit.with_context(|| format!("join file `{}` was refused", path.display()))?;
    Ok(Some(join))
}

fn read(host: &Host, path: &Path) -> Result<Vec<u8>> {
    let file = host.open(path)?.context("it does not exist")?;
    let mut bytes = Vec::new();
    file.take(MOST_SEALED as u64 + 1).read_to_end(&mut bytes).context("reading it")?;
    ensure!(bytes.len() <= MOST_SEALED, "it is larger than {} KiB", MOST_SEALED >> 10);
    Ok(bytes)
}

fn parse(host: &Host, source: &JoinSource, kind: Kind, bytes: Vec<u8>) -> Result<Join> {
    let text = match kind {
        Kind::Plain => Secret::new(String::from_utf8(bytes).map_err(|_| anyhow!("it is not text"))?),
        Kind::Sealed => seal::unseal(&bytes, &key(host, source, &bytes)?)?,
    };
    Join::parse(text.expose())
}

fn key(host: &Host, source: &JoinSource, sealed: &[u8]) -> Result<Key> {
    if let Some(path) = &source.identity {
        let path = absolute(path)?;
        let missing = || format!("age identity file `{}` does not exist", path.display());
        return Ok(Key::Identity(Secret::new(host.read_text(&path)?.with_context(missing)?)));
    }
    if let Some(path) = &source.passphrase_file {
        return passphrase::of_file(host, path).map(Key::Passphrase);
    }
    if !seal::wants_passphrase(sealed)? {
        return Err(anyhow!("it is sealed for an age key")).hint("give the key's file: `--identity FILE`");
    }
    passphrase::ask().map(Key::Passphrase)
}

/// What an opened file must fulfil, besides being one.
fn check(host: &Host, source: &JoinSource, kind: Kind, join: &Join) -> Result<()> {
    let (config, node) = join.node()?;
    if kind == Kind::Plain && !Needs::of(&config, &node).worker_only() {
        return Err(anyhow!("it is plain, and node `{}` is not a mere worker", node.name))
            .hint("only workers may have a plain join file: make another one, sealed");
    }
    let now = host.now();
    if join.expires <= now {
        return Err(anyhow!("it expired at {} (this host's clock says {now})", join.expires)).hint(format!(
            "make another one on a master: `installer join-file --node {}`; or set the clock (a host that has taken its \
             file in needs none any more)",
            join.node
        ));
    }
    match (&source.ca_pin, kind) {
        (Some(pin), _) => check_pin(pin, join),
        (None, Kind::Sealed) => Ok(()),
        (None, Kind::Plain) => Err(anyhow!("it is plain: whoever had it could have put in another authority"))
            .hint("give the authority's digest as `join-file` printed it: `--ca-pin sha256:…`")
            .exit(Exit::Usage),
    }
}

fn check_pin(pin: &str, join: &Join) -> Result<()> {
    let wanted: bundle::Digest = pin
        .trim()
        .parse()
        .map_err(|_| anyhow!("`{pin}` is not a digest"))
        .exit(Exit::Usage)
        .hint("it is `sha256:` and 64 hexadecimal digits, as `join-file` printed it")?;
    let path = certificate_path(AuthorityName::Cluster.stem()).display().to_string();
    let certificate = join.files.get(&path).context("it holds no certificate of the cluster's authority to pin")?;
    let found = Inspection::of_pem(certificate.expose())?.public_key_pin();
    if found == wanted {
        return Ok(());
    }
    Err(anyhow!("its authority has the digest {found}, not {wanted} as pinned"))
        .hint("the file is of another cluster, or somebody changed it: get both from a master again")
}
