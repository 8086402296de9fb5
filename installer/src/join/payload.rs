//! The text inside a join file: versioned JSON, read strictly. What it does not know, it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bundle::component::Role;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Join;
use super::contents::Needs;
use crate::cluster::founding::Founding;
use crate::config::{ClusterConfig, Node, Roles};
use crate::pki::Secret;
use crate::pki::files::TOKENS;
use crate::report::{Exit, Explain as _};

/// What kind of file it says it is.
const FORMAT: &str = "sealift-join";
/// The version that this program writes and reads.
const VERSION: u32 = 1;
/// Most bytes of the whole text, of the config and of the tokens in it: a ConfigMap with that config could not be larger.
pub const MOST: usize = 4 << 20;
const MOST_CONFIG: usize = 1 << 20;
/// Most bytes of any other file: keys and certificates are a few hundred.
const MOST_FILE: usize = 64 << 10;

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    format: String,
    version: u32,
    cluster: String,
    node: String,
    roles: BTreeSet<Role>,
    expires: Timestamp,
    generation: u64,
    founding: Founding,
    config: String,
    files: BTreeMap<String, String>,
}

impl Join {
    /// The text to seal.
    pub fn write(&self) -> Result<Secret> {
        let (config, node) = self.node()?;
        let payload = Payload {
            format: FORMAT.to_owned(),
            version: VERSION,
            cluster: config.cluster.name,
            node: self.node.clone(),
            roles: node.roles.iter().collect(),
            expires: self.expires,
            generation: self.generation,
            founding: Founding { made_here: false, ..self.founding.clone() },
            config: self.config.clone(),
            files: self.files.iter().map(|(path, text)| (path.clone(), text.expose().to_owned())).collect(),
        };
        let text = serde_json::to_string_pretty(&payload).context("writing a join file")?;
        // Whatever this program writes, it must be able to read.
        Self::parse(&text).context("checking a new join file")?;
        Ok(Secret::new(text + "\n"))
    }

    /// Reads the text of an opened file and checks it against itself: version, node, roles, and exactly the files that
    /// the node's roles need.
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(text.len() <= MOST, "it is larger than {} MiB", MOST >> 20);
        let head: Head = serde_json::from_str(text).map_err(|error| shape(&error))?;
        ensure!(head.format == FORMAT, "it says that it is a `{}`, not a `{FORMAT}`", cut(&head.format));
        if head.version != VERSION {
            return Err(anyhow!("it has version {}; this installer reads version {VERSION}", head.version)
                .hint("use the installer of the release that made the file"));
        }
        let payload: Payload = serde_json::from_str(text).map_err(|error| shape(&error))?;
        payload.check_sizes()?;
        let Payload { cluster, node, roles, expires, generation, founding, config, files, .. } = payload;
        ensure!(!founding.made_here, "it claims that its host founded the cluster");
        ensure!(
            founding.id.len() == 32 && founding.id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "its cluster id is not 32 hexadecimal digits"
        );
        let files = files.into_iter().map(|(path, text)| (path, Secret::new(text))).collect();
        let join = Self { founding, node, expires, generation, config, files, warnings: Vec::new() };
        let (config, node) = join.node()?;
        ensure!(config.cluster.name == cluster, "it is for cluster `{cluster}`, but its config is of another");
        ensure!(
            node.roles == Roles::new(roles.iter().copied()),
            "it is for a node with the roles {}, but its config gives `{}` {}",
            Roles::new(roles),
            node.name,
            node.roles
        );
        join.check_files(Needs::of(&config, &node))?;
        join.check_blocks()?;
        Ok(join)
    }

    /// Its config and its node there.
    pub fn node(&self) -> Result<(ClusterConfig, Node)> {
        let config = ClusterConfig::parse(&self.config, Path::new("the join file")).exit(Exit::Usage)?;
        let found = config.nodes.iter().find(|node| node.name == self.node).cloned();
        let node = found.ok_or_else(|| anyhow!("it is for node `{}`, which its config does not have", self.node))?;
        Ok((config, node))
    }

    fn check_files(&self, needs: Needs) -> Result<()> {
        let (wanted, renewal) = (needs.paths(), needs.renewal_paths());
        if !renewal.is_empty() && self.files.keys().eq(&renewal) {
            return Ok(());
        }
        let list = |paths: &mut dyn Iterator<Item = &String>| {
            paths.map(|path| format!("`{}`", cut(path))).collect::<Vec<_>>().join(", ")
        };
        let extra = list(&mut self.files.keys().filter(|path| !wanted.contains(*path)));
        ensure!(extra.is_empty(), "it holds files that this node's roles do not need: {extra}");
        let missing = list(&mut wanted.iter().filter(|path| !self.files.contains_key(*path)));
        ensure!(missing.is_empty(), "it lacks {missing}");
        let Founding { etcd_token, founders, .. } = &self.founding;
        let fits = etcd_token.is_some() == needs.etcd && founders.is_empty() != needs.etcd;
        ensure!(fits, "only the file of an etcd member names the founding members, and it must");
        Ok(())
    }

    /// Each certificate and each key is alone in its file: files are written as they are, and what is pinned and compared is
    /// the first certificate only.
    fn check_blocks(&self) -> Result<()> {
        for (path, text) in &self.files {
            let label = match Path::new(path).extension().and_then(OsStr::to_str) {
                Some("crt") => "CERTIFICATE",
                Some("key") => "PRIVATE KEY",
                _ => continue,
            };
            ensure!(is_one_block(text.expose(), label), "its `{}` is not one PEM block `{label}`", cut(path));
        }
        Ok(())
    }
}

/// Whether a text is one PEM block of that label, without headers and with nothing around it.
fn is_one_block(text: &str, label: &str) -> bool {
    let text = text.trim_ascii();
    let body = text.strip_prefix(&format!("-----BEGIN {label}-----\n"));
    let body = body.and_then(|body| body.strip_suffix(&format!("\n-----END {label}-----")));
    let base64: Option<String> =
        body.map(|body| body.chars().filter(|character| !"\r\n".contains(*character)).collect());
    // A second block, a header and a comment are no base64.
    base64.is_some_and(|base64| STANDARD.decode(base64).is_ok_and(|bytes| !bytes.is_empty()))
}

impl Payload {
    fn check_sizes(&self) -> Result<()> {
        ensure!(self.config.len() <= MOST_CONFIG, "its config is larger than {} KiB", MOST_CONFIG >> 10);
        for (path, text) in &self.files {
            let most = if path == TOKENS { MOST_CONFIG } else { MOST_FILE };
            ensure!(text.len() <= most, "its `{}` is larger than {} KiB", cut(path), most >> 10);
        }
        Ok(())
    }
}

/// An error of JSON may quote what it read: only its kind and place are said.
fn shape(error: &serde_json::Error) -> anyhow::Error {
    let what = match error.classify() {
        serde_json::error::Category::Data => "its fields are not those of this version",
        _ => "it is not JSON",
    };
    anyhow!("{what} (line {}, column {})", error.line(), error.column())
}

/// Text from outside, short enough for a message and without line ends.
fn cut(text: &str) -> String {
    text.chars().take(80).map(|character| if character.is_control() { '?' } else { character }).collect()
}
