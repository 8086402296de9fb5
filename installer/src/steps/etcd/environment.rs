//! `/etc/sealift/etcd.env`: the members that etcd begins with. Read by its unit, and by etcd only while it has no data.

use anyhow::{Context as _, Result};

use crate::cluster::etcd::{Members, peer_url};
use crate::cluster::founding::{Founding, PATH as FOUNDING};
use crate::context::Context;
use crate::host::Host;
use crate::report::Explain as _;
use crate::steps::file::WantedFile;

/// Where it is, mode 0600: the token is known to members only.
pub(super) const PATH: &str = "/etc/sealift/etcd.env";

/// What this host was told of the cluster's founding, with etcd's token.
pub(super) fn founding(host: &Host) -> Result<Founding> {
    let found = Founding::read(host)?.filter(|found| found.etcd_token.is_some());
    found
        .with_context(|| format!("`{FOUNDING}` does not name etcd's founders and their token"))
        .hint("make a join file for this node on a master (`installer join-file`) and give it with `--join FILE`")
}

/// For a founder: all founders, who begin together.
pub(super) fn founders(host: &Host, founding: &Founding) -> Result<WantedFile> {
    let members = founding.founders.iter().map(|founder| format!("{}={}", founder.name, peer_url(founder.address)));
    file(host, &members.collect::<Vec<_>>(), "new")
}

/// For a member that others have listed already.
pub(super) fn joining(context: &Context<'_>, members: &Members) -> Result<WantedFile> {
    let own = peer_url(context.node.address);
    let configured = context.config.etcd_members();
    let mut pairs = Vec::new();
    for member in &members.0 {
        for url in &member.peer_urls {
            // A member that has never started has no name in the list. etcd compares the URLs, and looks for its own name.
            let known = configured.iter().find(|node| peer_url(node.address) == *url).map(|node| node.name.clone());
            let name = match known {
                _ if *url == own => context.node.name.clone(),
                _ if !member.name.is_empty() => member.name.clone(),
                Some(name) => name,
                None => member.hex(),
            };
            pairs.push(format!("{name}={url}"));
        }
    }
    pairs.sort();
    file(context.host, &pairs, "existing")
}

fn file(host: &Host, members: &[String], state: &str) -> Result<WantedFile> {
    let token = founding(host)?.etcd_token.unwrap_or_default();
    let text = format!(
        "# Sealift: the members that etcd begins with; not read any more once it has data.\n\
         ETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_CLUSTER_STATE={state}\nETCD_INITIAL_CLUSTER_TOKEN={token}\n",
        members.join(",")
    );
    Ok(WantedFile::private(PATH, text))
}
