//! Every hostile bundle is refused, by the rule it breaks, from any kind of reader.

use std::io::Read;

use bundle::fake::{self, Fake, Hostile};
use bundle::{Discard, Error, Trust, UnverifiedBundle};

fn check(reader: impl Read + Send, trust: &Trust) -> Result<(), Error> {
    UnverifiedBundle::open(reader)?.verify(trust)?.unpack(&mut Discard).map(drop)
}

#[test]
fn every_crime_is_refused_by_its_rule() {
    let trust = Fake::new().trust();
    let museum = fake::hostile().unwrap();
    assert!(museum.len() > 300, "{}", museum.len());
    let mut wrong = Vec::new();
    for Hostile { name, bytes, reason } in &museum {
        match check(bytes.as_slice(), &trust) {
            Err(Error::Refused(refusal)) if refusal.reason == *reason => {}
            Err(other) => wrong.push(format!("{name}: expected {reason:?}: {other:?}")),
            Ok(()) => wrong.push(format!("{name}: accepted")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), museum.len(), wrong.join("\n"));
}
