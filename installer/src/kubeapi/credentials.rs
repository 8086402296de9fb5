//! Who the client is and whom it trusts, as a rustls configuration.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::Error;
use crate::host::Host;
use crate::pki::{Pair, Secret};

/// How the client proves who it is.
#[derive(Debug)]
pub enum Credentials<'a> {
    /// Not at all.
    Anonymous,
    /// With a bearer token (a bootstrap token: `id.secret`).
    Token(Secret),
    /// With a certificate that is only in memory.
    Memory(Pair),
    /// With a certificate and key in files, read again before each request; both may be the same file.
    Files {
        /// The door to the files.
        host: &'a Host,
        /// PEM file with the certificate.
        certificate: PathBuf,
        /// PEM file with the private key.
        key: PathBuf,
    },
}

/// Credentials and pinned authority; the rustls configuration is made anew when the credentials have changed.
#[derive(Debug)]
pub(super) struct Tls<'a> {
    roots: Arc<RootCertStore>,
    credentials: Credentials<'a>,
    made: Mutex<Option<Made>>,
}

#[derive(Debug)]
struct Made {
    certificate: String,
    key: Secret,
    config: Arc<ClientConfig>,
}

impl<'a> Tls<'a> {
    pub(super) fn new(authority: &str, credentials: Credentials<'a>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            certificate
                .map_err(|error| error.to_string())
                .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
                .map_err(|error| Error::Credentials(format!("reading the authority's certificate: {error}")))?;
        }
        if roots.is_empty() {
            return Err(Error::Credentials("reading the authority's certificate: there is none".to_owned()));
        }
        Ok(Self { roots: Arc::new(roots), credentials, made: Mutex::new(None) })
    }

    /// The token that requests carry, if that is how the client proves who it is.
    pub(super) fn bearer(&self) -> Option<&Secret> {
        match &self.credentials {
            Credentials::Token(token) => Some(token),
            _ => None,
        }
    }

    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        let (certificate, key) = match &self.credentials {
            Credentials::Anonymous | Credentials::Token(_) => (String::new(), Secret::new(String::new())),
            Credentials::Memory(pair) => (pair.certificate.clone(), pair.key.clone()),
            Credentials::Files { host, certificate, key } => {
                let read = |path: &PathBuf| match host.read_text(path) {
                    Ok(Some(text)) => Ok(text),
                    Ok(None) => Err(Error::Credentials(format!("`{}` does not exist", path.display()))),
                    Err(error) => Err(Error::Credentials(format!("{error:#}"))),
                };
                (read(certificate)?, Secret::new(read(key)?))
            }
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| made.certificate == certificate && made.key == key) {
            return Ok(Arc::clone(&made.config));
        }
        let config = Arc::new(self.build(&certificate, &key)?);
        *made = Some(Made { certificate, key, config: Arc::clone(&config) });
        Ok(config)
    }

    fn build(&self, certificate: &str, key: &Secret) -> Result<ClientConfig, Error> {
        let problem = |error: String| Error::Credentials(format!("reading the client's certificate: {error}"));
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| problem(error.to_string()))?
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match self.credentials {
            Credentials::Anonymous | Credentials::Token(_) => builder.with_no_client_auth(),
            Credentials::Memory(_) | Credentials::Files { .. } => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| problem(error.to_string()))?;
                let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
                    .map_err(|error| problem(error.to_string()))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| problem(error.to_string()))?
            }
        };
        // Every connection shows its certificate anew; a session ticket would outlive it.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}
