//! `builder inspect`: what is inside, from the head of the bundle. Layers are not read (but that of the bill of materials);
//! without a key nothing is proven.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::component::Entry;
use bundle::{Bundle, Digest, UnverifiedBundle};
use serde_json::json;

use crate::cli::InspectArgs;
use crate::describe::{Description, State};
use crate::diff::{self, Side};
use crate::failure::Failure;
use crate::keys;
use crate::output::Output;
use crate::sbom;

/// The largest bill of materials that is read, compressed or not.
const SBOM_LIMIT: u64 = 64 << 20;

/// A bundle whose head was read.
struct Head {
    bundle: Bundle<BufReader<fs_err::File>>,
    state: State,
    size: u64,
}

/// Shows the bundle.
pub(super) fn run(args: &InspectArgs, output: &Output) -> anyhow::Result<()> {
    let Head { bundle, state, size } = head(&args.bundle, &args.keys)?;
    if args.sbom {
        if args.keys.is_empty() {
            output.warning_beside("the bundle is not verified: give `--key FILE` to check the signatures");
        }
        output.document(&bill(bundle)?);
    } else if let Some(path) = &args.diff {
        let old = head(path, &args.keys)?.bundle;
        let side = |bundle: &Bundle<_>| (bundle.release().clone(), bundle.images().to_vec());
        let ((old_release, old_images), (release, images)) = (side(&old), side(&bundle));
        let difference = diff::compare(
            Side { release: &old_release, images: &old_images },
            Side { release: &release, images: &images },
        );
        if output.is_json() {
            output.result_json(&json!({
                "format": 1, "verified": !args.keys.is_empty(),
                "old": old.index_digest(), "new": bundle.index_digest(), "difference": difference,
            }));
        } else {
            let unverified = if args.keys.is_empty() { "UNVERIFIED: give `--key FILE` to check both\n" } else { "" };
            let nothing = if difference.is_empty() { "nothing differs\n" } else { "" };
            output.result(&format!(
                "{unverified}{} {} -> {} {}\n{nothing}{difference}{}",
                old_release.name, old_release.version, release.name, release.version, difference.bytes
            ));
        }
    } else {
        let description = Description::of(bundle.release(), bundle.images(), bundle.index_digest(), state, size);
        if output.is_json() {
            output.result_json(&description.json(args.files));
        } else {
            output.result(&description.text(args.files));
        }
    }
    Ok(())
}

fn head(path: &Path, keys: &[PathBuf]) -> anyhow::Result<Head> {
    let file = fs_err::File::open(path)?;
    let size = file.metadata()?.len();
    let place = || format!("inspecting `{}`", path.display());
    let opened = UnverifiedBundle::open(BufReader::new(file)).with_context(place)?;
    let claimed = opened.claimed_signers();
    if keys.is_empty() {
        let bundle = opened.without_signatures().with_context(place)?;
        return Ok(Head { bundle, state: State { claimed, signers: None }, size });
    }
    let bundle = opened.verify(&keys::trust(keys, 1)?).with_context(place)?;
    let signers = Some(bundle.signers().to_vec());
    Ok(Head { bundle, state: State { claimed, signers }, size })
}

/// Reads the one layer that holds the bill of materials; it is believed only if layer and file have their digests.
fn bill(bundle: Bundle<BufReader<fs_err::File>>) -> anyhow::Result<Vec<u8>> {
    let mut bundle = bundle.random_access()?;
    let image = bundle.images().iter().find(|image| image.component.name.as_str() == sbom::COMPONENT);
    let listed = image.and_then(|image| {
        let file = image.files.iter().find(|file| file.path.as_str() == sbom::FILE)?;
        let Entry::Regular { size, sha256, .. } = &file.entry else { return None };
        Some((image.layers.first()?.clone(), *size, *sha256))
    });
    let (layer, size, sha256) =
        listed.ok_or_else(|| Failure::new("the bundle carries no bill of materials: an older builder made it"))?;
    if layer.size > SBOM_LIMIT || size > SBOM_LIMIT {
        return Err(Failure::new(format!("its bill of materials is larger than {SBOM_LIMIT} bytes")).into());
    }
    let mut compressed = Vec::new();
    bundle.blob(&layer.digest)?.read_to_end(&mut compressed).map_err(refusal)?;
    let mut archive = tar::Archive::new(zstd::Decoder::new(compressed.as_slice())?.take(SBOM_LIMIT * 2));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path_bytes().as_ref() == sbom::FILE.as_bytes() {
            let mut bytes = Vec::new();
            entry.by_ref().take(size + 1).read_to_end(&mut bytes)?;
            if Digest::of(&bytes) == sha256 {
                return Ok(bytes);
            }
            return Err(Failure::new(format!("`{}` does not have the digest {sha256}", sbom::FILE)).into());
        }
    }
    Err(Failure::new(format!("`{}` is not in its layer", sbom::FILE)).into())
}

/// What the reader refused, out of the error that it could return.
fn refusal(error: std::io::Error) -> anyhow::Error {
    match error.downcast::<bundle::Error>() {
        Ok(refused) => refused.into(),
        Err(error) => error.into(),
    }
}
