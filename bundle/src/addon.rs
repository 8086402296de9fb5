//! An addon: Kubernetes objects as upstream wrote them, and the few values in them that each cluster decides.
//!
//! The component's layer holds two files, both JSON: [`OBJECTS`], the objects in upstream's order, and [`PATCHES`], a list of
//! [`Patch`]. The builder has applied every patch once, with the samples of [`VARIABLES`]; the installer applies them with
//! the cluster's own values before it sends the objects to the API. A patch never creates anything by accident: what it
//! changes must be there, what it adds must not.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::error::quote;

/// File of the layer with the objects: a JSON array.
pub const OBJECTS: &str = "objects.json";
/// File of the layer with the patches: a JSON array of [`Patch`].
pub const PATCHES: &str = "patches.json";

/// What templates in patches may name, with a sample of each. The samples are what the builder tries patches with.
pub const VARIABLES: &[(&str, &str)] = &[
    ("cluster.name", "sample"),
    ("cluster.domain", "cluster.local"),
    ("cluster.pod_cidr", "10.244.0.0/16"),
    ("cluster.service_cidr", "10.96.0.0/12"),
    ("cluster.node_cidr_mask", "24"),
    ("cluster.api_service_ip", "10.96.0.1"),
    ("cluster.dns_ip", "10.96.0.10"),
    ("cluster.interface", "eth0"),
    ("cluster.resolvers", "10.0.0.2 10.0.0.3"),
    ("cni.bin_dir", "/opt/cni/bin"),
    ("cni.conf_dir", "/etc/cni/net.d"),
    ("proxy.address", "127.0.0.1"),
    ("proxy.port", "8443"),
];

/// One change of one object. Written flat; which fields belong together is checked when it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Flat", into = "Flat")]
pub struct Patch {
    /// Index in [`OBJECTS`].
    pub object: usize,
    /// Where in the object.
    pub path: Pointer,
    /// Where in the JSON text that is found at `path`; the text is written anew, compact.
    pub inside: Option<Pointer>,
    /// Variable without which the patch is left out: it applies where the variable is not empty.
    pub when: Option<String>,
    /// What happens there.
    pub change: Change,
}

/// What a patch does to the place it names.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Another value where there is one.
    Set(Template),
    /// A new value where there is none; at `-`, one more item of a list.
    Add(Template),
    /// Takes the value away.
    Remove,
    /// Another text for the only occurrence of a text within the value.
    Text {
        /// What is looked for, literally.
        find: String,
        /// What replaces it: template text.
        with: String,
    },
}

/// A value whose texts are template texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// The value; any text in it may have `{{ variable }}`.
    pub value: Value,
    /// What its rendered text becomes.
    pub kind: ValueType,
}

/// What the rendered text of a [`Template`] becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// Texts stay texts.
    #[default]
    String,
    /// The value is one text and becomes a number.
    Number,
    /// The value is one text and becomes what it says as JSON.
    Json,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flat {
    object: usize,
    #[serde(default, skip_serializing_if = "Operation::is_set")]
    op: Operation,
    path: Pointer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inside: Option<Pointer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    kind: Option<ValueType>,
}

/// Which [`Change`] the fields of a patch describe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// [`Change::Set`], or [`Change::Text`] with `replace`.
    #[default]
    Set,
    /// [`Change::Add`].
    Add,
    /// [`Change::Remove`].
    Remove,
}

impl Operation {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_set(&self) -> bool {
        *self == Self::Set
    }
}

impl Change {
    /// The change that these fields describe; an error names what does not belong together.
    pub fn of(
        op: Operation,
        replace: Option<String>,
        value: Option<Value>,
        kind: Option<ValueType>,
    ) -> Result<Self, String> {
        let template = |value, kind: Option<ValueType>| {
            let kind = kind.unwrap_or_default();
            let template = Template { value, kind };
            if kind != ValueType::String && !template.value.is_string() {
                return Err("`type` belongs to a value that is text: other values have their type already".to_owned());
            }
            Ok(template)
        };
        match (op, replace, value, kind) {
            (Operation::Set, None, Some(value), kind) => Ok(Self::Set(template(value, kind)?)),
            (Operation::Add, None, Some(value), kind) => Ok(Self::Add(template(value, kind)?)),
            (Operation::Remove, None, None, None) => Ok(Self::Remove),
            (Operation::Set, Some(find), Some(Value::String(with)), None) if !find.is_empty() => {
                Ok(Self::Text { find, with })
            }
            (Operation::Set, Some(_), ..) => {
                Err("`replace` is a text that is not empty, with the new text as `value` and without `type`".to_owned())
            }
            (Operation::Remove, ..) => Err("`op = \"remove\"` takes neither `value`, `type` nor `replace`".to_owned()),
            (Operation::Add, Some(_), ..) => Err("`replace` does not go with `op = \"add\"`".to_owned()),
            (_, None, None, _) => Err("there is no `value`".to_owned()),
        }
    }
}

impl From<Patch> for Flat {
    fn from(Patch { object, path, inside, when, change }: Patch) -> Self {
        let (op, replace, value, kind) = match change {
            Change::Set(Template { value, kind }) => (Operation::Set, None, Some(value), Some(kind)),
            Change::Add(Template { value, kind }) => (Operation::Add, None, Some(value), Some(kind)),
            Change::Remove => (Operation::Remove, None, None, None),
            Change::Text { find, with } => (Operation::Set, Some(find), Some(Value::String(with)), None),
        };
        let kind = kind.filter(|kind| *kind != ValueType::String);
        Self { object, op, path, inside, when, replace, value, kind }
    }
}

impl TryFrom<Flat> for Patch {
    type Error = String;

    fn try_from(flat: Flat) -> Result<Self, String> {
        let Flat { object, op, path, inside, when, replace, value, kind } = flat;
        Ok(Self { object, path, inside, when, change: Change::of(op, replace, value, kind)? })
    }
}

/// A JSON pointer (RFC 6901): the names on the way, unescaped. Never the whole document.
///
/// One thing is added to the RFC: in a list, `key=text` is the only item whose entry `key` is that text, as in
/// `/spec/template/spec/volumes/name=cni-bin-dir/hostPath/path`. (The RFC gives such a token no meaning in a list.)
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer(Vec<String>);

impl FromStr for Pointer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{}` is not a JSON pointer: write `/name/0/name`, `~1` for `/`, `~0` for `~`", quote(text));
        let tokens = text.strip_prefix('/').ok_or_else(wrong)?.split('/');
        let unescape = |token: &str| {
            let mut name = String::with_capacity(token.len());
            let mut letters = token.chars();
            while let Some(letter) = letters.next() {
                name.push(match letter {
                    '~' => match letters.next() {
                        Some('0') => '~',
                        Some('1') => '/',
                        _ => return Err(wrong()),
                    },
                    letter => letter,
                });
            }
            Ok(name)
        };
        tokens.map(unescape).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

impl Serialize for Pointer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A patch that cannot be applied: which one (from 0), where, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("patch {patch} of {object}: {what}")]
pub struct PatchError {
    /// Index in the list.
    pub patch: usize,
    /// The object it is about.
    pub object: String,
    /// What is wrong.
    pub what: String,
}

/// Applies the patches in order. `lookup` gives the value of a variable; `None` means that there is no such variable.
///
/// On an error the objects are partly changed: throw them away.
pub fn apply(
    objects: &mut [Value],
    patches: &[Patch],
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<(), PatchError> {
    for (index, patch) in patches.iter().enumerate() {
        let object = objects.get_mut(patch.object);
        let name = object.as_deref().map_or_else(|| format!("object {}", patch.object), label);
        let done = object.ok_or_else(|| "there is no such object".to_owned()).and_then(|it| patch.apply(it, &lookup));
        done.map_err(|what| PatchError { patch: index, object: name, what })?;
    }
    Ok(())
}

/// What people call an object: `Deployment kube-system/coredns`.
pub fn label(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).map(quote);
    let kind = text("/kind").unwrap_or_else(|| "object".to_owned());
    let name = text("/metadata/name").unwrap_or_else(|| "without a name".to_owned());
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

impl Patch {
    fn apply(&self, object: &mut Value, lookup: &impl Fn(&str) -> Option<String>) -> Result<(), String> {
        if let Some(variable) = &self.when
            && lookup(variable).ok_or_else(|| unknown(variable))?.is_empty()
        {
            return Ok(());
        }
        let Some(inside) = &self.inside else { return self.change.apply(object, &self.path, lookup) };
        let outer = self.path.find(object)?;
        let text = outer.as_str().ok_or_else(|| format!("`{}` is not text", self.path))?;
        let mut inner: Value = serde_json::from_str(text)
            .map_err(|error| format!("the text at `{}` is not JSON: {}", self.path, quote(&error.to_string())))?;
        self.change.apply(&mut inner, inside, lookup)?;
        *outer = Value::String(inner.to_string());
        Ok(())
    }
}

impl Change {
    fn apply(
        &self,
        within: &mut Value,
        path: &Pointer,
        lookup: &impl Fn(&str) -> Option<String>,
    ) -> Result<(), String> {
        match self {
            Self::Set(template) => *path.find(within)? = template.render(lookup)?,
            Self::Text { find, with } => {
                let place = path.find(within)?;
                let text = place.as_str().ok_or_else(|| format!("`{path}` is not text"))?;
                let (count, shown) = (text.matches(find.as_str()).count(), quote(find));
                if count != 1 {
                    return Err(format!("`{shown}` is {count} times in the text at `{path}`: expected once"));
                }
                *place = Value::String(text.replacen(find.as_str(), &render(with, lookup)?, 1));
            }
            Self::Add(template) => {
                let value = template.render(lookup)?;
                let (parent, last) = path.parent(within)?;
                match parent {
                    Value::Array(items) if last == "-" => items.push(value),
                    Value::Array(_) => return Err(format!("`{path}`: a list is added to at its end, `-`")),
                    Value::Object(entries) if entries.contains_key(last) => {
                        return Err(format!("`{path}` is there already: `op = \"set\"` changes it"));
                    }
                    Value::Object(entries) => {
                        entries.insert(last.to_owned(), value);
                    }
                    _ => return Err(format!("`{path}` is not below an object or a list")),
                }
            }
            Self::Remove => {
                path.find(within)?;
                let (parent, last) = path.parent(within)?;
                match parent {
                    Value::Array(items) => item(last, items).map(|at| items.remove(at)),
                    Value::Object(entries) => entries.remove(last),
                    _ => None,
                };
            }
        }
        Ok(())
    }
}

impl Pointer {
    /// What it points at.
    fn find<'a>(&self, within: &'a mut Value) -> Result<&'a mut Value, String> {
        self.0.iter().try_fold(within, |value, token| step(value, token).map_err(|what| format!("`{self}`: {what}")))
    }

    /// The parent of what it points at, and the last name.
    fn parent<'a, 'b>(&'b self, within: &'a mut Value) -> Result<(&'a mut Value, &'b str), String> {
        let (last, way) = self.0.split_last().ok_or_else(|| "an empty pointer".to_owned())?;
        let parent = way
            .iter()
            .try_fold(within, |value, token| step(value, token).map_err(|what| format!("`{self}`: {what}")))?;
        Ok((parent, last))
    }
}

fn step<'a>(value: &'a mut Value, token: &str) -> Result<&'a mut Value, String> {
    match value {
        Value::Object(entries) => {
            if !entries.contains_key(token) {
                let names: Vec<String> = entries.keys().take(12).map(|name| format!("`{}`", quote(name))).collect();
                return Err(format!("there is no `{}`; there is {}", quote(token), names.join(", ")));
            }
            entries.get_mut(token).ok_or_else(String::new)
        }
        Value::Array(items) => {
            let count = items.len();
            let at = item(token, items);
            at.and_then(|at| items.get_mut(at)).ok_or_else(|| match token.split_once('=') {
                Some(_) => format!("not exactly one of {count} items has `{}`", quote(token)),
                None => format!("there is no item `{}` of {count}", quote(token)),
            })
        }
        _ => Err(format!("there is nothing below a plain value, so no `{}`", quote(token))),
    }
}

/// Which item of a list is meant: by index as RFC 6901 writes it (digits without leading zeros), or by `key=text`.
fn item(token: &str, items: &[Value]) -> Option<usize> {
    if let Some((key, text)) = token.split_once('=') {
        let mut found = (0..items.len()).filter(|at| items[*at].get(key).and_then(Value::as_str) == Some(text));
        return found.next().filter(|_| found.next().is_none());
    }
    let canonical = token == "0" || !token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit());
    token.parse().ok().filter(|at| canonical && *at < items.len())
}

impl Template {
    fn render(&self, lookup: &impl Fn(&str) -> Option<String>) -> Result<Value, String> {
        let text = match (&self.value, self.kind) {
            (value, ValueType::String) => return render_all(value, lookup),
            (Value::String(text), _) => render(text, lookup)?,
            _ => return Err("`type` belongs to a value that is text".to_owned()),
        };
        let wrong = || {
            format!(
                "`{}` is not a {}",
                quote(&text),
                if self.kind == ValueType::Json { "JSON value" } else { "number" }
            )
        };
        match self.kind {
            ValueType::Json => serde_json::from_str(&text).map_err(|_| wrong()),
            _ => serde_json::from_str::<Number>(&text).map(Value::Number).map_err(|_| wrong()),
        }
    }

    /// The variables it names, in order.
    pub fn check(&self) -> Result<(), String> {
        self.render(&sample).map(|_| ())
    }
}

fn render_all(value: &Value, lookup: &impl Fn(&str) -> Option<String>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(render(text, lookup)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| render_all(item, lookup)).collect::<Result<_, _>>()?)
        }
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .map(|(name, value)| Ok((name.clone(), render_all(value, lookup)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => other.clone(),
    })
}

/// The sample of a variable.
pub fn sample(variable: &str) -> Option<String> {
    VARIABLES.iter().find(|(name, _)| *name == variable).map(|(_, sample)| (*sample).to_owned())
}

/// Replaces each `{{ variable }}`; there is nothing else to the language.
fn render(text: &str, lookup: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) =
            after.split_once("}}").ok_or_else(|| format!("`{}`: `{{{{` without `}}}}`", quote(text)))?;
        rendered += before;
        rendered += &lookup(name.trim()).ok_or_else(|| unknown(name.trim()))?;
        rest = after;
    }
    Ok(rendered + rest)
}

fn unknown(variable: &str) -> String {
    let known: Vec<&str> = VARIABLES.iter().map(|(name, _)| *name).collect();
    format!("there is no variable `{}`; there are {}", quote(variable), known.join(", "))
}

#[cfg(test)]
mod tests;
