//! Leader leases: the sign of life of the controller-manager and the scheduler. Their own endpoints have certificates that
//! nobody signed, a lease is proof that one of them works: it reached its apiserver and was allowed to write.

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::service::Readiness;
use super::{api, loopback};
use crate::context::Context;

/// Leases last 15 s and are renewed every 2 s (`--leader-elect-lease-duration`, `--leader-elect-retry-period`).
const FRESH: SignedDuration = SignedDuration::from_secs(15);

/// Ready when the component listens on loopback and somebody holds its lease: this host, or a peer on another master.
pub fn held(context: &Context<'_>, component: &str, port: u16) -> Result<Readiness> {
    loopback::listens(port)?;
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{component}");
    let lease = api::own_apiserver(context)?.find(&path)?;
    Ok(match lease {
        None => Readiness::NotYet("nobody holds its leader lease yet".to_owned()),
        Some(lease) => judge(&lease, context.host.now())?,
    })
}

fn judge(lease: &Value, now: Timestamp) -> Result<Readiness> {
    let text = |key: &str| lease.pointer(key).and_then(Value::as_str).unwrap_or_default();
    let (holder, renewed) = (text("/spec/holderIdentity"), text("/spec/renewTime"));
    if holder.is_empty() {
        return Ok(Readiness::NotYet("nobody holds its leader lease yet".to_owned()));
    }
    let renewed: Timestamp = renewed.parse().context("reading the lease's renewTime")?;
    let age = now.duration_since(renewed);
    if age > FRESH {
        return Ok(Readiness::NotYet(format!("its leader lease was last renewed {} s ago by {holder}", age.as_secs())));
    }
    Ok(Readiness::Ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fresh_lease_counts() {
        let now: Timestamp = "2026-11-21T10:00:20Z".parse().unwrap();
        let lease =
            |holder: &str, renewed: &str| serde_json::json!({"spec": {"holderIdentity": holder, "renewTime": renewed}});
        assert_eq!(judge(&lease("m1_x", "2026-11-21T10:00:18.123456Z"), now).unwrap(), Readiness::Ready);
        assert!(matches!(judge(&lease("m1_x", "2026-11-21T10:00:00.000000Z"), now).unwrap(), Readiness::NotYet(_)));
        assert!(matches!(judge(&lease("", "2026-11-21T10:00:18Z"), now).unwrap(), Readiness::NotYet(_)));
        assert!(judge(&lease("m1_x", "yesterday"), now).is_err());
    }
}
