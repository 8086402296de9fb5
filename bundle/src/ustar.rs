//! The one form of tar header that the format has (POSIX ustar), for the bundle and for its layers.
//!
//! A header is a pure function of name, kind, mode and size. The reader never interprets a header it was given: it makes the
//! header that must be there and compares all 512 bytes. Devices, hard links, setuid bits, PAX and GNU records, odd owners
//! and odd spellings of numbers therefore need no rule of their own. [`describe`] exists for error messages only.

use crate::error::quote;

/// Size of a tar block.
pub(crate) const BLOCK: usize = 512;
/// Zero bytes at the end of an archive: two blocks, no blocking factor.
pub(crate) const END: usize = 2 * BLOCK;
/// The modification time of everything: 1980-01-01T00:00:00Z, so that an unchanged component keeps its bytes.
pub(crate) const MTIME: u64 = 315_532_800;
/// The largest size a ustar header can hold: 11 octal digits.
pub(crate) const SIZE_LIMIT: u64 = (1 << 33) - 1;

/// A tar block.
pub(crate) type Block = [u8; BLOCK];

/// What a header describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    Regular { mode: u32, size: u64 },
    Directory,
    Symlink { target: &'a str },
}

/// Bytes that follow content of `size` bytes up to the next block boundary.
pub(crate) fn padding(size: u64) -> usize {
    // The remainder is below 512.
    #[allow(clippy::cast_possible_truncation)]
    let over = (size % BLOCK as u64) as usize;
    (BLOCK - over) % BLOCK
}

/// The header for an entry, or what of it does not fit.
///
/// Names over 100 bytes are split at the last `/` that leaves at most 155 bytes before it. Directories end with `/`.
pub(crate) fn header(path: &str, item: Item<'_>) -> Result<Block, &'static str> {
    let mut block = [0; BLOCK];
    let (mode, size, kind, link) = match item {
        Item::Regular { mode, size } => (mode, size, b'0', ""),
        Item::Directory => (0o755, 0, b'5', ""),
        Item::Symlink { target } => (0o777, 0, b'2', target),
    };
    let mut name = path.to_owned();
    if kind == b'5' {
        name.push('/');
    }
    let (prefix, name) = split(&name).ok_or("a path too long for a ustar header")?;
    if link.len() > 100 {
        return Err("a link target over 100 bytes");
    }
    if size > SIZE_LIMIT {
        return Err("a size of 8 GiB or more");
    }
    if mode > 0o7777 {
        return Err("a mode with bits outside 07777");
    }
    put(&mut block, 0, name.as_bytes());
    octal(&mut block, 100, 7, u64::from(mode));
    octal(&mut block, 108, 7, 0);
    octal(&mut block, 116, 7, 0);
    octal(&mut block, 124, 11, size);
    octal(&mut block, 136, 11, MTIME);
    block[156] = kind;
    put(&mut block, 157, link.as_bytes());
    put(&mut block, 257, b"ustar\x0000");
    octal(&mut block, 329, 7, 0);
    octal(&mut block, 337, 7, 0);
    put(&mut block, 345, prefix.as_bytes());
    let sum = checksum(&block);
    octal(&mut block, 148, 6, sum);
    block[155] = b' ';
    Ok(block)
}

/// The sum of all bytes, with the checksum field itself counted as spaces.
pub(crate) fn checksum(block: &Block) -> u64 {
    let bytes = block.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let field = block[148..156].iter().map(|byte| u64::from(*byte)).sum::<u64>();
    bytes - field + 8 * u64::from(b' ')
}

fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= 100 {
        return Some(("", name));
    }
    // Not at the `/` that ends a directory's name.
    let (at, _) = name[..name.len() - 1].rmatch_indices('/').find(|(at, _)| *at <= 155)?;
    let (prefix, rest) = (&name[..at], &name[at + 1..]);
    (rest.len() <= 100).then_some((prefix, rest))
}

fn put(block: &mut Block, at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Writes `digits` octal digits; the byte after them stays zero.
fn octal(block: &mut Block, at: usize, digits: usize, mut value: u64) {
    for place in (at..at + digits).rev() {
        // Below 8.
        #[allow(clippy::cast_possible_truncation)]
        let digit = (value & 7) as u8;
        block[place] = b'0' + digit;
        value >>= 3;
    }
}

/// Name and size of a regular file, if the header is exactly as this module writes it with mode 0644.
pub(crate) fn parse_regular(block: &Block) -> Option<(String, u64)> {
    let name = full_name(block)?;
    let size = number(&block[124..136])?;
    let same = header(&name, Item::Regular { mode: 0o644, size }).ok()?;
    (same == *block).then_some((name, size))
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

fn full_name(block: &Block) -> Option<String> {
    let name = std::str::from_utf8(text(&block[..100])).ok()?;
    let prefix = std::str::from_utf8(text(&block[345..500])).ok()?;
    Some(if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") })
}

fn number(field: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text(field)).ok()?.trim();
    u64::from_str_radix(digits, 8).ok()
}

/// Says what a block claims to be, for error messages; trusts nothing in it.
pub(crate) fn describe(block: &Block) -> String {
    if *block == [0; BLOCK] {
        return "the end of the archive".to_owned();
    }
    if number(&block[148..156]) != Some(checksum(block)) {
        return "a block that is not a tar header (its checksum is wrong)".to_owned();
    }
    let kind = match block[156] {
        b'0' => "a regular file",
        0 => "an old-style regular file",
        b'1' => "a hard link",
        b'2' => "a symbolic link",
        b'3' => "a character device",
        b'4' => "a block device",
        b'5' => "a directory",
        b'6' => "a fifo",
        b'7' => "a contiguous file",
        b'x' | b'X' => "a PAX record",
        b'g' => "a global PAX record",
        b'L' => "a GNU long name record",
        b'K' => "a GNU long link record",
        b'S' => "a GNU sparse file",
        _ => "an entry of unknown type",
    };
    let name = full_name(block).map_or_else(|| "(not UTF-8)".to_owned(), |name| format!("`{}`", quote(&name)));
    let mode = number(&block[100..108]).map_or_else(|| "?".to_owned(), |mode| format!("{mode:04o}"));
    let size = number(&block[124..136]).map_or_else(|| "?".to_owned(), |size| size.to_string());
    let mut text = format!("{kind} {name}, mode {mode}, {size} bytes");
    if matches!(block[156], b'1' | b'2') {
        let target = String::from_utf8_lossy(self::text(&block[157..257])).into_owned();
        text = format!("{kind} {name} to `{}`", quote(&target));
    }
    if &block[257..265] != b"ustar\x0000" {
        text.push_str(" (not a ustar header)");
    }
    text
}

/// What must be there, in the words of [`describe`].
pub(crate) fn describe_item(path: &str, item: Item<'_>) -> String {
    let path = quote(path);
    match item {
        Item::Regular { mode, size } => format!("a regular file `{path}`, mode {mode:04o}, {size} bytes"),
        Item::Directory => format!("a directory `{path}/`, mode 0755, 0 bytes"),
        Item::Symlink { target } => format!("a symbolic link `{path}` to `{}`", quote(target)),
    }
}
