//! When a change happened, and as the how-manieth: the rules of sequence and timestamp. Time comes as an argument.
//!
//! Published clients drop an event whose timestamp is not later than the last one they took for the same item, and
//! a `sync` that is older than an event (subscriber socket, section 7). So timestamps are logical: they follow the
//! clock where they can and run ahead of it where they must. Per item they strictly increase; per group they never
//! decrease; a `sync` is later than every event before it and earlier than every one after it. They are not strict
//! per group, or at 200,000 changes per second they would run away from the clock.

use alloc::sync::Arc;

use crate::decide::{Draft, Kind};
use crate::mutation::Echo;
use crate::text::Json;

/// Something that happened in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Counts the group's changes: 1, 2, 3 …
    pub seq: u64,
    /// Unix milliseconds, by the rules of this module.
    pub timestamp: u64,
    /// The item; only events can be without.
    pub item: Option<Arc<str>>,
    /// What happened to it.
    pub kind: Kind,
    /// The new value; for deletes the removed one, for events their data. `None` only for an update by operations whose
    /// value nobody needed as text.
    pub value: Option<Json>,
    /// The operations that lead from the value at `base` to the new one.
    pub ops: Option<Json>,
    /// The item's sequence before, where it existed.
    pub base: Option<u64>,
    /// The mutation it came from.
    pub mutation: Option<Echo>,
}

/// When something happened to an item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) seq: u64,
    pub(crate) timestamp: u64,
}

impl Change {
    pub(crate) fn moment(&self) -> Moment {
        Moment {
            seq: self.seq,
            timestamp: self.timestamp,
        }
    }
}

/// The timestamps that a group's next ones must not fall below, in Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// The latest event of the group. No later event is earlier.
    pub event_ms: u64,
    /// The latest event of an item that is not there any more, or never was. A created item starts later.
    pub gone_ms: u64,
    /// The latest `sync`. Every later event is later.
    pub sync_ms: u64,
}

impl Floor {
    /// A floor that is above everything up to `ms`.
    pub fn above(ms: u64) -> Self {
        Self {
            event_ms: ms,
            gone_ms: ms,
            sync_ms: ms,
        }
    }

    /// The latest timestamp that was given out.
    pub fn latest_ms(&self) -> u64 {
        self.event_ms.max(self.sync_ms)
    }

    /// The timestamp of a `sync` that is sent now. Those between two events share one.
    pub fn sync(&mut self, now_ms: u64) -> u64 {
        if self.sync_ms <= self.event_ms {
            self.sync_ms = now_ms.max(self.event_ms + 1);
        }
        self.sync_ms
    }

    /// The timestamp of an event that happens now. `item_ms` is the item's latest, for an item that is there.
    fn event(&mut self, now_ms: u64, item_ms: Option<u64>) -> u64 {
        let after_item = item_ms.unwrap_or(self.gone_ms) + 1;
        self.event_at_least(now_ms.max(after_item))
    }

    /// The same for an event that belongs to no item.
    fn event_at_least(&mut self, now_ms: u64) -> u64 {
        self.event_ms = now_ms.max(self.event_ms).max(self.sync_ms + 1);
        self.event_ms
    }
}

/// Gives a draft its sequence and timestamp. `item_ms` is the latest timestamp of its item, if that is there.
pub fn stamp(
    draft: Draft,
    floor: &mut Floor,
    item_ms: Option<u64>,
    seq: u64,
    now_ms: u64,
) -> Change {
    let Draft {
        item,
        kind,
        value,
        ops,
        base,
        ttl: _,
        mutation,
    } = draft;
    let timestamp = match item {
        Some(_) => floor.event(now_ms, item_ms),
        None => floor.event_at_least(now_ms),
    };
    let stays = match kind {
        Kind::Create | Kind::Update => true,
        Kind::Delete => false,
        Kind::Event { .. } => item_ms.is_some(),
    };
    if item.is_some() && !stays {
        floor.gone_ms = timestamp;
    }
    Change {
        seq,
        timestamp,
        item,
        kind,
        value,
        ops,
        base,
        mutation,
    }
}
