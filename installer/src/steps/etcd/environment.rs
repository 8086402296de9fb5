//! `/etc/sealift/etcd.env`: the members that etcd begins with. Read by its unit, and by etcd only while it has no data.

use anyhow::{Context as _, Result};

use crate::cluster::etcd::{Members, peer_url};
use crate::cluster::founding::{self, Founding};
use crate::context::Context;
use crate::report::Explain as _;
use crate::steps::file::WantedFile;

/// Where it is, mode 0600: the token is known to members only.
pub(super) const PATH: &str = "/etc/sealift/etcd.env";

/// For a founder: all founders, who begin together.
pub(super) fn founding(founding: &Founding) -> Result<WantedFile> {
    let members = founding.founders.iter().map(|founder| format!("{}={}", founder.name, peer_url(founder.address)));
    Ok(file(&members.collect::<Vec<_>>(), "new", token(founding)?))
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
    Ok(file(&pairs, "existing", token(&recorded(context)?)?))
}

/// What the pki step wrote before this one.
pub(super) fn recorded(context: &Context<'_>) -> Result<Founding> {
    Founding::read(context.host)?.with_context(|| format!("`{}` does not exist", founding::PATH))
}

fn token(founding: &Founding) -> Result<&str> {
    founding
        .etcd_token
        .as_deref()
        .with_context(|| format!("`{}` has no token of etcd: it was made for a host without etcd", founding::PATH))
        .hint("make a join file for this host's present roles (`installer join-file`) and give it with `--join FILE`")
}

fn file(members: &[String], state: &str, token: &str) -> WantedFile {
    let text = format!(
        "# Sealift: the members that etcd begins with; not read any more once it has data.\n\
         ETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_CLUSTER_STATE={state}\nETCD_INITIAL_CLUSTER_TOKEN={token}\n",
        members.join(",")
    );
    WantedFile::private(PATH, text)
}
