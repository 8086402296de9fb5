//! What proves to a server who we are: never printed, never sent to any host but the one it is for.

use std::fmt;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderValue;

use super::Network;

/// The value of an `Authorization` header. Its secret never shows in messages.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    /// User and password (RFC 7617).
    Basic {
        /// User.
        user: String,
        /// Password, or a token that stands for one.
        password: String,
    },
    /// A token (RFC 6750).
    Bearer(String),
}

/// Fields of a form, some of them secret: never printed, and sent to one server without following it anywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Form(String);

impl Form {
    /// A form with these names and values.
    pub fn new(fields: &[(&str, &str)]) -> Self {
        // The encoding of a form is that of a query (WHATWG URL, 5.2).
        let mut url = reqwest::Url::parse("http://form/").ok();
        if let Some(url) = &mut url {
            url.query_pairs_mut().extend_pairs(fields);
        }
        Self(url.as_ref().and_then(reqwest::Url::query).unwrap_or_default().to_owned())
    }

    /// As it is sent.
    pub(super) fn encoded(&self) -> String {
        self.0.clone()
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form(..)")
    }
}

/// Finds the authorization for a server: what a registry needs, whose tokens are asked for when it demands them.
pub trait Login: fmt::Debug + Send + Sync {
    /// The authorization for a request to `url`; called before the first request without a `challenge`, and once more with
    /// the server's `WWW-Authenticate` if that answered 401. Never called for the target of a redirect.
    fn authorization(
        &self,
        network: &Network,
        url: &str,
        challenge: Option<&str>,
    ) -> anyhow::Result<Option<Authorization>>;
}

impl Authorization {
    /// As the header says it, marked so that no library logs it.
    pub(super) fn header(&self) -> anyhow::Result<HeaderValue> {
        let text = match self {
            Self::Basic { user, password } => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
            }
            Self::Bearer(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text)
            .ok()
            .context("a token or password has characters that no HTTP header may carry")?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => f.debug_struct("Basic").field("user", user).finish_non_exhaustive(),
            Self::Bearer(_) => f.write_str("Bearer(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let basic = Authorization::Basic { user: "u".into(), password: "secret".into() };
        let bearer = Authorization::Bearer("secret".into());
        let shown = format!("{basic:?} {bearer:?} {:?} {:?}", basic.header().unwrap(), bearer.header().unwrap());
        assert!(!shown.contains("secret") && !shown.contains("dTpzZWNyZXQ"), "{shown}");
        assert_eq!(basic.header().unwrap(), "Basic dTpzZWNyZXQ=");
        assert!(Authorization::Bearer("a\r\nHost: x".into()).header().is_err());
        let form = Form::new(&[("grant_type", "refresh_token"), ("refresh_token", "se=cr&et /")]);
        assert_eq!(form.encoded(), "grant_type=refresh_token&refresh_token=se%3Dcr%26et+%2F");
        assert_eq!(format!("{form:?}"), "Form(..)");
    }
}
