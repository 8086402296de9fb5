use proptest::prelude::*;
use serde_json::json;

use super::*;

fn patch(text: Value) -> Patch {
    serde_json::from_value(text).unwrap()
}

fn applied(object: &Value, patches: &[Value]) -> Result<Value, String> {
    let patches: Vec<Patch> = patches.iter().cloned().map(patch).collect();
    let mut objects = vec![object.clone()];
    apply(&mut objects, &patches, sample).map_err(|error| error.to_string())?;
    Ok(objects.remove(0))
}

fn config_map() -> Value {
    json!({
        "kind": "ConfigMap",
        "metadata": {"name": "cfg", "namespace": "net"},
        "data": {
            "net-conf.json": "{\n  \"Network\": \"10.0.0.0/8\",\n  \"Backend\": {\"Type\": \"vxlan\"}\n}\n",
            "Corefile": ".:53 {\n  kubernetes cluster.local in-addr.arpa\n}\n",
            "a/b~c": "odd",
        },
        "list": [1, 2],
    })
}

#[test]
fn values_are_set_where_there_are_some() {
    let done = applied(
        &config_map(),
        &[
            json!({"object": 0, "path": "/data/a~1b~0c", "value": "{{cluster.dns_ip}}!"}),
            json!({"object": 0, "path": "/list/1", "value": "{{ cluster.node_cidr_mask }}", "type": "number"}),
            json!({"object": 0, "path": "/list/0", "value": "[\"{{ proxy.address }}\"]", "type": "json"}),
            json!({"object": 0, "path": "/metadata/namespace", "value": {"deep": ["{{cluster.domain}}", 1, null]}}),
        ],
    )
    .unwrap();
    assert_eq!(done["data"]["a/b~c"], "10.96.0.10!");
    assert_eq!(done["list"], json!([["127.0.0.1"], 24]));
    assert_eq!(done["metadata"]["namespace"], json!({"deep": ["cluster.local", 1, null]}));
}

#[test]
fn json_within_text_is_changed_inside() {
    let patch =
        json!({"object": 0, "path": "/data/net-conf.json", "inside": "/Network", "value": "{{ cluster.pod_cidr }}"});
    let done = applied(&config_map(), &[patch]).unwrap();
    assert_eq!(done["data"]["net-conf.json"], r#"{"Backend":{"Type":"vxlan"},"Network":"10.244.0.0/16"}"#);
}

#[test]
fn a_text_is_replaced_exactly_once() {
    let patch =
        |find| json!({"object": 0, "path": "/data/Corefile", "replace": find, "value": "k {{ cluster.domain }}"});
    let done = applied(&config_map(), &[patch("kubernetes cluster.local")]).unwrap();
    assert_eq!(done["data"]["Corefile"], ".:53 {\n  k cluster.local in-addr.arpa\n}\n");
    for (find, says) in [("absent", "0 times"), ("a", "4 times")] {
        let error = applied(&config_map(), &[patch(find)]).unwrap_err();
        assert!(error.contains("ConfigMap net/cfg") && error.contains(says), "{error}");
    }
}

#[test]
fn additions_are_new_and_removals_are_not() {
    let add = |path, value| json!({"object": 0, "op": "add", "path": path, "value": value});
    let remove = |path| json!({"object": 0, "op": "remove", "path": path});
    let patches = [add("/list/-", json!(3)), add("/new", json!("x")), remove("/list/0"), remove("/data")];
    let done = applied(&config_map(), &patches).unwrap();
    assert_eq!(done["list"], json!([2, 3]));
    assert_eq!((&done["new"], done.get("data")), (&json!("x"), None));
    for (patch, says) in [
        (add("/list", json!(1)), "is there already"),
        (add("/list/0", json!(1)), "at its end"),
        (add("/kind/x", json!(1)), "not below"),
        (add("/a/b", json!(1)), "no `a`"),
        (remove("/a"), "no `a`"),
        (remove("/list/2"), "no item `2` of 2"),
        (remove("/list/-"), "no item `-`"),
    ] {
        let error = applied(&config_map(), std::slice::from_ref(&patch)).unwrap_err();
        assert!(error.contains(says), "{patch}: {error}");
    }
}

#[test]
fn items_are_found_by_what_they_are_called() {
    let object = json!({"volumes": [
        {"name": "run", "path": "/run"}, {"name": "bin", "path": "/opt"}, {"name": "twice"}, {"name": "twice"}, {"name": 1}, "x=y",
    ]});
    let set = |path| json!({"object": 0, "path": path, "value": "{{ cni.bin_dir }}"});
    let done = applied(
        &object,
        &[set("/volumes/name=bin/path"), json!({"object": 0, "op": "remove", "path": "/volumes/name=run"})],
    );
    assert_eq!(done.unwrap()["volumes"][0], json!({"name": "bin", "path": "/opt/cni/bin"}));
    for path in ["/volumes/name=twice", "/volumes/name=none", "/volumes/name=1", "/volumes/x=y", "/volumes/="] {
        let error = applied(&object, &[set(path)]).unwrap_err();
        assert!(error.contains("not exactly one of 6 items"), "{path}: {error}");
    }
    let keyed = json!({"a=b": {"c": 1}});
    assert_eq!(applied(&keyed, &[set("/a=b/c")]).unwrap()["a=b"]["c"], "/opt/cni/bin", "in an object it is a name");
}

#[test]
fn what_does_not_fit_is_an_error_that_says_where() {
    for (patch, says) in [
        (json!({"object": 1, "path": "/kind", "value": "x"}), "object 1: there is no such object"),
        (json!({"object": 0, "path": "/data/x", "value": "x"}), "no `x`; there is `Corefile`, `a/b~c`"),
        (json!({"object": 0, "path": "/list/01", "value": "x"}), "no item `01` of 2"),
        (json!({"object": 0, "path": "/list/+1", "value": "x"}), "no item `+1` of 2"),
        (json!({"object": 0, "path": "/kind/x", "value": "x"}), "below a plain value"),
        (json!({"object": 0, "path": "/kind", "value": "{{ cluster.nme }}"}), "no variable `cluster.nme`"),
        (json!({"object": 0, "path": "/kind", "value": "{{ x"}), "without `}}`"),
        (json!({"object": 0, "path": "/kind", "value": "{{cluster.name}}", "type": "number"}), "not a number"),
        (json!({"object": 0, "path": "/kind", "value": "{{cluster.name}}", "type": "json"}), "not a JSON value"),
        (json!({"object": 0, "path": "/kind", "inside": "/x", "value": "x"}), "is not JSON"),
        (json!({"object": 0, "path": "/list", "inside": "/x", "value": "x"}), "is not text"),
        (json!({"object": 0, "path": "/list", "replace": "1", "value": "x"}), "is not text"),
        (json!({"object": 0, "path": "/kind", "when": "x", "value": "x"}), "no variable `x`"),
    ] {
        let error = applied(&config_map(), std::slice::from_ref(&patch)).unwrap_err();
        assert!(error.contains(says), "{patch}: {error}");
    }
}

#[test]
fn a_patch_may_wait_for_a_variable() {
    let patches = [patch(json!({"object": 0, "path": "/kind", "when": "cluster.interface", "value": "x"}))];
    let mut objects = [config_map()];
    apply(&mut objects, &patches, |name| sample(name).map(|_| String::new())).unwrap();
    assert_eq!(objects[0]["kind"], "ConfigMap");
    apply(&mut objects, &patches, sample).unwrap();
    assert_eq!(objects[0]["kind"], "x");
}

#[test]
fn patches_read_back_as_they_were_written_and_contradictions_do_not_read() {
    for text in [
        r#"{"object":0,"path":"/a~1b","value":"x"}"#,
        r#"{"object":2,"op":"add","path":"/a/-","value":{"x":[1,null]}}"#,
        r#"{"object":2,"op":"remove","path":"/a"}"#,
        r#"{"object":2,"path":"/a","inside":"/b","when":"cluster.interface","value":"1","type":"number"}"#,
        r#"{"object":2,"path":"/a","replace":"x","value":"y"}"#,
    ] {
        let patch: Patch = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&patch).unwrap(), text);
    }
    for text in [
        r#"{"object":0,"path":"/a"}"#,
        r#"{"object":0,"path":"","value":"x"}"#,
        r#"{"object":0,"path":"a","value":"x"}"#,
        r#"{"object":0,"path":"/a~2","value":"x"}"#,
        r#"{"object":0,"path":"/a~","value":"x"}"#,
        r#"{"object":0,"path":"/a","value":1,"type":"number"}"#,
        r#"{"object":0,"path":"/a","replace":"","value":"x"}"#,
        r#"{"object":0,"path":"/a","replace":"x","value":1}"#,
        r#"{"object":0,"path":"/a","replace":"x"}"#,
        r#"{"object":0,"op":"remove","path":"/a","value":1}"#,
        r#"{"object":0,"op":"add","path":"/a","replace":"x","value":"1"}"#,
        r#"{"object":0,"path":"/a","value":"x","more":1}"#,
    ] {
        assert!(serde_json::from_str::<Patch>(text).is_err(), "{text}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z{}~/]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z~/#-]{0,4}", inner, 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// Pointers to everything in a value but itself.
fn pointers(value: &Value, way: &mut Vec<String>, all: &mut Vec<Pointer>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(at, item)| (at.to_string(), item)).collect(),
        Value::Object(entries) => entries.iter().map(|(name, value)| (name.clone(), value)).collect(),
        _ => return,
    };
    for (name, child) in children {
        way.push(name);
        all.push(Pointer(way.clone()));
        pointers(child, way, all);
        way.pop();
    }
}

proptest! {
    #[test]
    fn any_text_is_a_pointer_or_an_error_and_pointers_read_back(text in "[/a-c~0-2-]{0,12}") {
        if let Ok(pointer) = text.parse::<Pointer>() {
            prop_assert_eq!(pointer.to_string(), text);
        } else {
            prop_assert!(!text.starts_with('/') || text.contains('~'));
        }
    }

    #[test]
    fn every_place_can_be_named_and_agrees_with_serde_json(value in json_value()) {
        let mut all = Vec::new();
        pointers(&value, &mut Vec::new(), &mut all);
        for pointer in all {
            let text = pointer.to_string();
            prop_assert_eq!(&text.parse::<Pointer>().unwrap(), &pointer);
            let expected = value.pointer(&text).cloned().unwrap();
            let mut copy = value.clone();
            prop_assert_eq!(pointer.find(&mut copy).unwrap(), &expected);
            let set = Patch {
                object: 0,
                path: pointer.clone(),
                inside: None,
                when: None,
                change: Change::Set(Template { value: json!("new"), kind: ValueType::String }),
            };
            let mut objects = [copy];
            apply(&mut objects, std::slice::from_ref(&set), sample).unwrap();
            prop_assert_eq!(objects[0].pointer(&text), Some(&json!("new")));
            let remove = Patch { change: Change::Remove, ..set };
            apply(&mut objects, std::slice::from_ref(&remove), sample).unwrap();
            let mut places = [Vec::new(), Vec::new()];
            pointers(&value, &mut Vec::new(), &mut places[0]);
            pointers(&objects[0], &mut Vec::new(), &mut places[1]);
            prop_assert!(places[1].len() < places[0].len());
        }
    }

    #[test]
    fn no_patch_panics(object in json_value(), path in "(/[a-c0-2~-]{0,2}){1,3}", inside in prop::option::of("(/[a-c0-1]{0,2}){1,2}"), value in json_value()) {
        let (Ok(path), Ok(inside)) = (path.parse(), inside.map(|text| text.parse()).transpose()) else { return Ok(()) };
        for change in [
            Change::Set(Template { value: value.clone(), kind: ValueType::String }),
            Change::Add(Template { value: value.clone(), kind: ValueType::Json }),
            Change::Remove,
            Change::Text { find: "a".into(), with: "{{ cluster.name }}".into() },
        ] {
            let patch = Patch { object: 0, path: Pointer::clone(&path), inside: inside.clone(), when: None, change };
            let _ = apply(&mut [object.clone()], &[patch], sample);
        }
    }
}
