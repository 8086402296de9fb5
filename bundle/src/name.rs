//! Names that have been checked: component and bundle names, versions, architectures, paths inside a layer.
//!
//! Each is a newtype that can only be made by parsing, so that code which takes one need not check again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is not a valid name of its kind.
#[derive(Debug, thiserror::Error)]
#[error("`{found}` is not a valid {kind}: {expected}")]
pub struct NameError {
    kind: &'static str,
    found: String,
    expected: &'static str,
}

impl NameError {
    fn new(kind: &'static str, found: &str, expected: &'static str) -> Self {
        Self { kind, found: found.chars().take(120).collect(), expected }
    }
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

checked_text! {
    /// Name of a component or of a bundle: lower-case letters, digits, `.` and `-`, starting and ending with a letter or
    /// digit, at most 64 bytes.
    ComponentName
}

impl FromStr for ComponentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let bytes = text.as_bytes();
        if bytes.len() <= 64
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().copied().all(inner)
            && !text.contains("..")
        {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError::new("name", text, "expected 1 to 64 of `a-z 0-9 . -`, letters or digits at both ends, no `..`"))
    }
}

checked_text! {
    /// Version of a component, an OS package or a bundle: letters, digits and `. + ~ : _ -`, starting with a letter or
    /// digit, at most 128 bytes. Not necessarily semver: Debian and RPM versions are not.
    Version
}

impl FromStr for Version {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b".+~:_-".contains(&byte);
        let bytes = text.as_bytes();
        let good_start = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
        if bytes.len() <= 128 && good_start && bytes.iter().copied().all(inner) && !text.contains("..") {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError::new("version", text, "expected 1 to 128 of `A-Z a-z 0-9 . + ~ : _ -`, a letter or digit first"))
    }
}

checked_text! {
    /// A path inside a component layer: relative, UTF-8, `/`-separated, no empty, `.` or `..` component, no control
    /// characters, at most 255 bytes and 100 for the last component (what one ustar header can hold).
    LayerPath
}

impl LayerPath {
    /// The path's components, at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The directory that holds it; `None` at the top.
    pub fn parent(&self) -> Option<LayerPath> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// A path below this one.
    pub fn join(&self, below: &str) -> Result<LayerPath, NameError> {
        format!("{}/{below}", self.0).parse()
    }
}

impl FromStr for LayerPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = |part: &str| !part.is_empty() && part.len() <= 100 && part != "." && part != "..";
        if text.len() <= 255 && text.split('/').all(good) && !text.chars().any(|c| c.is_control() || c == '\\') {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError::new(
            "layer path",
            text,
            "expected a relative path without empty, `.` or `..` parts, at most 255 bytes, 100 a part",
        ))
    }
}

/// Processor architecture, named as OCI and Kubernetes name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64 (`uname -m`: x86_64).
    Amd64,
    /// AArch64 (`uname -m`: aarch64).
    Arm64,
}

impl Architecture {
    /// The OCI and Debian name: `amd64`, `arm64`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The kernel's name (`uname -m`), also RPM's: `x86_64`, `aarch64`.
    pub fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Architecture {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "amd64" | "x86_64" => Ok(Self::Amd64),
            "arm64" | "aarch64" => Ok(Self::Arm64),
            _ => Err(NameError::new("architecture", text, "expected amd64 or arm64")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_strict() {
        for good in ["etcd", "kube-apiserver", "kubernetes-1.37", "a"] {
            assert!(good.parse::<ComponentName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "a..b", "a b", "ä", &"a".repeat(65)] {
            assert!(bad.parse::<ComponentName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn layer_paths_stay_inside() {
        for good in ["bin/etcd", "a", "a/b.c/d-e_f", "templates/kubelet.service.j2"] {
            assert!(good.parse::<LayerPath>().is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "./a", "a/.", "../a", "a/../b", "a\0b", "a\nb", "a\\b", &"x/".repeat(130)] {
            assert!(bad.parse::<LayerPath>().is_err(), "{bad}");
        }
        let long = format!("a/{}", "b".repeat(101));
        assert!(long.parse::<LayerPath>().is_err());
    }
}
