//! Which ports the roles of this host listen on, and who holds them now (`ss -ltnp`).

use std::collections::BTreeMap;

use bundle::component::Role;

/// A port of the plan: number, what listens there, and the unit that may hold it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    /// TCP port.
    pub(super) number: u16,
    /// What will listen.
    pub(super) purpose: &'static str,
    /// The unit of ours that is welcome to hold it.
    pub(super) unit: &'static str,
}

const fn port(number: u16, purpose: &'static str, unit: &'static str) -> Port {
    Port { number, purpose, unit }
}

const ETCD: &[Port] = &[
    port(2379, "etcd clients", "etcd.service"),
    port(2380, "etcd peers", "etcd.service"),
    port(2381, "etcd metrics (loopback)", "etcd.service"),
];
const CONTROL_PLANE: &[Port] = &[
    port(6443, "kube-apiserver", "kube-apiserver.service"),
    port(10257, "kube-controller-manager (loopback)", "kube-controller-manager.service"),
    port(10259, "kube-scheduler (loopback)", "kube-scheduler.service"),
];
const NODE: &[Port] = &[
    port(8443, "apiserver proxy (loopback)", "sealift-proxy.service"),
    port(10248, "kubelet health (loopback)", "kubelet.service"),
    port(10249, "kube-proxy metrics (loopback)", "kube-proxy.service"),
    port(10250, "kubelet", "kubelet.service"),
    port(10256, "kube-proxy health (loopback)", "kube-proxy.service"),
];

/// The ports of these roles; `stacked` says whether a master runs etcd too.
pub(super) fn of_roles(roles: &[Role], stacked: bool) -> Vec<Port> {
    let mut ports = Vec::new();
    let master = roles.contains(&Role::Master);
    if roles.contains(&Role::Etcd) || (master && stacked) {
        ports.extend_from_slice(ETCD);
    }
    if master {
        ports.extend_from_slice(CONTROL_PLANE);
    }
    if master || roles.contains(&Role::Worker) {
        ports.extend_from_slice(NODE);
    }
    ports.sort_unstable();
    ports
}

/// A listening socket: program name and process id, when `ss` could tell.
pub(super) type Holder = Option<(String, u32)>;

/// Reads the output of `ss --listening --tcp --numeric --processes --no-header`.
pub(super) fn listeners(text: &str) -> BTreeMap<u16, Holder> {
    text.lines()
        .filter_map(|line| {
            let local = line.split_whitespace().nth(3)?;
            let number = local.rsplit(':').next()?.parse().ok()?;
            Some((number, holder(line)))
        })
        .collect()
}

/// `users:(("nginx",pid=12,fd=5),…)` → the first program.
fn holder(line: &str) -> Holder {
    let (_, rest) = line.split_once("users:((\"")?;
    let (name, rest) = rest.split_once('"')?;
    let (_, rest) = rest.split_once("pid=")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((name.to_owned(), digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_with_their_programs() {
        let text = "LISTEN 0 4096 127.0.0.1:10248 0.0.0.0:* users:((\"kubelet\",pid=712,fd=21))\n\
                    LISTEN 0 128 [::]:22 [::]:*\n\
                    LISTEN 0 4096 *:6443 *:* users:((\"kube-apiserver\",pid=99,fd=7),(\"x\",pid=1,fd=2))\n";
        let found = listeners(text);
        assert_eq!(found[&10248], Some(("kubelet".to_owned(), 712)));
        assert_eq!(found[&22], None);
        assert_eq!(found[&6443], Some(("kube-apiserver".to_owned(), 99)));
    }

    #[test]
    fn a_dedicated_etcd_host_listens_for_etcd_only() {
        let numbers =
            |roles: &[Role], stacked| of_roles(roles, stacked).iter().map(|port| port.number).collect::<Vec<_>>();
        assert_eq!(numbers(&[Role::Etcd], false), [2379, 2380, 2381]);
        assert!(!numbers(&[Role::Master], false).contains(&2379));
        assert!(numbers(&[Role::Master], true).contains(&2379));
        assert!(!numbers(&[Role::Worker], true).contains(&6443));
    }
}
