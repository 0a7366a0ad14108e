//! iii-stream's rules without I/O.
//!
//! Whatever decides the outcome of a write or shapes an event is here, and gives the same bytes natively and as
//! wasm. Nothing in this crate reads a clock, draws a random number, opens a file or waits: time is an argument,
//! sequence numbers are counted, the rest is the host's.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod apply;
pub mod command;
mod decide;
mod error;
pub mod event;
pub mod fields;
mod grant;
mod group;
mod held;
mod history;
mod image;
mod items;
mod kept;
pub mod limits;
mod mutation;
mod name;
mod object;
mod op;
mod op_name;
mod path;
mod position;
pub mod raw;
pub mod relay;
mod replica;
mod reply;
mod sparse;
mod stamp;
pub mod state;
mod step;
pub mod text;
mod tree;
pub mod version2;

pub use apply::{Applied, apply};
pub use command::Command;
pub use decide::{Current, Decision, Draft, Kind, Outcome, Refusal, Reply, Ttl, decide, update};
pub use error::{CallError, OP_ERROR_CODES, OP_ERROR_DOC_URL, OpError, OpErrorKind, OpsError};
pub use grant::{Ability, GrantError, Grants, ItemPatterns, Pattern, View};
pub use group::{Committed, Demand, Group, GroupLimits, Item, Page, Restored};
pub use image::Image;
pub use kept::RestoreError;
pub use mutation::{ClientRecord, ClientState, Echo, client_tag};
pub use name::{GroupKey, GroupRef, is_name};
pub use op::Ops;
pub use op_name::OpName;
pub use position::{Position, PositionError};
pub use replica::{Replica, ReplicaError};
pub use reply::{group_names_json, list_json, state_list_json, streams_json};
pub use stamp::{Change, Floor, stamp};
pub use step::Step;
pub use text::Json;

use alloc::string::String;
use alloc::vec::Vec;

/// The version of what operations do. It changes when the same operations on the same value come to something else, so that a
/// client knows whether it may apply them itself.
pub const OPS_VERSION: u64 = 1;

/// What [`apply_ops_json`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedJson {
    /// The new value as JSON text.
    pub value: String,
    /// The operations that could not be applied, in order.
    pub errors: Vec<OpError>,
}

/// Applies operations to a value, text to text: the whole update semantics in one call.
///
/// Shape: `current` is the item's JSON text, `None` if it is missing; `ops` is a JSON array.
/// Errors: [`OpsError`] when either cannot be read; then nothing was applied.
///
/// ```
/// let applied = iii_stream_core::apply_ops_json(
///     Some(r#"{"n":1}"#),
///     r#"[{"type":"increment","path":"n","by":2},{"type":"append","path":"n","value":"x"}]"#,
/// )?;
/// assert_eq!(applied.value, r#"{"n":3}"#);
/// assert_eq!(applied.errors[0].code(), "append.type_mismatch");
/// # Ok::<(), iii_stream_core::OpsError>(())
/// ```
pub fn apply_ops_json(current: Option<&str>, ops: &str) -> Result<AppliedJson, OpsError> {
    let ops = Ops::from_text(ops)?;
    if let Some((value, errors)) = current.and_then(|text| sparse::apply_to_text(text, &ops)) {
        return Ok(AppliedJson { value, errors });
    }
    let current = current
        .map(text::value_of)
        .transpose()
        .map_err(|error| OpsError::Current {
            reason: alloc::format!("{error}"),
        })?;
    let Applied { value, errors } = apply(current, &ops);
    Ok(AppliedJson {
        value: text::text_of(&value),
        errors,
    })
}
