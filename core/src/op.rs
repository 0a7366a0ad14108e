//! The six operations and their JSON form. Knows nothing of how they are applied.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::{OpErrorKind, OpsError};
use crate::fields::{Fields, kind_of};
use crate::limits::{
    MERGE_VALUE_DEPTH_MAX, MERGE_VALUE_KEYS_MAX, OPS_MAX, PROTO_KEYS, VALUE_DEPTH_MAX,
};
use crate::op_name::OpName;
use crate::path::{Path, UncheckedPath};
use crate::raw::{Raw, Reader, members};
use crate::text::{Json, TextError};
use crate::tree;

/// One checked operation. Paths of [`Op::Set`], [`Op::Step`] and [`Op::Remove`] have at most one segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Set {
        path: Path,
        value: Value,
    },
    Merge {
        path: Path,
        value: Map<String, Value>,
    },
    Step {
        path: Path,
        step: Step,
    },
    Append {
        path: Path,
        value: Value,
    },
    Remove {
        path: Path,
    },
}

/// What `increment` and `decrement` do to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) name: OpName,
    pub(crate) by: i64,
}

/// A list of operations that can be read: each is checked, or known to fail whatever it is applied to.
///
/// Shape: `[{"type":"set","path":"a","value":1}, …]`, at most [`OPS_MAX`].
#[derive(Clone, Debug)]
pub struct Ops {
    pub(crate) list: Vec<Result<Op, OpErrorKind>>,
    text: Json,
}

/// Values in the list stand inside the array and the operation's object.
const OPS_DEPTH_MAX: usize = VALUE_DEPTH_MAX + 2;

impl Ops {
    /// Reads a list of operations.
    ///
    /// Errors: [`OpsError`]; then none of the operations may be applied. Source: update operations, section 3.
    pub fn from_text(text: &str) -> Result<Self, OpsError> {
        let mut reader = Reader::new(text, 0);
        if let Some(raw) = reader.value().filter(|_| reader.is_at_end()) {
            return Self::from_raw(raw);
        }
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| {
            OpsError::Text(TextError::Syntax {
                reason: format!("{error}"),
            })
        })?;
        Self::from_raw(raw.into())
    }

    /// Reads a list of operations from text that a JSON reader has found well-formed.
    ///
    /// Errors: as [`Ops::from_text`].
    pub fn from_raw(raw: Raw<'_>) -> Result<Self, OpsError> {
        let got = kind_of(raw.get());
        if got != "array" {
            return Err(OpsError::NotAnArray { got });
        }
        let text = Json::from_raw_within(raw, OPS_DEPTH_MAX)?;
        let list = match read_list(text.as_str()) {
            Some(list) => list,
            None => read_unusual_list(text.as_str())?,
        };
        Ok(Self { list, text })
    }

    /// Reads a list of operations that was checked before it was kept. Does not rely on that; `None` if it cannot be read.
    pub(crate) fn from_kept(text: &str) -> Option<Self> {
        match text.starts_with('[').then(|| read_list(text)).flatten() {
            Some(list) => Some(Self {
                list,
                text: Json::from_kept(text),
            }),
            None => Self::from_text(text).ok(),
        }
    }

    /// The list as it was given, without white space between tokens.
    pub fn text(&self) -> &Json {
        &self.text
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// How deep a value nests: 0 for scalars, else one more than its deepest member.
///
/// Recursion is bounded: values come out of checked text.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(members) => 1 + members.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

const FIELDS: [&str; 4] = ["type", "path", "value", "by"];
const TYPE: usize = 0;
const PATH: usize = 1;
const VALUE: usize = 2;
const BY: usize = 3;

type Reason = Cow<'static, str>;

type List = Vec<Result<Op, OpErrorKind>>;

/// Reads the operations in one pass; `None` where any is unusual, or to be refused.
fn read_list(text: &str) -> Option<List> {
    let mut list = Vec::new();
    let mut reader = Reader::new(text, 1);
    let mut has_more = !reader.token(b']');
    while has_more {
        let fields = Fields::next(&mut reader, &FIELDS)?;
        if list.len() == OPS_MAX {
            return None;
        }
        list.push(read_op(&fields).ok()?);
        has_more = reader.token(b',');
        if !has_more && !reader.token(b']') {
            return None;
        }
    }
    reader.is_at_end().then_some(list)
}

/// Reads the operations one by one, and says what is wrong with the first that is wrong.
fn read_unusual_list(text: &str) -> Result<List, OpsError> {
    let members: Vec<_> = members(text).take(OPS_MAX + 1).collect();
    if OPS_MAX < members.len() {
        return Err(OpsError::TooMany);
    }
    let read = |raw: Raw<'_>| {
        let fields = Fields::read(raw.get(), &FIELDS).map_err(|error| format!("{error}"))?;
        read_op(&fields)
    };
    let members = members.into_iter().enumerate();
    members
        .map(|(op_index, raw)| read(raw).map_err(|reason| OpsError::Op { op_index, reason }))
        .collect()
}

/// Outer error: malformed, refuses the request. Inner error: this operation fails wherever it is applied.
fn read_op(fields: &Fields<'_, 4>) -> Result<Result<Op, OpErrorKind>, Reason> {
    let name = fields.string(TYPE).map_err(|error| format!("{error}"))?;
    let path = |arrays| {
        UncheckedPath::read(fields.optional(PATH), arrays)
            .map_err(|expected| Reason::from(format!("{}", fields.wrong_type(PATH, expected))))
    };
    match name.as_ref() {
        "set" => {
            let path = path(false)?;
            let value = fields
                .raw(VALUE)
                .map(read_value)
                .transpose()?
                .unwrap_or(Value::Null);
            Ok(path
                .check(OpName::Set)
                .and_then(|path| checked_set(path, value)))
        }
        "merge" => {
            let path = path(true)?;
            let value = read_value(fields.required(VALUE).map_err(|error| format!("{error}"))?)?;
            Ok(path
                .check(OpName::Merge)
                .and_then(|path| checked_merge(path, value)))
        }
        "increment" => read_step(OpName::Increment, path(false)?, fields),
        "decrement" => read_step(OpName::Decrement, path(false)?, fields),
        "append" => {
            let path = path(true)?;
            let value = read_value(fields.required(VALUE).map_err(|error| format!("{error}"))?)?;
            Ok(path
                .check(OpName::Append)
                .and_then(|path| checked_append(path, value)))
        }
        "remove" => Ok(path(false)?
            .check(OpName::Remove)
            .map(|path| Op::Remove { path })),
        _ => Err("field `type` must be set, merge, increment, decrement, append or remove".into()),
    }
}

fn read_value(raw: Raw<'_>) -> Result<Value, Reason> {
    tree::read_value(raw.get()).map_err(|error| format!("field `value`: {error}").into())
}

fn read_step(
    name: OpName,
    path: UncheckedPath,
    fields: &Fields<'_, 4>,
) -> Result<Result<Op, OpErrorKind>, Reason> {
    let raw = fields.required(BY).map_err(|error| format!("{error}"))?;
    let by = match plain_number(raw.get()) {
        Some(by) => by,
        None => tree::read_i64(raw.get())
            .ok_or_else(|| format!("{}", fields.wrong_type(BY, "a signed 64-bit integer")))?,
    };
    Ok(path.check(name).map(|path| Op::Step {
        path,
        step: Step { name, by },
    }))
}

/// A well-formed number that is nothing but a few digits: the library's reader takes ten times as long for those.
fn plain_number(text: &str) -> Option<i64> {
    let is_plain = text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| {
        text.bytes()
            .fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0'))
    })
}

fn checked_set(path: Path, value: Value) -> Result<Op, OpErrorKind> {
    let depth = path.segments.len() + depth(&value);
    if VALUE_DEPTH_MAX < depth {
        return Err(OpErrorKind::ValueTooDeep {
            op: OpName::Set,
            depth,
        });
    }
    Ok(Op::Set { path, value })
}

fn checked_append(path: Path, value: Value) -> Result<Op, OpErrorKind> {
    // One more level for the array that the value may become a member of.
    let depth = path.segments.len() + 1 + depth(&value);
    if VALUE_DEPTH_MAX < depth {
        return Err(OpErrorKind::ValueTooDeep {
            op: OpName::Append,
            depth,
        });
    }
    Ok(Op::Append { path, value })
}

/// Source of the checks and their order: update operations, section 4.
fn checked_merge(path: Path, value: Value) -> Result<Op, OpErrorKind> {
    let depth = depth(&value);
    let value = match value {
        Value::Object(value) => value,
        other => {
            return Err(OpErrorKind::MergeValueNotObject {
                actual: type_name(&other),
            });
        }
    };
    if MERGE_VALUE_KEYS_MAX < value.len() {
        return Err(OpErrorKind::MergeValueTooManyKeys { keys: value.len() });
    }
    if let Some(key) = value.keys().find(|key| PROTO_KEYS.contains(&key.as_str())) {
        return Err(OpErrorKind::MergeValueProtoPolluted { key: key.clone() });
    }
    if MERGE_VALUE_DEPTH_MAX < depth {
        return Err(OpErrorKind::MergeValueTooDeep { depth });
    }
    Ok(Op::Merge { path, value })
}

/// The type name of a value, in the words of the specification.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
