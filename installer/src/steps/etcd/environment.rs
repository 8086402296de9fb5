//! `/etc/sealift/etcd.env`: the members that etcd begins with. Read by its unit, and by etcd only while it has no data.

use crate::cluster::etcd::{Members, peer_url};
use crate::cluster::founding::Founding;
use crate::context::Context;
use crate::steps::file::WantedFile;

/// Where it is, mode 0600: the token is known to members only.
pub(super) const PATH: &str = "/etc/sealift/etcd.env";

/// For a founder: all founders, who begin together.
pub(super) fn founding(context: &Context<'_>, founding: &Founding) -> WantedFile {
    let members = founding.founders.iter().map(|founder| format!("{}={}", founder.name, peer_url(founder.address)));
    file(&members.collect::<Vec<_>>(), "new", &token(context, Some(founding)))
}

/// For a member that others have listed already.
pub(super) fn joining(context: &Context<'_>, members: &Members) -> WantedFile {
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
    let founding = Founding::read(context.host).ok().flatten();
    file(&pairs, "existing", &token(context, founding.as_ref()))
}

fn token(context: &Context<'_>, founding: Option<&Founding>) -> String {
    let recorded = founding.and_then(|founding| founding.etcd_token.clone());
    recorded.unwrap_or_else(|| format!("sealift-{}", context.config.id()))
}

fn file(members: &[String], state: &str, token: &str) -> WantedFile {
    let text = format!(
        "# Sealift: the members that etcd begins with; not read any more once it has data.\n\
         ETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_CLUSTER_STATE={state}\nETCD_INITIAL_CLUSTER_TOKEN={token}\n",
        members.join(",")
    );
    WantedFile::private(PATH, text)
}
