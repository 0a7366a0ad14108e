//! Applies operations to an object that is there as text, and builds trees only of the fields that they look into. What
//! operations do is `apply`'s: it gets a small object that holds the fields they touch.
//!
//! Gives the very text that reading and writing the whole would give. Fields that might be written otherwise than they
//! stand there, like `1e3`, are read and written, and for what is more unusual there is no answer.

use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Value};

use crate::apply::{Applied, apply};
use crate::error::OpError;
use crate::limits::VALUE_DEPTH_MAX;
use crate::op::{Op, Ops};
use crate::raw::{Raw, Reader, plain_bytes};
use crate::text::{push_string, push_value};
use crate::tree::read_value;

/// Fields that operations may touch; each field of the object is compared with these.
const TOUCHED_MAX: usize = 16;

/// Fields of the object, and those of objects that stand in one another with one more for each of these. Each is compared
/// with those before it.
const KEYS_MAX: usize = 128;

/// Fields for which there is room at once.
const FIELDS: usize = 16;

/// Digits that a double always keeps.
const DOUBLE_DIGITS: usize = 15;

/// Digits that an integer of 64 bits always holds.
const INTEGER_DIGITS: usize = 18;

/// The new text and the errors; `None` where the whole must be read.
pub(crate) fn apply_to_text(text: &str, ops: &Ops) -> Option<(String, Vec<OpError>)> {
    let touches = touches(ops)?;
    let mut reader = Reader::new(text, 0);
    let (mut keys, mut inner_keys) = (Keys::new(), Keys::new());
    let (mut fields, mut read) = (Vec::with_capacity(FIELDS), Map::new());
    reader.members(|key, value| {
        if !value.is_within(VALUE_DEPTH_MAX - 1) || !keys.add(key.as_bytes()) {
            return None;
        }
        let touch = touches.iter().find(|touch| touch.key == key);
        let stays = value.is_tidy_within(VALUE_DEPTH_MAX) && is_as_written(value, &mut inner_keys);
        let (kept, stand_in) = match touch.map(|touch| touch.need) {
            None if stays => (Kept::Text, None),
            Some(Need::Nothing) if stays => (Kept::Nothing, Some(Value::Null)),
            Some(Need::Elements) if stays && value.get().starts_with('[') => {
                (Kept::Elements, Some(Value::Array(Vec::new())))
            }
            _ => (Kept::Nothing, Some(read_value(value.get()).ok()?)),
        };
        if let Some(stand_in) = stand_in {
            read.insert(key.into(), stand_in);
        }
        let text = value.get();
        fields.push(Field { key, text, kept });
        Some(())
    })?;
    if !reader.is_at_end() {
        return None;
    }
    let Applied { value, errors } = apply(Some(Value::Object(read)), ops);
    let Value::Object(read) = value else {
        return None;
    };
    let mut out = String::with_capacity(text.len() + ops.text().as_str().len());
    write(&mut out, &fields, &read);
    Some((out, errors))
}

/// What operations do to one field of the root.
struct Touch<'o> {
    key: &'o str,
    need: Need,
    is_removed: bool,
}

/// What operations must see of a field's value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It is replaced or removed.
    Nothing,
    /// Only its type, if it is an array: all they do is to append to it.
    Elements,
    Whole,
}

/// The fields that operations touch. `None` where one works on the root itself, or may bring back a removed field, whose
/// new place would not show.
fn touches(ops: &Ops) -> Option<Vec<Touch<'_>>> {
    let mut touches: Vec<Touch<'_>> = Vec::new();
    let mut add = |key, need, is_removed| {
        let Some(place) = touches.iter().position(|touch| touch.key == key) else {
            let touch = Touch {
                key,
                need,
                is_removed,
            };
            return (touches.len() < TOUCHED_MAX).then(|| touches.push(touch));
        };
        let touch = &mut touches[place];
        if touch.is_removed {
            return None;
        }
        if touch.need == Need::Elements && need != Need::Elements {
            touch.need = Need::Whole;
        }
        touch.is_removed = is_removed;
        Some(())
    };
    for op in ops.list.iter().flatten() {
        let (path, need) = match op {
            Op::Merge { path, value } if path.segments.is_empty() => {
                let mut keys = value.keys();
                keys.try_for_each(|key| add(key, Need::Nothing, false))?;
                continue;
            }
            Op::Set { path, .. } | Op::Remove { path } => (path, Need::Nothing),
            Op::Append { path, .. } if path.segments.len() == 1 => (path, Need::Elements),
            Op::Merge { path, .. } | Op::Step { path, .. } | Op::Append { path, .. } => {
                (path, Need::Whole)
            }
        };
        let key = path.segments.first()?;
        add(key, need, matches!(op, Op::Remove { .. }))?;
    }
    Some(touches)
}

/// A field of the object as it was.
struct Field<'t> {
    key: &'t str,
    text: &'t str,
    kept: Kept,
}

/// What of a field's text is part of the new text.
enum Kept {
    Text,
    /// All elements; the value is what was appended.
    Elements,
    Nothing,
}

/// Writes the object from the fields as they were, and the values of those that were touched or read. The first ones of
/// these were there before.
fn write(out: &mut String, fields: &[Field<'_>], values: &Map<String, Value>) {
    out.push('{');
    let start = out.len();
    let mut before = 0;
    for Field { key, text, kept } in fields {
        let value = match kept {
            Kept::Text => None,
            Kept::Elements | Kept::Nothing => match values.get(*key) {
                Some(value) => Some(value),
                None => continue,
            },
        };
        before += usize::from(value.is_some());
        part(out, start);
        out.push('"');
        out.push_str(key);
        out.push_str("\":");
        match value {
            None => out.push_str(text),
            Some(Value::Array(appended)) if matches!(kept, Kept::Elements) => {
                out.push_str(&text[..text.len() - 1]);
                let start = out.len() - (text.len() - 2);
                for element in appended {
                    part(out, start);
                    push_value(out, element);
                }
                out.push(']');
            }
            Some(value) => push_value(out, value),
        }
    }
    for (key, value) in values.iter().skip(before) {
        part(out, start);
        push_string(out, key);
        out.push(':');
        push_value(out, value);
    }
    out.push('}');
}

/// A comma before all but the first member of what starts at `start`.
fn part(out: &mut String, start: usize) {
    if start < out.len() {
        out.push(',');
    }
}

/// Whether a tidy value certainly stands there as it would be written.
fn is_as_written(value: Raw<'_>, keys: &mut Keys) -> bool {
    let bytes = value.get().as_bytes();
    if bytes.starts_with(b"\"") && !value.has_escapes() {
        return true;
    }
    keys.clear();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        at += 1;
        match bytes[start] {
            b'"' => {
                loop {
                    at += plain_bytes(&bytes[at..]);
                    if bytes[at] == b'"' {
                        break;
                    }
                    if bytes[at + 1] == b'/' {
                        return false;
                    }
                    at += 2;
                }
                at += 1;
                // Keys that are written with the same escapes are the same only if their texts are.
                if bytes.get(at) == Some(&b':') && !keys.add(&bytes[start..at]) {
                    return false;
                }
            }
            b'{' if !keys.open() => return false,
            b'}' => keys.close(),
            b'-' | b'0'..=b'9' => {
                let rest = bytes[at..].iter();
                at += rest
                    .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
                    .count();
                if !is_number_as_written(&bytes[start..at]) {
                    return false;
                }
            }
            _ => {}
        }
    }
    true
}

/// Whether a number without an exponent certainly stands there as it would be written.
fn is_number_as_written(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let Some(point) = digits.iter().position(|&byte| byte == b'.') else {
        return digits.len() <= INTEGER_DIGITS && number != b"-0";
    };
    let fraction = &digits[point + 1..];
    // Small numbers are written with an exponent.
    digits.len() - 1 <= DOUBLE_DIGITS
        && (fraction == b"0" || !fraction.ends_with(b"0"))
        && !digits.starts_with(b"0.000")
}

/// The keys of an object, and of those that it stands in, as hashes: what they say is new is new.
struct Keys {
    /// For each object the start of the one around it, and its keys.
    list: [u32; KEYS_MAX],
    len: usize,
    /// Where the keys of the innermost object start.
    start: usize,
}

impl Keys {
    fn new() -> Self {
        Self {
            list: [0; KEYS_MAX],
            len: 0,
            start: 0,
        }
    }

    fn clear(&mut self) {
        (self.len, self.start) = (0, 0);
    }

    /// An object starts. Whether there is room for it.
    fn open(&mut self) -> bool {
        // Starts are below `KEYS_MAX`.
        let has_room = self.push(self.start as u32);
        self.start = self.len;
        has_room
    }

    /// The innermost object ends.
    fn close(&mut self) {
        self.len = self.start - 1;
        self.start = self.list[self.len] as usize;
    }

    /// Whether a key is certainly new, and there is room for it.
    fn add(&mut self, key: &[u8]) -> bool {
        let hash = key.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        !self.list[self.start..self.len].contains(&hash) && self.push(hash)
    }

    fn push(&mut self, entry: u32) -> bool {
        let Some(place) = self.list.get_mut(self.len) else {
            return false;
        };
        *place = entry;
        self.len += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn applied(text: &str, ops: &str) -> Option<String> {
        let ops = Ops::from_text(ops).expect("operations");
        apply_to_text(text, &ops).map(|(value, _)| value)
    }

    #[test]
    fn what_is_not_looked_into_stays_text() {
        let item = r#" { "list":[{"a":9.95}], "gone":[1.5] ,"n":1,"é":{"a":{"a":1e3},"b":"\/"},"last":-7.0}"#;
        let ops = r#"[{"type":"append","path":"list","value":[]},{"type":"remove","path":"gone"},{"type":"increment","path":"n","by":1},
            {"type":"merge","value":{"last":{},"new\n":0}}]"#;
        assert_eq!(
            applied(item, ops).as_deref(),
            Some(
                r#"{"list":[{"a":9.95},[]],"n":2,"é":{"a":{"a":1000.0},"b":"/"},"last":{},"new\n":0}"#
            )
        );
    }

    #[test]
    fn the_unusual_has_no_answer() {
        let step = r#"[{"type":"increment","path":"n","by":1}]"#;
        let many: String = (0..=KEYS_MAX).map(|key| format!("\"k{key}\":0,")).collect();
        for text in [
            "[]",
            "{} x",
            r#"{"a":1,"a":2}"#,
            r#"{"\u0061":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e400}"#,
            &format!("{{{many}\"n\":0}}"),
        ] {
            assert_eq!(applied(text, step), None, "{text}");
        }
        for ops in [
            r#"[{"type":"set","value":1}]"#,
            r#"[{"type":"remove","path":"n"},{"type":"set","path":"n","value":1}]"#,
        ] {
            assert_eq!(applied(r#"{"n":1,"m":2}"#, ops), None, "{ops}");
        }
    }

    #[test]
    fn numbers_that_count_as_written_are_written_so() {
        let mut as_written = 0;
        let digits = [
            "",
            "0",
            "1",
            "9",
            "00",
            "05",
            "50",
            "123456789",
            "999999999999999",
        ];
        for whole in digits {
            for more in digits {
                for fraction in digits
                    .iter()
                    .flat_map(|a| digits.map(|b| format!("{a}{b}")))
                {
                    for text in [
                        format!("{whole}{more}"),
                        format!("-{whole}{more}.{fraction}"),
                    ] {
                        let Ok(value) = read_value(&text) else {
                            continue;
                        };
                        if is_number_as_written(text.as_bytes()) {
                            assert_eq!(format!("{value}"), text);
                            as_written += 1;
                        }
                    }
                }
            }
        }
        assert!(500 < as_written, "{as_written}");
        for text in [
            "-0",
            "1.50",
            "0.0001",
            "9999999999999999999",
            "1.0000000000000001",
        ] {
            assert!(!is_number_as_written(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn repeated_keys_are_found_in_every_object() {
        let is_as_written = |text: &str| {
            let value = Reader::new(text, 0).value().expect("a value");
            is_as_written(value, &mut Keys::new())
        };
        let deep = |levels: usize| "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
        for text in [
            r#"[{"a":{"a":{},"b":{}},"b":{"a":1}},{"a":2}]"#,
            r#"{"a\"":"\\","a\n":"a"}"#,
            &deep(KEYS_MAX / 2 - 1),
        ] {
            assert!(is_as_written(text), "{text}");
        }
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"b":[{"a":{},"b":{"a":1},"a":2}]}"#,
            r#"{"\n":1,"":{},"\n":1}"#,
            &deep(KEYS_MAX / 2 + 1),
        ] {
            assert!(!is_as_written(text), "{text}");
        }
    }
}
