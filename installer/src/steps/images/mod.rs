//! The bundle's container images in containerd: imported from the store's blobs, only those that are missing, and pinned, so
//! that the kubelet's garbage collection leaves them alone.
//!
//! No registry is asked, ever. The blobs are hashed again on their way into containerd.

mod listing;
mod stream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bundle::Image;
use bundle::component::Kind;

use self::listing::Known;
use self::stream::LayoutStream;
use super::containerd::ctr;
use super::file;
use crate::config::Roles;
use crate::context::Context;
use crate::host::Host;
use crate::share::Share;
use crate::step::{Change, Check, Step};

const PINNED: &str = "io.cri-containerd.pinned=pinned";

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Images;

/// An image that containerd should have, by its reference.
struct Wanted<'a> {
    reference: &'a str,
    image: &'a Image,
}

impl Wanted<'_> {
    fn state(&self, known: &BTreeMap<String, Known>) -> State {
        match known.get(self.reference) {
            Some(found) if found.complete && found.digest == self.image.root.digest.to_string() => {
                if found.pinned {
                    State::Good
                } else {
                    State::Unpinned
                }
            }
            _ => State::Missing,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Unpinned,
    Missing,
}

impl Step for Images {
    fn name(&self) -> &'static str {
        "images"
    }

    fn title(&self) -> &'static str {
        "Import the container images"
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let known = known(context.host);
        let mut changes = Vec::new();
        for wanted in wanted(context) {
            match wanted.state(&known) {
                State::Good => {}
                State::Unpinned => changes.push(Change::new(format!("pin image {}", wanted.reference))),
                State::Missing => {
                    let size = file::size(wanted.image.installed_size());
                    changes.push(Change::new(format!("import image {} ({size})", wanted.reference)));
                }
            }
        }
        Ok(if changes.is_empty() { Check::Done } else { Check::Needed(changes) })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let known = known(context.host);
        let wanted = wanted(context);
        let total = wanted.len() as u64;
        for (done, wanted) in (0..).zip(&wanted) {
            context.progress(done, total, "images");
            let state = wanted.state(&known);
            if state == State::Missing {
                import(context.host, wanted.reference, wanted.image)
                    .with_context(|| format!("importing image `{}`", wanted.reference))?;
            }
            if state != State::Good {
                context.host.run(&ctr().args(["images", "label", wanted.reference, PINNED]))?;
            }
        }
        Ok(())
    }
}

/// Imports again what containerd has lost of a generation's images: kubelets before 1.29 do not know pinned images and may
/// throw them away. Says which. Called by `installer agent`; nothing happens while containerd does not run.
pub fn reimport(host: &Host, images: &[Image], roles: &Roles) -> Result<Vec<String>> {
    let mut imported = Vec::new();
    if !host.try_run(&ctr().args(["images", "list", "--quiet"]))?.success() {
        return Ok(imported);
    }
    let known = known(host);
    // Container images are for any distribution.
    let share = Share { roles, distribution: "" };
    for wanted in wanted_by(images, share) {
        if wanted.state(&known) == State::Missing {
            import(host, wanted.reference, wanted.image)
                .with_context(|| format!("importing image `{}`", wanted.reference))?;
            host.run(&ctr().args(["images", "label", wanted.reference, PINNED]))?;
            imported.push(wanted.reference.to_owned());
        }
    }
    Ok(imported)
}

/// The container images that this host's roles need.
fn wanted<'a>(context: &Context<'a>) -> Vec<Wanted<'a>> {
    wanted_by(context.images, context.share())
}

fn wanted_by<'a>(images: &'a [Image], share: Share<'_>) -> Vec<Wanted<'a>> {
    images
        .iter()
        .filter(|image| image.component.kind == Kind::Container && share.has(&image.component))
        .filter_map(|image| Some(Wanted { reference: image.reference.as_deref()?, image }))
        .collect()
}

/// What containerd has; nothing while it does not run, so that a plan on a bare host lists all images.
fn known(host: &Host) -> BTreeMap<String, Known> {
    let ask = |what: &str| match host.try_run(&ctr().args(["images", what])) {
        Ok(finished) if finished.success() => finished.text(),
        _ => String::new(),
    };
    let list = ask("list");
    // An empty list needs no second question.
    if list.lines().count() < 2 { BTreeMap::new() } else { listing::parse(&list, &ask("check")) }
}

/// Where the store keeps a blob.
pub fn blob_path(digest: &bundle::Digest) -> PathBuf {
    Path::new("/opt/sealift/store/blobs").join(digest.hex())
}

fn import(host: &Host, reference: &str, image: &Image) -> Result<()> {
    let root = &image.root;
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": root.media_type,
            "digest": root.digest,
            "size": root.size,
            "annotations": { "io.containerd.image.name": reference },
        }],
    });
    let mut stream = LayoutStream::new(index.to_string().as_bytes());
    for blob in &image.blobs {
        let path = blob_path(&blob.digest);
        let content = host.open(&path)?.with_context(|| format!("the store has no blob `{}`", path.display()))?;
        stream.blob(blob.digest, blob.size, Box::new(content));
    }
    let command = ctr().args(["images", "import", "-"]).timeout(Duration::from_secs(900));
    host.feed(&command, &mut stream.end())?;
    Ok(())
}
