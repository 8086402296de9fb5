//! The objects that the cluster itself must hold before nodes can join: bootstrap RBAC, the record of the cluster, and the
//! bootstrap tokens that this host knows. Created when missing, put right when changed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::api;
use crate::agent::RECORD;
use crate::cluster::known::Moved;
use crate::cluster::{Contribution, Record};
use crate::context::{Context, ETC};
use crate::kubeapi::{Client, Credentials, Distrust, Error, Limits};
use crate::pki::AuthorityName;
use crate::pki::files::{Wanted, certificate_path};
use crate::report::Explain as _;
use crate::step::{Change, Check, Step};

/// How long several masters that bootstrap at the same moment may take to agree.
const AGREEMENT: Duration = Duration::from_secs(30);

/// A master that does not answer at once is no reason to wait.
const GLANCE: Limits = Limits { connect: Duration::from_secs(1), total: Duration::from_secs(3), body: 1 << 20 };

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Bootstrap;

impl Step for Bootstrap {
    fn name(&self) -> &'static str {
        "bootstrap"
    }

    fn title(&self) -> &'static str {
        "Give nodes the rights to join, and record the cluster"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let server = api::own_apiserver(context).and_then(|client| {
            client.healthy("/readyz")?;
            Ok(client)
        });
        // Before the apiserver runs there is nothing to compare with: everything will be made.
        let Ok(client) = server else {
            return Ok(Check::Needed(vec![Change::new("create roles, bindings and the record of the cluster")]));
        };
        let changes = wanted(context)?.differences(&client)?;
        one_cluster(context)?;
        let mut changes = changes.iter().map(|difference| Change::new(difference.to_string())).collect::<Vec<_>>();
        if context.host.exists(Path::new(Moved::PATH))? {
            changes.push(Change::new(format!("remove {}: the cluster knows it", Moved::PATH)));
        }
        Ok(if changes.is_empty() { Check::Done } else { Check::Needed(changes) })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let (client, wanted) = (api::own_apiserver(context)?, wanted(context)?);
        wanted.make(&client)?;
        // Masters that do the same at this moment may overtake each other; whoever wrote last puts it right at once.
        context.host.wait_for("agreement with the other masters", AGREEMENT, Duration::from_millis(200), || {
            let left = wanted.differences(&client)?;
            if left.is_empty() {
                return Ok(Ok(()));
            }
            wanted.make(&client)?;
            Ok(Err(left.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
        })?;
        // The agent goes by this copy until it has read the record itself.
        Record::read(&client)?.context("the record is gone")?.keep(context.host, Path::new(RECORD))?;
        context.host.remove(Path::new(Moved::PATH))
    }
}

/// Refuses when another master's API server was signed by another authority: then two clusters were founded from this
/// config. No certificate of ours is shown to it.
fn one_cluster(context: &Context<'_>) -> Result<()> {
    let authority = certificate_path(AuthorityName::Cluster.stem());
    let authority =
        context.host.read_text(&authority)?.with_context(|| format!("`{}` does not exist", authority.display()))?;
    let others: Vec<_> = context.config.masters().filter(|master| master.name != context.node.name).collect();
    let strangers: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = others
            .iter()
            .map(|master| {
                let address = SocketAddr::new(master.address, api::APISERVER_PORT);
                let authority = &authority;
                scope.spawn(move || {
                    let answer = Client::new(address, authority, Credentials::Anonymous)
                        .and_then(|client| client.with_limits(GLANCE).healthy("/readyz"));
                    matches!(answer, Err(Error::Distrusted(_, Distrust::Authority, _)))
                })
            })
            .collect();
        let stranger = |thread: std::thread::ScopedJoinHandle<'_, bool>| thread.join().unwrap_or(false);
        others.iter().zip(asked).filter_map(|(master, asked)| stranger(asked).then(|| master.name.clone())).collect()
    });
    if strangers.is_empty() {
        return Ok(());
    }
    let names = strangers.join(", ");
    Err(anyhow!("two clusters were founded from this config: the API server of {names} was signed by another authority")).hint(format!(
        "decide which one stays; on the hosts of the other: `installer reset`, then join with a file from `installer join-file` \
         on a master of the one that stays (this host is {})",
        context.node.name
    ))
}

fn wanted(context: &Context<'_>) -> Result<Contribution> {
    let path = Path::new(ETC).join("cluster.toml");
    let config = context.host.read_text(&path)?.with_context(|| format!("`{}` does not exist", path.display()))?;
    Contribution::of(context.host, &Wanted::of(context.config, context.node), &config)
}
