//! etcd as its own `etcdctl` sees it, from a host that runs a member.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Cluster;
use crate::wait;

/// What `etcdctl endpoint status` says of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its node.
    pub name: String,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it does not vote yet.
    pub learner: bool,
}

impl Cluster {
    /// `etcdctl` on a host, through its own member; arguments are separated by spaces. Its standard output.
    pub fn etcdctl(&self, name: &str, arguments: &str) -> Result<String> {
        let pki = "/etc/sealift/pki/etcd";
        self.host(name)?
            .inside("timeout")
            .args([
                "30",
                "env",
                "ETCDCTL_API=3",
                "/opt/sealift/current/etcd/bin/etcdctl",
                "--endpoints=https://127.0.0.1:2379",
            ])
            .args([
                format!("--cacert={pki}/ca.crt"),
                format!("--cert={pki}/admin.crt"),
                format!("--key={pki}/admin.key"),
            ])
            .args(arguments.split(' '))
            .text()
    }

    /// The members that answer, as seen from a host's own.
    pub fn members(&self, name: &str) -> Result<Vec<Member>> {
        let list: Value = serde_json::from_str(&self.etcdctl(name, "member list --write-out=json")?)?;
        let status: Value = serde_json::from_str(&self.etcdctl(name, "endpoint status --cluster --write-out=json")?)?;
        let members = list["members"].as_array().context("no members")?;
        let answers: Vec<&Value> = status.as_array().into_iter().flatten().map(|answer| &answer["Status"]).collect();
        let named = |answer: &&Value| {
            let id = &answer["header"]["member_id"];
            let member = members.iter().find(|member| &member["ID"] == id)?;
            Some(Member {
                name: member["name"].as_str()?.to_owned(),
                leads: &answer["leader"] == id,
                learner: member["isLearner"] == true,
            })
        };
        Ok(answers.iter().filter_map(named).collect())
    }

    /// The node whose member leads.
    pub fn etcd_leader(&self, name: &str) -> Result<String> {
        let members = self.members(name)?;
        Ok(members.into_iter().find(|member| member.leads).context("no leader")?.name)
    }

    /// Waits until etcd consists of exactly these voting members, all answering.
    pub fn etcd_is(&self, wanted: &[&str], limit: Duration) -> Result<()> {
        let mut wanted: Vec<&str> = wanted.to_vec();
        wanted.sort_unstable();
        let from = wanted.first().context("no member is wanted")?.to_string();
        wait::until("etcd to consist of its members", limit, || {
            let list: Value = serde_json::from_str(&self.etcdctl(&from, "member list --write-out=json")?)?;
            let listed = list["members"].as_array().map_or(0, Vec::len);
            let members = self.members(&from)?;
            let mut names: Vec<&str> =
                members.iter().filter(|member| !member.learner).map(|member| member.name.as_str()).collect();
            names.sort_unstable();
            ensure!(names == wanted && listed == wanted.len(), "{listed} are listed, these answer and vote: {names:?}");
            self.etcdctl(&from, "endpoint health --cluster").map(drop)
        })
        .with_context(|| self.troubles())
    }
}
