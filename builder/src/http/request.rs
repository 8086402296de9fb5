//! Small answers in memory: tokens, registry manifests, lists of checksums. Nothing of them is kept in the cache.

use std::io::Read as _;
use std::sync::Arc;

use anyhow::Context as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::address::{mirrored, server, shown};
use super::client::Question;
use super::pace::Paced;
use super::patience::Patience;
use super::trouble::{Attempt, Trouble, lasting};
use super::{Authorization, Form, Login, Network, Unreachable};
use crate::failure::Failure;

/// A request whose answer is held in memory: GET, or POST of a form.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked for, before mirrors.
    pub url: String,
    /// More headers: names and values.
    pub headers: Vec<(String, String)>,
    /// For the server of `url` alone.
    pub authorization: Option<Authorization>,
    /// Finds the authorization for the servers of `url` and its mirrors.
    pub login: Option<Arc<dyn Login>>,
    /// What is posted, to the server of `url` alone: neither mirrors nor redirects get it.
    pub form: Option<Form>,
    /// Most bytes of the body.
    pub limit: u64,
}

/// What a server answered, whatever the status; those that another attempt may better (429, 5xx) are errors instead.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The address that was asked: a mirror of the request's, or itself.
    pub url: String,
    /// Status code.
    pub status: u16,
    /// Names in lower case and values, as far as those are text.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A request for at most `limit` bytes, without more headers or authorization.
    pub fn new(url: impl Into<String>, limit: u64) -> Self {
        Self { url: url.into(), headers: Vec::new(), authorization: None, login: None, form: None, limit }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn header_map(&self) -> anyhow::Result<HeaderMap> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().with_context(|| format!("`{name}` is not the name of a header"))?;
            let value: HeaderValue = value.parse().with_context(|| format!("header `{name}` has a wrong value"))?;
            map.append(name, value);
        }
        Ok(map)
    }
}

impl Answer {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body of an answer 200; an error for every other status.
    pub fn ok(self) -> anyhow::Result<Vec<u8>> {
        match self.status {
            200 => Ok(self.body),
            status => Err(Failure::new(format!("`{}` answered {status}", shown(&self.url))).into()),
        }
    }
}

impl Network {
    /// Asks and waits for the whole answer. Another mirror is asked after one that is not reached or answers 404 or 410; not
    /// counted among the downloads of a host. Fails with [`Unreachable`] when no server answers.
    pub fn get(&self, request: &Request) -> anyhow::Result<Answer> {
        let context = || format!("cannot read `{}`", shown(&request.url));
        if self.options.offline {
            let error = Failure::new("the network may not be used").hint("run without `--offline`");
            return Err(anyhow::Error::new(error).context(Unreachable).context(context()));
        }
        let headers = request.header_map()?;
        let mut last: Option<anyhow::Result<Answer>> = None;
        let addresses = match request.form {
            Some(_) => vec![request.url.clone()],
            None => mirrored(&request.url, &self.options.mirrors),
        };
        for url in addresses {
            if let Some(Err(error)) = last {
                self.output.warning(&format!("{error:#}; trying the next address"));
            }
            let own = request.authorization.as_ref().filter(|_| server(&url) == server(&request.url));
            let login = request.login.as_deref();
            let result = self.get_from(
                &Question {
                    url: &url,
                    headers: headers.clone(),
                    authorization: own,
                    login,
                    form: request.form.as_ref(),
                },
                request.limit,
            );
            match result {
                Ok(answer) if !matches!(answer.status, 404 | 410) => return Ok(answer),
                result => last = Some(result),
            }
        }
        last.unwrap_or_else(|| Err(Failure::new("no address is known").into())).with_context(context)
    }

    fn get_from(&self, question: &Question<'_>, limit: u64) -> anyhow::Result<Answer> {
        if let Some(path) = question.url.strip_prefix("file://") {
            return file(question.url, path, limit);
        }
        let server = server(question.url);
        // As for downloads: who was lost is asked once more, in case it is back, and not waited for.
        let lost = server.as_ref().is_some_and(|server| self.hosts.is_lost(server));
        let mut patience = Patience::new(self.options.pause, if lost { 0 } else { self.options.retries });
        loop {
            let (error, wish) = match self.get_once(question, limit) {
                Ok(answer) => {
                    if let Some(server) = &server {
                        self.hosts.find(server);
                    }
                    return Ok(answer);
                }
                Err(Trouble::Lasting(error) | Trouble::Local(error)) => return Err(error),
                Err(Trouble::Passing(error, wish)) => (error, wish),
            };
            let Some(pause) = patience.next(wish) else {
                if let Some(server) = &server {
                    self.hosts.lose(server);
                }
                return Err(error.context(Unreachable));
            };
            self.output.warning(&format!("{error:#}; trying again"));
            std::thread::sleep(pause);
        }
    }

    fn get_once(&self, question: &Question<'_>, limit: u64) -> Attempt<Answer> {
        let response = self.ask(question)?;
        let (url, status) = (question.url.to_owned(), response.status().as_u16());
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let headers = response.headers().iter();
        let headers = headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?))).collect();
        let announced = response.content_length();
        let mut body = Vec::new();
        let cut = |error| {
            Trouble::Passing(
                anyhow::Error::new(error).context(format!("the answer of `{}` was cut", shown(&url))),
                None,
            )
        };
        Paced::new(response, self.options.stall).take(limit.saturating_add(1)).read_to_end(&mut body).map_err(cut)?;
        let size = body.len() as u64;
        if size > limit || announced.is_some_and(|announced| announced > limit) {
            return Err(lasting(format!("`{}` answers with more than {limit} bytes", shown(&url))));
        }
        Ok(Answer { url, status, headers, body })
    }
}

/// A mirror that is a directory: a missing file is its 404.
fn file(url: &str, path: &str, limit: u64) -> anyhow::Result<Answer> {
    let mut body = Vec::new();
    let status = match fs_err::File::open(path) {
        Ok(file) => file.take(limit.saturating_add(1)).read_to_end(&mut body).map(|_| 200)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 404,
        Err(error) => return Err(error.into()),
    };
    if body.len() as u64 > limit {
        return Err(Failure::new(format!("`{path}` has more than {limit} bytes")).into());
    }
    Ok(Answer { url: url.to_owned(), status, headers: Vec::new(), body })
}
