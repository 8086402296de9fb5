//! Reaching the cluster before this host's node is started: an API server answers, it is the cluster's own, it knows this
//! host's token, and the clocks agree.
//!
//! Nothing is changed here. No answer means waiting: the masters may be installed at the same time, or later. A refusal is
//! what no waiting can cure.

mod ask;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use self::ask::{Master, Question, Said};
use super::api::{self, APISERVER_PORT};
use crate::context::Context;
use crate::kubeapi::Distrust;
use crate::pki::{Inspection, files};
use crate::report::{Exit, Explain as _};
use crate::step::{Check, Step};

/// How long masters may say that they do not know the token, when none says that it does: a cluster that is just being founded gets
/// its tokens within seconds of its API.
const UNKNOWN_FOR: Duration = Duration::from_secs(90);

/// The step.
#[derive(Debug)]
pub struct Join {
    port: u16,
    /// Since when (monotonic) some master has said that it does not know the token, and none that it does.
    unknown_since: Cell<Option<Duration>>,
}

impl Default for Join {
    fn default() -> Self {
        Self { port: APISERVER_PORT, unknown_since: Cell::default() }
    }
}

impl Step for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn title(&self) -> &'static str {
        "Reach the cluster"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        if context.roles.master() && own_apiserver_is_ready(context) {
            return Ok(Check::Done);
        }
        let path = files::certificate_path("ca");
        let Some(authority) = context.host.read_text(&path)? else {
            // Only a plan gets here: the pki step has written it in a run.
            return Ok(Check::Needed(Vec::new()));
        };
        let node = &context.node.name;
        let inspection = Inspection::of_pem(&authority).with_context(|| format!("reading `{}`", path.display()))?;
        if files::joined(context.host, node, &inspection, context.host.now())? {
            return Ok(Check::Done);
        }
        let tokens = files::known_tokens(context.host)?;
        let Some(token) = tokens.get(node) else {
            let error = anyhow!("this host has no bootstrap token for node `{node}`");
            return Err(error).exit(Exit::Usage).hint(another_file(node));
        };
        let question = Question { authority, token: token.text(), now: context.host.now() };
        let masters: Vec<(String, SocketAddr)> = context
            .config
            .masters()
            .filter(|master| master.name != *node || context.roles.master())
            .map(|master| (master.name.clone(), SocketAddr::new(master.address, self.port)))
            .collect();
        let ended = (token.expires <= context.host.now()).then(|| token.expires.to_string());
        self.judge(context, &ask::all(&masters, &question), ended.as_deref())
    }

    fn apply(&self, _: &Context<'_>) -> Result<()> {
        Err(anyhow!("this host has no certificate of the cluster's authority")).hint("run the installer again")
    }
}

impl Join {
    /// From what every master said to what this run does. `ended` is the end of the token, if it is over by this host's
    /// clock.
    fn judge(&self, context: &Context<'_>, masters: &[Master], ended: Option<&str>) -> Result<Check> {
        let node = &context.node.name;
        let all = masters.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let strangers = masters.iter().filter(|master| matches!(master.said, Said::Stranger(_)));
        if let Some(good) = masters.iter().find(|master| master.said == Said::Welcome) {
            for stranger in strangers {
                context.warn(format!("{stranger}: it is not a master of this cluster"));
            }
            context.note(format!("{} answers and knows this node", good.name));
            return Ok(Check::Done);
        }
        if let Some(Master { said: Said::Clock(apart), name, .. }) =
            masters.iter().find(|master| matches!(master.said, Said::Clock(_)))
        {
            let (seconds, side) = (apart.abs().as_secs(), if apart.is_positive() { "ahead of" } else { "behind" });
            return Err(anyhow!("this host's clock is {seconds} s {side} that of master `{name}`"))
                .hint("set the clock right, or start its time service; certificates depend on it");
        }
        let answering: Vec<&Master> = masters.iter().filter(|master| !matches!(master.said, Said::Silent(_))).collect();
        let every = |test: &dyn Fn(&Said) -> bool| !answering.is_empty() && answering.iter().all(|one| test(&one.said));
        if every(&|said| matches!(said, Said::Stranger(_))) {
            return Err(anyhow!("no master that answers belongs to this cluster: {all}")).hint(format!(
                "this host's secrets are of another cluster, or somebody is in the middle; {}",
                another_file(node)
            ));
        }
        if every(&|said| matches!(said, Said::Distrusted(Distrust::Time, _))) {
            return Err(anyhow!(
                "no certificate of a master is valid at this host's time, {}: {all}",
                context.host.now()
            ))
            .hint(
                "set this host's clock right; if it is right, renew the masters' certificates (`installer refresh`)",
            );
        }
        // Who knows tokens and not this one outweighs a master that may never get ready.
        if answering.iter().any(|master| master.said == Said::Unknown) {
            return self.unknown(context, &all, ended);
        }
        self.unknown_since.set(None);
        Ok(Check::Waiting(format!("an API server of the cluster: {all}")))
    }

    /// Somebody does not know the token, and nobody does. It may still be on its way, but not for ever.
    fn unknown(&self, context: &Context<'_>, all: &str, ended: Option<&str>) -> Result<Check> {
        let node = &context.node.name;
        if let Some(end) = ended {
            let error = anyhow!("the bootstrap token of node `{node}` ended on {end}");
            return Err(error).exit(Exit::Usage).hint(another_file(node));
        }
        let now = context.host.monotonic();
        let since = self.unknown_since.get().unwrap_or(now);
        self.unknown_since.set(Some(since));
        if now.saturating_sub(since) >= UNKNOWN_FOR {
            return Err(anyhow!(
                "the cluster does not know the bootstrap token of node `{node}`: it ended or was revoked"
            ))
            .exit(Exit::Usage)
            .hint(another_file(node));
        }
        Ok(Check::Waiting(format!("the cluster to know this node's token: {all}")))
    }
}

fn another_file(node: &str) -> String {
    format!(
        "make another join file on a master: `installer join-file --node {node}`, and run the installer with `--join`"
    )
}

fn own_apiserver_is_ready(context: &Context<'_>) -> bool {
    api::own_apiserver(context).is_ok_and(|client| client.healthy("/readyz").is_ok())
}
