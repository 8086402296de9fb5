//! `builder sign`: one more signature. The bundle is checked completely first: nobody signs what is damaged.

use std::io::{BufReader, BufWriter, Write as _};

use bundle::sign::sign_index;
use bundle::{Discard, UnverifiedBundle};
use serde_json::json;

use crate::cache::{self, Pending};
use crate::cli::SignArgs;
use crate::emit::Installer;
use crate::failure::Failure;
use crate::keys;
use crate::output::Output;

/// Signs the bundle and the installer beside it.
pub(super) fn run(args: &SignArgs, output: &Output) -> anyhow::Result<()> {
    let key = keys::secret(&args.key, &args.password)?;
    let checked = UnverifiedBundle::open(BufReader::new(fs_err::File::open(&args.bundle)?))?.without_signatures()?;
    let (index, release) = (checked.index_bytes().to_vec(), checked.release().clone());
    checked.unpack(&mut Discard)?;

    let signature = sign_index(&key, &index, &release)?;
    let unsigned = UnverifiedBundle::open(BufReader::new(fs_err::File::open(&args.bundle)?))?;
    if unsigned.index_digest() != bundle::Digest::of(&index) {
        return Err(Failure::new(format!("`{}` changed while it was being signed", args.bundle.display())).into());
    }
    let pending = Pending::create(&args.bundle, 0o644)?;
    let mut writer = BufWriter::with_capacity(1 << 20, &pending.file);
    unsigned.add_signature(signature, &mut writer)?;
    writer.flush()?;
    drop(writer);

    let installer_path = args.bundle.with_file_name("installer");
    let installer = if installer_path.exists() {
        let installer = Installer::read(&installer_path)?;
        if installer.digest() != release.installer {
            return Err(Failure::new(format!(
                "`{}` is not the installer that the bundle names",
                installer_path.display()
            ))
            .hint("put the installer of this build beside the bundle, or sign a copy of the bundle elsewhere")
            .into());
        }
        let path = args.bundle.with_file_name("installer.minisig");
        cache::write_atomic(&path, installer.sign(&key, &release)?.as_bytes(), 0o644)?;
        Some(path)
    } else {
        output.warning("there is no `installer` beside the bundle: only the bundle is signed");
        None
    };
    pending.finish()?;
    let id = key.public_key().key_id();
    output.result(&format!("signed {} with key {id}", args.bundle.display()));
    output.result_json(&json!({ "bundle": args.bundle, "key": id, "installer": installer }));
    Ok(())
}
