//! The frames that subscribers see and the input of `stream` triggers, as JSON text. Knows no sockets.

use alloc::string::String;

use crate::decide::Kind;
use crate::name::GroupRef;
use crate::stamp::Change;
use crate::text::{Json, push_number, push_string};

/// Room for the fixed parts of a frame, in bytes.
const ENVELOPE_BYTES: usize = 192;

/// The frame that tells subscribers of a change; `None` if its value was not written. With `subscription_id` it is for
/// one subscription that comes back.
///
/// Shape: subscriber socket, section 3, with `seq` and, for a change that came from a mutation, `mutation` on the
/// envelope (product design, section 5).
pub fn event_frame(
    group: GroupRef<'_>,
    change: &Change,
    subscription_id: Option<&str>,
) -> Option<String> {
    let value = change.value.as_ref()?;
    let mut out = change_envelope(group, change, subscription_id, value.as_str().len());
    push_event(&mut out, change, value);
    Some(out)
}

/// The same for a subscription that can apply operations: these stand in place of the value where they are shorter, or
/// all there is. `None` is impossible for a change that the core made.
pub fn delta_frame(
    group: GroupRef<'_>,
    change: &Change,
    subscription_id: Option<&str>,
) -> Option<String> {
    if let (Kind::Update, Some(base), Some(ops)) = (&change.kind, change.base, &change.ops) {
        let ops = ops.as_str();
        let mut form = String::from(r#","event":{"type":"update","base":"#);
        push_number(&mut form, base);
        form.push_str(r#","ops":"#);
        // What stands around a value that is sent instead.
        const VALUE_FORM_BYTES: usize = r#","event":{"type":"update","data":"#.len();
        let is_shorter = change
            .value
            .as_ref()
            .is_none_or(|value| form.len() + ops.len() < VALUE_FORM_BYTES + value.as_str().len());
        if is_shorter {
            let mut out = change_envelope(group, change, subscription_id, form.len() + ops.len());
            out.push_str(&form);
            out.push_str(ops);
            out.push_str("}}");
            return Some(out);
        }
    }
    event_frame(group, change, subscription_id)
}

/// The input of a `stream` trigger's handler: the published frame, never with more fields; `None` if the change's value
/// was not written.
///
/// Source: stream functions, section 9.1.
pub fn trigger_input(group: GroupRef<'_>, change: &Change) -> Option<String> {
    let value = change.value.as_ref()?;
    let mut out = envelope(
        change.timestamp,
        group,
        change.item.as_deref(),
        value.as_str().len(),
    );
    push_event(&mut out, change, value);
    Some(out)
}

/// The frame that tells a new subscriber of a group how it stands.
pub fn group_sync_frame<'v>(
    group: GroupRef<'_>,
    timestamp: u64,
    epoch: &str,
    seq: u64,
    values: impl Iterator<Item = &'v Json>,
) -> String {
    let mut out = sync_envelope(group, None, timestamp, epoch, seq);
    out.push('[');
    for (index, value) in values.enumerate() {
        if 0 < index {
            out.push(',');
        }
        out.push_str(value.as_str());
    }
    out.push_str("]}}");
    out
}

/// The frame that tells a new subscriber of an item how it stands; `None` if there is no such item.
pub fn item_sync_frame(
    group: GroupRef<'_>,
    item: &str,
    timestamp: u64,
    epoch: &str,
    seq: u64,
    value: Option<&Json>,
) -> String {
    let mut out = sync_envelope(group, Some(item), timestamp, epoch, seq);
    out.push_str(value.map_or("null", Json::as_str));
    out.push_str("}}");
    out
}

/// The frame that tells a client that its join was refused.
///
/// Only clients of version 2 are told the subscription.
pub fn unauthorized_frame(
    group: GroupRef<'_>,
    item: Option<&str>,
    subscription_id: Option<&str>,
    timestamp: u64,
) -> String {
    let mut out = envelope(timestamp, group, item, 0);
    if let Some(subscription_id) = subscription_id {
        push_subscription(&mut out, subscription_id);
    }
    out.push_str(r#","event":{"type":"unauthorized"}}"#);
    out
}

/// The input of `stream:join` and `stream:leave` handlers. `context` is JSON text, what the auth function gave.
///
/// Source: stream functions, section 9.2.
pub fn session_input(
    subscription_id: &str,
    group: GroupRef<'_>,
    item: Option<&str>,
    context: Option<&str>,
) -> String {
    let mut out = String::from(r#"{"subscription_id":"#);
    push_string(&mut out, subscription_id);
    out.push_str(r#","stream_name":"#);
    push_string(&mut out, group.stream);
    out.push_str(r#","group_id":"#);
    push_string(&mut out, group.group);
    out.push_str(r#","id":"#);
    match item {
        Some(item) => push_string(&mut out, item),
        None => out.push_str("null"),
    }
    out.push_str(r#","context":"#);
    out.push_str(context.unwrap_or("null"));
    out.push('}');
    out
}

/// The input of a `state` trigger's handler. `new` is `None` for a delete; a delete of a missing key has no old value.
///
/// Source: stream functions, appendix.
pub fn state_input(
    kind: &Kind,
    scope: &str,
    key: &str,
    old: Option<&Json>,
    new: Option<&Json>,
) -> String {
    let mut out = String::from(match kind {
        Kind::Create => r#"{"type":"state","event_type":"state:created","scope":"#,
        Kind::Delete => r#"{"type":"state","event_type":"state:deleted","scope":"#,
        Kind::Update | Kind::Event { .. } => {
            r#"{"type":"state","event_type":"state:updated","scope":"#
        }
    });
    push_string(&mut out, scope);
    out.push_str(r#","key":"#);
    push_string(&mut out, key);
    out.push_str(r#","old_value":"#);
    out.push_str(old.map_or("null", Json::as_str));
    out.push_str(r#","new_value":"#);
    out.push_str(new.map_or("null", Json::as_str));
    out.push('}');
    out
}

/// Whether a subscription to an item, or with `None` to the whole group, gets to see a change.
///
/// Source: subscriber socket, section 4.1.
pub fn wants(subscribed_item: Option<&str>, change: &Change) -> bool {
    subscribed_item.is_none() || subscribed_item == change.item.as_deref()
}

pub(crate) fn envelope(
    timestamp: u64,
    group: GroupRef<'_>,
    item: Option<&str>,
    value_bytes: usize,
) -> String {
    let mut out = String::with_capacity(ENVELOPE_BYTES + value_bytes);
    out.push_str(r#"{"type":"stream","timestamp":"#);
    push_number(&mut out, timestamp);
    out.push_str(r#","streamName":"#);
    push_string(&mut out, group.stream);
    out.push_str(r#","groupId":"#);
    push_string(&mut out, group.group);
    out.push_str(r#","id":"#);
    match item {
        Some(item) => push_string(&mut out, item),
        None => out.push_str("null"),
    }
    out
}

fn change_envelope(
    group: GroupRef<'_>,
    change: &Change,
    subscription_id: Option<&str>,
    value_bytes: usize,
) -> String {
    let mut out = envelope(change.timestamp, group, change.item.as_deref(), value_bytes);
    if let Some(subscription_id) = subscription_id {
        push_subscription(&mut out, subscription_id);
    }
    out.push_str(r#","seq":"#);
    push_number(&mut out, change.seq);
    if let Some(echo) = &change.mutation {
        out.push_str(r#","mutation":{"tag":"#);
        push_string(&mut out, &echo.tag);
        out.push_str(r#","seq":"#);
        push_number(&mut out, echo.seq);
        out.push('}');
    }
    out
}

pub(crate) fn push_subscription(out: &mut String, subscription_id: &str) {
    out.push_str(r#","subscriptionId":"#);
    push_string(out, subscription_id);
}

fn push_event(out: &mut String, change: &Change, value: &Json) {
    out.push_str(match &change.kind {
        Kind::Create => r#","event":{"type":"create","data":"#,
        Kind::Update => r#","event":{"type":"update","data":"#,
        Kind::Delete => r#","event":{"type":"delete","data":"#,
        Kind::Event { .. } => r#","event":{"type":"event","event":{"type":"#,
    });
    if let Kind::Event { label } = &change.kind {
        out.push_str(label.as_str());
        out.push_str(r#","data":"#);
        out.push_str(value.as_str());
        out.push_str("}}}");
    } else {
        out.push_str(value.as_str());
        out.push_str("}}");
    }
}

fn sync_envelope(
    group: GroupRef<'_>,
    item: Option<&str>,
    timestamp: u64,
    epoch: &str,
    seq: u64,
) -> String {
    let mut out = envelope(timestamp, group, item, 0);
    push_position(&mut out, epoch, seq);
    out.push_str(r#","event":{"type":"sync","data":"#);
    out
}

pub(crate) fn push_position(out: &mut String, epoch: &str, seq: u64) {
    out.push_str(r#","epoch":"#);
    push_string(out, epoch);
    out.push_str(r#","seq":"#);
    push_number(out, seq);
}
