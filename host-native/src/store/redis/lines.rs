//! The groups that an instance has something to do with: what waits in each, and what is known of it. One task at a time works
//! for a group, so its commands keep their order; groups do not wait for each other.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hashbrown::{DefaultHashBuilder, HashMap};
use iii_stream_core::{GroupKey, GroupRef};
use parking_lot::Mutex;

use super::keys::{GroupKeys, Keys};
use super::known::Known;
use super::work::{Pending, Work};
use crate::store::{StoreError, StoreErrorCause};

/// The table is parted so that looking up does not wait. A power of two.
const SHARDS: usize = 64;

/// What a group takes here beside what is known of it, in bytes.
const LINE_BYTES: usize = 1_000;

/// Most reads that go out together.
const READS_MAX: usize = 64;

/// See the module.
pub(super) struct Lines {
    shards: Vec<Mutex<HashMap<GroupKey, Arc<Line>>>>,
    hasher: DefaultHashBuilder,
    /// Groups with nothing to do, the one that is so for longest first. Some may have something again.
    idle: Mutex<VecDeque<Arc<Line>>>,
    /// What is known of all groups takes so many bytes.
    bytes: AtomicUsize,
    bytes_max: usize,
    queue_commands_max: usize,
    queue_bytes_max: usize,
}

/// A group.
pub(super) struct Line {
    pub(super) key: GroupKey,
    pub(super) keys: GroupKeys,
    state: Mutex<LineState>,
}

#[derive(Default)]
struct LineState {
    waiting: VecDeque<Work>,
    waiting_bytes: usize,
    is_busy: bool,
    is_listed_idle: bool,
    /// No longer in the table: whoever still holds this must look the group up again.
    is_gone: bool,
    known: Known,
    /// What this group counts for in the bytes of all.
    counted_bytes: usize,
    notes: Notes,
}

/// What this instance has noted of the group in other places of Redis.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notes {
    /// When the group was written into the index.
    pub(super) indexed: Option<Instant>,
    /// When it was written among what is due, and for which time in Unix milliseconds.
    pub(super) due: Option<(Instant, u64)>,
}

/// What is next in a group.
pub(super) enum Turn {
    Writes(VecDeque<Pending>),
    Reads(Vec<futures_util::future::BoxFuture<'static, ()>>),
}

impl Line {
    pub(super) fn notes(&self) -> Notes {
        self.state.lock().notes
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut self.state.lock().notes);
    }
}

impl Lines {
    pub(super) fn new(bytes_max: usize, queue_commands_max: usize, queue_bytes_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            idle: Mutex::default(),
            bytes: AtomicUsize::new(0),
            bytes_max,
            queue_commands_max,
            queue_bytes_max,
        }
    }

    /// Queues a command. Gives the group if somebody must begin to work for it, or the command with the reason why it cannot wait.
    pub(super) fn push_write(
        &self,
        keys: &Keys,
        group: GroupRef<'_>,
        pending: Pending,
    ) -> Result<Option<Arc<Line>>, Box<(Pending, StoreError)>> {
        loop {
            let line = self.find_or_make(keys, group);
            let mut state = line.state.lock();
            if state.is_gone {
                continue;
            }
            let bytes = state.waiting_bytes + pending.bytes;
            if self.queue_commands_max <= state.waiting.len()
                || (self.queue_bytes_max < bytes && !state.waiting.is_empty())
            {
                let error = self.behind(&state);
                return Err(Box::new((pending, error)));
            }
            state.waiting_bytes = bytes;
            state.waiting.push_back(Work::Write(pending));
            let is_first = !std::mem::replace(&mut state.is_busy, true);
            drop(state);
            return Ok(is_first.then_some(line));
        }
    }

    /// Whether a read can wait in a group.
    pub(super) fn check_read(&self, group: GroupRef<'_>) -> Result<(), StoreError> {
        let Some(line) = self.shard(group).lock().get(&group).cloned() else {
            return Ok(());
        };
        let state = line.state.lock();
        if self.queue_commands_max <= state.waiting.len() {
            return Err(self.behind(&state));
        }
        Ok(())
    }

    fn behind(&self, state: &LineState) -> StoreError {
        StoreError::new(
            StoreErrorCause::Behind,
            format!(
                "{} calls of {} bytes wait for Redis in this group, which is the limit (queue_commands_max {}, queue_bytes_max {})",
                state.waiting.len(),
                state.waiting_bytes,
                self.queue_commands_max,
                self.queue_bytes_max
            ),
        )
    }

    /// Queues a read behind the commands that wait in its group. Gives it back if there are none.
    pub(super) fn push_read(
        &self,
        group: GroupRef<'_>,
        read: futures_util::future::BoxFuture<'static, ()>,
    ) -> Option<futures_util::future::BoxFuture<'static, ()>> {
        let Some(line) = self.shard(group).lock().get(&group).cloned() else {
            return Some(read);
        };
        let mut state = line.state.lock();
        if !state.is_busy {
            return Some(read);
        }
        state.waiting.push_back(Work::Read(read));
        None
    }

    /// What is next in a group; `None` if there is nothing, and then nobody works for it any more. `known` is what the one who
    /// worked for it knows.
    pub(super) fn next_turn(&self, line: &Arc<Line>, known: &mut Known) -> Option<Turn> {
        let mut state = line.state.lock();
        match state.waiting.front() {
            None => {
                state.is_busy = false;
                state.known = std::mem::take(known);
                let is_listed = std::mem::replace(&mut state.is_listed_idle, true);
                self.count(&mut state);
                drop(state);
                if !is_listed {
                    self.idle.lock().push_back(line.clone());
                }
                self.shrink();
                None
            }
            Some(Work::Read(_)) => {
                let mut reads = Vec::new();
                while reads.len() < READS_MAX
                    && matches!(state.waiting.front(), Some(Work::Read(_)))
                    && let Some(Work::Read(read)) = state.waiting.pop_front()
                {
                    reads.push(read);
                }
                Some(Turn::Reads(reads))
            }
            Some(Work::Write(_)) => {
                let mut writes = VecDeque::new();
                while writes.len() < super::deciding::BATCH_COMMANDS_MAX
                    && matches!(state.waiting.front(), Some(Work::Write(_)))
                    && let Some(Work::Write(write)) = state.waiting.pop_front()
                {
                    state.waiting_bytes -= write.bytes;
                    writes.push_back(write);
                }
                Some(Turn::Writes(writes))
            }
        }
    }

    /// What is known of a group, for whoever begins to work for it.
    pub(super) fn take_known(&self, line: &Line) -> Known {
        std::mem::take(&mut line.state.lock().known)
    }

    /// What is known of all groups, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn count(&self, state: &mut LineState) {
        let bytes = LINE_BYTES + state.known.bytes();
        if self.bytes_max / 4 < bytes {
            state.known.forget();
        }
        let bytes = LINE_BYTES + state.known.bytes();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_sub(state.counted_bytes, Ordering::Relaxed);
        state.counted_bytes = bytes;
    }

    /// Forgets groups that nobody had to do with for longest, until there is room again.
    fn shrink(&self) {
        while self.bytes_max < self.bytes() {
            let Some(line) = self.idle.lock().pop_front() else {
                return;
            };
            let mut shard = self.shard(line.key.as_ref()).lock();
            let mut state = line.state.lock();
            state.is_listed_idle = false;
            if state.is_busy {
                continue;
            }
            state.is_gone = true;
            self.bytes.fetch_sub(state.counted_bytes, Ordering::Relaxed);
            state.known = Known::default();
            drop(state);
            shard.remove(&line.key);
        }
    }

    fn shard(&self, group: GroupRef<'_>) -> &Mutex<HashMap<GroupKey, Arc<Line>>> {
        // The high bits: the tables inside the shards use the low ones.
        let hash = self.hasher.hash_one(group) >> 48;
        &self.shards[hash as usize % SHARDS]
    }

    fn find_or_make(&self, keys: &Keys, group: GroupRef<'_>) -> Arc<Line> {
        let mut shard = self.shard(group).lock();
        if let Some(line) = shard.get(&group) {
            return line.clone();
        }
        let line = Arc::new(Line {
            key: group.to_key(),
            keys: keys.group(group),
            state: Mutex::default(),
        });
        shard.insert(line.key.clone(), line.clone());
        line
    }
}
