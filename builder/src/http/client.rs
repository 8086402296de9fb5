//! One question and its answer's head: TLS, proxies, redirects, authorization.
//!
//! Proxies come from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`). An authorization goes to the server it is
//! for; a redirect to another host, port or scheme loses it, and nothing that follows a redirect is ever answered with one.

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;

use super::address::{server, shown};
use super::trouble::{Attempt, Trouble, lasting};
use super::{Authorization, Form, Login, Network, patience};
use crate::failure::Failure;

/// A server that takes longer to accept a connection is not there.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);

/// One question.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) url: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) authorization: Option<&'a Authorization>,
    pub(super) login: Option<&'a dyn Login>,
    pub(super) form: Option<&'a Form>,
}

impl Network {
    /// Asks once, or twice if the server demands a login. Answers that another attempt may better are errors.
    pub(super) fn ask(&self, question: &Question<'_>) -> Attempt<Response> {
        let url = question.url;
        if let Some(server) = server(url) {
            while let Some(rest) = self.hosts.resting(&server) {
                std::thread::sleep(rest + Duration::from_millis(1));
            }
        }
        let login = |challenge: Option<&str>| match question.login {
            Some(login) => login.authorization(self, url, challenge).map_err(Trouble::Lasting),
            None => Ok(None),
        };
        let known = match question.authorization {
            Some(authorization) => Some(authorization.clone()),
            None => login(None)?,
        };
        let mut response = self.send(question, known.as_ref())?;
        if response.status() == StatusCode::UNAUTHORIZED && server(response.url().as_str()) == server(url) {
            let challenges = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
            let challenges: Vec<&str> = challenges.filter_map(|value| value.to_str().ok()).collect();
            if let Some(authorization) = login(Some(&challenges.join(", ")))? {
                response = self.send(question, Some(&authorization))?;
            }
        }
        if response.headers().get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity") {
            let text = "answered with an encoded body: its bytes would not be the artifact's";
            return Err(lasting(format!("`{}` {text}", shown(url))));
        }
        let status = response.status();
        if !is_passing(status) {
            return Ok(response);
        }
        let wish = patience::wish(response.headers());
        if let (Some(wish), Some(server)) = (wish.filter(|wish| *wish <= patience::LONGEST_WISH), server(url)) {
            self.hosts.rest(&server, wish);
        }
        Err(Trouble::Passing(Failure::new(format!("`{}` answered {status}", shown(url))).into(), wish))
    }

    fn send(&self, question: &Question<'_>, authorization: Option<&Authorization>) -> Attempt<Response> {
        let mut headers = question.headers.clone();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.header()?);
        }
        let request = match question.form {
            None => self.client()?.get(question.url),
            // What is posted would be posted again to wherever a redirect leads.
            Some(form) => {
                let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
                let client = self.build_client(Policy::none())?;
                client.post(question.url).header(header::CONTENT_TYPE, kind).body(form.encoded())
            }
        };
        request.headers(headers).send().map_err(|error| {
            let lasting = error.is_redirect() || error.is_builder();
            let error =
                anyhow::Error::new(error.without_url()).context(format!("asking for `{}` failed", shown(question.url)));
            if lasting { Trouble::Lasting(error) } else { Trouble::Passing(error, None) }
        })
    }

    /// The HTTP client, made when it is first needed: `--offline` and `file:` need no TLS.
    fn client(&self) -> anyhow::Result<Client> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = self.build_client(Policy::custom(|attempt| {
            let was_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
            if attempt.previous().len() > 10 {
                attempt.error("more than 10 redirects")
            } else if was_https && attempt.url().scheme() != "https" {
                attempt.error("a redirect leads from https to plain http")
            } else {
                attempt.follow()
            }
        }))?;
        *slot = Some(client.clone());
        Ok(client)
    }

    fn build_client(&self, redirects: Policy) -> anyhow::Result<Client> {
        // An error means that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("sealift-builder/", env!("CARGO_PKG_VERSION")))
            .timeout(self.options.stall)
            .connect_timeout(self.options.stall.min(LONGEST_CONNECT))
            .referer(false)
            .redirect(redirects);
        if let Some(path) = &self.options.ca_file {
            let certificates = reqwest::Certificate::from_pem_bundle(&fs_err::read(path)?).unwrap_or_default();
            if certificates.is_empty() {
                return Err(Failure::usage(format!("`{}` holds no PEM certificates", path.display())).into());
            }
            builder = builder.tls_certs_merge(certificates);
        }
        builder.build().with_context(|| {
            Failure::new("cannot prepare TLS").hint("install ca-certificates, or give `--ca-file FILE`")
        })
    }
}

fn is_passing(status: StatusCode) -> bool {
    let asked_too_much =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    asked_too_much || status.is_server_error()
}
