//! The frames in which engines tell each other of changes, as they stand in Redis' channel. Knows no Redis.

use std::sync::Arc;

use iii_stream_core::fields::Fields;
use iii_stream_core::{GroupKey, Json, Kind, is_name};

/// The channel of all changes.
pub(super) const EVENTS: &str = "stream::events";

/// A change that was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) group: GroupKey,
    /// By the clock of whoever wrote it, in Unix milliseconds.
    pub(super) timestamp: u64,
    pub(super) item: Option<Arc<str>>,
    /// What happened, as JSON text that nobody has looked through.
    event: &'a str,
}

/// Why a frame cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct FrameError(String);

fn wrong(what: impl std::fmt::Display) -> FrameError {
    FrameError(what.to_string())
}

impl<'a> Frame<'a> {
    /// Reads what is needed to know whether anybody cares.
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, FrameError> {
        let text = std::str::from_utf8(payload).map_err(wrong)?;
        let fields = Fields::read(
            text,
            &["type", "timestamp", "streamName", "groupId", "id", "event"],
        )
        .map_err(wrong)?;
        if fields.string(0).map_err(wrong)? != "stream" {
            return Err(wrong("`type` is not \"stream\""));
        }
        let timestamp = fields.optional_u64(1).map_err(wrong)?;
        let timestamp = timestamp.ok_or_else(|| wrong("`timestamp` is missing"))?;
        let stream = fields.string(2).map_err(wrong)?;
        let group = fields.string(3).map_err(wrong)?;
        if !is_name(&stream) || !is_name(&group) {
            return Err(wrong("a name is empty or too long"));
        }
        let id = fields.optional_string(4).map_err(wrong)?;
        let event = fields.required(5).map_err(wrong)?;
        Ok(Self {
            group: GroupKey {
                stream: stream.as_ref().into(),
                group: group.as_ref().into(),
            },
            timestamp,
            // Clients take an empty id for none.
            item: id.filter(|id| !id.is_empty()).map(|id| id.as_ref().into()),
            event: event.get(),
        })
    }

    /// Reads what happened, with its value.
    pub(super) fn change(&self) -> Result<(Kind, Json), FrameError> {
        let fields = Fields::read(self.event, &["type", "data", "event"]).map_err(wrong)?;
        let kind = match &*fields.string(0).map_err(wrong)? {
            "create" => Kind::Create,
            "update" => Kind::Update,
            "delete" => Kind::Delete,
            "event" => {
                let event = fields.required(2).map_err(wrong)?;
                return custom(event.get());
            }
            other => return Err(wrong(format!("an event of type `{other}`"))),
        };
        if self.item.is_none() {
            return Err(wrong("a change of an item without `id`"));
        }
        let data = fields.required(1).map_err(wrong)?;
        Ok((kind, Json::from_field(data).map_err(wrong)?))
    }
}

/// A custom event: its label and data stand one level deeper.
fn custom(event: &str) -> Result<(Kind, Json), FrameError> {
    let fields = Fields::read(event, &["type", "data"]).map_err(wrong)?;
    let label = Json::from_str_value(&fields.string(0).map_err(wrong)?);
    let data = match fields.raw(1) {
        Some(data) => Json::from_field(data),
        None => Json::from_text("null"),
    };
    Ok((Kind::Event { label }, data.map_err(wrong)?))
}

#[cfg(test)]
mod tests {
    use iii_stream_core::Change;
    use iii_stream_core::event::trigger_input;

    use super::*;

    fn json(text: &str) -> Json {
        Json::from_text(text).expect("JSON")
    }

    #[test]
    fn what_the_core_writes_is_read_again() {
        let label = json("\"typing\"");
        for kind in [
            Kind::Create,
            Kind::Update,
            Kind::Delete,
            Kind::Event { label },
        ] {
            let change = Change {
                seq: 1,
                timestamp: 1_760_000_000_123,
                item: Some("m\"1".into()),
                kind,
                value: Some(json(r#"{"id":"m1","text":"🦀\n"}"#)),
                ops: None,
                base: None,
                mutation: None,
            };
            let group = GroupKey {
                stream: "chat\\".into(),
                group: "r 1".into(),
            };
            let text = trigger_input(group.as_ref(), &change).expect("a value");
            let frame = Frame::read(text.as_bytes()).expect("a frame");
            assert_eq!((&frame.group, frame.timestamp), (&group, change.timestamp));
            assert_eq!(frame.item, change.item);
            let (kind, value) = frame.change().expect("a change");
            assert_eq!((kind, Some(value)), (change.kind, change.value));
        }
    }

    #[test]
    fn an_event_may_belong_to_no_item() {
        for id in ["null", "\"\""] {
            let text = format!(
                r#"{{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":{id},"event":{{"type":"event","event":{{"type":"t"}}}}}}"#
            );
            let frame = Frame::read(text.as_bytes()).expect("a frame");
            assert_eq!(frame.item, None);
            let (_, data) = frame.change().expect("a change");
            assert_eq!(data.as_str(), "null");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let frame = |event: &str| {
            format!(
                r#"{{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":"i","event":{event}}}"#
            )
        };
        for text in [
            "",
            "[]",
            "{oops",
            r#"{"type":"other"}"#,
            r#"{"type":"stream","timestamp":-1,"streamName":"s","groupId":"g","id":"i","event":{}}"#,
            r#"{"type":"stream","timestamp":1,"streamName":"","groupId":"g","id":"i","event":{}}"#,
            r#"{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":"i"}"#,
        ] {
            assert!(Frame::read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Frame::read(b"\xff").is_err());
        for event in [
            "1",
            r#"{"type":"sync","data":[]}"#,
            r#"{"type":"create"}"#,
            r#"{"type":"create","data":"\ud800"}"#,
            r#"{"type":"event"}"#,
        ] {
            let text = frame(event);
            let read = Frame::read(text.as_bytes()).and_then(|frame| frame.change());
            assert!(read.is_err(), "{event}");
        }
    }
}
