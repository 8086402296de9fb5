//! `installer join-file --node NAME`: the file with which a node joins.
//!
//! A master takes the config from the cluster's record, makes a token for the node and registers it there. An etcd node
//! without a control plane makes the files of other such nodes, and a new etcd client certificate for a master.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;

use super::install::require_root;
use super::secrets::{end, file_name, sealing};
use crate::cli::joining::JoinFile;
use crate::cluster::{Founding, Known, Record, administrator_soon, ensure, rbac};
use crate::config::{ClusterConfig, Node};
use crate::host::Host;
use crate::join::contents::{Needs, Source};
use crate::join::{Join, Sealing, absolute, seal};
use crate::kubeapi::Client;
use crate::output::Output;
use crate::pki::files::{Wanted, key_path};
use crate::pki::tokens::{Token, Tokens, object_path};
use crate::pki::{AuthorityName, Inspection};
use crate::report::{Exit, Explain as _};

/// Runs the command.
pub fn join_file(host: &Host, arguments: &JoinFile, output: &Output) -> Result<Exit> {
    require_root(host)?;
    let path = absolute(&arguments.output.clone().unwrap_or_else(|| PathBuf::from(file_name(&arguments.node))))?;
    if host.exists(&path)? {
        return Err(anyhow!("`{}` exists", path.display()))
            .exit(Exit::Usage)
            .hint("join files are never overwritten: name another one with `--output`");
    }
    let founding = Founding::read(host)?.context("this host belongs to no cluster").exit(Exit::Usage);
    let founding =
        founding.hint("run the command on a master, or make a new cluster with `installer secrets create`")?;
    let made = if host.exists(&key_path(AuthorityName::Cluster.stem()))? {
        by_master(host, arguments, &founding, &path, output)?
    } else {
        by_etcd(host, arguments, &founding, &path, output)?
    };
    output.line(&made);
    Ok(Exit::Done)
}

/// On a master: with a token that the cluster knows.
fn by_master(host: &Host, arguments: &JoinFile, founding: &Founding, path: &Path, output: &Output) -> Result<String> {
    let client = administrator_soon(host, &|line| output.notice(line))?;
    let record = Record::read(&client)?
        .context("the cluster has no record of its config yet")
        .hint("let the first master finish its installation: `installer status` there shows what is missing")?;
    let node = node_of(&record.config, &arguments.node)?;
    require_plain_worker(&record.config, node, arguments.plain)?;
    let sealing = if arguments.plain { Sealing::Plain } else { sealing(host, &arguments.seal, output)? };

    let now = host.now();
    let expires = end(now, arguments.ttl)?;
    let mut tokens = Tokens::default();
    let token = Token::create(now, arguments.ttl)?;
    if Needs::of(&record.config, node).kubelet {
        tokens.insert(&node.name, token.clone());
    }
    let source = Source::of_host(host)?;
    let join = fill(&source, founding, &record, node, &tokens, (now, expires))?;
    let sealed = seal::seal(&join.write()?, &sealing)?;
    hand_out(&client, &tokens, now, || host.write_new(path, &sealed, 0o600))?;
    for id in earlier(&client, &record, &node.name)? {
        output.line(&format!("an earlier token of `{}` is still valid: `installer token revoke {id}`", node.name));
    }
    let pin = source.cluster_certificate().context("this host has no authority certificate")?;
    Ok(summary(path, node, expires, &Inspection::of_pem(pin)?.public_key_pin().to_string(), arguments.plain))
}

/// On a host that has etcd's authority and nothing else: files of its kind.
fn by_etcd(host: &Host, arguments: &JoinFile, founding: &Founding, path: &Path, output: &Output) -> Result<String> {
    if !host.exists(&key_path(AuthorityName::Etcd.stem()))? {
        return Err(anyhow!("this host is a worker: it holds no key of the cluster"))
            .exit(Exit::Usage)
            .hint("run the command on a master");
    }
    let known = match &arguments.config {
        Some(path) => {
            let path = absolute(path)?;
            let missing = || format!("`{}` does not exist", path.display());
            host.read_text(&path).and_then(|text| text.with_context(missing)).exit(Exit::Usage)?
        }
        None => Known::here(host)?.context("this host has no cluster config")?.text,
    };
    // It has no say in the record: what a master says later counts.
    let record = Record::new(&known, 0, std::collections::BTreeMap::new()).exit(Exit::Usage)?;
    let node = node_of(&record.config, &arguments.node)?;
    require_plain_worker(&record.config, node, arguments.plain)?;
    let sealing = sealing(host, &arguments.seal, output)?;
    let (now, expires) = (host.now(), end(host.now(), arguments.ttl)?);
    let join = fill(&Source::of_host(host)?, founding, &record, node, &Tokens::default(), (now, expires))?;
    host.write_new(path, &seal::seal(&join.write()?, &sealing)?, 0o600)?;
    Ok(format!("join file of node `{}` ({}), to be used before {expires}: {}", node.name, node.roles, path.display()))
}

/// Tokens of a node that it could still use.
fn earlier(client: &Client<'_>, record: &Record, node: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for id in record.tokens_of(node) {
        if client.find(&object_path(&id))?.is_some() {
            found.push(id);
        }
    }
    Ok(found)
}

/// What the node gets.
fn fill(
    source: &Source,
    founding: &Founding,
    record: &Record,
    node: &Node,
    tokens: &Tokens,
    (now, expires): (Timestamp, Timestamp),
) -> Result<Join> {
    let needs = Needs::of(&record.config, node);
    let subject = Wanted::of(&record.config, node).subject;
    let files = if needs.foreign_etcd() && !source.signs_for(AuthorityName::Cluster) {
        source.etcd_client(&subject, now)?
    } else {
        source.files(needs, &subject, tokens, now)?
    };
    Ok(Join {
        founding: founding.for_node(needs.etcd),
        node: node.name.clone(),
        expires,
        generation: record.generation,
        config: record.text().to_owned(),
        files,
        warnings: Vec::new(),
    })
}

/// Registers the tokens, then writes the file that holds them. A file that could not be written leaves no valid token.
fn hand_out(client: &Client<'_>, tokens: &Tokens, now: Timestamp, write: impl FnOnce() -> Result<()>) -> Result<()> {
    register(client, tokens, now)?;
    write().or_else(|error| {
        for (_, token) in tokens.iter() {
            withdraw(client, &token.id)?;
        }
        Err(error)
    })
}

/// Makes the cluster know the tokens: their Secrets, whose they are, and that the approver may delete them when spent.
fn register(client: &Client<'_>, tokens: &Tokens, now: Timestamp) -> Result<()> {
    let secrets: Vec<_> = tokens.iter().map(|(node, token)| token.object(node)).collect();
    ensure::ensure(client, &secrets)?;
    let record = Record::change(client, |record| {
        record.tokens.extend(tokens.nodes_by_id());
        record.note_ends(tokens.iter().map(|(_, token)| (token.id.clone(), token.expires)));
        record.forget_ended(now);
        Ok(())
    })?;
    ensure::ensure(client, &rbac::objects(record.tokens.keys()))?;
    Ok(())
}

/// Takes a token back: the record first, so that no master makes its Secret again.
pub(super) fn withdraw(client: &Client<'_>, id: &str) -> Result<()> {
    Record::change(client, |record| {
        record.revoke(id);
        Ok(())
    })?;
    client.delete(&object_path(id))?;
    Ok(())
}

fn node_of<'a>(config: &'a ClusterConfig, name: &str) -> Result<&'a Node> {
    let found = config.nodes.iter().find(|node| node.name == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
        anyhow!("the cluster's config has no node `{name}` (it has {})", known.join(", "))
            .hint(format!("add it on a master: `installer node add {name} --address … --role …`"))
            .exit(Exit::Usage)
    })
}

fn require_plain_worker(config: &ClusterConfig, node: &Node, plain: bool) -> Result<()> {
    if !plain || Needs::of(config, node).worker_only() {
        return Ok(());
    }
    Err(anyhow!("node `{}` has the roles {}: its join file holds keys of the cluster", node.name, node.roles))
        .exit(Exit::Usage)
        .hint("leave `--plain` out: only the file of a worker may be plain")
}

fn summary(path: &Path, node: &Node, expires: Timestamp, pin: &str, plain: bool) -> String {
    let mut lines = vec![
        format!("join file of node `{}` ({}), to be used before {expires}: {}", node.name, node.roles, path.display()),
        format!("authority: {pin}"),
    ];
    let pinned = if plain { format!(" --ca-pin {pin}") } else { String::new() };
    lines.push(format!("on that host: installer --bundle … --join {}{pinned}", file_name(&node.name)));
    if node.roles.master() {
        lines.push("it holds the keys of the cluster, whatever its end says: keep it as you keep those".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests;
