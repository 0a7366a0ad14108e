//! Builds a value tree from JSON text: exactly what stands there. Knows no checks.
//!
//! The library's own reader takes an object whose first key is a name of its own, `$serde_json::private::RawValue`, for
//! something else: it fails, or looks into the string that stands there. Anybody may use that key.
//!
//! Strings and numbers are read here as well: each type that the library reads brings what tells what stood there instead,
//! down to the printing of floats, and makes the wasm module a tenth larger.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads a value. Nests at most as deep as the reader goes, which bounds recursion.
pub(crate) fn read_value(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text).map(|Tree(value)| value)
}

/// Reads a non-negative integer.
pub(crate) fn read_u64(text: &str) -> Option<u64> {
    read_value(text).ok()?.as_u64()
}

/// Reads a signed integer.
pub(crate) fn read_i64(text: &str) -> Option<i64> {
    read_value(text).ok()?.as_i64()
}

/// Reads a string.
pub(crate) fn read_string(text: &str) -> Option<String> {
    match read_value(text) {
        Ok(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// About what a value takes in memory, in bytes. Recursion is bounded: values come out of what was read.
pub(crate) fn memory_bytes(value: &Value) -> usize {
    size_of::<Value>() + beyond(value)
}

/// What a value takes beside its own place.
fn beyond(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity(),
        Value::Array(members) => {
            let places = members.capacity() * size_of::<Value>();
            places + members.iter().map(beyond).sum::<usize>()
        }
        Value::Object(members) => {
            let fields = members.iter();
            let fields = fields.map(|(key, value)| FIELD_BYTES + key.capacity() + beyond(value));
            fields.sum()
        }
    }
}

/// What a field takes beside its key's text and what is in its value: both of their places, a hash, and room for more.
const FIELD_BYTES: usize = 3 * size_of::<usize>() + size_of::<Value>() + 40;

struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor).map(Self)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Tree(member)) = seq.next_element()? {
            members.push(member);
        }
        Ok(Value::Array(members))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((key, Tree(member))) = map.next_entry::<String, Tree>()? {
            members.insert(key, member);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_just_a_key() {
        for text in [
            r#"{"$serde_json::private::RawValue":5}"#,
            r#"{"$serde_json::private::RawValue":"[1"}"#,
            r#"[{"a":{"$serde_json::private::RawValue":"[1]","b":[null,true,-1,2,1.5,"é"]}}]"#,
            r#"{"$serde_json::private::Number":"1"}"#,
        ] {
            let value = read_value(text).expect("JSON text");
            assert_eq!(alloc::format!("{value}"), text);
        }
    }
}
