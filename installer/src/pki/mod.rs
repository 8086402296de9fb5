//! The cluster's certificates, keys, kubeconfigs and other secrets.
//!
//! Everything here is a function on values: what a file holds now, what the config wants, and the time go in; what must
//! be written and why comes out ([`files::plan`]). Nothing is written here, nothing reads a clock. Secrets are [`Secret`]s,
//! which never print themselves. The table of subjects and names is in [`leaf`]; keys are ECDSA P-256 throughout.

pub mod authority;
pub mod files;
pub mod inspect;
pub mod kubeconfig;
pub mod leaf;
pub mod secrets;
pub mod status;
pub mod tokens;

use std::fmt;

pub use authority::{Authority, AuthorityName, Pair};
pub use inspect::{Decision, Inspection};
pub use leaf::{Leaf, Subject, Usage};

/// Where certificates and keys live on a host.
pub const PKI: &str = "/etc/sealift/pki";
/// Where kubeconfigs live on a host.
pub const KUBECONFIG: &str = "/etc/sealift/kubeconfig";
/// Where the encryption config and the bootstrap tokens live on a host.
pub const SECRETS: &str = "/etc/sealift/secrets";
/// The kubelet's rotating client certificate and key, also used by kube-proxy and `installer agent`.
pub const KUBELET_CLIENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// Text that must not be seen: a private key, a token, an encryption key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Marks text as secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the file or request it belongs in.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("reading random bytes from the kernel: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
