//! Reads the named fields of one JSON object without building a tree. Knows no call and no frame.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::raw::{Raw, Reader};
use crate::tree::{read_string, read_u64};

/// What is wrong with a field, or with the object that should hold it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// The input is not JSON text.
    #[error("not JSON: {reason}")]
    Syntax {
        /// What the reader said.
        reason: String,
    },
    /// The input is not an object.
    #[error("the input must be an object, got {got}")]
    NotAnObject {
        /// What it is instead.
        got: &'static str,
    },
    /// A field is missing.
    #[error("field `{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field has the wrong type.
    #[error("field `{field}` must be {expected}, got {got}")]
    WrongType {
        /// The field.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: &'static str,
    },
}

/// The values of the fields named at [`Fields::read`], as raw text. Unknown fields are ignored, the last of
/// repeated ones wins.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a, const N: usize> {
    names: &'static [&'static str; N],
    values: [Option<Raw<'a>>; N],
}

impl<'a, const N: usize> Fields<'a, N> {
    /// Reads one object.
    ///
    /// Errors: [`FieldError::Syntax`], [`FieldError::NotAnObject`].
    pub fn read(text: &'a str, names: &'static [&'static str; N]) -> Result<Self, FieldError> {
        let mut values = [None; N];
        read_into(text, names, &mut values)?;
        Ok(Self { names, values })
    }

    /// Reads the object that comes next; `None` for anything that [`Reader`] does not take.
    pub(crate) fn next(reader: &mut Reader<'a>, names: &'static [&'static str; N]) -> Option<Self> {
        let mut values = [None; N];
        next_into(reader, names, &mut values)?;
        Some(Self { names, values })
    }

    /// The raw text of field number `index`, `null` included.
    pub fn raw(&self, index: usize) -> Option<Raw<'a>> {
        self.values[index]
    }

    /// The raw text of field number `index`; absent and `null` are the same.
    pub fn optional(&self, index: usize) -> Option<Raw<'a>> {
        self.values[index].filter(|raw| raw.get() != "null")
    }

    /// The raw text of field number `index`, `null` included.
    ///
    /// Errors: [`FieldError::Missing`].
    pub fn required(&self, index: usize) -> Result<Raw<'a>, FieldError> {
        self.values[index].ok_or(FieldError::Missing {
            field: self.names[index],
        })
    }

    /// A string that must be there.
    ///
    /// Errors: [`FieldError::Missing`], [`FieldError::WrongType`].
    pub fn string(&self, index: usize) -> Result<Cow<'a, str>, FieldError> {
        self.string_of(index, self.required(index)?)
    }

    /// A string that may be absent or `null`.
    ///
    /// Errors: [`FieldError::WrongType`].
    pub fn optional_string(&self, index: usize) -> Result<Option<Cow<'a, str>>, FieldError> {
        self.optional(index)
            .map(|raw| self.string_of(index, raw))
            .transpose()
    }

    /// A boolean that may be absent or `null`.
    ///
    /// Errors: [`FieldError::WrongType`].
    pub fn optional_bool(&self, index: usize) -> Result<Option<bool>, FieldError> {
        match self.optional(index).map(Raw::get) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.wrong_type(index, "a boolean")),
        }
    }

    /// A non-negative integer that may be absent or `null`.
    ///
    /// Errors: [`FieldError::WrongType`].
    pub fn optional_u64(&self, index: usize) -> Result<Option<u64>, FieldError> {
        let Some(raw) = self.optional(index) else {
            return Ok(None);
        };
        match read_u64(raw.get()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong_type(index, "a non-negative integer")),
        }
    }

    /// The error that says that field number `index` should have been something else.
    pub fn wrong_type(&self, index: usize, expected: &'static str) -> FieldError {
        let got = self.values[index].map_or("nothing", |raw| kind_of(raw.get()));
        FieldError::WrongType {
            field: self.names[index],
            expected,
            got,
        }
    }

    fn string_of(&self, index: usize, raw: Raw<'a>) -> Result<Cow<'a, str>, FieldError> {
        string_of(raw).ok_or_else(|| self.wrong_type(index, "a string of whole characters"))
    }
}

/// Reads the values of the named fields. Not generic, so that there is one of it however many fields are read.
fn read_into<'a>(
    text: &'a str,
    names: &[&str],
    values: &mut [Option<Raw<'a>>],
) -> Result<(), FieldError> {
    let mut reader = Reader::new(text, 0);
    if next_into(&mut reader, names, values).is_some() && reader.is_at_end() {
        return Ok(());
    }
    values.fill(None);
    let got = kind_of(text);
    if got != "object" {
        // Text that merely looks like a number or a word may be no JSON at all.
        return Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => FieldError::NotAnObject { got },
            Err(error) => FieldError::Syntax {
                reason: format!("{error}"),
            },
        });
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    reader
        .deserialize_any(FieldsVisitor { names, values })
        .and_then(|()| reader.end())
        .map_err(|error| FieldError::Syntax {
            reason: format!("{error}"),
        })
}

fn next_into<'a>(
    reader: &mut Reader<'a>,
    names: &[&str],
    values: &mut [Option<Raw<'a>>],
) -> Option<()> {
    // Fields mostly come in order.
    let mut next = 0;
    reader.members(|key, value| {
        let is_next = |name: &&&str| **name == key;
        let index = match names.get(next).filter(is_next) {
            Some(_) => Some(next),
            None => names.iter().position(|name| *name == key),
        };
        if let Some(index) = index {
            values[index] = Some(value);
            next = index + 1;
        }
        Some(())
    })
}

/// The text of a JSON string; `None` for anything else, and for half surrogate pairs.
pub fn string_of(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    let text = raw.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if raw.has_escapes() && inner.contains('\\') {
        return read_string(text).map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// The type name of JSON text by its first character, in the words of the specification.
pub fn kind_of(text: &str) -> &'static str {
    match text.trim_ascii_start().bytes().next() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        Some(_) => "number",
        None => "nothing",
    }
}

/// Reads an object the library's way. Takes everything else for one without fields: [`read_into`] has seen a brace, and the
/// library's words for what it did not expect make the wasm module larger.
struct FieldsVisitor<'v, 'a> {
    names: &'v [&'v str],
    values: &'v mut [Option<Raw<'a>>],
}

impl<'a> Visitor<'a> for FieldsVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
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

    fn visit_seq<A: SeqAccess<'a>>(self, _: A) -> Result<(), A::Error> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let names = self.names;
        while let Some(index) = map.next_key_seed(KeySeed { names })? {
            match index {
                Some(index) => self.values[index] = Some(map.next_value::<&RawValue>()?.into()),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads a key as its place in `names`.
struct KeySeed<'n> {
    names: &'n [&'n str],
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.names.iter().position(|name| *name == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_of_repeated_fields_wins_and_unknown_ones_are_ignored() {
        let fields = Fields::read(r#"{"b":1,"a":"x","z":[{}],"\u0061":"y"}"#, &["a", "b"]);
        let fields = fields.expect("an object");
        assert_eq!(fields.string(0), Ok("y".into()));
        assert_eq!(fields.optional_u64(1), Ok(Some(1)));
    }

    #[test]
    fn says_which_field_and_what_it_got() {
        let fields = Fields::read(r#"{"a":[1]}"#, &["a", "b"]).expect("an object");
        assert_eq!(
            fields.string(0).map_err(|error| format!("{error}")),
            Err("field `a` must be a string of whole characters, got array".into())
        );
        assert_eq!(fields.string(1), Err(FieldError::Missing { field: "b" }));
        assert!(matches!(
            Fields::read("nul", &["a"]),
            Err(FieldError::Syntax { .. })
        ));
        assert!(matches!(
            Fields::read("[]", &["a"]),
            Err(FieldError::NotAnObject { got: "array" })
        ));
        assert!(matches!(
            Fields::read("{} x", &["a"]),
            Err(FieldError::Syntax { .. })
        ));
    }
}
