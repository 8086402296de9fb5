//! Strict JSON: one document, at most 4 MiB, no duplicate keys anywhere.
//!
//! Two readers that disagree about which of two equal keys counts would disagree about what was signed, and `serde` alone
//! only notices duplicates of struct fields, not those in maps or in unknown fields. So every document is walked once first.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Reason, quote, refuse};
use crate::limit::JSON_LIMIT;

/// Parses a document found at `place`.
pub(crate) fn parse<T: DeserializeOwned>(place: &str, bytes: &[u8]) -> Result<T, Error> {
    let wrong = |error: &serde_json::Error| {
        refuse(Reason::Metadata, place, "a JSON document of the format", format!("`{}`", quote(&error.to_string())))
    };
    if bytes.len() as u64 > JSON_LIMIT {
        let found = format!("{} bytes", bytes.len());
        return Err(refuse(Reason::Size, place, format!("at most {JSON_LIMIT} bytes of JSON"), found));
    }
    let mut walk = serde_json::Deserializer::from_slice(bytes);
    NoDuplicates.deserialize(&mut walk).and_then(|()| walk.end()).map_err(|error| wrong(&error))?;
    serde_json::from_slice(bytes).map_err(|error| wrong(&error))
}

struct NoDuplicates;

impl<'de> DeserializeSeed<'de> for NoDuplicates {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(NoDuplicates)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(NoDuplicates)?;
            if let Some(key) = keys.replace(key) {
                return Err(A::Error::custom(format!("duplicate key {}", quote(&key))));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_keys_are_refused_at_any_depth() {
        for good in [r#"{"a":1,"b":{"a":2}}"#, "[]", "null", r#"[{"a":1},{"a":1}]"#, "1.5", "-3", "true"] {
            assert!(parse::<serde_json::Value>("test", good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":0,"a":2}}]"#, r#"{"a":1,"\u0061":2}"#, "{} {}", "{", ""] {
            let error = parse::<serde_json::Value>("test", bad.as_bytes()).unwrap_err();
            assert_eq!(error.refusal().unwrap().reason, Reason::Metadata, "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse::<serde_json::Value>("test", deep.as_bytes()).is_err());
    }
}
