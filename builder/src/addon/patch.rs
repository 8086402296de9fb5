//! `[[addon.NAME.patch]]`: which values of which objects each cluster decides.
//!
//! A patch names its objects by kind and name; here it becomes one [`bundle::addon::Patch`] for each object it matches, and is
//! tried with sample values. One that matches nothing or does not fit is an error of the build, not of the installation.

use bundle::addon::{Change, Operation, Patch, Pointer, ValueType, apply, label, sample};
use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::glob;

/// One patch of the manifest.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Text")]
pub struct PatchText {
    /// Kind of the objects.
    pub kind: String,
    /// Their name; a pattern may match several.
    pub name: String,
    /// Their namespace, a pattern too; without it any.
    pub namespace: Option<String>,
    /// Where in the object.
    pub path: Pointer,
    /// Where in the JSON text found there.
    pub inside: Option<Pointer>,
    /// Variable without which the patch is left out.
    pub when: Option<String>,
    /// What happens there.
    pub change: Change,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    kind: String,
    name: String,
    namespace: Option<String>,
    #[serde(default)]
    op: Operation,
    path: String,
    when: Option<String>,
    replace: Option<String>,
    value: Option<Value>,
    #[serde(rename = "type")]
    form: Option<ValueType>,
}

impl TryFrom<Text> for PatchText {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let Text { kind, name, namespace, op, path, when, replace, value, form } = text;
        let (path, inside) = match path.split_once('#') {
            Some((path, inside)) => (path.parse()?, Some(inside.parse()?)),
            None => (path.parse()?, None),
        };
        Ok(Self { kind, name, namespace, path, inside, when, change: Change::of(op, replace, value, form)? })
    }
}

impl PatchText {
    /// Everything it says: which objects, and the patch as it would be for the first of them.
    pub fn decides(&self) -> (&str, &str, Option<&str>, Patch) {
        (&self.kind, &self.name, self.namespace.as_deref(), self.patch(0))
    }

    fn patch(&self, object: usize) -> Patch {
        let Self { path, inside, when, change, .. } = self.clone();
        Patch { object, path, inside, when, change }
    }

    fn is_for(&self, object: &Value) -> bool {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        text("/kind") == self.kind
            && glob::matches(&self.name, text("/metadata/name"))
            && self.namespace.as_ref().is_none_or(|pattern| glob::matches(pattern, text("/metadata/namespace")))
    }
}

/// The patches for these objects, and the objects as they are with the sample values.
pub fn compile(objects: &[Value], texts: &[PatchText]) -> anyhow::Result<(Vec<Patch>, Vec<Value>)> {
    let mut patches = Vec::new();
    let mut sampled = objects.to_vec();
    for text in texts {
        let first = patches.len();
        for (object, _) in objects.iter().enumerate().filter(|(_, object)| text.is_for(object)) {
            patches.push(text.patch(object));
        }
        if patches.len() == first {
            return Err(nothing(objects, text).into());
        }
        apply(&mut sampled, &patches[first..], sample).map_err(|error| {
            Failure::usage(format!("the patch of {} cannot be applied: {}", error.object, error.what))
                .hint("look at the object as upstream wrote it, and write the patch for that")
        })?;
    }
    Ok((patches, sampled))
}

fn nothing(objects: &[Value], text: &PatchText) -> Failure {
    let wanted = match &text.namespace {
        Some(namespace) => format!("{} {namespace}/{}", text.kind, text.name),
        None => format!("{} {}", text.kind, text.name),
    };
    let alike: Vec<String> =
        objects.iter().filter(|object| object["kind"] == text.kind.as_str()).take(12).map(label).collect();
    let hint = if alike.is_empty() {
        format!("there is no object of kind {} at all", text.kind)
    } else {
        format!("there is {}", alike.join(", "))
    };
    Failure::usage(format!("a patch matches nothing: {wanted}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(toml: &str) -> Result<Vec<PatchText>, String> {
        #[derive(Debug, Deserialize)]
        struct Table {
            patch: Vec<PatchText>,
        }
        toml::from_str::<Table>(toml).map(|table| table.patch).map_err(|error| error.to_string())
    }

    fn objects() -> Vec<Value> {
        let map = |namespace: &str, name: &str| {
            json!({
                "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name},
                "data": {"net.json": r#"{"Network": "10.0.0.0/8"}"#, "text": "a b"},
            })
        };
        let set = json!({"kind": "DaemonSet", "metadata": {"name": "cfg-a"}, "spec": {"args": ["-v"], "replicas": 1}});
        vec![map("x", "cfg-a"), set, map("y", "cfg-a"), map("y", "cfg-b"), map("y", "other")]
    }

    #[test]
    fn a_patch_becomes_one_for_each_object_it_matches() {
        let patches = texts(
            r#"
            [[patch]]
            kind = "ConfigMap"
            name = "cfg-*"
            namespace = "y"
            path = "/data/net.json#/Network"
            value = "{{ cluster.pod_cidr }}"
            [[patch]]
            kind = "DaemonSet"
            name = "cfg-a"
            path = "/spec/args/-"
            op = "add"
            when = "cluster.interface"
            value = "--iface={{ cluster.interface }}"
            [[patch]]
            kind = "DaemonSet"
            name = "cfg-a"
            path = "/spec/replicas"
            value = { deep = [1, true, "{{ cluster.name }}"] }
            [[patch]]
            kind = "ConfigMap"
            name = "other"
            path = "/data/text"
            replace = "b"
            value = "{{ cluster.domain }}"
            "#,
        )
        .unwrap();
        let (patches, sampled) = compile(&objects(), &patches).unwrap();
        assert_eq!(
            serde_json::to_value(&patches).unwrap(),
            json!([
                {"object": 2, "path": "/data/net.json", "inside": "/Network", "value": "{{ cluster.pod_cidr }}"},
                {"object": 3, "path": "/data/net.json", "inside": "/Network", "value": "{{ cluster.pod_cidr }}"},
                {"object": 1, "op": "add", "path": "/spec/args/-", "when": "cluster.interface", "value": "--iface={{ cluster.interface }}"},
                {"object": 1, "path": "/spec/replicas", "value": {"deep": [1, true, "{{ cluster.name }}"]}},
                {"object": 4, "path": "/data/text", "replace": "b", "value": "{{ cluster.domain }}"},
            ])
        );
        assert_eq!(sampled[0], objects()[0], "another namespace");
        assert_eq!(sampled[3]["data"]["net.json"], r#"{"Network":"10.244.0.0/16"}"#);
        assert_eq!(
            sampled[1]["spec"],
            json!({"args": ["-v", "--iface=eth0"], "replicas": {"deep": [1, true, "sample"]}})
        );
        assert_eq!(sampled[4]["data"]["text"], "a cluster.local");
    }

    #[test]
    fn a_patch_that_matches_nothing_or_does_not_fit_is_an_error() {
        for (fields, says) in [
            (
                "kind = 'ConfigMap'\nname = 'cfg'\npath = '/data'\nvalue = 1",
                "there is ConfigMap x/cfg-a, ConfigMap y/cfg-a",
            ),
            ("kind = 'Deployment'\nname = '*'\npath = '/data'\nvalue = 1", "no object of kind Deployment"),
            (
                "kind = 'ConfigMap'\nname = '*'\nnamespace = 'z'\npath = '/data'\nvalue = 1",
                "matches nothing: ConfigMap z/*",
            ),
            (
                "kind = 'ConfigMap'\nname = '*'\npath = '/data/x'\nvalue = 1",
                "ConfigMap x/cfg-a cannot be applied: `/data/x`",
            ),
            ("kind = 'ConfigMap'\nname = '*'\npath = '/data/text'\nvalue = '{{ x }}'", "no variable `x`"),
        ] {
            let error = compile(&objects(), &texts(&format!("[[patch]]\n{fields}")).unwrap()).unwrap_err();
            let text = format!("{error} {:?}", error.downcast_ref::<Failure>());
            assert!(text.contains(says), "{fields}: {text}");
        }
        for (fields, says) in [
            ("kind = 'A'\nname = 'a'\npath = 'data'\nvalue = 1", "not a JSON pointer"),
            ("kind = 'A'\nname = 'a'\npath = '/data#x'\nvalue = 1", "not a JSON pointer"),
            ("kind = 'A'\nname = 'a'\npath = '/data'", "no `value`"),
            ("kind = 'A'\nname = 'a'\npath = '/data'\nvalue = 1\nvalu = 1", "unknown field"),
            ("kind = 'A'\nname = 'a'\npath = '/data'\nvalue = 1\nop = 'delete'", "unknown variant"),
        ] {
            let error = texts(&format!("[[patch]]\n{fields}")).unwrap_err();
            assert!(error.contains(says), "{fields}: {error}");
        }
    }
}
