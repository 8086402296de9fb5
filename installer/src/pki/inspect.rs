//! Reading certificates back: what one says, and whether it is still the one that is wanted.
//!
//! [`decide`] is what makes the PKI step idempotent: a certificate is kept as long as it is signed by the present
//! authority, belongs to its key, says what the table says and has more than a third of its life left.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData as _};
use x509_parser::prelude::{FromDer as _, GeneralName, Pem, X509Certificate};

use super::{Leaf, Secret, Usage};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Subject common name; empty if there is none.
    pub common_name: String,
    /// Subject organizations.
    pub organizations: BTreeSet<String>,
    /// DNS names.
    pub names: BTreeSet<String>,
    /// IP addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Names of other kinds are present (e-mail, URI, …).
    pub other_names: bool,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// It may sign certificates.
    pub authority: bool,
    /// Extended key usage; `None` if it names neither servers nor clients.
    pub usage: Option<Usage>,
    der: Vec<u8>,
    public_key: Vec<u8>,
}

/// What to do with a certificate file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is as wanted.
    Keep,
    /// It has to be made anew, for this reason.
    Renew(String),
}

impl Inspection {
    /// Reads the first certificate of a PEM file; other blocks (keys) may stand around it.
    pub fn of_pem(text: &str) -> Result<Self> {
        for block in Pem::iter_from_buffer(text.as_bytes()) {
            let block = block.map_err(|error| anyhow!("reading PEM: {error}"))?;
            if block.label == "CERTIFICATE" {
                return Self::of_der(&block.contents);
            }
        }
        Err(anyhow!("no certificate in the file"))
    }

    /// Reads a certificate.
    pub fn of_der(der: &[u8]) -> Result<Self> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| anyhow!("reading a certificate: {error}"))?;
        anyhow::ensure!(rest.is_empty(), "reading a certificate: {} bytes follow it", rest.len());
        let text = |value: Result<&str, _>| value.map(str::to_owned).unwrap_or_default();
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next().map(|name| text(name.as_str())).unwrap_or_default();
        let organizations = subject.iter_organization().map(|name| text(name.as_str())).collect();
        let mut names = SubjectNames::default();
        if let Some(extension) = certificate.subject_alternative_name().context("reading subject alternative names")? {
            names.read(&extension.value.general_names);
        }
        let usage = certificate.extended_key_usage().context("reading the extended key usage")?;
        let time = |seconds| Timestamp::from_second(seconds).context("reading the validity of a certificate");
        Ok(Self {
            common_name,
            organizations,
            names: names.names,
            addresses: names.addresses,
            other_names: names.other,
            not_before: time(certificate.validity().not_before.timestamp())?,
            not_after: time(certificate.validity().not_after.timestamp())?,
            authority: certificate.is_ca(),
            usage: usage.and_then(|usage| match (usage.value.server_auth, usage.value.client_auth) {
                (true, true) => Some(Usage::ServerAndClient),
                (true, false) => Some(Usage::Server),
                (false, true) => Some(Usage::Client),
                (false, false) => None,
            }),
            public_key: certificate.public_key().raw.to_vec(),
            der: der.to_vec(),
        })
    }

    /// Whether an authority signed it.
    pub fn signed_by(&self, authority: &Inspection) -> bool {
        let (Ok((_, leaf)), Ok((_, issuer))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&authority.der))
        else {
            return false;
        };
        leaf.issuer() == issuer.subject() && leaf.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// SHA-256 of the certificate's public key (SPKI): what a `--ca-pin` names.
    pub fn public_key_pin(&self) -> bundle::Digest {
        bundle::Digest::of(&self.public_key)
    }
}

/// Subject alternative names sorted by kind; shared with the reading of certificate requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubjectNames {
    pub(crate) names: BTreeSet<String>,
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) other: bool,
}

impl SubjectNames {
    pub(crate) fn read(&mut self, general_names: &[GeneralName<'_>]) {
        for name in general_names {
            match name {
                GeneralName::DNSName(name) => {
                    self.names.insert((*name).to_owned());
                }
                GeneralName::IPAddress(bytes) => match ip_address(bytes) {
                    Some(address) => {
                        self.addresses.insert(address);
                    }
                    None => self.other = true,
                },
                _ => self.other = true,
            }
        }
    }
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Whether a private key (PKCS#8 PEM) belongs to a certificate.
pub(crate) fn key_matches(certificate: &Inspection, key: &Secret) -> bool {
    KeyPair::from_pem(key.expose()).is_ok_and(|key| key.subject_public_key_info() == certificate.public_key)
}

/// Decides whether a certificate file can stay. `certificate` and `key` are the files' texts, if they exist.
pub fn decide(
    leaf: &Leaf,
    certificate: Option<&str>,
    key: Option<&Secret>,
    authority: &Inspection,
    now: Timestamp,
) -> Decision {
    match reason_to_renew(leaf, certificate, key, authority, now) {
        Some(reason) => Decision::Renew(reason),
        None => Decision::Keep,
    }
}

fn reason_to_renew(
    leaf: &Leaf,
    certificate: Option<&str>,
    key: Option<&Secret>,
    authority: &Inspection,
    now: Timestamp,
) -> Option<String> {
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return Some("it does not exist".to_owned());
    };
    let Ok(found) = Inspection::of_pem(certificate) else {
        return Some("the certificate cannot be read".to_owned());
    };
    if !key_matches(&found, key) {
        return Some("certificate and key do not belong together".to_owned());
    }
    if !found.signed_by(authority) {
        return Some(format!("it is not signed by `{}`", authority.common_name));
    }
    if found.common_name != leaf.common_name || found.organizations != leaf.organization.clone().into_iter().collect() {
        return Some(format!("its subject is `{}`, not `{}`", found.common_name, leaf.common_name));
    }
    if found.names != leaf.names || found.addresses != leaf.addresses || found.other_names {
        return Some("its names and addresses are not those of the config".to_owned());
    }
    if found.usage != Some(leaf.usage) || found.authority {
        return Some("its key usage is not the wanted one".to_owned());
    }
    if found.not_before > now {
        return Some(format!("it is not valid before {}", found.not_before));
    }
    if found.not_after <= now {
        return Some(format!("it expired on {}", found.not_after));
    }
    let left = Duration::try_from(found.not_after.duration_since(now)).unwrap_or_default();
    // A certificate that ends with its authority cannot be made to last longer.
    if left <= leaf.lifetime / 3 && found.not_after < authority.not_after {
        return Some(expires(found.not_after));
    }
    None
}

/// The reason to renew a certificate of which nothing else is wrong than its age.
pub(crate) fn expires(at: Timestamp) -> String {
    format!("it expires on {at}")
}
