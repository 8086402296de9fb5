//! Image references: `HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`, with Docker's short forms written out.
//!
//! The grammar is that of the `distribution/reference` package, which Docker, containerd and Kubernetes share: what is
//! accepted here means the same image to all of them, and nothing in it can look like a path or a URL of another host.

use std::fmt;
use std::str::FromStr;

use bundle::Digest;

use crate::failure::Failure;

/// The host that names without one belong to.
const DOCKER: &str = "docker.io";
/// Where Docker's registry answers.
const DOCKER_API: &str = "registry-1.docker.io";
/// Longest name (distribution), and longest reference of a bundle.
const LONGEST: usize = 255;

/// What a reference looks like, for hints.
const FORM: &str = "write HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST], for example `registry.k8s.io/pause:3.10`";

/// A complete reference: host and repository are there, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host as references spell it, with its port if there is one: `docker.io`, `registry.k8s.io`, `localhost:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host that answers for it: another one for Docker's registry only.
    pub fn api_host(&self) -> &str {
        if self.host == DOCKER { DOCKER_API } else { &self.host }
    }

    /// Repository below the host: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if it was written or no digest was.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if it was written.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn target(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The name under which containerd keeps and finds the image: a tag beside a digest is dropped
    /// (`reference.ParseDockerRef`, which its CRI service applies to whatever a pod asks for).
    pub fn image_name(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => format!("{}/{}@{digest}", self.host, self.repository),
            (None, Some(tag)) => format!("{}/{}:{tag}", self.host, self.repository),
            (None, None) => format!("{}/{}:latest", self.host, self.repository),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = |what: &str, hint: &str| {
            let shown: String = text.chars().take(300).filter(|letter| !letter.is_control()).collect();
            Failure::usage(format!("`{shown}` is not an image reference: {what}")).hint(hint)
        };
        if text.contains("://") {
            return Err(wrong("it is a URL", FORM));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = digest.parse::<Digest>().map_err(|_| {
                    wrong("after `@` there is no sha256 digest", "a digest is `sha256:` and 64 lower-case hex digits")
                })?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (host, rest) = split_host(name);
        // A colon after the last slash begins the tag; one before it, a port.
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (rest, None),
        };
        if let Some(host) = host
            && !is_host(host)
        {
            return Err(wrong(&format!("`{host}` is not a host"), FORM));
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong(
                &format!("`{tag}` is not a tag"),
                "a tag has up to 128 letters, digits, `_`, `.` and `-`, and begins with none of the last two",
            ));
        }
        if let Some(part) = repository.split('/').find(|part| !is_component(part)) {
            let hint = if part.bytes().any(|byte| byte.is_ascii_uppercase()) {
                "repositories are written in lower case"
            } else {
                "parts are lower-case letters and digits, separated by one `.`, one or two `_`, or `-`"
            };
            return Err(wrong(&format!("`{part}` is not a part of a repository"), hint));
        }
        let host = match host {
            None | Some("index.docker.io") => DOCKER,
            Some(host) => host,
        };
        let repository = if host == DOCKER && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        let reference = Self { host: host.to_owned(), repository, tag, digest };
        if reference.image_name().len() > LONGEST {
            return Err(wrong(&format!("it is longer than {LONGEST} characters"), FORM));
        }
        Ok(reference)
    }
}

/// The first part is a host if it could not be a repository's: Docker's own rule.
fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '[']) || first == "localhost" || first.chars().any(char::is_uppercase) =>
        {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

/// Names separated by dots, and a port. Addresses in brackets are not taken: a bundle's references cannot have them.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let number =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    name.split('.').all(label) && port.is_none_or(number)
}

/// Runs of letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let mut separator = String::new();
    let mut began = false;
    for letter in text.chars() {
        if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
            let good =
                matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-');
            if !good || (!began && !separator.is_empty()) {
                return false;
            }
            separator.clear();
            began = true;
        } else if matches!(letter, '.' | '_' | '-') {
            separator.push(letter);
        } else {
            return false;
        }
    }
    began && separator.is_empty()
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn short_forms_are_written_out_as_docker_does() {
        let cases = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("docker.io/nginx:1", "docker.io/library/nginx:1"),
            ("index.docker.io/nginx:1", "docker.io/library/nginx:1"),
            ("flannel/flannel:v0.27", "docker.io/flannel/flannel:v0.27"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("registry.k8s.io/coredns/coredns:v1.12.0", "registry.k8s.io/coredns/coredns:v1.12.0"),
            ("localhost/x:1", "localhost/x:1"),
            ("localhost:5000/x/y", "localhost:5000/x/y:latest"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("Host/x", "Host/x:latest"),
            ("quay.io/a/b__c/d-e--f/g.h:1", "quay.io/a/b__c/d-e--f/g.h:1"),
        ];
        for (text, full) in cases {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((reference.to_string(), reference.image_name()), (full.to_owned(), full.to_owned()), "{text}");
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
        let docker: Reference = "nginx".parse().unwrap();
        assert_eq!((docker.host(), docker.api_host(), docker.repository()), (DOCKER, DOCKER_API, "library/nginx"));
    }

    #[test]
    fn a_digest_decides() {
        let both: Reference = format!("nginx:1.27@sha256:{HEX}").parse().unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/nginx:1.27@sha256:{HEX}"));
        assert_eq!(both.image_name(), format!("docker.io/library/nginx@sha256:{HEX}"));
        assert_eq!(both.target(), format!("sha256:{HEX}"));
        let alone: Reference = format!("nginx@sha256:{HEX}").parse().unwrap();
        assert_eq!((alone.tag(), alone.image_name()), (None, both.image_name()));
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        let long = "a".repeat(256);
        let cases = [
            ("", "not a part"),
            ("https://registry.k8s.io/pause", "a URL"),
            ("Nginx", "lower case"),
            ("registry.k8s.io/Pause", "lower case"),
            ("registry.k8s.io/../x", "not a part"),
            ("registry.k8s.io//x", "not a part"),
            ("registry.k8s.io/x/", "not a part"),
            ("registry.k8s.io/", "not a part"),
            ("registry.k8s.io/a___b", "not a part"),
            ("registry.k8s.io/a._b", "not a part"),
            ("registry.k8s.io/-a", "not a part"),
            ("registry.k8s.io/a-", "not a part"),
            ("registry.k8s.io/a b", "not a part"),
            ("registry.k8s.io/a?b", "not a part"),
            ("registry.k8s.io/a%2fb", "not a part"),
            ("registry.k8s.io/a\nb", "not a part"),
            ("-x.io/a", "not a host"),
            ("x..io/a", "not a host"),
            ("user@x.io/a", "no sha256 digest"),
            ("x.io:0/a", "not a host"),
            ("x.io:65536/a", "not a host"),
            ("x.io:+80/a", "not a host"),
            ("[::1]:5000/a", "not a host"),
            ("x.io/a:", "not a tag"),
            ("x.io/a:.b", "not a tag"),
            ("x.io/a:b c", "not a tag"),
            ("x.io/a:b:c", "not a part"),
            ("x.io/a@sha256:12", "no sha256 digest"),
            ("x.io/a@sha512:12", "no sha256 digest"),
            (&long, "longer than"),
        ];
        for (text, says) in cases {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(format!("{error} {error:?}").contains(says), "{text}: {error:?}");
        }
    }
}
