//! `builder verify`: the whole bundle by the installer's rules, every byte.

use std::time::Instant;

use bundle::{Discard, UnverifiedBundle};
use serde_json::json;

use crate::cli::VerifyArgs;
use crate::keys;
use crate::output::{Output, bytes, rate};

/// Verifies.
pub(super) fn run(args: &VerifyArgs, output: &Output) -> anyhow::Result<()> {
    let trust = keys::trust(&args.keys, args.threshold)?;
    let started = Instant::now();
    let file = fs_err::File::open(&args.bundle)?;
    let size = file.metadata()?.len();
    let name = args.bundle.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let progress = output.progress(&name, size);
    let bundle = UnverifiedBundle::open(Counted { file, progress: &progress })?.verify(&trust)?;
    let (release, digest, signers) = (bundle.release().clone(), bundle.index_digest(), bundle.signers().to_vec());
    let images = bundle.images().len();
    bundle.unpack(&mut Discard)?;
    progress.done();
    let time = started.elapsed();
    output.result(&format!(
        "{}: good\n  {} {} {} sequence {}, {images} components, {}\n  index {digest}\n  signed by {}\n  {} ({:.1} s)",
        args.bundle.display(),
        release.name,
        release.version,
        release.architecture,
        release.sequence,
        bytes(size),
        signers.join(", "),
        rate(size, time),
        time.as_secs_f64(),
    ));
    output.result_json(&json!({
        "name": release.name, "version": release.version, "architecture": release.architecture, "sequence": release.sequence,
        "index": digest, "signers": signers, "components": images, "bytes": size, "seconds": time.as_secs_f64(),
    }));
    Ok(())
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
