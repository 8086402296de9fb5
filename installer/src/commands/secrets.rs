//! `installer secrets create`: the secrets of a new cluster, before its first host: one join file per node.
//!
//! Nothing is kept here but these files. With them all hosts can be installed at the same time, in any order.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;

use crate::cli::joining::{Seal, Secrets, SecretsCreate};
use crate::cluster::Founding;
use crate::config::ClusterConfig;
use crate::host::Host;
use crate::join::contents::{Needs, Source};
use crate::join::{Join, Sealing, absolute, passphrase, seal};
use crate::output::Output;
use crate::pki::Inspection;
use crate::pki::files::Wanted;
use crate::pki::tokens::{Token, Tokens};
use crate::report::{Exit, Explain as _};

/// Runs the command.
pub fn secrets(host: &Host, arguments: &Secrets, output: &Output) -> Result<Exit> {
    let Secrets::Create(arguments) = arguments;
    create(host, arguments, output)
}

fn create(host: &Host, arguments: &SecretsCreate, output: &Output) -> Result<Exit> {
    let path = absolute(&arguments.config)?;
    let missing = || format!("`{}` does not exist", path.display());
    let text = host.read_text(&path).and_then(|text| text.with_context(missing)).exit(Exit::Usage)?;
    let config = ClusterConfig::parse(&text, &path).exit(Exit::Usage)?;
    let directory = absolute(&arguments.output)?;
    require_empty(host, &directory)?;
    let sealing = sealing(host, &arguments.seal, output)?;

    let expires = end(host.now(), arguments.ttl)?;
    let joins = found(&config, &text, host.now(), expires)?;
    let pin = pin(&joins)?;
    let sealed = joins.iter().map(|join| Ok((file_name(&join.node), seal::seal(&join.write()?, &sealing)?)));
    let sealed: Vec<(String, Vec<u8>)> = sealed.collect::<Result<_>>()?;
    host.create_dir(&directory, 0o700)?;
    for (name, bytes) in &sealed {
        host.write_new(&directory.join(name), bytes, 0o600)?;
    }
    output.line(&summary(&config, &directory, expires, &pin));
    Ok(Exit::Done)
}

/// Founds the cluster: everything that cannot be made twice, and what of it each node gets.
pub(crate) fn found(config: &ClusterConfig, text: &str, now: Timestamp, expires: Timestamp) -> Result<Vec<Join>> {
    let source = Source::create(&config.cluster.name, now)?;
    let founding = Founding::create(config.etcd_members(), false)?;
    let lifetime = std::time::Duration::try_from(expires.duration_since(now)).context("computing the tokens' end")?;
    let mut all = Tokens::default();
    for node in config.nodes.iter().filter(|node| Needs::of(config, node).kubelet) {
        all.insert(&node.name, Token::create(now, lifetime)?);
    }
    let join = |node: &crate::config::Node| {
        let needs = Needs::of(config, node);
        // Masters make the tokens known to the cluster, so they have those of all nodes; a worker has its own.
        let tokens = if needs.master { all.clone() } else { all.only(&node.name) };
        let files = source.files(needs, &Wanted::of(config, node).subject, &tokens, now)?;
        Ok(Join {
            founding: founding.for_node(needs.etcd),
            node: node.name.clone(),
            expires,
            generation: 1,
            config: text.to_owned(),
            files,
            warnings: Vec::new(),
        })
    };
    config.nodes.iter().map(join).collect()
}

/// When something given out now ends, to the second.
pub(super) fn end(now: Timestamp, ttl: std::time::Duration) -> Result<Timestamp> {
    let end = now.checked_add(ttl).context("the lifetime is too long").exit(Exit::Usage)?;
    Timestamp::from_second(end.as_second()).context("computing when the file ends")
}

/// With what the operator wants a file sealed.
pub(super) fn sealing(host: &Host, asked: &Seal, output: &Output) -> Result<Sealing> {
    if !asked.recipients.is_empty() {
        return Ok(Sealing::Recipients(asked.recipients.clone()));
    }
    let Some(path) = &asked.passphrase_file else { return passphrase::ask_new().map(Sealing::Passphrase) };
    if let Some(warning) = passphrase::warning(host, "passphrase file", path)? {
        output.error(&format!("warning: {warning}"));
    }
    let found = passphrase::of_file(host, path)?;
    passphrase::require_strength(&found)?;
    Ok(Sealing::Passphrase(found))
}

/// Name of a node's join file.
pub(super) fn file_name(node: &str) -> String {
    format!("{node}.join")
}

fn require_empty(host: &Host, directory: &Path) -> Result<()> {
    if host.list(directory)?.is_empty() {
        return Ok(());
    }
    Err(anyhow!("`{}` is not empty", directory.display()))
        .exit(Exit::Usage)
        .hint("join files are never overwritten: name a new directory")
}

fn pin(joins: &[Join]) -> Result<String> {
    let path = crate::pki::files::certificate_path(crate::pki::AuthorityName::Cluster.stem()).display().to_string();
    let certificate = joins.iter().find_map(|join| join.files.get(&path)).context("no node gets the authority")?;
    Ok(Inspection::of_pem(certificate.expose())?.public_key_pin().to_string())
}

fn summary(config: &ClusterConfig, directory: &Path, expires: Timestamp, pin: &str) -> String {
    let mut lines = vec![format!("join files of cluster `{}`, to be used before {expires}:", config.cluster.name)];
    for node in &config.nodes {
        let path: PathBuf = directory.join(file_name(&node.name));
        lines.push(format!("  {}  ({})", path.display(), node.roles));
    }
    lines.push(format!("authority: {pin}"));
    lines.push("on each host: installer --bundle … --join NODE.join".to_owned());
    lines.push("keep a master's file off-site: it holds the keys of the cluster, whatever its end says".to_owned());
    lines.join("\n")
}
