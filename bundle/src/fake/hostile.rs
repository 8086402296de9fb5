//! The museum: one bundle per crime, with the rule it must be refused by.

use std::path::{Path, PathBuf};

use base64::Engine as _;

use super::forge::{Raw, split, tar};
use super::{Fake, Key, Region, forged, regions};
use crate::archive::blob_name;
use crate::digest::Digest;
use crate::error::{Error, Reason};
use crate::limit::{JSON_LIMIT, SIGNATURES_LIMIT};
use crate::name::Architecture;
use crate::sign::Signature;
use crate::ustar::{self, BLOCK, END};

/// A bundle that must be refused.
#[derive(Clone)]
pub struct Hostile {
    /// What is wrong, usable as a file name.
    pub name: String,
    /// The bundle.
    pub bytes: Vec<u8>,
    /// The rule it breaks.
    pub reason: Reason,
}

impl std::fmt::Debug for Hostile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hostile({}, {:?}, {} bytes)", self.name, self.reason, self.bytes.len())
    }
}

/// All bundles that a reader which trusts [`Key::Publisher`] must refuse.
pub fn hostile() -> Result<Vec<Hostile>, Error> {
    let mut all = Vec::new();
    let good = Fake::new().bytes()?;
    damaged(&mut all, &good)?;
    entries(&mut all, &good)?;
    signatures(&mut all, &good)?;
    forged::layers(&mut all)?;
    forged::frames(&mut all)?;
    forged::lists(&mut all)?;
    forged::descriptions(&mut all)?;
    Ok(all)
}

/// Bundles that are in order, but that an installer refuses on an amd64 host that has accepted `Fake::new()` (name
/// `fake-1.0`, sequence 2): another architecture, a lower sequence, the same sequence with other content.
pub fn refused_by_installers() -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    Ok(vec![
        ("wrong-architecture", Fake::new().architecture(Architecture::Arm64).bytes()?),
        ("lower-sequence", Fake::new().sequence(1).bytes()?),
        ("same-sequence-other-index", Fake::new().marker("other").bytes()?),
        ("other-release-line", Fake::new().name("kubernetes-1.37").sequence(9).bytes()?),
    ])
}

/// Writes bundles into a directory as `NAME.bundle`.
pub fn write_all(directory: &Path, bundles: &[Hostile]) -> Result<Vec<PathBuf>, Error> {
    let write = |bundle: &Hostile| {
        let path = directory.join(format!("{}.bundle", bundle.name));
        fs_err::write(&path, &bundle.bytes).map_err(Error::Write).map(|()| path)
    };
    bundles.iter().map(write).collect()
}

pub(super) fn add(all: &mut Vec<Hostile>, name: impl Into<String>, reason: Reason, bytes: Vec<u8>) {
    all.push(Hostile { name: name.into(), bytes, reason });
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Flips, truncations, appended bytes.
fn damaged(all: &mut Vec<Hostile>, good: &[u8]) -> Result<(), Error> {
    let flip = |offset: usize| {
        let mut bytes = good.to_vec();
        bytes[offset] ^= 1;
        bytes
    };
    let regions = regions(&mut std::io::Cursor::new(good)).map_err(Error::Read)?;
    for (number, Region { name, header, content, size }) in regions.iter().enumerate() {
        let label = format!("{number:02}-{}", name.rsplit('/').next().unwrap_or(name).get(..12).unwrap_or(name));
        let wrong_content = match name.as_str() {
            "oci-layout" => Reason::Metadata,
            name if name.starts_with("index.json") => Reason::Signature,
            _ => Reason::Digest,
        };
        for (part, offset) in [("name", 0), ("mode", 105), ("owner", 114), ("checksum", 150), ("end", 511)] {
            add(all, format!("flip-{label}-header-{part}"), Reason::Header, flip(at(header + offset)));
        }
        for (part, offset) in [("first", 0), ("middle", size / 2), ("last", size - 1)] {
            add(all, format!("flip-{label}-{part}"), wrong_content, flip(at(content + offset)));
        }
        if ustar::padding(*size) > 0 {
            add(all, format!("flip-{label}-padding"), Reason::Header, flip(at(content + size)));
        }
        for (part, offset) in [("header", *header), ("content", *content), ("middle", content + size / 2)] {
            add(all, format!("cut-{label}-{part}"), Reason::Truncated, good[..at(offset)].to_vec());
        }
    }
    let end = good.len() - END;
    add(all, "flip-end-first", Reason::Header, flip(end));
    add(all, "flip-end-last", Reason::Header, flip(good.len() - 1));
    add(all, "cut-end", Reason::Truncated, good[..end].to_vec());
    add(all, "cut-end-half", Reason::Truncated, good[..end + BLOCK].to_vec());
    add(all, "cut-last-byte", Reason::Truncated, good[..good.len() - 1].to_vec());
    add(all, "empty", Reason::Truncated, Vec::new());
    for (name, more) in [("byte", &b"x"[..]), ("zero", b"\0"), ("block", &[0; 9 * BLOCK]), ("bundle", good)] {
        add(all, format!("append-{name}"), Reason::Trailing, [good, more].concat());
    }
    Ok(())
}

/// Entries that are missing, extra, double, elsewhere, or of another type.
fn entries(all: &mut Vec<Hostile>, good: &[u8]) -> Result<(), Error> {
    let parts = split(good);
    let head = parts.len() - parts.iter().filter(|part| part.header.starts_with(b"blobs/")).count();
    let mut change = |name: String, reason: Reason, change: &dyn Fn(&mut Vec<Raw>)| {
        let mut parts = parts.clone();
        change(&mut parts);
        add(all, name, reason, tar(&parts));
    };
    for number in 0..parts.len() {
        // Without its signature a bundle is unsigned; that is another rule.
        let reason = if number == 2 { Reason::Signature } else { Reason::Entry };
        change(format!("missing-{number:02}"), reason, &|parts| drop(parts.remove(number)));
        change(format!("twice-{number:02}"), Reason::Entry, &|parts| parts.insert(number, parts[number].clone()));
        if number > 0 {
            // With the signature before the index or behind a blob, the index is not signed.
            let reason = if number == head { Reason::Signature } else { Reason::Entry };
            change(format!("swapped-{number:02}"), reason, &|parts| parts.swap(number - 1, number));
        }
    }
    let strange = Raw::regular("README", 0o644, b"hello")?;
    let blob = Raw::regular(&blob_name(&Digest::of(b"unreferenced")), 0o644, b"unreferenced")?;
    for place in [0, 1, head, head + 1, parts.len()] {
        let reason = Reason::Entry;
        change(format!("extra-file-{place:02}"), reason, &|parts| parts.insert(place, strange.clone()));
        change(format!("extra-blob-{place:02}"), reason, &|parts| parts.insert(place, blob.clone()));
    }
    for kind in *b"1234567xgLKSDVA\0" {
        for place in [1, head, parts.len() - 1] {
            let name = format!("type-{}-{place:02}", if kind == 0 { '0' } else { char::from(kind) });
            change(name, Reason::Header, &|parts| parts[place] = parts[place].clone().kind(kind));
        }
    }
    let fields: [(&str, usize, &[u8]); 9] = [
        ("mode", 100, b"0000755\0"),
        ("setuid", 100, b"0004644\0"),
        ("uid", 108, b"0000001\0"),
        ("gid", 116, b"0000001\0"),
        ("size-spelling", 124, b"           "),
        ("mtime", 136, b"00000000001\0"),
        ("gnu-magic", 257, b"ustar  \0"),
        ("owner-name", 265, b"root\0"),
        ("device-number", 329, b"0000001\0"),
    ];
    for (field, offset, value) in fields {
        for place in [0, head, parts.len() - 1] {
            let name = format!("field-{field}-{place:02}");
            change(name, Reason::Header, &|parts| parts[place] = parts[place].clone().patch(offset, value));
        }
    }
    for name in ["../../etc/passwd", "/etc/passwd", "./index.json", "blobs/sha256/../../x"] {
        let label = name.replace(['/', '.'], "-");
        change(format!("name{label}"), Reason::Entry, &|parts| {
            let last = parts.len() - 1;
            parts[last] = parts[last].clone().name(name);
        });
    }
    let packages = [super::noise(900, "linux-image"), super::noise(900, "linux-modules")];
    change("blobs-under-each-others-names".to_owned(), Reason::Digest, &|parts| {
        for part in parts {
            let other = match &part.body {
                body if body.starts_with(&packages[0]) => &packages[1],
                body if body.starts_with(&packages[1]) => &packages[0],
                _ => continue,
            };
            part.body[..900].copy_from_slice(other);
        }
    });
    let foreign = split(&Fake::new().marker("other").bytes()?);
    change("blobs-of-another-bundle".to_owned(), Reason::Entry, &|parts| {
        parts.truncate(head);
        parts.extend_from_slice(&foreign[head..]);
    });
    change("index-of-another-bundle".to_owned(), Reason::Signature, &|parts| parts[1] = foreign[1].clone());
    let large = vec![b' '; at(JSON_LIMIT) + 1];
    let large = [Raw::regular("oci-layout", 0o644, &large)?, Raw::regular("index.json", 0o644, &large)?];
    change("layout-mark-too-large".to_owned(), Reason::Size, &|parts| parts[0] = large[0].clone());
    change("index-too-large".to_owned(), Reason::Size, &|parts| parts[1] = large[1].clone());
    let mark = Raw::regular("oci-layout", 0o644, br#"{"imageLayoutVersion":"2.0.0"}"#)?;
    change("layout-version".to_owned(), Reason::Metadata, &|parts| parts[0] = mark.clone());
    Ok(())
}

/// No signature, a wrong one, one of a stranger, one for something else.
fn signatures(all: &mut Vec<Hostile>, good: &[u8]) -> Result<(), Error> {
    add(all, "unsigned", Reason::Signature, Fake::new().signed_by(&[]).bytes()?);
    add(all, "signed-by-another-key", Reason::Signature, Fake::new().signed_by(&[Key::Other]).bytes()?);
    let parts = split(good);
    let stranger = split(&Fake::new().signed_by(&[Key::Other]).bytes()?);
    let key = Raw::regular("trusted-keys/other.pub", 0o644, Key::Other.public_text().as_bytes())?;
    let mut inside = stranger.clone();
    inside.push(key);
    add(all, "key-only-inside", Reason::Signature, tar(&inside));

    let layout = Fake::new().layout()?;
    let secret = Key::Publisher.secret()?;
    let with = |signatures: &[(&str, &str)]| -> Result<Vec<u8>, Error> {
        let mut parts = parts.clone();
        let raw = |(name, text): &(&str, &str)| Raw::regular(name, 0o644, text.as_bytes());
        parts.splice(2..3, signatures.iter().map(raw).collect::<Result<Vec<_>, _>>()?);
        Ok(tar(&parts))
    };
    let comment = layout.release().trusted_comment();
    let right = secret.sign(layout.index_bytes(), &comment)?;
    let name = right.entry_name();
    let other_index = secret.sign(b"another index", &comment)?;
    add(all, "signature-of-another-index", Reason::Signature, with(&[(&name, other_index.text())])?);
    for (label, comment) in [
        ("sequence", comment.replace("sequence=2", "sequence=3")),
        ("name", comment.replace("fake-1.0", "fake-1.1")),
        ("architecture", comment.replace("amd64", "arm64")),
        ("empty", String::new()),
        ("more", format!("{comment} ")),
    ] {
        let signature = secret.sign(layout.index_bytes(), &comment)?;
        add(all, format!("trusted-comment-{label}"), Reason::Signature, with(&[(&name, signature.text())])?);
    }
    let edits: [(&str, String); 5] = [
        ("untrusted-comment", right.text().replacen("sealift", "seadrop", 1)),
        ("trusted-comment-changed", right.text().replace("sequence=2", "sequence=9")),
        ("crlf", right.text().replace('\n', "\r\n")),
        ("trailing", format!("{}\n", right.text())),
        ("empty", String::new()),
    ];
    for (label, text) in edits {
        add(all, format!("signature-{label}"), Reason::Signature, with(&[(&name, &text)])?);
    }
    let legacy = edit_signature(&right, |bytes| bytes[..2].copy_from_slice(b"Ed"))?;
    add(all, "signature-not-prehashed", Reason::Signature, with(&[(&name, &legacy)])?);
    let long = format!("{}{}", right.text(), " ".repeat(4096));
    add(all, "signature-too-large", Reason::Size, with(&[(&name, &long)])?);
    let lower = name.to_lowercase().replace("minisig", "MINISIG");
    add(all, "signature-name-case", Reason::Entry, with(&[(&lower, right.text())])?);
    let elsewhere = "index.json.0000000000000000.minisig";
    add(all, "signature-under-another-key-id", Reason::Signature, with(&[(elsewhere, right.text())])?);

    let strangers = strangers(layout.index_bytes(), SIGNATURES_LIMIT as u64)?;
    let mut signed: Vec<(String, &str)> = strangers.iter().map(|other| (other.entry_name(), other.text())).collect();
    signed.push((name.clone(), right.text()));
    signed.sort();
    let signed = signed.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>();
    add(all, "17-signatures", Reason::Size, with(&signed)?);
    let mut order = [signed[1], signed[0]];
    add(all, "signatures-out-of-order", Reason::Entry, with(&order)?);
    order[1] = order[0];
    add(all, "signature-twice", Reason::Entry, with(&order)?);
    Ok(())
}

/// Well-formed signatures by keys that nobody knows: key id 0, 1, 2 …
fn strangers(index: &[u8], count: u64) -> Result<Vec<Signature>, Error> {
    let signature = Key::Other.secret()?.sign(index, "stranger")?;
    let make = |id: u64| edit_signature(&signature, |bytes| bytes[2..10].copy_from_slice(&id.to_le_bytes()));
    (0..count).map(|id| Signature::normalise(&make(id)?)).collect()
}

/// Changes the first part of a signature: two bytes of algorithm, eight of key id, 64 of signature.
fn edit_signature(signature: &Signature, edit: impl FnOnce(&mut Vec<u8>)) -> Result<String, Error> {
    let base64 = &base64::engine::general_purpose::STANDARD;
    let mut lines = signature.text().lines().map(str::to_owned).collect::<Vec<_>>();
    let mut bytes = base64.decode(&lines[1]).map_err(|error| Error::Input(error.to_string()))?;
    edit(&mut bytes);
    lines[1] = base64.encode(&bytes);
    Ok(lines.join("\n") + "\n")
}
