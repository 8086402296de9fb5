//! What the commands ask of etcd.

use std::net::IpAddr;

use anyhow::Result;

use crate::cluster::etcd;
use crate::host::Host;

/// Changes of etcd's membership; each a no-op when it is so already.
pub(super) trait Members {
    /// Takes a node's member out; refuses to lose the majority or the only spare member unless forced.
    fn remove(&self, name: &str, force: bool) -> Result<()>;
    /// Takes a dead node's member out; refuses while it works.
    fn replace(&self, name: &str) -> Result<()>;
    /// Tells where a node's member is from now on.
    fn update_address(&self, name: &str, address: IpAddr) -> Result<()>;
}

/// Through the bundled `etcdctl`.
pub(super) struct Bundled<'a> {
    pub(super) host: &'a Host,
}

impl Members for Bundled<'_> {
    fn remove(&self, name: &str, force: bool) -> Result<()> {
        etcd::remove_member(self.host, name, force)
    }

    fn replace(&self, name: &str) -> Result<()> {
        etcd::replace_member(self.host, name)
    }

    fn update_address(&self, name: &str, address: IpAddr) -> Result<()> {
        etcd::update_address(self.host, name, address)
    }
}
