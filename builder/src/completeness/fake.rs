//! Small pieces and targets for tests of the rules.

use bundle::Component;
use bundle::component::{Kind, Template, TemplateKind};

use super::Piece;
use super::target::Target;
use crate::base::{Base, Family};
use crate::elf::{Elf, ElfFiles};

/// A component that promises these programs.
pub(super) fn program(name: &str, programs: &[&str]) -> Piece {
    let component = Component {
        name: name.parse().unwrap(),
        version: "1".parse().unwrap(),
        kind: Kind::Program,
        roles: vec![],
        licence: "MIT".into(),
        upstream: vec![],
        programs: programs.iter().map(|program| program.parse().unwrap()).collect(),
        modules: vec![],
        templates: vec![],
        packages: vec![],
        distribution: None,
        host_programs: std::collections::BTreeMap::new(),
        images: vec![],
    };
    Piece { component, files: vec![], elf: ElfFiles::new(), reference: None, modules_on_demand: vec![] }
}

/// A component with the unit `x.service`.
pub(super) fn unit(name: &str, text: &str) -> Piece {
    let mut piece = program(name, &[]);
    let template = Template { name: "x.service".parse().unwrap(), kind: TemplateKind::Unit, text: text.into() };
    piece.component.templates.push(template);
    piece
}

/// What an ELF file of a program for amd64 says.
pub(super) fn elf(needed: &[&str], glibc: &str) -> Elf {
    Elf {
        machine: "x86_64".into(),
        interpreter: Some("/lib64/ld-linux-x86-64.so.2".into()),
        soname: None,
        needed: needed.iter().map(|name| (*name).to_owned()).collect(),
        run_path: vec![],
        glibc: Some(glibc.parse().unwrap()),
        unusual: vec![],
    }
}

/// A small `debian-12`: glibc 2.36, `mkdir`, `overlay`.
pub(super) fn target() -> Target {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Target::new(Base {
        provides: std::collections::BTreeMap::new(),
        distribution: "debian-12".into(),
        family: Family::Deb,
        glibc: "2.36".into(),
        libraries: set(&["libc.so.6", "libseccomp.so.2", "ld-linux-x86-64.so.2"]),
        programs: set(&["/usr/bin/mkdir"]),
        modules: set(&["overlay", "nf_conntrack"]),
        packages: [("adduser".to_owned(), "3.134".to_owned())].into(),
    })
    .unwrap()
}
