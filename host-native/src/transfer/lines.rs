//! Items as JSON lines: one object per line, groups in order of creation. See `docs/migration.md` for the format.
//!
//! `{"stream":"chat","group":"lobby","item":"m1","value":{…},"ttl_ms":60000,"expires_ms":1760000000000}` is an item; the
//! last two are there where it has a time to live. `{"scope":"users","key":"u1","value":{…}}` is a key of the state.

use std::io::{self, BufRead, Write};

use iii_stream_core::limits::{NAME_BYTES_MAX, TTL_MS_MAX};
use iii_stream_core::text::{TextError, push_number, push_string};
use iii_stream_core::{Json, is_name};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::entry::{
    Entry, ITEM_BYTES_MAX, ItemSink, ItemSource, Origin, Place, Refused, SinkError, SourceError,
};

/// The longest line, in bytes: an item with names whose every byte is an escape of six, and the rest.
pub const LINE_BYTES_MAX: usize = ITEM_BYTES_MAX + 3 * 6 * NAME_BYTES_MAX + 1_024;

/// Why a line is no item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Too many bytes.
    #[error("is longer than {bytes_max} bytes, which is the limit")]
    TooLong {
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// Bytes that are no text.
    #[error("is not UTF-8 from byte {offset} on")]
    NotUtf8 {
        /// Where in the line.
        offset: usize,
    },
    /// No object, or one with other fields.
    #[error("{reason}, at column {column}")]
    Shape {
        /// What the reader said.
        reason: String,
        /// Where in the line, in bytes from 1.
        column: usize,
    },
    /// Neither an item nor a key of the state.
    #[error("has to have `stream`, `group` and `item`, or `scope` and `key`, and has {got}")]
    Names {
        /// The ones it has.
        got: String,
    },
    /// A name that nothing can have.
    #[error("`{field}` has {bytes} bytes, allowed are 1 to {NAME_BYTES_MAX}")]
    Name {
        /// The field.
        field: &'static str,
        /// The length of the name.
        bytes: usize,
    },
    /// A value that cannot be stored.
    #[error("`value` {0}")]
    Value(TextError),
    /// A time to live out of range.
    #[error("`ttl_ms` is {ttl_ms}, allowed are 1 to {TTL_MS_MAX} milliseconds")]
    Ttl {
        /// What it is.
        ttl_ms: u64,
    },
    /// A time to live where there can be none.
    #[error("`{field}` {needs}")]
    Misplaced {
        /// The field.
        field: &'static str,
        /// What it needs.
        needs: &'static str,
    },
}

/// The fields of a line; others are refused by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    stream: Option<String>,
    group: Option<String>,
    item: Option<String>,
    scope: Option<String>,
    key: Option<String>,
    #[serde(borrow)]
    value: &'a RawValue,
    ttl_ms: Option<u64>,
    expires_ms: Option<u64>,
}

/// Reads one line, without its end.
///
/// Errors: [`LineError`], but for its first two.
pub fn read_line(text: &str) -> Result<Entry, LineError> {
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| shape(&error))?;
    let place = match line {
        Line {
            stream: Some(ref stream),
            group: Some(ref group),
            item: Some(ref item),
            scope: None,
            key: None,
            ..
        } => Place::Stream {
            stream: name("stream", stream)?.into(),
            group: name("group", group)?.into(),
            item: name("item", item)?.to_owned(),
        },
        Line {
            stream: None,
            group: None,
            item: None,
            scope: Some(ref scope),
            key: Some(ref key),
            ..
        } => Place::State {
            scope: name("scope", scope)?.into(),
            key: name("key", key)?.to_owned(),
        },
        line => return Err(LineError::Names { got: line.names() }),
    };
    let misplaced = |field, needs| Err(LineError::Misplaced { field, needs });
    match (&place, line.ttl_ms, line.expires_ms) {
        (Place::State { .. }, Some(_), _) => return misplaced("ttl_ms", STATE_HAS_NO_TTL),
        (Place::State { .. }, _, Some(_)) => return misplaced("expires_ms", STATE_HAS_NO_TTL),
        (_, None, Some(_)) => return misplaced("expires_ms", "needs `ttl_ms` beside it"),
        (_, Some(ttl_ms), _) if !(1..=TTL_MS_MAX).contains(&ttl_ms) => {
            return Err(LineError::Ttl { ttl_ms });
        }
        _ => {}
    }
    Ok(Entry {
        place,
        value: Json::from_raw(line.value).map_err(LineError::Value)?,
        ttl_ms: line.ttl_ms,
        expires_ms: line.expires_ms,
    })
}

const STATE_HAS_NO_TTL: &str = "is for items of streams only";

/// Appends an item as a line, with its end.
pub fn push_line(out: &mut String, entry: &Entry) {
    let mut field = |before: &str, text: &str| {
        out.push_str(before);
        push_string(out, text);
    };
    match &entry.place {
        Place::Stream {
            stream,
            group,
            item,
        } => {
            field(r#"{"stream":"#, stream);
            field(r#","group":"#, group);
            field(r#","item":"#, item);
        }
        Place::State { scope, key } => {
            field(r#"{"scope":"#, scope);
            field(r#","key":"#, key);
        }
    }
    out.push_str(r#","value":"#);
    out.push_str(entry.value.as_str());
    for (before, number) in [
        (r#","ttl_ms":"#, entry.ttl_ms),
        (r#","expires_ms":"#, entry.expires_ms),
    ] {
        if let Some(number) = number {
            out.push_str(before);
            push_number(out, number);
        }
    }
    out.push_str("}\n");
}

/// Lines from any reader; empty ones are passed over.
pub struct LineSource<R> {
    input: R,
    /// What is read, for people.
    name: String,
    /// The last line, counted from 1.
    number: u64,
    bytes_read: u64,
    bytes: Vec<u8>,
    line_bytes_max: usize,
}

/// Lines to any writer.
pub struct LineSink<W> {
    output: W,
    text: String,
}

impl<R: BufRead> LineSource<R> {
    /// Reads from the present place of `input`; `name` tells people what it is.
    pub fn new(input: R, name: impl Into<String>) -> Self {
        Self {
            input,
            name: name.into(),
            number: 0,
            bytes_read: 0,
            bytes: Vec::new(),
            line_bytes_max: LINE_BYTES_MAX,
        }
    }

    /// Reads the next line, at most as many bytes as are allowed, and steps over what is beyond. Whether there was one.
    fn fill(&mut self) -> io::Result<Option<Result<(), LineError>>> {
        self.bytes.clear();
        let mut is_too_long = false;
        let mut is_there = false;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                break;
            }
            is_there = true;
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line_bytes_max < self.bytes.len() + part.len() {
                is_too_long = true;
            } else {
                self.bytes.extend_from_slice(part);
            }
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.input.consume(taken);
            // A length in memory fits.
            self.bytes_read += taken as u64;
            if end.is_some() {
                break;
            }
        }
        if !is_there {
            return Ok(None);
        }
        self.number += 1;
        let bytes_max = self.line_bytes_max;
        Ok(Some(if is_too_long {
            Err(LineError::TooLong { bytes_max })
        } else {
            Ok(())
        }))
    }
}

impl<R: BufRead> ItemSource for LineSource<R> {
    fn next_item(&mut self) -> Result<Option<(Entry, Origin)>, SourceError> {
        loop {
            let filled = self.fill().map_err(|error| SourceError::Broken {
                name: self.name.clone(),
                error,
            })?;
            let Some(filled) = filled else {
                return Ok(None);
            };
            let origin = Origin::Line(self.number);
            let entry = filled.and_then(|()| match str::from_utf8(&self.bytes) {
                Err(error) => Err(LineError::NotUtf8 {
                    offset: error.valid_up_to(),
                }),
                Ok(text) if text.trim_ascii().is_empty() => Ok(None),
                Ok(text) => read_line(text).map(Some),
            });
            match entry {
                Ok(Some(entry)) => return Ok(Some((entry, origin))),
                Ok(None) => {}
                Err(error) => {
                    let reason = error.to_string();
                    return Err(SourceError::Damaged { origin, reason });
                }
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}

impl<W: Write> LineSink<W> {
    /// Writes to `output`, which had better be buffered.
    pub fn new(output: W) -> Self {
        Self {
            output,
            text: String::new(),
        }
    }

    /// The writer, with everything written to it.
    pub fn into_inner(self) -> W {
        self.output
    }
}

impl<W: Write> ItemSink for LineSink<W> {
    fn put(&mut self, entry: &Entry, _: &Origin, _: &mut Vec<Refused>) -> Result<(), SinkError> {
        self.text.clear();
        push_line(&mut self.text, entry);
        self.output
            .write_all(self.text.as_bytes())
            .map_err(cannot_write)
    }

    fn finish(&mut self, _: &mut Vec<Refused>) -> Result<(), SinkError> {
        self.output.flush().map_err(cannot_write)
    }
}

#[expect(clippy::needless_pass_by_value)] // As `map_err` gives it.
fn cannot_write(error: io::Error) -> SinkError {
    SinkError(format!("cannot write: {error}"))
}

fn name<'a>(field: &'static str, name: &'a str) -> Result<&'a str, LineError> {
    if is_name(name) {
        return Ok(name);
    }
    let bytes = name.len();
    Err(LineError::Name { field, bytes })
}

/// What the library says, without its line, which is always the first.
fn shape(error: &serde_json::Error) -> LineError {
    let (text, column) = (error.to_string(), error.column());
    let place = format!(" at line {} column {column}", error.line());
    LineError::Shape {
        reason: text.strip_suffix(&place).unwrap_or(&text).to_owned(),
        column,
    }
}

impl Line<'_> {
    /// Which names there are, for people.
    fn names(&self) -> String {
        let names = [
            ("stream", &self.stream),
            ("group", &self.group),
            ("item", &self.item),
            ("scope", &self.scope),
            ("key", &self.key),
        ];
        let there: Vec<_> = names
            .iter()
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        if there.is_empty() {
            return "none of them".to_owned();
        }
        there.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &[u8]) -> LineSource<&[u8]> {
        LineSource::new(text, "test")
    }

    fn all(mut source: LineSource<&[u8]>) -> Vec<Result<(Entry, Origin), String>> {
        let mut all = Vec::new();
        loop {
            match source.next_item() {
                Ok(None) => return all,
                Ok(Some(item)) => all.push(Ok(item)),
                Err(error) => all.push(Err(error.to_string())),
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let name = "a:b/c \"é🦀\n\\";
        let stream = |value: &str, ttl_ms: Option<u64>| Entry {
            place: Place::Stream {
                stream: name.into(),
                group: "lobby".into(),
                item: name.into(),
            },
            value: Json::from_text(value).expect("JSON"),
            ttl_ms,
            expires_ms: ttl_ms.map(|_| 1_760_000_000_000),
        };
        let state = Entry {
            place: Place::State {
                scope: "s".into(),
                key: name.into(),
            },
            ..stream("18446744073709551615", None)
        };
        let entries = [
            stream(r#"{"b":1.50,"a":[null,"\n🦀"]}"#, None),
            stream("null", Some(1)),
            state,
        ];
        let mut sink = LineSink::new(Vec::new());
        let mut refused = Vec::new();
        for entry in &entries {
            sink.put(entry, &Origin::Line(0), &mut refused)
                .expect("memory takes all");
        }
        let bytes = sink.into_inner();
        assert_eq!(memchr::memchr_iter(b'\n', &bytes).count(), 3);
        let read: Vec<_> = all(source(&bytes))
            .into_iter()
            .map(|item| item.expect("an item").0)
            .collect();
        assert_eq!(read, entries);
    }

    #[test]
    fn the_format_is_as_documented() {
        let text = concat!(
            r#"{"stream":"chat","group":"lobby","item":"m1","value":{"a":1},"ttl_ms":60000,"expires_ms":1760000000000}"#,
            "\n"
        );
        let entry = read_line(text).expect("an item");
        let mut written = String::new();
        push_line(&mut written, &entry);
        assert_eq!(written, text);
    }

    #[test]
    fn empty_lines_and_windows_ends_are_passed_over_and_counted() {
        let line = r#"{"scope":"s","key":"k","value":1}"#;
        let text = format!("\r\n\n{line}\r\n  \n{line}");
        let origins: Vec<_> = all(source(text.as_bytes()))
            .into_iter()
            .map(|item| item.expect("an item").1)
            .collect();
        assert_eq!(origins, [Origin::Line(3), Origin::Line(5)]);
    }

    #[test]
    fn a_bad_line_is_told_and_the_next_one_is_read() {
        let good = r#"{"scope":"s","key":"k","value":1}"#;
        let cases = [
            ("{", "EOF while parsing an object, at column 1"),
            (r#"{"scope":"s","key":"k"}"#, "missing field `value`"),
            (
                r#"{"scope":"s","key":"k","value":1,"valeu":2}"#,
                "unknown field `valeu`",
            ),
            (
                r#"{"scope":"s","scope":"t","key":"k","value":1}"#,
                "duplicate field `scope`",
            ),
            (
                r#"{"stream":"s","group":"g","value":1}"#,
                "and has `stream`, `group`",
            ),
            (r#"{"value":1}"#, "and has none of them"),
            (
                r#"{"stream":"s","group":"g","item":"i","scope":"x","value":1}"#,
                "and has `stream`, `group`, `item`, `scope`",
            ),
            (
                r#"{"scope":"","key":"k","value":1}"#,
                "`scope` has 0 bytes, allowed are 1 to 1024",
            ),
            (
                r#"{"scope":"s","key":"k","value":"\ud800"}"#,
                "half a surrogate pair",
            ),
            (
                r#"{"scope":"s","key":"k","value":1,"ttl_ms":1}"#,
                "`ttl_ms` is for items of streams only",
            ),
            (
                r#"{"stream":"s","group":"g","item":"i","value":1,"ttl_ms":0}"#,
                "`ttl_ms` is 0, allowed are 1 to 315360000000",
            ),
            (
                r#"{"stream":"s","group":"g","item":"i","value":1,"expires_ms":5}"#,
                "`expires_ms` needs `ttl_ms`",
            ),
            ("[]", "at column"),
        ];
        for (bad, reason) in cases {
            let text = format!("{good}\n{bad}\n{good}\n");
            let read = all(source(text.as_bytes()));
            assert!(read[0].is_ok() && read[2].is_ok(), "{bad}");
            let told = read[1].as_ref().expect_err(bad);
            assert!(told.starts_with("line 2: "), "{told}");
            assert!(told.contains(reason), "{told}");
        }
        let read = all(source(b"\xff\n{}\n"));
        assert!(
            read[0]
                .as_ref()
                .is_err_and(|told| told == "line 1: is not UTF-8 from byte 0 on")
        );
    }

    #[test]
    fn a_line_beyond_the_limit_is_stepped_over() {
        let good = r#"{"scope":"s","key":"k","value":1}"#;
        let text = format!("{good}x\n{good}\n");
        // Read in pieces of a few bytes, so that lines come in parts.
        let mut source = LineSource::new(io::BufReader::with_capacity(7, text.as_bytes()), "test");
        source.line_bytes_max = good.len();
        let told = source.next_item().expect_err("too long").to_string();
        assert_eq!(told, "line 1: is longer than 33 bytes, which is the limit");
        assert!(source.next_item().is_ok_and(|item| item.is_some()));
        assert!(source.next_item().is_ok_and(|item| item.is_none()));
        assert_eq!(source.bytes_read(), text.len() as u64);
    }
}
