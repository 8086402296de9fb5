//! Sealing and opening with age (<https://age-encryption.org/v1>): by a passphrase (scrypt) or for X25519 keys.
//!
//! age authenticates the whole file: what was changed or cut off does not open. The binary form only; `age -d` reads it,
//! and reads the armoured form for those who need to turn one into the other.

use std::io::{Read as _, Write as _};

use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, Identity, IdentityFile, Recipient, scrypt, x25519};
use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::payload::MOST;
use crate::pki::Secret;
use crate::report::{Exit, Explain as _};

/// The first bytes of a sealed file.
const HEAD: &[u8] = b"age-encryption.org/v1\n";
/// The first bytes of an armoured one.
const ARMOUR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// scrypt's work factor as `age` has it: 2^18, which takes 256 MiB and about a second. It is not measured on this host,
/// because a busy one would choose less.
const WORK: u8 = 18;
/// The most that is accepted of a file: 1 GiB and some seconds.
const MOST_WORK: u8 = 20;
/// age's chunks and header add less than this to the text.
pub const MOST_SEALED: usize = MOST + (64 << 10);

/// With what a file is sealed.
#[derive(Clone, Debug)]
pub enum Sealing {
    /// A passphrase.
    Passphrase(Secret),
    /// X25519 public keys, `age1…`.
    Recipients(Vec<String>),
    /// Not at all: for workers, whose files hold a token and no key.
    Plain,
}

/// With what a file is opened.
#[derive(Clone, Debug)]
pub enum Key {
    /// A passphrase.
    Passphrase(Secret),
    /// The text of an age identity file.
    Identity(Secret),
}

/// What kind of file it is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sealed by age.
    Sealed,
    /// Plain JSON.
    Plain,
}

impl Kind {
    /// Looks at the first bytes.
    pub fn of(bytes: &[u8]) -> Result<Self> {
        if bytes.starts_with(HEAD) {
            return Ok(Self::Sealed);
        }
        if bytes.starts_with(ARMOUR) {
            return Err(anyhow!("it is an armoured age file"))
                .hint("make it binary: `age -d FILE | age -p -o FILE.age`");
        }
        ensure!(bytes.trim_ascii_start().first() == Some(&b'{'), "it is neither an age file nor a plain join file");
        Ok(Self::Plain)
    }
}

/// Seals a text.
pub fn seal(text: &Secret, sealing: &Sealing) -> Result<Vec<u8>> {
    let recipients: Vec<Box<dyn Recipient>> = match sealing {
        Sealing::Plain => return Ok(text.expose().as_bytes().to_vec()),
        Sealing::Passphrase(passphrase) => {
            let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.expose().to_owned()));
            recipient.set_work_factor(WORK);
            vec![Box::new(recipient)]
        }
        Sealing::Recipients(keys) => {
            let parse = |key: &String| -> Result<Box<dyn Recipient>> {
                let parsed = key.trim().parse::<x25519::Recipient>();
                Ok(Box::new(parsed.map_err(|error| anyhow!("`{key}` is not an age public key: {error}"))?))
            };
            let keys: Result<_> = keys.iter().map(parse).collect();
            keys.exit(Exit::Usage).hint("`age-keygen` prints one: `age1` and 58 characters")?
        }
    };
    let encryptor = Encryptor::with_recipients(recipients.iter().map(AsRef::as_ref)).context("sealing a join file")?;
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).context("sealing a join file")?;
    writer.write_all(text.expose().as_bytes()).and_then(|()| writer.finish()).context("sealing a join file")?;
    Ok(sealed)
}

/// Whether a sealed file wants a passphrase (or else an identity file).
pub fn wants_passphrase(sealed: &[u8]) -> Result<bool> {
    Ok(Decryptor::new_buffered(sealed).map_err(|error| refused(&error))?.is_scrypt())
}

/// Opens a sealed file. Nothing of it is given out before its last byte has proven right.
pub fn unseal(sealed: &[u8], key: &Key) -> Result<Secret> {
    let decryptor = Decryptor::new_buffered(sealed).map_err(|error| refused(&error))?;
    let identities: Vec<Box<dyn Identity>> = match key {
        Key::Passphrase(_) if !decryptor.is_scrypt() => {
            bail!("it is sealed for age keys, not with a passphrase");
        }
        Key::Identity(_) if decryptor.is_scrypt() => bail!("it is sealed with a passphrase, not for an age key"),
        Key::Passphrase(passphrase) => {
            let mut identity = scrypt::Identity::new(SecretString::from(passphrase.expose().to_owned()));
            identity.set_max_work_factor(MOST_WORK);
            vec![Box::new(identity)]
        }
        Key::Identity(text) => {
            let file = IdentityFile::from_buffer(text.expose().as_bytes()).context("reading the age identity file")?;
            let identities = file.into_identities().map_err(|error| refused(&error))?;
            identities.into_iter().map(|identity| -> Box<dyn Identity> { identity }).collect()
        }
    };
    let reader = decryptor.decrypt(identities.iter().map(AsRef::as_ref)).map_err(|error| refused(&error))?;
    let mut text = Vec::new();
    let read = reader.take(MOST as u64 + 1).read_to_end(&mut text);
    read.map_err(|_| anyhow!("it was changed or cut off after it was sealed"))?;
    ensure!(text.len() <= MOST, "it is larger than {} MiB", MOST >> 20);
    Ok(Secret::new(String::from_utf8(text).map_err(|_| anyhow!("what is inside is not text"))?))
}

/// age's errors in our words (its own are translated into the locale's language and speak of `rage`).
fn refused(error: &DecryptError) -> anyhow::Error {
    match error {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
            anyhow!("the passphrase is wrong, or the file was changed after it was sealed")
        }
        DecryptError::NoMatchingKeys => anyhow!("it is not sealed for this age key"),
        DecryptError::ExcessiveWork { required, .. } => {
            anyhow!("it asks for 2^{required} of work to open; at most 2^{MOST_WORK} is accepted")
        }
        DecryptError::InvalidMac => anyhow!("its header was changed after it was sealed"),
        _ => anyhow!("its header is damaged, or of a newer version of age"),
    }
}
