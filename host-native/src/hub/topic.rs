//! The connections that subscribe to one group or to items of it, and the walk that brings them its changes.
//!
//! Members stand in chunks with a lock each, so that a walk over a large crowd holds up nobody who joins or leaves, and lets
//! other tasks run between two chunks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use iii_stream_core::{Change, GroupKey, Position, View};
use parking_lot::Mutex;

use super::ConnectionId;
use super::batch::Batch;
use super::dialect::Dialect;
use super::member::{Behind, Context, Joined, Member, Subscribing, Tally, ToldUpTo};
use crate::feed::Interest;
use crate::metrics::Metrics;
use crate::socket::{Frame, Outbox};

/// Members of one chunk, which are served under one lock.
const CHUNK_MEMBERS_MAX: usize = 64;

/// Chunks that a walk serves before others get their turn. Measured: letting others in after every chunk costs a tenth of the
/// throughput, because the other threads wake up for each turn.
const WALK_CHUNKS: usize = 4;

/// Bytes that a walk hands to sockets before others get their turn, even within fewer chunks.
const WALK_BYTES: u64 = 1_024 * 1_024;

/// See the module.
pub(super) struct Topic {
    pub(super) key: GroupKey,
    state: Mutex<State>,
    /// Read while a chunk is held, so nothing else is locked while this is.
    history: Mutex<History>,
    /// Members that take values; the others are content with operations.
    values_wanted: AtomicUsize,
    held_max: usize,
    metrics: Arc<Metrics>,
}

struct State {
    chunks: Vec<Arc<Chunk>>,
    /// Chunks that have room, some of them perhaps no more.
    with_room: Vec<usize>,
    members: usize,
    /// No longer in the table: whoever still holds this topic must look it up again.
    is_removed: bool,
}

/// The history that the members are told of.
#[derive(Clone)]
struct History {
    /// Its name; empty before anybody knows it.
    epoch: Arc<str>,
    /// How often it has begun anew since the first member came.
    restarts: u32,
}

struct Chunk {
    index: usize,
    members: Mutex<Vec<Member>>,
}

/// A connection's place in a group.
pub struct Seat {
    pub(super) topic: Arc<Topic>,
    chunk: Arc<Chunk>,
    connection: ConnectionId,
    takes_values: bool,
}

impl Topic {
    pub(super) fn new(key: GroupKey, held_max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            key,
            state: Mutex::new(State {
                chunks: Vec::with_capacity(1),
                with_room: Vec::new(),
                members: 0,
                is_removed: false,
            }),
            history: Mutex::new(History {
                epoch: "".into(),
                restarts: 0,
            }),
            values_wanted: AtomicUsize::new(0),
            held_max,
            metrics,
        }
    }

    pub(super) fn interest(&self) -> Interest {
        if 0 < self.values_wanted.load(Ordering::Acquire) {
            Interest::Values
        } else {
            Interest::Operations
        }
    }

    /// Takes a connection in; `None` when the topic is no longer in the table.
    pub(super) fn enter(
        self: &Arc<Self>,
        connection: ConnectionId,
        outbox: &Arc<Outbox>,
        dialect: Dialect,
        view: &View,
    ) -> Option<Seat> {
        let mut state = self.state.lock();
        if state.is_removed {
            return None;
        }
        state.members += 1;
        if !dialect.deltas {
            self.values_wanted.fetch_add(1, Ordering::AcqRel);
        }
        let chunk = state.chunk_with_room();
        let mut members = chunk.members.lock();
        let restarts = self.history().restarts;
        let member = Member::new(connection, outbox.clone(), dialect, view.clone(), restarts);
        members.push(member);
        drop(members);
        Some(Seat {
            topic: self.clone(),
            chunk,
            connection,
            takes_values: !dialect.deltas,
        })
    }

    /// Lets a connection go. Whether the topic is of no use any more; it is marked as removed then.
    pub(super) fn exit(&self, seat: &Seat) -> bool {
        let mut state = self.state.lock();
        let mut members = seat.chunk.members.lock();
        let Some(place) = members
            .iter()
            .position(|member| member.connection == seat.connection)
        else {
            return false;
        };
        if members.len() == CHUNK_MEMBERS_MAX {
            state.with_room.push(seat.chunk.index);
        }
        members.swap_remove(place);
        drop(members);
        if seat.takes_values {
            self.values_wanted.fetch_sub(1, Ordering::AcqRel);
        }
        state.members -= 1;
        state.is_removed = state.members == 0;
        state.is_removed
    }

    /// Brings the next changes to all members.
    pub(super) async fn deliver(&self, changes: &[Arc<Change>]) {
        let history = self.history();
        let batch = Batch::new(self.key.as_ref(), &history.epoch, changes);
        let tally = Tally::default();
        let (mut index, mut bytes_before_turn) = (0, 0);
        while let Some(chunk) = self.chunk(index) {
            let bytes = tally.bytes.get();
            if 0 < index
                && (index.is_multiple_of(WALK_CHUNKS) || WALK_BYTES < bytes - bytes_before_turn)
            {
                bytes_before_turn = bytes;
                tokio::task::yield_now().await;
            }
            for member in chunk.members.lock().iter_mut() {
                member.take(&batch, self.context(&history, &tally));
            }
            index += 1;
        }
        self.count(&tally);
        self.metrics.fanout_messages.observe(tally.messages.get());
    }

    fn count(&self, tally: &Tally) {
        self.metrics.delivered_messages.inc_by(tally.messages.get());
        self.metrics.delivered_bytes.inc_by(tally.bytes.get());
    }

    /// Tells all members that changes were dropped.
    pub(super) fn missed(&self, events: bool) {
        let history = self.history();
        self.tell(&history, |member, context| {
            member.take_missed(events, context);
        });
    }

    /// Tells all members that the group's history begins anew and is here now.
    pub(super) fn restarted(&self, at: &Position) {
        let (old, restarts) = {
            let mut history = self.history.lock();
            let new = History {
                epoch: at.epoch.clone(),
                restarts: history.restarts.wrapping_add(1),
            };
            let restarts = new.restarts;
            (std::mem::replace(&mut *history, new), restarts)
        };
        let kept_seq = (old.epoch == at.epoch).then_some(at.seq);
        self.tell(&old, |member, context| {
            member.restart(restarts, kept_seq, context);
        });
    }

    fn tell(&self, history: &History, mut tell: impl FnMut(&mut Member, Context<'_>)) {
        let tally = Tally::default();
        let mut index = 0;
        while let Some(chunk) = self.chunk(index) {
            for member in chunk.members.lock().iter_mut() {
                tell(member, self.context(history, &tally));
            }
            index += 1;
        }
        self.count(&tally);
    }

    fn chunk(&self, index: usize) -> Option<Arc<Chunk>> {
        self.state.lock().chunks.get(index).cloned()
    }

    /// Whether what was read is of the history that the members are told of. The first one names it.
    fn is_of(&self, epoch: &Arc<str>) -> bool {
        let mut history = self.history.lock();
        if history.epoch.is_empty() {
            history.epoch = epoch.clone();
        }
        history.epoch == *epoch
    }

    fn history(&self) -> History {
        self.history.lock().clone()
    }

    fn context<'a>(&'a self, history: &'a History, tally: &'a Tally) -> Context<'a> {
        Context {
            group: self.key.as_ref(),
            epoch: &history.epoch,
            restarts: history.restarts,
            held_max: self.held_max,
            metrics: &self.metrics,
            tally,
        }
    }
}

impl State {
    fn chunk_with_room(&mut self) -> Arc<Chunk> {
        let has_room = |chunk: &&Arc<Chunk>| chunk.members.lock().len() < CHUNK_MEMBERS_MAX;
        if let Some(last) = self.chunks.last().filter(has_room) {
            return last.clone();
        }
        while let Some(index) = self.with_room.pop() {
            if let Some(chunk) = self.chunks.get(index).filter(has_room) {
                return chunk.clone();
            }
        }
        let chunk = Arc::new(Chunk {
            index: self.chunks.len(),
            members: Mutex::new(Vec::with_capacity(1)),
        });
        self.chunks.push(chunk.clone());
        chunk
    }
}

impl Seat {
    /// Begins to hold changes back for this connection, because one of its subscriptions begins.
    pub fn hold(&self) {
        self.change(|member, _| member.hold());
    }

    /// Ends a hold.
    pub fn release(&self) {
        self.change(Member::release);
    }

    /// Begins a subscription with a snapshot or resume of one moment: what was held back up to `seq`, then `frames`, then what
    /// comes. The hold goes on until [`Seat::release`].
    pub fn begin(
        &self,
        join: &Subscribing,
        epoch: &Arc<str>,
        seq: u64,
        frames: &[Frame],
    ) -> Joined {
        self.change(|member, context| {
            if !self.topic.is_of(epoch) {
                return Joined::SnapshotTooOld;
            }
            let context = Context { epoch, ..context };
            member.begin(join, seq, frames, context)
        })
        .unwrap_or(Joined::Gone)
    }

    /// Tells what is held back for this connection up to `seq`.
    pub fn tell_up_to(&self, subscription_id: &str, seq: u64) -> ToldUpTo {
        let told = |member: &mut Member, context: Context<'_>| {
            member.tell_up_to(subscription_id, seq, context)
        };
        self.change(told).unwrap_or(ToldUpTo::Never)
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, subscription_id: &str) {
        self.change(|member, _| member.unsubscribe(subscription_id));
    }

    /// The last change that a subscription of this connection was told of, or that did not concern it.
    pub fn position(&self, subscription_id: &str) -> u64 {
        self.change(|member, _| member.position(subscription_id))
            .unwrap_or(0)
    }

    /// The subscriptions of this connection that changes have passed by or whose history has ended; asked once, by whoever makes
    /// good for it. A hold has begun for each, which ends with [`Seat::release`].
    pub fn take_lag(&self) -> Vec<Behind> {
        self.change(Member::take_lag).unwrap_or_default()
    }

    /// A subscription that changes have passed by or whose history has ended, if it has not begun anew.
    pub fn behind(&self, subscription_id: &str) -> Option<Behind> {
        self.change(|member, context| member.behind(subscription_id, context))
            .flatten()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Member, Context<'_>) -> T) -> Option<T> {
        let mut members = self.chunk.members.lock();
        let history = self.topic.history();
        let member = members
            .iter_mut()
            .find(|member| member.connection == self.connection)?;
        let tally = Tally::default();
        let changed = change(member, self.topic.context(&history, &tally));
        self.topic.count(&tally);
        Some(changed)
    }
}
