//! apt's credentials: `auth.conf` and `auth.conf.d/*.conf` (apt_auth.conf(5)).
//!
//! They go to the machine they are for, over TLS unless the entry says otherwise, and are never shown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::failure::Failure;
use crate::http::{Authorization, Login, Network};

/// Everything that is configured, in apt's order.
#[derive(Debug, Default)]
pub struct Credentials {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// `None`: https alone.
    scheme: Option<String>,
    /// Host and port, as in a URL.
    host: String,
    /// Begins with a slash or is empty.
    path: String,
    authorization: Authorization,
}

impl Credentials {
    /// Reads what lies below `/etc/apt`. Files that this user may not read are passed over, as apt does.
    pub fn read(etc_apt: &Path) -> anyhow::Result<Self> {
        let mut files = vec![etc_apt.join("auth.conf")];
        if let Ok(entries) = fs_err::read_dir(etc_apt.join("auth.conf.d")) {
            let paths = entries.filter_map(Result::ok).map(|entry| entry.path()).collect::<BTreeSet<PathBuf>>();
            files.extend(paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "conf")));
        }
        let mut entries = Vec::new();
        for file in files {
            if let Ok(text) = fs_err::read_to_string(&file) {
                entries.extend(parsed(&text, &file)?);
            }
        }
        Ok(Self { entries })
    }

    /// Reads one file.
    pub fn read_file(file: &Path) -> anyhow::Result<Self> {
        Ok(Self { entries: parsed(&fs_err::read_to_string(file)?, file)? })
    }

    /// The first entry for this URL.
    fn find(&self, url: &str) -> Option<&Authorization> {
        let (scheme, rest) = url.split_once("://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let fits = |entry: &&Entry| {
            let below = path.strip_prefix(entry.path.trim_end_matches('/'));
            entry.scheme.as_deref().unwrap_or("https") == scheme
                && entry.host.eq_ignore_ascii_case(host)
                && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.entries.iter().find(fits).map(|entry| &entry.authorization)
    }
}

impl Login for Credentials {
    fn authorization(
        &self,
        _network: &Network,
        url: &str,
        challenge: Option<&str>,
    ) -> anyhow::Result<Option<Authorization>> {
        // What did not help at once does not help when the server asks for it.
        Ok(self.find(url).filter(|_| challenge.is_none()).cloned())
    }
}

fn parsed(text: &str, file: &Path) -> anyhow::Result<Vec<Entry>> {
    parse(text).with_context(|| Failure::new(format!("cannot use the credentials in `{}`", file.display())))
}

/// `machine [SCHEME://]HOST[:PORT][/PATH] login USER password PASSWORD`, over any number of lines. Errors hold no word of
/// the file.
fn parse(text: &str) -> anyhow::Result<Vec<Entry>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let mut entries = Vec::new();
    let starts = words.iter().enumerate().filter(|(_, word)| **word == "machine").map(|(at, _)| at);
    let starts: Vec<usize> = starts.chain([words.len()]).collect();
    if words.first().is_some_and(|word| *word != "machine") {
        return Err(Failure::new("expected `machine` at its beginning").hint("see apt_auth.conf(5)").into());
    }
    for pair in starts.windows(2) {
        let &[start, end] = pair else { continue };
        let [_, machine, "login", user, "password", password] = words[start..end] else {
            let text = format!("entry {}: expected `machine HOST login USER password PASSWORD`", entries.len() + 1);
            return Err(Failure::new(text).hint("see apt_auth.conf(5)").into());
        };
        let (scheme, rest) = match machine.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_owned()), rest),
            None => (None, machine),
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authorization = Authorization::Basic { user: user.to_owned(), password: password.to_owned() };
        entries.push(Entry { scheme, host: host.to_owned(), path: path.to_owned(), authorization });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(credentials: &Credentials, url: &str) -> String {
        match credentials.find(url) {
            Some(Authorization::Basic { user, .. }) => user.clone(),
            _ => String::new(),
        }
    }

    #[test]
    fn credentials_go_to_their_machine_alone() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs_err::write(directory.path().join(name), text).unwrap();
        fs_err::create_dir(directory.path().join("auth.conf.d")).unwrap();
        write("auth.conf", "# comment\nmachine a.example/pool login one password secret\n");
        write("auth.conf.d/50.conf", "machine a.example\n  login two\n  password secret\n");
        write(
            "auth.conf.d/60.conf",
            "machine http://b.example:8080 login three password secret machine a.example login x password y\n",
        );
        write("auth.conf.d/70.conf.bak", "machine c.example login four password secret\n");
        let credentials = Credentials::read(directory.path()).unwrap();
        for (url, expected) in [
            ("https://a.example/pool/x.deb", "one"),
            ("https://A.example/pool", "one"),
            ("https://a.example/pool2/x.deb", "two"),
            ("https://a.example/", "two"),
            ("http://a.example/", ""),
            ("https://a.example:444/", ""),
            ("https://a.example.evil/", ""),
            ("https://evil/a.example/", ""),
            ("http://b.example:8080/x", "three"),
            ("https://b.example:8080/x", ""),
            ("https://c.example/", ""),
            ("file:///a.example", ""),
        ] {
            assert_eq!(user(&credentials, url), expected, "{url}");
        }
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    #[test]
    fn errors_hold_no_secret() {
        for text in ["machine a login u", "machine a login u password secret secret", "login secret", "machine"] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains("expected `machine") && !error.contains("secret"), "{error}");
        }
    }
}
