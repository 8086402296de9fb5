//! SHA-512 digests: what some upstreams publish beside or instead of SHA-256. The bundle itself knows SHA-256 alone.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest as _, Sha512 as Hasher};

use crate::failure::Failure;

/// A digest of 64 bytes, written as 128 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha512([u8; 64]);

/// Hashes what is written to it.
#[derive(Clone, Debug, Default)]
pub struct Hashing(Hasher);

impl Sha512 {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Hasher::digest(bytes).into())
    }

    /// Of a file's content.
    pub fn of_file(path: &Path) -> std::io::Result<Self> {
        let mut hashing = Hashing::default();
        std::io::copy(&mut fs_err::File::open(path)?, &mut hashing)?;
        Ok(hashing.finish())
    }
}

impl Hashing {
    /// The digest of all that was written.
    pub fn finish(self) -> Sha512 {
        Sha512(self.0.finalize().into())
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Sha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha512:{self}")
    }
}

impl FromStr for Sha512 {
    type Err = Failure;

    /// 128 hex digits, of either case, with or without `sha512:` before them.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || Failure::usage(format!("`{text}` is not a SHA-512 digest")).hint("it has 128 hex digits");
        let digits = text.strip_prefix("sha512:").unwrap_or(text).as_bytes();
        let mut bytes = [0; 64];
        if digits.len() != 2 * bytes.len() {
            return Err(wrong());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair =
                std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong)?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        // FIPS 180-4, the example "abc".
        let abc = Sha512::of(b"abc");
        assert!(abc.to_string().starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(abc.to_string().to_uppercase().parse::<Sha512>().unwrap(), abc);
        assert_eq!(format!("{abc:?}").parse::<Sha512>().unwrap(), abc);
        for wrong in ["", "ddaf", &format!("+{}", &abc.to_string()[1..]), &format!("{abc}0")] {
            assert!(wrong.parse::<Sha512>().is_err(), "{wrong}");
        }
        let mut hashing = Hashing::default();
        hashing.write_all(b"abc").unwrap();
        assert_eq!(hashing.finish(), abc);
    }
}
