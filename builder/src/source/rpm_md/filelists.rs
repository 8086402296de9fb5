//! filelists.xml: which packages have a file that primary.xml does not list. Large, so it is read only when a dependency
//! asks for such a file, as a stream, and nothing but the answers is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::sync::Arc;

use super::xml::{self, Node};

/// Finds, for each of `paths`, the checksums (`pkgid`) of the packages that have it.
pub(super) fn read(
    input: &mut dyn BufRead,
    paths: &BTreeSet<Arc<str>>,
) -> anyhow::Result<BTreeMap<Arc<str>, BTreeSet<String>>> {
    let mut found: BTreeMap<Arc<str>, BTreeSet<String>> = BTreeMap::new();
    let mut package = String::new();
    xml::read(input, |node| {
        match node {
            Node::Open(element) => match element.name() {
                "package" => package = element.needed("pkgid")?,
                "file" => return Ok(true),
                _ => {}
            },
            Node::Close("file", text) => {
                if let Some(path) = paths.get(text) {
                    found.entry(path.clone()).or_default().insert(package.clone());
                }
            }
            Node::Close(..) => {}
        }
        Ok(false)
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_of_files_are_found() {
        let text = "<filelists packages=\"2\"><package pkgid=\"aa\" name=\"a\" arch=\"noarch\"><version epoch=\"0\" ver=\"1\" rel=\"1\"/><file>/usr/share/a&amp;b</file><file type=\"dir\">/usr/share</file></package>\
                    <package pkgid=\"bb\" name=\"b\" arch=\"noarch\"><file type=\"dir\">/usr/share</file></package></filelists>";
        let paths: BTreeSet<Arc<str>> = ["/usr/share/a&b", "/usr/share", "/nowhere"].map(Into::into).into();
        let found = read(&mut text.as_bytes(), &paths).unwrap();
        let shown: Vec<_> =
            found.iter().map(|(path, ids)| (&**path, ids.iter().map(String::as_str).collect::<Vec<_>>())).collect();
        assert_eq!(shown, [("/usr/share", vec!["aa", "bb"]), ("/usr/share/a&b", vec!["aa"])]);
    }
}
