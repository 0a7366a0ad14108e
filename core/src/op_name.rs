//! The names of the six operations.

use core::fmt;

/// The name of an operation, as its `type` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpName {
    /// Replaces the item or one of its fields.
    Set,
    /// Replaces several fields of an object.
    Merge,
    /// Adds to a number.
    Increment,
    /// Subtracts from a number.
    Decrement,
    /// Adds an element to an array or text to a string.
    Append,
    /// Takes a field away.
    Remove,
}

impl fmt::Display for OpName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set => "set",
            Self::Merge => "merge",
            Self::Increment => "increment",
            Self::Decrement => "decrement",
            Self::Append => "append",
            Self::Remove => "remove",
        })
    }
}
