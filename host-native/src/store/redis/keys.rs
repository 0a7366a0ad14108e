//! Names of keys and channels. Those of one group share a hash tag, so that one script may touch them all.

use std::sync::Arc;

use iii_stream_core::relay::{push_encoded, push_group};
use iii_stream_core::{GroupKey, GroupRef};

use crate::redis_client::Slot;

/// The keys of one group.
#[derive(Debug)]
pub(super) struct GroupKeys {
    /// The group as messages name it, and `Pdue`.
    pub(super) name: String,
    /// Hash: the group's meta, its items, its clients' last mutations.
    pub(super) group: Box<[u8]>,
    /// Sorted set: item ids by the sequence of their creation.
    pub(super) order: Box<[u8]>,
    /// Stream: the last changes.
    pub(super) history: Box<[u8]>,
    /// Sorted set: clients by last use.
    pub(super) clients: Box<[u8]>,
    /// Sorted set: item ids by when they go.
    pub(super) expiries: Box<[u8]>,
    /// The channel of the group's changes.
    pub(super) channel: Arc<str>,
    pub(super) slot: Slot,
}

/// Makes names.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    pub(super) fn group(&self, group: GroupRef<'_>) -> GroupKeys {
        let mut name = String::new();
        push_group(&mut name, group);
        let key = |kind: char| format!("{}{kind}:{{{name}}}", self.prefix);
        let bytes = |kind| key(kind).into_bytes().into_boxed_slice();
        let group = bytes('g');
        let slot = Slot::of(&group);
        GroupKeys {
            group,
            order: bytes('o'),
            history: bytes('h'),
            clients: bytes('u'),
            expiries: bytes('x'),
            channel: key('e').into(),
            slot,
            name,
        }
    }

    /// The hash of a group alone.
    pub(super) fn group_hash(&self, group: &GroupKey) -> Vec<u8> {
        let mut key = format!("{}g:{{", self.prefix);
        push_group(&mut key, group.as_ref());
        key.push('}');
        key.into_bytes()
    }

    /// The channel of all changes of a stream that has triggers.
    pub(super) fn stream_channel(&self, stream: &str) -> String {
        self.with_stream("t:", stream)
    }

    /// Sorted set: names of streams by when they were last written.
    pub(super) fn streams(&self) -> Vec<u8> {
        format!("{}streams", self.prefix).into_bytes()
    }

    /// Sorted set: ids of a stream's groups by when they were last written.
    pub(super) fn groups(&self, stream: &str) -> Vec<u8> {
        self.with_stream("groups:", stream).into_bytes()
    }

    /// Sorted set: groups by when their next item goes.
    pub(super) fn due(&self) -> Vec<u8> {
        format!("{}due", self.prefix).into_bytes()
    }

    fn with_stream(&self, kind: &str, stream: &str) -> String {
        let mut key = format!("{}{kind}", self.prefix);
        push_encoded(&mut key, stream);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_group_share_a_tag_that_no_name_can_break() {
        let keys = Keys::new("iii:").group(GroupRef {
            stream: "a}b",
            group: "c:{d",
        });
        assert_eq!(keys.name, "a%7Db:c%3A%7Bd");
        assert_eq!(&*keys.group, b"iii:g:{a%7Db:c%3A%7Bd}");
        assert_eq!(&*keys.channel, "iii:e:{a%7Db:c%3A%7Bd}");
        for key in [&keys.order, &keys.history, &keys.clients, &keys.expiries] {
            assert_eq!(Slot::of(key), keys.slot);
        }
        assert_eq!(Slot::of(keys.channel.as_bytes()), keys.slot);
        assert_eq!(Keys::new("x").stream_channel("a b"), "xt:a%20b");
    }
}
