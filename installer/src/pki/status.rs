//! What `installer status` shows of certificates and tokens. Reads only; what cannot be read is said, not skipped.

use std::path::{Path, PathBuf};

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::{Inspection, KUBECONFIG, KUBELET_CLIENT, PKI, files, kubeconfig};
use crate::host::Host;

/// The kubelet's rotating serving certificate and key.
pub const KUBELET_SERVING: &str = "/var/lib/kubelet/pki/kubelet-server-current.pem";

/// A certificate on this host and when it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expiry {
    /// The file that holds it, a kubeconfig perhaps.
    pub path: PathBuf,
    /// Whom it names; or why it cannot be read.
    pub subject: String,
    /// When it ends; `None` if it cannot be read.
    pub not_after: Option<Timestamp>,
    /// From when on a run of the installer renews it; `None` for authorities and for what the kubelet renews.
    pub renewable: Option<Timestamp>,
}

impl Expiry {
    /// Whether less than a third of its life is left and only a run of the installer renews it.
    pub fn due(&self, now: Timestamp) -> bool {
        self.renewable.is_some_and(|from| from <= now)
    }
}

/// All certificates of this host: below the PKI directory, in kubeconfigs, and the kubelet's own. Soonest end first.
pub fn certificates(host: &Host) -> Result<Vec<Expiry>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for (directory, suffix) in
        [(PKI.to_owned(), ".crt"), (format!("{PKI}/etcd"), ".crt"), (KUBECONFIG.to_owned(), ".conf")]
    {
        let names = host.list(Path::new(&directory))?;
        paths.extend(names.iter().filter(|name| name.ends_with(suffix)).map(|name| Path::new(&directory).join(name)));
    }
    paths.extend([files::ADMIN, KUBELET_CLIENT, KUBELET_SERVING].map(PathBuf::from));
    let mut found = Vec::new();
    for path in paths {
        if let Some(text) = host.read_text(&path)?
            && let Some(expiry) = expiry(path, &text)
        {
            found.push(expiry);
        }
    }
    found.sort_by(|a, b| (a.not_after, &a.path).cmp(&(b.not_after, &b.path)));
    Ok(found)
}

/// A kubeconfig without an embedded certificate has nothing that ends.
fn expiry(path: PathBuf, text: &str) -> Option<Expiry> {
    let conf = path.extension().is_some_and(|extension| extension == "conf");
    let inspection =
        if conf { Inspection::of_pem(&kubeconfig::read(text)?.pair?.certificate) } else { Inspection::of_pem(text) };
    Some(match inspection {
        Ok(found) => {
            let ours = !found.authority && !path.starts_with("/var/lib/kubelet");
            let renewable = ours.then(|| found.not_after - found.not_after.duration_since(found.not_before) / 3);
            Expiry { path, subject: found.common_name, not_after: Some(found.not_after), renewable }
        }
        Err(error) => Expiry { path, subject: format!("{error:#}"), not_after: None, renewable: None },
    })
}

/// A bootstrap token and when it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenExpiry {
    /// The node it was made for.
    pub node: String,
    /// Its public half.
    pub id: String,
    /// When it ends, if it was not deleted before.
    pub expires: Timestamp,
}

/// The bootstrap tokens that this host knows and that have not ended.
pub fn tokens(host: &Host) -> Result<Vec<TokenExpiry>> {
    let (known, now) = (files::known_tokens(host)?, host.now());
    let live = known.iter().filter(|(_, token)| token.expires > now);
    Ok(live
        .map(|(node, token)| TokenExpiry { node: node.to_owned(), id: token.id.clone(), expires: token.expires })
        .collect())
}
