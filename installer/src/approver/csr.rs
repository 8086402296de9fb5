//! Certificate signing requests as the apiserver lists them, and the PKCS#10 request inside.
//!
//! The object's user, groups and signer are the apiserver's word; everything in the request itself is the applicant's and
//! is read strictly: one PEM block, nothing after the DER, one subject name of each kind, no extension but subject
//! alternative names, and a signature by the key that is to be certified. What cannot be read is never approved, so that
//! a reader that is more lenient than this one cannot be led to sign something else.

use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::{FromDer as _, Pem, X509Name};

use crate::pki::inspect::SubjectNames;

/// A CertificateSigningRequest object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    /// Object name.
    pub name: String,
    /// When it was made, as the apiserver wrote it.
    pub created: String,
    /// Signer it is meant for.
    pub signer: String,
    /// Who made it.
    pub user: String,
    /// The groups of who made it.
    pub groups: BTreeSet<String>,
    /// Wanted usages.
    pub usages: BTreeSet<String>,
    /// The request, or why it cannot be read.
    pub request: Result<Request, String>,
    /// What has become of it.
    pub state: State,
}

/// What has become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has decided.
    Undecided,
    /// Approved, not yet signed.
    Approved,
    /// Signed.
    Issued,
    /// Denied or failed.
    Refused,
}

/// The PKCS#10 request; its signature has been checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Common name.
    pub common_name: String,
    /// Organization.
    pub organization: String,
    /// DNS names.
    pub names: BTreeSet<String>,
    /// IP addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// E-mail addresses, URIs or names of other kinds are present.
    pub other_names: bool,
}

impl Csr {
    /// Reads an object of `certificates.k8s.io/v1`; `None` if it is none.
    pub fn of_object(object: &Value) -> Option<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let set = |pointer: &str| -> BTreeSet<String> {
            let list = object.pointer(pointer).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let request = text("/spec/request").ok_or_else(|| "there is no request".to_owned()).and_then(|request| {
            let pem = STANDARD.decode(request).map_err(|_| "the request is not base64".to_owned())?;
            Request::of_pem(&pem)
        });
        Some(Self {
            name: text("/metadata/name")?,
            created: text("/metadata/creationTimestamp").unwrap_or_default(),
            signer: text("/spec/signerName")?,
            user: text("/spec/username").unwrap_or_default(),
            groups: set("/spec/groups"),
            usages: set("/spec/usages"),
            request,
            state: State::of_object(object),
        })
    }

    /// The node that a kubelet is, by its user name.
    pub fn node(&self) -> Option<&str> {
        self.user.strip_prefix("system:node:")
    }
}

impl State {
    fn of_object(object: &Value) -> Self {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        let has = |kind: &str| conditions.into_iter().flatten().any(|condition| condition["type"] == kind);
        if has("Denied") || has("Failed") {
            Self::Refused
        } else if object.pointer("/status/certificate").is_some_and(|certificate| !certificate.is_null()) {
            Self::Issued
        } else if has("Approved") {
            Self::Approved
        } else {
            Self::Undecided
        }
    }
}

impl Request {
    /// Reads a request and checks its signature.
    pub fn of_pem(pem: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(pem).map_err(|_| "the request is not PEM")?.trim();
        let alone = text.starts_with("-----BEGIN CERTIFICATE REQUEST-----")
            && text.ends_with("-----END CERTIFICATE REQUEST-----")
            && text.matches("-----BEGIN").count() == 1;
        if !alone {
            return Err("the request is not one PEM block `CERTIFICATE REQUEST`".to_owned());
        }
        let mut blocks = Pem::iter_from_buffer(text.as_bytes());
        let block = blocks.next().and_then(Result::ok).ok_or("the request is not PEM")?;
        Self::of_der(&block.contents)
    }

    fn of_der(der: &[u8]) -> Result<Self, String> {
        let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| "the request is not PKCS#10")?;
        if !rest.is_empty() {
            return Err("the request is followed by something else".to_owned());
        }
        if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&csr.signature_algorithm.algorithm) {
            return Err("the request is signed with SHA-1".to_owned());
        }
        csr.verify_signature().map_err(|_| "the request is not signed by its own key")?;
        let info = &csr.certification_request_info;
        let (common_name, organization) = subject(&info.subject)?;
        let mut names = SubjectNames::default();
        let (mut lists, mut found) = (0, 0);
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
                return Err(format!("the request has an attribute `{}`", attribute.oid));
            };
            lists += 1;
            for extension in &requested.extensions {
                let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() else {
                    return Err(format!("the request has an extension `{}`", extension.oid));
                };
                found += 1;
                names.read(&alternative.general_names);
            }
        }
        if lists > 1 || found > 1 {
            return Err("the request names its alternative names twice".to_owned());
        }
        let SubjectNames { names, addresses, other } = names;
        Ok(Self { common_name, organization, names, addresses, other_names: other })
    }
}

/// The one organization and the one common name of a subject that has nothing else.
fn subject(subject: &X509Name<'_>) -> Result<(String, String), String> {
    let odd = || "its subject is not one organization and one common name".to_owned();
    let one = |mut values: Vec<&str>| values.pop().filter(|_| values.is_empty()).map(str::to_owned).ok_or_else(odd);
    let common_name = one(subject.iter_common_name().filter_map(|value| value.as_str().ok()).collect())?;
    let organization = one(subject.iter_organization().filter_map(|value| value.as_str().ok()).collect())?;
    if subject.iter_attributes().count() != 2 {
        return Err(odd());
    }
    Ok((common_name, organization))
}
