//! Signatures: what `gpgv` says about one, and keys as it reads them. Exactly the given keys count, and only strong hashes.

use anyhow::Context as _;
use base64::Engine as _;

/// SHA-256, SHA-384 and SHA-512 (RFC 9580, 9.5); for older ones colliding texts can be made.
const STRONG_HASHES: [&str; 3] = ["8", "9", "10"];

/// The primary fingerprint of a good signature with a strong hash, if there is one and no bad one (gnupg's doc/DETAILS).
///
/// A signature by a key that the keyring lacks (`ERRSIG … 9`) counts for nothing and against nothing: archives sign with
/// several generations of keys.
pub(super) fn signer(status: &str) -> Option<String> {
    let words =
        |line: &str| line.strip_prefix("[GNUPG:] ").map(|rest| rest.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let mut good = false;
    let mut key = None;
    for line in status.lines().filter_map(words) {
        match line.first().map(String::as_str) {
            Some("BADSIG" | "EXPSIG" | "EXPKEYSIG" | "REVKEYSIG" | "FAILURE" | "NODATA" | "UNEXPECTED") => return None,
            Some("ERRSIG") if line.get(6).map(String::as_str) != Some("9") => return None,
            Some("GOODSIG") => good = true,
            // VALIDSIG FPR DATE STAMP EXPIRES VERSION RESERVED PUBKEY HASH CLASS PRIMARY
            Some("VALIDSIG") => match line.get(8).map(String::as_str) {
                Some(hash) if STRONG_HASHES.contains(&hash) => key = key.or_else(|| line.get(10).cloned()),
                _ => return None,
            },
            _ => {}
        }
    }
    key.filter(|_| good)
}

/// The bytes inside ASCII armour (RFC 9580, 6.2); several blocks are joined.
pub(super) fn unarmour(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for block in text.split("-----BEGIN PGP PUBLIC KEY BLOCK-----").skip(1) {
        let (block, _) = block.split_once("-----END").context("an armoured key has no end")?;
        let lines = block.lines().map(str::trim).skip(1).skip_while(|line| line.contains(": "));
        let body: String = lines.filter(|line| !line.starts_with('=')).collect();
        bytes.extend(base64::engine::general_purpose::STANDARD.decode(body).context("an armoured key is not base64")?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_signature_counts() {
        let valid = "[GNUPG:] GOODSIG A Name\n[GNUPG:] VALIDSIG SUB 2025-01-01 1 0 4 0 1 8 01 PRIMARY\n";
        assert_eq!(signer(valid).as_deref(), Some("PRIMARY"));
        assert_eq!(
            signer(&format!("{valid}[GNUPG:] ERRSIG B 1 8 01 2 9 FPR\n[GNUPG:] NO_PUBKEY B\n")).as_deref(),
            Some("PRIMARY")
        );
        for bad in ["[GNUPG:] BADSIG A Name\n", "[GNUPG:] EXPKEYSIG A Name\n", "[GNUPG:] ERRSIG B 1 8 01 2 4 FPR\n"] {
            assert_eq!(signer(&format!("{valid}{bad}")), None, "{bad}");
        }
        assert_eq!(signer(""), None);
        for (hash, strong) in
            [("8", true), ("9", true), ("10", true), ("1", false), ("2", false), ("3", false), ("", false)]
        {
            let text = valid.replace(" 1 8 01 ", &format!(" 1 {hash} 01 "));
            assert_eq!(signer(&text).is_some(), strong, "hash algorithm {hash}");
        }
        // Of two signatures none may be weak.
        assert_eq!(signer(&format!("{valid}{}", valid.replace(" 1 8 01 ", " 1 2 01 "))), None);
    }
}
