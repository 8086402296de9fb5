//! `installer token …`: bootstrap tokens, listed and revoked.

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::install::require_root;
use super::join_file::withdraw;
use crate::cli::joining::Token;
use crate::cluster::{Record, administrator_soon};
use crate::host::Host;
use crate::kubeapi::Client;
use crate::output::Output;
use crate::pki::tokens::object_path;
use crate::report::{Exit, Explain as _};

/// Runs the command.
pub fn token(host: &Host, arguments: &Token, output: &Output) -> Result<Exit> {
    require_root(host)?;
    let client = administrator_soon(host, &|line| output.notice(line))?;
    match arguments {
        Token::List(_) => show(&list(&client, host.now())?, output),
        Token::Revoke { token } => {
            for (id, node) in revoke(&client, token)? {
                output.line(&format!("revoked token {id} of node `{node}`"));
            }
        }
    }
    Ok(Exit::Done)
}

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// A host can still join with it.
    Valid,
    /// It has ended and was not used.
    Expired,
    /// The node has its certificates: the token was deleted.
    Used,
    /// It was withdrawn.
    Revoked,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::Revoked => "revoked",
        }
    }
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Listed {
    /// The node it was made for; empty for a revoked one.
    pub(super) node: String,
    /// Its public half.
    pub(super) id: String,
    /// When it ends, while its Secret is there.
    pub(super) expires: Option<Timestamp>,
    /// What became of it.
    pub(super) state: State,
}

/// All tokens that the record knows, by node.
pub(super) fn list(client: &Client<'_>, now: Timestamp) -> Result<Vec<Listed>> {
    let record = Record::read(client)?.context("the cluster has no record of its config yet")?;
    let mut listed = Vec::new();
    for (id, node) in &record.tokens {
        let object = client.find(&object_path(id))?;
        let expires = object.as_ref().and_then(expiration);
        let state = match (&object, expires) {
            (None, _) => State::Used,
            (Some(_), Some(at)) if at <= now => State::Expired,
            (Some(_), _) => State::Valid,
        };
        listed.push(Listed { node: node.clone(), id: id.clone(), expires, state });
    }
    let revoked = record.revoked.iter().map(|id| (String::new(), id.clone()));
    listed.extend(revoked.map(|(node, id)| Listed { node, id, expires: None, state: State::Revoked }));
    listed.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
    Ok(listed)
}

/// When a token's Secret says that it ends.
fn expiration(object: &Value) -> Option<Timestamp> {
    let text = STANDARD.decode(object.pointer("/data/expiration")?.as_str()?).ok()?;
    String::from_utf8(text).ok()?.parse().ok()
}

/// Withdraws a token by its id, or all of a node. Gives id and node of each.
pub(super) fn revoke(client: &Client<'_>, asked: &str) -> Result<Vec<(String, String)>> {
    let record = Record::read(client)?.context("the cluster has no record of its config yet")?;
    let matches = |(id, node): &(&String, &String)| *id == asked || *node == asked;
    let found: Vec<(String, String)> =
        record.tokens.iter().filter(matches).map(|(id, node)| (id.clone(), node.clone())).collect();
    if found.is_empty() {
        return Err(anyhow!("`{asked}` is neither the id of a token nor a node that has one"))
            .exit(Exit::Usage)
            .hint("`installer token list` shows them");
    }
    for (id, _) in &found {
        withdraw(client, id)?;
    }
    Ok(found)
}

fn show(listed: &[Listed], output: &Output) {
    if output.is_json() {
        return listed.iter().for_each(|token| output.json(token));
    }
    if listed.is_empty() {
        return output.line("no bootstrap tokens");
    }
    output.line("NODE                 TOKEN   STATE    EXPIRES");
    for Listed { node, id, expires, state } in listed {
        let node = if node.is_empty() { "-" } else { node };
        let expires = expires.map_or("-".to_owned(), |at| at.to_string());
        output.line(&format!("{node:20} {id}  {:8} {expires}", state.word()));
    }
}
