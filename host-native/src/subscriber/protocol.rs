//! The one place that translates between the text of subscriber messages and types. Source: subscriber socket, section 2;
//! product design, section 5.

use std::borrow::Cow;
use std::sync::Arc;

use iii_stream_core::fields::{FieldError, Fields};
use iii_stream_core::limits::{JOIN_CLIENTS_MAX, MUTATION_CLIENT_BYTES_MAX, NAME_BYTES_MAX};
use iii_stream_core::raw::Raw;
use iii_stream_core::{OPS_VERSION, Position, is_name};

use crate::engine::{CallResult, Output};
use crate::store::Clients;

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientMessage<'a> {
    Join(Join<'a>),
    Leave { subscription_id: Cow<'a, str> },
    Call(Call<'a>),
}

/// A call of a function.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call<'a> {
    /// As it came, with its quotes.
    pub(super) id: &'a str,
    pub(super) function_id: Cow<'a, str>,
    /// The input as JSON text.
    pub(super) data: &'a str,
}

/// A wish to subscribe.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Join<'a> {
    pub(super) subscription_id: Cow<'a, str>,
    pub(super) stream: Cow<'a, str>,
    pub(super) group: Cow<'a, str>,
    pub(super) item: Option<Cow<'a, str>>,
    pub(super) asks: Asks,
    /// Where the client left off.
    pub(super) since: Option<Position>,
    /// Mutation clients that it asks about.
    pub(super) clients: Clients,
}

/// How a client wants to be spoken to, as far as it says so. It holds for the whole connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Version 2 of the protocol, or version 1.
    pub version_2: Option<bool>,
    /// Operations instead of values.
    pub deltas: Option<bool>,
    /// The version of the operations' semantics that the client applies them with.
    pub core: Option<u64>,
}

impl Asks {
    /// Whether operations are to be sent instead of values.
    pub fn takes_deltas(self) -> bool {
        self.deltas == Some(true) && self.core.is_none_or(|core| core == OPS_VERSION)
    }

    /// Whether nothing that is said here differs from what was said first.
    pub fn agrees_with(self, first: Self) -> bool {
        let same = |now: Option<u64>, then: Option<u64>, default| {
            now.is_none_or(|now| now == then.unwrap_or(default))
        };
        same(
            self.version_2.map(u64::from),
            first.version_2.map(u64::from),
            0,
        ) && same(self.deltas.map(u64::from), first.deltas.map(u64::from), 0)
            && same(self.core, first.core, OPS_VERSION)
    }
}

/// A message that cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid<'a> {
    /// The subscription it is about, if that could be read.
    pub(super) subscription_id: Option<Cow<'a, str>>,
    pub(super) code: &'static str,
    pub(super) message: String,
    /// It asks for a version that published clients do not know, so its client understands an answer.
    pub(super) asks_version: bool,
    /// It is a call with this id, as it came or with its quotes, so its client understands an answer.
    pub(super) call_id: Option<Cow<'a, str>>,
}

/// Longest subscription id, in bytes. Clients use UUIDs.
const SUBSCRIPTION_ID_BYTES_MAX: usize = 256;

/// Longest id of a call, in bytes.
const CALL_ID_BYTES_MAX: usize = 256;

/// Reads a message.
///
/// Errors: [`Invalid`], which only clients of version 2 are told: published clients throw on answers that they do not know.
pub(super) fn decode(text: &str) -> Result<ClientMessage<'_>, Invalid<'_>> {
    let unreadable = |error: FieldError| Invalid::of_message(error.to_string());
    let message = Fields::read(text, &MESSAGE_FIELDS).map_err(|error| Invalid {
        call_id: salvage_call_id(text),
        ..unreadable(error)
    })?;
    let kind = message.string(TYPE).map_err(unreadable)?;
    if kind == "call" {
        return read_call(&message).map(ClientMessage::Call);
    }
    if !matches!(kind.as_ref(), "join" | "leave") {
        return Err(Invalid {
            subscription_id: None,
            code: "message.unknown_type",
            message: format!("field `type` must be join, leave or call, got {kind:?}"),
            asks_version: false,
            call_id: None,
        });
    }
    let data = message.required(DATA).map_err(unreadable)?.get();
    let fields = Fields::read(data, &JOIN_FIELDS).map_err(unreadable)?;
    let invalid = |(code, message)| Invalid {
        subscription_id: fields.string(SUBSCRIPTION_ID).ok(),
        code,
        message,
        asks_version: fields.optional(VERSION).is_some_and(|raw| raw.get() != "1"),
        call_id: None,
    };
    let join = read_join(&fields).map_err(invalid)?;
    Ok(match kind.as_ref() {
        "leave" => ClientMessage::Leave {
            subscription_id: join.subscription_id,
        },
        _ => ClientMessage::Join(join),
    })
}

impl Invalid<'_> {
    /// It is no message at all.
    fn of_message(message: String) -> Self {
        Self {
            subscription_id: None,
            code: "message.invalid",
            message,
            asks_version: false,
            call_id: None,
        }
    }
}

const MESSAGE_FIELDS: [&str; 4] = ["type", "data", "id", "function_id"];
const TYPE: usize = 0;
const DATA: usize = 1;
const CALL_ID: usize = 2;
const FUNCTION_ID: usize = 3;

fn read_call<'a>(message: &Fields<'a, 4>) -> Result<Call<'a>, Invalid<'a>> {
    let no_id = |error: FieldError| Invalid::of_message(error.to_string());
    let bytes = message.string(CALL_ID).map_err(no_id)?.len();
    let id = message.required(CALL_ID).map_err(no_id)?.get();
    if CALL_ID_BYTES_MAX < bytes {
        return Err(Invalid::of_message(format!(
            "field `id` has {bytes} bytes, at most {CALL_ID_BYTES_MAX} are allowed"
        )));
    }
    let function_id = message.string(FUNCTION_ID).map_err(|error| Invalid {
        call_id: Some(id.into()),
        ..no_id(error)
    })?;
    Ok(Call {
        id,
        function_id,
        data: message.raw(DATA).map_or("null", Raw::get),
    })
}

/// The id of a call in text that is no JSON, for example because it holds `NaN`: where it stands before the call's data, which
/// may have an `id` of its own. With its quotes.
fn salvage_call_id(text: &str) -> Option<Cow<'_, str>> {
    let (head, _) = text.split_once(r#""data""#)?;
    let (_, kind) = head.split_once(r#""type""#)?;
    let (_, id) = head.split_once(r#""id""#)?;
    if salvage_string(kind)? != "call" {
        return None;
    }
    Some(Cow::Owned(format!("\"{}\"", salvage_string(id)?)))
}

/// The string that comes next after a field's name, if it has no escapes.
fn salvage_string(after_name: &str) -> Option<&str> {
    let rest = after_name.trim_ascii_start().strip_prefix(':')?;
    let (value, _) = rest.trim_ascii_start().strip_prefix('"')?.split_once('"')?;
    let is_plain = value.bytes().all(|byte| byte != b'\\' && 0x20 <= byte);
    (value.len() <= CALL_ID_BYTES_MAX && is_plain).then_some(value)
}

/// The answer to a call. `id` stands as it came, with its quotes.
///
/// Shape: `{"type":"result","id","result"?}`, or `error` instead of `result`; neither where the function returned nothing.
pub(super) fn result_frame(id: &str, result: &CallResult) -> String {
    let (name, json) = match result {
        Ok(Output::Json(json)) => ("result", json.as_str()),
        Ok(Output::Nothing) => ("", ""),
        Err(failure) => ("error", failure.body()),
    };
    let mut out = String::with_capacity(48 + id.len() + json.len());
    out.push_str(r#"{"type":"result","id":"#);
    out.push_str(id);
    if !name.is_empty() {
        out.push_str(",\"");
        out.push_str(name);
        out.push_str("\":");
        out.push_str(json);
    }
    out.push('}');
    out
}

const JOIN_FIELDS: [&str; 9] = [
    "subscriptionId",
    "streamName",
    "groupId",
    "id",
    "version",
    "deltas",
    "core",
    "since",
    "clients",
];
const SUBSCRIPTION_ID: usize = 0;
const STREAM_NAME: usize = 1;
const GROUP_ID: usize = 2;
const ID: usize = 3;
const VERSION: usize = 4;
const DELTAS: usize = 5;
const CORE: usize = 6;
const SINCE: usize = 7;
const CLIENTS: usize = 8;

type Fault = (&'static str, String);

fn read_join<'a>(fields: &Fields<'a, 9>) -> Result<Join<'a>, Fault> {
    let wrong = |error: FieldError| ("subscription.invalid", error.to_string());
    let subscription_id = fields.string(SUBSCRIPTION_ID).map_err(wrong)?;
    if SUBSCRIPTION_ID_BYTES_MAX < subscription_id.len() {
        let bytes = subscription_id.len();
        let message = format!(
            "field `subscriptionId` has {bytes} bytes, at most {SUBSCRIPTION_ID_BYTES_MAX} are allowed"
        );
        return Err(("subscription.invalid", message));
    }
    let join = Join {
        subscription_id,
        stream: name(fields.string(STREAM_NAME).map_err(wrong)?, STREAM_NAME)?,
        group: name(fields.string(GROUP_ID).map_err(wrong)?, GROUP_ID)?,
        // Clients treat an empty id like none.
        item: fields
            .optional_string(ID)
            .map_err(wrong)?
            .filter(|id| !id.is_empty())
            .map(|id| name(id, ID))
            .transpose()?,
        asks: Asks {
            version_2: read_version(fields)?,
            deltas: fields.optional_bool(DELTAS).map_err(wrong)?,
            core: fields.optional_u64(CORE).map_err(wrong)?,
        },
        since: fields.optional(SINCE).map(read_since).transpose()?,
        clients: fields.optional(CLIENTS).map(read_clients).transpose()?,
    };
    Ok(join)
}

fn name(name: Cow<'_, str>, field: usize) -> Result<Cow<'_, str>, Fault> {
    if is_name(&name) {
        return Ok(name);
    }
    let message = format!(
        "field `{}` has {} bytes, a name has 1 to {NAME_BYTES_MAX}",
        JOIN_FIELDS[field],
        name.len()
    );
    Err(("subscription.invalid", message))
}

fn read_version(fields: &Fields<'_, 9>) -> Result<Option<bool>, Fault> {
    match fields.optional(VERSION).map(Raw::get) {
        None => Ok(None),
        Some("1") => Ok(Some(false)),
        Some("2") => Ok(Some(true)),
        Some(other) => Err((
            "subscription.unsupported_version",
            format!("field `version` must be 1 or 2, got {other}"),
        )),
    }
}

/// Shape: `{"epoch":"k3","seq":41}`.
fn read_since(raw: Raw<'_>) -> Result<Position, Fault> {
    let invalid = |what: String| ("subscription.invalid_since", what);
    let fields = Fields::read(raw.get(), &["epoch", "seq"])
        .map_err(|error| invalid(format!("field `since`: {error}")))?;
    let epoch = fields
        .string(0)
        .map_err(|error| invalid(format!("field `since`: {error}")))?;
    let seq = fields
        .optional_u64(1)
        .map_err(|error| invalid(format!("field `since`: {error}")))?
        .ok_or_else(|| invalid("field `since`: field `seq` is missing".to_owned()))?;
    format!("{epoch}:{seq}").parse().map_err(|_| {
        invalid("field `since`: field `epoch` must be letters a-z and digits".to_owned())
    })
}

/// Shape: `["…", …]`.
fn read_clients(raw: Raw<'_>) -> Result<Arc<[Box<str>]>, Fault> {
    let invalid = |what: String| ("subscription.invalid", format!("field `clients` {what}"));
    let clients: Vec<Box<str>> = serde_json::from_str(raw.get())
        .map_err(|_| invalid("must be a list of strings".to_owned()))?;
    if JOIN_CLIENTS_MAX < clients.len() {
        let count = clients.len();
        let message = format!("has {count} strings, at most {JOIN_CLIENTS_MAX} are allowed");
        return Err(invalid(message));
    }
    let is_client = |client: &str| (1..=MUTATION_CLIENT_BYTES_MAX).contains(&client.len());
    if let Some(wrong) = clients.iter().find(|client| !is_client(client)) {
        let bytes = wrong.len();
        let message =
            format!("has a string of {bytes} bytes, a client has 1 to {MUTATION_CLIENT_BYTES_MAX}");
        return Err(invalid(message));
    }
    Ok(clients.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_and_leaves_are_read() {
        let join = r#"{"type":"join","data":{"subscriptionId":"s","streamName":"a","groupId":"b","id":null}}"#;
        let expected = Join {
            subscription_id: "s".into(),
            stream: "a".into(),
            group: "b".into(),
            item: None,
            asks: Asks::default(),
            since: None,
            clients: None,
        };
        assert_eq!(decode(join), Ok(ClientMessage::Join(expected)));
        let join = r#"{"type":"join","data":{"subscriptionId":"s","streamName":"a","groupId":"b","id":"i","version":2,"deltas":true,"core":1,"since":{"epoch":"k3","seq":41},"clients":["c","\u0064"]}}"#;
        let expected = Join {
            subscription_id: "s".into(),
            stream: "a".into(),
            group: "b".into(),
            item: Some("i".into()),
            asks: Asks {
                version_2: Some(true),
                deltas: Some(true),
                core: Some(1),
            },
            since: "k3:41".parse().ok(),
            clients: Some(["c".into(), "d".into()].into()),
        };
        assert_eq!(decode(join), Ok(ClientMessage::Join(expected)));
        let leave =
            r#"{"type":"leave","data":{"subscriptionId":"s","streamName":"a","groupId":"b"}}"#;
        let subscription_id = "s".into();
        assert_eq!(decode(leave), Ok(ClientMessage::Leave { subscription_id }));
    }

    #[test]
    fn calls_are_read() {
        let call =
            r#"{"data":{"id":"x"},"type":"call","id":"a\"\u0062","function_id":"stream::get"}"#;
        let expected = Call {
            id: r#""a\"\u0062""#,
            function_id: "stream::get".into(),
            data: r#"{"id":"x"}"#,
        };
        assert_eq!(decode(call), Ok(ClientMessage::Call(expected)));
        let call = r#"{"type":"call","id":"","function_id":"f"}"#;
        assert!(matches!(
            decode(call),
            Ok(ClientMessage::Call(Call { data: "null", .. }))
        ));
    }

    #[test]
    fn a_call_that_cannot_be_read_is_answered_where_its_id_can() {
        let long = format!(
            r#"{{"type":"call","id":"{}","function_id":"f"}}"#,
            "i".repeat(257)
        );
        let cases = [
            (r#"{"type":"call","id":"7"}"#, Some(r#""7""#)),
            (
                r#"{"type":"call","id":"7","function_id":7}"#,
                Some(r#""7""#),
            ),
            (
                r#"{"type": "call","id": "7","function_id":"f","data":{"n":NaN}}"#,
                Some(r#""7""#),
            ),
            (
                r#"{"type":"call","data":{"id":"x","n":NaN},"id":"7"}"#,
                None,
            ),
            (r#"{"type":"join","id":"7","data":{"n":NaN}}"#, None),
            (r#"{"type":"call","id":7,"function_id":"f"}"#, None),
            (r#"{"type":"call","id":null,"function_id":"f"}"#, None),
            (r#"{"type":"call","id":"\ud800","function_id":"f"}"#, None),
            (r#"{"type":"call","function_id":"f"}"#, None),
            (&long, None),
        ];
        for (text, id) in cases {
            let invalid = decode(text).expect_err(text);
            assert_eq!(
                invalid.call_id.as_deref(),
                id,
                "{text}: {}",
                invalid.message
            );
            assert_eq!(invalid.code, "message.invalid", "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_message_has_a_code() {
        let join = |more: &str| {
            format!(
                r#"{{"type":"join","data":{{"subscriptionId":"s","streamName":"a","groupId":"b"{more}}}}}"#
            )
        };
        let cases = [
            ("".to_owned(), "message.invalid"),
            ("[]".to_owned(), "message.invalid"),
            (r#"{"type":"join"}"#.to_owned(), "message.invalid"),
            (join("").replace("join", "Join"), "message.unknown_type"),
            (join("").replace(r#""b""#, r#""""#), "subscription.invalid"),
            (join("").replace(r#""s""#, "1"), "subscription.invalid"),
            (join(r#","id":1"#), "subscription.invalid"),
            (join(r#","deltas":1"#), "subscription.invalid"),
            (join(r#","clients":"c""#), "subscription.invalid"),
            (join(r#","clients":[1]"#), "subscription.invalid"),
            (join(r#","clients":[""]"#), "subscription.invalid"),
            (
                join(&format!(r#","clients":["{}"]"#, "c".repeat(257))),
                "subscription.invalid",
            ),
            (
                join(&format!(r#","clients":["c"{}]"#, r#","c""#.repeat(16))),
                "subscription.invalid",
            ),
            (join(r#","version":3"#), "subscription.unsupported_version"),
            (join(r#","since":"k3:1""#), "subscription.invalid_since"),
            (
                join(r#","since":{"epoch":"k3"}"#),
                "subscription.invalid_since",
            ),
            (
                join(r#","since":{"epoch":"K3","seq":1}"#),
                "subscription.invalid_since",
            ),
            (
                join(r#","since":{"epoch":"k3","seq":-1}"#),
                "subscription.invalid_since",
            ),
            (
                join(r#","since":{"epoch":"k3","seq":"1"}"#),
                "subscription.invalid_since",
            ),
        ];
        for (text, code) in cases {
            let invalid = decode(&text).expect_err(&text);
            assert_eq!(invalid.code, code, "{text}: {}", invalid.message);
            assert_eq!(invalid.asks_version, text.contains("version"), "{text}");
        }
    }

    #[test]
    fn a_later_join_must_not_differ() {
        let first = Asks {
            version_2: Some(true),
            deltas: Some(true),
            core: None,
        };
        let differs = |asks: Asks| !asks.agrees_with(first);
        assert!(Asks::default().agrees_with(first));
        assert!(first.agrees_with(first));
        assert!(differs(Asks {
            version_2: Some(false),
            ..Asks::default()
        }));
        assert!(differs(Asks {
            deltas: Some(false),
            ..Asks::default()
        }));
        assert!(differs(Asks {
            core: Some(OPS_VERSION + 1),
            ..Asks::default()
        }));
    }
}
