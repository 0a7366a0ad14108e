//! Carries the changes of each group, in order, from the store to whoever follows them. Knows neither the store nor the
//! followers.
//!
//! The writer of a change only queues it; a task of its own delivers everything that is pending in a group, so the writer never
//! pays for the crowd. For each follower and group there is at most one such task at a time, which keeps the order; and no
//! follower waits for another.

use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};

use futures_util::future::BoxFuture;
use hashbrown::{DefaultHashBuilder, HashMap};
use iii_stream_core::{Change, Demand, GroupKey, GroupRef, Json, Kind, Position};
use parking_lot::Mutex;

use crate::metrics::Metrics;
use crate::socket::at_end_of_turn;
use crate::store::{ChangeSink, RelaySink};

/// What somebody needs of the changes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interest {
    /// Nothing.
    None,
    /// What was done is enough; the value after it need not be there.
    Operations,
    /// The value after each change.
    Values,
}

/// Follows the changes of groups. Called for one group by one task at a time.
pub trait Follower: Send + Sync {
    /// What is needed of this group's changes now. Asked while the group is held, so it must be quick.
    fn interest(&self, group: GroupRef<'_>) -> Interest;

    /// Takes the next changes of a group. A large crowd is served in parts, between which others get their turn.
    fn deliver<'a>(&'a self, group: &'a GroupKey, changes: &'a [Arc<Change>]) -> BoxFuture<'a, ()>;

    /// Learns that changes of a group were dropped, because too many were waiting; `events` says whether there were custom
    /// events among them, which no later state tells of.
    fn missed(&self, group: &GroupKey, events: bool);

    /// Learns that a group's history begins anew, or goes on earlier than it was, and is at `at` now. Changes that come are
    /// later than that, and their sequences may be lower than those before.
    fn restarted(&self, group: &GroupKey, at: &Position);
}

/// Queues of groups with changes to deliver are parted so that groups do not wait for each other. A power of two.
const SHARDS: usize = 64;

/// New beginnings of a group's history that wait, each with the changes before it. Beyond it those are dropped.
const RUNS_MAX: usize = 8;

/// See the module.
pub struct Feed {
    /// Set once at start: followers need the store, and the store needs this feed.
    lines: OnceLock<Vec<Arc<Line>>>,
    runtime: tokio::runtime::Handle,
    pending_max: usize,
    /// Whether changes are counted here; not where another feed carries them too.
    is_counted: bool,
    metrics: Arc<Metrics>,
}

/// The way to one follower.
struct Line {
    follower: Arc<dyn Follower>,
    /// Groups that a task is delivering for, with what is still to deliver.
    shards: Vec<Mutex<HashMap<GroupKey, Pending>>>,
    hasher: DefaultHashBuilder,
    /// Most changes of one group that wait. Beyond it they are dropped, and the follower is told.
    pending_max: usize,
    metrics: Arc<Metrics>,
}

/// What is to be delivered in a group, in order.
#[derive(Default)]
struct Pending {
    /// All but the last end with a new beginning of the history: usually there is one.
    runs: Vec<Run>,
    /// Changes in all of them.
    changes: usize,
}

/// Changes of one history, with what was dropped and began anew before them.
#[derive(Default)]
struct Run {
    missed: Option<Missed>,
    restarted: Option<Position>,
    changes: Vec<Arc<Change>>,
}

/// What was dropped.
#[derive(Clone, Copy, Default)]
struct Missed {
    events: bool,
}

impl Feed {
    /// A feed whose deliveries run on `runtime`. Nothing is delivered before [`Feed::start`]. Of feeds that carry the same changes
    /// one `is_counted`.
    pub fn new(
        runtime: tokio::runtime::Handle,
        pending_max: usize,
        is_counted: bool,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            lines: OnceLock::new(),
            runtime,
            pending_max,
            is_counted,
            metrics,
        })
    }

    /// Names those who follow the changes. Only the first call counts.
    pub fn start(&self, followers: Vec<Arc<dyn Follower>>) {
        let lines = followers
            .into_iter()
            .map(|follower| Arc::new(Line::new(follower, self.pending_max, self.metrics.clone())));
        // A second call is a fault of the composition; the first followers stay.
        let _ = self.lines.set(lines.collect());
    }

    fn lines(&self) -> &[Arc<Line>] {
        self.lines.get().map_or(&[], Vec::as_slice)
    }
}

impl ChangeSink for Feed {
    fn demand(&self, group: &GroupKey) -> Demand {
        let mut lines = self.lines().iter();
        if lines.any(|line| line.follower.interest(group.as_ref()) == Interest::Values) {
            Demand::Values
        } else {
            Demand::Ops
        }
    }

    fn publish(&self, group: &GroupKey, change: Arc<Change>, _old: Option<&Json>) {
        if self.is_counted {
            self.metrics.changes.of((&change.kind).into()).inc();
            self.metrics.timestamp_lead.note(change.timestamp);
        }
        self.queue(group, |line, pending| {
            line.add(pending, change.clone());
        });
    }
}

impl RelaySink for Feed {
    fn missed(&self, group: &GroupKey, events: bool) {
        self.queue(group, |_, pending| {
            pending.drop_all().events |= events;
        });
    }

    fn restarted(&self, group: &GroupKey, at: &Position) {
        self.queue(group, |_, pending| pending.restart(at));
    }
}

impl Feed {
    /// Queues something for each follower that is interested in the group.
    fn queue(&self, group: &GroupKey, add: impl Fn(&Line, &mut Pending)) {
        for line in self.lines() {
            if line.follower.interest(group.as_ref()) != Interest::None
                && line.queue(group, |pending| add(line, pending))
            {
                // At the end of the writer's turn: what it writes together is delivered together.
                at_end_of_turn(Waker::from(Arc::new(Start {
                    runtime: self.runtime.clone(),
                    line: line.clone(),
                    group: group.clone(),
                })));
            }
        }
    }
}

/// Starts the task that delivers what is pending in a group.
struct Start {
    runtime: tokio::runtime::Handle,
    line: Arc<Line>,
    group: GroupKey,
}

impl Wake for Start {
    fn wake(self: Arc<Self>) {
        self.runtime
            .spawn(self.line.clone().deliver(self.group.clone()));
    }
}

impl Line {
    fn new(follower: Arc<dyn Follower>, pending_max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            follower,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            pending_max,
            metrics,
        }
    }

    fn shard(&self, group: GroupRef<'_>) -> &Mutex<HashMap<GroupKey, Pending>> {
        let hash = self.hasher.hash_one(group) >> 48;
        &self.shards[hash as usize % SHARDS]
    }

    /// Queues something. Whether a task must be started to deliver it.
    fn queue(&self, group: &GroupKey, add: impl FnOnce(&mut Pending)) -> bool {
        let mut queues = self.shard(group.as_ref()).lock();
        if let Some(pending) = queues.get_mut(group) {
            add(pending);
            return false;
        }
        let mut pending = Pending::default();
        add(&mut pending);
        queues.insert(group.clone(), pending);
        true
    }

    fn add(&self, pending: &mut Pending, change: Arc<Change>) {
        if self.pending_max <= pending.changes {
            self.metrics.feed_dropped.inc_by(pending.changes as u64);
            pending.drop_all();
        }
        pending.changes += 1;
        pending.last_run().changes.push(change);
    }

    /// Delivers everything pending in a group until nothing is.
    async fn deliver(self: Arc<Self>, group: GroupKey) {
        while let Some(pending) = self.take_pending(&group) {
            for run in pending.runs {
                if let Some(Missed { events }) = run.missed {
                    self.follower.missed(&group, events);
                }
                if let Some(at) = &run.restarted {
                    self.follower.restarted(&group, at);
                }
                if !run.changes.is_empty() {
                    self.follower.deliver(&group, &run.changes).await;
                }
            }
            // Only if there is more to do: a task that yields in vain wakes up another thread, which takes a core from those who
            // are to read what was delivered.
            if self.has_pending(&group) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes what is pending in a group; with nothing left there, delivery has ended.
    fn take_pending(&self, group: &GroupKey) -> Option<Pending> {
        let mut queues = self.shard(group.as_ref()).lock();
        match queues.get_mut(group) {
            Some(pending) if !pending.runs.is_empty() => Some(std::mem::take(pending)),
            _ => {
                queues.remove(group);
                None
            }
        }
    }

    fn has_pending(&self, group: &GroupKey) -> bool {
        let queues = self.shard(group.as_ref()).lock();
        queues
            .get(group)
            .is_some_and(|pending| !pending.runs.is_empty())
    }
}

impl Pending {
    fn last_run(&mut self) -> &mut Run {
        if self.runs.is_empty() {
            self.runs.push(Run::default());
        }
        let last = self.runs.len() - 1;
        &mut self.runs[last]
    }

    /// Leaves of all that waits only what there was, and that it was dropped.
    fn drop_all(&mut self) -> &mut Missed {
        let mut dropped = Run::default();
        let missed = dropped.missed.insert(Missed::default());
        for run in self.runs.drain(..) {
            missed.events |= run.missed.is_some_and(|missed| missed.events);
            missed.events |= run
                .changes
                .iter()
                .any(|change| matches!(change.kind, Kind::Event { .. }));
            dropped.restarted = run.restarted.or(dropped.restarted);
        }
        self.changes = 0;
        self.runs.push(dropped);
        self.last_run().missed.get_or_insert_default()
    }

    fn restart(&mut self, at: &Position) {
        if RUNS_MAX <= self.runs.len() {
            self.drop_all();
        }
        let last = self.last_run();
        if last.restarted.is_none() && last.changes.is_empty() {
            last.restarted = Some(at.clone());
        } else {
            self.runs.push(Run {
                restarted: Some(at.clone()),
                ..Run::default()
            });
        }
    }
}

#[cfg(test)]
mod tests;
