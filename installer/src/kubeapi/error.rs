//! What can go wrong with a request, in the apiserver's own words where it gave some.

use std::net::SocketAddr;

use serde_json::Value;

/// Why a server's certificate was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// Another authority signed it: another cluster, or somebody in the middle.
    Authority,
    /// Not valid at this time: it ended, or one of the clocks is wrong.
    Time,
    /// For another address, or not for servers.
    Subject,
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer: the connection, the handshake or the transfer failed.
    #[error("no answer from the apiserver at {0}: {1}")]
    Connect(SocketAddr, String),
    /// It answered with a certificate that was not accepted. Nothing was sent to it.
    #[error("the certificate of {0} is not accepted: {2}")]
    Distrusted(SocketAddr, Distrust, String),
    /// The client's own certificate, key or authority cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// The request would not be valid HTTP.
    #[error("not a path of the API: `{0}`")]
    Path(String),
    /// The answer is not what the API promises.
    #[error("the apiserver's answer cannot be understood: {0}")]
    Content(String),
    /// The apiserver refused.
    #[error("{method} {path}: {code} {reason}: {message}")]
    Status {
        /// HTTP method.
        method: String,
        /// Path of the API.
        path: String,
        /// HTTP status code.
        code: u16,
        /// `reason` of the Status object, such as `AlreadyExists`; may be empty.
        reason: String,
        /// `message` of the Status object, or the start of the body.
        message: String,
    },
}

impl Error {
    /// The HTTP status code, if the apiserver answered at all.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The apiserver's own words; empty when it did not answer.
    pub fn message(&self) -> &str {
        match self {
            Self::Status { message, .. } => message,
            _ => "",
        }
    }

    /// Whether it is the answer to a request of this method.
    pub fn is_of(&self, wanted: &str) -> bool {
        matches!(self, Self::Status { method, .. } if method == wanted)
    }

    /// Whether it may pass by itself: no connection, too many requests, a server that is starting or stopping.
    pub fn passing(&self) -> bool {
        matches!(self, Self::Connect(..) | Self::Distrusted(..)) || matches!(self.code(), Some(429 | 500..=599))
    }

    /// From an error of the stream, which knows whether the handshake or the transfer failed.
    pub(super) fn of_stream(address: SocketAddr, error: &std::io::Error) -> Self {
        use rustls::CertificateError as Problem;
        let found = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let Some(rustls::Error::InvalidCertificate(problem)) = found else {
            return Self::Connect(address, error.to_string());
        };
        let distrust = match problem {
            Problem::Expired
            | Problem::ExpiredContext { .. }
            | Problem::NotValidYet
            | Problem::NotValidYetContext { .. } => Distrust::Time,
            Problem::NotValidForName
            | Problem::NotValidForNameContext { .. }
            | Problem::InvalidPurpose
            | Problem::InvalidPurposeContext { .. } => Distrust::Subject,
            _ => Distrust::Authority,
        };
        Self::Distrusted(address, distrust, error.to_string())
    }

    pub(super) fn of_response(method: &str, path: &str, code: u16, body: &[u8]) -> Self {
        let status: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key: &str| status.get(key).and_then(Value::as_str).map(short);
        Self::Status {
            method: method.to_owned(),
            path: path.to_owned(),
            code,
            reason: text("reason").unwrap_or_default(),
            message: text("message").unwrap_or_else(|| short(&String::from_utf8_lossy(body))),
        }
    }
}

/// The first part of a text from outside, on one line.
fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(600).collect::<String>().trim().to_owned()
}
