//! The groups that an instance has something to do with: what waits in each, and what is known of it. One task at a time works
//! for a group, so its commands and reads keep their order; groups do not wait for each other.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hashbrown::{DefaultHashBuilder, HashMap};
use iii_stream_core::{GroupKey, GroupRef};
use parking_lot::Mutex;

use super::RedisStoreOptions;
use super::keys::{GroupKeys, Keys};
use super::known::Known;
use super::work::{Pending, Read, Work};
use crate::store::queue_room::QueueRoom;
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
    /// For the commands of all groups.
    room: Arc<QueueRoom>,
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
    /// Commands among them, and their bytes.
    waiting_writes: usize,
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
    Reads(Vec<Read>),
}

impl LineState {
    /// Whether nothing is known or noted of the group, and nothing counted for it.
    fn is_worth_nothing(&self) -> bool {
        !self.is_listed_idle
            && self.known.is_empty()
            && self.notes.indexed.is_none()
            && self.notes.due.is_none()
    }
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
    pub(super) fn new(options: &RedisStoreOptions) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            idle: Mutex::default(),
            bytes: AtomicUsize::new(0),
            bytes_max: options.cache_bytes_max,
            queue_commands_max: options.queue_commands_max,
            queue_bytes_max: options.queue_bytes_max,
            room: QueueRoom::new(options.queue_total_bytes_max),
        }
    }

    /// Queues a command. Gives the group if somebody must begin to work for it, or the command with the reason why it cannot wait.
    pub(super) fn push_write(
        &self,
        keys: &Keys,
        group: GroupRef<'_>,
        mut pending: Pending,
    ) -> Result<Option<Arc<Line>>, Box<(Pending, StoreError)>> {
        loop {
            let line = self.find_or_make(keys, group);
            let mut state = line.state.lock();
            if state.is_gone {
                continue;
            }
            let bytes = state.waiting_bytes + pending.bytes;
            if self.queue_commands_max <= state.waiting_writes
                || (self.queue_bytes_max < bytes && 0 < state.waiting_writes)
            {
                let error = self.behind(&state);
                return Err(Box::new((pending, error)));
            }
            match self.room.take(pending.bytes) {
                Ok(share) => pending.share = Some(share),
                Err(error) => return Err(Box::new((pending, error))),
            }
            state.waiting_bytes = bytes;
            state.waiting_writes += 1;
            state.waiting.push_back(Work::Write(pending));
            let is_first = !std::mem::replace(&mut state.is_busy, true);
            drop(state);
            return Ok(is_first.then_some(line));
        }
    }

    fn behind(&self, state: &LineState) -> StoreError {
        StoreError::new(
            StoreErrorCause::Behind,
            format!(
                "{} calls of {} bytes wait for Redis in this group, which is the limit (queue_commands_max {}, queue_bytes_max {})",
                state.waiting_writes,
                state.waiting_bytes,
                self.queue_commands_max,
                self.queue_bytes_max
            ),
        )
    }

    /// Whether a read can wait in a group: not where too many commands do. There is no other bound on reads, because each is of a
    /// call or a subscription, and those are bounded.
    pub(super) fn check_read(&self, group: GroupRef<'_>) -> Result<(), StoreError> {
        let Some(line) = self.shard(group).lock().get(&group).cloned() else {
            return Ok(());
        };
        let state = line.state.lock();
        if self.queue_commands_max <= state.waiting_writes {
            return Err(self.behind(&state));
        }
        Ok(())
    }

    /// Queues a read, also where nothing waits: what comes after it must not overtake it. Gives the group if somebody must begin
    /// to work for it.
    pub(super) fn push_read(
        &self,
        keys: &Keys,
        group: GroupRef<'_>,
        read: Read,
    ) -> Option<Arc<Line>> {
        loop {
            let line = self.find_or_make(keys, group);
            let mut state = line.state.lock();
            if state.is_gone {
                continue;
            }
            state.waiting.push_back(Work::Read(read));
            let is_first = !std::mem::replace(&mut state.is_busy, true);
            drop(state);
            return is_first.then_some(line);
        }
    }

    /// Queues a read where something waits or is on its way in its group. Gives it back if nothing is.
    pub(super) fn push_behind(&self, group: GroupRef<'_>, read: Read) -> Option<Read> {
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
                if state.is_worth_nothing() {
                    drop(state);
                    self.remove_if_idle(line);
                    return None;
                }
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
                    state.waiting_writes -= 1;
                    writes.push_back(write);
                }
                Some(Turn::Writes(writes))
            }
        }
    }

    /// Takes a group out of the table that was only read, unless it has something to do again.
    fn remove_if_idle(&self, line: &Line) {
        let mut shard = self.shard(line.key.as_ref()).lock();
        let mut state = line.state.lock();
        if !state.is_busy && state.is_worth_nothing() {
            state.is_gone = true;
            drop(state);
            shard.remove(&line.key);
        }
    }

    /// What is known of a group, for whoever begins to work for it.
    pub(super) fn take_known(&self, line: &Line) -> Known {
        std::mem::take(&mut line.state.lock().known)
    }

    /// What waits in all groups, or is on its way, in bytes.
    pub(super) fn queued_bytes(&self) -> usize {
        self.room.bytes()
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
