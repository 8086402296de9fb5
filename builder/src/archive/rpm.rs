//! RPM packages: the payload is a cpio archive of the `newc` kind, packed with gzip, xz or zstd.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use anyhow::Context as _;

use super::{Compression, MEMBER_LIMIT, Member, MemberKind, Visit, clean, decompress};
use crate::failure::Failure;
use crate::rpm_file::Head;

/// Bytes of a cpio header, and where in it the name's length stands (cpio(5), "New ASCII Format").
const HEADER_SIZE: usize = 110;
const NAME_SIZE_AT: std::ops::Range<usize> = 94..102;
/// Longest path, as in Linux (`PATH_MAX`).
const NAME_LIMIT: u64 = 4096;
/// File types of a mode (stat(2)).
const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// Visits the files of a package; unpacked it has at most `limit` bytes.
pub(super) fn walk(mut reader: impl Read, limit: u64, visit: &mut Visit<'_>) -> anyhow::Result<()> {
    let head = Head::read(&mut reader)?;
    let format = head.payload_format()?;
    if format != "cpio" {
        return Err(Failure::new(format!("the payload is `{}`, expected cpio", format.escape_debug())).into());
    }
    let compression = match head.payload_compressor()?.as_str() {
        "none" | "identity" => Compression::None,
        "gzip" => Compression::Gzip,
        "xz" => Compression::Xz,
        "zstd" => Compression::Zstd,
        other => {
            let text = format!("the payload is packed with `{}`, which is not supported", other.escape_debug());
            return Err(Failure::new(text).hint("gzip, xz and zstd are").into());
        }
    };
    walk_cpio(&mut *decompress(reader, compression)?, limit, visit)
}

/// Names of one inode that came without content: rpm writes the content with the last one.
type Waiting = BTreeMap<(u32, u32, u32), Vec<String>>;

fn walk_cpio(reader: &mut dyn Read, limit: u64, visit: &mut Visit<'_>) -> anyhow::Result<()> {
    let mut reader = reader.take(limit);
    let result = walk_members(&mut reader, visit);
    if reader.limit() == 0 {
        return Err(Failure::new(format!("the payload unpacks to more than {limit} bytes")).into());
    }
    result
}

fn walk_members(reader: &mut io::Take<&mut dyn Read>, visit: &mut Visit<'_>) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    let mut waiting = Waiting::new();
    let mut whole = BTreeMap::new();
    loop {
        let mut header = [0; HEADER_SIZE];
        reader.read_exact(&mut header).context("the payload ends without its trailer")?;
        check_header(&header)?;
        let remaining = reader.limit();
        let mut entry = cpio::newc::Reader::new((&header[..]).chain(&mut *reader)).context("the payload is damaged")?;
        if entry.entry().is_trailer() {
            break;
        }
        let (name, mode, size) =
            (entry.entry().name().to_owned(), entry.entry().mode(), u64::from(entry.entry().file_size()));
        if size > remaining {
            let text = format!("the member `{}` of {size} bytes is beyond the payload's limit", name.escape_debug());
            return Err(Failure::new(text).into());
        }
        if let Some(path) = clean(name.as_bytes())? {
            let inode = (entry.entry().dev_major(), entry.entry().dev_minor(), entry.entry().ino());
            let linked = entry.entry().nlink() > 1;
            let kind = match mode & TYPE_MASK {
                REGULAR => MemberKind::Regular,
                SYMLINK => MemberKind::Symlink(target(&path, &mut entry)?),
                _ => MemberKind::Other,
            };
            if kind != MemberKind::Other && !seen.insert(path.clone()) {
                return Err(Failure::new(format!("the archive has `{path}` twice")).into());
            }
            if seen.len() > MEMBER_LIMIT {
                return Err(Failure::new("the archive has too many members").into());
            }
            match whole.get(&inode).filter(|_| kind == MemberKind::Regular && linked) {
                Some(first) if size == 0 => {
                    visit(&Member { path, kind: MemberKind::HardLink(String::clone(first)) }, &mut io::empty())?;
                }
                Some(_) => {
                    let text = format!("`{path}` is a hard link with a content of its own: refused");
                    return Err(Failure::new(text).into());
                }
                None if kind == MemberKind::Regular && linked && size == 0 => {
                    waiting.entry(inode).or_default().push(path);
                }
                None => {
                    visit(&Member { path: path.clone(), kind: kind.clone() }, &mut entry)?;
                    if kind == MemberKind::Regular && linked {
                        for link in waiting.remove(&inode).unwrap_or_default() {
                            visit(&Member { path: link, kind: MemberKind::HardLink(path.clone()) }, &mut io::empty())?;
                        }
                        whole.insert(inode, path);
                    }
                }
            }
        }
        entry.finish().context("the payload is damaged")?;
    }
    // Links whose content never came are empty files.
    for path in waiting.into_values().flatten() {
        visit(&Member { path, kind: MemberKind::Regular }, &mut io::empty())?;
    }
    // To the end, so that a packed stream's own checksum is compared.
    io::copy(reader, &mut io::sink()).context("the payload is damaged")?;
    Ok(())
}

/// Refuses what the cpio reader would follow too far, or not at all.
fn check_header(header: &[u8; HEADER_SIZE]) -> anyhow::Result<()> {
    if header.starts_with(b"07070X") {
        return Err(Failure::new("the payload has files beyond 4 GiB, which is not supported").into());
    }
    let digits = std::str::from_utf8(&header[NAME_SIZE_AT]).ok();
    match digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
        Some(size) if size <= NAME_LIMIT => Ok(()),
        Some(size) => Err(Failure::new(format!("a member's name of {size} bytes is refused")).into()),
        None => Err(Failure::new("the payload is damaged: there is no cpio header where one should be").into()),
    }
}

fn target(path: &str, content: &mut dyn Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    content.take(NAME_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > NAME_LIMIT {
        return Err(Failure::new(format!("the link `{path}` has a target that is too long")).into());
    }
    String::from_utf8(bytes).with_context(|| format!("the link `{path}` has a target that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One member: name, mode, inode, links, content.
    type Piece<'a> = (&'a str, u32, u32, u32, &'a [u8]);

    fn header(piece: &Piece<'_>, size: usize, name_size: usize) -> Vec<u8> {
        let (_, mode, inode, links, _) = *piece;
        let fields = [
            inode,
            mode,
            0,
            0,
            links,
            0,
            u32::try_from(size).unwrap(),
            0,
            0,
            0,
            0,
            u32::try_from(name_size).unwrap(),
            0,
        ];
        let fields = fields.map(|field| format!("{field:08x}")).concat();
        format!("070701{fields}").into_bytes()
    }

    fn cpio(pieces: &[Piece<'_>]) -> Vec<u8> {
        let mut archive = Vec::new();
        let pad = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(4), 0);
        for piece in pieces.iter().chain([&("TRAILER!!!", 0, 0, 1, &b""[..])]) {
            archive.extend(header(piece, piece.4.len(), piece.0.len() + 1));
            archive.extend(piece.0.as_bytes());
            archive.push(0);
            pad(&mut archive);
            archive.extend(piece.4);
            pad(&mut archive);
        }
        archive
    }

    fn visited(archive: &[u8], limit: u64) -> Result<Vec<(Member, Vec<u8>)>, String> {
        let mut members = Vec::new();
        walk_cpio(&mut &*archive, limit, &mut |member, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            members.push((member.clone(), bytes));
            Ok(())
        })
        .map_err(|error| format!("{error:#}"))?;
        Ok(members)
    }

    const FILE: u32 = 0o100_644;

    #[test]
    fn files_links_and_hard_links_are_visited() {
        let archive = cpio(&[
            (".", 0o040_755, 1, 1, b""),
            ("./usr", 0o040_755, 2, 1, b""),
            ("./usr/a", FILE, 3, 3, b""),
            ("./usr/b", FILE, 3, 3, b""),
            ("./usr/c", FILE, 3, 3, b"content"),
            ("./usr/link", 0o120_777, 4, 1, b"../a"),
            ("./dev", 0o060_644, 5, 1, b""),
            ("./empty", FILE, 6, 2, b""),
        ]);
        let visited = visited(&archive, 1 << 20).unwrap();
        let shown: Vec<_> =
            visited.iter().map(|(member, content)| (member.path.as_str(), &member.kind, content.as_slice())).collect();
        let link = MemberKind::HardLink("usr/c".into());
        assert_eq!(
            shown,
            [
                ("usr", &MemberKind::Other, &b""[..]),
                ("usr/c", &MemberKind::Regular, b"content"),
                ("usr/a", &link, b""),
                ("usr/b", &link, b""),
                ("usr/link", &MemberKind::Symlink("../a".into()), b""),
                ("dev", &MemberKind::Other, b""),
                ("empty", &MemberKind::Regular, b""),
            ]
        );
    }

    #[test]
    fn hostile_members_are_refused() {
        let one = |name: &str| cpio(&[("./good", FILE, 1, 1, b"x"), (name, FILE, 2, 1, b"y")]);
        for name in ["../evil", "./../evil", "/etc/passwd", "./a/../../b", "./a\nb"] {
            let error = visited(&one(name), 1 << 20).unwrap_err();
            assert!(error.contains("refused"), "{name}: {error}");
        }
        assert!(visited(&one("./good"), 1 << 20).unwrap_err().contains("twice"));
        let twice = cpio(&[("./a", FILE, 1, 2, b"one"), ("./b", FILE, 1, 2, b"two")]);
        assert!(visited(&twice, 1 << 20).unwrap_err().contains("hard link with a content of its own"));
        let long = "a".repeat(5000);
        assert!(visited(&one(&long), 1 << 20).unwrap_err().contains("a member's name of 5001 bytes"));
        let target = cpio(&[("./link", 0o120_777, 1, 1, long.as_bytes())]);
        assert!(visited(&target, 1 << 20).unwrap_err().contains("too long"));
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused() {
        let big = cpio(&[("./big", FILE, 1, 1, &[0; 5000])]);
        assert!(visited(&big, 6000).is_ok());
        assert!(visited(&big, 4000).unwrap_err().contains("of 5000 bytes is beyond the payload's limit"));
        let many: Vec<String> = (0..100).map(|number| format!("./{number}")).collect();
        let many = cpio(&many.iter().map(|name| (name.as_str(), FILE, 1, 1, &b""[..])).collect::<Vec<_>>());
        assert!(visited(&many, 4000).unwrap_err().contains("unpacks to more than 4000 bytes"));
    }

    #[test]
    fn damaged_payloads_are_errors() {
        let good = cpio(&[("./a", FILE, 1, 1, b"1234")]);
        for end in 0..good.len() - 4 {
            assert!(visited(&good[..end], 1 << 20).is_err(), "{end}");
        }
        let mut stripped = good.clone();
        stripped[5] = b'X';
        assert!(visited(&stripped, 1 << 20).unwrap_err().contains("beyond 4 GiB"));
        let mut odd = good.clone();
        odd[0] = b'1';
        assert!(visited(&odd, 1 << 20).is_err());
        odd = good;
        odd[100] = b'z';
        assert!(visited(&odd, 1 << 20).unwrap_err().contains("damaged"));
    }
}
