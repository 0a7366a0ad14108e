//! What a `state::` call asks for: reads its input. State is kept like streams: a scope is a group, a key an item.
//! Source: stream functions, appendix.

use alloc::borrow::Cow;

use crate::command::{Action, Input, List, Target, Write};
use crate::error::CallError;

/// The stream that all scopes are groups of, in a store of their own.
pub const STATE_STREAM: &str = "state";

const SET: &str = "state::set";
const GET: &str = "state::get";
const DELETE: &str = "state::delete";
const UPDATE: &str = "state::update";
const LIST: &str = "state::list";
const LIST_GROUPS: &str = "state::list_groups";

/// A call that reads one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateGet<'a> {
    /// The scope, as a group.
    pub target: Target<'a>,
    /// The key.
    pub key: Cow<'a, str>,
}

/// Reads the input of `state::set`. Shape: `{scope, key, value}`; `data` is another name for `value`.
///
/// Errors: [`CallError`], as for the others here.
pub fn read_state_set(input: &str) -> Result<Write<'_>, CallError> {
    const FIELDS: &[&str; 7] = &[
        "scope",
        "key",
        "value",
        "data",
        "if",
        "mutation",
        "returning",
    ];
    let input = Input::read(SET, input, FIELDS)?;
    let target = scope(&input)?;
    let key = input.item(1)?;
    let value = if input.has(2) || !input.has(3) {
        input.value(2)?
    } else {
        input.value(3)?
    };
    input.write(
        target,
        Some(key),
        Action::Set {
            value,
            ttl_ms: None,
        },
        4,
    )
}

/// Reads the input of `state::get`. Shape: `{scope, key}`.
pub fn read_state_get(input: &str) -> Result<StateGet<'_>, CallError> {
    const FIELDS: &[&str; 2] = &["scope", "key"];
    let input = Input::read(GET, input, FIELDS)?;
    Ok(StateGet {
        target: scope(&input)?,
        key: input.required_name(1)?,
    })
}

/// Reads the input of `state::delete`. Shape: `{scope, key}`.
pub fn read_state_delete(input: &str) -> Result<Write<'_>, CallError> {
    const FIELDS: &[&str; 5] = &["scope", "key", "if", "mutation", "returning"];
    let input = Input::read(DELETE, input, FIELDS)?;
    let target = scope(&input)?;
    let key = input.item(1)?;
    input.write(target, Some(key), Action::Delete, 2)
}

/// Reads the input of `state::update`. Shape: `{scope, key, ops}`.
pub fn read_state_update(input: &str) -> Result<Write<'_>, CallError> {
    const FIELDS: &[&str; 7] = &[
        "scope",
        "key",
        "ops",
        "atomic",
        "if",
        "mutation",
        "returning",
    ];
    let input = Input::read(UPDATE, input, FIELDS)?;
    let target = scope(&input)?;
    let key = input.item(1)?;
    let ops = input.ops(2)?;
    let is_atomic = input.flag(3)?;
    input.write(
        target,
        Some(key),
        Action::Update {
            ops,
            is_atomic,
            ttl_ms: None,
        },
        4,
    )
}

/// Reads the input of `state::list`: the scope, as a group. Shape: `{scope, meta?}`.
pub fn read_state_list(input: &str) -> Result<List<'_>, CallError> {
    const FIELDS: &[&str; 2] = &["scope", "meta"];
    let input = Input::read(LIST, input, FIELDS)?;
    let target = scope(&input)?;
    let meta = input.flag(1)?;
    Ok(List { target, meta })
}

/// Reads the input of `state::list_groups`, which has no fields; `null` is taken as `{}`.
pub fn read_state_list_groups(input: &str) -> Result<(), CallError> {
    const FIELDS: &[&str; 0] = &[];
    if input.trim_ascii() == "null" {
        return Ok(());
    }
    Input::read(LIST_GROUPS, input, FIELDS).map(|_| ())
}

fn scope<'a, const N: usize>(input: &Input<'a, N>) -> Result<Target<'a>, CallError> {
    Ok(Target {
        stream: Cow::Borrowed(STATE_STREAM),
        group: input.required_name(0)?,
    })
}
