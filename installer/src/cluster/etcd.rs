//! The health of etcd, as its own `etcdctl` says. Read-only.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::context::CURRENT;
use crate::host::{Command, Host};
use crate::pki::PKI;

/// One member and whether it takes proposals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its client URL.
    pub endpoint: String,
    /// Whether it answered in time.
    pub health: bool,
    /// Why not.
    #[serde(default)]
    pub error: String,
}

/// A call of the bundled `etcdctl` with this master's client certificate, to the member on this host.
pub fn etcdctl() -> Command {
    Command::new(Path::new(CURRENT).join("etcd/bin/etcdctl"))
        .env("ETCDCTL_API", "3")
        .arg("--endpoints=https://127.0.0.1:2379")
        .arg(format!("--cacert={PKI}/etcd/ca.crt"))
        .arg(format!("--cert={PKI}/etcd/admin.crt"))
        .arg(format!("--key={PKI}/etcd/admin.key"))
        .timeout(Duration::from_secs(20))
}

/// Asks every member of the cluster. An unhealthy member is an answer, not an error.
pub fn health(host: &Host) -> Result<Vec<Member>> {
    let finished = host.try_run(&etcdctl().args(["endpoint", "health", "--cluster", "--write-out=json"]))?;
    parse(&finished.text()).with_context(|| format!("asking etcd for its health: {}", finished.tail()))
}

fn parse(text: &str) -> Result<Vec<Member>> {
    serde_json::from_str(text.trim()).context("reading the answer of `etcdctl endpoint health`")
}

#[cfg(test)]
mod tests {
    use super::*;

    // As printed by etcdctl 3.4.23.
    #[test]
    fn members_are_listed_with_their_trouble() {
        let good = r#"[{"endpoint":"https://10.77.0.1:2379","health":true,"took":"6.4ms"}]"#;
        assert!(parse(good).unwrap()[0].health);
        let bad =
            r#"[{"endpoint":"https://127.0.0.1:9999","health":false,"took":"5s","error":"context deadline exceeded"}]"#;
        assert_eq!(parse(bad).unwrap()[0].error, "context deadline exceeded");
        assert!(parse("").is_err());
    }
}
