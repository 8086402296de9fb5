//! A host's place on the network: cut off in two ways, and its address changed.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{Host, furniture};
use crate::bed::Cut;

/// When a host's address changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// While it runs, and for all later boots.
    Now,
    /// At its next boot.
    NextBoot,
}

impl Host {
    /// Pulls the host's network plug: it sees that its interface has no carrier.
    pub fn cut_network(&self) -> Result<()> {
        self.leg("down")
    }

    /// Puts the plug back.
    pub fn restore_network(&self) -> Result<()> {
        self.leg("up")
    }

    /// Lets all it sends on the first bridge, and all that is sent to it, vanish: nobody gets an answer, least of all a refusal.
    pub fn blackhole(&self) -> Result<()> {
        self.bed.cut(&self.veth(), Cut::Off)
    }

    /// Ends [`Host::blackhole`].
    pub fn end_blackhole(&self) -> Result<()> {
        self.bed.cut(&self.veth(), Cut::Restored)
    }

    /// Gives it another address of the first bridge. Nothing else on the host is told.
    pub fn set_address(&self, number: u8, when: When) -> Result<()> {
        let new = self.bed.address(number);
        furniture::address(&self.file("/"), &self.legs(new))?;
        if when == When::Now {
            // As an administrator's restart of the network would: with the old address its routes go.
            self.run("systemctl daemon-reload && ip addr flush dev host0 scope global && systemctl restart bed-address.service")?;
        }
        *self.address.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = new;
        Ok(())
    }

    fn leg(&self, state: &str) -> Result<()> {
        self.bed.outside("ip").args(["link", "set", &self.veth(), state]).run()?;
        Ok(())
    }

    pub(super) fn legs(&self, address: Ipv4Addr) -> furniture::Legs {
        furniture::Legs {
            address,
            second: self.second_address(),
            gateway: self.bed.gateway(),
            second_gateway: self.bed.second_address(1),
            route: self.route,
        }
    }
}
