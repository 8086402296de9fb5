//! XML of rpm-md, read as a stream: elements by local name, attributes, text. Document types (and with them entities of
//! the file's own) are refused.

use std::io::{self, BufRead, Read};

use anyhow::Context as _;
use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use crate::failure::Failure;

/// No text or attribute is longer (licences and names of files have hundreds).
const TEXT_LIMIT: usize = 1 << 20;

/// What a document is made of; an empty element is opened and closed.
#[derive(Debug)]
pub(super) enum Node<'a> {
    /// `<name …>`
    Open(Element<'a>),
    /// `</name>`, with its text if the element was kept with [`Xml::keep_text`].
    Close(&'a str, &'a str),
}

/// An opened element.
#[derive(Debug)]
pub(super) struct Element<'a>(BytesStart<'a>);

impl Element<'_> {
    /// Name without namespace prefix.
    pub(super) fn name(&self) -> &str {
        let name = self.0.name().into_inner();
        name.rsplit_once(':').map_or(name, |(_, local)| local)
    }

    /// An attribute by its name as written (`type`, `xml:base`).
    pub(super) fn attribute(&self, name: &str) -> anyhow::Result<Option<String>> {
        for attribute in self.0.attributes() {
            let attribute = attribute.with_context(|| format!("the element `{}` cannot be read", self.name()))?;
            if attribute.key.into_inner() == name {
                let value = attribute
                    .normalized_value(XmlVersion::Implicit1_0)
                    .with_context(|| format!("the attribute `{name}` cannot be read"))?;
                return Ok(Some(value.into_owned()));
            }
        }
        Ok(None)
    }

    /// An attribute that has to be there.
    pub(super) fn needed(&self, name: &str) -> anyhow::Result<String> {
        let missing = || Failure::new(format!("an element `{}` has no `{name}`", self.name()));
        Ok(self.attribute(name)?.ok_or_else(missing)?)
    }
}

/// A stream that ends in an error where one piece of a document is larger than any text may be: the parser would hold all
/// of it in memory.
struct Bounded<'a> {
    inner: &'a mut dyn BufRead,
    /// Bytes since the last piece.
    used: usize,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.used += read;
        Ok(read)
    }
}

impl BufRead for Bounded<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used > TEXT_LIMIT {
            return Err(io::Error::other(format!("a text or an element is longer than {TEXT_LIMIT} bytes")));
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.used += amount;
        self.inner.consume(amount);
    }
}

/// Reads a document; `visit` sees every node and says whether the text of the element it just saw opened is wanted.
pub(super) fn read(
    input: &mut dyn BufRead,
    mut visit: impl FnMut(Node<'_>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut reader = Reader::from_reader(Bounded { inner: input, used: 0 });
    reader.config_mut().expand_empty_elements = true;
    let (mut buffer, mut text) = (Vec::new(), String::new());
    let (mut wanted, mut depth) = (false, 0_u32);
    loop {
        buffer.clear();
        reader.get_mut().used = 0;
        let event = reader
            .read_event_into(&mut buffer)
            .map_err(|error| anyhow::Error::new(error).context("it is not well-formed XML"))?;
        match event {
            Event::Start(start) => {
                depth += 1;
                text.clear();
                wanted = visit(Node::Open(Element(start)))?;
            }
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                let name = end.name().into_inner();
                let local = name.rsplit_once(':').map_or(name, |(_, local)| local);
                visit(Node::Close(local, text.trim()))?;
                wanted = false;
                text.clear();
            }
            Event::Text(part) if wanted => text.push_str(&part.xml10_content()),
            Event::CData(part) if wanted => text.push_str(&part.xml10_content()),
            Event::GeneralRef(reference) if wanted => {
                if let Some(letter) = reference.resolve_char_ref()? {
                    text.push(letter);
                } else {
                    let name = reference.xml10_content();
                    let entity = resolve_predefined_entity(&name)
                        .ok_or_else(|| Failure::new(format!("the entity `{}` is not known", name.escape_debug())))?;
                    text.push_str(entity);
                }
            }
            Event::DocType(_) => return Err(Failure::new("a document type is refused").into()),
            Event::Eof if depth == 0 => return Ok(()),
            Event::Eof => return Err(Failure::new("the document ends too early").into()),
            _ => {}
        }
        if text.len() > TEXT_LIMIT {
            return Err(Failure::new("a text is too long").into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(document: &str) -> anyhow::Result<Vec<(String, String)>> {
        let mut texts = Vec::new();
        read(&mut document.as_bytes(), |node| {
            if let Node::Close(name, text) = node {
                texts.push((name.to_owned(), text.to_owned()));
            }
            Ok(true)
        })?;
        Ok(texts)
    }

    #[test]
    fn texts_and_references_are_read() {
        let read = texts("<?xml version=\"1.0\"?><a><rpm:b>x &amp; y&#x21;</rpm:b><c/></a>").unwrap();
        assert_eq!(read[0], ("b".to_owned(), "x & y!".to_owned()));
        assert_eq!(read[1], ("c".to_owned(), String::new()));
    }

    #[test]
    fn hostile_documents_are_refused() {
        for (document, says) in [
            ("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>", "document type"),
            ("<a>&x;</a>", "entity `x`"),
            ("<a><b></a>", "well-formed"),
            ("<a>", "too early"),
            ("<a>\u{0}", "too early"),
        ] {
            let error = format!("{:#}", texts(document).unwrap_err());
            assert!(error.contains(says), "{document}: {error}");
        }
        assert!(texts(&format!("<a>{}</a>", "x".repeat(TEXT_LIMIT + 1))).is_err());
    }

    #[test]
    fn a_piece_without_end_is_not_read_into_memory() {
        for start in ["<a>", "<a b=\"", "<!--", "<", "<a><![CDATA[", "<a>&", "<?"] {
            let endless = start.as_bytes().chain(io::repeat(b'x').take(64 << 20));
            let mut counted = io::BufReader::with_capacity(64 << 10, endless);
            let error = format!("{:#}", read(&mut counted, |_| Ok(true)).unwrap_err());
            assert!(error.contains("longer than 1048576 bytes"), "{start}: {error}");
            assert!(counted.get_ref().get_ref().1.limit() > 60 << 20, "{start}");
        }
    }
}
