//! Signatures of a repository: over its repomd.xml, and over the header of each package. Checked by `gpgv` with exactly the
//! keys that the .repo file names.
//!
//! A package's signature covers its main header, and that header holds the SHA-256 of the packed payload: together they
//! prove the package as `rpmkeys --checksig` does, without rpm's own key store.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bundle::digest::Hashing;

use super::package::Package;
use super::repo_files::{Repository, Variables};
use crate::failure::Failure;
use crate::http::{Network, Request, shown};
use crate::process;
use crate::rpm_file::Head;
use crate::source::openpgp::{signer, unarmour};

/// Largest key file.
const LIMIT: u64 = 1 << 20;

/// The keys of one repository, as gpgv reads them.
#[derive(Clone, Debug)]
pub(super) struct Keys(Vec<u8>);

impl Keys {
    /// Reads the keys that the .repo file names; `None` if it names none.
    pub(super) fn read(
        repository: &Repository,
        variables: &Variables<'_>,
        network: &Network,
    ) -> anyhow::Result<Option<Self>> {
        let mut all = Vec::new();
        let urls = repository.keys(variables)?;
        for url in &urls {
            let place = || Failure::new(format!("the key `{}` of `{}` cannot be read", shown(url), repository.id));
            let bytes = match url.strip_prefix("file://") {
                Some(path) => fs_err::read(path).with_context(place)?,
                None => network.get(&Request::new(url, LIMIT)).and_then(crate::http::Answer::ok).with_context(place)?,
            };
            // Armoured keys may have text before them.
            match std::str::from_utf8(&bytes) {
                Ok(text) if text.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") => {
                    all.extend(unarmour(text).with_context(place)?);
                }
                _ => all.extend(bytes),
            }
        }
        Ok(if urls.is_empty() { None } else { Some(Self(all)) })
    }

    /// Checks a detached signature; the fingerprint of its (primary) key.
    pub(super) fn verify(&self, signature: &[u8], signed: &[u8], scratch: &Path) -> anyhow::Result<String> {
        let home = tempfile::Builder::new().prefix("gpgv-").tempdir_in(scratch)?;
        let file = |name: &str, content: &[u8]| -> anyhow::Result<PathBuf> {
            let path = home.path().join(name);
            fs_err::write(&path, content)?;
            Ok(path)
        };
        let mut arguments: Vec<PathBuf> =
            ["--homedir".into(), home.path().into(), "--status-fd".into(), "1".into()].into();
        arguments.extend(["--weak-digest".into(), "SHA1".into(), "--keyring".into(), file("keys.gpg", &self.0)?]);
        arguments.extend(["--".into(), file("signature", signature)?, file("signed", signed)?]);
        let finished = process::run("gpgv", "gpgv", &arguments)?;
        signer(&String::from_utf8_lossy(&finished.stdout)).ok_or_else(|| {
            Failure::new(format!("no good signature by a key of its .repo file (gpgv: {})", finished.tail()))
                .hint("it was changed on its way, or the repository has a new key: check `gpgkey`")
                .into()
        })
    }

    /// Checks a downloaded package: its header is signed, and its payload is the one that the header names.
    pub(super) fn check_package(&self, package: &Package, path: &Path, scratch: &Path) -> anyhow::Result<String> {
        self.checked_package(package, path, scratch)
            .with_context(|| Failure::new(format!("the package `{}` is refused", package.label())))
    }

    fn checked_package(&self, package: &Package, path: &Path, scratch: &Path) -> anyhow::Result<String> {
        let mut file = std::io::BufReader::new(fs_err::File::open(path)?);
        let head = Head::read(&mut file)?;
        let signature = head.header_signature()?.ok_or_else(|| {
            Failure::new("it has no signature, and its .repo file says `gpgcheck=1`")
                .hint("packages that are not signed are taken only with `gpgcheck=0` and a signed index")
        })?;
        let key = self.verify(signature, head.signed_bytes(), scratch)?;
        let (name, evr, arch) = (head.name()?, head.evr()?, head.arch()?);
        if *name != *package.name || evr.to_string() != package.evr.to_string() || *arch != *package.arch {
            let text = format!("the file is the package `{name}-{evr}.{arch}`, not the one that the index describes");
            return Err(Failure::new(text).into());
        }
        let expected = head.payload_sha256()?.context("its header does not name the payload's SHA-256")?;
        let mut payload = Hashing::new(&mut file);
        std::io::copy(&mut payload.by_ref(), &mut std::io::sink())?;
        let (_, found, _) = payload.finish();
        if found.hex() != expected {
            return Err(
                Failure::new(format!("its payload is {}, its signed header says {expected}", found.hex())).into()
            );
        }
        Ok(key)
    }
}
