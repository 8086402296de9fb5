//! What a program or library needs of the machine it is run on: architecture, libraries, loader, version of glibc.
//!
//! Reads what the dynamic loader reads (program headers and the dynamic table; section headers may be stripped or lie), a few
//! kilobytes of a file of any size. Nobody has vouched for the file: every offset is checked, every table is bounded, and a
//! damaged file is an error, never a panic.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::str::FromStr;

use anyhow::Context as _;
use bundle::LayerPath;
use bundle::layer::{PackEntry, Source};
use elf::dynamic::Dyn;
use elf::endian::AnyEndian;
use elf::file::{Class, ELF32_EHDR_TAILSIZE, ELF64_EHDR_TAILSIZE, FileHeader, parse_ident};
use elf::gnu_symver::VerNeedIterator;
use elf::parse::{ParseAt as _, ParsingTable};
use elf::segment::ProgramHeader;
use elf::string_table::StringTable;
use elf::{ParseError, abi};
use serde::{Deserialize, Serialize};

/// Bytes of the dynamic table at most: 64-bit entries have 16.
const DYNAMIC_LIMIT: u64 = 1 << 16;
/// Bytes of the dynamic string table at most.
const STRINGS_LIMIT: u64 = 32 << 20;
/// Bytes of the version requirements at most; the largest seen have about a kilobyte.
const VERSIONS_LIMIT: u64 = 1 << 20;
/// Bytes of the loader's path at most (`PATH_MAX`).
const INTERPRETER_LIMIT: u64 = 4096;
/// Libraries and version requirements at most, each.
const ENTRY_LIMIT: u64 = 1 << 14;

/// The ELF files of a component by path; a damaged one with what is wrong with it.
pub type ElfFiles = BTreeMap<LayerPath, Result<Elf, String>>;

/// What one ELF file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elf {
    /// The kernel's name of its architecture (`x86_64`, `aarch64`), or `ELF machine N` for any other.
    pub machine: String,
    /// The dynamic loader it asks for; `None` for libraries and static programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// What others call it (`DT_SONAME`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soname: Option<String>,
    /// Libraries it needs, in its order (`DT_NEEDED`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needed: Vec<String>,
    /// Directories it looks for them in first (`DT_RUNPATH`, else `DT_RPATH`), as written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run_path: Vec<String>,
    /// The highest `GLIBC_x` symbol version it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glibc: Option<GlibcVersion>,
    /// `GLIBC_` requirements that are no release, for example `GLIBC_PRIVATE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unusual: Vec<String>,
}

/// A release of the GNU C library: `2.36`, `2.2.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GlibcVersion([u16; 3]);

impl FromStr for GlibcVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not a version of glibc: expected for example 2.36");
        let mut parts = [0; 3];
        let mut count = 0;
        for part in text.split('.') {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            *parts.get_mut(count).filter(|_| digits).ok_or_else(refused)? = part.parse().map_err(|_| refused())?;
            count += 1;
        }
        if count < 2 { Err(refused()) } else { Ok(Self(parts)) }
    }
}

impl TryFrom<String> for GlibcVersion {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<GlibcVersion> for String {
    fn from(version: GlibcVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for GlibcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}")?;
        if patch == 0 { Ok(()) } else { write!(f, ".{patch}") }
    }
}

/// Reads the ELF files among the entries of a layer that is about to be packed.
pub fn of_entries(entries: &BTreeMap<LayerPath, PackEntry>) -> anyhow::Result<ElfFiles> {
    let mut found = ElfFiles::new();
    for (path, entry) in entries {
        let PackEntry::Regular { source: Source::File(content), .. } = entry else { continue };
        match read(&mut fs_err::File::open(content)?) {
            Ok(None) => {}
            Ok(Some(elf)) => drop(found.insert(path.clone(), Ok(elf))),
            Err(ElfError::Io(error)) => return Err(error).with_context(|| format!("reading `{path}`")),
            Err(ElfError::Damaged(what)) => drop(found.insert(path.clone(), Err(what))),
        }
    }
    Ok(found)
}

/// Why a file could not be read as ELF.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file could not be read at all.
    #[error("reading the file")]
    Io(#[from] std::io::Error),
    /// It starts like an ELF file and is none.
    #[error("{0}")]
    Damaged(String),
}

impl From<ParseError> for ElfError {
    fn from(error: ParseError) -> Self {
        Self::Damaged(error.to_string())
    }
}

fn damaged<T>(what: impl Into<String>) -> Result<T, ElfError> {
    Err(ElfError::Damaged(what.into()))
}

/// Reads one file; `None` if it does not start as ELF files do.
pub fn read(file: &mut (impl Read + Seek)) -> Result<Option<Elf>, ElfError> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut source = Image { file, size };
    if size < abi::EI_NIDENT as u64 {
        return Ok(None);
    }
    let ident = source.bytes(0, abi::EI_NIDENT as u64)?;
    if !ident.starts_with(&abi::ELFMAGIC) {
        return Ok(None);
    }
    let ident = parse_ident::<AnyEndian>(&ident)?;
    let (endian, class, ..) = ident;
    let tail = if class == Class::ELF64 { ELF64_EHDR_TAILSIZE } else { ELF32_EHDR_TAILSIZE };
    let header = FileHeader::parse_tail(ident, &source.bytes(abi::EI_NIDENT as u64, tail as u64)?)?;
    let mut elf = Elf {
        machine: machine(&header),
        interpreter: None,
        soname: None,
        needed: Vec::new(),
        run_path: Vec::new(),
        glibc: None,
        unusual: Vec::new(),
    };
    let segments = segments(&mut source, &header)?;
    if let Some(segment) = segments.iter().find(|segment| segment.p_type == abi::PT_INTERP) {
        let bytes = source.bounded(segment.p_offset, segment.p_filesz, INTERPRETER_LIMIT, "the loader's path")?;
        elf.interpreter = Some(StringTable::new(&bytes).get(0)?.to_owned());
    }
    if let Some(segment) = segments.iter().find(|segment| segment.p_type == abi::PT_DYNAMIC) {
        let bytes = source.bounded(segment.p_offset, segment.p_filesz, DYNAMIC_LIMIT, "the dynamic table")?;
        let table = ParsingTable::<AnyEndian, Dyn>::new(endian, class, &bytes);
        let entries: Vec<Dyn> = table.iter().take_while(|entry| entry.d_tag != abi::DT_NULL).collect();
        dynamic(&mut source, &segments, &entries, (endian, class), &mut elf)?;
    }
    Ok(Some(elf))
}

fn machine(header: &FileHeader<AnyEndian>) -> String {
    match (header.e_machine, header.class, header.endianness) {
        (abi::EM_X86_64, Class::ELF64, AnyEndian::Little) => "x86_64".into(),
        (abi::EM_AARCH64, Class::ELF64, AnyEndian::Little) => "aarch64".into(),
        (machine, class, endian) => {
            let bits = if class == Class::ELF64 { 64 } else { 32 };
            let end = if endian == AnyEndian::Little { "little" } else { "big" };
            format!("ELF machine {machine} ({bits} bit, {end} endian)")
        }
    }
}

fn segments(
    source: &mut Image<'_, impl Read + Seek>,
    header: &FileHeader<AnyEndian>,
) -> Result<Vec<ProgramHeader>, ElfError> {
    if header.e_phnum == 0 {
        return Ok(Vec::new());
    }
    let size = ProgramHeader::size_for(header.class);
    if usize::from(header.e_phentsize) != size {
        return damaged(format!("its program headers have {} bytes each, expected {size}", header.e_phentsize));
    }
    let bytes = source.bytes(header.e_phoff, u64::from(header.e_phnum) * size as u64)?;
    Ok(ParsingTable::<AnyEndian, ProgramHeader>::new(header.endianness, header.class, &bytes).iter().collect())
}

/// Libraries, names and versions out of the dynamic table.
fn dynamic(
    source: &mut Image<'_, impl Read + Seek>,
    segments: &[ProgramHeader],
    entries: &[Dyn],
    format: (AnyEndian, Class),
    elf: &mut Elf,
) -> Result<(), ElfError> {
    let value = |tag: i64| entries.iter().find(|entry| entry.d_tag == tag).map(Dyn::d_val);
    let named = [abi::DT_NEEDED, abi::DT_SONAME, abi::DT_RPATH, abi::DT_RUNPATH, abi::DT_VERNEED];
    let (address, size) = match (value(abi::DT_STRTAB), value(abi::DT_STRSZ)) {
        (Some(address), Some(size)) => (address, size),
        _ if entries.iter().any(|entry| named.contains(&entry.d_tag)) => return damaged("it has no string table"),
        _ => return Ok(()),
    };
    let (offset, _) = place(segments, address)?;
    let bytes = source.bounded(offset, size, STRINGS_LIMIT, "the string table")?;
    let strings = StringTable::new(&bytes);
    let text = |offset: u64| -> Result<String, ElfError> {
        let text = strings.get(usize::try_from(offset).unwrap_or(usize::MAX))?;
        let plain = !text.is_empty() && text.len() <= 4096 && !text.chars().any(char::is_control);
        if plain { Ok(text.to_owned()) } else { damaged(format!("it has the name `{}`", quote(text))) }
    };
    elf.soname = value(abi::DT_SONAME).map(text).transpose()?;
    for entry in entries.iter().filter(|entry| entry.d_tag == abi::DT_NEEDED) {
        elf.needed.push(text(entry.d_val())?);
    }
    // The loader ignores DT_RPATH when there is DT_RUNPATH (ld.so(8)).
    if let Some(offset) = value(abi::DT_RUNPATH).or_else(|| value(abi::DT_RPATH)) {
        let path = strings.get(usize::try_from(offset).unwrap_or(usize::MAX))?;
        elf.run_path = path.split(':').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    }
    let (Some(address), Some(count)) = (value(abi::DT_VERNEED), value(abi::DT_VERNEEDNUM)) else { return Ok(()) };
    let (offset, rest) = place(segments, address)?;
    let bytes = source.bytes(offset, rest.min(VERSIONS_LIMIT))?;
    for offset in version_names(format, count, &bytes)? {
        let name = text(offset)?;
        let Some(version) = name.strip_prefix("GLIBC_") else { continue };
        // Relative relocations in their packed form need a loader of glibc 2.36 or newer (its NEWS for 2.36).
        match if version == "ABI_DT_RELR" { "2.36" } else { version }.parse() {
            Ok(version) => elf.glibc = elf.glibc.max(Some(version)),
            Err(_) => elf.unusual.push(name),
        }
    }
    Ok(())
}

/// Where in the string table the names of the versions lie that must be there (weak ones need not).
fn version_names((endian, class): (AnyEndian, Class), count: u64, bytes: &[u8]) -> Result<Vec<u64>, ElfError> {
    if count > ENTRY_LIMIT {
        return damaged(format!("it has {count} version requirements"));
    }
    let mut names = Vec::new();
    let mut libraries = 0;
    for (need, versions) in VerNeedIterator::new(endian, class, count, 0, bytes) {
        libraries += 1;
        let before = names.len();
        names.extend(versions.map(|version| (version.vna_flags, u64::from(version.vna_name))));
        // The iterator ends where the table cannot be read: that must not pass for a short table.
        if names.len() - before != usize::from(need.vn_cnt) || names.len() as u64 > ENTRY_LIMIT {
            return damaged("its version requirements cannot be read");
        }
    }
    if libraries != count {
        return damaged("its version requirements cannot be read");
    }
    Ok(names.into_iter().filter(|(flags, _)| flags & abi::VER_FLG_WEAK == 0).map(|(_, name)| name).collect())
}

/// Where an address lies in the file, and how many bytes of its segment follow.
fn place(segments: &[ProgramHeader], address: u64) -> Result<(u64, u64), ElfError> {
    let found = segments.iter().filter(|segment| segment.p_type == abi::PT_LOAD).find_map(|segment| {
        let within = address.checked_sub(segment.p_vaddr)?;
        let rest = segment.p_filesz.checked_sub(within).filter(|rest| *rest > 0)?;
        Some((segment.p_offset.checked_add(within)?, rest))
    });
    found.map_or_else(|| damaged(format!("nothing of it is at address {address:#x}")), Ok)
}

fn quote(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// A file that is read in pieces.
struct Image<'a, F> {
    file: &'a mut F,
    size: u64,
}

impl<F: Read + Seek> Image<'_, F> {
    /// Bytes of a table that has at most `limit`.
    fn bounded(&mut self, offset: u64, size: u64, limit: u64, what: &str) -> Result<Vec<u8>, ElfError> {
        if size > limit {
            return damaged(format!("{what} has {size} bytes, at most {limit} are believed"));
        }
        self.bytes(offset, size)
    }

    fn bytes(&mut self, offset: u64, size: u64) -> Result<Vec<u8>, ElfError> {
        let end = offset.checked_add(size).filter(|end| *end <= self.size);
        let (Some(_), Ok(length)) = (end, usize::try_from(size)) else {
            return damaged(format!("it ends at byte {}, but has something at {offset}", self.size));
        };
        let mut bytes = vec![0; length];
        self.file.seek(SeekFrom::Start(offset))?;
        match self.file.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => damaged("it ends too early"),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod forged;
#[cfg(test)]
mod tests;
