//! Certificate authorities: made once, loaded from their two files, used to sign leaves.
//!
//! Each authority signs only for its own purpose (cluster, etcd, front-proxy). Certificates are backdated by 24 hours,
//! because hosts behind an air gap often have clocks that differ; serial numbers are random; no leaf outlives its authority.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};

use super::{Inspection, Leaf, Secret, Usage, inspect, random};

/// How long an authority lasts: 10 years of 365 days and the leap days among them.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3652 * 24 * 3600);
/// How far the start of every certificate lies in the past.
pub const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// The three authorities of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthorityName {
    /// Signs the apiserver, its clients and the kubelets.
    Cluster,
    /// Signs etcd members and etcd clients.
    Etcd,
    /// Signs the aggregator's client certificate and nothing else: whoever holds it can claim any user name.
    FrontProxy,
}

impl AuthorityName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cluster, Self::Etcd, Self::FrontProxy];

    /// Path below the PKI directory without `.crt` or `.key`.
    pub fn stem(self) -> &'static str {
        match self {
            Self::Cluster => "ca",
            Self::Etcd => "etcd/ca",
            Self::FrontProxy => "front-proxy-ca",
        }
    }

    fn common_name(self) -> &'static str {
        match self {
            Self::Cluster => "sealift:cluster-ca",
            Self::Etcd => "sealift:etcd-ca",
            Self::FrontProxy => "sealift:front-proxy-ca",
        }
    }
}

/// A certificate (PEM) and its private key (PKCS#8 PEM, `PRIVATE KEY`, which every Kubernetes version reads).
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: Secret,
}

/// An authority that can sign.
#[derive(Debug)]
pub struct Authority {
    pair: Pair,
    inspection: Inspection,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new self-signed authority of a cluster.
    pub fn create(name: AuthorityName, cluster: &str, now: Timestamp) -> Result<Self> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(name.common_name(), Some(cluster));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, now + AUTHORITY_LIFETIME)?;
        let certificate = params.self_signed(&key).with_context(|| format!("signing {}", name.common_name()))?;
        Self::load(&certificate.pem(), &Secret::new(key.serialize_pem()))
    }

    /// Loads an authority from the text of its two files; the key must belong to the certificate.
    pub fn load(certificate: &str, key: &Secret) -> Result<Self> {
        let inspection = Inspection::of_pem(certificate)?;
        anyhow::ensure!(
            inspection.authority,
            "certificate `{}` is not a certificate authority",
            inspection.common_name
        );
        anyhow::ensure!(
            inspect::key_matches(&inspection, key),
            "the private key does not belong to authority certificate `{}`",
            inspection.common_name
        );
        let pair = KeyPair::from_pem(key.expose()).context("reading an authority's private key")?;
        let issuer = Issuer::from_ca_cert_pem(certificate, pair).context("reading an authority certificate")?;
        Ok(Self { pair: Pair { certificate: certificate.to_owned(), key: key.clone() }, inspection, issuer })
    }

    /// Its certificate and key.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// What its certificate says.
    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// Signs a leaf with a fresh key. It ends after its lifetime, or with the authority if that is sooner.
    pub fn issue(&self, leaf: &Leaf, now: Timestamp) -> Result<Pair> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&leaf.common_name, leaf.organization.as_deref());
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        // P-256 keys sign; they cannot encipher keys, whatever older guides say.
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match leaf.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::ServerAndClient => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        for name in &leaf.names {
            let name = name.as_str().try_into().with_context(|| format!("`{name}` is not a DNS name"))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(leaf.addresses.iter().copied().map(SanType::IpAddress));
        set_validity(&mut params, now, (now + leaf.lifetime).min(self.inspection.not_after))?;
        let certificate =
            params.signed_by(&key, &self.issuer).with_context(|| format!("signing {}", leaf.common_name))?;
        Ok(Pair { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()) })
    }
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("making an ECDSA P-256 key")
}

fn distinguished_name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, not_after: Timestamp) -> Result<()> {
    let since_epoch = |time: Timestamp| {
        u64::try_from(time.as_second()).map(Duration::from_secs).context("the clock is before 1970: set the time first")
    };
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now - BACKDATE)?;
    params.not_after = epoch + since_epoch(not_after)?;
    let mut serial = random::<16>()?;
    // RFC 5280 4.1.2.2: positive, at most 20 octets; a clear top bit and a set one below keep the length the same.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}
