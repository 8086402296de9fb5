//! How the steps talk to the apiservers: with certificates, because anonymous access is off.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::service::Readiness;
use crate::cluster;
use crate::context::Context;
use crate::kubeapi::{Client, Credentials, Error, Limits};
use crate::pki::KUBELET_CLIENT;
use crate::pki::files::{Wanted, certificate_path};
use crate::pki::tokens::Token;

/// The apiserver's port on every master.
pub const APISERVER_PORT: u16 = 6443;
/// The local proxy over all apiservers.
pub const PROXY_PORT: u16 = 8443;

/// Answers come from the same host or the next one; a probe that hangs is a probe that failed.
const LIMITS: Limits = Limits { connect: Duration::from_secs(2), total: Duration::from_secs(10), body: 8 << 20 };

/// This host's own apiserver, as a client that may do everything: the certificate lives in memory, for minutes. Only masters
/// hold the key that signs it.
pub fn own_apiserver(context: &Context<'_>) -> Result<Client<'static>> {
    let wanted = Wanted::of(context.config, context.node);
    Ok(cluster::administrator(context.host, &wanted)?.with_limits(LIMITS))
}

/// The cluster through the local proxy, as this node: what kubelet, kube-proxy and agent use.
pub fn as_node<'a>(context: &Context<'a>) -> Result<Client<'a>> {
    let files =
        Credentials::Files { host: context.host, certificate: KUBELET_CLIENT.into(), key: KUBELET_CLIENT.into() };
    through_proxy(context, files)
}

/// The cluster through the local proxy, with the bootstrap token of a node that has no certificate yet.
pub fn as_bootstrapper(context: &Context<'_>, token: &Token) -> Result<Client<'static>> {
    through_proxy(context, Credentials::Token(token.text()))
}

fn through_proxy<'a>(context: &Context<'_>, credentials: Credentials<'a>) -> Result<Client<'a>> {
    let certificate = certificate_path("ca");
    let certificate = context.host.read_text(&certificate)?.with_context(|| absent(&certificate))?;
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PROXY_PORT);
    Ok(Client::new(address, &certificate, credentials)?.with_limits(LIMITS))
}

/// An administrator on a master, the node itself elsewhere: for questions that both may ask.
pub fn client<'a>(context: &Context<'a>) -> Result<Client<'a>> {
    if context.roles.master() { own_apiserver(context) } else { as_node(context) }
}

/// What an error of [`client`] means: elsewhere than on a master, it is for the masters to answer.
pub fn unreachable(context: &Context<'_>, error: Error) -> Result<Readiness> {
    if error.passing() && !context.roles.master() {
        return Ok(Readiness::Waiting(format!("an API server: {error}")));
    }
    Err(error.into())
}

fn absent(path: &std::path::Path) -> String {
    format!("`{}` does not exist yet", path.display())
}
