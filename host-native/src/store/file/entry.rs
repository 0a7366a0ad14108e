//! One group of the durable store: hot, as the core's group in memory, or cold, as the places on the disk that it can be made of.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iii_stream_core::{Group, GroupKey};
use parking_lot::Mutex;

use super::Inner;
use super::extent::Extent;
use super::log::RecordAt;
use crate::store::StoreError;

/// What is done with a group once it is hot; with an error where it cannot be loaded.
pub(super) type Job =
    Box<dyn FnOnce(&Arc<Inner>, &Arc<Entry>, Result<&mut State, StoreError>) -> After + Send>;

/// What is to be done once the group is let go.
pub(super) type After = Option<Box<dyn FnOnce()>>;

/// A group and what is known of it. Never leaves memory while the group exists.
pub(super) struct Entry {
    pub(super) key: GroupKey,
    /// When the group was last used: see [`super::cache`].
    pub(super) used: AtomicU64,
    pub(super) state: Mutex<State>,
}

impl Entry {
    pub(super) fn new(key: GroupKey, state: State) -> Self {
        Self {
            key,
            used: AtomicU64::default(),
            state: Mutex::new(state),
        }
    }

    /// Takes note that the group is used now.
    pub(super) fn touch(&self, turn: u64) {
        self.used.store(turn, Ordering::Relaxed);
    }
}

/// What is known of a group, and the group itself if it is hot.
pub(super) struct State {
    pub(super) body: Body,
    /// The name of its history.
    pub(super) epoch: Arc<str>,
    /// Where it is in the stream's file.
    pub(super) kept: Kept,
    /// When an item may go of what is kept there; in Unix milliseconds.
    pub(super) kept_expiry_ms: Option<u64>,
    /// Its records in the log that are not folded into that, in order.
    pub(super) pending: VecDeque<RecordAt>,
    /// What those take, in bytes.
    pub(super) pending_bytes: u64,
    /// The log up to here has all that the group has in memory.
    pub(super) end_lsn: u64,
    /// This group's entry among the deadlines.
    pub(super) deadline_ms: Option<u64>,
    /// Whether the history in memory reaches as far back as the one on the disk.
    pub(super) has_whole_history: bool,
    /// This group's share of what all histories take, in bytes.
    pub(super) history_bytes: usize,
    /// This group's share of the cache, in bytes.
    pub(super) memory_bytes: usize,
    /// When it was last written, in Unix milliseconds.
    pub(super) written_ms: u64,
    /// No longer in the table: whoever still holds this entry must look the group up again.
    pub(super) is_forgotten: bool,
}

/// See [`State::body`].
pub(super) enum Body {
    Hot(Box<Group>),
    Cold,
    /// On its way into memory, with what is to be done then.
    Loading(Vec<Job>),
}

/// A group's extents in the stream's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// The group as a whole.
    pub(super) image: Option<Extent>,
    /// The steps after that, in order.
    pub(super) deltas: Vec<Extent>,
}

impl Kept {
    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> {
        self.image.iter().chain(&self.deltas).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.image.is_none() && self.deltas.is_empty()
    }

    pub(super) fn deltas_bytes(&self) -> u64 {
        self.deltas.iter().map(|extent| extent.bytes).sum()
    }
}

impl State {
    pub(super) fn new(epoch: Arc<str>, body: Body) -> Self {
        Self {
            body,
            epoch,
            kept: Kept::default(),
            kept_expiry_ms: None,
            pending: VecDeque::new(),
            pending_bytes: 0,
            end_lsn: 0,
            deadline_ms: None,
            has_whole_history: true,
            history_bytes: 0,
            memory_bytes: 0,
            written_ms: 0,
            is_forgotten: false,
        }
    }

    /// Whether nothing of the group is on its way to the disk or there.
    pub(super) fn is_new(&self) -> bool {
        self.kept.is_empty() && self.pending.is_empty()
    }

    pub(super) fn push_pending(&mut self, at: RecordAt) {
        self.pending_bytes += u64::from(at.len);
        self.end_lsn = at.end_lsn();
        self.pending.push_back(at);
    }

    /// Those of its records that begin before `lsn`.
    pub(super) fn pending_before(&self, lsn: u64) -> impl Iterator<Item = RecordAt> {
        let pending = self.pending.iter().copied();
        pending.take_while(move |at| at.lsn < lsn)
    }

    /// Drops the records before `lsn`, which are kept elsewhere now.
    pub(super) fn drop_pending_before(&mut self, lsn: u64) {
        while let Some(at) = self.pending.pop_front_if(|at| at.lsn < lsn) {
            self.pending_bytes -= u64::from(at.len);
        }
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
    }

    /// Drops the records from `lsn` on, which did not reach the disk.
    pub(super) fn drop_pending_from(&mut self, lsn: u64) {
        while let Some(at) = self.pending.pop_back_if(|at| lsn <= at.lsn) {
            self.pending_bytes -= u64::from(at.len);
        }
        self.end_lsn = self.end_lsn.min(lsn);
    }

    pub(super) fn hot(&mut self) -> Option<&mut Group> {
        match &mut self.body {
            Body::Hot(group) => Some(group),
            Body::Cold | Body::Loading(_) => None,
        }
    }
}
