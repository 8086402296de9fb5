//! What the user may show to registries: Docker's `config.json` and the credential helpers it names.
//!
//! `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`, is read when a registry first asks. Secrets are handed to
//! whoever sends them and appear in no message: neither what the file holds nor what a helper prints is ever quoted.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::failure::Failure;
use crate::process;

/// How Docker's own registry is called in the file, whatever host is asked.
const DOCKER: &str = "https://index.docker.io/v1/";
/// Hosts of Docker's own registry.
const DOCKER_HOSTS: [&str; 3] = ["registry-1.docker.io", "docker.io", "index.docker.io"];
/// The user name that marks a secret as an identity token.
const TOKEN_USER: &str = "<token>";

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    /// The text, for the header or form it belongs in.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// What is known for one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    /// User and password.
    Password {
        /// User.
        user: String,
        /// Password.
        password: Secret,
    },
    /// An identity token: the token server exchanges it for a token.
    Identity(Secret),
    /// A token for the registry itself.
    Token(Secret),
}

/// The file, or nothing if there is none.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    path: PathBuf,
    text: ConfigText,
}

/// The parts of `config.json` that concern registries; it holds much else.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigText {
    #[serde(default)]
    auths: BTreeMap<String, AuthText>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct AuthText {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

impl fmt::Debug for AuthText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthText(..)")
    }
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperText {
    username: String,
    secret: String,
}

/// Where the file is, as Docker finds it.
pub(super) fn default_path() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")))?;
    Some(directory.join("config.json"))
}

impl Credentials {
    /// Reads the file; without one there are no credentials.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = match fs_err::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let text = serde_json::from_slice(&bytes).map_err(|error| {
            // Not serde's text, which quotes what it found.
            let place = format!("line {}, column {}", error.line(), error.column());
            Failure::usage(format!("`{}` is not Docker's config.json: {place}", path.display()))
        })?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// What there is for a host (with its port, if that is not the scheme's own).
    pub(super) fn find(&self, host: &str) -> anyhow::Result<Option<Credential>> {
        let server = if DOCKER_HOSTS.contains(&host) { DOCKER } else { host };
        let helper = self.text.cred_helpers.iter().find(|(key, _)| is_for(key, host)).map(|(_, helper)| helper);
        if let Some(helper) = helper.or(self.text.creds_store.as_ref())
            && let Some(found) = ask(helper, server, &self.path)?
        {
            return Ok(Some(found));
        }
        // The whole key counts before one with a scheme or a path.
        let exact = self.text.auths.get_key_value(server);
        let entry = exact.or_else(|| self.text.auths.iter().find(|(key, _)| is_for(key, host)));
        match entry {
            Some((key, entry)) => entry.credential().map_err(|what| {
                let text = format!("the entry `{}` in `{}` {what}", without_user(key), self.path.display());
                Failure::usage(text)
                    .hint("log in again, with `docker login` or another tool that writes this file")
                    .into()
            }),
            None => Ok(None),
        }
    }
}

impl AuthText {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        let there = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = there(&self.registrytoken) {
            return Ok(Some(Credential::Token(token.into())));
        }
        if let Some(token) = there(&self.identitytoken) {
            return Ok(Some(Credential::Identity(token.into())));
        }
        if let Some(auth) = there(&self.auth) {
            let decoded = BASE64_STANDARD.decode(auth.trim()).map_err(|_| "is not base64")?;
            let decoded = String::from_utf8(decoded).map_err(|_| "is not UTF-8")?;
            let (user, password) = decoded.split_once(':').ok_or("has no password")?;
            return Ok(Some(password_or_token(user, password.trim_end_matches('\0'))));
        }
        Ok(there(&self.username).zip(there(&self.password)).map(|(user, password)| password_or_token(&user, &password)))
    }
}

fn password_or_token(user: &str, secret: &str) -> Credential {
    let secret = Secret(secret.to_owned());
    if user == TOKEN_USER {
        Credential::Identity(secret)
    } else {
        Credential::Password { user: user.to_owned(), password: secret }
    }
}

/// Keys are hosts, often with a scheme and a path (`https://index.docker.io/v1/`).
fn is_for(key: &str, host: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.split('/').next().unwrap_or(bare);
    bare == host || (DOCKER_HOSTS.contains(&bare) && DOCKER_HOSTS.contains(&host))
}

/// A key is a host; should someone have written a password into it, that is not shown.
fn without_user(key: &str) -> &str {
    key.rsplit_once('@').map_or(key, |(_, host)| host)
}

/// Asks `docker-credential-NAME` (protocol: the server on standard input, JSON on standard output).
fn ask(name: &str, server: &str, path: &Path) -> anyhow::Result<Option<Credential>> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || !name.bytes().all(letter) {
        let text = format!("`{}` names a credential helper that cannot be a program's name", path.display());
        return Err(Failure::usage(text)
            .hint("`credsStore` and `credHelpers` hold the NAME of `docker-credential-NAME`")
            .into());
    }
    let program = format!("docker-credential-{name}");
    let finished = process::converse(&program, &["get"], server.as_bytes()).with_context(|| {
        Failure::new(format!("`{}` wants credentials for `{server}` from `{program}`", path.display()))
            .hint(format!("install `{program}`, or remove it from that file"))
    })?;
    if finished.code != Some(0) {
        // Helpers say so on standard output, in these words (docker-credential-helpers, `credentials/error.go`).
        if String::from_utf8_lossy(&finished.stdout).contains("credentials not found in native keychain") {
            return Ok(None);
        }
        let text = format!("`{program}` gives no credentials for `{server}`");
        return Err(Failure::new(text).hint(format!("see what it says: echo {server} | {program} get")).into());
    }
    let text: HelperText = serde_json::from_slice(&finished.stdout)
        .map_err(|_| Failure::new(format!("`{program}` answers something else than credentials for `{server}`")))?;
    if text.username.is_empty() && text.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(password_or_token(&text.username, &text.secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, host: &str) -> anyhow::Result<Option<Credential>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs_err::write(&path, text).unwrap();
        Credentials::read(&path)?.find(host)
    }

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password { user: user.into(), password: password.to_owned().into() }
    }

    #[test]
    fn entries_of_a_config_are_found_by_host() {
        // alice:wonder:land, bob:builder
        let text = r#"{"auths": {"r.example": {"auth": "YWxpY2U6d29uZGVyOmxhbmQ="}, "https://q.example/v2/": {"auth": "Ym9iOmJ1aWxkZXI="},
            "https://index.docker.io/v1/": {"username": "carol", "password": "x"}, "t.example": {"identitytoken": "id", "auth": "PHRva2VuPjo="},
            "u.example": {"registrytoken": "reg"}, "e.example": {}}, "HttpHeaders": {"x": "y"}}"#;
        assert_eq!(find(text, "r.example").unwrap(), Some(password("alice", "wonder:land")));
        assert_eq!(find(text, "q.example").unwrap(), Some(password("bob", "builder")));
        assert_eq!(find(text, "registry-1.docker.io").unwrap(), Some(password("carol", "x")));
        assert_eq!(find(text, "t.example").unwrap(), Some(Credential::Identity("id".to_owned().into())));
        assert_eq!(find(text, "u.example").unwrap(), Some(Credential::Token("reg".to_owned().into())));
        for other in ["e.example", "r.example:5000", "x.r.example", "r.example.evil", "example", "q.example/v2"] {
            assert_eq!(find(text, other).unwrap(), None, "{other}");
        }
        assert_eq!(find("{}", "r.example").unwrap(), None);
    }

    #[test]
    fn errors_show_no_secrets() {
        let cases = [
            (r#"{"auths": {"r.example": {"auth": "hunter2!"}}}"#, "not base64"),
            (r#"{"auths": {"r.example": {"auth": "aHVudGVyMg=="}}}"#, "no password"),
            (r#"{"auths": {"r.example": {"auth": {"hunter2": 1}}}}"#, "line 1"),
            (r#"{"auths": "hunter2"}"#, "line 1"),
            (r#"{"credsStore": "../hunter"}"#, "program's name"),
            (r#"{"credHelpers": {"r.example": "no-such-helper-here"}}"#, "docker-credential-no-such-helper-here"),
        ];
        for (text, says) in cases {
            let error = format!("{:#}", find(text, "r.example").unwrap_err());
            assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
        }
        let shown = format!("{:?}", password("alice", "hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
