//! Answers of Redis, taken apart; and its errors, told as errors of the store.

use redis::Value;

use crate::redis_client::{CallError, is_for_want_of_room};
use crate::store::{StoreError, StoreErrorCause};

/// The parts of an array, from first to last.
pub(super) struct Parts(std::vec::IntoIter<Value>);

impl Parts {
    pub(super) fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) | Value::Set(values) => Ok(Self(values.into_iter())),
            Value::Map(pairs) => {
                let values: Vec<_> = pairs
                    .into_iter()
                    .flat_map(|(name, value)| [name, value])
                    .collect();
                Ok(Self(values.into_iter()))
            }
            Value::Nil => Ok(Self(Vec::new().into_iter())),
            _ => Err(unexpected("an array")),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The next part, if there is one.
    pub(super) fn next(&mut self) -> Option<Value> {
        self.0.next()
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.optional_bytes()?.ok_or_else(|| unexpected("a text"))
    }

    pub(super) fn optional_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.next().map_or(Ok(None), optional_bytes_of)
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| unexpected("UTF-8"))
    }

    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        number_of(&self.0.next().unwrap_or(Value::Nil))
    }

    pub(super) fn parts(&mut self) -> Result<Self, StoreError> {
        Self::of(self.0.next().unwrap_or(Value::Nil))
    }
}

pub(super) fn optional_bytes_of(value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        Value::Nil => Ok(None),
        _ => Err(unexpected("a text")),
    }
}

/// A whole number, however it was sent.
pub(super) fn number_of(value: &Value) -> Result<u64, StoreError> {
    let number = match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(bytes) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.parse().ok()),
        _ => None,
    };
    number.ok_or_else(|| unexpected("a number"))
}

/// A score of a sorted set.
pub(super) fn score_of(value: &Value) -> Result<f64, StoreError> {
    let score = match value {
        Value::Double(score) => Some(*score),
        Value::BulkString(bytes) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.parse().ok()),
        _ => None,
    };
    score.ok_or_else(|| unexpected("a score"))
}

fn unexpected(what: &str) -> StoreError {
    StoreError::other(format!("Redis answered with something that is not {what}"))
}

/// What a caller is told of a call that failed.
pub(super) fn store_error(error: &CallError) -> StoreError {
    let cause = match error {
        CallError::Unavailable { .. } => StoreErrorCause::Unavailable,
        CallError::Unknown { .. } => StoreErrorCause::Unknown,
        CallError::Refused(error) if is_for_want_of_room(error) => StoreErrorCause::Full,
        CallError::Refused(_) => StoreErrorCause::Other,
    };
    StoreError::new(cause, error.to_string())
}
