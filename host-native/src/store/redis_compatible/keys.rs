//! The names of an iii engine in Redis, and what they stand for. Nothing is escaped in them.

use std::sync::Arc;

use iii_stream_core::{GroupKey, GroupRef, is_name};

/// What a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Groups of streams: `stream:<stream>:<group>`.
    Streams,
    /// Scopes of the state, whatever stream they are of: `state:<scope>`.
    State,
}

impl Kept {
    /// The key of a group's hash.
    pub(super) fn key(self, group: GroupRef<'_>) -> String {
        match self {
            Self::Streams => format!("stream:{}:{}", group.stream, group.group),
            Self::State => format!("state:{}", group.group),
        }
    }

    /// What all keys of a stream begin with.
    pub(super) fn prefix(self, stream: &str) -> String {
        match self {
            Self::Streams => format!("stream:{stream}:"),
            Self::State => "state:".to_owned(),
        }
    }

    /// What all keys begin with.
    pub(super) fn prefix_of_all(self) -> &'static str {
        match self {
            Self::Streams => "stream:",
            Self::State => "state:",
        }
    }

    /// The group that a key of its stream is of.
    pub(super) fn group_of(key: &[u8], prefix: &str) -> Option<Arc<str>> {
        let group = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
        is_name(group).then(|| group.into())
    }

    /// Stream and group of a key. Where there are several ways to split it, the stream ends at the first colon.
    pub(super) fn split(self, key: &[u8], stream_of_state: &str) -> Option<GroupKey> {
        let rest = std::str::from_utf8(key)
            .ok()?
            .strip_prefix(self.prefix_of_all())?;
        let (stream, group) = match self {
            Self::Streams => rest.split_once(':')?,
            Self::State => (stream_of_state, rest),
        };
        let group = GroupRef { stream, group };
        (is_name(stream) && is_name(group.group)).then(|| group.to_key())
    }
}

/// A pattern that matches what begins with `prefix`, whatever characters that has.
pub(super) fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_engine() {
        let group = GroupRef {
            stream: "a:b",
            group: "c d",
        };
        assert_eq!(Kept::Streams.key(group), "stream:a:b:c d");
        assert_eq!(Kept::State.key(group), "state:c d");
        let split = Kept::Streams.split(b"stream:a:b:c d", "state");
        let split = split.map(|key| (key.stream.to_string(), key.group.to_string()));
        assert_eq!(split, Some(("a".to_owned(), "b:c d".to_owned())));
        for key in [
            &b"stream:a"[..],
            b"stream::g",
            b"stream:a:",
            b"state:x",
            b"stream:\xff:g",
        ] {
            assert!(Kept::Streams.split(key, "state").is_none(), "{key:?}");
        }
        assert_eq!(
            Kept::group_of(b"stream:a:b:c d", "stream:a:b:").as_deref(),
            Some("c d")
        );
        assert_eq!(Kept::group_of(b"stream:ab:c", "stream:a:"), None);
    }

    #[test]
    fn patterns_match_only_what_was_meant() {
        assert_eq!(
            pattern("stream:a*b?[c]\\^:"),
            "stream:a\\*b\\?\\[c\\]\\\\\\^:*"
        );
    }
}
