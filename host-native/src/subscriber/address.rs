//! The one place that translates between the text of request paths and queries and types. Source: subscriber socket, section 1;
//! product design, section 5.

use iii_stream_core::{Position, is_name};
use percent_encoding::percent_decode_str;

use super::protocol::Asks;

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

/// What the query of a request says, beside whatever the auth function reads in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// How the client wants to be spoken to.
    pub asks: Asks,
    /// Where it left off.
    pub since: Option<Position>,
    /// For a page of a snapshot over HTTP: the `after` of the page before.
    pub after: Option<u64>,
}

/// Reads a query: `v=2`, `deltas=1`, `core=N`, `since=EPOCH:SEQ`, `after=N`. Queries belong to the application, so what is
/// none of these is left alone, and without `v=2` nothing is read but by `is_http`, where there is no other version.
///
/// Errors: what is wrong with one of them, in words.
pub(super) fn read_query(query: &str, is_http: bool) -> Result<Query, &'static str> {
    let param = |wanted: &str| {
        form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| name == wanted)
            .last()
            .map(|(_, value)| value)
    };
    if !is_http && param("v").as_deref() != Some("2") {
        return Ok(Query::default());
    }
    let number = |name: &str, message| {
        param(name)
            .map(|value| value.parse().map_err(|_| message))
            .transpose()
    };
    let since = param("since").map(|value| value.parse()).transpose();
    Ok(Query {
        asks: Asks {
            version_2: Some(true),
            deltas: param("deltas").map(|value| value == "1" || value == "true"),
            core: number("core", "the query's `core` must be a non-negative integer")?,
        },
        since: since.map_err(|_| {
            "the query's `since` must look like k3:57: an epoch of a-z and 0-9, a colon, and a sequence"
        })?,
        after: number("after", "the query's `after` must be a non-negative integer")?,
    })
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
    fn queries_are_the_applications_unless_they_ask_for_version_2() {
        let plain = "since=yesterday&v=3&deltas=1";
        assert_eq!(read_query(plain, false), Ok(Query::default()));
        let query = read_query("token=x&v=2&deltas=1&core=7&since=k3%3A57", false);
        let query = query.expect("a query");
        assert!(!query.asks.takes_deltas());
        assert_eq!(query.since, "k3:57".parse().ok());
        assert!(read_query("v=2&since=57", false).is_err());
        assert!(read_query("after=-1", true).is_err());
    }
}
