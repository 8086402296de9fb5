//! `builder keygen`: a minisign key pair; the secret half never overwrites anything and is 0600 from its first byte.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use fs_err::OpenOptions;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use crate::cli::KeygenArgs;
use crate::failure::Failure;
use crate::keys;
use crate::output::Output;

/// Makes the pair.
pub(super) fn run(args: &KeygenArgs, output: &Output) -> anyhow::Result<()> {
    let with = |extension: &str| {
        let mut name = args.out.clone().into_os_string();
        name.push(extension);
        PathBuf::from(name)
    };
    let (secret_path, public_path) = (with(".key"), with(".pub"));
    for path in [&secret_path, &public_path] {
        if path.symlink_metadata().is_ok() {
            return Err(Failure::new(format!("`{}` exists", path.display()))
                .hint("keys are never replaced: choose another `--out`")
                .into());
        }
    }
    let password = if args.no_password { None } else { Some(keys::new_password(&args.password)?) };
    let (secret, public) = bundle::sign::generate_keypair(password.as_deref())?;
    let create = |path: &PathBuf, mode: u32, text: &str| -> anyhow::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all().with_context(|| format!("writing `{}`", path.display()))
    };
    create(&secret_path, 0o600, &secret)?;
    create(&public_path, 0o644, &public)?;
    let id = bundle::PublicKey::parse(&public)?.key_id();
    output.result(&format!(
        "key {id}\n  secret: {} (keep it, and keep it offline)\n  public: {} (hosts trust this)",
        secret_path.display(),
        public_path.display()
    ));
    output.result_json(&serde_json::json!({ "key": id, "secret": secret_path, "public": public_path }));
    Ok(())
}
