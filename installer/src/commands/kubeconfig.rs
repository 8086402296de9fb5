//! `installer kubeconfig --user NAME`: a short-lived kubeconfig for a person, who can then be told apart in RBAC and in the
//! audit log. Made on a master, whose authority signs the certificate on the spot; nothing of it stays on the host.
//!
//! A client certificate cannot be revoked: it is short-lived instead, and never one of the names that Kubernetes or Sealift
//! give their own parts.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::cli::cluster::Kubeconfig;
use crate::cluster::known::Known;
use crate::config::ClusterConfig;
use crate::host::Host;
use crate::output::Output;
use crate::pki::kubeconfig::{self, Credential};
use crate::pki::{Authority, AuthorityName, Inspection, Leaf, Secret, Usage, files};
use crate::report::{Exit, Explain as _};
use crate::steps::api::APISERVER_PORT;

/// The longest life of such a certificate: 30 days.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest common name and organization in a certificate (X.520, `ub-common-name`).
const NAME_LENGTH: usize = 64;

/// Runs the command.
pub fn kubeconfig(host: &Host, arguments: &Kubeconfig, output: &Output) -> Result<Exit> {
    check(arguments).exit(Exit::Usage)?;
    let (authority, certificate) = authority(host)?;
    let config = Known::here(host)?
        .context("this host knows no cluster")
        .exit(Exit::Usage)
        .hint("run it on a master of the cluster")?
        .config;
    let server = match &arguments.server {
        Some(server) => server.clone(),
        None => default_server(&config, &this_master(host)?)?,
    };
    let address = host_of(&server).exit(Exit::Usage)?;
    let pair = authority.issue(&leaf(arguments), host.now())?;
    let credential = Credential::Pair(&pair);
    let text = kubeconfig::write(&config.cluster.name, &server, &certificate, &arguments.user, &credential);
    match &arguments.output {
        Some(path) => write(host, path, &text, output)?,
        None => output.line(text.expose().trim_end()),
    }
    if !named(host, &config, &address)? {
        output.error(&format!(
            "warning: the API servers' certificates do not name `{address}`; add it to `api_names` or `api_addresses` of \
             the cluster's config"
        ));
    }
    Ok(Exit::Done)
}

fn check(arguments: &Kubeconfig) -> Result<()> {
    require_name("user", &arguments.user)?;
    let own = ["system:", "sealift:"].into_iter().find(|prefix| arguments.user.starts_with(prefix));
    if let Some(prefix) = own {
        return Err(anyhow!("user names that begin with `{prefix}` belong to parts of the cluster"))
            .hint("name a person: `--user alice --group sealift:cluster-admins` may do everything");
    }
    if let Some(group) = &arguments.group {
        require_name("group", group)?;
        if group.starts_with("system:") {
            return Err(anyhow!("group `{group}` belongs to Kubernetes"))
                .hint("`sealift:cluster-admins` may do everything, and its binding can be withdrawn");
        }
    }
    ensure!(!arguments.ttl.is_zero(), "a certificate that lasts no time is of no use");
    if arguments.ttl > LONGEST {
        return Err(anyhow!("it would last longer than 30 days, and it cannot be revoked"))
            .hint("make a new one when it has ended; a few hours are enough for most work");
    }
    Ok(())
}

fn require_name(what: &str, name: &str) -> Result<()> {
    ensure!(!name.is_empty(), "the {what} has no name");
    ensure!(name.chars().count() <= NAME_LENGTH, "the {what}'s name has more than {NAME_LENGTH} characters");
    ensure!(!name.chars().any(|c| c.is_control() || c.is_whitespace()), "the {what}'s name has blanks in it");
    Ok(())
}

/// The authority that signs clients, and its certificate.
fn authority(host: &Host) -> Result<(Authority, String)> {
    let stem = AuthorityName::Cluster.stem();
    let (certificate, key) = (files::certificate_path(stem), files::key_path(stem));
    let (Some(certificate), Some(key)) = (host.read_text(&certificate)?, host.read_text(&key)?) else {
        return Err(anyhow!("`{}` is not on this host", key.display()))
            .exit(Exit::Usage)
            .hint("run it on a master: only masters hold the key that signs");
    };
    Ok((Authority::load(&certificate, &Secret::new(key))?, certificate))
}

fn leaf(arguments: &Kubeconfig) -> Leaf {
    Leaf {
        authority: AuthorityName::Cluster,
        common_name: arguments.user.clone(),
        organization: arguments.group.clone(),
        usage: Usage::Client,
        names: [].into(),
        addresses: [].into(),
        lifetime: arguments.ttl,
    }
}

/// The name of this master, by its administrator's certificate.
fn this_master(host: &Host) -> Result<String> {
    let text = host.read_text(Path::new(files::ADMIN))?;
    let pair = text.as_deref().and_then(kubeconfig::read).and_then(|parts| parts.pair);
    let certificate = pair.map(|pair| Inspection::of_pem(&pair.certificate)).transpose()?;
    certificate
        .as_ref()
        .and_then(|certificate| certificate.common_name.strip_prefix("sealift:admin:"))
        .map(str::to_owned)
        .with_context(|| format!("`{}` does not say which master this is", files::ADMIN))
        .hint("name the API with `--server https://ADDRESS:6443`")
}

/// What the config calls the API from outside, else this master.
fn default_server(config: &ClusterConfig, master: &str) -> Result<String> {
    let own = || config.masters().find(|node| node.name == master).map(|node| address(node.address));
    let host = config.api_names.first().cloned().or_else(|| config.api_addresses.first().copied().map(address));
    let host = host.or_else(own).with_context(|| format!("the cluster's config has no master `{master}`"))?;
    Ok(format!("https://{host}:{APISERVER_PORT}"))
}

fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The host in `https://HOST[:PORT]`, without the brackets of an IPv6 address.
fn host_of(server: &str) -> Result<String> {
    let wrong = || anyhow!("`{server}` is not `https://HOST:PORT`").hint("for example `https://10.0.0.1:6443`");
    let rest = server.strip_prefix("https://").ok_or_else(wrong)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let good = host.chars().all(|c| c.is_ascii_alphanumeric() || "-.:".contains(c));
    if host.is_empty() || !good || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(wrong());
    }
    Ok(host.to_owned())
}

/// Whether some API server's certificate names this host.
fn named(host: &Host, config: &ClusterConfig, name: &str) -> Result<bool> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(address.is_loopback()
            || config.api_addresses.contains(&address)
            || config.masters().any(|master| master.address == address));
    }
    let certificate = host.read_text(&files::certificate_path("apiserver"))?;
    let names = certificate.map(|text| Inspection::of_pem(&text)).transpose()?.map(|found| found.names);
    Ok(config.api_names.contains(name)
        || config.masters().any(|master| master.name == name)
        || names.is_some_and(|names| names.contains(name)))
}

fn write(host: &Host, path: &Path, text: &Secret, output: &Output) -> Result<()> {
    let path: PathBuf = std::path::absolute(path).with_context(|| format!("`{}` is not a path", path.display()))?;
    if host.entry(&path)?.is_some() {
        return Err(anyhow!("`{}` exists already", path.display())).exit(Exit::Usage).hint("name another file");
    }
    // Never over a file that came in between.
    host.write_new(&path, text.expose().as_bytes(), 0o600)?;
    output.line(&format!("wrote `{}`", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::cluster_toml;

    const CONFIG: &str = cluster_toml!("demo", "m1" "10.9.0.1" ["master"]);

    fn asked(user: &str, group: Option<&str>) -> Kubeconfig {
        Kubeconfig {
            user: user.to_owned(),
            group: group.map(str::to_owned),
            ttl: Duration::from_secs(3600),
            server: None,
            output: Some("/root/alice.conf".into()),
        }
    }

    fn master() -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        for path in ["/etc/sealift/pki", "/root"] {
            host.create_dir(path.as_ref(), 0o700).unwrap();
        }
        let authority = Authority::create(AuthorityName::Cluster, "demo", host.now()).unwrap();
        let put = |path: &Path, text: &str| host.write(path, text.as_bytes(), 0o600).unwrap();
        put(&files::certificate_path("ca"), &authority.pair().certificate);
        put(&files::key_path("ca"), authority.pair().key.expose());
        put(Path::new("/etc/sealift/cluster.toml"), CONFIG);
        let mut admin = leaf(&asked("sealift:admin:m1", Some("sealift:cluster-admins")));
        admin.lifetime = Duration::from_secs(60);
        let pair = authority.issue(&admin, host.now()).unwrap();
        let server = "https://127.0.0.1:6443";
        let text = kubeconfig::write("demo", server, &authority.pair().certificate, "admin", &Credential::Pair(&pair));
        put(Path::new(files::ADMIN), text.expose());
        (directory, host)
    }

    #[test]
    fn the_file_names_the_user_ends_soon_and_works_from_elsewhere() {
        let (_directory, host) = master();
        kubeconfig(&host, &asked("alice", Some("sealift:cluster-admins")), &Output::silent()).unwrap();
        let path = Path::new("/root/alice.conf");
        assert_eq!(host.entry(path).unwrap().unwrap().mode & 0o777, 0o600);
        let parts = kubeconfig::read(&host.read_text(path).unwrap().unwrap()).unwrap();
        assert_eq!(parts.server, "https://10.9.0.1:6443", "not loopback");
        assert_eq!(Some(parts.authority), host.read_text(&files::certificate_path("ca")).unwrap());
        let certificate = Inspection::of_pem(&parts.pair.unwrap().certificate).unwrap();
        assert_eq!(certificate.common_name, "alice");
        assert_eq!(certificate.organizations, ["sealift:cluster-admins".to_owned()].into());
        assert_eq!(certificate.usage, Some(Usage::Client));
        assert!(certificate.not_after.as_second() - host.now().as_second() <= 3600);

        let error = kubeconfig(&host, &asked("bob", None), &Output::silent()).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
    }

    #[test]
    fn names_of_the_clusters_own_parts_and_long_lives_are_refused() {
        let (_directory, host) = master();
        let mut long = asked("alice", None);
        long.ttl = LONGEST + Duration::from_secs(1);
        for (arguments, words) in [
            (asked("system:node:m1", None), "belong to parts"),
            (asked("sealift:csr-approver", None), "belong to parts"),
            (asked("alice", Some("system:masters")), "belongs to Kubernetes"),
            (asked("", None), "no name"),
            (asked("al ice", None), "blanks"),
            (asked(&"a".repeat(65), None), "characters"),
            (long, "30 days"),
        ] {
            let error = kubeconfig(&host, &arguments, &Output::silent()).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(!host.exists(Path::new("/root/alice.conf")).unwrap());
        }
        host.remove(&files::key_path("ca")).unwrap();
        let error = kubeconfig(&host, &asked("alice", None), &Output::silent()).unwrap_err();
        assert!(error.to_string().contains("is not on this host"), "{error}");
    }

    #[test]
    fn the_server_is_what_the_config_calls_it() {
        let config = |extra: &str| {
            let text = CONFIG.replace("name = \"demo\"\n", &format!("name = \"demo\"\n{extra}\n"));
            ClusterConfig::parse(&text, Path::new("cluster.toml")).unwrap()
        };
        let of = |extra: &str| default_server(&config(extra), "m1").unwrap();
        assert_eq!(of(""), "https://10.9.0.1:6443");
        assert_eq!(of("api_addresses = [\"10.9.0.100\"]"), "https://10.9.0.100:6443");
        assert_eq!(of("api_addresses = [\"10.9.0.100\"]\napi_names = [\"api.site\"]"), "https://api.site:6443");
        for (server, host) in [
            ("https://10.0.0.1:6443", Some("10.0.0.1")),
            ("https://[fd00::1]:6443", Some("fd00::1")),
            ("https://api.site", Some("api.site")),
            ("http://10.0.0.1:6443", None),
            ("https://10.0.0.1:x", None),
            ("https://a b:6443", None),
            ("https://:6443", None),
            ("10.0.0.1:6443", None),
        ] {
            assert_eq!(host_of(server).ok().as_deref(), host, "{server}");
        }
    }
}
