//! Applies operations to a value: pure, and in place when the value is handed over. Knows no names, no time,
//! no storage.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Map, Number, Value};

use crate::error::{OpError, OpErrorKind};
use crate::object::{ObjectMut, Root};
use crate::op::{Op, Ops, Step, type_name};
use crate::op_name::OpName;
use crate::path::Path;

/// What became of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The value after all operations that could be applied.
    pub value: Value,
    /// The operations that could not, in order.
    pub errors: Vec<OpError>,
}

/// Applies `ops` one after another; an operation that fails is skipped.
///
/// `current` is `None` for a missing item, which counts as `{}`, except that a root `increment`, `decrement` or
/// `append` treats it as absent until an operation has succeeded. Work is in proportion to the operations, not to
/// the value, but for a few removals from a large object (see `object.rs`). Source: update operations, sections 1 and 5.
pub fn apply(current: Option<Value>, ops: &Ops) -> Applied {
    let mut is_missing = current.is_none();
    let mut root = Root::new(current.unwrap_or_else(|| Value::Object(Map::new())));
    let mut errors = Vec::new();
    for (op_index, op) in ops.list.iter().enumerate() {
        let outcome = match op {
            Ok(op) => apply_one(&mut root, op, is_missing),
            Err(kind) => Err(kind.clone()),
        };
        match outcome {
            Ok(Effect::Done) => is_missing = false,
            Ok(Effect::Skipped) => {}
            Err(kind) => errors.push(OpError { op_index, kind }),
        }
    }
    Applied {
        value: root.into_value(),
        errors,
    }
}

/// What an operation without an error did.
enum Effect {
    Done,
    /// Nothing, without telling: only `merge` at a root that is no object.
    Skipped,
}

fn apply_one(root: &mut Root, op: &Op, is_missing: bool) -> Result<Effect, OpErrorKind> {
    match op {
        Op::Set { path, value } => set(root, path, value)?,
        Op::Merge { path, value } => return Ok(merge(root, path, value)),
        Op::Step { path, step } => count(root, path, *step, is_missing)?,
        Op::Append { path, value } => append(root, path, value, is_missing)?,
        Op::Remove { path } => remove(root, path)?,
    }
    Ok(Effect::Done)
}

fn set(root: &mut Root, path: &Path, value: &Value) -> Result<(), OpErrorKind> {
    match path.segments.first() {
        None => root.replace(value.clone()),
        Some(key) => target(root, OpName::Set, path)?.insert(key, value.clone()),
    }
    Ok(())
}

fn merge(root: &mut Root, path: &Path, value: &Map<String, Value>) -> Effect {
    let Some((first, rest)) = path.segments.split_first() else {
        let Ok(mut object) = root.object() else {
            return Effect::Skipped;
        };
        for (key, member) in value {
            object.insert(key, member.clone());
        }
        return Effect::Done;
    };
    if let Some(scalar) = root.not_object() {
        *scalar = Value::Object(Map::new());
    }
    let Ok(object) = root.object() else {
        return Effect::Skipped;
    };
    let target = rest
        .iter()
        .fold(child_object(object, first), |parent, segment| {
            child_object(ObjectMut::Map(parent), segment)
        });
    for (key, member) in value {
        target.insert(key.clone(), member.clone());
    }
    Effect::Done
}

fn count(root: &mut Root, path: &Path, step: Step, is_missing: bool) -> Result<(), OpErrorKind> {
    let Some(key) = path.segments.first() else {
        if is_missing {
            root.replace(Value::Number(step.start()));
            return Ok(());
        }
        let actual = root.type_name();
        return match root.not_object() {
            Some(Value::Number(number)) => advance(number, path, step),
            _ => Err(OpErrorKind::NotNumber {
                op: step.name,
                path: shown(path),
                actual,
            }),
        };
    };
    let mut object = target(root, step.name, path)?;
    match object.field(key) {
        Some(Value::Number(number)) => advance(number, path, step),
        Some(other) => {
            let actual = type_name(other);
            Err(OpErrorKind::NotNumber {
                op: step.name,
                path: shown(path),
                actual,
            })
        }
        None => {
            object.insert(key, Value::Number(step.start()));
            Ok(())
        }
    }
}

fn advance(number: &mut Number, path: &Path, step: Step) -> Result<(), OpErrorKind> {
    let sum = step.sum(number).ok_or_else(|| OpErrorKind::OutOfRange {
        op: step.name,
        path: shown(path),
        stored: number.to_string(),
        by: step.by,
    })?;
    *number = sum;
    Ok(())
}

impl Step {
    /// The number that counting starts with where there was none.
    fn start(self) -> Number {
        match self.name {
            OpName::Decrement => self
                .sum(&Number::from(0))
                .unwrap_or_else(|| Number::from(0)),
            _ => Number::from(self.by),
        }
    }

    /// The exact sum, or `None` where it is no signed or unsigned 64-bit integer.
    ///
    /// Source: update operations, section 5.3.
    fn sum(self, stored: &Number) -> Option<Number> {
        let adds = self.name != OpName::Decrement;
        // Whether the number grows: adding something positive or subtracting something negative.
        let grows = adds == (0 <= self.by);
        let magnitude = self.by.unsigned_abs();
        if let Some(signed) = stored.as_i64() {
            let sum = if adds {
                signed.checked_add(self.by)
            } else {
                signed.checked_sub(self.by)
            };
            if let Some(sum) = sum {
                return Some(Number::from(sum));
            }
        }
        if let Some(unsigned) = stored.as_u64() {
            let sum = if grows {
                unsigned.checked_add(magnitude)
            } else {
                unsigned.checked_sub(magnitude)
            };
            return sum.map(Number::from);
        }
        if !stored.is_f64() {
            return None;
        }
        let (float, by) = (stored.as_f64()?, self.by as f64);
        Number::from_f64(if adds { float + by } else { float - by })
    }
}

fn append(
    root: &mut Root,
    path: &Path,
    value: &Value,
    is_missing: bool,
) -> Result<(), OpErrorKind> {
    let Some((first, rest)) = path.segments.split_first() else {
        if is_missing {
            root.replace(fresh(value));
            return Ok(());
        }
        let actual = root.type_name();
        return match root.not_object() {
            Some(leaf) => append_to(leaf, path, value),
            None => Err(OpErrorKind::AppendLeaf {
                path: shown(path),
                actual,
            }),
        };
    };
    let mut object = target(root, OpName::Append, path)?;
    let Some((last, between)) = rest.split_last() else {
        if let Some(leaf) = object.field(first) {
            return append_to(leaf, path, value);
        }
        object.insert(first, fresh(value));
        return Ok(());
    };
    let parent = between
        .iter()
        .fold(child_object(object, first), |parent, segment| {
            child_object(ObjectMut::Map(parent), segment)
        });
    match parent.get_mut(last.as_str()) {
        Some(leaf) => append_to(leaf, path, value),
        None => {
            // Below the first level a missing leaf becomes an array, for strings too.
            parent.insert(last.clone(), Value::Array(vec![value.clone()]));
            Ok(())
        }
    }
}

/// Source: the leaf rule of update operations, section 5.4.
fn append_to(leaf: &mut Value, path: &Path, value: &Value) -> Result<(), OpErrorKind> {
    match (leaf, value) {
        (Value::Array(members), value) => members.push(value.clone()),
        (Value::String(text), Value::String(more)) => text.push_str(more),
        (Value::String(_), other) => {
            let actual = type_name(other);
            return Err(OpErrorKind::AppendValue {
                path: shown(path),
                actual,
            });
        }
        (leaf @ Value::Null, value) => *leaf = fresh(value),
        (other, _) => {
            let actual = type_name(other);
            return Err(OpErrorKind::AppendLeaf {
                path: shown(path),
                actual,
            });
        }
    }
    Ok(())
}

/// What appending to nothing gives: a string starts a string, all else an array.
fn fresh(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.clone()),
        other => Value::Array(vec![other.clone()]),
    }
}

fn remove(root: &mut Root, path: &Path) -> Result<(), OpErrorKind> {
    match path.segments.first() {
        None => root.replace(Value::Null),
        Some(key) => root
            .remove(key)
            .map_err(|actual| OpErrorKind::TargetNotObject {
                op: OpName::Remove,
                path: path.to_string(),
                actual,
            })?,
    }
    Ok(())
}

/// The fields of the root, for an operation that addresses one of them.
fn target<'r>(root: &'r mut Root, op: OpName, path: &Path) -> Result<ObjectMut<'r>, OpErrorKind> {
    root.object()
        .map_err(|actual| OpErrorKind::TargetNotObject {
            op,
            path: path.to_string(),
            actual,
        })
}

/// The object under `key`; whatever else stands there, or nothing, is replaced by an empty one.
fn child_object<'v>(parent: ObjectMut<'v>, key: &str) -> &'v mut Map<String, Value> {
    let child = parent.field_or_insert(key, || Value::Object(Map::new()));
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    match child {
        Value::Object(map) => map,
        // Proof: made an object just above.
        _ => unreachable!("the child was made an object"),
    }
}

/// A path in a message: quoted, or the word for the root.
fn shown(path: &Path) -> String {
    if path.segments.is_empty() {
        "the root".to_string()
    } else {
        alloc::format!("path '{path}'")
    }
}
