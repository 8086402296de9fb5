//! primary.xml: the packages of a repository, read as a stream; only what can be installed on the architecture is kept,
//! and of that only what resolving needs. Names are stored once.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::sync::Arc;

use anyhow::Context as _;
use bundle::Architecture;

use super::checksum::Checksum;
use super::package::{Dependency, Package};
use super::xml::{self, Element, Node};
use crate::failure::Failure;
use crate::source::check_location;
use bundle::rpm_version::{Evr, Relation};

/// No repository has more packages.
const PACKAGE_LIMIT: usize = 1 << 20;
/// No repository has more dependencies and files, counted with the bytes of their names and [`ENTRY_COST`] each (those of
/// the largest distributions have a third).
const ENTRIES_LIMIT: usize = 1 << 30;
/// Bytes that an entry takes besides its name.
const ENTRY_COST: usize = 64;

/// Texts that occur often, each stored once.
#[derive(Default)]
pub(super) struct Names(BTreeSet<Arc<str>>);

impl Names {
    pub(super) fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.0.insert(new.clone());
        new
    }
}

/// Which list an entry belongs to.
#[derive(Clone, Copy)]
enum List {
    Provides,
    Requires,
    Conflicts,
    Obsoletes,
}

/// A package while it is read.
#[derive(Default)]
struct Draft {
    name: Option<Arc<str>>,
    evr: Option<Evr>,
    arch: Option<Arc<str>>,
    wanted: bool,
    path: Option<String>,
    elsewhere: bool,
    size: Option<u64>,
    checksum: Option<Checksum>,
    licence: Option<Arc<str>>,
    lists: [Vec<Dependency>; 4],
    files: Vec<Arc<str>>,
}

/// Reads the packages for an architecture and those for all.
pub(super) fn read(input: &mut dyn BufRead, architecture: Architecture) -> anyhow::Result<Vec<Package>> {
    read_up_to(input, architecture, ENTRIES_LIMIT)
}

fn read_up_to(input: &mut dyn BufRead, architecture: Architecture, limit: usize) -> anyhow::Result<Vec<Package>> {
    let mut left = limit;
    let mut pay = |name: &str| -> anyhow::Result<()> {
        let rest = left.checked_sub(name.len() + ENTRY_COST);
        left = rest.ok_or_else(|| Failure::new("its packages have too many dependencies and files"))?;
        Ok(())
    };
    let mut names = Names::default();
    let mut packages = Vec::new();
    let mut draft: Option<Draft> = None;
    let mut list: Option<List> = None;
    let mut checksum_kind = String::new();
    xml::read(input, |node| {
        match node {
            Node::Open(element) => {
                if element.name() == "package" {
                    if element.attribute("type")?.is_some_and(|kind| kind == "rpm") {
                        draft = Some(Draft::default());
                    }
                    return Ok(false);
                }
                let Some(draft) = &mut draft else { return Ok(false) };
                match element.name() {
                    "name" | "arch" => return Ok(true),
                    "checksum" => {
                        checksum_kind = element.needed("type")?;
                        return Ok(true);
                    }
                    _ if !draft.wanted => {}
                    "license" | "file" => return Ok(true),
                    "version" => draft.evr = evr(&element)?,
                    "size" => {
                        draft.size = Some(element.needed("package")?.parse().context("a size is not a number")?);
                    }
                    "location" => {
                        draft.elsewhere = element.attribute("xml:base")?.is_some();
                        draft.path = Some(element.needed("href")?);
                    }
                    "provides" => list = Some(List::Provides),
                    "requires" => list = Some(List::Requires),
                    "conflicts" => list = Some(List::Conflicts),
                    "obsoletes" => list = Some(List::Obsoletes),
                    "entry" => {
                        if let Some(list) = list {
                            let dependency = dependency(&element, &mut names)?;
                            pay(&dependency.name)?;
                            draft.lists[list as usize].push(dependency);
                        }
                    }
                    _ => {}
                }
            }
            Node::Close("package", _) => {
                if let Some(draft) = draft.take().filter(|draft| draft.wanted) {
                    packages.push(draft.package()?);
                }
                if packages.len() > PACKAGE_LIMIT {
                    return Err(Failure::new("it has too many packages").into());
                }
            }
            Node::Close(name, text) => {
                let Some(draft) = &mut draft else { return Ok(false) };
                match name {
                    "name" => draft.name = Some(names.get(text)),
                    "arch" => {
                        draft.wanted = text == "noarch" || text == architecture.machine();
                        draft.arch = Some(names.get(text));
                    }
                    "provides" | "requires" | "conflicts" | "obsoletes" => list = None,
                    _ if !draft.wanted => {}
                    "checksum" => draft.checksum = Some(Checksum::parse(&checksum_kind, text)?),
                    "license" => draft.licence = Some(names.get(text)),
                    "file" => {
                        pay(text)?;
                        draft.files.push(names.get(text));
                    }
                    _ => {}
                }
            }
        }
        Ok(false)
    })?;
    Ok(packages)
}

/// `epoch`, `ver` and `rel` of an element; `None` if it has no `ver`.
fn evr(element: &Element<'_>) -> anyhow::Result<Option<Evr>> {
    let Some(version) = element.attribute("ver")? else { return Ok(None) };
    let epoch = element.attribute("epoch")?.filter(|epoch| !epoch.is_empty());
    let epoch = epoch.map(|epoch| epoch.parse().with_context(|| format!("the epoch `{epoch}` is not a number")));
    let release = element.attribute("rel")?.filter(|release| !release.is_empty());
    Ok(Some(Evr { epoch: epoch.transpose()?, version: version.into(), release: release.map(Into::into) }))
}

fn dependency(element: &Element<'_>, names: &mut Names) -> anyhow::Result<Dependency> {
    let name = element.needed("name")?;
    let range = match element.attribute("flags")?.as_deref() {
        None | Some("") => None,
        Some(flags) => {
            let relation = match flags {
                "LT" => Relation::Less,
                "LE" => Relation::LessOrEqual,
                "EQ" => Relation::Equal,
                "GE" => Relation::GreaterOrEqual,
                "GT" => Relation::Greater,
                other => {
                    let text = format!("the dependency `{name}` has the unknown flags `{}`", other.escape_debug());
                    return Err(Failure::new(text).into());
                }
            };
            evr(element)?.map(|evr| Box::new((relation, evr)))
        }
    };
    Ok(Dependency { name: names.get(&name), range })
}

impl Draft {
    fn package(self) -> anyhow::Result<Package> {
        let name = self.name.context("a package has no name")?;
        let about = |what: &str| format!("the package `{name}` has no {what}");
        let path = self.path.with_context(|| about("location"))?;
        let file = path.rsplit('/').next().unwrap_or_default();
        if self.elsewhere {
            return Err(Failure::new(format!("the package `{name}` lies at another address (xml:base)"))
                .hint("create the metadata where the packages are, without `--baseurl`")
                .into());
        }
        check_location(&path)?;
        if file.strip_suffix(".rpm").is_none() {
            return Err(Failure::new(format!("the package `{name}` is `{file}`, expected an .rpm file")).into());
        }
        let mut licence = self.licence.unwrap_or_else(|| "".into());
        if licence.contains(char::is_control) {
            // Line ends are somebody's layout; anything else is meant for a terminal.
            licence = licence.split_whitespace().collect::<Vec<_>>().join(" ").into();
        }
        if licence.contains(char::is_control) {
            return Err(Failure::new(format!("the licence of the package `{name}` has control characters")).into());
        }
        let [provides, requires, conflicts, obsoletes] = self.lists;
        Ok(Package {
            evr: self.evr.with_context(|| about("version"))?,
            arch: self.arch.with_context(|| about("architecture"))?,
            path,
            size: self.size.with_context(|| about("size"))?,
            checksum: self.checksum.with_context(|| about("checksum"))?,
            licence,
            provides,
            requires,
            conflicts,
            obsoletes,
            files: self.files,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As createrepo_c writes it.
    fn package(name: &str, arch: &str, more: &str) -> String {
        format!(
            r#"<package type="rpm"><name>{name}</name><arch>{arch}</arch><version epoch="1" ver="2.0" rel="3.el9"/>
<checksum type="sha256" pkgid="YES">{}</checksum><summary>x &amp; y</summary><description/><packager></packager><url>http://x</url>
<time file="1" build="2"/><size package="4096" installed="9" archive="10"/><location href="Packages/{name}.rpm"/>
<format><rpm:license>MIT &amp; BSD</rpm:license><rpm:vendor/><rpm:header-range start="1" end="2"/>
<rpm:provides><rpm:entry name="{name}" flags="EQ" epoch="1" ver="2.0" rel="3.el9"/><rpm:entry name="config({name})"/></rpm:provides>
<rpm:requires><rpm:entry name="libc.so.6(GLIBC_2.34)(64bit)"/><rpm:entry name="a" flags="GE" epoch="0" ver="1"/><rpm:entry name="(x if y)" pre="1"/></rpm:requires>
<rpm:conflicts><rpm:entry name="b" flags="LT" epoch="0" ver="2" rel="1"/></rpm:conflicts><rpm:obsoletes><rpm:entry name="c"/></rpm:obsoletes>
<rpm:recommends><rpm:entry name="never"/></rpm:recommends>
<file>/usr/bin/{name}</file><file type="dir">/etc/{name}.d</file></format>{more}</package>"#,
            bundle::Digest::of(name.as_bytes()).hex()
        )
    }

    fn parse(packages: &str) -> anyhow::Result<Vec<Package>> {
        let text =
            format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata packages=\"1\">{packages}</metadata>");
        read(&mut text.as_bytes(), Architecture::Amd64)
    }

    #[test]
    fn packages_of_the_architecture_are_read() {
        let all = ["x86_64", "noarch", "i686", "aarch64", "src"].map(|arch| package(&format!("p-{arch}"), arch, ""));
        let read = parse(&all.concat()).unwrap();
        assert_eq!(
            read.iter().map(Package::label).collect::<Vec<_>>(),
            ["p-x86_64-1:2.0-3.el9.x86_64", "p-noarch-1:2.0-3.el9.noarch"]
        );
        let first = &read[0];
        assert_eq!((first.size, &*first.licence, first.path.as_str()), (4096, "MIT & BSD", "Packages/p-x86_64.rpm"));
        let shown = |list: &[Dependency]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(&first.requires), ["libc.so.6(GLIBC_2.34)(64bit)", "a >= 1", "(x if y)"]);
        assert_eq!(shown(&first.provides), ["p-x86_64 = 1:2.0-3.el9", "config(p-x86_64)"]);
        assert_eq!(shown(&first.conflicts), ["b < 2-1"]);
        assert_eq!(shown(&first.obsoletes), ["c"]);
        assert_eq!(
            first.files.iter().map(|file| &**file).collect::<Vec<_>>(),
            ["/usr/bin/p-x86_64", "/etc/p-x86_64.d"]
        );
        assert_eq!(first.checksum.sha256(), Some(bundle::Digest::of(b"p-x86_64")));
    }

    #[test]
    fn entries_are_limited_all_together() {
        let document = format!("<metadata>{}</metadata>", package("p", "x86_64", "").repeat(2));
        let read = |limit| read_up_to(&mut document.as_bytes(), Architecture::Amd64, limit);
        // Two times nine entries.
        assert!(format!("{:#}", read(18 * ENTRY_COST).unwrap_err()).contains("too many dependencies"));
        assert_eq!(read(18 * (ENTRY_COST + 30)).unwrap().len(), 2);
    }

    #[test]
    fn wrong_packages_are_refused() {
        let good = package("p", "x86_64", "");
        for (from, to, says) in [
            ("Packages/p.rpm", "../p.rpm", "is none in the repository"),
            ("Packages/p.rpm", "/p.rpm", "is none in the repository"),
            ("Packages/p.rpm", "p.deb", "expected an .rpm file"),
            ("href=", "xml:base=\"http://other.example/\" href=", "another address"),
            ("type=\"sha256\"", "type=\"sha\"", "neither SHA-256 nor SHA-512"),
            ("epoch=\"1\" ver=\"2.0\" rel=\"3.el9\"/>\n<checksum", "/>\n<checksum", "has no version"),
            ("MIT &amp;", "MIT&#x1b;[2J", "has control characters"),
            ("flags=\"GE\"", "flags=\"XX\"", "unknown flags"),
            ("package=\"4096\"", "package=\"big\"", "not a number"),
            ("epoch=\"1\"", "epoch=\"one\"", "not a number"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = format!("{:#}", parse(&good.replace(from, to)).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
        let folded = parse(&good.replace("MIT &amp;", "MIT\n &amp;")).unwrap();
        assert_eq!(&*folded[0].licence, "MIT & BSD");
        // Of an architecture that is not wanted nothing is looked at.
        assert_eq!(parse(&package("p", "i686", "").replace("sha256", "md5")).unwrap(), []);
    }
}
