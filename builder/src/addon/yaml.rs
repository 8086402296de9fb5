//! YAML to JSON values, as Kubernetes reads it.
//!
//! `kubectl apply` reads manifests with `sigs.k8s.io/yaml`, whose scalars are a mix of YAML 1.1 and 1.2: `0644` is 420, `yes`,
//! `on` and `y` are true, a date is text, and keys become text. The grammar is `granit-parser`'s, the meaning of a scalar is
//! decided here by the rules of that library's `resolve.go`. Stricter than it: duplicate keys are errors, text, nesting and
//! what aliases may unfold to are limited, and tags outside the core schema are refused. Nothing here panics or recurses with
//! the depth of the input.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use granit_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

/// Most bytes of text that are read.
pub const TEXT_LIMIT: usize = 64 << 20;
/// Deepest nesting of mappings and sequences.
pub const DEPTH_LIMIT: usize = 128;
/// Most bytes (values count 16 each) that anchors keep and aliases and merge keys of one text may unfold to.
pub const ALIAS_LIMIT: usize = 16 << 20;

/// One document of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Line its content starts on, from 1.
    pub line: usize,
    /// Its content; `Null` for an empty one.
    pub value: Value,
}

/// What is wrong with a text, and where.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct YamlError {
    line: usize,
    what: String,
}

impl YamlError {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

/// All documents of a stream, in order, empty ones included.
pub fn documents(text: &str) -> Result<Vec<Document>, YamlError> {
    if text.len() > TEXT_LIMIT {
        return Err(YamlError::new(1, format!("{} bytes of text: at most {TEXT_LIMIT} are read", text.len())));
    }
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|error| YamlError::new(error.marker().line(), error.info()))?;
        reader.event(event, span.start.line())?;
    }
    Ok(reader.done)
}

/// A finished value and what it would cost to repeat it.
#[derive(Clone, Debug)]
struct Node {
    value: Value,
    /// Levels of nesting: 0 for a scalar.
    depth: usize,
    /// Bytes, see [`ALIAS_LIMIT`].
    cost: usize,
    /// What it says as a key; `None` for what cannot be one.
    key: Option<Key>,
}

#[derive(Clone, Debug)]
enum Key {
    Text(String),
    Merge,
}

/// A collection whose end has not been seen.
#[derive(Debug)]
struct Open {
    anchor: usize,
    depth: usize,
    cost: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Sequence(Vec<Value>),
    Mapping { entries: Map<String, Value>, merged: Map<String, Value>, key: Option<Key> },
}

#[derive(Debug, Default)]
struct Reader {
    done: Vec<Document>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    unfolded: usize,
    line: Option<usize>,
}

impl Reader {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        match event {
            Event::DocumentStart(..) => {
                self.anchors.clear();
                self.line = None;
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = scalar(text, style, tag.as_deref()).map_err(|what| YamlError::new(line, what))?;
                self.finish(node, anchor, line)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.start(anchor, tag.as_deref(), "seq", Content::Sequence(Vec::new()), line)
            }
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Mapping { entries: Map::new(), merged: Map::new(), key: None };
                self.start(anchor, tag.as_deref(), "map", content, line)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { anchor, depth, cost, content }) = self.open.pop() else { return Ok(()) };
                let value = match content {
                    Content::Sequence(items) => Value::Array(items),
                    Content::Mapping { mut entries, merged, .. } => {
                        for (key, value) in merged {
                            entries.entry(key).or_insert(value);
                        }
                        Value::Object(entries)
                    }
                };
                self.finish(Node { value, depth: depth + 1, cost, key: None }, anchor, line)
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor);
                let node = known.ok_or_else(|| YamlError::new(line, "an alias names something that contains it"))?;
                charge(&mut self.unfolded, node.cost, line)?;
                let node = node.clone();
                self.finish(node, 0, line)
            }
            _ => Ok(()),
        }
    }

    fn start(
        &mut self,
        anchor: usize,
        tag: Option<&Tag>,
        core: &str,
        content: Content,
        line: usize,
    ) -> Result<(), YamlError> {
        if tag.is_some_and(|tag| core_tag(tag).as_deref() != Some(core)) {
            return Err(YamlError::new(line, "a tag that has no meaning in Kubernetes"));
        }
        if self.open.len() >= DEPTH_LIMIT {
            return Err(too_deep(line));
        }
        self.line.get_or_insert(line);
        self.open.push(Open { anchor, depth: 0, cost: 16, content });
        Ok(())
    }

    /// Hands a finished value to what contains it.
    fn finish(&mut self, node: Node, anchor: usize, line: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            // Kept once more: of nested anchors each keeps all that is below it.
            charge(&mut self.unfolded, node.cost, line)?;
            self.anchors.insert(anchor, node.clone());
        }
        let levels = self.open.len() + node.depth;
        if levels > DEPTH_LIMIT {
            return Err(too_deep(line));
        }
        let Some(open) = self.open.last_mut() else {
            let line = self.line.take().unwrap_or(line);
            self.done.push(Document { line, value: node.value });
            return Ok(());
        };
        open.depth = open.depth.max(node.depth);
        open.cost = open.cost.saturating_add(node.cost);
        match &mut open.content {
            Content::Sequence(items) => items.push(node.value),
            Content::Mapping { entries, merged, key } => match key.take() {
                None => *key = Some(node.key.ok_or_else(|| YamlError::new(line, "a key that is not text"))?),
                Some(Key::Text(text)) => {
                    if entries.contains_key(&text) {
                        return Err(YamlError::new(line, format!("duplicate key `{}`", text.escape_debug())));
                    }
                    entries.insert(text, node.value);
                }
                Some(Key::Merge) => merge(merged, node.value).map_err(|what| YamlError::new(line, what))?,
            },
        }
        Ok(())
    }
}

/// Counts bytes that are held a second time.
fn charge(unfolded: &mut usize, cost: usize, line: usize) -> Result<(), YamlError> {
    *unfolded = unfolded.saturating_add(cost);
    if *unfolded > ALIAS_LIMIT {
        return Err(YamlError::new(line, format!("anchors and aliases unfold to more than {ALIAS_LIMIT} bytes")));
    }
    Ok(())
}

fn too_deep(line: usize) -> YamlError {
    YamlError::new(line, format!("nested deeper than {DEPTH_LIMIT} levels"))
}

/// `<<: VALUE`: the entries of a mapping, or of several with the earlier ones first; explicit keys win later.
fn merge(merged: &mut Map<String, Value>, value: Value) -> Result<(), &'static str> {
    let wrong = "`<<` takes a mapping or a list of mappings";
    let maps = match value {
        Value::Array(items) => items,
        other => vec![other],
    };
    for map in maps {
        let Value::Object(map) = map else { return Err(wrong) };
        for (key, value) in map {
            merged.entry(key).or_insert(value);
        }
    }
    Ok(())
}

/// `int` for `!!int` and so on.
fn core_tag(tag: &Tag) -> Option<Cow<'_, str>> {
    tag.suffix_in_namespace("tag:yaml.org,2002:")
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node, String> {
    let cost = text.len() + 16;
    let node = |value: Value, key: Option<Key>| Node { value, depth: 0, cost, key };
    let resolved = match tag {
        None if style == ScalarStyle::Plain => resolve(&text),
        None => Scalar::Text,
        Some(tag) if format!("{}{}", tag.handle(), tag.suffix()) == "!" => Scalar::Text,
        Some(tag) => tagged(&text, core_tag(tag).as_deref())?,
    };
    Ok(match resolved {
        Scalar::Text => {
            let text = text.into_owned();
            node(Value::String(text.clone()), Some(Key::Text(text)))
        }
        Scalar::Decoded(text) => node(Value::String(text.clone()), Some(Key::Text(text))),
        Scalar::Merge => node(Value::String(text.into_owned()), Some(Key::Merge)),
        Scalar::Null => node(Value::Null, None),
        Scalar::Bool(value) => node(Value::Bool(value), Some(Key::Text(value.to_string()))),
        Scalar::Number(number) => {
            let key = Key::Text(number.to_string());
            node(Value::Number(number), Some(key))
        }
        Scalar::NotFinite => return Err(format!("`{text}` cannot be said in JSON: quote it if it is text")),
    })
}

/// What a plain scalar means.
#[derive(Clone, Debug, PartialEq)]
enum Scalar {
    Text,
    Decoded(String),
    Merge,
    Null,
    Bool(bool),
    Number(Number),
    NotFinite,
}

/// A scalar with an explicit tag: the value must be what the tag says.
fn tagged(text: &str, tag: Option<&str>) -> Result<Scalar, String> {
    let resolved = resolve(text);
    let good = match (tag, &resolved) {
        (Some("str" | "timestamp"), _) => return Ok(Scalar::Text),
        (Some("binary"), _) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            return text.map(Scalar::Decoded).ok_or_else(|| "`!!binary` that is not text in base64".to_owned());
        }
        (Some("int"), Scalar::Number(number)) => number.is_i64() || number.is_u64(),
        (Some("float"), Scalar::Number(_) | Scalar::NotFinite)
        | (Some("bool"), Scalar::Bool(_))
        | (Some("null"), Scalar::Null) => true,
        (Some("int" | "float" | "bool" | "null"), _) => false,
        _ => return Err("a tag that has no meaning in Kubernetes".to_owned()),
    };
    let tag = tag.unwrap_or_default();
    if good { Ok(resolved) } else { Err(format!("`{}` is not a `!!{tag}`", text.escape_debug())) }
}

/// The rules of `sigs.k8s.io/yaml` (`goyaml.v2/resolve.go`).
fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => return Scalar::NotFinite,
        "<<" => return Scalar::Merge,
        _ => {}
    }
    match text.as_bytes().first() {
        Some(b'.') => float(text),
        Some(b'+' | b'-' | b'0'..=b'9') => {
            let plain: Cow<'_, str> = if text.contains('_') { text.replace('_', "").into() } else { text.into() };
            integer(&plain).map_or_else(|| float(&plain), Scalar::Number)
        }
        _ => Scalar::Text,
    }
}

/// Go's `ParseInt(text, 0, 64)`: an optional sign, then decimal, `0x`, `0o`, `0b`, or octal after a bare `0`.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let value = u64::from_str_radix(digits, radix).ok()?;
    if negative { 0i64.checked_sub_unsigned(value).map(Number::from) } else { Some(Number::from(value)) }
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`; a whole number becomes an integer, as it does on its way
/// through Go's JSON.
fn float(text: &str) -> Scalar {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (body, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let shaped = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let powered = exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    let Some(value) = text.parse::<f64>().ok().filter(|_| shaped && powered) else { return Scalar::Text };
    // 2^53: up to here a whole float is exactly one integer.
    let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
    if let Some(whole) = format!("{value:.0}").parse::<i64>().ok().filter(|_| exact) {
        return Scalar::Number(whole.into());
    }
    // A number too large for a float (`1e999`) is text in Go too.
    Number::from_f64(value).map_or(Scalar::Text, Scalar::Number)
}

#[cfg(test)]
mod tests;
