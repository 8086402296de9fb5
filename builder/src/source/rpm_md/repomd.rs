//! repomd.xml: what a repository's metadata is, with checksums; the root of the chain, signed or not.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bundle::Digest;

use super::checksum::Checksum;
use super::xml::{self, Node};
use crate::failure::Failure;
use crate::source::check_location;

/// Largest repomd.xml and signature: real ones have a few KiB.
pub(super) const LIMIT: u64 = 1 << 20;

/// A repository's list of metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repomd {
    /// `revision` if that is a number, else the newest `timestamp` of its metadata: an older one is refused later.
    pub revision: u64,
    /// Digest of the file.
    pub digest: Digest,
    /// Its packages.
    pub primary: Listed,
    /// Files of all packages.
    pub filelists: Option<Listed>,
    /// Whether it has module streams (`modules`).
    pub modular: bool,
}

/// A metadata file that the list vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path below the repository.
    pub path: String,
    /// Bytes.
    pub size: Option<u64>,
    /// Content.
    pub checksum: Checksum,
    /// Bytes once unpacked.
    pub open_size: Option<u64>,
    /// Content once unpacked.
    pub open_checksum: Option<Checksum>,
}

/// One `data` element while it is read.
#[derive(Default)]
struct Data {
    kind: String,
    path: Option<String>,
    checksum: Option<Checksum>,
    open_checksum: Option<Checksum>,
    size: Option<u64>,
    open_size: Option<u64>,
}

impl Repomd {
    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut revision = None;
        let mut newest = None;
        let mut listed: BTreeMap<String, Data> = BTreeMap::new();
        let mut data: Option<Data> = None;
        let mut kind = String::new();
        xml::read(&mut &*bytes, |node| {
            match node {
                Node::Open(element) => match (element.name(), &mut data) {
                    ("data", _) => data = Some(Data { kind: element.needed("type")?, ..Data::default() }),
                    ("checksum" | "open-checksum", Some(_)) => kind = element.needed("type")?,
                    ("location", Some(data)) => {
                        if element.attribute("xml:base")?.is_some() {
                            return Err(Failure::new("its metadata lies at another address (xml:base)").into());
                        }
                        data.path = Some(element.needed("href")?);
                    }
                    _ => {}
                },
                Node::Close("revision", text) => revision = text.parse::<u64>().ok(),
                Node::Close("data", _) => {
                    if let Some(data) = data.take()
                        && let Some(twice) = listed.insert(data.kind.clone(), data)
                    {
                        return Err(Failure::new(format!("it lists `{}` twice", twice.kind)).into());
                    }
                }
                Node::Close(name, text) => {
                    let Some(data) = &mut data else { return Ok(true) };
                    // Metadata that is not used may have checksums that would be refused.
                    let used = data.kind == "primary" || data.kind == "filelists";
                    let number = || text.parse::<u64>().with_context(|| format!("`{name}` is not a number"));
                    match name {
                        "checksum" if used => data.checksum = Some(Checksum::parse(&kind, text)?),
                        "open-checksum" if used => data.open_checksum = Some(Checksum::parse(&kind, text)?),
                        "size" => data.size = Some(number()?),
                        "open-size" => data.open_size = Some(number()?),
                        // Some tools write fractions of a second.
                        "timestamp" => {
                            let whole = text.split('.').next().unwrap_or_default();
                            newest = newest.max(whole.parse::<u64>().ok());
                        }
                        _ => {}
                    }
                }
            }
            Ok(true)
        })?;
        let modular = listed.contains_key("modules");
        let primary = listed.remove("primary").map(Data::listed).transpose()?;
        Ok(Self {
            revision: revision.or(newest).context("it has neither a revision nor a timestamp that is a number")?,
            digest: Digest::of(bytes),
            primary: primary.context("it lists no primary metadata")?,
            filelists: listed.remove("filelists").map(Data::listed).transpose()?,
            modular,
        })
    }
}

impl Data {
    fn listed(self) -> anyhow::Result<Listed> {
        let Self { kind, path, checksum, open_checksum, size, open_size } = self;
        let path = path.with_context(|| format!("`{kind}` has no location"))?;
        check_location(&path)?;
        let checksum = checksum.with_context(|| format!("`{kind}` has no checksum"))?;
        Ok(Listed { path, size, checksum, open_size, open_checksum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(revision: &str, data: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\">\n<revision>{revision}</revision>{data}</repomd>\n"
        )
    }

    fn data(kind: &str, checksum: &str, path: &str) -> String {
        format!(
            "<data type=\"{kind}\"><checksum type=\"{checksum}\">{0}</checksum><open-checksum type=\"sha256\">{0}</open-checksum><location href=\"{path}\"/><timestamp>1700000000</timestamp><size>10</size><open-size>20</open-size></data>",
            Digest::of(b"x").hex()
        )
    }

    #[test]
    fn the_list_is_read() {
        let text =
            document("7", &(data("primary", "sha256", "repodata/p.xml.gz") + &data("group", "sha", "repodata/g.xml")));
        let read = Repomd::parse(text.as_bytes()).unwrap();
        assert_eq!((read.revision, read.primary.size, read.primary.open_size), (7, Some(10), Some(20)));
        assert_eq!(read.primary.path, "repodata/p.xml.gz");
        assert!(read.filelists.is_none() && !read.modular);
        let text = document("9.4", &(data("primary", "sha256", "p.xml.gz") + &data("modules", "sha256", "m.yaml")));
        let read = Repomd::parse(text.as_bytes()).unwrap();
        assert_eq!((read.revision, read.modular), (1_700_000_000, true));
    }

    #[test]
    fn wrong_lists_are_refused() {
        let primary = data("primary", "sha256", "p.xml.gz");
        for (text, says) in [
            (document("7", ""), "no primary"),
            (document("7", &data("primary", "sha1", "p.xml.gz")), "neither SHA-256 nor SHA-512"),
            (document("7", &data("primary", "md5", "p.xml.gz")), "neither SHA-256 nor SHA-512"),
            (document("7", &data("primary", "sha256", "../p.xml.gz")), "is none in the repository"),
            (document("7", &data("primary", "sha256", "/p.xml.gz")), "is none in the repository"),
            (document("7", &format!("{primary}{primary}")), "twice"),
            (document("x", &primary.replace("1700000000", "soon")), "neither a revision"),
            (document("7", &primary.replace("<size>10", "<size>-1")), "not a number"),
            (document("7", &primary.replace("href", "xml:base=\"http://x/\" href")), "xml:base"),
        ] {
            let error = format!("{:#}", Repomd::parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
