//! The objects of an addon: YAML or JSON text in, a list of Kubernetes objects out, in upstream's order.
//!
//! What comes out can be sent to the API one by one: each has `apiVersion`, `kind` and a name, lists are flattened, empty
//! documents are gone, no object is there twice. A template that nobody rendered is refused, with what to do about it.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::yaml;
use crate::failure::Failure;

/// Reads all objects of a text, none if it is empty; `place` is what messages call it.
pub fn parse(place: &str, bytes: &[u8]) -> anyhow::Result<Vec<Value>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Failure::new(format!("`{place}` is not UTF-8")))?;
    let mut objects = Vec::new();
    for (line, value) in documents(place, text)? {
        let place = format!("`{place}`, line {line}");
        flatten(&place, value, &mut objects)?;
    }
    Ok(objects)
}

/// Refuses objects that are there twice: the second would silently win.
pub fn check_distinct(objects: &[Value]) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for object in objects {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let group = text("/apiVersion").split_once('/').map_or("", |(group, _)| group);
        if !seen.insert((group, text("/kind"), text("/metadata/namespace"), text("/metadata/name"))) {
            return Err(Failure::new(format!("{} is there twice", bundle::addon::label(object)))
                .hint("keep one of them, in a copy of the YAML beside the manifest: `file = \"…\"`")
                .into());
        }
    }
    Ok(())
}

fn documents(place: &str, text: &str) -> anyhow::Result<Vec<(usize, Value)>> {
    if text.trim_start().starts_with(['{', '['])
        && text.len() <= yaml::TEXT_LIMIT
        && let Some(values) = json(text)
    {
        return Ok(values.into_iter().map(|value| (1, value)).collect());
    }
    match yaml::documents(text) {
        Ok(documents) => Ok(documents.into_iter().map(|document| (document.line, document.value)).collect()),
        Err(error) => {
            let failure = Failure::new(format!("`{place}`, {error}"));
            Err(if text.contains("{{") { rendered_first(failure) } else { failure }.into())
        }
    }
}

fn rendered_first(failure: Failure) -> Failure {
    failure
        .hint("this looks like a template: render it first, for example with `helm template`, and pin what comes out")
}

/// One or more JSON documents; `None` if the text is not JSON (YAML's flow style may begin alike).
fn json(text: &str) -> Option<Vec<Value>> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<Distinct>();
    values.map(|value| value.ok().map(|Distinct(value)| value)).collect()
}

fn flatten(place: &str, value: Value, objects: &mut Vec<Value>) -> anyhow::Result<()> {
    let Value::Object(mut object) = value else {
        return if value.is_null() {
            Ok(())
        } else {
            Err(Failure::new(format!("{place}: expected a Kubernetes object, found {}", shape(&value))).into())
        };
    };
    let text = |name: &str| object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = text("kind").ok_or_else(|| missing(place, "kind", &object))?;
    text("apiVersion").ok_or_else(|| missing(place, "apiVersion", &object))?;
    if kind.ends_with("List") && object.get("items").is_some_and(Value::is_array) {
        let Some(Value::Array(items)) = object.remove("items") else { return Ok(()) };
        return items.into_iter().enumerate().try_for_each(|(at, item)| {
            if item.is_null() {
                return Err(Failure::new(format!("{place}: item {at} of the list is empty")).into());
            }
            flatten(&format!("{place}, item {at}"), item, objects)
        });
    }
    let name = object.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
    let name = name.unwrap_or_default();
    if name.is_empty() {
        let failure = missing(place, "metadata.name", &object);
        let generated = object.get("metadata").is_some_and(|metadata| metadata.get("generateName").is_some());
        let hint = "give it a name: with `generateName` every run of the installer would make one more";
        return Err(if generated { failure.hint(hint) } else { failure }.into());
    }
    if name.contains("{{") {
        return Err(rendered_first(Failure::new(format!("{place}: `{}` is not a name", name.escape_debug()))).into());
    }
    objects.push(Value::Object(object));
    Ok(())
}

fn missing(place: &str, what: &str, object: &Map<String, Value>) -> Failure {
    let names: Vec<&str> = object.keys().take(8).map(String::as_str).collect();
    Failure::new(format!("{place}: an object without `{what}` as text; it has {}", names.join(", ")))
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "a list",
        Value::String(_) => "text",
        Value::Number(_) => "a number",
        Value::Bool(_) => "true or false",
        Value::Null => "nothing",
        Value::Object(_) => "a mapping",
    }
}

/// A JSON value without duplicate keys.
struct Distinct(Value);

impl<'de> serde::Deserialize<'de> for Distinct {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk).map(Self)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Distinct(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Distinct(value) = entries.next_value()?;
            if all.insert(key, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(all.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(text: &str) -> String {
        let error = parse("x.yaml", text.as_bytes()).unwrap_err();
        let hint = error.downcast_ref::<Failure>().map(|failure| format!("{failure:?}"));
        format!("{error:#} {}", hint.unwrap_or_default())
    }

    fn named(kind: &str, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
    }

    #[test]
    fn documents_become_objects_in_order() {
        let text = "# head\n---\n---\napiVersion: v1\nkind: B\nmetadata: {name: b}\n---\n# nothing\n---\nkind: A\napiVersion: v1\nmetadata:\n  name: a\n...\n";
        assert_eq!(parse("x", text.as_bytes()).unwrap(), [named("B", "b"), named("A", "a")]);
    }

    #[test]
    fn lists_are_flattened_also_within_lists() {
        let inner = json!({"apiVersion": "v1", "kind": "RoleList", "items": [named("Role", "b")]});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [named("A", "a"), inner, named("C", "c")]});
        let found = parse("x", list.to_string().as_bytes()).unwrap();
        assert_eq!(found, [named("A", "a"), named("Role", "b"), named("C", "c")]);
        assert_eq!(
            parse("x", b"apiVersion: v1\nkind: AllowList\nmetadata: {name: x}").unwrap()[0]["kind"],
            "AllowList"
        );
    }

    #[test]
    fn json_is_read_as_json() {
        let text = format!("{}\n{}", named("A", "\u{1f600}\t\"\\"), named("B", "b"));
        assert_eq!(parse("x", text.replace(':', ":\t").as_bytes()).unwrap().len(), 2);
        let surrogates = r#"{"apiVersion":"v1","kind":"A","metadata":{"name":"\ud83d\ude00\/"}}"#;
        assert_eq!(parse("x", surrogates.as_bytes()).unwrap(), [named("A", "\u{1f600}/")]);
        let flow = "{apiVersion: v1, kind: A, metadata: {name: a}}";
        assert_eq!(parse("x", flow.as_bytes()).unwrap(), [named("A", "a")]);
        assert!(said(r#"{"apiVersion":"v1","kind":"A","kind":"B","metadata":{"name":"a"}}"#).contains("duplicate key"));
    }

    #[test]
    fn what_is_not_an_object_is_refused_with_its_place() {
        for (text, says) in [
            ("\n\n- a\n", "line 3: expected a Kubernetes object, found a list"),
            ("hello", "found text"),
            ("kind: A\nmetadata: {name: a}", "without `apiVersion` as text; it has kind, metadata"),
            ("apiVersion: v1\nmetadata: {name: a}", "without `kind`"),
            ("apiVersion: 1\nkind: A\nmetadata: {name: a}", "without `apiVersion`"),
            ("apiVersion: v1\nkind: A\nmetadata: {name: ''}", "without `metadata.name`"),
            ("apiVersion: v1\nkind: A\nmetadata: {generateName: a-}", "would make one more"),
            ("apiVersion: v1\nkind: A\nmetadata: {name: 7}", "without `metadata.name`"),
            ("apiVersion: v1\nkind: List\nitems: [null]", "item 0 of the list is empty"),
            ("apiVersion: v1\nkind: List\nitems: [{kind: A}]", "item 0: an object without `apiVersion`"),
            ("a: 1\na: 2", "line 2: duplicate key `a`"),
        ] {
            assert!(said(text).contains(says), "{text}: {}", said(text));
        }
        assert!(parse("x", b"\xff").is_err());
        for empty in ["", "---\n# only a comment\n"] {
            assert!(parse("x", empty.as_bytes()).unwrap().is_empty(), "an archive may have such a file");
        }
    }

    #[test]
    fn templates_are_recognised() {
        for text in [
            "apiVersion: v1\nkind: A\nmetadata:\n  name: {{ .Values.name }}\n",
            "apiVersion: v1\nkind: A\nmetadata:\n  name: '{{ .Values.name }}'\n",
            "{{- if .Values.x }}\napiVersion: v1\n{{- end }}\n",
            "apiVersion: v1\nkind: A\nmetadata:\n  labels:\n    {{- include \"x.labels\" . | nindent 4 }}\n  name: x\n",
        ] {
            assert!(said(text).contains("helm template"), "{text}: {}", said(text));
        }
        let text = "apiVersion: v1\nkind: A\nmetadata: {name: a}\ndata:\n  alert: 'down: {{ $labels.job }}'\n";
        assert!(parse("x", text.as_bytes()).is_ok(), "quoted braces are only text");
    }

    #[test]
    fn objects_are_distinct_whatever_the_version() {
        let at = |version: &str, kind: &str, namespace: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": namespace}});
        assert!(
            check_distinct(&[at("v1", "A", ""), at("apps/v1", "A", ""), at("v1", "B", ""), at("v1", "A", "n")]).is_ok()
        );
        let error = check_distinct(&[at("apps/v1", "A", "n"), at("apps/v1beta1", "A", "n")]).unwrap_err();
        assert!(error.to_string().contains("A n/a is there twice"));
    }
}
