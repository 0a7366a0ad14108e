//! Reads a frame of the subscriber port, as a client gets it. Knows nothing of what the client holds.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::fields::{FieldError, Fields, kind_of};
use crate::name::is_name;
use crate::op::Ops;
use crate::raw::{Raw, Reader};
use crate::text::Json;

/// A frame.
pub(super) enum Frame<'a> {
    Stream(StreamFrame<'a>),
    Error(ErrorFrame<'a>),
    /// Of a type that is not for a replica, or that it does not know.
    Other,
}

/// A frame of type `stream`. Shape: subscriber socket, section 3; product design, section 5.
pub(super) struct StreamFrame<'a> {
    pub(super) stream: Cow<'a, str>,
    pub(super) group: Cow<'a, str>,
    pub(super) item: Option<Arc<str>>,
    pub(super) subscription: Option<Cow<'a, str>>,
    pub(super) epoch: Option<Cow<'a, str>>,
    pub(super) seq: Option<u64>,
    /// The mutation that an event came from.
    pub(super) mutation: Option<Taken<'a>>,
    /// The last mutations that were taken from the clients that were asked about.
    pub(super) mutations: Vec<Taken<'a>>,
    pub(super) event: Event,
}

/// The mutation of a client, by its tag.
pub(super) struct Taken<'a> {
    pub(super) tag: Cow<'a, str>,
    pub(super) seq: u64,
}

/// A frame of type `error`.
pub(super) struct ErrorFrame<'a> {
    pub(super) subscription: Option<Cow<'a, str>>,
    pub(super) code: Cow<'a, str>,
    pub(super) message: Cow<'a, str>,
}

/// What a frame of type `stream` tells.
#[derive(Clone)]
pub(super) enum Event {
    /// Version 1: how a group stands.
    Values(Vec<Json>),
    /// Version 1: how an item stands.
    Value(Option<Json>),
    Page(PageOfItems),
    Resume {
        from: u64,
    },
    /// What happened to an item.
    Change(ItemChange),
    Custom {
        /// A JSON string.
        label: Json,
        data: Json,
    },
    Unauthorized,
    /// Something that this version does not know.
    Other,
}

/// What happened to an item.
#[derive(Clone)]
pub(super) enum ItemChange {
    Create(Json),
    Update(Json),
    Delta { base: u64, ops: Ops },
    Delete,
}

/// A page of a snapshot.
#[derive(Clone)]
pub(super) struct PageOfItems {
    pub(super) items: Vec<PageItem>,
    pub(super) more: bool,
    pub(super) reset: bool,
}

#[derive(Clone)]
pub(super) struct PageItem {
    pub(super) id: Arc<str>,
    pub(super) seq: u64,
    pub(super) value: Json,
}

/// What is wrong with a frame.
type Reason = String;

fn reason(error: impl core::fmt::Display) -> Reason {
    format!("{error}")
}

impl<'a> Frame<'a> {
    /// Reads all of a frame, so that what follows cannot fail half-way.
    ///
    /// Errors: what is wrong with it.
    pub(super) fn read(text: &'a str) -> Result<Self, Reason> {
        const FIELDS: &[&str; 12] = &[
            "type",
            "streamName",
            "groupId",
            "id",
            "subscriptionId",
            "epoch",
            "seq",
            "mutation",
            "mutations",
            "event",
            "code",
            "message",
        ];
        let fields = Fields::read(text, FIELDS).map_err(reason)?;
        match &*fields.string(0).map_err(reason)? {
            "stream" => StreamFrame::read(&fields).map(Self::Stream),
            "error" => ErrorFrame::read(&fields).map(Self::Error).map_err(reason),
            _ => Ok(Self::Other),
        }
    }
}

impl<'a> StreamFrame<'a> {
    fn read(fields: &Fields<'a, 12>) -> Result<Self, Reason> {
        let item = fields.optional_string(3).map_err(reason)?;
        let item = item.map(|id| name(&id)).transpose()?;
        let mutation = fields.optional(7).map(taken).transpose()?;
        let mut mutations = Vec::new();
        if let Some(raw) = fields.optional(8) {
            for_each_member(raw, "mutations", |raw| {
                mutations.push(taken(raw)?);
                Ok(())
            })?;
        }
        let event = fields.required(9).map_err(reason)?;
        let event = read_event(event, item.is_some())?;
        if matches!(event, Event::Change(_)) && item.is_none() {
            return Err("field `id` of a change must be a string".into());
        }
        Ok(Self {
            stream: fields.string(1).map_err(reason)?,
            group: fields.string(2).map_err(reason)?,
            item,
            subscription: fields.optional_string(4).map_err(reason)?,
            epoch: fields.optional_string(5).map_err(reason)?,
            seq: fields.optional_u64(6).map_err(reason)?,
            mutation,
            mutations,
            event,
        })
    }
}

impl<'a> ErrorFrame<'a> {
    fn read(fields: &Fields<'a, 12>) -> Result<Self, FieldError> {
        Ok(Self {
            subscription: fields.optional_string(4)?,
            code: fields.string(10)?,
            message: fields.optional_string(11)?.unwrap_or_default(),
        })
    }
}

fn read_event(raw: Raw<'_>, has_item: bool) -> Result<Event, Reason> {
    const FIELDS: &[&str; 10] = &[
        "type", "data", "mode", "items", "more", "reset", "from", "base", "ops", "event",
    ];
    let fields = Fields::read(raw.get(), FIELDS).map_err(reason)?;
    let data = || {
        let raw = fields.required(1).map_err(reason)?;
        Json::from_field(raw).map_err(reason)
    };
    Ok(match &*fields.string(0).map_err(reason)? {
        "create" => Event::Change(ItemChange::Create(data()?)),
        "update" => match fields.optional(8) {
            Some(ops) => Event::Change(ItemChange::Delta {
                base: number(&fields, 7, "base")?,
                ops: Ops::from_raw(ops).map_err(reason)?,
            }),
            None => Event::Change(ItemChange::Update(data()?)),
        },
        "delete" => Event::Change(ItemChange::Delete),
        "event" => read_custom(fields.required(9).map_err(reason)?)?,
        "sync" => match fields.optional_string(2).map_err(reason)?.as_deref() {
            Some("snapshot") => Event::Page(PageOfItems {
                items: read_items(fields.required(3).map_err(reason)?)?,
                more: fields.optional_bool(4).map_err(reason)?.unwrap_or(false),
                reset: fields.optional_bool(5).map_err(reason)?.unwrap_or(false),
            }),
            Some("resume") => Event::Resume {
                from: number(&fields, 6, "from")?,
            },
            Some(_) => Event::Other,
            None if has_item => Event::Value(match fields.optional(1) {
                Some(raw) => Some(Json::from_field(raw).map_err(reason)?),
                None => None,
            }),
            None => Event::Values(read_values(fields.required(1).map_err(reason)?)?),
        },
        "unauthorized" => Event::Unauthorized,
        _ => Event::Other,
    })
}

fn number<const N: usize>(
    fields: &Fields<'_, N>,
    index: usize,
    field: &'static str,
) -> Result<u64, Reason> {
    let number = fields.optional_u64(index).map_err(reason)?;
    number.ok_or_else(|| reason(FieldError::Missing { field }))
}

fn read_custom(raw: Raw<'_>) -> Result<Event, Reason> {
    let fields = Fields::read(raw.get(), &["type", "data"]).map_err(reason)?;
    let label = fields.string(0).map_err(reason)?;
    let data = match fields.raw(1) {
        Some(raw) => Json::from_field(raw).map_err(reason)?,
        None => Json::from_kept("null"),
    };
    Ok(Event::Custom {
        label: Json::from_str_value(&label),
        data,
    })
}

fn read_items(raw: Raw<'_>) -> Result<Vec<PageItem>, Reason> {
    let mut items = Vec::new();
    for_each_member(raw, "items", |raw| {
        let fields = Fields::read(raw.get(), &["id", "seq", "data"]).map_err(reason)?;
        items.push(PageItem {
            id: name(&fields.string(0).map_err(reason)?)?,
            seq: number(&fields, 1, "seq")?,
            value: Json::from_field(fields.required(2).map_err(reason)?).map_err(reason)?,
        });
        Ok(())
    })?;
    Ok(items)
}

fn read_values(raw: Raw<'_>) -> Result<Vec<Json>, Reason> {
    let mut values = Vec::new();
    for_each_member(raw, "data", |raw| {
        values.push(Json::from_field(raw).map_err(reason)?);
        Ok(())
    })?;
    Ok(values)
}

fn taken(raw: Raw<'_>) -> Result<Taken<'_>, Reason> {
    let fields = Fields::read(raw.get(), &["tag", "seq"]).map_err(reason)?;
    Ok(Taken {
        tag: fields.string(0).map_err(reason)?,
        seq: number(&fields, 1, "seq")?,
    })
}

fn name(name: &str) -> Result<Arc<str>, Reason> {
    if is_name(name) {
        return Ok(name.into());
    }
    Err(format!("an id has {} bytes", name.len()))
}

fn for_each_member<'a>(
    raw: Raw<'a>,
    field: &str,
    mut take: impl FnMut(Raw<'a>) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let got = kind_of(raw.get());
    if got != "array" {
        return Err(format!("field `{field}` must be an array, got {got}"));
    }
    let mut reader = Reader::new(raw.get(), 1);
    let mut has_more = !reader.token(b']');
    while has_more {
        let too_deep = || format!("field `{field}` nests too deep");
        take(reader.value().ok_or_else(too_deep)?)?;
        has_more = reader.token(b',');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(event: &str) -> String {
        format!(
            r#"{{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":null,"seq":1,"event":{event}}}"#
        )
    }

    #[test]
    fn the_deepest_value_is_read_and_a_deeper_one_is_refused() {
        for (levels, is_read) in [(125, true), (126, false), (200, false)] {
            let value = "[".repeat(levels) + &"]".repeat(levels);
            let item = format!(r#"{{"id":"a","seq":1,"data":{value}}}"#);
            let page = format!(r#"{{"type":"sync","mode":"snapshot","items":[{item},{item}]}}"#);
            let text = frame(&page);
            match Frame::read(&text) {
                Ok(Frame::Stream(StreamFrame {
                    event: Event::Page(page),
                    ..
                })) => assert_eq!((page.items.len(), is_read), (2, true)),
                Ok(_) => panic!("it is a page"),
                Err(_) => assert!(!is_read, "{levels}"),
            }
        }
    }

    #[test]
    fn what_is_not_known_is_told_apart_from_what_is_wrong() {
        let other = frame(r#"{"type":"later"}"#);
        assert!(matches!(
            Frame::read(&other),
            Ok(Frame::Stream(StreamFrame {
                event: Event::Other,
                ..
            }))
        ));
        assert!(matches!(
            Frame::read(r#"{"type":"result"}"#),
            Ok(Frame::Other)
        ));
        for event in [
            "null",
            r#"{"type":"create","data":1}"#,
            r#"{"type":"sync","mode":"snapshot","items":{}}"#,
            r#"{"type":"sync","mode":"snapshot","items":[{"id":"","seq":1,"data":1}]}"#,
            r#"{"type":"sync","mode":"resume"}"#,
            r#"{"type":"sync","data":{}}"#,
            r#"{"type":"event"}"#,
        ] {
            assert!(Frame::read(&frame(event)).is_err(), "{event}");
        }
    }
}
