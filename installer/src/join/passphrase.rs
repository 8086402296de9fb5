//! Passphrases: from the first line of a file, or asked for on the terminal; never an argument.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::absolute;
use crate::host::Host;
use crate::pki::Secret;
use crate::report::{Exit, Explain as _};

/// Fewer characters than this are guessed from a file that has got into wrong hands.
const LEAST: usize = 8;

/// The first line of a file.
pub fn of_file(host: &Host, path: &Path) -> Result<Secret> {
    let path = absolute(path)?;
    let missing = || format!("passphrase file `{}` does not exist", path.display());
    let text = host.read_text(&path).and_then(|text| text.with_context(missing)).exit(Exit::Usage)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(anyhow!("the first line of passphrase file `{}` is empty", path.display())).exit(Exit::Usage);
    }
    Ok(Secret::new(line.to_owned()))
}

/// A warning if others than its owner can read a secret file.
pub fn warning(host: &Host, what: &str, path: &Path) -> Result<Option<String>> {
    let path = absolute(path)?;
    let mode = host.entry(&path)?.map_or(0, |entry| entry.mode & 0o7777);
    let open = mode & 0o077 != 0;
    Ok(open.then(|| format!("{what} `{}` can be read by others (mode {mode:04o}): `chmod 600` it", path.display())))
}

/// Asks for the passphrase of an existing file.
pub fn ask() -> Result<Secret> {
    prompt("Passphrase of the join file: ")
}

/// Asks for a new passphrase, twice.
pub fn ask_new() -> Result<Secret> {
    let first = prompt("New passphrase for the join file: ")?;
    require_strength(&first)?;
    let second = prompt("The same again: ")?;
    ensure!(first == second, "the two passphrases differ");
    Ok(first)
}

/// Refuses a new passphrase that is too short.
pub fn require_strength(passphrase: &Secret) -> Result<()> {
    if passphrase.expose().chars().count() >= LEAST {
        return Ok(());
    }
    Err(anyhow!("the passphrase has fewer than {LEAST} characters"))
        .exit(Exit::Usage)
        .hint("who gets hold of the file can try passphrases for as long as he likes: use several random words")
}

fn prompt(text: &str) -> Result<Secret> {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !terminal {
        return Err(anyhow!("a passphrase is needed, and there is no terminal to ask on"))
            .exit(Exit::Usage)
            .hint("give it in the first line of a file: `--passphrase-file FILE`");
    }
    rpassword::prompt_password(text).map(Secret::new).context("asking for the passphrase").exit(Exit::Usage)
}
