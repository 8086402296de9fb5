//! `installer approver`: on every master, decides about the kubelets' certificate requests, labels masters, and deletes
//! spent bootstrap tokens. It polls, keeps no state that matters and needs no leader: two approvers come to the same
//! decision, and the second one finds the work done.
//!
//! Its identity may do exactly that (see [`crate::cluster::rbac`]). What it leaves pending is written with the reason to
//! [`PENDING`], for `installer status`.

pub mod csr;
pub mod decide;
pub mod node;
#[cfg(test)]
mod tests;
pub mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::{self, Record};
use crate::engine::interrupted;
use crate::event::{Event, Events};
use crate::host::Host;
use crate::kubeapi::{Client, Credentials, Error};
use crate::pki::{files, random, tokens};
use csr::{Csr, State};
use decide::{ClusterView, Decision};
use node::Workloads;

/// The requests that are left pending, as a JSON list of [`Pending`].
pub const PENDING: &str = "/var/lib/sealift/approver/pending.json";
/// There from the first round that succeeded until the approver ends (systemd then removes the directory).
pub const READY: &str = "/run/sealift/approver/ready";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const PERIOD: Duration = Duration::from_secs(2);

/// A request that is left pending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Object name.
    pub name: String,
    /// Who made it.
    pub user: String,
    /// Signer it is meant for.
    pub signer: String,
    /// When it was made.
    pub created: String,
    /// Why it is not approved.
    pub reason: String,
}

impl Pending {
    fn of(csr: Csr, reason: String) -> Self {
        Self { name: csr.name, user: csr.user, signer: csr.signer, created: csr.created, reason }
    }
}

/// The requests that the approver of this master leaves pending.
pub fn pending(host: &Host) -> Result<Vec<Pending>> {
    match host.read_text(Path::new(PENDING))? {
        Some(text) => serde_json::from_str(&text).with_context(|| format!("reading `{PENDING}`")),
        None => Ok(Vec::new()),
    }
}

/// Runs until a signal asks it to stop. An apiserver that does not answer is asked again later, and said once.
pub fn run(host: &Host, events: &dyn Events) -> Result<()> {
    crate::engine::stop_on_signals()?;
    let mut approver = Approver { host, events, spent: BTreeSet::new(), said: BTreeMap::new() };
    let mut trouble = String::new();
    while !interrupted() {
        match approver.round() {
            Ok(()) => {
                if !std::mem::take(&mut trouble).is_empty() {
                    approver.note("the apiserver answers again".to_owned());
                }
                approver.say_ready()?;
            }
            Err(error) => {
                let text = format!("{error:#}");
                if text != trouble {
                    approver.warn(text.clone());
                    trouble = text;
                }
            }
        }
        pause(PERIOD)?;
    }
    Ok(())
}

/// Waits a period and up to a quarter more, so that the approvers of several masters do not march in step; a signal ends it.
pub(crate) fn pause(period: Duration) -> Result<()> {
    let jitter = period / 4 * u32::from(random::<1>()?[0]) / 255;
    let end = std::time::Instant::now() + period + jitter;
    while !interrupted() {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(Duration::from_millis(200)));
    }
    Ok(())
}

struct Approver<'a> {
    host: &'a Host,
    events: &'a dyn Events,
    /// Tokens that were seen to be gone.
    spent: BTreeSet<String>,
    /// Pending requests whose reason has been said.
    said: BTreeMap<String, String>,
}

impl Approver<'_> {
    fn note(&self, text: String) {
        self.events.emit(&Event::Note { step: String::new(), text });
    }

    fn warn(&self, text: String) {
        self.events.emit(&Event::Warning { step: String::new(), text });
    }

    fn say_ready(&self) -> Result<()> {
        let path = Path::new(READY);
        if self.host.exists(path)? { Ok(()) } else { self.host.write(path, b"", 0o600) }
    }

    fn round(&mut self) -> Result<()> {
        let (address, authority) = cluster::own_apiserver(self.host)?;
        let credentials = Credentials::Files {
            host: self.host,
            certificate: files::certificate_path("approver"),
            key: files::key_path("approver"),
        };
        self.work(&Client::new(address, &authority, credentials)?)
    }

    fn work(&mut self, client: &Client<'_>) -> Result<()> {
        // Read anew each time: a node that has been removed is nobody from now on.
        let record = Record::read(client)?.context("the cluster has no record yet")?;
        let view = ClusterView::of_record(&record);
        let requests = client.list(REQUESTS)?;
        self.decide(client, &requests, &view)?;
        self.forget_spent_tokens(client, &requests, &view)?;
        self.mark_masters(client, &record)
    }

    fn decide(&mut self, client: &Client<'_>, requests: &[Value], view: &ClusterView) -> Result<()> {
        let mut pending = Vec::new();
        for object in requests {
            let Some(csr) = Csr::of_object(object).filter(|csr| csr.state == State::Undecided) else { continue };
            match decide::decide(&csr, view) {
                Decision::Pending(reason) => pending.push(Pending::of(csr, reason)),
                Decision::Approve => match self.approve(client, &csr, object) {
                    Ok(()) => {}
                    // One that the apiserver refuses must not keep the others waiting.
                    Err(error) if error.code().is_some() && !error.passing() => {
                        pending.push(Pending::of(csr, format!("approving it failed: {error}")));
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
        for request in &pending {
            if self.said.get(&request.name) != Some(&request.reason) {
                self.warn(format!("request {} of {} stays pending: {}", request.name, request.user, request.reason));
            }
        }
        self.said = pending.iter().map(|request| (request.name.clone(), request.reason.clone())).collect();
        self.write_pending(&pending)
    }

    fn approve(&self, client: &Client<'_>, csr: &Csr, object: &Value) -> Result<(), Error> {
        let mut approved = object.clone();
        let now = self.host.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        approved["status"]["conditions"] = json!([{
            "type": "Approved",
            "status": "True",
            "reason": "SealiftApprover",
            "message": "The request fits the cluster's config.",
            "lastUpdateTime": now,
        }]);
        match client.put(&format!("{REQUESTS}/{}/approval", csr.name), &approved) {
            Ok(_) => {
                let node = csr.request.as_ref().map(|request| request.common_name.clone()).unwrap_or_default();
                self.note(format!("approved request {} for {node} ({})", csr.name, csr.signer));
                Ok(())
            }
            // Decided by somebody else since the list was read, or already gone.
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn write_pending(&self, pending: &[Pending]) -> Result<()> {
        let text = serde_json::to_string_pretty(pending).context("writing pending requests")? + "\n";
        let path = Path::new(PENDING);
        if self.host.has(path, text.as_bytes(), 0o600)? {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.host.create_dir(parent, 0o700)?;
        }
        self.host.write(path, text.as_bytes(), 0o600)
    }

    fn forget_spent_tokens(&mut self, client: &Client<'_>, requests: &[Value], view: &ClusterView) -> Result<()> {
        for id in spent_tokens(requests, view) {
            if self.spent.contains(&id) {
                continue;
            }
            let path = format!("/api/v1/namespaces/kube-system/secrets/{}", tokens::object_name(&id));
            match client.delete(&path) {
                Ok(true) => self.note(format!("deleted bootstrap token {id}: its node has its certificates")),
                Ok(false) => {}
                // The role lags behind the record for a moment, when a token has just been added. It ends by itself, too.
                Err(error) if error.code() == Some(403) => continue,
                Err(error) => return Err(error.into()),
            }
            self.spent.insert(id);
        }
        Ok(())
    }

    fn mark_masters(&self, client: &Client<'_>, record: &Record) -> Result<()> {
        for master in record.config.masters() {
            let path = format!("/api/v1/nodes/{}", master.name);
            let workloads = if master.roles.worker() { Workloads::Run } else { Workloads::KeptOut };
            let Some(node) = client.find(&path)? else { continue };
            let Some(marks) = node::patch(&node, workloads) else { continue };
            match client.patch(&path, &marks) {
                Ok(_) => self.note(format!("marked node {} as a master", master.name)),
                Err(error) if error.code() == Some(409) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The tokens that have done their work: a client certificate was asked for with one and issued, and its node has then been
/// given a serving certificate. A token that was made since (the node is being installed again) is still needed.
fn spent_tokens(requests: &[Value], view: &ClusterView) -> BTreeSet<String> {
    let issued: Vec<Csr> =
        requests.iter().filter_map(Csr::of_object).filter(|csr| csr.state == State::Issued).collect();
    // The apiserver writes all times in one format, in UTC: their order is that of the texts.
    let served_since = |node: &str, start: &str| {
        issued.iter().any(|csr| {
            csr.signer == decide::SERVING_SIGNER && csr.node() == Some(node) && csr.created.as_str() >= start
        })
    };
    issued
        .iter()
        .filter(|csr| csr.signer == decide::CLIENT_SIGNER)
        .filter_map(|csr| Some((csr, csr.user.strip_prefix("system:bootstrap:")?)))
        .filter(|(csr, id)| view.tokens.get(*id).is_some_and(|node| served_since(node, &csr.created)))
        .map(|(_, id)| id.to_owned())
        .collect()
}
