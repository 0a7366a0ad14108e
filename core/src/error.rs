//! What can be wrong with a call or with one of its operations, each with the stable code that
//! clients branch on. Knows no sockets and no HTTP; message text is for people.

use alloc::borrow::Cow;
use alloc::string::String;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::fields::FieldError;
use crate::limits::{
    MERGE_VALUE_DEPTH_MAX, MERGE_VALUE_KEYS_MAX, MUTATION_CLIENT_BYTES_MAX, NAME_BYTES_MAX,
    OPS_MAX, PATH_SEGMENT_BYTES_MAX, PATH_SEGMENTS_MAX, TTL_MS_MAX, VALUE_DEPTH_MAX,
};
use crate::op_name::OpName;
use crate::text::TextError;

/// Where people read more about the codes of failed operations. Sent with each of them, as the
/// product document shows.
pub const OP_ERROR_DOC_URL: &str = "https://iii.dev/docs/workers/iii-state#error-codes";

/// A call that was refused before anything was looked up or changed.
///
/// Source of the codes: stream functions, section 2; names: product design, section 6.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// A field is missing or has the wrong type, or the input is not an object.
    #[error("{function}: {source}")]
    Field {
        /// The function that was called.
        function: &'static str,
        /// Which field, and what is wrong with it.
        source: FieldError,
    },
    /// A stream name, group id or item id is empty or too long.
    #[error("{function}: `{field}` has {bytes} bytes, a name has 1 to {NAME_BYTES_MAX}")]
    Name {
        /// The function that was called.
        function: &'static str,
        /// The field that holds the name.
        field: &'static str,
        /// Its length in bytes of UTF-8.
        bytes: usize,
    },
    /// A value could not be stored: it nests too deep, or holds text or numbers that JSON readers refuse.
    #[error("{function}: `{field}`: {source}")]
    Value {
        /// The function that was called.
        function: &'static str,
        /// The field that holds the value.
        field: &'static str,
        /// What is wrong with it.
        source: TextError,
    },
    /// The list of operations cannot be read; none was applied.
    #[error("{function}: {source}")]
    Ops {
        /// The function that was called.
        function: &'static str,
        /// Which operation, and what is wrong with it.
        source: OpsError,
    },
    /// `ttl_ms` is out of range.
    #[error("{function}: `ttl_ms` is {ttl_ms}, allowed are 1 to {TTL_MS_MAX} milliseconds")]
    Ttl {
        /// The function that was called.
        function: &'static str,
        /// The value given, in milliseconds.
        ttl_ms: u64,
    },
    /// `mutation.client` is empty or too long.
    #[error(
        "{function}: `mutation.client` has {bytes} bytes, allowed are 1 to {MUTATION_CLIENT_BYTES_MAX}"
    )]
    MutationClient {
        /// The function that was called.
        function: &'static str,
        /// Its length in bytes of UTF-8.
        bytes: usize,
    },
    /// `mutation.seq` is 0; the first mutation of a client is 1.
    #[error("{function}: `mutation.seq` is 0, the first mutation of a client is 1")]
    MutationSeqZero {
        /// The function that was called.
        function: &'static str,
    },
}

impl CallError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name { .. } => "invalid_name",
            Self::Ops { source, .. } => source.code(),
            Self::Field { .. }
            | Self::Value { .. }
            | Self::Ttl { .. }
            | Self::MutationClient { .. }
            | Self::MutationSeqZero { .. } => "deserialization_error",
        }
    }
}

/// A list of operations that cannot be read. The whole request fails, nothing is applied.
///
/// Source: update operations, section 3.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// `ops` is absent or not an array.
    #[error("`ops` must be an array, got {got}")]
    NotAnArray {
        /// What it is instead.
        got: &'static str,
    },
    /// More operations than one update may have.
    #[error("`ops` has more than {OPS_MAX} operations, which is the limit")]
    TooMany,
    /// An operation cannot be read.
    #[error("ops[{op_index}]: {reason}")]
    Op {
        /// Which one, counted from 0.
        op_index: usize,
        /// What is wrong with it.
        reason: Cow<'static, str>,
    },
    /// The text of the list holds something that no JSON value may hold.
    #[error("`ops`: {0}")]
    Text(#[from] TextError),
    /// The current value is not JSON text.
    #[error("the current value cannot be read: {reason}")]
    Current {
        /// What the reader said.
        reason: String,
    },
}

impl OpsError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooMany => "too_many_ops",
            Self::NotAnArray { .. } | Self::Op { .. } | Self::Text(_) | Self::Current { .. } => {
                "deserialization_error"
            }
        }
    }
}

/// One operation of an update that was skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct OpError {
    /// Which operation, counted from 0.
    pub op_index: usize,
    /// Why.
    pub kind: OpErrorKind,
}

impl OpError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        self.kind.code()
    }
}

impl Serialize for OpError {
    /// Shape: `{"op_index","code","message","doc_url"}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut body = serializer.serialize_struct("OpError", 4)?;
        body.serialize_field("op_index", &self.op_index)?;
        body.serialize_field("code", self.code())?;
        body.serialize_field("message", &alloc::format!("{self}"))?;
        body.serialize_field("doc_url", OP_ERROR_DOC_URL)?;
        body.end()
    }
}

/// Why an operation was skipped. What each message must tell: update operations, section 6.2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpErrorKind {
    /// A field was addressed, but the item is not an object.
    #[error("cannot {op} at path '{path}': the item is {actual}, expected object")]
    TargetNotObject {
        /// The operation.
        op: OpName,
        /// The path, as shown to people.
        path: String,
        /// What the item is.
        actual: &'static str,
    },
    /// A number was to be changed, but something else is there.
    #[error("cannot {op} at {path}: target is {actual}, expected number")]
    NotNumber {
        /// The operation.
        op: OpName,
        /// The path as shown to people, or `the root`.
        path: String,
        /// What is there.
        actual: &'static str,
    },
    /// The result is no 64-bit integer.
    #[error(
        "cannot {op} at {path}: {stored} by {by} leaves the 64-bit range of -9223372036854775808 to 18446744073709551615"
    )]
    OutOfRange {
        /// The operation.
        op: OpName,
        /// The path as shown to people, or `the root`.
        path: String,
        /// The number that is there.
        stored: String,
        /// The operand.
        by: i64,
    },
    /// Something was to be appended to what takes no appending.
    #[error(
        "Cannot append at {path}: target is {actual}, expected array, string, null, or missing field."
    )]
    AppendLeaf {
        /// The path as shown to people, or `the root`.
        path: String,
        /// What is there.
        actual: &'static str,
    },
    /// Something that is no string was to be appended to a string.
    #[error("Cannot append at {path}: value is {actual}, expected string, as the target is one.")]
    AppendValue {
        /// The path as shown to people, or `the root`.
        path: String,
        /// What the value is.
        actual: &'static str,
    },
    /// The path has too many segments.
    #[error("path has {segments} segments, limit is {PATH_SEGMENTS_MAX}")]
    PathTooDeep {
        /// The operation.
        op: OpName,
        /// How many segments the path has.
        segments: usize,
    },
    /// A path segment is too long.
    #[error("path segment has {bytes} bytes, limit is {PATH_SEGMENT_BYTES_MAX}")]
    SegmentTooLong {
        /// The operation.
        op: OpName,
        /// The segment's length in bytes of UTF-8.
        bytes: usize,
    },
    /// A segment of an array path is empty.
    #[error("path has an empty segment")]
    EmptySegment {
        /// The operation.
        op: OpName,
    },
    /// A path segment would change a JavaScript prototype.
    #[error("path segment '{segment}' is refused because of prototype pollution")]
    SegmentProtoPolluted {
        /// The operation.
        op: OpName,
        /// The segment.
        segment: String,
    },
    /// A `merge` value is not an object.
    #[error("merge value is {actual}, expected object")]
    MergeValueNotObject {
        /// What it is.
        actual: &'static str,
    },
    /// A `merge` value has too many top-level keys.
    #[error("merge value has {keys} keys, limit is {MERGE_VALUE_KEYS_MAX}")]
    MergeValueTooManyKeys {
        /// How many it has.
        keys: usize,
    },
    /// A top-level key of a `merge` value would change a JavaScript prototype.
    #[error("merge key '{key}' is refused because of prototype pollution")]
    MergeValueProtoPolluted {
        /// The key.
        key: String,
    },
    /// A `merge` value nests too deep.
    #[error("merge value nests {depth} levels deep, limit is {MERGE_VALUE_DEPTH_MAX}")]
    MergeValueTooDeep {
        /// Its depth in levels.
        depth: usize,
    },
    /// The item would nest deeper than any stored value may.
    #[error("cannot {op}: the item would nest {depth} levels deep, limit is {VALUE_DEPTH_MAX}")]
    ValueTooDeep {
        /// `set` or `append`.
        op: OpName,
        /// The depth the item would have, in levels.
        depth: usize,
    },
}

/// Every code that an operation can fail with. A test holds the vectors against this list.
pub const OP_ERROR_CODES: &[&str] = &[
    "set.target_not_object",
    "set.path.proto_polluted",
    "set.path.segment_too_long",
    "set.value.too_deep",
    "merge.path.proto_polluted",
    "merge.path.segment_too_long",
    "merge.path.too_deep",
    "merge.path.empty_segment",
    "merge.value.not_an_object",
    "merge.value.too_many_keys",
    "merge.value.proto_polluted",
    "merge.value.too_deep",
    "increment.target_not_object",
    "increment.not_number",
    "increment.path.proto_polluted",
    "increment.path.segment_too_long",
    "decrement.target_not_object",
    "decrement.not_number",
    "decrement.path.proto_polluted",
    "decrement.path.segment_too_long",
    "append.target_not_object",
    "append.type_mismatch",
    "append.path.proto_polluted",
    "append.path.segment_too_long",
    "append.path.too_deep",
    "append.path.empty_segment",
    "append.value.too_deep",
    "remove.target_not_object",
    "remove.path.proto_polluted",
    "remove.path.segment_too_long",
];

impl OpErrorKind {
    /// The stable code of this error: one of [`OP_ERROR_CODES`].
    pub fn code(&self) -> &'static str {
        match self {
            Self::TargetNotObject { op, .. } => match op {
                OpName::Set => "set.target_not_object",
                OpName::Merge => "merge.target_not_object",
                OpName::Increment => "increment.target_not_object",
                OpName::Decrement => "decrement.target_not_object",
                OpName::Append => "append.target_not_object",
                OpName::Remove => "remove.target_not_object",
            },
            Self::NotNumber { op, .. } | Self::OutOfRange { op, .. } => match op {
                OpName::Decrement => "decrement.not_number",
                _ => "increment.not_number",
            },
            Self::AppendLeaf { .. } | Self::AppendValue { .. } => "append.type_mismatch",
            Self::PathTooDeep { op, .. } => match op {
                OpName::Append => "append.path.too_deep",
                _ => "merge.path.too_deep",
            },
            Self::EmptySegment { op } => match op {
                OpName::Append => "append.path.empty_segment",
                _ => "merge.path.empty_segment",
            },
            Self::SegmentTooLong { op, .. } => match op {
                OpName::Set => "set.path.segment_too_long",
                OpName::Merge => "merge.path.segment_too_long",
                OpName::Increment => "increment.path.segment_too_long",
                OpName::Decrement => "decrement.path.segment_too_long",
                OpName::Append => "append.path.segment_too_long",
                OpName::Remove => "remove.path.segment_too_long",
            },
            Self::SegmentProtoPolluted { op, .. } => match op {
                OpName::Set => "set.path.proto_polluted",
                OpName::Merge => "merge.path.proto_polluted",
                OpName::Increment => "increment.path.proto_polluted",
                OpName::Decrement => "decrement.path.proto_polluted",
                OpName::Append => "append.path.proto_polluted",
                OpName::Remove => "remove.path.proto_polluted",
            },
            Self::MergeValueNotObject { .. } => "merge.value.not_an_object",
            Self::MergeValueTooManyKeys { .. } => "merge.value.too_many_keys",
            Self::MergeValueProtoPolluted { .. } => "merge.value.proto_polluted",
            Self::MergeValueTooDeep { .. } => "merge.value.too_deep",
            Self::ValueTooDeep { op, .. } => match op {
                OpName::Append => "append.value.too_deep",
                _ => "set.value.too_deep",
            },
        }
    }
}
