//! The text in which instances ask each other for calls and answer them. Knows no Redis and no tables.
//!
//! A message is `1 <sender>\n` and then letters, each `<length>\n<JSON object>`. What a later version adds is ignored by this one:
//! unknown fields of a letter, and letters of an unknown kind.

use std::borrow::Cow;

use iii_stream_core::fields::{FieldError, Fields};
use iii_stream_core::raw::Raw;
use iii_stream_core::text::push_string;

use crate::engine::{Call, CallResult, Failure, Output};

/// The version of this text.
const VERSION: &str = "1";

/// A call, kept until it is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) function_id: Box<str>,
    data: Box<str>,
    metadata: Option<Box<str>>,
    traceparent: Option<Box<str>>,
    baggage: Option<Box<str>>,
    caller: Option<Box<str>>,
    /// Whether nobody waits for the result: then it is answered as soon as it was begun.
    pub(super) is_void: bool,
}

impl Request {
    pub(super) fn of(call: &Call<'_>, is_void: bool) -> Self {
        let owned = |text: Option<&str>| text.map(Into::into);
        Self {
            function_id: call.function_id.into(),
            data: call.data.into(),
            metadata: owned(call.metadata),
            traceparent: owned(call.traceparent),
            baggage: owned(call.baggage),
            caller: owned(call.caller),
            is_void,
        }
    }

    pub(super) fn call(&self) -> Call<'_> {
        Call {
            function_id: &self.function_id,
            data: &self.data,
            metadata: self.metadata.as_deref(),
            traceparent: self.traceparent.as_deref(),
            baggage: self.baggage.as_deref(),
            caller: self.caller.as_deref(),
        }
    }
}

/// How many bytes of a call count against the bound of one call.
pub(super) fn bytes_of(call: &Call<'_>) -> usize {
    let optional = [call.metadata, call.traceparent, call.baggage];
    let optional: usize = optional.into_iter().flatten().map(str::len).sum();
    call.function_id.len() + call.data.len() + optional
}

/// Begins a message.
pub(super) fn begin_message(sender: &str) -> String {
    format!("{VERSION} {sender}\n")
}

/// Adds a letter to a message.
pub(super) fn push_letter(message: &mut String, letter: &str) {
    message.push_str(&letter.len().to_string());
    message.push('\n');
    message.push_str(letter);
}

/// A message taken apart: its sender, and its letters. `None` for the text of an unknown version.
pub(super) fn read_message(message: &str) -> Option<(&str, Letters<'_>)> {
    let (head, rest) = message.split_once('\n')?;
    let (version, sender) = head.split_once(' ')?;
    (version == VERSION).then_some((sender, Letters(rest)))
}

/// The letters of a message, in order; ends at the first that is cut off.
pub(super) struct Letters<'a>(&'a str);

impl<'a> Iterator for Letters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (len, rest) = self.0.split_once('\n')?;
        let (letter, rest) = rest.split_at_checked(len.parse().ok()?)?;
        self.0 = rest;
        Some(letter)
    }
}

/// Shape: `{"call":N,"deadline_ms":N,"function_id","data","metadata"?,"traceparent"?,"baggage"?,"caller"?,"void"?}`.
pub(super) fn write_call(number: u64, request: &Request, deadline_ms: u64) -> String {
    let call = request.call();
    let mut out = String::with_capacity(bytes_of(&call) + 200);
    out.push_str(&format!(
        r#"{{"call":{number},"deadline_ms":{deadline_ms},"function_id":"#
    ));
    push_string(&mut out, call.function_id);
    let strings = [
        ("traceparent", call.traceparent),
        ("baggage", call.baggage),
        ("caller", call.caller),
    ];
    for (name, value) in strings {
        if let Some(value) = value {
            push_name(&mut out, name);
            push_string(&mut out, value);
        }
    }
    if request.is_void {
        out.push_str(r#","void":true"#);
    }
    for (name, json) in [("data", Some(call.data)), ("metadata", call.metadata)] {
        if let Some(json) = json {
            push_name(&mut out, name);
            out.push_str(json);
        }
    }
    out.push('}');
    out
}

/// Shape: `{"answer":N}`, `{"answer":N,"result":…}`, `{"answer":N,"error":{…},"of_server":bool}`.
pub(super) fn write_answer(number: u64, result: &CallResult) -> String {
    let mut out = format!(r#"{{"answer":{number}"#);
    match result {
        Ok(Output::Nothing) => {}
        Ok(Output::Json(json)) => {
            push_name(&mut out, "result");
            out.push_str(json);
        }
        Err(failure) => {
            let is_of_server = failure.is_of_server();
            out.push_str(&format!(r#","of_server":{is_of_server},"error":"#));
            out.push_str(failure.body());
        }
    }
    out.push('}');
    out
}

fn push_name(out: &mut String, name: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
}

/// A letter that names one call.
pub(super) fn write_one(kind: &str, number: u64) -> String {
    format!(r#"{{"{kind}":{number}}}"#)
}

/// A letter that names several calls.
pub(super) fn write_many(kind: &str, numbers: &[u64]) -> String {
    let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
    format!(r#"{{"{kind}":[{}]}}"#, numbers.join(","))
}

/// No worker of the instance has the function: nothing was done.
pub(super) const NOT_HERE: &str = "not_here";
/// The call came after its deadline: nothing was done.
pub(super) const TOO_LATE: &str = "too_late";
/// Which of these calls are not being executed?
pub(super) const ASK: &str = "ask";
/// These are not: they never came, or were answered before.
pub(super) const UNKNOWN: &str = "unknown";
/// Nobody waits for these any more.
pub(super) const FORGET: &str = "forget";

/// A letter that was read.
#[derive(Debug)]
pub(super) enum Letter<'a> {
    Call(Box<CallLetter<'a>>),
    Answer {
        number: u64,
        result: CallResult,
    },
    NotHere(u64),
    TooLate(u64),
    Ask(Vec<u64>),
    Unknown(Vec<u64>),
    Forget(Vec<u64>),
    /// Of a kind that this version does not know.
    Other,
}

/// What is asked, as it came.
#[derive(Debug)]
pub(super) struct CallLetter<'a> {
    pub(super) number: u64,
    pub(super) deadline_ms: u64,
    pub(super) is_void: bool,
    function_id: Cow<'a, str>,
    data: &'a str,
    metadata: Option<&'a str>,
    traceparent: Option<Cow<'a, str>>,
    baggage: Option<Cow<'a, str>>,
    caller: Option<Cow<'a, str>>,
}

impl CallLetter<'_> {
    pub(super) fn call(&self) -> Call<'_> {
        Call {
            function_id: &self.function_id,
            data: self.data,
            metadata: self.metadata,
            traceparent: self.traceparent.as_deref(),
            baggage: self.baggage.as_deref(),
            caller: self.caller.as_deref(),
        }
    }
}

const FIELDS: &[&str; 18] = &[
    "call",
    "deadline_ms",
    "function_id",
    "data",
    "metadata",
    "traceparent",
    "baggage",
    "caller",
    "void",
    "answer",
    "result",
    "error",
    "of_server",
    NOT_HERE,
    TOO_LATE,
    ASK,
    UNKNOWN,
    FORGET,
];

/// Reads a letter.
///
/// Errors: [`FieldError`].
pub(super) fn read_letter(text: &str) -> Result<Letter<'_>, FieldError> {
    let fields = Fields::read(text, FIELDS)?;
    let has = |index: usize| fields.raw(index).is_some();
    let number = |index| Ok(fields.optional_u64(index)?.unwrap_or_default());
    Ok(if has(0) {
        Letter::Call(Box::new(CallLetter {
            number: number(0)?,
            deadline_ms: number(1)?,
            is_void: fields.optional_bool(8)?.unwrap_or(false),
            function_id: fields.string(2)?,
            data: fields.required(3)?.get(),
            metadata: fields.raw(4).map(Raw::get),
            traceparent: fields.optional_string(5)?,
            baggage: fields.optional_string(6)?,
            caller: fields.optional_string(7)?,
        }))
    } else if has(9) {
        Letter::Answer {
            number: number(9)?,
            result: match (fields.raw(11), fields.raw(10)) {
                (Some(error), _) => {
                    let is_of_server = fields.optional_bool(12)?.unwrap_or(false);
                    Err(Failure::from_instance(error.get().to_owned(), is_of_server))
                }
                (None, Some(json)) => Ok(Output::Json(json.get().to_owned())),
                (None, None) => Ok(Output::Nothing),
            },
        }
    } else if has(13) {
        Letter::NotHere(number(13)?)
    } else if has(14) {
        Letter::TooLate(number(14)?)
    } else if has(15) {
        Letter::Ask(numbers(&fields, 15)?)
    } else if has(16) {
        Letter::Unknown(numbers(&fields, 16)?)
    } else if has(17) {
        Letter::Forget(numbers(&fields, 17)?)
    } else {
        Letter::Other
    })
}

fn numbers(fields: &Fields<'_, 18>, index: usize) -> Result<Vec<u64>, FieldError> {
    let raw = fields.required(index)?;
    serde_json::from_str(raw.get()).map_err(|_| fields.wrong_type(index, "an array of numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_comes_as_it_was_sent() {
        let call = Call {
            function_id: "a::\"f\"",
            data: "{ \"x\":\n 1.0 }",
            metadata: Some("[1, 2]"),
            traceparent: Some("00-1"),
            baggage: None,
            caller: Some("worker"),
        };
        let request = Request::of(&call, true);
        let mut message = begin_message("me");
        push_letter(&mut message, &write_call(7, &request, 9));
        push_letter(&mut message, "{}");
        let (sender, mut letters) = read_message(&message).expect("a message");
        assert_eq!(sender, "me");
        let letter = letters.next().map(read_letter);
        let Some(Ok(Letter::Call(letter))) = letter else {
            panic!("{letter:?}");
        };
        assert_eq!(
            (letter.number, letter.deadline_ms, letter.is_void),
            (7, 9, true)
        );
        assert_eq!(Request::of(&letter.call(), true), request);
        let other = letters.next().map(read_letter);
        assert!(matches!(other, Some(Ok(Letter::Other))), "{other:?}");
        assert_eq!(letters.next(), None);
    }

    #[test]
    fn answers_come_as_they_were_given() {
        let results: [CallResult; 5] = [
            Ok(Output::Nothing),
            Ok(Output::Json("null".to_owned())),
            Ok(Output::Json("{\"a\" : [1.50]}".to_owned())),
            Err(Failure::from_worker(
                r#"{"code": "X", "more":[]}"#.to_owned(),
            )),
            Err(Failure::new("too_many_calls", "at the limit")),
        ];
        for given in results {
            let letter = write_answer(3, &given);
            match read_letter(&letter) {
                Ok(Letter::Answer { number: 3, result }) => assert_eq!(result, given),
                other => panic!("{letter} was read as {other:?}"),
            }
        }
    }

    #[test]
    fn letters_about_calls_name_them() {
        let ask = write_many(ASK, &[1, u64::MAX]);
        assert!(matches!(read_letter(&ask), Ok(Letter::Ask(it)) if it == [1, u64::MAX]));
        let not_here = write_one(NOT_HERE, 5);
        assert!(matches!(read_letter(&not_here), Ok(Letter::NotHere(5))));
        assert!(read_letter(r#"{"ask":"all"}"#).is_err());
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        assert!(read_message("2 me\n1\nx").is_none(), "a later version");
        let (_, mut letters) = read_message("1 me\n2\n{}99\n{}").expect("a message");
        assert_eq!(letters.next(), Some("{}"));
        assert_eq!(letters.next(), None);
    }
}
