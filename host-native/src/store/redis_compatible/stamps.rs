//! Timestamps of one group whose changes come from writers with clocks of their own. Time comes as an argument.
//!
//! A frame keeps its own timestamp unless published clients would drop it for that: they drop what is not later than the
//! last that they saw of its item, and a `sync` that is older than an event (subscriber socket, section 7). So a group's
//! events never go back, an item's always go on, and a `sync` is later than every event before it and earlier than every
//! one after it. Only the items of the latest millisecond are remembered: nothing else can collide.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashSet};

/// Items of one millisecond that are remembered; with more, time goes on by one.
const ITEMS_MAX: usize = 1_024;

/// How far a frame may be ahead of our clock, in milliseconds; what is further is taken as now. One frame that says the year
/// 3000 would otherwise make clients deaf.
const AHEAD_MAX_MS: u64 = 3_600_000;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Stamps {
    /// The latest event.
    event_ms: u64,
    /// The latest `sync`.
    sync_ms: u64,
    /// Hashes of the items that have an event at `event_ms`.
    items: HashSet<u64>,
    hasher: DefaultHashBuilder,
}

impl Stamps {
    /// Everything that follows is later than `ms`.
    pub(super) fn above(ms: u64) -> Self {
        Self {
            event_ms: ms,
            sync_ms: ms,
            ..Self::default()
        }
    }

    /// The latest timestamp that was given out.
    pub(super) fn latest_ms(&self) -> u64 {
        self.event_ms.max(self.sync_ms)
    }

    /// The timestamp of a frame that says `own_ms` and is the next of the group.
    pub(super) fn event(&mut self, own_ms: u64, item: Option<&str>, now_ms: u64) -> u64 {
        let own_ms = if now_ms + AHEAD_MAX_MS < own_ms {
            now_ms
        } else {
            own_ms
        };
        let item = item.map(|item| self.hasher.hash_one(item));
        let mut event_ms = own_ms.max(self.event_ms).max(self.sync_ms + 1);
        let is_taken = |item| self.items.contains(&item) || self.items.len() == ITEMS_MAX;
        if event_ms == self.event_ms && item.is_some_and(is_taken) {
            event_ms += 1;
        }
        if self.event_ms < event_ms {
            self.items.clear();
            self.event_ms = event_ms;
        }
        self.items.extend(item);
        event_ms
    }

    /// The timestamp of a `sync` that takes its place now. Those between two events share one.
    pub(super) fn sync(&mut self, now_ms: u64) -> u64 {
        if self.sync_ms <= self.event_ms {
            self.sync_ms = now_ms.max(self.event_ms + 1);
        }
        self.sync_ms
    }

    /// Takes over what others have given out since.
    pub(super) fn catch_up(&mut self, other: &Self) {
        if self.event_ms < other.event_ms {
            self.event_ms = other.event_ms;
            self.items.clear();
        }
        if self.event_ms == other.event_ms {
            // With one hasher for both: see `clone`.
            self.items.extend(&other.items);
        }
        self.sync_ms = self.sync_ms.max(other.sync_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_own_time_where_clients_take_it() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.event(100, Some("a"), 100), 100);
        assert_eq!(stamps.event(100, Some("b"), 100), 100, "another item");
        assert_eq!(stamps.event(100, Some("a"), 100), 101, "the same item");
        assert_eq!(stamps.event(100, Some("b"), 100), 101, "never back");
        assert_eq!(stamps.event(100, None, 100), 101);
        assert_eq!(stamps.event(150, Some("a"), 100), 150);
    }

    #[test]
    fn a_sync_stands_between_the_events_before_and_after_it() {
        let mut stamps = Stamps::default();
        stamps.event(200, Some("a"), 100);
        assert_eq!(stamps.sync(100), 201);
        assert_eq!(stamps.sync(300), 201, "nothing happened in between");
        assert_eq!(stamps.event(100, Some("a"), 100), 202);
        assert_eq!(stamps.sync(300), 300);
        let stamps = Stamps::above(400);
        assert_eq!(stamps.clone().event(1, None, 1), 401);
        assert_eq!(stamps.latest_ms(), 400);
    }

    #[test]
    fn a_frame_from_the_far_future_is_of_now() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.event(u64::MAX, Some("a"), 100), 100);
        assert_eq!(
            stamps.event(100 + AHEAD_MAX_MS, Some("a"), 100),
            100 + AHEAD_MAX_MS
        );
    }

    #[test]
    fn the_table_of_items_is_bounded() {
        let mut stamps = Stamps::default();
        let times: Vec<_> = (0..ITEMS_MAX + 1)
            .map(|item| stamps.event(100, Some(&item.to_string()), 100))
            .collect();
        assert_eq!(
            (times[0], times[ITEMS_MAX - 1], times[ITEMS_MAX]),
            (100, 100, 101)
        );
    }

    #[test]
    fn a_copy_catches_up() {
        let mut heard = Stamps::default();
        let mut planned = heard.clone();
        heard.event(100, Some("a"), 100);
        planned.catch_up(&heard);
        assert_eq!(planned.event(100, Some("a"), 100), 101);
        planned.catch_up(&heard);
        assert_eq!(planned.event(100, Some("a"), 100), 102, "its own stays");
    }
}
