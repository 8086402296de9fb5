//! What a bundle says about itself in the annotations of `index.json`, repeated in every signature's trusted comment.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Error, Reason, quote, refuse, refuse_with};
use crate::name::{Architecture, ComponentName, Version};

/// The version of the format; a reader refuses any other.
const FORMAT: &str = "1";

/// Name, version and provenance of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The release line, for example `kubernetes-1.37`; the sequence counts within it.
    pub name: ComponentName,
    /// The version people see.
    pub version: Version,
    /// The one architecture of its programs and packages.
    pub architecture: Architecture,
    /// The rollback counter: raised by people, never lowered within a name.
    pub sequence: u64,
    /// `YYYY-MM-DD` from the manifest; the only date in a bundle.
    pub created: String,
    /// Digest of the lock it was built from.
    pub lock: Digest,
    /// SHA-256 of the installer that was published with it.
    pub installer: Digest,
}

impl Release {
    /// What the trusted comment of a signature over this bundle's index must be, exactly.
    pub fn trusted_comment(&self) -> String {
        let Self { name, version, architecture, sequence, .. } = self;
        format!("sealift name={name} version={version} architecture={architecture} sequence={sequence}")
    }

    /// The bundle's file name: `NAME-VERSION-ARCHITECTURE.bundle`.
    pub fn file_name(&self) -> String {
        format!("{}-{}-{}.bundle", self.name, self.version, self.architecture)
    }

    /// The index annotations for this release.
    #[cfg(feature = "write")]
    pub(crate) fn annotations(&self) -> Result<BTreeMap<String, String>, Error> {
        if !is_date(&self.created) {
            return Err(Error::Input(format!("`{}` is not a date: expected YYYY-MM-DD", self.created)));
        }
        let pairs = [
            ("format", FORMAT.to_owned()),
            ("name", self.name.to_string()),
            ("version", self.version.to_string()),
            ("architecture", self.architecture.to_string()),
            ("sequence", self.sequence.to_string()),
            ("created", self.created.clone()),
            ("lock", self.lock.to_string()),
            ("installer", self.installer.to_string()),
        ];
        Ok(pairs.into_iter().map(|(key, value)| (format!("dev.sealift.{key}"), value)).collect())
    }

    /// Reads the index annotations.
    pub(crate) fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Self, Error> {
        let format = text(annotations, "format")?;
        if format != FORMAT {
            return Err(refuse_with(
                Reason::Metadata,
                "`index.json`",
                format!("bundle format {FORMAT}"),
                format!("format {}", quote(format)),
                Some("use the installer that was published with this bundle"),
            ));
        }
        let created = text(annotations, "created")?;
        if !is_date(created) {
            return Err(refuse(
                Reason::Metadata,
                "`index.json`",
                "a date YYYY-MM-DD as `dev.sealift.created`",
                quote(created),
            ));
        }
        Ok(Self {
            name: value(annotations, "name")?,
            version: value(annotations, "version")?,
            architecture: value(annotations, "architecture")?,
            sequence: value(annotations, "sequence")?,
            created: created.to_owned(),
            lock: value(annotations, "lock")?,
            installer: value(annotations, "installer")?,
        })
    }
}

fn text<'a>(annotations: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str, Error> {
    let key = format!("dev.sealift.{key}");
    annotations
        .get(&key)
        .map(String::as_str)
        .ok_or_else(|| refuse(Reason::Metadata, "`index.json`", format!("the annotation `{key}`"), "none"))
}

/// Parses a value that must be spelled in the one way that we write.
fn value<T: FromStr + fmt::Display>(annotations: &BTreeMap<String, String>, key: &str) -> Result<T, Error> {
    let text = text(annotations, key)?;
    text.parse::<T>().ok().filter(|value| value.to_string() == text).ok_or_else(|| {
        let expected = format!("a well-formed value of `dev.sealift.{key}`");
        refuse(Reason::Metadata, "`index.json`", expected, format!("`{}`", quote(text)))
    })
}

fn is_date(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| text.as_bytes()[range].iter().all(u8::is_ascii_digit);
    text.len() == 10
        && text.is_ascii()
        && &text[4..5] == "-"
        && &text[7..8] == "-"
        && digits(0..4)
        && digits(5..7)
        && digits(8..10)
}
