//! Carries the changes of each group, in order, from the store to whoever follows them. Knows neither the store nor
//! the followers.
//!
//! The writer of a change only queues it; a task of its own delivers everything that is pending in a group, so the
//! writer never pays for the crowd. There is at most one such task per group at a time, which keeps the order.

use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use hashbrown::{DefaultHashBuilder, HashMap};
use iii_stream_core::{Change, Demand, GroupKey, GroupRef, Json};
use parking_lot::Mutex;

use crate::store::ChangeSink;

/// Follows the changes of groups. Called for one group by one task at a time; it must not block.
pub trait Follower: Send + Sync {
    /// Whether changes of this group are of any interest now. Asked while the group is held, so it must be quick.
    fn follows(&self, group: GroupRef<'_>) -> bool;

    /// Takes the next changes of a group.
    fn deliver(&self, group: &GroupKey, changes: &[Arc<Change>]);

    /// Learns that changes of a group were dropped, because too many were waiting.
    fn missed(&self, group: &GroupKey);
}

/// Queues of groups with changes to deliver are parted so that groups do not wait for each other. A power of two.
const SHARDS: usize = 64;

type Queues = HashMap<GroupKey, Pending>;

#[derive(Default)]
struct Pending {
    changes: Vec<Arc<Change>>,
    has_missed: bool,
}

/// See the module.
pub struct Feed {
    /// Groups that a task is delivering for, with what is still to deliver.
    shards: Vec<Mutex<Queues>>,
    hasher: DefaultHashBuilder,
    /// Set once at start: followers need the store, and the store needs this feed.
    followers: OnceLock<Vec<Arc<dyn Follower>>>,
    runtime: tokio::runtime::Handle,
    /// Most changes of one group that wait for delivery. Beyond it they are dropped, and every follower is told.
    pending_max: usize,
    /// Gives the delivering tasks a handle on this feed.
    this: std::sync::Weak<Self>,
}

impl Feed {
    /// A feed whose deliveries run on `runtime`. Nothing is delivered before [`Feed::start`].
    pub fn new(runtime: tokio::runtime::Handle, pending_max: usize) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            followers: OnceLock::new(),
            runtime,
            pending_max,
            this: this.clone(),
        })
    }

    /// Names those who follow the changes. Only the first call counts.
    pub fn start(&self, followers: Vec<Arc<dyn Follower>>) {
        // A second call is a fault of the composition; the first followers stay.
        let _ = self.followers.set(followers);
    }

    fn followers(&self) -> &[Arc<dyn Follower>] {
        self.followers.get().map_or(&[], Vec::as_slice)
    }

    fn shard(&self, group: GroupRef<'_>) -> &Mutex<Queues> {
        let hash = self.hasher.hash_one(group) >> 48;
        &self.shards[hash as usize % SHARDS]
    }

    /// Delivers everything pending in a group until nothing is.
    async fn deliver(self: Arc<Self>, group: GroupKey) {
        loop {
            let pending = {
                let mut queues = self.shard(group.as_ref()).lock();
                match queues.get_mut(&group) {
                    Some(pending) if !pending.changes.is_empty() || pending.has_missed => {
                        std::mem::take(pending)
                    }
                    _ => {
                        queues.remove(&group);
                        return;
                    }
                }
            };
            for follower in self.followers() {
                if pending.has_missed {
                    follower.missed(&group);
                }
                if follower.follows(group.as_ref()) {
                    follower.deliver(&group, &pending.changes);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

impl ChangeSink for Feed {
    fn demand(&self, _: &GroupKey) -> Demand {
        Demand::Values
    }

    fn publish(&self, group: &GroupKey, change: Arc<Change>, _old: Option<&Json>) {
        if !self
            .followers()
            .iter()
            .any(|follower| follower.follows(group.as_ref()))
        {
            return;
        }
        let mut queues = self.shard(group.as_ref()).lock();
        if let Some(pending) = queues.get_mut(group) {
            if self.pending_max <= pending.changes.len() {
                pending.changes.clear();
                pending.has_missed = true;
            }
            pending.changes.push(change);
            return;
        }
        queues.insert(
            group.clone(),
            Pending {
                changes: vec![change],
                has_missed: false,
            },
        );
        drop(queues);
        if let Some(feed) = self.this.upgrade() {
            self.runtime.spawn(feed.deliver(group.clone()));
        }
    }
}
