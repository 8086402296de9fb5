//! apt's configuration: deb822 `.sources` and one-line `.list` files (sources.list(5)).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::Architecture;
use deb822_fast::Deb822;

use crate::failure::Failure;
use crate::http::shown;
use crate::output::Output;

/// One suite of one archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AptSource {
    /// Base address without a slash at its end: `http:`, `https:` or `file://`.
    pub uri: String,
    /// Suite as configured.
    pub suite: String,
    /// Archive components such as `main`.
    pub components: Vec<String>,
    /// Restriction to architectures; empty means none.
    pub architectures: Vec<String>,
    /// Who may sign it.
    pub signed_by: SignedBy,
    /// Whether a Release of it may expire (`Check-Valid-Until`).
    pub expires: bool,
}

/// `Signed-By`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// Keyring files.
    Keyrings(Vec<PathBuf>),
    /// A key in the configuration itself, ASCII armoured.
    Embedded(String),
}

impl AptSource {
    /// Whether it is an archive without suites: everything lies in one directory, for all architectures.
    pub fn is_flat(&self) -> bool {
        self.suite.ends_with('/')
    }

    /// Where its Release and its indexes lie.
    pub fn directory(&self) -> String {
        if self.is_flat() {
            let path = self.suite.split('/').filter(|part| !part.is_empty() && *part != ".");
            return path.fold(self.uri.clone(), |place, part| format!("{place}/{part}"));
        }
        format!("{}/dists/{}", self.uri, self.suite)
    }

    /// Whether another source may be the same archive at another address.
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { uri: _, suite, components, architectures, signed_by, expires } = self;
        (suite, components, architectures, signed_by, expires)
            == (&other.suite, &other.components, &other.architectures, &other.signed_by, &other.expires)
    }

    /// Those of these architectures that it is read for.
    pub fn fitting(&self, wanted: &BTreeSet<Architecture>) -> Vec<Architecture> {
        let fits = |architecture: &Architecture| {
            self.architectures.is_empty() || self.architectures.iter().any(|name| name == architecture.as_str())
        };
        wanted.iter().copied().filter(fits).collect()
    }
}

/// Reads `files`, or if there are none everything below `/etc/apt`.
pub fn read(files: &[PathBuf], etc_apt: &Path, output: &Output) -> anyhow::Result<Vec<AptSource>> {
    let files = if files.is_empty() { configured_files(etc_apt)? } else { files.to_vec() };
    let mut sources = Vec::new();
    for file in files {
        let text = fs_err::read_to_string(&file)?;
        let deb822 = file.extension().is_some_and(|extension| extension == "sources");
        let parsed = if deb822 { parse_deb822(&text, output) } else { parse_list(&text, output) };
        sources.extend(
            parsed.with_context(|| Failure::new(format!("cannot use the apt sources in `{}`", file.display())))?,
        );
    }
    Ok(sources)
}

fn configured_files(etc_apt: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let main = etc_apt.join("sources.list");
    if main.exists() {
        files.push(main);
    }
    let parts = etc_apt.join("sources.list.d");
    if parts.exists() {
        let entries =
            fs_err::read_dir(parts)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<BTreeSet<_>>>()?;
        files.extend(
            entries.into_iter().filter(|path| path.extension().is_some_and(|end| end == "list" || end == "sources")),
        );
    }
    Ok(files)
}

/// What one entry says, before it is checked.
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    architectures: Vec<String>,
    trusted: bool,
    signed_by: Option<String>,
    expires: bool,
}

/// Parses a `.sources` file.
pub fn parse_deb822(text: &str, output: &Output) -> anyhow::Result<Vec<AptSource>> {
    let document: Deb822 = text.parse().map_err(|error| Failure::new(format!("not a deb822 file: {error}")))?;
    let mut sources = Vec::new();
    for paragraph in document.iter() {
        let field = |name: &str| {
            paragraph.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let words =
            |name: &str| field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let yes = |name: &str| {
            field(name).is_some_and(|value| ["yes", "true", "1"].contains(&value.trim().to_lowercase().as_str()))
        };
        let no = |name: &str| {
            field(name).is_some_and(|value| ["no", "false", "0"].contains(&value.trim().to_lowercase().as_str()))
        };
        if no("Enabled") || !words("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        let entry = Entry {
            uris: words("URIs"),
            suites: words("Suites"),
            components: words("Components"),
            architectures: words("Architectures"),
            trusted: yes("Trusted") || yes("Allow-Insecure"),
            signed_by: field("Signed-By"),
            expires: !no("Check-Valid-Until"),
        };
        sources.extend(checked(&entry, output)?);
    }
    Ok(sources)
}

/// Parses a `.list` file.
pub fn parse_list(text: &str, output: &Output) -> anyhow::Result<Vec<AptSource>> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '['])).map(str::trim)
        else {
            continue;
        };
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let option = |name: &str| {
            options
                .split_whitespace()
                .filter_map(|option| option.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            return Err(Failure::new(format!("`{line}` has no address or no suite"))
                .hint("expected `deb [OPTIONS] ADDRESS SUITE COMPONENT…`, see sources.list(5)")
                .into());
        };
        let entry = Entry {
            uris: vec![uri],
            suites: vec![suite],
            components: words.collect(),
            architectures: option("arch").map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default(),
            trusted: ["trusted", "allow-insecure"].iter().any(|name| option(name).is_some_and(|value| value != "no")),
            signed_by: option("signed-by").map(|list| list.replace(',', " ")),
            expires: option("check-valid-until") != Some("no"),
        };
        sources.extend(checked(&entry, output)?);
    }
    Ok(sources)
}

fn checked(entry: &Entry, output: &Output) -> anyhow::Result<Vec<AptSource>> {
    let mut sources = Vec::new();
    for uri in &entry.uris {
        for suite in &entry.suites {
            let place = format!("{} {suite}", shown(uri));
            if entry.trusted {
                return Err(Failure::new(format!(
                    "`{place}` is marked trusted=yes: its packages would be taken without a signature"
                ))
                .hint("remove the mark, or give `--apt-sources FILE` without this source")
                .into());
            }
            let uri = uri.trim_end_matches('/');
            let uri = match uri.strip_prefix("file:") {
                Some(path) => format!("file:///{}", path.trim_start_matches('/')),
                None => uri.to_owned(),
            };
            if !["http://", "https://", "file:///"].iter().any(|scheme| uri.starts_with(scheme)) {
                output.warning(&format!(
                    "the apt source `{place}` is passed over: expected an address with https:, http: or file:"
                ));
                continue;
            }
            let suite_is_path =
                suite.split('/').any(|part| part == "..") || suite.starts_with('.') && !suite.ends_with('/');
            if suite_is_path || suite.ends_with('/') != entry.components.is_empty() {
                return Err(Failure::new(format!("`{place}` is neither a suite with components nor a directory"))
                    .hint("write a suite and its components, or for an archive without suites a path that ends with `/` and no component")
                    .into());
            }
            let signed_by = signed_by(entry.signed_by.as_deref(), &place)?;
            let (components, architectures) = (entry.components.clone(), entry.architectures.clone());
            let (suite, expires) = (suite.clone(), entry.expires);
            sources.push(AptSource { uri, suite, components, architectures, signed_by, expires });
        }
    }
    Ok(sources)
}

fn signed_by(value: Option<&str>, place: &str) -> anyhow::Result<SignedBy> {
    let value = value.map(str::trim).unwrap_or_default();
    if value.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        // In deb822 an empty line is written as a lone dot.
        let lines: Vec<&str> = value.lines().map(|line| if line.trim() == "." { "" } else { line.trim() }).collect();
        return Ok(SignedBy::Embedded(lines.join("\n")));
    }
    let paths: Vec<PathBuf> = value.split_whitespace().map(PathBuf::from).collect();
    if paths.is_empty() || paths.iter().any(|path| !path.is_absolute()) {
        return Err(Failure::new(format!("`{place}` does not say which keyring signs it"))
            .hint("add `Signed-By: /path/to/keyring` to the source, or give `--apt-sources FILE`")
            .into());
    }
    Ok(SignedBy::Keyrings(paths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let deb822 = "# comment\nTypes: deb deb-src\nURIs: http://a.example/debian/\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\n\
                      Types: deb\nEnabled: no\nURIs: http://b.example\nSuites: x\nComponents: main\n";
        let list = "deb-src http://a.example/debian bookworm main\n\
                    deb [signed-by=/k.gpg] http://a.example/debian bookworm main # x\n\
                    deb [signed-by=/k.gpg] http://a.example/debian bookworm-updates main\n#deb http://c x main\n";
        let (deb822, list) =
            (parse_deb822(deb822, &Output::silent()).unwrap(), parse_list(list, &Output::silent()).unwrap());
        assert_eq!(deb822, list);
        assert_eq!(deb822.len(), 2);
        assert_eq!(deb822[0].uri, "http://a.example/debian");
    }

    #[test]
    fn sources_without_a_chain_are_refused() {
        for (text, says) in [
            ("deb [trusted=yes signed-by=/k.gpg] http://a.example x main", "trusted=yes"),
            ("deb [allow-insecure=yes signed-by=/k.gpg] http://a.example x main", "trusted=yes"),
            ("deb http://user:secret@a.example x main", "which keyring"),
        ] {
            let error = format!("{:#}", parse_list(text, &Output::silent()).unwrap_err());
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
        let text = "Types: deb\nURIs: http://a.example\nSuites: x\nComponents: main\nTrusted: yes\nSigned-By: /k.gpg\n";
        assert!(format!("{:#}", parse_deb822(text, &Output::silent()).unwrap_err()).contains("trusted=yes"));
    }

    #[test]
    fn archives_without_suites_are_directories() {
        let list = "deb [signed-by=/k.gpg] http://a.example/x/ ./\ndeb [signed-by=/k.gpg] http://a.example/x /\n\
                    deb [signed-by=/k.gpg] http://a.example/x sub/dir/\ndeb [signed-by=/k.gpg] http://a.example/x y main\n";
        let sources = parse_list(list, &Output::silent()).unwrap();
        let directories: Vec<String> = sources.iter().map(AptSource::directory).collect();
        let expected =
            ["http://a.example/x", "http://a.example/x", "http://a.example/x/sub/dir", "http://a.example/x/dists/y"];
        assert_eq!(directories, expected);
        assert_eq!(sources.iter().map(AptSource::is_flat).collect::<Vec<_>>(), [true, true, true, false]);
        for wrong in ["./ main", "stable", "../", "x/../y/"] {
            let list = format!("deb [signed-by=/k.gpg] http://user:secret@a.example/x {wrong}\n");
            let error = format!("{:#}", parse_list(&list, &Output::silent()).unwrap_err());
            assert!(error.contains("neither a suite with components nor a directory"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_snapshot_may_be_old() {
        let list = "deb [signed-by=/k.gpg check-valid-until=no] http://a.example x main\ndeb [signed-by=/k.gpg] http://a.example y main\n";
        let deb822 = "Types: deb\nURIs: http://a.example\nSuites: x\nComponents: main\nSigned-By: /k.gpg\nCheck-Valid-Until: no\n\n\
                      Types: deb\nURIs: http://a.example\nSuites: y\nComponents: main\nSigned-By: /k.gpg\n";
        let sources = parse_list(list, &Output::silent()).unwrap();
        assert_eq!(sources.iter().map(|source| source.expires).collect::<Vec<_>>(), [false, true]);
        assert_eq!(parse_deb822(deb822, &Output::silent()).unwrap(), sources);
    }

    #[test]
    fn embedded_keys_are_unfolded() {
        let text = "Types: deb\nURIs: http://a.example\nSuites: x\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEAA==\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let sources = parse_deb822(text, &Output::silent()).unwrap();
        let SignedBy::Embedded(key) = &sources[0].signed_by else { panic!("{sources:?}") };
        assert_eq!(key, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEAA==\n-----END PGP PUBLIC KEY BLOCK-----");
    }
}
