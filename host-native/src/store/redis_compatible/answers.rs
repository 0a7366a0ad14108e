//! What Redis answers, as what the store needs, and its errors as those of a store.

use redis::{RedisError, Value};

use crate::redis_client::{CallError, is_for_want_of_room};
use crate::store::{StoreError, StoreErrorCause};

/// A pair of field and text.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

pub(super) fn unexpected(what: &str) -> StoreError {
    StoreError::other(format!("Redis answered {what} with something else"))
}

/// Why a read has no answer. It changes nothing, so it does not matter whether it was carried out.
pub(super) fn unread(error: &CallError) -> StoreError {
    match error {
        CallError::Unavailable { .. } | CallError::Unknown { .. } => {
            StoreError::new(StoreErrorCause::Unavailable, error.to_string())
        }
        CallError::Refused(error) => refused_by_redis(error),
    }
}

pub(super) fn refused_by_redis(error: &RedisError) -> StoreError {
    let cause = match is_for_want_of_room(error) {
        true => StoreErrorCause::Full,
        false => StoreErrorCause::Other,
    };
    StoreError::new(cause, CallError::Refused(error.clone()).to_string())
}

/// Gives an error that stands in place of an answer as one.
fn answered(value: Value) -> Result<Value, StoreError> {
    match value {
        Value::ServerError(error) => Err(refused_by_redis(&error.into())),
        value => Ok(value),
    }
}

pub(super) fn integer(value: Value) -> Result<usize, StoreError> {
    match answered(value)? {
        Value::Int(number) => usize::try_from(number).map_err(|_| unexpected("with a count")),
        _ => Err(unexpected("with a count")),
    }
}

pub(super) fn bytes(value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    match answered(value)? {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        _ => Err(unexpected("with a text")),
    }
}

pub(super) fn text(value: Value) -> Result<String, StoreError> {
    let bytes = bytes(value)?.unwrap_or_default();
    String::from_utf8(bytes).map_err(|_| unexpected("with a text"))
}

pub(super) fn texts(value: Value) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    match answered(value)? {
        Value::Array(values) => values.into_iter().map(bytes).collect(),
        _ => Err(unexpected("with a list")),
    }
}

/// All fields of a hash.
pub(super) fn pairs(value: Value) -> Result<Vec<Pair>, StoreError> {
    let pair = |(field, text): (Value, Value)| {
        let pair = bytes(field)?.zip(bytes(text)?);
        pair.ok_or_else(|| unexpected("with a hash"))
    };
    match answered(value)? {
        Value::Map(pairs) => pairs.into_iter().map(pair).collect(),
        Value::Array(values) => {
            let mut values = values.into_iter();
            let mut pairs = Vec::with_capacity(values.len() / 2);
            while let Some(field) = values.next() {
                let text = values.next().unwrap_or(Value::Nil);
                pairs.push(pair((field, text))?);
            }
            Ok(pairs)
        }
        _ => Err(unexpected("with a hash")),
    }
}

/// What one step of a scan gives: where the next begins, and keys.
pub(super) fn scanned(value: Value) -> Result<(u64, Vec<Vec<u8>>), StoreError> {
    let Value::Array(parts) = answered(value)? else {
        return Err(unexpected("SCAN"));
    };
    let [cursor, keys]: [Value; 2] = parts.try_into().map_err(|_| unexpected("SCAN"))?;
    let cursor = text(cursor)?.parse().map_err(|_| unexpected("SCAN"))?;
    Ok((cursor, texts(keys)?.into_iter().flatten().collect()))
}
