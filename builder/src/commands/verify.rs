//! `builder verify`: the whole bundle by the installer's rules, every byte; with `--rebuild` also that its lock gives it.

use std::path::Path;
use std::time::{Duration, Instant};

use bundle::{Discard, Image, Release, UnverifiedBundle};
use serde_json::json;

use crate::assemble::Order;
use crate::cli::VerifyArgs;
use crate::diff::{self, Side};
use crate::emit::Installer;
use crate::failure::Failure;
use crate::keys;
use crate::output::{Output, bytes, rate};
use crate::session::Session;

/// What was verified: everything that decides a bundle but its signatures.
struct Verified {
    release: Release,
    index: Vec<u8>,
    images: Vec<Image>,
    signers: Vec<String>,
    size: u64,
    time: Duration,
}

/// Verifies.
pub(super) fn run(args: &VerifyArgs, output: &Output) -> anyhow::Result<()> {
    let verified = verify(args, output)?;
    let Verified { release, index, images, signers, size, time } = &verified;
    let digest = bundle::Digest::of(index);
    output.result(&format!(
        "{}: good\n  {} {} {} sequence {}, {} components, {}\n  index {digest}\n  signed by {}\n  {} ({:.1} s)",
        args.bundle.display(),
        release.name,
        release.version,
        release.architecture,
        release.sequence,
        images.len(),
        bytes(*size),
        signers.join(", "),
        rate(*size, *time),
        time.as_secs_f64(),
    ));
    let rebuilt = args.rebuild.as_deref().map(|manifest| rebuild(args, manifest, &verified, output)).transpose()?;
    output.result_json(&json!({
        "name": release.name, "version": release.version, "architecture": release.architecture, "sequence": release.sequence,
        "index": digest, "signers": signers, "components": images.len(), "bytes": size, "seconds": time.as_secs_f64(),
        "rebuilt": rebuilt.is_some(),
    }));
    Ok(())
}

fn verify(args: &VerifyArgs, output: &Output) -> anyhow::Result<Verified> {
    let trust = keys::trust(&args.keys, args.threshold)?;
    let started = Instant::now();
    let file = fs_err::File::open(&args.bundle)?;
    let size = file.metadata()?.len();
    let name = args.bundle.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let progress = output.progress(&name, size);
    let bundle = UnverifiedBundle::open(Counted { file, progress: &progress })?.verify(&trust)?;
    let (release, signers) = (bundle.release().clone(), bundle.signers().to_vec());
    let (index, images) = (bundle.index_bytes().to_vec(), bundle.images().to_vec());
    bundle.unpack(&mut Discard)?;
    progress.done();
    Ok(Verified { release, index, images, signers, size, time: started.elapsed() })
}

/// Builds it again in a directory of this run and compares. The index binds all blobs by digest: those of the bundle were
/// hashed just now, those of the rebuild are hashed here.
fn rebuild(args: &VerifyArgs, manifest: &Path, verified: &Verified, output: &Output) -> anyhow::Result<()> {
    let Verified { release, images, .. } = verified;
    let order = Order::read(manifest, Some(release.architecture), args.components_dir.as_deref(), args.jobs)?;
    let beside = args.bundle.with_file_name("installer");
    let installer = Installer::read(args.installer.as_deref().unwrap_or(&beside))?;
    let mut session = Session::new(&args.network, output)?;
    let scratch = session.cache.scratch()?;
    session.cache = session.cache.with_layers_in(scratch.path());
    let layout = order.assemble(installer.digest(), &session)?.layout;
    layout.write(std::io::sink(), &[])?;
    if layout.index_bytes() == verified.index {
        output
            .result(&format!("  rebuilt from {}: the same, byte for byte, but for the signatures", manifest.display()));
        return Ok(());
    }
    let old = Side { release, images };
    let difference = diff::compare(old, Side { release: layout.release(), images: layout.images() });
    let text = if difference.is_empty() {
        "~ index.json differs in its own wording: it was written by another builder".to_owned()
    } else {
        difference.to_string().trim_end().replace('\n', "\n    ")
    };
    let text = format!("the rebuild differs from the bundle (bundle -> rebuild):\n    {text}");
    Err(Failure::new(text)
        .hint("rebuild with the manifest, lock, components and builder of the release, and give its `--installer`")
        .into())
}

/// A file that moves a progress bar as it is read.
struct Counted<'a> {
    file: fs_err::File,
    progress: &'a crate::output::Progress,
}

impl std::io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.progress.add(read as u64);
        Ok(read)
    }
}
