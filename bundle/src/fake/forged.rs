//! Crimes inside layers and signed descriptions: each in a bundle that is properly signed, so that only the rule under test
//! stands between the crime and the host.

use serde_json::{Value, json};

use super::forge::{Forge, Raw, open_tar, tar, zstd};
use super::hostile::{Hostile, add};
use crate::digest::Digest;
use crate::error::{Error, Reason};
use crate::ustar::{self, BLOCK, Item};

fn forged(all: &mut Vec<Hostile>, name: &str, reason: Reason, crime: impl FnOnce(&mut Forge)) -> Result<(), Error> {
    let (mut forge, _) = Forge::new()?;
    crime(&mut forge);
    add(all, name, reason, forge.bytes()?);
    Ok(())
}

/// Layers that are not what the (innocent) signed list says.
pub(super) fn layers(all: &mut Vec<Hostile>) -> Result<(), Error> {
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
pub(super) fn frames(all: &mut Vec<Hostile>) -> Result<(), Error> {
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
pub(super) fn lists(all: &mut Vec<Hostile>) -> Result<(), Error> {
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
pub(super) fn descriptions(all: &mut Vec<Hostile>) -> Result<(), Error> {
    type Edit = (&'static str, usize, Reason, fn(&mut Value));
    type Field = fn(&mut Value) -> &mut Value;
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
    for (number, module) in ["--remove", "", "a b", "../x"].into_iter().enumerate() {
        forged(all, &format!("description-config-module-{number}"), Reason::Metadata, |forge| {
            forge.edit[0] = Box::new(move |config| config["dev.sealift.component"]["modules"] = json!([module]));
        })?;
    }
    let escape = "\u{1b}]0;evil\u{7}";
    let shown: [(&str, Field); 6] = [
        ("licence", |component| &mut component["licence"]),
        ("upstream-url", |component| &mut component["upstream"][0]["url"]),
        ("upstream-proof", |component| &mut component["upstream"][0]["proof"]),
        ("upstream-licence", |component| &mut component["upstream"][0]["licence"]),
        ("distribution", |component| &mut component["distribution"]),
        ("image", |component| {
            component["images"] = json!([""]);
            &mut component["images"][0]
        }),
    ];
    for (name, field) in shown {
        forged(all, &format!("description-config-escape-in-{name}"), Reason::Metadata, |forge| {
            forge.edit[0] = Box::new(move |config| *field(&mut config["dev.sealift.component"]) = json!(escape));
        })?;
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
