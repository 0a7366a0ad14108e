//! What the holder of a replica must hear of a frame, beside what changed in items. Knows no state.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::text::{Json, push_number, push_string};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Subscriptions whose `join` must be sent again.
    pub(super) rejoin: Vec<Arc<str>>,
    /// Subscriptions that are up to date now.
    pub(super) synced: Vec<Arc<str>>,
    /// Subscriptions that may not be read.
    pub(super) denied: Vec<Arc<str>>,
    pub(super) errors: Vec<ReceivedError>,
    pub(super) events: Vec<ReceivedEvent>,
    pub(super) confirmed: Vec<ConfirmedMutation>,
    /// Whether the server speaks version 1.
    pub(super) is_version1: bool,
}

#[derive(Debug)]
pub(super) struct ReceivedError {
    pub(super) subscription: Option<Arc<str>>,
    pub(super) code: String,
    pub(super) message: String,
}

/// A custom event, for one subscription.
#[derive(Debug)]
pub(super) struct ReceivedEvent {
    pub(super) subscription: Arc<str>,
    pub(super) item: Option<Arc<str>>,
    pub(super) seq: Option<u64>,
    /// A JSON string.
    pub(super) label: Json,
    pub(super) data: Json,
}

/// A pending mutation that the server has dealt with.
#[derive(Debug)]
pub(super) struct ConfirmedMutation {
    pub(super) client: Arc<str>,
    pub(super) seq: u64,
    pub(super) change_seq: Option<u64>,
}

impl Received {
    /// `None` where there is nothing to hear.
    ///
    /// Shape: `{"rejoin":["s1"]?,"synced":["s1"]?,"denied":["s1"]?,"errors":[{"subscription"?,"code","message"}]?,
    /// "events":[{"subscription","id","seq","type","data"}]?,"confirmed":[{"client","seq","changeSeq"}]?,"version1":true?}`
    pub(super) fn into_json(self) -> Option<String> {
        let mut out = String::new();
        push_list(&mut out, "rejoin", &self.rejoin, |out, id| {
            push_string(out, id);
        });
        push_list(&mut out, "synced", &self.synced, |out, id| {
            push_string(out, id);
        });
        push_list(&mut out, "denied", &self.denied, |out, id| {
            push_string(out, id);
        });
        push_list(&mut out, "errors", &self.errors, |out, error| {
            out.push('{');
            if let Some(subscription) = &error.subscription {
                out.push_str(r#""subscription":"#);
                push_string(out, subscription);
                out.push(',');
            }
            out.push_str(r#""code":"#);
            push_string(out, &error.code);
            out.push_str(r#","message":"#);
            push_string(out, &error.message);
            out.push('}');
        });
        push_list(&mut out, "events", &self.events, |out, event| {
            out.push_str(r#"{"subscription":"#);
            push_string(out, &event.subscription);
            out.push_str(r#","id":"#);
            match &event.item {
                Some(id) => push_string(out, id),
                None => out.push_str("null"),
            }
            out.push_str(r#","seq":"#);
            push_optional(out, event.seq);
            out.push_str(r#","type":"#);
            out.push_str(event.label.as_str());
            out.push_str(r#","data":"#);
            out.push_str(event.data.as_str());
            out.push('}');
        });
        push_list(&mut out, "confirmed", &self.confirmed, |out, confirmed| {
            out.push_str(r#"{"client":"#);
            push_string(out, &confirmed.client);
            out.push_str(r#","seq":"#);
            push_number(out, confirmed.seq);
            out.push_str(r#","changeSeq":"#);
            push_optional(out, confirmed.change_seq);
            out.push('}');
        });
        if self.is_version1 {
            out.push_str(if out.is_empty() { "{" } else { "," });
            out.push_str(r#""version1":true"#);
        }
        if out.is_empty() {
            return None;
        }
        out.push('}');
        Some(out)
    }
}

fn push_optional(out: &mut String, number: Option<u64>) {
    match number {
        Some(number) => push_number(out, number),
        None => out.push_str("null"),
    }
}

/// Appends a field, where its list has members.
fn push_list<T>(out: &mut String, field: &str, list: &[T], push: impl Fn(&mut String, &T)) {
    for (index, member) in list.iter().enumerate() {
        if 0 < index {
            out.push(',');
        } else {
            out.push(if out.is_empty() { '{' } else { ',' });
            push_string(out, field);
            out.push_str(":[");
        }
        push(out, member);
    }
    if !list.is_empty() {
        out.push(']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_is_told() {
        assert_eq!(Received::default().into_json(), None);
        let received = Received {
            synced: alloc::vec!["s1".into(), "s2".into()],
            errors: alloc::vec![ReceivedError {
                subscription: None,
                code: "c".into(),
                message: "m".into(),
            }],
            is_version1: true,
            ..Received::default()
        };
        assert_eq!(
            received.into_json().as_deref(),
            Some(r#"{"synced":["s1","s2"],"errors":[{"code":"c","message":"m"}],"version1":true}"#)
        );
    }
}
