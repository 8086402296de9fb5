//! URLs: how they are shown, which server they name, and what mirrors make of them.

use bundle::Digest;
use reqwest::Url;

/// A URL without user, password and query, for messages: signed URLs carry their secret in the query.
pub fn shown(url: &str) -> String {
    let url = url.split_once('?').map_or(url, |(url, _)| url);
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// Scheme, host and port: who is asked, and who may see an authorization. `None` for files and for what is no URL.
pub(super) fn server(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let (host, port) = (url.host_str()?, url.port_or_known_default()?);
    matches!(url.scheme(), "http" | "https").then(|| format!("{}://{host}:{port}", url.scheme()))
}

/// The host of a URL, for people; the URL itself if it has none.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    match rest.split(['/', '?', '#']).next().map(|host| host.rsplit('@').next().unwrap_or(host)) {
        Some(host) if !host.is_empty() => host,
        _ => url,
    }
}

/// What stands for a URL on disk: enough to know it again, and nothing of a password in it.
pub(super) fn place(url: &str) -> String {
    Digest::of(url.as_bytes()).hex()
}

/// Where `url` is read from: from all mirrors whose prefix fits, in their order, or from itself if none fits.
pub(super) fn mirrored(url: &str, mirrors: &[(String, String)]) -> Vec<String> {
    let apply = |(from, to): &(String, String)| url.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}"));
    let addresses: Vec<String> = mirrors.iter().filter_map(apply).collect();
    if addresses.is_empty() { vec![url.to_owned()] } else { addresses }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_addresses_hold_no_secrets() {
        assert_eq!(shown("https://user:secret@example.com:8/a@b/c?token=secret"), "https://example.com:8/a@b/c");
        assert_eq!(shown("https://user:secret@example.com"), "https://example.com");
        assert_eq!(shown("file:///x"), "file:///x");
    }

    #[test]
    fn a_server_is_scheme_host_and_port() {
        assert_eq!(server("https://u:p@example.com/x"), Some("https://example.com:443".into()));
        assert_ne!(server("https://example.com/x"), server("http://example.com:443/x"));
        assert_ne!(server("https://example.com/x"), server("https://example.com:444/x"));
        assert_eq!(server("file:///x"), None);
    }

    #[test]
    fn mirrors_apply_in_order_and_replace_the_original() {
        let mirrors = [("https://a/", "http://m1/"), ("https://b/", "http://m2/"), ("https://a/x", "http://m3/x")];
        let mirrors = mirrors.map(|(from, to)| (from.to_owned(), to.to_owned()));
        assert_eq!(mirrored("https://a/x", &mirrors), ["http://m1/x", "http://m3/x"]);
        assert_eq!(mirrored("https://c/x", &mirrors), ["https://c/x"]);
    }
}
