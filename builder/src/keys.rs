//! Key files and their passwords. Passwords come from a file, the environment or the terminal, never from an argument.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::sign::SecretKey;
use bundle::{PublicKey, Trust};

use crate::cli::PasswordArgs;
use crate::failure::Failure;

const VARIABLE: &str = "SEALIFT_KEY_PASSWORD";

/// Reads and opens a secret key; asks for the password only if it has one.
pub fn secret(path: &Path, password: &PasswordArgs) -> anyhow::Result<SecretKey> {
    let text = fs_err::read_to_string(path)?;
    if let Ok(key) = SecretKey::parse(&text, None) {
        return Ok(key);
    }
    let password = match given(password)? {
        Some(password) => password,
        None => ask(&format!("Password of `{}`: ", path.display()))?,
    };
    SecretKey::parse(&text, Some(&password)).with_context(|| {
        Failure::new(format!("the secret key `{}` cannot be opened", path.display()))
            .hint("check the password, and that this is the secret key, not the public one")
    })
}

/// Reads public keys.
pub fn trust(paths: &[PathBuf], threshold: usize) -> anyhow::Result<Trust> {
    let read = |path: &PathBuf| {
        let text = fs_err::read_to_string(path)?;
        PublicKey::parse(&text).with_context(|| format!("reading `{}`", path.display()))
    };
    let keys = paths.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Trust::new(keys, threshold)?)
}

/// A password for a new key; typed twice on a terminal.
pub fn new_password(password: &PasswordArgs) -> anyhow::Result<String> {
    if let Some(password) = given(password)? {
        return Ok(password);
    }
    let first = ask("Password for the new key: ")?;
    if ask("Once more: ")? != first {
        return Err(Failure::usage("the two passwords differ").into());
    }
    if first.is_empty() {
        return Err(Failure::usage("the password is empty")
            .hint("`--no-password` makes an unprotected key, for tests")
            .into());
    }
    Ok(first)
}

fn given(password: &PasswordArgs) -> anyhow::Result<Option<String>> {
    match (&password.password_file, std::env::var(VARIABLE)) {
        (Some(file), _) => Ok(Some(fs_err::read_to_string(file)?.lines().next().unwrap_or_default().to_owned())),
        (None, Ok(password)) => Ok(Some(password)),
        (None, Err(_)) => Ok(None),
    }
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    rpassword::prompt_password(prompt).with_context(|| {
        Failure::usage("the key has a password and there is no terminal to ask for it")
            .hint(format!("give `--password-file FILE`, or set {VARIABLE}"))
    })
}
