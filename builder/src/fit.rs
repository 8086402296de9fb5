//! Whether a lock follows from its manifest, component by component, without asking anybody.
//!
//! The lock records the manifest's digest: that says *whether* the manifest changed since. This says *where*, as far as it
//! shows in the lock; a change of `files`, for example, does not.

use std::collections::{BTreeMap, BTreeSet};

use bundle::component::Kind;
use bundle::{Architecture, ComponentName, Digest};

use crate::base::Base;
use crate::failure::Failure;
use crate::glob;
use crate::lock::{Lock, LockedArtifact, LockedComponent};
use crate::manifest::{Artifact, ComponentText, Distribution, Manifest, PackageSource, Placeholders, Source, Trust};
use crate::source::registry::Reference;
use bundle::debian_version;

/// The components of the manifest as the lock names them, images of addons left out: only resolving finds those.
pub fn wanted(manifest: &Manifest) -> BTreeSet<ComponentName> {
    let release = &manifest.release;
    let own =
        release.components.iter().filter(|(_, text)| !text.artifacts.is_empty()).map(|(name, _)| name.to_string());
    let packages = release.packages.keys().map(|name| format!("packages-{name}"));
    let kernels = release.kernels.keys().map(|name| format!("kernel-{name}"));
    let addons = release.addons.keys().map(|name| format!("addon-{name}"));
    own.chain(packages).chain(kernels).chain(addons).filter_map(|name| name.parse().ok()).collect()
}

/// The references of images that only the named addons need, by the component that brings them.
pub fn images(lock: &Lock, of: &BTreeSet<ComponentName>) -> BTreeSet<ComponentName> {
    let needs = |named: bool| -> BTreeSet<&str> {
        let addons = lock.component.iter().filter(|(name, _)| of.contains(*name) == named);
        addons.flat_map(|(_, addon)| addon.images.iter().map(String::as_str)).collect()
    };
    let (theirs, others) = (needs(true), needs(false));
    let is_theirs = |(name, component): &(&ComponentName, &LockedComponent)| {
        let reference = component.artifacts.values().flatten().find_map(|artifact| artifact.url.strip_prefix("image:"));
        name.as_str().starts_with("image-")
            && reference.is_some_and(|reference| theirs.contains(reference) && !others.contains(reference))
    };
    lock.component.iter().filter(is_theirs).map(|(name, _)| name.clone()).collect()
}

/// Refuses a lock that was made for another manifest, or says anything that this one does not: what the lock says is packed,
/// and signed as the manifest's word.
pub fn check(manifest: &Manifest, lock: &Lock) -> anyhow::Result<()> {
    lock.check_fits(manifest)?;
    let misfits = misfits(manifest, lock);
    if misfits.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = misfits.iter().map(|(name, wrong)| format!("\n    {name} {wrong}")).collect();
    let path = manifest.path.display();
    Err(Failure::new(format!("the lock says what `{path}` does not:{}", lines.concat()))
        .hint(format!("somebody changed the lock by hand; run `builder lock {path}` and look at the difference"))
        .into())
}

/// Components whose entries in the lock do not follow from the manifest, with what is wrong.
pub fn misfits(manifest: &Manifest, lock: &Lock) -> BTreeMap<ComponentName, String> {
    let (wanted, architectures) = (wanted(manifest), &manifest.release.architectures);
    let mut misfits = BTreeMap::new();
    for (name, component) in &lock.component {
        if !wanted.contains(name) && !name.as_str().starts_with("image-") {
            misfits.insert(name.clone(), "is not in the manifest any more".to_owned());
        }
        let strange = component.artifacts.keys().find(|architecture| !architectures.contains(architecture));
        if let Some(architecture) = strange {
            misfits.insert(name.clone(), format!("has artifacts for {architecture}, the manifest is not for that"));
        }
        if name.as_str().starts_with("image-") && !wanted.contains(name) {
            let wrong = match component.made {
                None => Some("has the name of a component that the builder makes".to_owned()),
                Some(_) => image(manifest, lock, component),
            };
            misfits.extend(wrong.map(|wrong| (name.clone(), wrong)));
        }
    }
    for name in wanted {
        let wrong = match lock.component.get(&name) {
            None => Some("is not in the lock".to_owned()),
            Some(locked) => component(manifest, &name, locked),
        };
        misfits.extend(wrong.map(|wrong| (name, wrong)));
    }
    misfits
}

/// Whether a component of the lock follows from the manifest and is complete.
pub fn fits(manifest: &Manifest, name: &ComponentName, locked: &LockedComponent) -> bool {
    let complete = locked.artifacts.values().flatten().all(|artifact| artifact.resolved().is_ok());
    complete && component(manifest, name, locked).is_none()
}

/// What is wrong with one component that is in both.
fn component(manifest: &Manifest, name: &ComponentName, locked: &LockedComponent) -> Option<String> {
    let release = &manifest.release;
    if let Some(text) = release.components.get(name) {
        return made(locked, None, None).or_else(|| own(manifest, text, locked));
    }
    let after = |prefix| name.as_str().strip_prefix(prefix);
    let find = |prefix| after(prefix).and_then(|name| Distribution::try_from(name.to_owned()).ok());
    if let Some((distribution, text)) = find("packages-").and_then(|name| release.packages.get_key_value(&name)) {
        let hosted = release.components.values().filter_map(|component| component.packages.get(distribution));
        let roots = text.install.iter().chain(hosted.flat_map(|host| &host.install)).cloned().collect();
        return untrusted_of(&text.source, locked)
            .or_else(|| made(locked, Some(Kind::Packages), Some(distribution)))
            .or_else(|| packages(manifest, distribution, &roots, |architecture| text.is_for(architecture), locked));
    }
    if let Some((distribution, text)) = find("kernel-").and_then(|name| release.kernels.get_key_value(&name)) {
        let roots = text.roots().into_iter().collect();
        return untrusted_of(&text.source, locked)
            .or_else(|| made(locked, Some(Kind::Kernel), Some(distribution)))
            .or_else(|| packages(manifest, distribution, &roots, |architecture| text.is_for(architecture), locked));
    }
    let (_, addon) = release.addons.iter().find(|(addon, _)| after("addon-") == Some(addon.as_str()))?;
    if addon.version != locked.version {
        return Some(format!("is {} in the lock, {} in the manifest", locked.version, addon.version));
    }
    let missing = addon.images.iter().find(|image| !locked.images.is_empty() && !locked.images.contains(image));
    if let Some(image) = missing {
        return Some(format!("needs the image `{image}`, which the lock does not have"));
    }
    let wrong = made(locked, Some(Kind::Addon), None);
    wrong.or_else(|| {
        locked.artifacts.iter().find_map(|(architecture, list)| {
            let [only] = &list[..] else {
                return Some(format!("has {} artifacts for {architecture} in the lock, 1 in the manifest", list.len()));
            };
            let places = Placeholders { version: &addon.version, architecture: *architecture };
            match addon.artifact.expand(&places) {
                Ok(wanted) => artifact(&wanted, *architecture, only),
                Err(error) => Some(format!("cannot be compared: {error:#}")),
            }
        })
    })
}

fn untrusted_of(source: &PackageSource, locked: &LockedComponent) -> Option<String> {
    let PackageSource::RpmMd { trust, .. } = source else { return None };
    locked.artifacts.values().flatten().find_map(|artifact| untrusted(artifact, *trust))
}

/// What is wrong with what the lock says a component is.
fn made(locked: &LockedComponent, kind: Option<Kind>, distribution: Option<&Distribution>) -> Option<String> {
    let show =
        |kind: Option<Kind>| kind.map_or_else(|| "nothing".to_owned(), |kind| format!("{kind:?}").to_lowercase());
    if locked.made != kind {
        return Some(format!("is made as {} in the lock, as {} by the manifest", show(locked.made), show(kind)));
    }
    let name = |distribution: Option<&Distribution>| distribution.map_or("none", Distribution::as_str).to_owned();
    let is = locked.distribution.as_ref();
    if is != distribution {
        let (is, wanted) = (name(is), name(distribution));
        return Some(format!("is for distribution {is} in the lock, {wanted} in the manifest"));
    }
    (kind != Some(Kind::Addon) && !locked.images.is_empty())
        .then(|| format!("needs the image `{}`, but is no addon", locked.images[0]))
}

/// What is wrong with an image that the lock says an addon needs.
fn image(manifest: &Manifest, lock: &Lock, locked: &LockedComponent) -> Option<String> {
    let wrong = made(locked, Some(Kind::Container), None);
    wrong.or_else(|| {
        locked.artifacts.iter().find_map(|(architecture, list)| {
            let [only] = &list[..] else {
                return Some(format!("has {} artifacts for {architecture} in the lock, an image is one", list.len()));
            };
            let name = only.url.strip_prefix("image:").unwrap_or_default();
            if !lock.component.values().any(|addon| addon.images.iter().any(|image| image == name)) {
                return Some(format!("is `{}`, which no addon needs", only.url));
            }
            let parse = |text: &str| text.parse::<Reference>().ok();
            let demanded = manifest.release.addons.values().flat_map(|addon| &addon.digests);
            let mut demanded = demanded.filter(|(text, _)| parse(text).is_some_and(|image| image.image_name() == name));
            let pinned = demanded.next().map(|(_, digest)| *digest);
            let pinned = pinned.or_else(|| parse(name).and_then(|image| image.digest()));
            digest(only, pinned).or_else(|| image_proof(only, pinned)).or_else(|| extras(only, false))
        })
    })
}

/// What is wrong with the digest of an entry whose digest the manifest says.
fn digest(locked: &LockedArtifact, pinned: Option<Digest>) -> Option<String> {
    let (pinned, is) = (pinned?, locked.sha256?);
    (pinned != is).then(|| format!("`{}` has {is} in the lock, {pinned} in the manifest", locked.url))
}

/// What is wrong with what is said to vouch for an image.
fn image_proof(locked: &LockedArtifact, pinned: Option<Digest>) -> Option<String> {
    let proof = locked.proof.as_deref().filter(|_| locked.unresolved.is_none())?;
    // The registry may have confirmed what the manifest pins.
    let wanted = if pinned.is_some() { "manifest" } else { "registry" };
    (proof != wanted && proof != "registry")
        .then(|| format!("`{}` was vouched for by {proof} in the lock, by {wanted} in the manifest", locked.url))
}

/// What only packages have, or only closures.
fn extras(locked: &LockedArtifact, packaged: bool) -> Option<String> {
    let LockedArtifact { url, path, licence, needed_by, .. } = locked;
    let field = [("path", path, packaged), ("licence", licence, packaged), ("needed_by", needed_by, false)];
    let (name, value, _) = field.into_iter().find(|(_, value, may)| value.is_some() && !may)?;
    let value = value.as_deref().unwrap_or_default();
    Some(format!("`{url}` has {name} `{value}` in the lock, which the manifest does not say"))
}

/// What is wrong with what is said to vouch for a package: its own kind of index does.
fn package_proof(locked: &LockedArtifact) -> Option<String> {
    let proof = locked.proof.as_deref().filter(|_| locked.unresolved.is_none())?;
    let scheme = |text: &str| text.split_once(':').map(|(scheme, _)| scheme.to_owned());
    // Repositories of RPM packages may have no key; whether the manifest puts up with that is asked elsewhere.
    let unsigned = locked.url.starts_with("rpm:") && proof.starts_with("first-use:");
    (!unsigned && scheme(proof) != scheme(&locked.url))
        .then(|| format!("`{}` was vouched for by {proof}, which is no index of such packages", locked.url))
}

fn own(manifest: &Manifest, text: &ComponentText, locked: &LockedComponent) -> Option<String> {
    for architecture in &manifest.release.architectures {
        let places = Placeholders { version: &text.version, architecture: *architecture };
        let wanted: Vec<_> = text.artifacts.iter().filter(|artifact| artifact.is_for(*architecture)).collect();
        let list = locked.artifacts.get(architecture).map_or(&[][..], Vec::as_slice);
        if wanted.len() != list.len() {
            return Some(format!(
                "has {} artifacts for {architecture} in the lock, {} in the manifest",
                list.len(),
                wanted.len()
            ));
        }
        let main_version =
            list.first().and_then(|main| main.url.strip_prefix("apt:")).and_then(|url| url.split_once('='));
        let version = match main_version {
            Some((_, package)) => debian_version::component_version(package, text.version.as_str()),
            None => Some(text.version.as_str()),
        };
        if version != Some(locked.version.as_str()) && !list.iter().any(|main| main.unresolved.is_some()) {
            return Some(format!("is {} in the lock, {} in the manifest", locked.version, text.version));
        }
        for (wanted, locked) in wanted.iter().zip(list) {
            let wrong = match wanted.expand(&places) {
                Ok(wanted) => artifact(&wanted, *architecture, locked),
                Err(error) => Some(format!("cannot be compared: {error:#}")),
            };
            if wrong.is_some() {
                return wrong;
            }
        }
    }
    None
}

/// What is wrong with one artifact, placeholders replaced.
fn artifact(wanted: &Artifact, architecture: Architecture, locked: &LockedArtifact) -> Option<String> {
    let url = &locked.url;
    let package = |scheme: &str, name: &str, version: Option<&str>| {
        let named = url.strip_prefix(scheme).map(|rest| rest.split_once('=').unwrap_or((rest, "")));
        named.is_some_and(|(found, is)| {
            glob::matches(name, found) && (is.is_empty() || version.is_none_or(|version| version == is))
        })
    };
    let same = match &wanted.source {
        Source::Apt { name, version, follow, .. } => {
            package("apt:", follow.as_ref().unwrap_or(name), version.as_deref())
        }
        Source::Rpm { name, version, .. } => package("rpm:", name, version.as_deref()),
        Source::Image { .. } | Source::Url(_) | Source::File(_) => *url == wanted.source.label(),
    };
    if !same {
        return Some(format!("is `{url}` in the lock, `{}` in the manifest", wanted.source.label()));
    }
    let pinned = match &wanted.source {
        Source::Image { digest, .. } => *digest,
        _ => wanted.sha256.get(&architecture).copied(),
    };
    let packaged = matches!(wanted.source, Source::Apt { .. } | Source::Rpm { .. });
    if let Some(wrong) = digest(locked, pinned).or_else(|| extras(locked, packaged)) {
        return Some(wrong);
    }
    if wanted.mirrors != locked.mirrors {
        let (is, said) = (locked.mirrors.join(", "), wanted.mirrors.join(", "));
        return Some(format!(
            "`{url}` has other mirrors in the manifest: `{is}` in the lock, `{said}` in the manifest"
        ));
    }
    // An entry that is not resolved will get its proof from the manifest as it then is.
    let proof = locked.proof.as_deref().filter(|_| locked.unresolved.is_none())?;
    match wanted.source {
        Source::Apt { .. } | Source::Rpm { .. } => {
            return package_proof(locked).or_else(|| untrusted(locked, wanted.trust));
        }
        Source::Image { .. } => return image_proof(locked, pinned),
        Source::Url(_) | Source::File(_) => {}
    }
    let told = pinned.is_some() || wanted.sha512.contains_key(&architecture);
    let list = wanted.checksums.as_ref().map(|list| format!("checksums:{list}"));
    let good = match proof {
        "manifest" => told,
        "first-use" => !told && list.is_none() && wanted.trust == Trust::FirstUse,
        _ => list.as_deref() == Some(proof),
    };
    if !good {
        return Some(format!("`{url}` was vouched for by {proof}, which the manifest does not say any more"));
    }
    let said = wanted.sha512.get(&architecture).map(|hex| hex.to_ascii_lowercase());
    let said = said.as_deref().map(|hex| hex.strip_prefix("sha512:").unwrap_or(hex));
    // Upstream's list may have said more than the manifest.
    let same = locked.sha512.as_deref() == said || (said.is_none() && list.as_deref() == Some(proof));
    (!same).then(|| {
        let show = |sha512: Option<&str>| sha512.unwrap_or("none").to_owned();
        let (is, said) = (show(locked.sha512.as_deref()), show(said));
        format!("`{url}` has SHA-512 {is} in the lock, {said} in the manifest")
    })
}

/// What is wrong with a package of a repository without a key.
fn untrusted(locked: &LockedArtifact, trust: Trust) -> Option<String> {
    let proof = locked.proof.as_deref().filter(|proof| proof.starts_with("first-use"))?;
    (trust == Trust::Digest).then(|| {
        format!("`{}` was vouched for by {proof}, and the manifest does not say `trust = \"first-use\"`", locked.url)
    })
}

/// What is wrong with a closure: a package that was asked for is not asked for any more, or the other way round.
fn packages(
    manifest: &Manifest,
    distribution: &Distribution,
    roots: &BTreeSet<String>,
    is_for: impl Fn(Architecture) -> bool,
    locked: &LockedComponent,
) -> Option<String> {
    // What the base has is not in the closure. A base that cannot be read is found where it is needed.
    let base = Base::read(manifest.directory(), distribution.as_str()).map(|base| base.packages).unwrap_or_default();
    let plain = |name: &str| name.split_once('=').map_or(name, |(name, _)| name).to_owned();
    for architecture in &manifest.release.architectures {
        let list = locked.artifacts.get(architecture).map_or(&[][..], Vec::as_slice);
        if !is_for(*architecture) && !list.is_empty() {
            return Some(format!("has packages for {architecture}, which the manifest does not want there"));
        }
        for entry in list {
            if !entry.url.starts_with("apt:") && !entry.url.starts_with("rpm:") {
                return Some(format!("has `{}`, which is no package of a distribution", entry.url));
            }
            if let Some(mirror) = entry.mirrors.first() {
                return Some(format!("`{}` has the mirror `{mirror}` in the lock, none in the manifest", entry.url));
            }
            let wrong = package_proof(entry);
            if wrong.is_some() {
                return wrong;
            }
        }
        let name = |artifact: &LockedArtifact| plain(artifact.url.split_once(':').map_or("", |(_, rest)| rest));
        let wanted: BTreeSet<String> = roots.iter().map(|root| plain(root)).collect();
        let asked = list.iter().filter(|artifact| artifact.needed_by.is_none()).map(name);
        if let Some(root) = asked.into_iter().find(|root| !wanted.contains(root)) {
            return Some(format!("has `{root}`, which the manifest does not ask for any more"));
        }
        let has: BTreeSet<String> = list.iter().map(name).collect();
        if let Some(root) =
            wanted.iter().find(|root| is_for(*architecture) && !has.contains(*root) && !base.contains_key(*root))
        {
            return Some(format!("does not have `{root}`, which the manifest asks for"));
        }
    }
    None
}

/// The manifest with these components alone: what resolving them needs.
pub fn narrowed(manifest: &Manifest, names: &BTreeSet<ComponentName>) -> Manifest {
    let has = |name: String| name.parse().is_ok_and(|name: ComponentName| names.contains(&name));
    let mut release = manifest.release.clone();
    release.packages.retain(|name, _| has(format!("packages-{name}")));
    release.kernels.retain(|name, _| has(format!("kernel-{name}")));
    release.addons.retain(|name, _| has(format!("addon-{name}")));
    let kept = &release.packages;
    release.components.retain(|name, text| {
        if !names.contains(name) {
            text.artifacts.clear();
            text.packages.retain(|distribution, _| kept.contains_key(distribution));
        }
        names.contains(name) || !text.packages.is_empty()
    });
    Manifest { path: manifest.path.clone(), digest: manifest.digest, release }
}

#[cfg(test)]
mod tests;
