//! What other instances of the server have, as far as it concerns the tables here: functions that can be called there.
//! Knows no way to them.

use super::call::Function;
use super::registry::FunctionInfo;

/// The functions of other instances. A call of one of them is an ordinary [`Function::invoke`].
pub trait Elsewhere: Function {
    /// Whether another instance has a function with this id.
    fn has(&self, id: &str) -> bool;

    /// What is known of it.
    fn info(&self, id: &str) -> Option<FunctionInfo>;

    /// What is known of all of them, each id once.
    fn list(&self) -> Vec<FunctionInfo>;

    /// Whether a worker of another instance keeps any stream itself.
    fn has_custom_storage(&self) -> bool;
}
