//! RPM package versions: `[epoch:]version[-release]`, ordered as rpm orders them (rpm-version(7), rpmio/rpmvercmp.c).

use std::cmp::Ordering;
use std::fmt;

/// Epoch, version and release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Evr {
    /// `None` where none was written: it then counts as 0.
    pub epoch: Option<u64>,
    /// Upstream version.
    pub version: Box<str>,
    /// Release; `None` where a dependency does not name one, which then fits every release.
    pub release: Option<Box<str>>,
}

/// How a dependency's version is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
}

impl Evr {
    /// Reads `[epoch:]version[-release]`; an epoch that is no number is part of the version, as in rpm.
    pub fn parse(text: &str) -> Self {
        let (epoch, rest) = match text.split_once(':') {
            Some(("", rest)) => (Some(0), rest),
            Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => {
                (Some(epoch.parse().unwrap_or(u64::MAX)), rest)
            }
            _ => (None, text),
        };
        let (version, release) = match rest.rsplit_once('-') {
            Some((version, release)) => (version, Some(release)),
            None => (rest, None),
        };
        Self { epoch, version: version.into(), release: release.map(Into::into) }
    }

    /// Compares as rpm does: releases only where both sides have one.
    pub fn compare(&self, other: &Self) -> Ordering {
        let epochs = self.epoch.unwrap_or(0).cmp(&other.epoch.unwrap_or(0));
        epochs.then_with(|| compare(&self.version, &other.version)).then_with(|| {
            match (&self.release, &other.release) {
                (Some(left), Some(right)) => compare(left, right),
                _ => Ordering::Equal,
            }
        })
    }

    /// `VERSION-RELEASE` as in a package's file name: without the epoch.
    pub fn without_epoch(&self) -> String {
        Self { epoch: None, ..self.clone() }.to_string()
    }
}

impl fmt::Display for Evr {
    /// An epoch of 0 is not written, as `rpm -q` does not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(epoch) = self.epoch.filter(|epoch| *epoch > 0) {
            write!(f, "{epoch}:")?;
        }
        f.write_str(&self.version)?;
        match &self.release {
            Some(release) => write!(f, "-{release}"),
            None => Ok(()),
        }
    }
}

impl Relation {
    /// Reads `<`, `<=`, `=`, `>=`, `>`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            "=" => Self::Equal,
            ">=" => Self::GreaterOrEqual,
            ">" => Self::Greater,
            _ => return None,
        })
    }

    /// As in a spec file.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
            Self::GreaterOrEqual => ">=",
            Self::Greater => ">",
        }
    }

    fn upwards(self) -> bool {
        matches!(self, Self::Greater | Self::GreaterOrEqual)
    }

    fn downwards(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual)
    }

    fn with_equal(self) -> bool {
        matches!(self, Self::LessOrEqual | Self::Equal | Self::GreaterOrEqual)
    }
}

/// Whether the ranges of a provide and of a requirement of the same name overlap (rpmdsCompare); `None` is the range of
/// all versions.
pub fn overlaps(provided: Option<&(Relation, Evr)>, required: Option<&(Relation, Evr)>) -> bool {
    let (Some((left, provided)), Some((right, required))) = (provided, required) else { return true };
    match provided.compare(required) {
        Ordering::Less => left.upwards() || right.downwards(),
        Ordering::Greater => left.downwards() || right.upwards(),
        Ordering::Equal => {
            (left.with_equal() && right.with_equal())
                || (left.upwards() && right.upwards())
                || (left.downwards() && right.downwards())
        }
    }
}

/// Compares two versions or two releases (rpmvercmp): runs of digits as numbers, runs of letters as text, everything else
/// only separates. `~` sorts before the end, `^` after the end but before anything else that follows.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    if left == right {
        return Ordering::Equal;
    }
    loop {
        skip_separators(&mut left);
        skip_separators(&mut right);
        match (left.first(), right.first()) {
            (Some(b'~'), Some(b'~')) | (Some(b'^'), Some(b'^')) => {
                left = &left[1..];
                right = &right[1..];
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) => return Ordering::Greater,
            _ => {}
        }
        match (left.first(), right.first()) {
            (None, None) => return Ordering::Equal,
            // Whichever has something left over is newer, also if that begins with `^`.
            (Some(_), None) => return Ordering::Greater,
            (None, Some(_)) => return Ordering::Less,
            (Some(a), Some(b)) if (*a == b'^') != (*b == b'^') => return (*b == b'^').cmp(&(*a == b'^')),
            (Some(_), Some(_)) => {}
        }
        let numeric = left[0].is_ascii_digit();
        let belongs = |byte: &u8| if numeric { byte.is_ascii_digit() } else { byte.is_ascii_alphabetic() };
        let (a, b) = (split(&mut left, belongs), split(&mut right, belongs));
        if b.is_empty() {
            // Numbers are newer than letters.
            return if numeric { Ordering::Greater } else { Ordering::Less };
        }
        let ordering = if numeric { number(a).cmp(&number(b)) } else { a.cmp(b) };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

fn skip_separators(rest: &mut &[u8]) {
    let separates = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'~' && *byte != b'^';
    split(rest, separates);
}

fn split<'a>(rest: &mut &'a [u8], belongs: impl Fn(&u8) -> bool) -> &'a [u8] {
    let end = rest.iter().position(|byte| !belongs(byte)).unwrap_or(rest.len());
    let (part, after) = rest.split_at(end);
    *rest = after;
    part
}

/// Length without leading zeros, then digits: numbers of any size.
fn number(digits: &[u8]) -> (usize, &[u8]) {
    let start = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    (digits.len() - start, &digits[start..])
}

/// Cases of rpm's own test suite (tests/rpmvercmp.at) and a few more.
#[doc(hidden)]
pub const KNOWN_CASES: &[(&str, &str, Ordering)] = &[
    ("1.0", "1.0", Ordering::Equal),
    ("1.0", "2.0", Ordering::Less),
    ("2.0.1", "2.0.1", Ordering::Equal),
    ("2.0", "2.0.1", Ordering::Less),
    ("2.0.1a", "2.0.1a", Ordering::Equal),
    ("2.0.1a", "2.0.1", Ordering::Greater),
    ("5.5p1", "5.5p2", Ordering::Less),
    ("5.5p10", "5.5p10", Ordering::Equal),
    ("5.5p1", "5.5p10", Ordering::Less),
    ("10xyz", "10.1xyz", Ordering::Less),
    ("xyz10", "xyz10.1", Ordering::Less),
    ("xyz.4", "xyz.4", Ordering::Equal),
    ("xyz.4", "8", Ordering::Less),
    ("xyz.4", "2", Ordering::Less),
    ("5.5p2", "5.6p1", Ordering::Less),
    ("5.6p1", "6.5p1", Ordering::Less),
    ("6.0.rc1", "6.0", Ordering::Greater),
    ("10b2", "10a1", Ordering::Greater),
    ("1.0a", "1.0aa", Ordering::Less),
    ("10.0001", "10.1", Ordering::Equal),
    ("10.0001", "10.0039", Ordering::Less),
    ("4.999.9", "5.0", Ordering::Less),
    ("20101121", "20101122", Ordering::Less),
    ("2_0", "2.0", Ordering::Equal),
    ("a", "a", Ordering::Equal),
    ("a+", "a+", Ordering::Equal),
    ("a+", "a_", Ordering::Equal),
    ("+a", "_a", Ordering::Equal),
    ("+_", "_+", Ordering::Equal),
    ("+", "_", Ordering::Equal),
    ("1.0~rc1", "1.0~rc1", Ordering::Equal),
    ("1.0~rc1", "1.0", Ordering::Less),
    ("1.0~rc1", "1.0~rc2", Ordering::Less),
    ("1.0~rc1~git123", "1.0~rc1~git123", Ordering::Equal),
    ("1.0~rc1~git123", "1.0~rc1", Ordering::Less),
    ("1.0^", "1.0^", Ordering::Equal),
    ("1.0^", "1.0", Ordering::Greater),
    ("1.0^git1", "1.0^git1", Ordering::Equal),
    ("1.0^git1", "1.0", Ordering::Greater),
    ("1.0^git1", "1.0^git2", Ordering::Less),
    ("1.0^git1", "1.01", Ordering::Less),
    ("1.0^20160101", "1.0.1", Ordering::Less),
    ("1.0^20160101^git1", "1.0^20160101^git1", Ordering::Equal),
    ("1.0^20160102", "1.0^20160101^git1", Ordering::Greater),
    ("1.0~rc1^git1", "1.0~rc1^git1", Ordering::Equal),
    ("1.0~rc1^git1", "1.0~rc1", Ordering::Greater),
    ("1.0^git1~pre", "1.0^git1~pre", Ordering::Equal),
    ("1.0^git1", "1.0^git1~pre", Ordering::Greater),
    ("1.0^git1", "1.0~rc1", Ordering::Greater),
    ("1.0^a", "1.0.a", Ordering::Less),
    ("1b.fc17", "1b.fc17", Ordering::Equal),
    ("1b.fc17", "1.fc17", Ordering::Less),
    ("1g.fc17", "1.fc17", Ordering::Greater),
    ("5.14.0", "5.14.0a", Ordering::Less),
    ("34.el9", "34.el9_2.1", Ordering::Less),
    ("99999999999999999999999", "100000000000000000000000", Ordering::Less),
    ("007", "7", Ordering::Equal),
    ("1..0", "1.0", Ordering::Equal),
    ("1.0.", "1.0", Ordering::Equal),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_as_rpm_orders_them() {
        for (left, right, expected) in KNOWN_CASES {
            assert_eq!(compare(left, right), *expected, "{left} {right}");
            assert_eq!(compare(right, left), expected.reverse(), "{right} {left}");
        }
    }

    #[test]
    fn epochs_come_first_and_releases_only_when_both_have_one() {
        for (left, right, expected) in [
            ("1:1.0-1", "2.0-1", Ordering::Greater),
            ("0:1.0-1", "1.0-1", Ordering::Equal),
            ("1.0-1", "1.0", Ordering::Equal),
            ("1.0-1.el9", "1.0-2.el9", Ordering::Less),
            ("2:1.0-1", "2:1.0-1", Ordering::Equal),
        ] {
            assert_eq!(Evr::parse(left).compare(&Evr::parse(right)), expected, "{left} {right}");
        }
        for text in ["1:1.0-1", "1.0-1.el9", "1.0"] {
            assert_eq!(Evr::parse(text).to_string(), text);
        }
        assert_eq!(Evr::parse("0:1-1").to_string(), "1-1");
        assert_eq!(Evr::parse("3:1-1").without_epoch(), "1-1");
    }

    #[test]
    fn ranges_overlap_as_in_rpm() {
        let range = |text: &str| -> Option<(Relation, Evr)> {
            let (sign, version) = text.split_once(' ')?;
            Some((Relation::parse(sign)?, Evr::parse(version)))
        };
        for (provided, required, expected) in [
            ("", "", true),
            ("= 1.0-1", "", true),
            ("", ">= 9", true),
            ("= 1.0-1", ">= 1.0", true),
            ("= 1.0-1", "> 1.0", false),
            ("= 1.0-1", "= 1.0-2", false),
            ("= 1.0-1", "= 1.0", true),
            ("= 1.0-1", "< 1.0-1", false),
            ("= 1.0-1", "<= 1.0-1", true),
            ("= 1:1.0-1", "< 2.0", false),
            (">= 2", "< 1", false),
            (">= 1", "< 2", true),
            ("< 2", "> 1", true),
            ("> 1", "> 1", true),
            ("< 1", ">= 1", false),
        ] {
            assert_eq!(overlaps(range(provided).as_ref(), range(required).as_ref()), expected, "{provided} {required}");
        }
    }
}
