//! What groups take in memory: counted with each use, and kept within the cache by letting the ones go that were not used for
//! longest. Forgets groups that hold nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use iii_stream_core::{Floor, GroupRef};

use super::Inner;
use super::entry::{Body, Entry, State};

/// How often it is looked at whether the cache is full.
pub(super) const TURN_INTERVAL: Duration = Duration::from_millis(100);

/// How far the cache is emptied once it is full, in percent.
const EMPTIED_TO: usize = 90;

/// Share of what all histories may take, in percent, beyond which those of quiet groups are halved.
const HISTORY_FILL_MAX: usize = 90;

/// A share may be off by one part in so many.
const SHARE_TOLERANCE: usize = 16;

/// What all groups take together, in bytes.
#[derive(Default)]
pub(super) struct Sum(AtomicUsize);

impl Sum {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Replaces a group's share. Small differences wait, so that groups seldom write to the same place.
    fn replace(&self, share: &mut usize, new: usize) {
        if 0 < new && new.abs_diff(*share) <= *share / SHARE_TOLERANCE {
            return;
        }
        let old = std::mem::replace(share, new);
        if old < new {
            self.0.fetch_add(new - old, Ordering::Relaxed);
        } else if new < old {
            self.0.fetch_sub(old - new, Ordering::Relaxed);
        }
    }
}

/// Below which times a group's timestamps may not fall, where the group itself does not know: for those that were forgotten, and
/// for a `sync` that nothing in the log tells of. In Unix milliseconds.
pub(super) struct FloorMs(AtomicU64);

impl FloorMs {
    /// The floor of a store that was last at `ms`.
    pub(super) fn new(ms: u64) -> Self {
        // The `sync` of a new group is one later than the floor it began with.
        Self(AtomicU64::new(ms + 1))
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes note of a time that was used, or of the latest timestamp of a group that is forgotten.
    pub(super) fn note(&self, ms: u64) {
        // Most are not later, and reading disturbs no other thread.
        if self.get() < ms {
            self.0.fetch_max(ms, Ordering::Relaxed);
        }
    }

    pub(super) fn of_new_group(&self) -> Floor {
        Floor::above(self.get())
    }

    /// No `sync` of a group with such a floor can have been later.
    pub(super) fn above(&self, floor: Floor) -> u64 {
        self.get().max(floor.event_ms + 1)
    }
}

impl Inner {
    /// Brings everything up to date that is counted of a hot group.
    pub(super) fn count(&self, entry: &Arc<Entry>, state: &mut State) {
        let Body::Hot(group) = &mut state.body else {
            return;
        };
        let history_bytes = group.history_bytes();
        self.history_bytes
            .replace(&mut state.history_bytes, history_bytes);
        let excess = self
            .history_bytes
            .get()
            .saturating_sub(self.history_bytes_max);
        if 0 < excess && 0 < history_bytes {
            // What is too much in all gives way here: the oldest changes of the group that wrote.
            group.trim_history(history_bytes.saturating_sub(excess));
            self.history_bytes
                .replace(&mut state.history_bytes, group.history_bytes());
        }
        self.memory_bytes
            .replace(&mut state.memory_bytes, group.memory_bytes());
        if group.is_forgettable() {
            self.idle.lock().insert(entry.key.clone());
        }
        let deadline_ms = group.next_expiry_ms();
        self.set_deadline(entry, state, deadline_ms);
    }

    /// Takes a group out of the counts, that is no longer in memory.
    pub(super) fn discount(&self, state: &mut State) {
        self.history_bytes.replace(&mut state.history_bytes, 0);
        self.memory_bytes.replace(&mut state.memory_bytes, 0);
    }

    pub(super) fn set_deadline(
        &self,
        entry: &Arc<Entry>,
        state: &mut State,
        deadline_ms: Option<u64>,
    ) {
        self.deadlines
            .replace(&entry.key, state.deadline_ms, deadline_ms);
        state.deadline_ms = deadline_ms;
    }

    /// Lets groups go until the cache is as empty as it should be. One thread at a time is enough.
    pub(super) fn evict(&self) {
        if self.memory_bytes.get() <= self.cache_bytes_max {
            return;
        }
        let Some(_evicting) = self.evicting.try_lock() else {
            return;
        };
        let goal = self.cache_bytes_max / 100 * EMPTIED_TO;
        let mut hot = Vec::new();
        for part in self.table.parts() {
            for entry in part {
                // One that somebody holds is in use.
                let takes_memory = entry
                    .state
                    .try_lock()
                    .is_some_and(|state| 0 < state.memory_bytes);
                if takes_memory {
                    hot.push((entry.used.load(Ordering::Relaxed), entry));
                }
            }
        }
        hot.sort_unstable_by_key(|(used, _)| *used);
        for (_, entry) in hot {
            if self.memory_bytes.get() <= goal {
                break;
            }
            self.cool(&entry);
        }
        let is_vain = self.cache_bytes_max < self.memory_bytes.get();
        self.eviction_is_vain.store(is_vain, Ordering::Relaxed);
    }

    /// The same after a load, unless it was of no use lately: it looks at all groups.
    pub(super) fn evict_after_load(&self) {
        if !self.eviction_is_vain.load(Ordering::Relaxed) {
            self.evict();
        }
    }

    /// Lets a group go, if everything of it is on the disk.
    pub(super) fn cool(&self, entry: &Entry) {
        let mut state = entry.state.lock();
        let durable_lsn = self.queue.durable_lsn();
        let can_go = matches!(&state.body, Body::Hot(group) if !group.is_forgettable());
        if can_go && state.end_lsn <= durable_lsn {
            state.body = Body::Cold;
            self.discount(&mut state);
            self.evictions.inc();
        }
    }

    /// Forgets the groups that hold nothing. A group that `is_watched` must keep its history: its subscribers
    /// count on it. They register before they read their snapshot, so either they are seen here, or they find the
    /// entry forgotten and look the group up again.
    pub(super) fn forget_idle(self: &Arc<Self>, is_watched: &dyn Fn(GroupRef<'_>) -> bool) {
        let idle = std::mem::take(&mut *self.idle.lock());
        for key in idle {
            let Some(entry) = self.table.find(key.as_ref()) else {
                continue;
            };
            let mut state = entry.state.lock();
            let is_safe = state.end_lsn <= self.queue.durable_lsn();
            let Body::Hot(group) = &state.body else {
                if let Body::Cold = state.body {
                    drop(state);
                    // It is looked at again when it is hot.
                    self.with_group(key.as_ref(), |inner, entry, state| {
                        inner.count(entry, state.ok()?);
                        None
                    });
                }
                continue;
            };
            if !group.is_forgettable() {
                continue;
            }
            if !is_safe || is_watched(key.as_ref()) {
                self.idle.lock().insert(key);
                continue;
            }
            self.floor.note(group.floor().latest_ms());
            self.forgotten.fetch_add(1, Ordering::AcqRel);
            state.is_forgotten = true;
            state.body = Body::Cold;
            self.discount(&mut state);
            self.set_deadline(&entry, &mut state, None);
            if !state.is_new() {
                self.gone.lock().push(entry.clone());
            }
            drop(state);
            self.table.remove(key.as_ref());
        }
    }

    /// Halves the histories of groups that were not written for longest, until there is room for new changes again.
    pub(super) fn sweep_histories(&self) {
        let is_filled =
            || self.history_bytes_max / 100 * HISTORY_FILL_MAX < self.history_bytes.get();
        if !is_filled() {
            return;
        }
        let mut groups = Vec::new();
        for part in self.table.parts() {
            for entry in part {
                let state = entry.state.lock();
                if 0 < state.history_bytes {
                    let written_ms = state.written_ms;
                    drop(state);
                    groups.push((written_ms, entry));
                }
            }
        }
        groups.sort_unstable_by_key(|(written_ms, _)| *written_ms);
        for (_, entry) in groups {
            if !is_filled() {
                break;
            }
            let mut state = entry.state.lock();
            let half = state.history_bytes / 2;
            if let Some(group) = state.hot() {
                group.trim_history(half);
            }
            self.count(&entry, &mut state);
        }
    }
}
