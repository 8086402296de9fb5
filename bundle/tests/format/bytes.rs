//! Every byte of a bundle is under some check: no flipped bit, no shorter file, no longer file is accepted.

use std::io::{self, Read};

use bundle::fake::{self, Fake, Key};
use bundle::{Discard, Error, Reason, Trust, UnverifiedBundle};

fn check(reader: impl Read + Send, trust: &Trust) -> Result<(), Error> {
    UnverifiedBundle::open(reader)?.verify(trust)?.unpack(&mut Discard).map(drop)
}

/// Two signatures, both trusted, so that neither is a stranger's that may be ignored.
fn bundle() -> (Vec<u8>, Trust) {
    let bytes = Fake::new().signed_by(&[Key::Publisher, Key::Other]).bytes().unwrap();
    (bytes, fake::trust(&[Key::Publisher, Key::Other], 2))
}

#[test]
fn a_flip_of_any_byte_is_refused() {
    let (bytes, trust) = bundle();
    check(bytes.as_slice(), &trust).unwrap();
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (mut bytes, trust) = (bytes.clone(), &trust);
            scope.spawn(move || {
                for at in (half..bytes.len()).step_by(2) {
                    let bit = 1 << (at / 2 % 8);
                    bytes[at] ^= bit;
                    let result = check(bytes.as_slice(), trust);
                    assert!(result.is_err_and(|error| error.is_refusal()), "byte {at} may be flipped by {bit:#x}");
                    bytes[at] ^= bit;
                }
            });
        }
    });
}

#[test]
fn a_cut_at_any_length_is_refused_as_truncated() {
    let (bytes, trust) = (Fake::new().bytes().unwrap(), Fake::new().trust());
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (bytes, trust) = (&bytes, &trust);
            scope.spawn(move || {
                for length in (part..bytes.len()).step_by(4) {
                    let error = check(&bytes[..length], trust).unwrap_err();
                    let reason = error.refusal().map(|refusal| refusal.reason);
                    assert_eq!(reason, Some(Reason::Truncated), "length {length}: {error}");
                }
            });
        }
    });
}

#[test]
fn anything_appended_is_refused() {
    let (bytes, trust) = bundle();
    for more in [&b"\0"[..], b"x", &[0; 512], &[0; 9216], &bytes] {
        let error = check(io::Cursor::new([&bytes, more].concat()), &trust).unwrap_err();
        assert_eq!(error.refusal().unwrap().reason, Reason::Trailing);
    }
}

/// Reads as little as possible at a time, with interruptions.
struct Trickle<'a>(&'a [u8], bool);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn one_byte_at_a_time_is_enough() {
    let (bytes, trust) = bundle();
    check(Trickle(&bytes, false), &trust).unwrap();
}

/// Fails after some bytes, like a bad disk.
struct BadDisk<'a>(&'a [u8], usize);

impl Read for BadDisk<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.1);
        if length == 0 && !buffer.is_empty() {
            return Err(io::Error::other("bad disk"));
        }
        self.1 -= length;
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn a_bad_disk_is_not_a_bad_bundle() {
    let (bytes, trust) = bundle();
    for good in (0..bytes.len()).step_by(97) {
        match check(BadDisk(&bytes, good), &trust) {
            Err(Error::Read(error)) => assert_eq!(error.to_string(), "bad disk"),
            other => panic!("{good}: {other:?}"),
        }
    }
}
