//! What version 2 of the subscriber's protocol and a plain GET are told, as JSON text. Knows no sockets. Changes are told
//! by the frames of `event.rs`. Source: product design, section 5.

use alloc::string::String;
use alloc::sync::Arc;

use crate::event::{envelope, push_position, push_subscription};
use crate::group::Item;
use crate::mutation::Echo;
use crate::name::GroupRef;
use crate::text::{push_number, push_string};

/// Room for the fixed parts of an item in a page, in bytes.
const ITEM_BYTES: usize = 40;

/// To whom a `sync` is told, and of which moment it is.
#[derive(Clone, Copy, Debug)]
pub struct Sync<'a> {
    /// The group.
    pub group: GroupRef<'a>,
    /// The item, where the subscription is to one.
    pub item: Option<&'a str>,
    /// The subscription.
    pub subscription_id: &'a str,
    /// Names the group's history.
    pub epoch: &'a str,
    /// The last change that is told with it.
    pub seq: u64,
    /// Unix milliseconds.
    pub timestamp: u64,
    /// The last mutations that were taken from the clients that the subscription asks about; `None` where it asks about none.
    pub mutations: Option<&'a [Echo]>,
}

impl Sync<'_> {
    fn envelope(&self, value_bytes: usize) -> String {
        let mut out = envelope(self.timestamp, self.group, self.item, value_bytes);
        push_subscription(&mut out, self.subscription_id);
        push_position(&mut out, self.epoch, self.seq);
        if let Some(mutations) = self.mutations {
            push_mutations(&mut out, mutations);
        }
        out
    }
}

fn push_mutations(out: &mut String, mutations: &[Echo]) {
    out.push_str(r#","mutations":["#);
    for (index, Echo { tag, seq }) in mutations.iter().enumerate() {
        out.push_str(if 0 < index {
            r#",{"tag":"#
        } else {
            r#"{"tag":"#
        });
        push_string(out, tag);
        out.push_str(r#","seq":"#);
        push_number(out, *seq);
        out.push('}');
    }
    out.push(']');
}

/// One page of a snapshot. `more` says that others follow, `reset` that the subscription wanted to come back to a place
/// that is not known any more.
pub fn page_sync_frame(
    sync: &Sync<'_>,
    items: &[(Arc<str>, Item)],
    more: bool,
    reset: bool,
) -> String {
    let mut out = sync.envelope(items_bytes(items));
    out.push_str(r#","event":{"type":"sync","mode":"snapshot""#);
    if reset {
        out.push_str(r#","reset":true"#);
    }
    push_items(&mut out, items);
    out.push_str(if more {
        r#","more":true}}"#
    } else {
        r#","more":false}}"#
    });
    out
}

/// Tells a subscription that it goes on after `from`: the changes up to `sync.seq` follow.
pub fn resume_sync_frame(sync: &Sync<'_>, from: u64) -> String {
    let mut out = sync.envelope(0);
    out.push_str(r#","event":{"type":"sync","mode":"resume","from":"#);
    push_number(&mut out, from);
    out.push_str("}}");
    out
}

/// Tells a connection, or one of its subscriptions, what is wrong.
pub fn error_frame(subscription_id: Option<&str>, code: &str, message: &str) -> String {
    let mut out = String::from(r#"{"type":"error""#);
    if let Some(subscription_id) = subscription_id {
        push_subscription(&mut out, subscription_id);
    }
    out.push_str(r#","code":"#);
    push_string(&mut out, code);
    out.push_str(r#","message":"#);
    push_string(&mut out, message);
    out.push('}');
    out
}

/// The answer to a GET of a group or, with `item`, of one item. `next_after` tells where to go on, if there is more.
pub fn snapshot_json(
    group: GroupRef<'_>,
    item: Option<&str>,
    epoch: &str,
    seq: u64,
    items: &[(Arc<str>, Item)],
    next_after: Option<u64>,
) -> String {
    let mut out = String::with_capacity(items_bytes(items));
    out.push_str(r#"{"streamName":"#);
    push_string(&mut out, group.stream);
    out.push_str(r#","groupId":"#);
    push_string(&mut out, group.group);
    out.push_str(r#","id":"#);
    match item {
        Some(item) => push_string(&mut out, item),
        None => out.push_str("null"),
    }
    push_position(&mut out, epoch, seq);
    push_items(&mut out, items);
    match next_after {
        Some(after) => {
            out.push_str(r#","more":true,"after":"#);
            push_number(&mut out, after);
            out.push('}');
        }
        None => out.push_str(r#","more":false}"#),
    }
    out
}

fn push_items(out: &mut String, items: &[(Arc<str>, Item)]) {
    out.push_str(r#","items":["#);
    for (index, (id, item)) in items.iter().enumerate() {
        out.push_str(if 0 < index { r#",{"id":"# } else { r#"{"id":"# });
        push_string(out, id);
        out.push_str(r#","seq":"#);
        push_number(out, item.seq);
        out.push_str(r#","data":"#);
        out.push_str(item.value.as_str());
        out.push('}');
    }
    out.push(']');
}

fn items_bytes(items: &[(Arc<str>, Item)]) -> usize {
    let bytes = |(id, item): &(Arc<str>, Item)| ITEM_BYTES + id.len() + item.value.as_str().len();
    items.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::decide::Kind;
    use crate::event::{delta_frame, event_frame};
    use crate::stamp::Change;
    use crate::text::Json;

    const GROUP: GroupRef<'_> = GroupRef {
        stream: "chat",
        group: "r1",
    };
    const SYNC: Sync<'_> = Sync {
        group: GROUP,
        item: None,
        subscription_id: "s1",
        epoch: "k3",
        seq: 57,
        timestamp: 1_760_000_000_000,
        mutations: None,
    };

    fn json(text: &str) -> Json {
        Json::from_text(text).expect("JSON text")
    }

    fn items() -> Vec<(Arc<str>, Item)> {
        let item = Item {
            value: json("{}"),
            seq: 52,
            created_seq: 50,
            timestamp: 0,
            ttl_ms: None,
            expires_ms: None,
        };
        vec![("m1".into(), item)]
    }

    #[test]
    fn frames_look_as_in_the_design() {
        let head = r#"{"type":"stream","timestamp":1760000000000,"streamName":"chat","groupId":"r1","id":null,"subscriptionId":"s1","epoch":"k3","seq":57,"event":"#;
        let frame = |event: &str| head.to_string() + event;
        assert_eq!(
            page_sync_frame(&SYNC, &items(), true, false),
            frame(
                r#"{"type":"sync","mode":"snapshot","items":[{"id":"m1","seq":52,"data":{}}],"more":true}}"#
            )
        );
        assert_eq!(
            page_sync_frame(&SYNC, &[], false, true),
            frame(r#"{"type":"sync","mode":"snapshot","reset":true,"items":[],"more":false}}"#)
        );
        assert_eq!(
            resume_sync_frame(&SYNC, 41),
            frame(r#"{"type":"sync","mode":"resume","from":41}}"#)
        );
        let echo = Echo {
            tag: "ab".into(),
            seq: 112,
        };
        let asking = Sync {
            mutations: Some(&[echo.clone(), echo]),
            ..SYNC
        };
        assert!(resume_sync_frame(&asking, 41).contains(
            r#""seq":57,"mutations":[{"tag":"ab","seq":112},{"tag":"ab","seq":112}],"event":{"#
        ));
        let asking = Sync {
            mutations: Some(&[]),
            ..SYNC
        };
        assert!(
            page_sync_frame(&asking, &[], false, false)
                .contains(r#""seq":57,"mutations":[],"event":{"#)
        );
        assert_eq!(
            error_frame(Some("s1"), "subscription.version_mismatch", "…"),
            r#"{"type":"error","subscriptionId":"s1","code":"subscription.version_mismatch","message":"…"}"#
        );
        assert_eq!(
            error_frame(None, "c", "m"),
            r#"{"type":"error","code":"c","message":"m"}"#
        );
    }

    #[test]
    fn a_snapshot_tells_where_to_go_on() {
        let head = r#"{"streamName":"chat","groupId":"r1","id":null,"epoch":"k3","seq":57,"items":[{"id":"m1","seq":52,"data":{}}]"#;
        let snapshot = |next_after| snapshot_json(GROUP, None, "k3", 57, &items(), next_after);
        assert_eq!(
            snapshot(Some(50)),
            head.to_string() + r#","more":true,"after":50}"#
        );
        assert_eq!(snapshot(None), head.to_string() + r#","more":false}"#);
    }

    #[test]
    fn a_change_is_told_in_its_shorter_form() {
        let ops = r#"[{"type":"append","path":"text","value":"tok"}]"#;
        let mut change = Change {
            seq: 58,
            timestamp: 1_760_000_000_005,
            item: Some("m1".into()),
            kind: Kind::Update,
            value: None,
            ops: Some(json(ops)),
            base: Some(52),
            mutation: None,
        };
        let head = r#"{"type":"stream","timestamp":1760000000005,"streamName":"chat","groupId":"r1","id":"m1","seq":58,"event":"#;
        let delta = head.to_string() + r#"{"type":"update","base":52,"ops":"# + ops + "}}";
        assert_eq!(delta_frame(GROUP, &change, None).as_ref(), Some(&delta));
        assert_eq!(event_frame(GROUP, &change, None), None);

        // As long as the operations with their base: then the value.
        let value = |bytes| json(&alloc::format!("\"{}\"", "x".repeat(bytes)));
        let same_bytes = ops.len() + r#""base":52,"ops":"#.len() - r#""data":"#.len() - 2;
        change.value = Some(value(same_bytes + 1));
        assert_eq!(delta_frame(GROUP, &change, None), Some(delta));
        change.value = Some(value(same_bytes));
        assert_eq!(
            delta_frame(GROUP, &change, None),
            event_frame(GROUP, &change, None)
        );
        let resumed = event_frame(GROUP, &change, Some("s1")).expect("there is a value");
        assert!(resumed.contains(
            r#""id":"m1","subscriptionId":"s1","seq":58,"event":{"type":"update","data":"xx"#
        ));
    }
}
