//! Asking all masters at once whether they know this node. Only numeric addresses, only a server that shows a certificate
//! of the pinned authority, never without the token: a stranger is told nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::kubeapi::{Client, Credentials, Distrust, Error, Limits};
use crate::pki::Secret;

/// A bootstrap token may list requests (`system:node-bootstrapper`), so this needs nothing that a joining node has not got.
const QUESTION: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests?limit=1";
/// A master that is there answers at once; one that hangs must not hold the run.
const LIMITS: Limits = Limits { connect: Duration::from_secs(2), total: Duration::from_secs(6), body: 4 << 20 };
/// More than that, and certificates and leases mean different things on both sides.
pub(super) const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// What one master said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It knows the token.
    Welcome,
    /// It knows the token, and the clocks differ by this much (positive: this host is ahead).
    Clock(SignedDuration),
    /// It does not know the token: not yet, or no longer.
    Unknown,
    /// It answers, and cannot serve this node yet.
    NotYet(String),
    /// Its certificate was signed by another authority.
    Stranger(String),
    /// Its certificate is not accepted for another reason: time or address.
    Distrusted(Distrust, String),
    /// It does not answer.
    Silent(String),
}

/// A master and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) said: Said,
}

/// How to ask.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// PEM of the pinned authority.
    pub(super) authority: String,
    pub(super) token: Secret,
    /// This host's clock, read for each answer.
    pub(super) now: Timestamp,
}

/// Asks all at the same time. Ends with the first one that welcomes this node; the others are asked in vain then, and
/// those that have not answered are left out.
pub(super) fn all(masters: &[(String, SocketAddr)], question: &Question) -> Vec<Master> {
    let (sender, answers) = mpsc::channel();
    for (name, address) in masters {
        let (sender, question, name, address) = (sender.clone(), question.clone(), name.clone(), *address);
        std::thread::spawn(move || {
            let said = one(address, &question);
            // Nobody listens any more when another one has answered.
            let _ = sender.send(Master { name, address, said });
        });
    }
    drop(sender);
    let mut found: Vec<Master> = Vec::new();
    for master in answers {
        let enough = master.said == Said::Welcome;
        found.push(master);
        if enough {
            break;
        }
    }
    // In the order of the config, for people.
    found.sort_by_key(|found| masters.iter().position(|(name, _)| *name == found.name));
    found
}

fn one(address: SocketAddr, question: &Question) -> Said {
    let credentials = Credentials::Token(question.token.clone());
    let asked = std::time::Instant::now();
    let answer = Client::new(address, &question.authority, credentials)
        .and_then(|client| client.with_limits(LIMITS).ask(QUESTION));
    let now = question.now + SignedDuration::try_from(asked.elapsed()).unwrap_or_default();
    let answer = match answer {
        Ok(answer) => answer,
        Err(Error::Distrusted(_, Distrust::Authority, text)) => return Said::Stranger(text),
        Err(Error::Distrusted(_, why, text)) => return Said::Distrusted(why, text),
        Err(Error::Connect(_, text)) => return Said::Silent(text),
        Err(error) => return Said::NotYet(error.to_string()),
    };
    match answer.code {
        200 => match answer.time.map(|time| now.duration_since(time)) {
            Some(apart) if apart.abs() > CLOCK_TOLERANCE => Said::Clock(apart),
            _ => Said::Welcome,
        },
        401 => Said::Unknown,
        // The token is known, its rights are not there yet: they are among the first things a new cluster gets.
        403 => Said::NotYet("it has not been given its roles yet".to_owned()),
        code => Said::NotYet(format!("it answers {code}")),
    }
}

/// `m1 (192.0.2.1)`, for messages.
impl std::fmt::Display for Master {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): ", self.name, display(self.address))?;
        match &self.said {
            Said::Welcome => f.write_str("ready"),
            Said::Clock(apart) => write!(f, "its clock differs by {} s", apart.abs().as_secs()),
            Said::Unknown => f.write_str("it does not know this node's token"),
            Said::NotYet(reason) => write!(f, "not ready: {reason}"),
            Said::Stranger(reason) => write!(f, "a certificate of another authority ({reason})"),
            Said::Distrusted(_, reason) => write!(f, "its certificate is not accepted ({reason})"),
            Said::Silent(reason) => write!(f, "no answer ({reason})"),
        }
    }
}

fn display(address: SocketAddr) -> IpAddr {
    address.ip()
}
