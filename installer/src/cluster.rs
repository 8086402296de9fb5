//! What the cluster itself holds of Sealift: the objects of bootstrap RBAC, and the record of the cluster's config.
//!
//! [`rbac`] says which objects there are, [`ensure`] makes the cluster hold them, [`bootstrap`] brings it all together,
//! [`record`] is the ConfigMap that is the truth about the cluster after bootstrap. Who acts before any permission exists is
//! [`administrator`].

pub mod apply;
pub mod bootstrap;
pub mod ensure;
pub mod etcd;
pub mod founding;
pub mod known;
pub mod nodes;
pub mod rbac;
pub mod record;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;

use crate::host::Host;
use crate::kubeapi::{Client, Credentials};
use crate::pki::{self, Authority, AuthorityName, Secret, files, kubeconfig};
use anyhow::{Context as _, Result};

pub use bootstrap::Contribution;
pub use founding::Founding;
pub use known::{Known, administrator_anywhere, administrator_soon, anyone, require_master};
pub use record::Record;

/// A client with every right, for the step that sets up RBAC. Its certificate is signed on the spot by the authority on
/// this host, lasts a quarter of an hour and is never written anywhere.
pub fn administrator(host: &Host, wanted: &files::Wanted) -> Result<Client<'static>> {
    let stem = AuthorityName::Cluster.stem();
    let read = |path: &Path| host.read_text(path)?.with_context(|| format!("`{}` does not exist", path.display()));
    let certificate = read(&files::certificate_path(stem))?;
    let key = Secret::new(read(&files::key_path(stem))?);
    let pair = Authority::load(&certificate, &key)?.issue(&wanted.subject.bootstrap_admin(), host.now())?;
    let address = server_address(&wanted.own_apiserver)?;
    Ok(Client::new(address, &certificate, Credentials::Memory(pair))?)
}

/// The apiserver of this master and the authority that signed it, as its controller-manager knows them.
pub fn own_apiserver(host: &Host) -> Result<(SocketAddr, String)> {
    let path = format!("{}/controller-manager.conf", pki::KUBECONFIG);
    let text = host.read_text(Path::new(&path))?.with_context(|| format!("`{path}` does not exist"))?;
    let parts = kubeconfig::read(&text).with_context(|| format!("`{path}` is not a kubeconfig of ours"))?;
    Ok((server_address(&parts.server)?, parts.authority))
}

fn server_address(server: &str) -> Result<SocketAddr> {
    server
        .strip_prefix("https://")
        .and_then(|address| address.parse().ok())
        .with_context(|| format!("`{server}` is not `https://` with a numeric address and port"))
}
