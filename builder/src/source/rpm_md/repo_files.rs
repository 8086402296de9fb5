//! `.repo` files: INI as yum and dnf read it (yum.conf(5), dnf.conf(5)), as much of it as says where packages are and who
//! signs them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use bundle::Architecture;

use crate::failure::Failure;
use crate::http::shown;
use crate::output::Output;

/// One repository of a `.repo` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// What manifests call it.
    pub id: String,
    /// Base addresses without a slash at the end, mirrors of each other; variables not yet replaced.
    base_urls: Vec<String>,
    /// Addresses of keys (`file://`, `https://`); variables not yet replaced.
    keys: Vec<String>,
    /// Whether each package's own signature is checked (`gpgcheck`).
    pub check_packages: bool,
    /// `repo_gpgcheck`; without it a repository that has a key is taken to sign its index.
    pub check_index: Option<bool>,
}

/// What `$basearch`, `$arch` and `$releasever` stand for.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    /// Architecture of the packages.
    pub architecture: Architecture,
    /// `$releasever`, for example `9`.
    pub release: Option<&'a str>,
}

/// Keys that would change what is chosen and that this program does not follow.
const NOT_FOLLOWED: [&str; 6] = ["priority", "cost", "exclude", "excludepkgs", "includepkgs", "module_hotfixes"];

impl Repository {
    /// Its base addresses for one architecture.
    pub fn base_urls(&self, variables: &Variables<'_>) -> anyhow::Result<Vec<String>> {
        self.base_urls.iter().map(|url| self.expand(url, variables)).collect()
    }

    /// Addresses of its keys.
    pub fn keys(&self, variables: &Variables<'_>) -> anyhow::Result<Vec<String>> {
        self.keys.iter().map(|url| self.expand(url, variables)).collect()
    }

    /// Whether a signature of the index is asked for.
    pub fn wants_signed_index(&self) -> bool {
        self.check_index.unwrap_or(!self.keys.is_empty())
    }

    fn expand(&self, text: &str, variables: &Variables<'_>) -> anyhow::Result<String> {
        let machine = variables.architecture.machine();
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded += before;
            let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let (name, after) = braced.unwrap_or_else(|| {
                after.split_at(
                    after.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(after.len()),
                )
            });
            expanded += match (name, variables.release) {
                ("basearch" | "arch", _) => machine,
                ("releasever" | "releasever_major", Some(release)) => release,
                ("releasever" | "releasever_major", None) => {
                    let text = format!("the repository `{}` needs `$releasever`, which is not known here", self.id);
                    return Err(Failure::usage(text).hint("write the number into the .repo file").into());
                }
                _ => {
                    let text = format!("the repository `{}` uses `${name}` in `{}`", self.id, shown(text));
                    return Err(Failure::usage(text)
                        .hint("known are $basearch, $arch and $releasever: write the value into the .repo file")
                        .into());
                }
            };
            rest = after;
        }
        Ok(expanded + rest)
    }
}

/// Reads `.repo` files; two that define the same id contradict each other.
pub fn read<P: AsRef<Path>>(files: &[P], output: &Output) -> anyhow::Result<BTreeMap<String, Repository>> {
    let mut all = BTreeMap::new();
    for file in files {
        let file = file.as_ref();
        let text = fs_err::read_to_string(file)?;
        let place = || Failure::usage(format!("cannot use the repositories in `{}`", file.display()));
        for repository in parse(&text, output).with_context(place)? {
            if let Some(twice) = all.insert(repository.id.clone(), repository) {
                return Err(Failure::usage(format!("the repository `{}` is defined twice", twice.id)))
                    .with_context(place);
            }
        }
    }
    Ok(all)
}

/// Parses one `.repo` file; repositories that are not enabled are left out.
pub fn parse(text: &str, output: &Output) -> anyhow::Result<Vec<Repository>> {
    let mut repositories: Vec<Repository> = Vec::new();
    for (id, values) in sections(text)?.into_iter().filter(|(id, _)| id != "main") {
        if let Some(repository) = checked(&id, &values, output)? {
            if repositories.iter().any(|other| other.id == id) {
                return Err(Failure::usage(format!("the repository `{id}` is defined twice")).into());
            }
            repositories.push(repository);
        }
    }
    Ok(repositories)
}

type Section = (String, BTreeMap<String, String>);

/// Sections in order; a line that begins with blanks continues the value before it.
fn sections(text: &str) -> anyhow::Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    let mut last_key: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let wrong = || Failure::usage(format!("line {}: expected `[id]` or `key=value`", number + 1));
        if let Some(id) = line.strip_prefix('[').and_then(|line| line.trim_end().strip_suffix(']')) {
            let good = |letter: char| letter.is_ascii_alphanumeric() || ['-', '_', '.', ':'].contains(&letter);
            if id.is_empty() || !id.chars().all(good) {
                let text = format!("line {}: `{}` is not a repository id", number + 1, id.escape_debug());
                return Err(Failure::usage(text).into());
            }
            sections.push((id.to_owned(), BTreeMap::new()));
            last_key = None;
            continue;
        }
        let (_, values) = sections.last_mut().ok_or_else(wrong)?;
        if line.starts_with([' ', '\t']) {
            let value = last_key.as_ref().and_then(|key| values.get_mut(key)).ok_or_else(wrong)?;
            value.push(' ');
            value.push_str(trimmed);
            continue;
        }
        let (key, value) = trimmed.split_once('=').ok_or_else(wrong)?;
        let key = key.trim().to_lowercase();
        values.insert(key.clone(), value.trim().to_owned());
        last_key = Some(key);
    }
    Ok(sections)
}

fn checked(id: &str, values: &BTreeMap<String, String>, output: &Output) -> anyhow::Result<Option<Repository>> {
    let flag = |key: &str| -> anyhow::Result<Option<bool>> {
        match values.get(key).map(|value| value.to_lowercase()).as_deref() {
            None | Some("") => Ok(None),
            Some("1" | "yes" | "true" | "on") => Ok(Some(true)),
            Some("0" | "no" | "false" | "off") => Ok(Some(false)),
            Some(other) => Err(Failure::usage(format!("`[{id}]` says `{key}={other}`, expected 0 or 1")).into()),
        }
    };
    let list = |key: &str| -> Vec<String> {
        let value = values.get(key).map(String::as_str).unwrap_or_default();
        value.split([' ', '\t', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    if flag("enabled")? == Some(false) {
        return Ok(None);
    }
    let base_urls: Vec<String> = list("baseurl").iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
    if base_urls.is_empty() {
        let other = ["mirrorlist", "metalink"].into_iter().find(|key| values.contains_key(*key));
        let text = match other {
            Some(key) => format!("`[{id}]` has only a `{key}`: lists of mirrors that nobody signs are not followed"),
            None => format!("`[{id}]` has no `baseurl`"),
        };
        return Err(Failure::usage(text)
            .hint("write `baseurl=` with one mirror, or several separated by spaces, into the .repo file")
            .into());
    }
    for url in &base_urls {
        if !["https://", "http://", "file:///"].iter().any(|scheme| url.starts_with(scheme)) {
            let text = format!("`[{id}]` has the address `{}`, expected https:, http: or file:///", shown(url));
            return Err(Failure::usage(text).into());
        }
    }
    let keys = list("gpgkey");
    for key in &keys {
        if !["https://", "file:///"].iter().any(|scheme| key.starts_with(scheme)) {
            let text = format!("`[{id}]` has the key `{}`, expected file:/// or https:", shown(key));
            return Err(Failure::usage(text).hint("a key that comes over plain http proves nothing").into());
        }
    }
    let check_packages = flag("gpgcheck")?.unwrap_or(false);
    let check_index = flag("repo_gpgcheck")?;
    if keys.is_empty() && (check_packages || check_index == Some(true)) {
        return Err(Failure::usage(format!("`[{id}]` asks for signatures and names no `gpgkey`"))
            .hint("add `gpgkey=file:///PATH`")
            .into());
    }
    for key in NOT_FOLLOWED.iter().filter(|key| values.contains_key(**key)) {
        output.warning(&format!("`{key}` of the repository `{id}` is not followed"));
    }
    Ok(Some(Repository { id: id.to_owned(), base_urls, keys, check_packages, check_index }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIABLES: Variables<'_> = Variables { architecture: Architecture::Arm64, release: Some("9") };

    #[test]
    fn repositories_are_read_as_dnf_reads_them() {
        let text = "# all\n[main]\ngpgcheck=1\n[baseos]\nname = Base OS\nbaseurl=https://a.example/$releasever/BaseOS/$basearch/os/\n  http://b.example/${releasever}/x/\n\
                    gpgcheck = yes\ngpgkey=file:///etc/pki/k1, https://a.example/k2\nrepo_gpgcheck=0\n\n[off]\nenabled=0\nmirrorlist=http://x\n[plain]\nbaseurl=file:///srv/repo\n";
        let read = parse(text, &Output::silent()).unwrap();
        assert_eq!(read.iter().map(|repository| repository.id.as_str()).collect::<Vec<_>>(), ["baseos", "plain"]);
        let urls = read[0].base_urls(&VARIABLES).unwrap();
        assert_eq!(urls, ["https://a.example/9/BaseOS/aarch64/os", "http://b.example/9/x"]);
        assert_eq!(read[0].keys(&VARIABLES).unwrap(), ["file:///etc/pki/k1", "https://a.example/k2"]);
        assert!(read[0].check_packages && !read[0].wants_signed_index());
        assert!(!read[1].check_packages && !read[1].wants_signed_index());
    }

    #[test]
    fn a_key_asks_for_a_signed_index_unless_the_file_says_otherwise() {
        for (more, expected) in [("", true), ("repo_gpgcheck=1\n", true), ("repo_gpgcheck=0\n", false)] {
            let text = format!("[a]\nbaseurl=https://a.example\ngpgkey=file:///k\n{more}");
            assert_eq!(parse(&text, &Output::silent()).unwrap()[0].wants_signed_index(), expected, "{more}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        for (text, says) in [
            ("[a]\nmirrorlist=https://m.example\n", "has only a `mirrorlist`"),
            ("[a]\nmetalink=https://m.example\n", "has only a `metalink`"),
            ("[a]\nname=x\n", "has no `baseurl`"),
            ("[a]\nbaseurl=ftp://user:secret@x/\n", "expected https:, http: or file:///"),
            ("[a]\nbaseurl=https://x\ngpgkey=http://x/key\n", "expected file:/// or https:"),
            ("[a]\nbaseurl=https://x\ngpgcheck=1\n", "names no `gpgkey`"),
            ("[a]\nbaseurl=https://x\nrepo_gpgcheck=1\n", "names no `gpgkey`"),
            ("[a]\nbaseurl=https://x\nenabled=maybe\n", "expected 0 or 1"),
            ("[a]\nbaseurl=https://x\n[a]\nbaseurl=https://y\n", "defined twice"),
            ("baseurl=https://x\n", "line 1"),
            ("[../a]\nbaseurl=https://x\n", "is not a repository id"),
        ] {
            let error = format!("{:#}", parse(text, &Output::silent()).unwrap_err());
            assert!(error.contains(says) && !error.contains("secret"), "{text}: {error}");
        }
        let unknown = parse("[a]\nbaseurl=https://x/$awsregion/\n", &Output::silent()).unwrap();
        assert!(format!("{:#}", unknown[0].base_urls(&VARIABLES).unwrap_err()).contains("$awsregion"));
        let release = parse("[a]\nbaseurl=https://x/$releasever/\n", &Output::silent()).unwrap();
        assert!(release[0].base_urls(&Variables { release: None, ..VARIABLES }).is_err());
    }
}
