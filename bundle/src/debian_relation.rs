//! Relations between Debian packages: the values of `Depends`, `Provides`, `Conflicts` … (deb-control(5), Debian policy 7).

use std::cmp::Ordering;
use std::fmt;

use crate::debian_version;
use crate::error::quote;

/// Text that is no relation to a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no relation to a package")]
pub struct NotARelation(String);

/// How versions are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

/// A package by name, perhaps with an architecture and a bound on its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Real or virtual package.
    pub name: &'a str,
    /// `any`, `native` or an architecture, behind a colon.
    pub qualifier: Option<&'a str>,
    /// Bound on the version.
    pub bound: Option<(Operator, &'a str)>,
}

/// Alternatives, of which one must hold.
pub type Group<'a> = Vec<Relation<'a>>;

impl Operator {
    fn sign(self) -> &'static str {
        match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        }
    }
}

impl Relation<'_> {
    /// Whether a version is within the bound.
    pub fn allows(&self, version: &str) -> bool {
        let Some((operator, bound)) = self.bound else { return true };
        let ordering = debian_version::compare(version, bound);
        match operator {
            Operator::Earlier => ordering == Ordering::Less,
            Operator::EarlierOrEqual => ordering != Ordering::Greater,
            Operator::Equal => ordering == Ordering::Equal,
            Operator::LaterOrEqual => ordering != Ordering::Less,
            Operator::Later => ordering == Ordering::Greater,
        }
    }

    /// Whether what a package provides under this name (`version` as it says, if it does) is within the bound: a bound
    /// holds for versioned provisions alone.
    pub fn allows_provided(&self, version: Option<&str>) -> bool {
        self.bound.is_none() || version.is_some_and(|version| self.allows(version))
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(qualifier) = self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        match self.bound {
            Some((operator, version)) => write!(f, " ({} {version})", operator.sign()),
            None => Ok(()),
        }
    }
}

/// Alternatives as people write them.
pub fn shown(group: &[Relation<'_>]) -> String {
    group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

/// Groups separated by commas, each of alternatives separated by bars.
pub fn parse_groups(text: &str) -> Result<Vec<Group<'_>>, NotARelation> {
    let groups = text.split(',').map(str::trim).filter(|group| !group.is_empty());
    groups.map(|group| group.split('|').map(parse).collect()).collect()
}

/// Relations separated by commas, where alternatives have no meaning (`Provides`, `Conflicts` …).
pub fn parse_list(text: &str) -> Result<Vec<Relation<'_>>, NotARelation> {
    text.split(',').map(str::trim).filter(|relation| !relation.is_empty()).map(parse).collect()
}

fn parse(text: &str) -> Result<Relation<'_>, NotARelation> {
    let wrong = || NotARelation(quote(text.trim()));
    let text = text.trim();
    let (name, bound) = match text.split_once('(') {
        Some((name, bound)) => (name.trim(), Some(bound.strip_suffix(')').ok_or_else(wrong)?.trim())),
        None => (text, None),
    };
    let bound = bound.map(|bound| {
        let end = bound.find(|c| !"<>=".contains(c))?;
        let (sign, version) = bound.split_at(end);
        let operator = match sign {
            "<<" => Operator::Earlier,
            // The single signs are old forms of these (policy 7.1).
            "<=" | "<" => Operator::EarlierOrEqual,
            "=" => Operator::Equal,
            ">=" | ">" => Operator::LaterOrEqual,
            ">>" => Operator::Later,
            _ => return None,
        };
        let version = version.trim();
        (!version.is_empty() && !version.contains(char::is_whitespace)).then_some((operator, version))
    });
    let bound = bound.map(|bound| bound.ok_or_else(wrong)).transpose()?;
    let (name, qualifier) = match name.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (name, None),
    };
    let good = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
    };
    if !good(name) || !qualifier.is_none_or(good) {
        return Err(wrong());
    }
    Ok(Relation { name, qualifier, bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read_and_shown() {
        let text = "libc6 (>= 2.36), perl:any,  debconf (>= 0.5) | debconf-2.0 ,python3 (<<3.12), x (= 1:2-3) ,";
        let groups = parse_groups(text).unwrap();
        let shown: Vec<String> = groups.iter().map(|group| shown(group)).collect();
        assert_eq!(
            shown,
            ["libc6 (>= 2.36)", "perl:any", "debconf (>= 0.5) | debconf-2.0", "python3 (<< 3.12)", "x (= 1:2-3)"]
        );
        assert!(groups[0][0].allows("2.36-9") && !groups[0][0].allows("2.36~rc1"));
        assert!(groups[3][0].allows("3.11") && !groups[3][0].allows("3.12"));
        assert!(groups[4][0].allows("1:2-3") && !groups[4][0].allows("2-3"));
        assert!(!groups[0][0].allows_provided(None) && groups[0][0].allows_provided(Some("3")));
        assert!(groups[1][0].allows_provided(None));
        for wrong in ["a (> 1", "a (~ 1)", "a (>=)", "(>= 1)", "a b", "a || b", "../x", "a (>= 1 2)"] {
            assert!(parse_groups(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bounds_compare_as_written() {
        for (bound, fits, not) in [
            ("a (<< 2)", "1.9", "2"),
            ("a (<= 2)", "2", "2.1"),
            ("a (= 2)", "2", "2+b1"),
            ("a (>= 2)", "2", "2~"),
            ("a (>> 2)", "2+b1", "2"),
        ] {
            let relation = &parse_list(bound).unwrap()[0];
            assert!(relation.allows(fits) && !relation.allows(not), "{bound}");
        }
    }
}
