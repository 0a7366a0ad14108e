//! What cannot be asked of a store without versions: refused by name, before the store is asked.

use iii_stream_core::Command;
use iii_stream_core::command::{Action, Condition};

use crate::engine::ReplyTo;
use crate::store::Store;

/// Answers a command that needs versions which the store does not keep; gives back the way to answer any other.
pub fn unless_unsupported(store: &dyn Store, command: &Command, reply: ReplyTo) -> Option<ReplyTo> {
    if store.keeps_versions() {
        return Some(reply);
    }
    let lives = match &command.action {
        Action::Set { ttl_ms, .. } | Action::Update { ttl_ms, .. } => ttl_ms.is_some(),
        Action::Delete | Action::Send { .. } => false,
    };
    let what = if matches!(command.condition, Some(Condition::Seq(_))) {
        "`if` with `seq`"
    } else if command.mutation.is_some() {
        "`mutation`"
    } else if lives {
        "`ttl_ms`"
    } else {
        return Some(reply);
    };
    refuse(what, reply);
    None
}

/// The same for a read; `meta` tells of versions.
pub fn unless_meta_unsupported(store: &dyn Store, meta: bool, reply: ReplyTo) -> Option<ReplyTo> {
    if store.keeps_versions() || !meta {
        return Some(reply);
    }
    refuse("`meta`", reply);
    None
}

fn refuse(what: &str, reply: ReplyTo) {
    let message = format!(
        "{what} needs versions, which items in the layout of an iii engine do not have (layout: compatible)"
    );
    reply.fail("unsupported_by_storage", message);
}
