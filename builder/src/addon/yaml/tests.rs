use proptest::prelude::*;
use serde_json::json;

use super::*;

fn one(text: &str) -> Value {
    let mut all = documents(text).unwrap();
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0).value
}

fn said(text: &str) -> String {
    documents(text).unwrap_err().to_string()
}

/// Each of these was read by `kubectl annotate --local -o json` to the same value.
#[test]
fn scalars_mean_what_they_mean_to_kubectl() {
    for (text, value) in [
        ("0644", json!(420)),
        ("0o644", json!(420)),
        ("-0644", json!(-420)),
        ("0x1A", json!(26)),
        ("0b101", json!(5)),
        ("08", json!(8)),
        ("1_000", json!(1000)),
        ("+5", json!(5)),
        ("-5", json!(-5)),
        ("0", json!(0)),
        ("9223372036854775807", json!(i64::MAX)),
        ("18446744073709551615", json!(u64::MAX)),
        ("1.0", json!(1)),
        ("1.50", json!(1.5)),
        (".5", json!(0.5)),
        ("5.", json!(5)),
        ("1e3", json!(1000)),
        ("1e999", json!("1e999")),
        ("2001-01-01", json!("2001-01-01")),
        ("2001-12-14T21:59:43Z", json!("2001-12-14T21:59:43Z")),
        ("12:30:45", json!("12:30:45")),
        ("1.2.3", json!("1.2.3")),
        ("10.0.0.0/8", json!("10.0.0.0/8")),
        ("10m", json!("10m")),
        ("0x", json!("0x")),
        ("+", json!("+")),
        (".", json!(".")),
        ("--x", json!("--x")),
        ("y", json!(true)),
        ("Yes", json!(true)),
        ("on", json!(true)),
        ("TRUE", json!(true)),
        ("n", json!(false)),
        ("No", json!(false)),
        ("OFF", json!(false)),
        ("yEs", json!("yEs")),
        ("~", json!(null)),
        ("Null", json!(null)),
        ("", json!(null)),
        ("nULL", json!("nULL")),
        ("'0644'", json!("0644")),
        ("\"yes\"", json!("yes")),
        ("''", json!("")),
        ("!!str 0644", json!("0644")),
        ("!!int 0644", json!(420)),
        ("!!float 3", json!(3)),
        ("!!bool yes", json!(true)),
        ("!!binary aGVsbG8=", json!("hello")),
        ("|\n  0644\n", json!("0644\n")),
        (">-\n  a\n  b\n\n  c\n", json!("a b\nc")),
        ("<<", json!("<<")),
        ("0_8", json!(8)),
        ("0x_1A", json!(26)),
        ("._5", json!("._5")),
        ("_1", json!("_1")),
        ("-0.0", json!(0)),
        (".5e1", json!(5)),
        ("+0x10", json!(16)),
    ] {
        assert_eq!(one(&format!("k: {text}")), json!({"k": value}), "{text}");
    }
    for (text, says) in [
        (".inf", "quote it"),
        ("-.Inf", "quote it"),
        (".nan", "quote it"),
        ("!!int x", "not a `!!int`"),
        ("!!int 1.5", "not a `!!int`"),
        ("!!null 0", "not a `!!null`"),
        ("!!binary '*'", "base64"),
        ("!mine x", "a tag that has no meaning"),
        ("!!set {a}", "a tag that has no meaning"),
        ("!!python/object x", "a tag that has no meaning"),
    ] {
        assert!(said(&format!("k: {text}")).contains(says), "{text}: {}", said(&format!("k: {text}")));
    }
}

#[test]
fn brackets_may_close_where_people_close_them() {
    let expected = json!({"k": [{"command": ["a"], "b": {"x": 1}}]});
    for text in [
        "k:\n- command: [\n    \"a\"\n  ]\n  b: {\n    x: 1\n  }\n",
        "k:\n- command: [\n  \"a\",\n]\n  b: {\n  x: 1\n}\n",
        "k: [\n{\n  command: [\"a\"], b: {x: 1}\n}\n]\n",
    ] {
        assert_eq!(one(text), expected, "{text}");
    }
}

#[test]
fn numbers_beyond_64_bits_become_floats() {
    assert_eq!(
        one("[18446744073709551616, -9223372036854775809, 1e20]"),
        json!([(2f64).powi(64), -(2f64).powi(63), 1e20])
    );
}

#[test]
fn keys_become_text_and_are_unique() {
    assert_eq!(
        one("1: a\ntrue: b\n010: c\n'on': d\nx.y/z: e\n"),
        json!({"1": "a", "true": "b", "8": "c", "on": "d", "x.y/z": "e"})
    );
    for (text, says) in [
        ("a: 1\nb: 2\n\"a\": 3\n", "line 3: duplicate key `a`"),
        ("x: {a: 1, a: 2}", "duplicate key"),
        ("yes: 1\ntrue: 2\n", "line 2: duplicate key `true`"),
        ("? [a]\n: 1\n", "a key that is not text"),
        ("? {a: 1}\n: 1\n", "a key that is not text"),
        ("~: 1\n", "a key that is not text"),
    ] {
        assert!(said(text).contains(says), "{text}: {}", said(text));
    }
}

#[test]
fn anchors_aliases_and_merge_keys() {
    let text =
        "base: &b {x: 1, w: 2}\nmore: &m {w: 3, z: 4}\none:\n  w: 9\n  <<: *b\ntwo:\n  <<: [*m, *b]\nagain: [*b, *b]\n";
    assert_eq!(
        one(text),
        json!({
            "base": {"x": 1, "w": 2}, "more": {"w": 3, "z": 4},
            "one": {"x": 1, "w": 9}, "two": {"x": 1, "w": 3, "z": 4},
            "again": [{"x": 1, "w": 2}, {"x": 1, "w": 2}],
        })
    );
    assert_eq!(one("a: &x k\n*x : 1\n"), json!({"a": "k", "k": 1}));
    assert_eq!(one("'<<': 1"), json!({"<<": 1}), "quoted: only text");
    for (text, says) in [
        ("a: &a [*a]", "contains it"),
        ("a: *b", ""),
        ("--- &a x\n--- *a\n", ""),
        ("<<: 1", "`<<` takes"),
        ("<<: [[1]]", "`<<` takes"),
        ("a: 1\n*x : 1", ""),
    ] {
        assert!(said(text).contains(says), "{text}: {}", said(text));
    }
}

#[test]
fn a_bomb_of_aliases_is_refused_early() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let below = format!("*a{}", level - 1);
        text = format!("{text}a{level}: &a{level} [{}]\n", vec![below; 9].join(", "));
    }
    assert!(said(&text).contains("aliases unfold to more than"));
    let merged = format!("big: &big {{k: '{}'}}\nall:\n{}", "x".repeat(1 << 20), "- <<: *big\n".repeat(40));
    assert!(said(&merged).contains("aliases unfold"));
    let open = (0..100).fold(String::new(), |text, level| format!("{text}&a{level} ["));
    let nested = |size: usize| format!("{open}{}{}", "x".repeat(size), "]".repeat(100));
    assert!(said(&nested(1 << 20)).contains("aliases unfold"), "anchors that nobody uses");
    assert!(documents(&nested(1 << 10)).is_ok());
    let harmless = format!("big: &big {{k: '{}'}}\nall:\n{}", "x".repeat(1 << 10), "- <<: *big\n".repeat(40));
    assert!(documents(&harmless).is_ok());
}

#[test]
fn nesting_is_limited_also_through_aliases() {
    let nested = |depth: usize| format!("{}x{}", "[".repeat(depth), "]".repeat(depth));
    assert!(documents(&nested(DEPTH_LIMIT)).is_ok());
    assert!(said(&nested(DEPTH_LIMIT + 1)).contains("deeper than 128"));
    let maps = (0..200).fold(String::new(), |text, level| text + &" ".repeat(level) + "a:\n");
    assert!(said(&maps).contains("deeper than 128"));
    assert!(!said(&nested(200_000)).is_empty());
    assert!(said(&format!("a: &a {}\nb: {}", nested(100), nested(60).replace('x', "*a"))).contains("deeper than 128"));
}

#[test]
fn text_is_limited_and_marks_are_stripped() {
    assert_eq!(one("\u{feff}a: 1\r\nb: 2\r\n"), json!({"a": 1, "b": 2}));
    assert!(said(&" ".repeat(TEXT_LIMIT + 1)).contains("at most"));
    assert!(documents("a: \u{0}").is_err());
}

#[test]
fn documents_have_their_lines() {
    let lines = |text| documents(text).unwrap().iter().map(|document| document.line).collect::<Vec<_>>();
    assert_eq!(lines("a: 1\n---\n\n# c\nb: 2\n...\n---\n- x\n"), [1, 5, 8]);
    assert_eq!(documents("---\n---\n# x\n").unwrap().iter().filter(|document| !document.value.is_null()).count(), 0);
}

/// YAML that says the same as a JSON value in block style.
fn block(value: &Value, indent: usize) -> String {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(entries) if !entries.is_empty() => entries.iter().fold(String::new(), |text, (name, value)| {
            text + &pad + &Value::from(name.as_str()).to_string() + ":" + &below(value, indent)
        }),
        Value::Array(items) if !items.is_empty() => {
            items.iter().fold(String::new(), |text, item| text + &pad + "-" + &below(item, indent))
        }
        other => format!("{pad}{other}\n"),
    }
}

fn below(value: &Value, indent: usize) -> String {
    match value {
        Value::Object(entries) if !entries.is_empty() => format!("\n{}", block(value, indent + 2)),
        Value::Array(items) if !items.is_empty() => format!("\n{}", block(value, indent + 2)),
        other => format!(" {other}\n"),
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[ -~]{0,8}", inner, 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "([ -~\\n]|[-:?,\\[\\]{}#&*!|>'\"%@` \\n]|[a-c0-1]|é){0,60}") {
        let _ = documents(&text);
    }

    #[test]
    fn json_and_block_style_say_the_same(value in json_value()) {
        prop_assert_eq!(&one(&block(&value, 0)), &value);
        prop_assert_eq!(&one(&value.to_string()), &value);
    }
}
