//! JSON text that was checked once and can always be read again. Knows no fields and no operations.
//!
//! A raw JSON reader accepts what a value reader refuses: endless nesting, half surrogate pairs,
//! numbers beyond the double range. Such text must not be stored, or a later update would find a
//! value that it cannot read. [`Json`] is the proof that text was looked through.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::fmt::Write as _;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::limits::VALUE_DEPTH_MAX;
use crate::raw::{Raw, plain_bytes};
use crate::tree::{read_string, read_value};

/// Checked JSON text without white space between tokens, its characters as themselves and not as `\\u` escapes where they
/// can be. Cloning shares it.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Arc<str>);

/// Why text cannot be taken as a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Not JSON at all.
    #[error("not JSON: {reason}")]
    Syntax {
        /// What the reader said.
        reason: String,
    },
    /// Arrays and objects nest too deep.
    #[error("nests more than {depth_max} levels deep, which is the limit")]
    TooDeep {
        /// The limit in levels.
        depth_max: usize,
    },
    /// A string holds one half of a surrogate pair.
    #[error("holds a string with half a surrogate pair at byte {offset}")]
    LoneSurrogate {
        /// Where in the text.
        offset: usize,
    },
    /// A number is beyond the range of a double.
    #[error("holds a number beyond the double range at byte {offset}")]
    NumberOutOfRange {
        /// Where in the text.
        offset: usize,
    },
}

impl Json {
    /// Checks text that a JSON reader has already found well-formed.
    ///
    /// Errors: [`TextError::TooDeep`] beyond [`VALUE_DEPTH_MAX`], [`TextError::LoneSurrogate`],
    /// [`TextError::NumberOutOfRange`].
    pub fn from_raw(raw: &RawValue) -> Result<Self, TextError> {
        Self::from_raw_within(raw.into(), VALUE_DEPTH_MAX)
    }

    /// The same for the value of a [field](crate::fields::Fields).
    ///
    /// Errors: as [`Json::from_raw`].
    pub fn from_field(raw: Raw<'_>) -> Result<Self, TextError> {
        Self::from_raw_within(raw, VALUE_DEPTH_MAX)
    }

    /// Like [`Json::from_field`] with another limit, for text that wraps values.
    pub(crate) fn from_raw_within(raw: Raw<'_>, depth_max: usize) -> Result<Self, TextError> {
        let text = raw.get();
        if raw.is_tidy_within(depth_max) {
            return Ok(Self(text.into()));
        }
        if scan(text.as_bytes(), depth_max)?.is_loose {
            return Ok(Self(compact(text).into()));
        }
        Ok(Self(text.into()))
    }

    /// Checks any text.
    ///
    /// Errors: as [`Json::from_raw`], and [`TextError::Syntax`].
    pub fn from_text(text: &str) -> Result<Self, TextError> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| TextError::Syntax {
            reason: alloc::format!("{error}"),
        })?;
        Self::from_raw(raw)
    }

    /// Takes text that was checked before it was kept, or made of such text.
    pub(crate) fn from_kept(text: &str) -> Self {
        Self(text.into())
    }

    /// Writes a value that came out of checked text, so that it needs no check.
    pub(crate) fn from_checked_value(value: &Value) -> Self {
        Self(text_of(value).into())
    }

    /// A JSON string.
    pub fn from_str_value(text: &str) -> Self {
        let mut out = String::with_capacity(text.len() + 2);
        push_string(&mut out, text);
        Self(out.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Builds the value tree.
    pub fn to_value(&self) -> Value {
        // Proof: checked text, also if it was kept and a checksum vouches for it, is well-formed, nests at most `VALUE_DEPTH_MAX` < 128 levels (the
        // reader's own limit), and its strings and numbers were looked through.
        #[expect(clippy::unwrap_used)]
        read_value(&self.0).unwrap()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value tree of any text, with the checks of [`Json::from_text`] and without the text that nobody keeps.
pub(crate) fn value_of(text: &str) -> Result<Value, TextError> {
    match read_value(text) {
        Ok(value) if is_within(&value, VALUE_DEPTH_MAX) => Ok(value),
        // It says why not.
        _ => Json::from_text(text).map(|json| json.to_value()),
    }
}

/// Whether a value nests at most so deep.
fn is_within(value: &Value, depth_max: usize) -> bool {
    let Some(below) = depth_max.checked_sub(1) else {
        return !value.is_array() && !value.is_object();
    };
    match value {
        Value::Array(members) => members.iter().all(|member| is_within(member, below)),
        Value::Object(members) => members.values().all(|member| is_within(member, below)),
        _ => true,
    }
}

/// The text of a value that came out of checked text.
pub(crate) fn text_of(value: &Value) -> String {
    let mut out = String::with_capacity(VALUE_BYTES);
    push_value(&mut out, value);
    out
}

/// Room for a value that is written, in bytes; larger ones grow.
const VALUE_BYTES: usize = 512;

/// Appends a value that came out of checked text, so that recursion is bounded. The same text as the library's, faster.
pub(crate) fn push_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => {
            if let Some(unsigned) = number.as_u64() {
                push_number(out, unsigned);
            } else if let Some(signed) = number.as_i64() {
                out.push('-');
                push_number(out, signed.unsigned_abs());
            } else {
                // Writing to a string cannot fail.
                let _ = write!(out, "{number}");
            }
        }
        Value::String(text) => push_string(out, text),
        Value::Array(members) => {
            out.push('[');
            for (index, member) in members.iter().enumerate() {
                if 0 < index {
                    out.push(',');
                }
                push_value(out, member);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (key, member)) in members.iter().enumerate() {
                if 0 < index {
                    out.push(',');
                }
                push_string(out, key);
                out.push(':');
                push_value(out, member);
            }
            out.push('}');
        }
    }
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain_bytes(rest.as_bytes()));
        out.push_str(plain);
        let Some(&byte) = special.as_bytes().first() else {
            break;
        };
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            0x09 => out.push_str("\\t"),
            0x0A => out.push_str("\\n"),
            0x0C => out.push_str("\\f"),
            0x0D => out.push_str("\\r"),
            control => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{control:04x}");
            }
        }
        rest = &special[1..];
    }
    out.push('"');
}

/// Appends a number.
pub fn push_number(out: &mut String, number: u64) {
    // Twenty digits hold every u64.
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        // `rest % 10` is below 10, so it fits.
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend(digits[start..].iter().map(|&digit| char::from(digit)));
}

/// What a look through well-formed text found.
struct Scan {
    /// Whether there is white space between tokens or a `\\u` escape, so that the text can be made shorter.
    is_loose: bool,
}

/// Looks through well-formed text once, without recursion.
fn scan(bytes: &[u8], depth_max: usize) -> Result<Scan, TextError> {
    let mut depth = 0_usize;
    let mut is_loose = false;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at)?;
                is_loose |= end.has_unicode_escape;
                at = end.at;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth_max < depth {
                    return Err(TextError::TooDeep { depth_max });
                }
            }
            b'}' | b']' => depth -= 1,
            b'-' | b'0'..=b'9' => {
                at = number_end(bytes, at)?;
                continue;
            }
            b' ' | b'\n' | b'\r' | b'\t' => is_loose = true,
            _ => {}
        }
        at += 1;
    }
    Ok(Scan { is_loose })
}

/// Where a string ends.
struct StringEnd {
    /// The offset after the closing quote.
    at: usize,
    has_unicode_escape: bool,
}

/// The end of the string that opens at `open`.
fn string_end(bytes: &[u8], open: usize) -> Result<StringEnd, TextError> {
    let mut at = open + 1;
    let mut has_unicode_escape = false;
    loop {
        at += special(&bytes[at..]);
        if bytes[at] == b'"' {
            return Ok(StringEnd {
                at: at + 1,
                has_unicode_escape,
            });
        }
        if bytes[at + 1] != b'u' {
            at += 2;
            continue;
        }
        has_unicode_escape = true;
        let unit = hex4(&bytes[at + 2..at + 6]);
        let is_high = (0xD800..0xDC00).contains(&unit);
        let is_low = (0xDC00..0xE000).contains(&unit);
        if is_low {
            return Err(TextError::LoneSurrogate { offset: at });
        }
        if is_high {
            let follows = bytes.get(at + 6..at + 12).is_some_and(|next| {
                next.starts_with(b"\\u") && (0xDC00..0xE000).contains(&hex4(&next[2..6]))
            });
            if !follows {
                return Err(TextError::LoneSurrogate { offset: at });
            }
            at += 12;
        } else {
            at += 6;
        }
    }
}

/// How many bytes come before the next quote or backslash. Well-formed strings have one.
fn special(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS != 0;
    let quotes = ONES * u64::from(b'"');
    let slashes = ONES * u64::from(b'\\');
    let mut before = 0;
    // Eight bytes at a time: long texts are most of what is stored.
    let (words, _) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_ne_bytes(*word);
        if has_zero(word ^ quotes) || has_zero(word ^ slashes) {
            break;
        }
        before += 8;
    }
    let tail = bytes[before..].iter();
    before
        + tail
            .take_while(|&&byte| byte != b'"' && byte != b'\\')
            .count()
}

/// The value of four hexadecimal digits; the reader has made sure that they are some.
fn hex4(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |sum, &digit| {
        let value = char::from(digit).to_digit(16).unwrap_or(0);
        sum * 16 + value
    })
}

/// The offset after the number that starts at `start`.
fn number_end(bytes: &[u8], start: usize) -> Result<usize, TextError> {
    // More digits than this before the point may exceed the largest double, 1.8e308.
    const SAFE_BYTES: usize = 300;
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let length = bytes[start..]
        .iter()
        .take_while(|&byte| is_part(byte))
        .count();
    let number = &bytes[start..start + length];
    let may_exceed = SAFE_BYTES < length || number.iter().any(|byte| matches!(byte, b'e' | b'E'));
    if may_exceed {
        // The reader whose values these become: it refuses what is beyond the range.
        let value = core::str::from_utf8(number).map(read_value);
        if !matches!(value, Ok(Ok(_))) {
            return Err(TextError::NumberOutOfRange { offset: start });
        }
    }
    Ok(start + length)
}

/// The same text without white space between tokens and without needless `\\u` escapes.
fn compact(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                // Proof: the caller has scanned this text, so every string ends well.
                let end = string_end(bytes, at).unwrap_or(StringEnd {
                    at: bytes.len(),
                    has_unicode_escape: false,
                });
                let string = &text[at..end.at];
                match end
                    .has_unicode_escape
                    .then(|| read_string(string))
                    .flatten()
                {
                    Some(plain) => push_string(&mut out, &plain),
                    None => out.push_str(string),
                }
                at = end.at;
            }
            b' ' | b'\n' | b'\r' | b'\t' => at += 1,
            byte => {
                out.push(char::from(byte));
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn keeps_text_and_drops_space_between_tokens() {
        let json = Json::from_text(" { \"a b\" : [ 1.50 , \"\\\" \\\\\" , null ] }\n");
        assert_eq!(
            json.map(|json| json.as_str().to_string()),
            Ok(r#"{"a b":[1.50,"\" \\",null]}"#.to_string())
        );
    }

    #[test]
    fn characters_stand_for_themselves_where_they_can() {
        let json =
            Json::from_text(r#"{"b":"\u00e9\ud83e\udd80\u0001\u0022","\u0061":1e2,"c":"\/\t"}"#);
        let expected = "{\"b\":\"é🦀\\u0001\\\"\",\"a\":1e2,\"c\":\"\\/\\t\"}";
        assert_eq!(
            json.map(|json| json.as_str().to_string()),
            Ok(expected.to_string())
        );
    }

    #[test]
    fn refuses_what_a_value_reader_would_refuse() {
        let cases = [
            (r#""\ud800""#, TextError::LoneSurrogate { offset: 1 }),
            (r#""\udc00""#, TextError::LoneSurrogate { offset: 1 }),
            (r#""x\ud800\u0041""#, TextError::LoneSurrogate { offset: 2 }),
            (r#"{"\ud83d":1}"#, TextError::LoneSurrogate { offset: 2 }),
            ("[1e999]", TextError::NumberOutOfRange { offset: 1 }),
            ("-1E400", TextError::NumberOutOfRange { offset: 0 }),
        ];
        for (text, error) in cases {
            assert_eq!(Json::from_text(text), Err(error), "{text}");
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
        let long = "9".repeat(400);
        assert_eq!(
            Json::from_text(&long),
            Err(TextError::NumberOutOfRange { offset: 0 })
        );
    }

    #[test]
    fn accepts_what_a_value_reader_accepts() {
        let long = "9".repeat(308);
        for text in [
            r#""\ud83d\ude00""#,
            "1e308",
            "0e999",
            "1e-999",
            "-0",
            &long,
            r#""\\\"""#,
        ] {
            let json = Json::from_text(text);
            assert!(
                json.is_ok_and(|json| serde_json::from_str::<Value>(json.as_str()).is_ok()),
                "{text}"
            );
        }
    }

    #[test]
    fn nesting_at_the_limit_and_one_past() {
        let nest = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let limit = VALUE_DEPTH_MAX;
        assert!(Json::from_text(&nest(limit)).is_ok_and(|json| json.to_value().is_array()));
        assert_eq!(
            Json::from_text(&nest(limit + 1)),
            Err(TextError::TooDeep { depth_max: limit })
        );
        assert_eq!(
            Json::from_text(&nest(100_000)),
            Err(TextError::TooDeep { depth_max: limit })
        );
    }

    #[test]
    fn writes_numbers_and_strings_as_the_library_does() {
        for number in [0, 9, 10, u64::MAX] {
            let mut out = String::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string());
        }
        let controls: String = (0..=0x80_u8).map(char::from).collect();
        let spread = "é".repeat(9) + "\"" + &"é".repeat(4) + "\\" + &"x".repeat(17) + "\n";
        for text in [
            "", "plain", "q\"q", "b\\b", "\u{1}", "é😀\n", &controls, &spread,
        ] {
            let mut out = String::new();
            push_string(&mut out, text);
            assert_eq!(out, serde_json::to_string(text).unwrap_or_default());
        }
        let values = r#"[null,true,false,0,-1,18446744073709551615,-9223372036854775808,1.5,-0.0,1e15,1e16,1e-7,{"a\n":{},"b":[[],{"c":"d"}]}]"#;
        let value: Value = serde_json::from_str(values).expect("JSON text");
        assert_eq!(Json::from_checked_value(&value).as_str(), value.to_string());
    }
}
