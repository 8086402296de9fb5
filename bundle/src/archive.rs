//! Reads the outer tar of a bundle, entry by entry, each of which must be exactly the one that is expected.
//!
//! It knows nothing of meaning or trust. It guarantees that every byte it passed was either handed to the caller (content)
//! or compared with the only value it may have (headers, padding, end mark), and counts the offset for error messages.

use std::io::{self, Read, Seek, SeekFrom};

use crate::digest::Digest;
use crate::error::{Error, Reason, quote, refuse};
use crate::ustar::{self, BLOCK, Block, Item};

/// Mode of every entry of the outer tar.
const MODE: u32 = 0o644;

/// The name of a blob's entry.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The outer tar, read strictly forward.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    reader: R,
    /// Bytes taken from the reader.
    offset: u64,
    /// A header that was looked at but not yet used.
    peeked: Option<Block>,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, offset: 0, peeked: None }
    }

    /// Bytes read so far, without a header that was only looked at.
    pub(crate) fn offset(&self) -> u64 {
        self.offset - if self.peeked.is_some() { BLOCK as u64 } else { 0 }
    }

    /// The reader, and the header that was looked at but not used.
    pub(crate) fn into_parts(self) -> (R, Option<Block>) {
        (self.reader, self.peeked)
    }

    /// Fills the buffer; the end of the file before that is a refusal.
    pub(crate) fn fill(&mut self, buffer: &mut [u8], what: &str) -> Result<(), Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => {
                    let place = format!("{what}, offset {}", self.offset);
                    let expected = format!("{} more bytes", buffer.len() - filled);
                    return Err(refuse(Reason::Truncated, place, expected, "the end of the file"));
                }
                Ok(read) => {
                    filled += read;
                    self.offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        Ok(())
    }

    /// The next header, left in place.
    pub(crate) fn peek(&mut self) -> Result<Block, Error> {
        if let Some(block) = self.peeked {
            return Ok(block);
        }
        let mut block = [0; BLOCK];
        self.fill(&mut block, "the next entry's header")?;
        self.peeked = Some(block);
        Ok(block)
    }

    /// Makes sure that the next entry's name starts like this, and leaves it in place.
    pub(crate) fn peek_prefix(&mut self, prefix: &str) -> Result<(), Error> {
        let block = self.peek()?;
        let found = ustar::parse_regular(&block);
        if found.as_ref().is_some_and(|(name, _)| name.starts_with(prefix)) {
            return Ok(());
        }
        let reason = if found.is_some() || block == [0; BLOCK] { Reason::Entry } else { Reason::Header };
        let place = format!("the entry at offset {}", self.offset());
        Err(refuse(reason, place, format!("a regular file `{prefix}…`, mode 0644"), ustar::describe(&block)))
    }

    fn take(&mut self) -> Result<Block, Error> {
        let block = self.peek()?;
        self.peeked = None;
        Ok(block)
    }

    /// Takes the header of the one entry that may come now.
    pub(crate) fn expect(&mut self, name: &str, size: u64) -> Result<(), Error> {
        let item = Item::Regular { mode: MODE, size };
        let wanted = ustar::header(name, item).map_err(|what| {
            refuse(Reason::Size, format!("entry `{}`", quote(name)), "an entry that fits a ustar header", what)
        })?;
        let at = self.offset();
        let block = self.take()?;
        if block == wanted {
            return Ok(());
        }
        let reason = match ustar::parse_regular(&block) {
            Some((found, _)) if found == name => Reason::Size,
            Some(_) => Reason::Entry,
            None if block == [0; BLOCK] => Reason::Entry,
            None => Reason::Header,
        };
        Err(refuse(
            reason,
            format!("the entry at offset {at}"),
            ustar::describe_item(name, item),
            describe_difference(&block, &wanted),
        ))
    }

    /// Takes the header of an entry whose size is not known yet: the size it gives, at most `limit`.
    pub(crate) fn expect_up_to(&mut self, name: &str, limit: u64) -> Result<u64, Error> {
        let block = self.peek()?;
        match ustar::parse_regular(&block) {
            Some((found, size)) if found == name && size <= limit => {
                self.peeked = None;
                Ok(size)
            }
            Some((found, size)) if found == name => {
                let place = format!("the entry at offset {}", self.offset());
                Err(refuse(
                    Reason::Size,
                    place,
                    format!("`{}` of at most {limit} bytes", quote(name)),
                    format!("{size} bytes"),
                ))
            }
            found => {
                let reason = if found.is_some() || block == [0; BLOCK] { Reason::Entry } else { Reason::Header };
                let place = format!("the entry at offset {}", self.offset());
                Err(refuse(
                    reason,
                    place,
                    format!("a regular file `{}`, mode 0644", quote(name)),
                    ustar::describe(&block),
                ))
            }
        }
    }

    /// Reads content into memory, and the padding after it.
    pub(crate) fn content(&mut self, name: &str, size: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        self.fill(&mut bytes, &format!("`{}`", quote(name)))?;
        self.padding(name, size)?;
        Ok(bytes)
    }

    /// Takes the padding after content of `size` bytes.
    pub(crate) fn padding(&mut self, name: &str, size: u64) -> Result<(), Error> {
        let mut block = [0; BLOCK];
        let padding = &mut block[..ustar::padding(size)];
        let at = self.offset;
        self.fill(padding, &format!("the padding after `{}`", quote(name)))?;
        if padding.iter().any(|byte| *byte != 0) {
            let place = format!("the padding after `{}`, offset {at}", quote(name));
            return Err(refuse(Reason::Header, place, "zero bytes", "other bytes"));
        }
        Ok(())
    }

    /// Takes the end mark and makes sure that nothing follows.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        let at = self.offset();
        let first = self.take()?;
        if first != [0; BLOCK] {
            let (reason, found) = match ustar::parse_regular(&first) {
                Some(_) => (Reason::Entry, ustar::describe(&first)),
                None => (Reason::Header, ustar::describe(&first)),
            };
            return Err(refuse(reason, format!("offset {at}"), "the end of the bundle", found));
        }
        let mut second = [0; BLOCK];
        self.fill(&mut second, "the end of the bundle")?;
        if second != [0; BLOCK] {
            let place = format!("offset {}", at + BLOCK as u64);
            return Err(refuse(Reason::Header, place, "the second zero block of the end", "other bytes"));
        }
        let mut one = [0];
        loop {
            match self.reader.read(&mut one) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    let place = format!("offset {}", self.offset);
                    return Err(refuse(Reason::Trailing, place, "the end of the file", "more bytes"));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
    }
}

impl<'a, R: Read + Seek> Archive<&'a mut R> {
    /// An archive read from a place in the middle.
    pub(crate) fn at(reader: &'a mut R, offset: u64) -> Result<Self, Error> {
        reader.seek(SeekFrom::Start(offset)).map_err(Error::Read)?;
        Ok(Self { reader, offset, peeked: None })
    }
}

/// Describes a header that is not the wanted one; when both would be described alike, the first differing byte.
pub(crate) fn describe_difference(block: &Block, wanted: &Block) -> String {
    let found = ustar::describe(block);
    if found != ustar::describe(wanted) {
        return found;
    }
    let at = block.iter().zip(wanted).position(|(a, b)| a != b).unwrap_or(0);
    format!("{found}, but byte {at} of its header is {:#04x} instead of {:#04x}", block[at], wanted[at])
}
