//! Logging in at registries: what they challenge us for, and what they may be told.
//!
//! Credentials go to the host they are kept for, or to the token server which that host names, and nowhere else: over
//! https, or over http on this machine. Tokens are kept for one host and repository, in memory alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context as _;
use reqwest::Url;
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::credentials::{self, Credential, Credentials, Secret};
use crate::failure::Failure;
use crate::http::{Authorization, Form, Login, Network, Request, shown};

/// Most bytes of a token server's answer.
const TOKEN_LIMIT: u64 = 1 << 20;

/// Whom registries see: one for a run.
#[derive(Debug)]
pub(super) struct Visitor {
    /// `HOST:PORT` of registries without TLS.
    insecure: BTreeSet<String>,
    path: Option<PathBuf>,
    credentials: OnceLock<Credentials>,
    /// By server and repository path.
    held: Mutex<BTreeMap<(String, String), Authorization>>,
}

/// What a token server answers.
#[derive(Deserialize)]
struct TokenText {
    token: Option<String>,
    access_token: Option<String>,
}

/// The parts of a registry's URL that matter here.
#[derive(Debug)]
struct Place {
    url: Url,
    /// Scheme, host and port.
    server: String,
    /// Host, with the port if it is not the scheme's own: how credentials are kept.
    host: String,
    /// The path to the repository, with what stands before `/v2/`.
    path: String,
}

impl Visitor {
    /// `config` replaces Docker's own place of its `config.json`.
    pub(super) fn new(insecure: &[String], config: Option<PathBuf>) -> Self {
        Self {
            insecure: insecure.iter().cloned().collect(),
            path: config.or_else(credentials::default_path),
            credentials: OnceLock::new(),
            held: Mutex::default(),
        }
    }

    /// `http` where that was allowed, by the user or because it is this machine; else `https`.
    pub(super) fn scheme(&self, host: &str) -> &'static str {
        let (name, open) = match host.split_once(':') {
            Some((name, _)) => (name, self.insecure.contains(host)),
            None => (host, self.insecure.contains(&format!("{host}:80"))),
        };
        if is_loopback(name) || open { "http" } else { "https" }
    }

    fn check_scheme(&self, place: &Place) -> anyhow::Result<()> {
        let open = || place.is_loopback() || self.insecure.contains(&place.host_and_port());
        match place.url.scheme() {
            "https" => Ok(()),
            "http" if open() => Ok(()),
            _ => {
                let text = format!("`{}` would be asked over plain http", place.host);
                let hint = format!("use https, or allow it with `--insecure-registry {}`", place.host_and_port());
                Err(Failure::usage(text).hint(hint).into())
            }
        }
    }

    fn held(&self, place: &Place) -> Option<Authorization> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&(place.server.clone(), place.path.clone())).cloned()
    }

    fn hold(&self, place: &Place, authorization: &Authorization) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert((place.server.clone(), place.path.clone()), authorization.clone());
    }

    /// The credentials for the place, if they may be sent from there; the file is read the first time.
    fn credential(&self, place: &Place) -> anyhow::Result<Option<Credential>> {
        let credentials = match (self.credentials.get(), &self.path) {
            (Some(credentials), _) => credentials,
            (None, None) => return Ok(None),
            (None, Some(path)) => {
                let read = Credentials::read(path).context("reading the credentials for registries")?;
                self.credentials.get_or_init(|| read)
            }
        };
        let found = credentials.find(&place.host)?;
        if found.is_some() && !place.is_private() {
            let text = format!("`{}` wants a login, which would be sent over plain http", place.host);
            return Err(Failure::new(text)
                .hint("have the registry speak https; `--ca-file FILE` takes its own CA")
                .into());
        }
        Ok(found)
    }

    /// What to send to `place` in answer to its challenges; `None` if none of them is understood.
    fn answer(
        &self,
        network: &Network,
        place: &Place,
        challenges: &[Challenge],
    ) -> anyhow::Result<Option<Authorization>> {
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or(challenges.first()) else { return Ok(None) };
        let credential = self.credential(place)?;
        match (challenge, credential) {
            (Challenge::Bearer { .. }, Some(Credential::Token(token))) => {
                Ok(Some(Authorization::Bearer(token.reveal().to_owned())))
            }
            (Challenge::Bearer { realm, service, scope }, credential) => {
                let server = TokenServer::new(place, realm, service.as_deref(), scope.as_deref())?;
                server.token(network, place, credential.as_ref()).map(Some)
            }
            (Challenge::Basic, Some(Credential::Password { user, password })) => {
                Ok(Some(Authorization::Basic { user, password: password.reveal().to_owned() }))
            }
            (Challenge::Basic, Some(Credential::Identity(_) | Credential::Token(_))) => {
                Err(Failure::new(format!("`{}` wants user and password, there is only a token for it", place.host))
                    .hint(format!("run `docker login {}`", place.host))
                    .into())
            }
            (Challenge::Basic, None) => Err(self.unknown(place).into()),
        }
    }

    /// The registry wants a login that we have not got.
    fn unknown(&self, place: &Place) -> Failure {
        let known = self.path.as_ref().map_or("nowhere".to_owned(), |path| format!("in `{}`", path.display()));
        Failure::new(format!("`{}` wants a login for `{}`, and none is kept", place.host, place.repository())).hint(
            format!("run `docker login {}`, or another tool that writes it; it was looked for {known}", place.host),
        )
    }
}

impl Login for Visitor {
    fn authorization(
        &self,
        network: &Network,
        url: &str,
        challenge: Option<&str>,
    ) -> anyhow::Result<Option<Authorization>> {
        let place = Place::new(url)?;
        self.check_scheme(&place)?;
        let Some(challenge) = challenge else { return Ok(self.held(&place)) };
        let answer = self.answer(network, &place, &challenge::parse([challenge]))?;
        if let Some(authorization) = &answer {
            self.hold(&place, authorization);
        }
        Ok(answer)
    }
}

/// Who gives tokens for a repository, and what for.
#[derive(Debug)]
struct TokenServer {
    url: Url,
    service: Option<String>,
    scope: String,
}

impl TokenServer {
    /// The one that a challenge names, if it may be asked. Only ever to pull, whatever is offered.
    fn new(place: &Place, realm: &str, service: Option<&str>, scope: Option<&str>) -> anyhow::Result<Self> {
        let wrong = |what: &str| {
            let text = format!("`{}` sends us to a token server {what}: `{}`", place.host, shown(realm));
            Failure::new(text).hint("nothing was sent there; if the registry is right, its operator must correct that")
        };
        let mut url = Url::parse(realm).map_err(|_| wrong("that is no URL"))?;
        let local = place.is_loopback() && is_loopback(url.host_str().unwrap_or_default());
        match url.scheme() {
            "https" => {}
            "http" if local => {}
            _ => return Err(wrong("that is not https").into()),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("with a login of its own").into());
        }
        url.set_fragment(None);
        let repository = scope
            .and_then(|scope| scope.split(' ').find_map(|scope| scope.strip_prefix("repository:")?.rsplit_once(':')))
            .map_or_else(|| place.repository().to_owned(), |(name, _)| name.to_owned());
        Ok(Self { url, service: service.map(str::to_owned), scope: format!("repository:{repository}:pull") })
    }

    /// The question: with a login or without one by GET, with an identity token by POST (distribution, `spec/auth/oauth`).
    fn question(&self, credential: Option<&Credential>) -> Request {
        let service = self.service.as_deref().map(|service| ("service", service));
        let mut fields: Vec<(&str, &str)> = service.into_iter().collect();
        fields.push(("scope", &self.scope));
        if let Some(Credential::Identity(token)) = credential {
            fields.extend([("grant_type", "refresh_token"), ("client_id", "sealift-builder")]);
            fields.push(("refresh_token", token.reveal()));
            return Request { form: Some(Form::new(&fields)), ..Request::new(self.url.as_str(), TOKEN_LIMIT) };
        }
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(fields);
        let mut request = Request::new(url, TOKEN_LIMIT);
        if let Some(Credential::Password { user, password }) = credential {
            let (user, password) = (user.clone(), password.reveal().to_owned());
            request.authorization = Some(Authorization::Basic { user, password });
        }
        request
    }

    /// Asks for a token.
    fn token(
        &self,
        network: &Network,
        place: &Place,
        credential: Option<&Credential>,
    ) -> anyhow::Result<Authorization> {
        let server = self.url.host_str().unwrap_or_default();
        let answer = network
            .get(&self.question(credential))
            .with_context(|| format!("asking for a token for `{}`", place.host))?;
        match answer.status {
            200 => {}
            400 | 401 | 403 if credential.is_some() => {
                return Err(Failure::new(format!(
                    "`{server}` does not accept the login that is kept for `{}`",
                    place.host
                ))
                .hint(format!("run `docker login {}` again", place.host))
                .into());
            }
            401 | 403 => {
                let text = format!("`{server}` wants a login for `{}` on `{}`", place.repository(), place.host);
                return Err(Failure::new(text).hint(format!("run `docker login {}`", place.host)).into());
            }
            status => {
                return Err(Failure::new(format!("the token server `{server}` answered {status}"))
                    .hint("try again later; if it stays so, ask whoever runs the registry")
                    .into());
            }
        }
        let strange = || Failure::new(format!("the token server `{server}` answers something else than a token"));
        let text: TokenText = serde_json::from_slice(&answer.body).map_err(|_| strange())?;
        let given = [text.token, text.access_token].into_iter().flatten().find(|token| !token.is_empty());
        let token = Secret::from(given.ok_or_else(strange)?);
        if !token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(strange().into());
        }
        Ok(Authorization::Bearer(token.reveal().to_owned()))
    }
}

impl Place {
    /// Takes a registry's URL apart: `SERVER[/PREFIX]/v2/REPOSITORY/(manifests|blobs)/X`.
    fn new(url: &str) -> anyhow::Result<Self> {
        let wrong = |what: &str| Failure::usage(format!("`{}` cannot be a registry's address: {what}", shown(url)));
        let url = Url::parse(url).map_err(|_| wrong("it is no URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it has a login in it").hint("logins belong into Docker's config.json").into());
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(wrong("it names no host").into());
        };
        let server = format!("{}://{host}:{port}", url.scheme());
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = url.path();
        let end = path.rfind("/manifests/").max(path.rfind("/blobs/")).unwrap_or(path.len());
        Ok(Self { server, host, path: path[..end].to_owned(), url })
    }

    fn host_and_port(&self) -> String {
        let port = self.url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", self.url.host_str().unwrap_or_default())
    }

    fn repository(&self) -> &str {
        self.path.split_once("/v2/").map_or(self.path.as_str(), |(_, repository)| repository)
    }

    fn is_loopback(&self) -> bool {
        is_loopback(self.url.host_str().unwrap_or_default())
    }

    /// Whether what is sent can be read on the way by nobody else.
    fn is_private(&self) -> bool {
        self.url.scheme() == "https" || self.is_loopback()
    }
}

/// Names and addresses of this machine.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(insecure: &[&str]) -> Visitor {
        let insecure: Vec<String> = insecure.iter().map(|host| (*host).to_owned()).collect();
        Visitor::new(&insecure, Some("/nonexistent/config.json".into()))
    }

    #[test]
    fn plain_http_is_for_this_machine_and_for_what_was_allowed() {
        let visitor = visitor(&["registry.lan:5000", "plain.lan:80"]);
        for (host, scheme) in [
            ("registry.k8s.io", "https"),
            ("localhost", "http"),
            ("localhost:5000", "http"),
            ("127.0.0.1:5000", "http"),
            ("127.1.2.3", "http"),
            ("128.0.0.1", "https"),
            ("localhost.evil.example", "https"),
            ("127.0.0.1.evil.example", "https"),
            ("registry.lan:5000", "http"),
            ("registry.lan", "https"),
            ("plain.lan", "http"),
            ("registry.lan:5001", "https"),
        ] {
            assert_eq!(visitor.scheme(host), scheme, "{host}");
        }
        let check = |url: &str| visitor.check_scheme(&Place::new(url).unwrap());
        for good in [
            "https://x.example/v2/a/blobs/b",
            "http://[::1]:5000/v2/a/blobs/b",
            "http://registry.lan:5000/v2/a/blobs/b",
            "http://plain.lan/v2/a/blobs/b",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["http://x.example/v2/a/blobs/b", "http://registry.lan/v2/a/blobs/b", "ftp://x.example/a"] {
            let error = check(bad).unwrap_err().to_string();
            assert!(error.contains("plain http"), "{error}");
        }
    }

    #[test]
    fn a_place_knows_its_host_and_repository() {
        let place = Place::new("https://r.example/prefix/v2/a/b/manifests/1.0").unwrap();
        assert_eq!(
            (place.host.as_str(), place.repository(), place.path.as_str()),
            ("r.example", "a/b", "/prefix/v2/a/b")
        );
        assert_eq!(Place::new("http://r.example:5000/v2/manifests/blobs/sha256:1").unwrap().repository(), "manifests");
        assert_eq!(Place::new("http://r.example:5000/v2/x/blobs/1").unwrap().host, "r.example:5000");
        let error = format!("{:#}", Place::new("https://user:hunter2@r.example/v2/x/blobs/1").unwrap_err());
        assert!(error.contains("login in it") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_token_server_is_told_to_let_us_pull_and_no_more() {
        let place = Place::new("https://r.example/v2/a/b/manifests/1").unwrap();
        let realm = |realm: &str, scope| {
            TokenServer::new(&place, realm, Some("r s"), scope).map(|server| server.question(None).url)
        };
        assert_eq!(
            realm("https://auth.example/t?x=1#y", Some("repository:up/a/b:pull,push")).unwrap(),
            "https://auth.example/t?x=1&service=r+s&scope=repository%3Aup%2Fa%2Fb%3Apull"
        );
        for scope in [None, Some("registry:catalog:*"), Some("")] {
            assert!(realm("https://auth.example/t", scope).unwrap().ends_with("scope=repository%3Aa%2Fb%3Apull"));
        }
        // A server elsewhere cannot send us to this machine's own services either.
        for bad in [
            "http://auth.example/t",
            "http://127.0.0.1:1/t",
            "file:///etc/passwd",
            "/token",
            "https://u:p@auth.example/t",
        ] {
            let error = format!("{:#}", realm(bad, None).unwrap_err());
            assert!(error.contains("token server") && !error.contains("u:p"), "{error}");
        }
        let here = Place::new("http://127.0.0.1:5000/v2/a/manifests/1").unwrap();
        assert!(TokenServer::new(&here, "http://127.0.0.1:5001/t", None, None).is_ok());
        assert!(TokenServer::new(&here, "http://auth.example/t", None, None).is_err());
    }
}
