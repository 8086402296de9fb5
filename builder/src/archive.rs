//! Reads artifacts as streams: .tar, .tar.gz, .tar.xz, .tar.zst, .deb (its data archive), .rpm (its payload), or one
//! plain file.
//!
//! Archives are hostile until their digest is known to be right, and the digest is known at their end only: every name is
//! checked (no absolute path, no `..`), nothing is unpacked under a name from the archive, sizes are bounded.

mod rpm;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use anyhow::Context as _;
use bundle::Digest;
use bundle::digest::Hashing;

use crate::cache;
use crate::failure::Failure;

/// No artifact unpacks to more.
const UNPACKED_LIMIT: u64 = 32 << 30;
/// No archive has more members.
const MEMBER_LIMIT: usize = 1 << 20;
/// Bytes of memory for unpacking xz (`xz -9` takes 65 MiB): a stream may ask for 4 GiB.
const XZ_MEMORY: u64 = 256 << 20;
/// Bytes of long names and extended headers before one member of a tar archive: they are read into memory.
const NAMES_LIMIT: u64 = 1 << 20;

/// One member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Relative path without `.` and `..`.
    pub path: String,
    /// What it is.
    pub kind: MemberKind,
}

/// The kinds that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A file with content.
    Regular,
    /// A symbolic link; the target as written.
    Symlink(String),
    /// A hard link to another member.
    HardLink(String),
    /// Directories, devices and everything else that is never picked.
    Other,
}

/// No control file is longer.
const CONTROL_LIMIT: u64 = 1 << 20;

/// How an artifact is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Plain,
    Tar(Compression),
    Deb,
    Rpm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

fn format(file_name: &str) -> Format {
    let ends = |ends: &[&str]| ends.iter().any(|end| file_name.ends_with(end));
    if ends(&[".deb"]) {
        Format::Deb
    } else if ends(&[".rpm"]) {
        Format::Rpm
    } else if ends(&[".tar.gz", ".tgz"]) {
        Format::Tar(Compression::Gzip)
    } else if ends(&[".tar.xz", ".txz"]) {
        Format::Tar(Compression::Xz)
    } else if ends(&[".tar.zst"]) {
        Format::Tar(Compression::Zstd)
    } else if ends(&[".tar"]) {
        Format::Tar(Compression::None)
    } else {
        Format::Plain
    }
}

/// What is done with each member; the reader gives a regular file's content.
pub type Visit<'a> = dyn FnMut(&Member, &mut dyn Read) -> anyhow::Result<()> + 'a;

/// Visits every member in order. `file_name` tells the format (and is the member's name for a plain file); `expected` is
/// the artifact's digest: **what was visited is proven only if this returns `Ok`**.
pub fn walk(path: &Path, file_name: &str, expected: &Digest, visit: &mut Visit<'_>) -> anyhow::Result<()> {
    let mut hashing = Hashing::new(fs_err::File::open(path)?);
    let walked = walk_stream(BufReader::with_capacity(256 << 10, &mut hashing), file_name, visit);
    cache::drain(&mut hashing)?;
    let (_, digest, _) = hashing.finish();
    if digest != *expected {
        let text = format!("`{file_name}` changed in the cache: its digest is {digest}, expected {expected}");
        return Err(Failure::new(text).hint("run the build again: the file is fetched anew").into());
    }
    walked.with_context(|| format!("reading `{file_name}`"))
}

fn walk_stream(mut reader: impl Read, file_name: &str, visit: &mut Visit<'_>) -> anyhow::Result<()> {
    match format(file_name) {
        Format::Plain => visit(&Member { path: file_name.to_owned(), kind: MemberKind::Regular }, &mut reader),
        Format::Tar(compression) => walk_tar(&mut *decompress(reader, compression)?, visit),
        Format::Deb => walk_deb(reader, visit),
        Format::Rpm => rpm::walk(reader, UNPACKED_LIMIT, visit),
    }
}

fn decompress<'a>(reader: impl Read + 'a, compression: Compression) -> anyhow::Result<Box<dyn Read + 'a>> {
    let reader = BufReader::with_capacity(64 << 10, reader);
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_stream(reader, xz()?)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
    })
}

/// How xz is unpacked everywhere: stream after stream, in so much memory and no more.
pub(crate) fn xz() -> io::Result<liblzma::stream::Stream> {
    Ok(liblzma::stream::Stream::new_auto_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?)
}

/// A stream that gives so many bytes, as somebody else decides meanwhile.
struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        let too_much =
            || io::Error::other(format!("more than {NAMES_LIMIT} bytes of names and headers before a member"));
        self.left.set(left.ok_or_else(too_much)?);
        Ok(read)
    }
}

/// The control file of a Debian package, a file of the cache: `None` when it has no control archive. What is returned is
/// proven by the digest that the caller has checked, or will.
pub fn control(path: &Path) -> anyhow::Result<Option<String>> {
    let mut text = None;
    walk_deb_archive(BufReader::new(fs_err::File::open(path)?), "control.tar", &mut |member, content| {
        if member.path == "control" {
            let mut control = String::new();
            content.take(CONTROL_LIMIT).read_to_string(&mut control).context("its control file is not UTF-8 text")?;
            text = Some(control);
        }
        Ok(())
    })?;
    Ok(text)
}

/// The `data.tar` member of a Debian package (deb(5)); exactly one.
fn walk_deb(reader: impl Read, visit: &mut Visit<'_>) -> anyhow::Result<()> {
    let found = walk_deb_archive(reader, "data.tar", visit)?;
    if found { Ok(()) } else { Err(Failure::new("the package has no data archive").into()) }
}

/// One of the two archives in a Debian package, at most once; says whether it is there.
fn walk_deb_archive(reader: impl Read, wanted: &str, visit: &mut Visit<'_>) -> anyhow::Result<bool> {
    let mut archive = ar::Archive::new(reader);
    let mut found = false;
    while let Some(entry) = archive.next_entry() {
        let entry = entry.context("not a Debian package")?;
        let name = String::from_utf8_lossy(entry.header().identifier()).trim_end_matches('/').to_owned();
        let compression = match name.strip_prefix(wanted) {
            Some("") => Compression::None,
            Some(".gz") => Compression::Gzip,
            Some(".xz") => Compression::Xz,
            Some(".zst") => Compression::Zstd,
            Some(_) => {
                return Err(Failure::new(format!("`{name}` is packed in a way that is not supported"))
                    .hint(format!("expected {wanted}, plain or with .gz, .xz or .zst"))
                    .into());
            }
            None => continue,
        };
        if std::mem::replace(&mut found, true) {
            return Err(Failure::new(format!("the package has two archives `{wanted}`")).into());
        }
        walk_tar(&mut *decompress(entry, compression)?, visit)?;
    }
    Ok(found)
}

fn walk_tar(reader: &mut dyn Read, visit: &mut Visit<'_>) -> anyhow::Result<()> {
    let left = Rc::new(Cell::new(u64::MAX));
    let mut archive = tar::Archive::new(Metered { inner: reader.take(UNPACKED_LIMIT), left: left.clone() });
    let mut seen = BTreeSet::new();
    let mut entries = archive.entries()?;
    loop {
        left.set(NAMES_LIMIT);
        let Some(entry) = entries.next() else { break };
        left.set(u64::MAX);
        let mut entry = entry.context("the archive is damaged")?;
        let raw = entry.path_bytes().into_owned();
        let Some(path) = clean(&raw)? else {
            io::copy(&mut entry, &mut io::sink())?;
            continue;
        };
        let link = |entry: &tar::Entry<'_, _>| -> anyhow::Result<String> {
            let target = entry.link_name_bytes().with_context(|| format!("the link `{path}` has no target"))?;
            String::from_utf8(target.into_owned())
                .with_context(|| format!("the link `{path}` has a target that is not UTF-8"))
        };
        let kind = entry.header().entry_type();
        let kind = if kind.is_file() {
            MemberKind::Regular
        } else if kind.is_symlink() {
            MemberKind::Symlink(link(&entry)?)
        } else if kind.is_hard_link() {
            MemberKind::HardLink(link(&entry)?)
        } else {
            MemberKind::Other
        };
        if kind != MemberKind::Other && !seen.insert(path.clone()) {
            return Err(Failure::new(format!("the archive has `{path}` twice")).into());
        }
        if seen.len() > MEMBER_LIMIT {
            return Err(Failure::new("the archive has too many members").into());
        }
        visit(&Member { path, kind }, &mut entry)?;
        // What is left of it is no part of the next one's headers.
        io::copy(&mut entry, &mut io::sink())?;
    }
    Ok(())
}

/// A member's path without `./`; `None` for the archive's top, an error for a path that leads out of it.
fn clean(raw: &[u8]) -> anyhow::Result<Option<String>> {
    let refused = || {
        Failure::new(format!(
            "the archive has a member called `{}`: refused",
            String::from_utf8_lossy(raw).escape_debug()
        ))
    };
    let text = std::str::from_utf8(raw).map_err(|_| refused())?;
    if text.starts_with('/') || text.chars().any(char::is_control) {
        return Err(refused().into());
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(refused().into());
    }
    Ok(if parts.is_empty() { None } else { Some(parts.join("/")) })
}

/// Where a link leads, as a path in the archive; `None` if it leads out of it.
pub fn link_target(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_refused() {
        for bad in ["../x", "a/../../x", "/etc/passwd", "a/..", "a\nb"] {
            assert!(clean(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(clean(b"./usr//bin/x/").unwrap().as_deref(), Some("usr/bin/x"));
        assert_eq!(clean(b"./").unwrap(), None);
    }

    #[test]
    fn a_name_without_end_is_not_read_into_memory() {
        let archive = |kind: tar::EntryType, size: u64| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut add = |kind: tar::EntryType, name: &str, content: &mut dyn Read, size: u64| {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(kind);
                header.set_size(size);
                header.set_path(name).unwrap();
                header.set_cksum();
                builder.append(&header, content).unwrap();
            };
            add(tar::EntryType::Regular, "large", &mut io::repeat(0).take(4 << 20), 4 << 20);
            add(kind, "name", &mut io::repeat(b'n').take(size), size);
            add(tar::EntryType::Regular, "short", &mut io::empty(), 0);
            builder.into_inner().unwrap()
        };
        let walk = |archive: Vec<u8>| {
            let mut names = Vec::new();
            let visit = &mut |member: &Member, _: &mut dyn Read| {
                names.push(member.path.len());
                Ok(())
            };
            walk_tar(&mut archive.as_slice(), visit).map(|()| names).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(walk(archive(tar::EntryType::GNULongName, 300)).unwrap(), [5, 300]);
        for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
            let error = walk(archive(kind, 2 << 20)).unwrap_err();
            assert!(error.contains("bytes of names and headers"), "{kind:?}: {error}");
        }
    }

    #[test]
    fn xz_does_not_get_all_the_memory_it_asks_for() {
        // The older format, whose header is only this: a dictionary of 2 GiB, a length that is not known.
        let stream = [&[0x5d, 0, 0, 0, 0x80][..], &[0xff; 8], &[0; 64]].concat();
        let mut unpacked = decompress(stream.as_slice(), Compression::Xz).unwrap();
        let error = unpacked.read_to_end(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("memory"), "{error}");
    }

    #[test]
    fn links_are_followed_inside_only() {
        assert_eq!(link_target("usr/lib/libz.so.1", "libz.so.1.2.13").as_deref(), Some("usr/lib/libz.so.1.2.13"));
        assert_eq!(link_target("usr/lib/x", "../bin/x").as_deref(), Some("usr/bin/x"));
        assert_eq!(link_target("x", "../y"), None);
        assert_eq!(link_target("usr/x", "/etc/y"), None);
    }
}
