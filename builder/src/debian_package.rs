//! What a .deb says of itself: the fields of its control file that hosts need to know (deb-control(5)).

use std::path::Path;

use anyhow::Context as _;
use bundle::component::Relations;
use bundle::debian_relation::{parse_groups, parse_list};
use deb822_fast::Deb822;

use crate::archive;
use crate::failure::Failure;

/// Architecture and relations of a package, a file of the cache.
pub fn relations(path: &Path) -> anyhow::Result<(String, Relations)> {
    let control = archive::control(path)?.ok_or_else(|| Failure::new("the package has no control archive"))?;
    parse(&control)
}

fn parse(control: &str) -> anyhow::Result<(String, Relations)> {
    let document: Deb822 =
        control.parse().map_err(|error| Failure::new(format!("its control file cannot be read: {error}")))?;
    let stanza = document.iter().next().context("its control file is empty")?;
    // Values go on in lines that begin with a space; hosts get them in one.
    let field = |name: &str| {
        let value = stanza.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value);
        value.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let relations = Relations {
        pre_depends: field("Pre-Depends"),
        depends: field("Depends"),
        conflicts: field("Conflicts"),
        breaks: field("Breaks"),
        provides: field("Provides"),
    };
    // What hosts could not read is better said here.
    for alternatives in [&relations.pre_depends, &relations.depends] {
        parse_groups(alternatives)?;
    }
    for list in [&relations.conflicts, &relations.breaks, &relations.provides] {
        parse_list(list)?;
    }
    Ok((field("Architecture"), relations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_taken_from_the_control_file() {
        let control = "Package: jq\nVersion: 1.6-2.1\nArchitecture: amd64\nPre-Depends: dpkg (>= 1.15.6~)\n\
                       Depends: libjq1 (= 1.6-2.1),\n libc6 (>= 2.34)\nDescription: x\n y\n";
        let (architecture, relations) = parse(control).unwrap();
        assert_eq!(architecture, "amd64");
        assert_eq!(relations.depends, "libjq1 (= 1.6-2.1), libc6 (>= 2.34)");
        assert_eq!(relations.pre_depends, "dpkg (>= 1.15.6~)");
        assert!(relations.breaks.is_empty());
        assert!(parse("Package: jq\nDepends: ../x\n").is_err());
        assert!(parse("").is_err());
    }
}
