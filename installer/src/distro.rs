//! The distributions that Sealift knows, in one table.

/// One distribution, as bundles name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// `debian-12`, `el9`.
    pub name: &'static str,
    /// How Sealift is known to work there.
    pub proof: Proof,
}

/// How it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Installed on real hosts of that distribution by the project's tests.
    Hosts,
    /// No host of it was at hand. Its `os-release` was tried, for Enterprise Linux also units, `rpm` itself and boot loader files; what a
    /// distribution has in common with Debian (dpkg, GRUB's menu) was tried there.
    Fixtures,
}

/// All known ones.
pub const KNOWN: &[Distribution] = &[
    Distribution { name: "debian-12", proof: Proof::Hosts },
    Distribution { name: "debian-13", proof: Proof::Hosts },
    Distribution { name: "ubuntu-22.04", proof: Proof::Fixtures },
    Distribution { name: "ubuntu-24.04", proof: Proof::Fixtures },
    Distribution { name: "el8", proof: Proof::Fixtures },
    Distribution { name: "el9", proof: Proof::Fixtures },
    Distribution { name: "el10", proof: Proof::Fixtures },
];

/// The entry of a distribution.
pub fn known(name: &str) -> Option<Distribution> {
    KNOWN.iter().copied().find(|known| known.name == name)
}
