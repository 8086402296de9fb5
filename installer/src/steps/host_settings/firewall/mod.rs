//! What the roles of this host listen for, let through the firewall that is active: firewalld, ufw, or a plain ruleset of
//! nftables that drops what it does not know. Where none is active nothing is done.
//!
//! Ports are open for everybody: what listens there asks for certificates, and hosts that join are not known beforehand.
//! Packets of pods pass by the pod network, which never changes. Every rule is added by itself; nothing of others is
//! flushed, loaded anew or replaced.

mod firewalld;
mod nftables;
mod ufw;

use anyhow::Result;

use self::firewalld::Firewalld;
use self::nftables::Nftables;
use super::clock;
use super::part::{Found, Part};
use crate::config::host::Firewall as Policy;
use crate::context::Context;
use crate::step::Target;
use crate::steps::preflight::ports::{HOST, openings};

/// The part.
pub(super) struct Firewall;

/// The firewall that is active.
enum Active {
    None,
    Firewalld(Firewalld),
    Ufw,
    Nftables(Nftables),
}

impl Active {
    fn of(context: &Context<'_>) -> Result<Self> {
        if context.config.host.firewall == Policy::Keep {
            return Ok(Self::None);
        }
        if let Some(firewalld) = Firewalld::of(context)? {
            return Ok(Self::Firewalld(firewalld));
        }
        if ufw::is_active(context.host)? {
            return Ok(Self::Ufw);
        }
        Ok(Nftables::of(context.host)?.map_or(Self::None, Self::Nftables))
    }
}

impl Part for Firewall {
    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let wanted = Wanted::of(context)?;
        Ok(match Active::of(context)? {
            Active::None => Vec::new(),
            Active::Firewalld(firewalld) => firewalld.missing(&wanted).into_iter().map(Target::Rule).collect(),
            Active::Ufw => ufw::missing(context.host, &wanted)?.into_iter().map(Target::Rule).collect(),
            Active::Nftables(nftables) => nftables.touches(),
        })
    }

    fn look(&self, context: &Context<'_>) -> Result<Found> {
        let (wanted, mut found) = (Wanted::of(context)?, Found::default());
        match Active::of(context)? {
            Active::None => {}
            Active::Firewalld(firewalld) => {
                firewalld.missing(&wanted).iter().for_each(|rule| found.change(format!("open {rule}")));
            }
            Active::Ufw => {
                ufw::missing(context.host, &wanted)?.iter().for_each(|rule| found.change(format!("open {rule}")));
                for rule in ufw::otherwise(context.host, &wanted)? {
                    found.limit(format!(
                        "ufw: the rule `{rule}` is the operator's and stays: the cluster needs that open"
                    ));
                }
                if !wanted.protocols.is_empty() {
                    found.limit("ufw cannot open IP-in-IP (protocol 4): add it to /etc/ufw/before.rules for calico");
                }
            }
            Active::Nftables(nftables) => nftables.look(context.host, &wanted, &mut found)?,
        }
        Ok(found)
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let wanted = Wanted::of(context)?;
        match Active::of(context)? {
            Active::None => Ok(()),
            Active::Firewalld(firewalld) => {
                firewalld.missing(&wanted).iter().try_for_each(|rule| rule.add(context.host))
            }
            Active::Ufw => ufw::missing(context.host, &wanted)?.iter().try_for_each(|rule| rule.add(context.host)),
            Active::Nftables(nftables) => nftables.apply(context.host, &wanted),
        }
    }
}

/// What has to pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Ports and ranges `30000-32767` with their protocol.
    ports: Vec<(String, &'static str)>,
    /// Numbers of IP protocols without ports.
    protocols: Vec<u8>,
    /// The network of pods, on hosts that have some.
    pods: Option<String>,
    /// The bridge of Sealift's own pod network, over which packets from other nodes go on to pods.
    bridge: bool,
}

impl Wanted {
    fn of(context: &Context<'_>) -> Result<Self> {
        let mut wanted = Self::default();
        for opening in openings(context.config, context.node, context.roles) {
            match opening.protocol {
                _ if opening.from == HOST => {}
                "tcp" | "udp" => wanted.ports.push((opening.port, opening.protocol)),
                "IP-in-IP" => wanted.protocols.push(4),
                // Packets of pods under their own addresses.
                _ => wanted.bridge = true,
            }
        }
        if clock::serves(context)? {
            wanted.ports.push(("123".to_owned(), "udp"));
        }
        wanted.pods = context.roles.run_pods().then(|| context.config.cluster.pod_cidr.to_string());
        Ok(wanted)
    }
}
