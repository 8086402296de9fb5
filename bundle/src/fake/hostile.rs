//! The museum: one bundle per crime, with the rule it must be refused by.
//!
//! Crimes inside a layer or a signed description come in bundles that are properly signed, so that only the rule under
//! test stands between the crime and the host.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};

use super::forge::{Forge, Raw, open_tar, split, tar, zstd};
use super::{Fake, Key, Region, regions};
use crate::archive::blob_name;
use crate::digest::Digest;
use crate::error::{Error, Reason};
use crate::limit::{JSON_LIMIT, SIGNATURES_LIMIT};
use crate::name::Architecture;
use crate::sign::Signature;
use crate::ustar::{self, BLOCK, END, Item};

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
    layers(&mut all)?;
    frames(&mut all)?;
    lists(&mut all)?;
    descriptions(&mut all)?;
    Ok(all)
}

/// Bundles that are in order, but that an installer refuses on an amd64 host that has accepted `Fake::new()` (name
/// `fake-1.0`, sequence 2): another architecture, a lower sequence, the same sequence with other content.
pub fn refused_by_installers() -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
    Ok(vec![
        ("wrong-architecture", Fake::new().architecture(Architecture::Arm64).bytes()?),
        ("lower-sequence", Fake::new().sequence(1).bytes()?),
        ("same-sequence-other-index", Fake::new().marker("other").bytes()?),
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

fn add(all: &mut Vec<Hostile>, name: impl Into<String>, reason: Reason, bytes: Vec<u8>) {
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

fn forged(all: &mut Vec<Hostile>, name: &str, reason: Reason, crime: impl FnOnce(&mut Forge)) -> Result<(), Error> {
    let (mut forge, _) = Forge::new()?;
    crime(&mut forge);
    add(all, name, reason, forge.bytes()?);
    Ok(())
}

/// Layers that are not what the (innocent) signed list says.
fn layers(all: &mut Vec<Hostile>) -> Result<(), Error> {
    let (_, raw) = Forge::new()?;
    let evil = Raw::regular("evil", 0o755, b"evil\n")?;
    let mut layer = |name: &str, reason: Reason, bytes: Vec<u8>| {
        forged(all, &format!("layer-{name}"), reason, |forge| forge.layer = bytes)
    };
    let replaced = |number: usize, part: Raw| {
        let mut raw = raw.clone();
        raw[number] = part;
        tar(&raw)
    };
    let tool = || raw[1].clone();
    for (name, path) in [
        ("dot-dot", "../../../../etc/cron.d/evil"),
        ("absolute", "/etc/cron.d/evil"),
        ("dot", "./bin/tool"),
        ("dot-dot-inside", "bin/../../tool"),
        ("unlisted", "bin/other"),
        ("whiteout", "bin/.wh.tool"),
        ("other-case", "bin/TOOL"),
        ("double-slash", "bin//tool"),
    ] {
        layer(name, Reason::Layer, replaced(1, tool().name(path)))?;
    }
    for (name, kind) in [
        ("hard-link", b'1'),
        ("symlink-for-file", b'2'),
        ("character-device", b'3'),
        ("block-device", b'4'),
        ("fifo", b'6'),
        ("contiguous", b'7'),
        ("old-file", 0),
        ("pax", b'x'),
        ("pax-global", b'g'),
        ("gnu-long-name", b'L'),
        ("gnu-long-link", b'K'),
        ("gnu-sparse", b'S'),
        ("unknown-type", b'Z'),
    ] {
        layer(name, Reason::Layer, replaced(1, tool().kind(kind)))?;
    }
    let hard_link = Raw::new("bin/tool", Item::Symlink { target: "/etc/shadow" }, b"")?.kind(b'1');
    layer("hard-link-to-shadow", Reason::Layer, replaced(1, hard_link))?;
    let pax = Raw::regular("PaxHeaders/tool", 0o644, b"25 path=../../etc/passwd\n")?.kind(b'x');
    for (name, extra) in [("pax-before-file", pax), ("extra-before-file", evil.clone())] {
        let mut raw = raw.clone();
        raw.insert(1, extra);
        layer(name, Reason::Layer, tar(&raw))?;
    }
    let escape = Raw::new("bin", Item::Symlink { target: "../../../../etc" }, b"")?;
    layer("symlink-for-directory", Reason::Layer, replaced(0, escape))?;
    for (name, target) in [("symlink-absolute", "/etc/passwd"), ("symlink-up", "../../etc/passwd")] {
        layer(name, Reason::Layer, replaced(2, Raw::new("link", Item::Symlink { target }, b"")?))?;
    }
    for (name, offset, value) in [
        ("setuid", 100, &b"0004755\0"[..]),
        ("setgid", 100, b"0002755\0"),
        ("world-writable", 100, b"0000777\0"),
        ("not-executable", 100, b"0000644\0"),
        ("owner", 108, b"0001750\0"),
        ("group", 116, b"0001750\0"),
        ("mtime", 136, b"14000000000\0"),
        ("owner-name", 265, b"nobody\0"),
        ("gnu-magic", 257, b"ustar  \0"),
        ("device-number", 329, b"0000010\0"),
        ("prefix", 345, b"../../etc\0"),
        ("end-of-header", 511, b"x"),
    ] {
        layer(name, Reason::Layer, replaced(1, tool().patch(offset, value)))?;
    }
    let mut bad_sum = tool();
    bad_sum.header[148] ^= 1;
    layer("checksum", Reason::Layer, replaced(1, bad_sum))?;
    layer("other-content", Reason::Digest, replaced(1, Raw::regular("bin/tool", 0o755, b"t00l\n")?))?;
    layer("longer-content", Reason::Layer, replaced(1, Raw::regular("bin/tool", 0o755, b"tool\n\n")?))?;
    layer("shorter-content", Reason::Layer, replaced(1, Raw::regular("bin/tool", 0o755, b"tool")?))?;
    let mut padded = tool();
    padded.body[511] = 1;
    layer("padding", Reason::Layer, replaced(1, padded))?;
    for number in 0..raw.len() {
        let mut fewer = raw.clone();
        fewer.remove(number);
        layer(&format!("missing-{number}"), Reason::Layer, tar(&fewer))?;
        let mut twice = raw.clone();
        twice.insert(number, raw[number].clone());
        layer(&format!("twice-{number}"), Reason::Layer, tar(&twice))?;
    }
    let mut swapped = raw.clone();
    swapped.swap(1, 2);
    layer("out-of-order", Reason::Layer, tar(&swapped))?;
    let mut more = raw.clone();
    more.push(evil.clone());
    layer("extra-at-the-end", Reason::Layer, tar(&more))?;
    let good = tar(&raw);
    layer("after-the-end", Reason::Trailing, [&good[..], &tar(std::slice::from_ref(&evil))].concat())?;
    layer("long-end", Reason::Trailing, [&good[..], &[0; 8192]].concat())?;
    layer("no-end", Reason::Layer, open_tar(&raw))?;
    layer("half-end", Reason::Layer, good[..good.len() - BLOCK].to_vec())?;
    layer("one-zero-block", Reason::Layer, [&good[..good.len() - BLOCK], &open_tar(&[evil])].concat())?;
    layer("empty", Reason::Layer, Vec::new())?;
    layer("cut-content", Reason::Layer, good[..2 * BLOCK + 2].to_vec())?;
    // 32 MiB of zeros in about a kilobyte.
    layer("bomb-after-the-end", Reason::Trailing, [&good[..], &vec![0; 32 << 20]].concat())?;
    layer("bomb-as-content", Reason::Layer, replaced(1, Raw::regular("bin/tool", 0o755, &vec![0; 32 << 20])?))?;
    let bomb = vec![0; 32 << 20];
    forged(all, "layer-bomb-listed-too-small", Reason::Layer, |forge| {
        // Size and digest are those of a true prefix: only the header tells.
        forge.files[1]["size"] = json!(1 << 20);
        forge.files[1]["sha256"] = json!(Digest::of(&bomb[..1 << 20]));
        let file = Raw::regular("bin/tool", 0o755, &bomb);
        forge.layer = file.map(|file| replaced(1, file)).unwrap_or_default();
    })?;
    let sized = Raw::regular("bin/tool", 0o755, b"tool\n")?.patch(124, b"77777777777\0");
    forged(all, "layer-size-beyond-content", Reason::Layer, |forge| {
        forge.files[1]["size"] = json!(ustar::SIZE_LIMIT);
        forge.layer = replaced(1, sized);
    })
}

/// Compressed layers that are not exactly one small-window zstd frame.
fn frames(all: &mut Vec<Hostile>) -> Result<(), Error> {
    let (forge, raw) = Forge::new()?;
    let frame = zstd(&forge.layer)?;
    let mut compressed = |name: &str, reason: Reason, bytes: Vec<u8>| {
        forged(all, &format!("frame-{name}"), reason, |forge| forge.compressed = Some(bytes))
    };
    let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"evil"].concat();
    let half = zstd(&forge.layer[..BLOCK])?;
    let rest = zstd(&forge.layer[BLOCK..])?;
    compressed("another-after", Reason::Trailing, [&frame[..], &zstd(&tar(&raw))?].concat())?;
    compressed("empty-one-after", Reason::Trailing, [&frame[..], &zstd(b"")?].concat())?;
    compressed("skippable-after", Reason::Trailing, [&frame[..], &skippable].concat())?;
    compressed("skippable-before", Reason::Trailing, [&skippable[..], &frame].concat())?;
    compressed("byte-after", Reason::Trailing, [&frame[..], b"\0"].concat())?;
    compressed("megabytes-after", Reason::Trailing, [&frame[..], &super::noise(3 << 20, "after")].concat())?;
    compressed("two-halves", Reason::Trailing, [half, rest].concat())?;
    compressed("cut", Reason::Compression, frame[..frame.len() / 2].to_vec())?;
    compressed("not-compressed", Reason::Compression, forge.layer.clone())?;
    compressed("gzip-magic", Reason::Compression, [&[0x1f, 0x8b, 8, 0][..], &frame].concat())?;
    let mut damaged = frame.clone();
    // The type of its first block becomes the reserved one.
    damaged[6] |= 6;
    damaged[7] |= 6;
    compressed("damaged", Reason::Compression, damaged)?;
    // Window descriptors: exponent in the upper five bits, 2^(10 + exponent) bytes.
    for log in [24_u8, 27, 31] {
        let magic = 0xFD2F_B528_u32.to_le_bytes();
        let raw_block = u32::try_from(forge.layer.len()).unwrap_or(u32::MAX) << 3 | 1;
        let block = &raw_block.to_le_bytes()[..3];
        let bytes = [&magic[..], &[0, (log - 10) << 3], block, &forge.layer].concat();
        compressed(&format!("window-2-to-the-{log}"), Reason::Compression, bytes)?;
    }
    forged(all, "frame-wrong-diff-id", Reason::Digest, |forge| {
        forge.edit[0] = Box::new(|config| config["rootfs"]["diff_ids"][0] = json!(Digest::of(b"other")));
    })
}

/// Signed lists that may not exist, whatever the layer holds.
fn lists(all: &mut Vec<Hostile>) -> Result<(), Error> {
    let mut list = |name: &str, crime: &dyn Fn(&mut Value)| {
        forged(all, &format!("list-{name}"), Reason::Metadata, |forge| crime(&mut forge.files))
    };
    let long = format!("{}/{}/{}", "a".repeat(90), "b".repeat(90), "c".repeat(70));
    for (name, path) in [
        ("dot-dot", "../evil"),
        ("absolute", "/etc/evil"),
        ("dot-dot-inside", "bin/../../evil"),
        ("empty-path", ""),
        ("control-character", "bin/a\u{0}b"),
        ("newline", "bin/a\nb"),
        ("whiteout", "bin/.wh..wh..opq"),
        ("unlisted-parent", "lib/tool"),
        ("path-too-long", long.as_str()),
    ] {
        list(name, &|files| files[1]["path"] = json!(path))?;
    }
    for target in ["/etc/passwd", "..", "../etc", "bin/../../etc", "bin/..", ".", "", "bin//tool", "bin/\u{1}"] {
        let label = target.replace(['/', '.', '\u{1}'], "-");
        list(&format!("link-to-{label}"), &|files| files[2]["target"] = json!(target))?;
    }
    list("link-too-long", &|files| files[2]["target"] = json!("x".repeat(101)))?;
    for mode in [0o4755, 0o2755, 0o1755, 0o777, 0o666, 0, 0o100_755] {
        list(&format!("mode-{mode:o}"), &|files| files[1]["mode"] = json!(mode))?;
    }
    for kind in ["device", "hardlink", "fifo", "character", "Regular", ""] {
        list(&format!("type-{kind}"), &|files| files[1]["type"] = json!(kind))?;
    }
    for (name, size) in [("8-GiB", ustar::SIZE_LIMIT + 1), ("largest", u64::MAX)] {
        list(&format!("size-{name}"), &|files| files[1]["size"] = json!(size))?;
    }
    list("size-negative", &|files| files[1]["size"] = json!(-1))?;
    list("digest", &|files| files[1]["sha256"] = json!("sha256:00"))?;
    list("unknown-field", &|files| files[1]["xattrs"] = json!({}))?;
    list("twice", &|files| files[2] = files[1].clone())?;
    list("file-as-parent", &|files| {
        files[0] = json!({"path": "bin", "type": "regular", "mode": 0o755, "size": 0, "sha256": Digest::of(b"")});
    })?;
    list("link-as-parent", &|files| files[0] = json!({"path": "bin", "type": "symlink", "target": "lib"}))?;
    list("out-of-order", &|files| {
        if let Value::Array(files) = files {
            files.swap(1, 2);
        }
    })?;
    list("not-a-list", &|files| *files = json!({}))
}

/// Signed descriptions that contradict themselves or the rest.
fn descriptions(all: &mut Vec<Hostile>) -> Result<(), Error> {
    type Edit = (&'static str, usize, Reason, fn(&mut Value));
    let edits: [Edit; 26] = [
        ("config-architecture", 0, Reason::Metadata, |config| config["architecture"] = json!("arm64")),
        ("config-os", 0, Reason::Metadata, |config| config["os"] = json!("windows")),
        ("config-unknown-field", 0, Reason::Metadata, |config| config["surprise"] = json!(1)),
        ("config-no-component", 0, Reason::Metadata, |config| config["dev.sealift.component"] = Value::Null),
        ("config-no-files", 0, Reason::Metadata, |config| config["dev.sealift.files"] = Value::Null),
        ("config-promises-too-much", 0, Reason::Metadata, |config| {
            config["dev.sealift.component"]["programs"] = json!(["bin/none"]);
        }),
        ("config-promises-a-directory", 0, Reason::Metadata, |config| {
            config["dev.sealift.component"]["programs"] = json!(["bin"]);
        }),
        ("config-kind", 0, Reason::Metadata, |config| config["dev.sealift.component"]["kind"] = json!("packages")),
        ("config-name", 0, Reason::Metadata, |config| config["dev.sealift.component"]["name"] = json!("../evil")),
        ("config-roles-differ", 0, Reason::Metadata, |config| {
            config["dev.sealift.component"]["roles"] = json!(["worker"]);
        }),
        ("config-template-name", 0, Reason::Metadata, |config| {
            config["dev.sealift.component"]["templates"] =
                json!([{"name": "../../etc/systemd/system/evil.service", "kind": "unit", "text": ""}]);
        }),
        ("config-two-diff-ids", 0, Reason::Metadata, |config| {
            let diff_id = config["rootfs"]["diff_ids"][0].clone();
            config["rootfs"]["diff_ids"] = json!([diff_id, diff_id]);
        }),
        ("manifest-layer-too-small", 1, Reason::Size, |manifest| manifest["layers"][0]["size"] = json!(10)),
        ("manifest-layer-too-large", 1, Reason::Size, |manifest| manifest["layers"][0]["size"] = json!(10_000)),
        ("manifest-layer-huge", 1, Reason::Size, |manifest| manifest["layers"][0]["size"] = json!(u64::MAX)),
        ("manifest-config-too-large", 1, Reason::Size, |manifest| manifest["config"]["size"] = json!(5 << 20)),
        ("manifest-config-size", 1, Reason::Size, |manifest| manifest["config"]["size"] = json!(10)),
        ("manifest-two-layers", 1, Reason::Metadata, |manifest| {
            let layer = manifest["layers"][0].clone();
            manifest["layers"] = json!([layer, layer]);
        }),
        ("manifest-no-layer", 1, Reason::Metadata, |manifest| manifest["layers"] = json!([])),
        ("manifest-layer-type", 1, Reason::Metadata, |manifest| {
            manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
        }),
        ("manifest-config-as-layer", 1, Reason::Metadata, |manifest| {
            manifest["layers"][0]["digest"] = manifest["config"]["digest"].clone();
            manifest["layers"][0]["size"] = manifest["config"]["size"].clone();
        }),
        ("index-platform", 2, Reason::Metadata, |index| {
            index["manifests"][0]["platform"]["architecture"] = json!("arm64");
        }),
        ("index-component-twice", 2, Reason::Metadata, |index| {
            let entry = index["manifests"][0].clone();
            index["manifests"] = json!([entry, entry]);
        }),
        ("index-media-type", 2, Reason::Metadata, |index| index["manifests"][0]["mediaType"] = json!("text/plain")),
        ("index-reference-on-a-program", 2, Reason::Metadata, |index| {
            index["manifests"][0]["annotations"]["io.containerd.image.name"] = json!("registry.example/x:1");
        }),
        ("index-unknown-field", 2, Reason::Metadata, |index| index["surprise"] = json!(1)),
    ];
    for (name, place, reason, edit) in edits {
        forged(all, &format!("description-{name}"), reason, |forge| forge.edit[place] = Box::new(edit))?;
    }
    for key in ["format", "name", "version", "architecture", "sequence", "created", "lock", "installer"] {
        let name = format!("dev.sealift.{key}");
        for (label, value) in [("missing", None), ("malformed", Some("%"))] {
            let name = name.clone();
            forged(all, &format!("description-index-{key}-{label}"), Reason::Metadata, |forge| {
                forge.edit[2] = Box::new(move |index| {
                    let Some(annotations) = index["annotations"].as_object_mut() else { return };
                    match value {
                        None => drop(annotations.remove(&name)),
                        Some(value) => drop(annotations.insert(name.clone(), json!(value))),
                    }
                });
            })?;
        }
    }
    for sequence in ["02", "+2", "-1", "18446744073709551616"] {
        forged(all, &format!("description-index-sequence-{sequence}"), Reason::Metadata, |forge| {
            forge.edit[2] = Box::new(move |index| index["annotations"]["dev.sealift.sequence"] = json!(sequence));
        })?;
    }
    for (place, name, key) in [(0, "config", "os"), (1, "manifest", "mediaType"), (2, "index", "mediaType")] {
        forged(all, &format!("description-{name}-duplicate-key"), Reason::Metadata, |forge| {
            forge.text[place] = Box::new(move |text| text.replacen('{', &format!("{{\"{key}\":\"x\","), 1));
        })?;
        forged(all, &format!("description-{name}-trailing"), Reason::Metadata, |forge| {
            forge.text[place] = Box::new(|text| text + "{}");
        })?;
    }
    forged(all, "description-index-duplicate-annotation", Reason::Metadata, |forge| {
        let first = "\"annotations\":{\"dev.sealift.architecture\":\"amd64\",";
        forge.text[2] = Box::new(move |text| text.replacen("\"annotations\":{", first, 1));
    })?;
    forged(all, "description-trusted-comment", Reason::Signature, |forge| {
        forge.trusted_comment = Some("sealift name=fake-1.0 version=1.0.0 architecture=amd64 sequence=1".to_owned());
    })
}
