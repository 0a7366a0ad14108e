//! The one place that translates between the text of subscriber messages, request paths, and types. Source:
//! subscriber socket, sections 1 and 2.

use std::borrow::Cow;

use iii_stream_core::fields::Fields;
use iii_stream_core::is_name;
use percent_encoding::percent_decode_str;

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientMessage<'a> {
    Join(Names<'a>),
    Leave(Names<'a>),
}

/// Which subscription is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names<'a> {
    pub(super) subscription_id: Cow<'a, str>,
    pub(super) stream: Cow<'a, str>,
    pub(super) group: Cow<'a, str>,
    pub(super) item: Option<Cow<'a, str>>,
}

/// Longest subscription id, in bytes. Clients use UUIDs.
const SUBSCRIPTION_ID_BYTES_MAX: usize = 256;

/// Reads a message. `None` for anything that is no join and no leave: such messages are ignored, because published
/// clients throw on answers that they do not know.
pub(super) fn decode(text: &str) -> Option<ClientMessage<'_>> {
    let message = Fields::read(text, &["type", "data"]).ok()?;
    let kind = message.string(0).ok()?;
    let data = message.required(1).ok()?.get();
    let fields = Fields::read(data, &["subscriptionId", "streamName", "groupId", "id"]).ok()?;
    let names = Names {
        subscription_id: fields.string(0).ok()?,
        stream: fields.string(1).ok()?,
        group: fields.string(2).ok()?,
        // Clients treat an empty id like none.
        item: fields.optional_string(3).ok()?.filter(|id| !id.is_empty()),
    };
    let has_names = is_name(&names.stream)
        && is_name(&names.group)
        && names.item.as_deref().is_none_or(is_name)
        && names.subscription_id.len() <= SUBSCRIPTION_ID_BYTES_MAX;
    match kind.as_ref() {
        _ if !has_names => None,
        "join" => Some(ClientMessage::Join(names)),
        "leave" => Some(ClientMessage::Leave(names)),
        _ => None,
    }
}

/// What a request path subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTarget {
    /// The stream's name.
    pub stream: String,
    /// The group's id.
    pub group: String,
    /// The item's id; `None`: the whole group.
    pub item: Option<String>,
}

/// Reads a request path: `/`, or `/stream/{stream}/{group}[/]`, or `/stream/{stream}/{group}/{item}`, the names
/// percent-encoded. The outer `None` is any other path.
pub(super) fn read_path(path: &str) -> Option<Option<PathTarget>> {
    if path == "/" {
        return Some(None);
    }
    let rest = path.strip_prefix("/stream/")?;
    let segments: Vec<&str> = rest.split('/').collect();
    let (stream, group, item) = match segments.as_slice() {
        [stream, group] | [stream, group, ""] => (stream, group, None),
        [stream, group, item] => (stream, group, Some(item)),
        _ => return None,
    };
    let name = |segment: &str| {
        let name = percent_decode_str(segment).decode_utf8().ok()?.into_owned();
        is_name(&name).then_some(name)
    };
    let item = match item {
        Some(item) => Some(name(item)?),
        None => None,
    };
    Some(Some(PathTarget {
        stream: name(stream)?,
        group: name(group)?,
        item,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_groups_and_items() {
        let target = |stream: &str, group: &str, item: Option<&str>| {
            Some(Some(PathTarget {
                stream: stream.into(),
                group: group.into(),
                item: item.map(Into::into),
            }))
        };
        assert_eq!(read_path("/"), Some(None));
        assert_eq!(read_path("/stream/chat/r1"), target("chat", "r1", None));
        assert_eq!(read_path("/stream/chat/r1/"), target("chat", "r1", None));
        assert_eq!(
            read_path("/stream/chat/r1/m1"),
            target("chat", "r1", Some("m1"))
        );
        assert_eq!(
            read_path("/stream/a%2Fb/%F0%9F%98%80"),
            target("a/b", "😀", None)
        );
        for path in [
            "",
            "/x",
            "/stream",
            "/stream/",
            "/stream/chat",
            "/stream/chat/",
            "/stream//r",
            "/stream/a/b/c/d",
            "/stream/a/%ff",
        ] {
            assert_eq!(read_path(path), None, "{path}");
        }
    }

    #[test]
    fn only_whole_joins_and_leaves_are_read() {
        let join = r#"{"type":"join","data":{"subscriptionId":"s","streamName":"a","groupId":"b","id":null}}"#;
        let names = Names {
            subscription_id: "s".into(),
            stream: "a".into(),
            group: "b".into(),
            item: None,
        };
        assert_eq!(decode(join), Some(ClientMessage::Join(names)));
        for text in [
            "",
            "[]",
            r#"{"type":"join"}"#,
            r#"{"type":"Join","data":{"subscriptionId":"s","streamName":"a","groupId":"b"}}"#,
            r#"{"type":"join","data":{"subscriptionId":"s","streamName":"a"}}"#,
            r#"{"type":"join","data":{"subscriptionId":"s","streamName":"","groupId":"b"}}"#,
            r#"{"type":"join","data":{"subscriptionId":1,"streamName":"a","groupId":"b"}}"#,
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
