//! Minisign signatures over `index.json`, and whom to believe.
//!
//! Trust comes from the caller alone: a [`Trust`] is made from public keys that lie on the host. A key id is a hint for
//! finding the key, never an identity: distinct public keys are what is counted. Only prehashed Ed25519 signatures exist
//! here, and a signature file has one canonical spelling, so that no byte of it is outside the check.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::error::{Error, Reason, quote, refuse, refuse_with};
use crate::limit::SIGNATURE_LIMIT;

const UNTRUSTED_COMMENT: &str = "untrusted comment: sealift bundle signature";

/// The eight bytes minisign puts before keys and signatures to find one by the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    /// 16 upper-case hex digits, the bytes as a little-endian number, as minisign prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

/// A minisign public key.
#[derive(Clone)]
pub struct PublicKey {
    inner: minisign_verify::PublicKey,
    id: KeyId,
    key: [u8; 32],
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

impl PublicKey {
    /// Parses the text of a `.pub` file (a comment line and a line of base64), or the base64 alone.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Key {
            what: format!("`{}` is not a minisign public key", quote(text.trim())),
            hint: Some("expected the content of a `.pub` file: one comment line, one line of 56 base64 characters"),
        };
        let mut lines = text.trim().lines();
        let encoded = match (lines.next(), lines.next(), lines.next()) {
            (Some(line), None, None) => line,
            (Some(comment), Some(line), None) if comment.starts_with("untrusted comment:") => line,
            _ => return Err(wrong()),
        };
        let encoded = encoded.trim();
        let bytes = BASE64.decode(encoded).map_err(|_| wrong())?;
        let parts: Option<([u8; 8], [u8; 32])> = match (bytes.get(2..10), bytes.get(10..)) {
            (Some(id), Some(key)) => id.try_into().ok().zip(key.try_into().ok()),
            _ => None,
        };
        let (id, key) = parts.ok_or_else(wrong)?;
        let inner = minisign_verify::PublicKey::from_base64(encoded).map_err(|_| wrong())?;
        Ok(Self { inner, id: KeyId(id), key })
    }

    /// The key id as minisign prints it: 16 upper-case hex digits.
    pub fn key_id(&self) -> String {
        self.id.to_string()
    }

    /// The text of a `.pub` file.
    pub fn to_text(&self) -> String {
        let mut bytes = b"Ed".to_vec();
        bytes.extend(self.id.0);
        bytes.extend(self.key);
        format!("untrusted comment: minisign public key {}\n{}\n", self.id, BASE64.encode(bytes))
    }
}

/// The keys a host believes, and how many of them must have signed.
#[derive(Clone, Debug)]
pub struct Trust {
    keys: Vec<PublicKey>,
    threshold: usize,
}

impl Trust {
    /// No key, a threshold of zero, or one that the number of distinct keys cannot reach is an error: there is no
    /// "check if possible".
    pub fn new(keys: Vec<PublicKey>, threshold: usize) -> Result<Self, Error> {
        if keys.is_empty() {
            let hint = "put the publisher's `.pub` file into /etc/sealift/trusted-keys/ or name it with --key";
            return Err(Error::Key { what: "no trusted key: nothing can be verified".to_owned(), hint: Some(hint) });
        }
        let distinct = keys.iter().map(|key| key.key).collect::<BTreeSet<_>>().len();
        if threshold == 0 || threshold > distinct {
            let what = format!("a threshold of {threshold} with {distinct} distinct trusted keys cannot work");
            return Err(Error::Key { what, hint: Some("the threshold is at least 1 and at most the number of keys") });
        }
        Ok(Self { keys, threshold })
    }

    /// The trusted keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// How many distinct keys must have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Checks the signatures over `index`: the believed ones, if there are enough.
    pub(crate) fn check<'a>(&self, index: &[u8], signatures: &'a [Signature]) -> Result<Vec<&'a Signature>, Error> {
        let mut signers = Vec::new();
        let mut keys = BTreeSet::new();
        for signature in signatures {
            let candidates = self.keys.iter().filter(|key| key.id == signature.id).collect::<Vec<_>>();
            if candidates.is_empty() {
                continue;
            }
            // `false`: signatures that are not prehashed are not accepted.
            let key = candidates.iter().find(|key| key.inner.verify(index, &signature.inner, false).is_ok());
            let Some(key) = key else {
                return Err(refuse_with(
                    Reason::Signature,
                    format!("`{}`", signature.entry_name()),
                    format!("a signature over `index.json` by the trusted key {}", signature.id),
                    "a signature that does not verify",
                    Some(
                        "the bundle was changed after it was signed, or copied badly: get it again from its publisher",
                    ),
                ));
            };
            if keys.insert(key.key) {
                signers.push(signature);
            }
        }
        if signers.len() < self.threshold {
            let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
            let ids = |ids: Vec<String>| if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
            let trusted = ids(self.keys.iter().map(PublicKey::key_id).collect());
            let found = match signatures {
                [] => "none: the bundle is not signed".to_owned(),
                some => format!(
                    "{} by trusted keys; the bundle is signed by {}",
                    signers.len(),
                    ids(some.iter().map(|signature| signature.id.to_string()).collect())
                ),
            };
            return Err(refuse_with(
                Reason::Signature,
                "`index.json`",
                format!("{} by trusted keys ({trusted})", count(self.threshold, "signature")),
                found,
                Some(
                    "compare the publisher's key with those on this host; a key that comes with the bundle proves nothing",
                ),
            ));
        }
        Ok(signers)
    }
}

/// A signature in its canonical spelling.
#[derive(Clone)]
pub struct Signature {
    inner: minisign_verify::Signature,
    id: KeyId,
    text: String,
    trusted_comment: String,
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}, {:?})", self.id, self.trusted_comment)
    }
}

impl Signature {
    /// Takes a signature made by any minisign program and brings it into the format's spelling: the untrusted comment is
    /// replaced. The signature must be prehashed.
    pub fn normalise(text: &str) -> Result<Self, Error> {
        let wrong = |what: &str| Error::Key {
            what: format!("not a signature the format can hold: {what}"),
            hint: Some("sign with `builder sign` or `minisign -S -H`"),
        };
        let inner = minisign_verify::Signature::decode(text).map_err(|error| wrong(&error.to_string()))?;
        let mut lines = text.lines().skip(1);
        let decode = |line: Option<&str>| line.and_then(|line| BASE64.decode(line.trim()).ok());
        let signature = decode(lines.next()).ok_or_else(|| wrong("its second line is not base64"))?;
        let trusted_comment = inner.trusted_comment().to_owned();
        let global = decode(lines.nth(1)).ok_or_else(|| wrong("its fourth line is not base64"))?;
        if !signature.starts_with(b"ED") {
            return Err(wrong("it is not prehashed"));
        }
        if trusted_comment.chars().any(char::is_control) {
            return Err(wrong("control characters in its trusted comment"));
        }
        let id = signature.get(2..10).and_then(|id| id.try_into().ok()).ok_or_else(|| wrong("it has no key id"))?;
        let text = format!(
            "{UNTRUSTED_COMMENT}\n{}\ntrusted comment: {trusted_comment}\n{}\n",
            BASE64.encode(signature),
            BASE64.encode(global)
        );
        if text.len() as u64 > SIGNATURE_LIMIT {
            return Err(wrong("it is over 4 KiB"));
        }
        Ok(Self { inner, id: KeyId(id), text, trusted_comment })
    }

    /// Reads a signature from a bundle: anything but the canonical spelling under its own key id is refused.
    pub(crate) fn read(entry: &str, bytes: &[u8]) -> Result<Self, Error> {
        let place = || format!("`{}`", quote(entry));
        let read = std::str::from_utf8(bytes).ok().and_then(|text| Some((text, Self::normalise(text).ok()?)));
        let Some((_, signature)) = read.filter(|(text, signature)| signature.text == *text) else {
            let expected = "a prehashed minisign signature in the format's spelling";
            return Err(refuse(Reason::Signature, place(), expected, "something else"));
        };
        if signature.entry_name() != entry {
            return Err(refuse(
                Reason::Signature,
                place(),
                "the key id of its name",
                format!("key id {}", signature.id),
            ));
        }
        Ok(signature)
    }

    /// Key id of the signer, 16 upper-case hex digits: a hint, not an identity.
    pub fn key_id(&self) -> String {
        self.id.to_string()
    }

    /// The comment the signature covers.
    pub fn trusted_comment(&self) -> &str {
        &self.trusted_comment
    }

    /// The text as stored.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Name of its entry in a bundle.
    pub fn entry_name(&self) -> String {
        format!("index.json.{}.minisig", self.id)
    }
}

#[cfg(feature = "write")]
pub use write::{SecretKey, generate_keypair, sign_index};

#[cfg(feature = "write")]
mod write {
    use super::{Error, PublicKey, Signature, fmt};
    use crate::release::Release;

    /// A secret key, ready to sign.
    pub struct SecretKey {
        inner: minisign::SecretKey,
        public: PublicKey,
    }

    impl fmt::Debug for SecretKey {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "SecretKey({})", self.public.key_id())
        }
    }

    fn failed(what: &str, error: &minisign::PError) -> Error {
        Error::Key { what: format!("{what}: {error}"), hint: None }
    }

    impl SecretKey {
        /// Parses the text of a minisign secret key file; `password` is needed if it is encrypted.
        pub fn parse(text: &str, password: Option<&str>) -> Result<Self, Error> {
            let key = minisign::SecretKeyBox::from_string(text).map_err(|error| failed("not a secret key", &error))?;
            let inner = match password {
                // With `None` the crate would ask on the terminal by itself.
                Some(password) => key.into_secret_key(Some(password.to_owned())),
                None => key.into_unencrypted_secret_key(),
            };
            let inner = inner
                .map_err(|error| failed("the secret key cannot be opened (wrong or missing password?)", &error))?;
            let public =
                minisign::PublicKey::from_secret_key(&inner).map_err(|error| failed("not a secret key", &error))?;
            Ok(Self { public: PublicKey::parse(&public.to_base64())?, inner })
        }

        /// Its public half.
        pub fn public_key(&self) -> &PublicKey {
            &self.public
        }

        /// Signs any bytes (prehashed), with a trusted comment; used for the installer beside the bundle too.
        pub fn sign(&self, bytes: &[u8], trusted_comment: &str) -> Result<Signature, Error> {
            let signature = minisign::sign(None, &self.inner, bytes, Some(trusted_comment), None)
                .map_err(|error| failed("signing failed", &error))?;
            Signature::normalise(&signature.into_string())
        }
    }

    /// A new key pair: the text of the secret key file and of the public key file. Without a password the secret key is
    /// stored in the clear.
    pub fn generate_keypair(password: Option<&str>) -> Result<(String, String), Error> {
        let pair = match password {
            Some(password) => minisign::KeyPair::generate_encrypted_keypair(Some(password.to_owned())),
            None => minisign::KeyPair::generate_unencrypted_keypair(),
        };
        let pair = pair.map_err(|error| failed("making a key pair failed", &error))?;
        let secret =
            pair.sk.to_box(Some("sealift secret key")).map_err(|error| failed("making a key pair failed", &error))?;
        let public = PublicKey::parse(&pair.pk.to_base64())?;
        Ok((secret.into_string(), public.to_text()))
    }

    /// Signs a bundle's index; the trusted comment names the release.
    pub fn sign_index(key: &SecretKey, index: &[u8], release: &Release) -> Result<Signature, Error> {
        key.sign(index, &release.trusted_comment())
    }
}
