//! Who subscribes to which group, and what each connection gets to see of it. Follows the feed; knows no stores and no
//! sockets, only outboxes.
//!
//! A subscription begins in three steps: hold back the connection's changes of that group, read a snapshot, then send what was
//! held up to the snapshot, the `sync`, and what was held after it. So no change is lost between snapshot and subscription,
//! none is seen twice, and none of the group overtakes the `sync`.

mod batch;
mod dialect;
mod member;
mod topic;

use std::hash::BuildHasher;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hashbrown::{DefaultHashBuilder, HashMap};
use iii_stream_core::{Change, GroupKey, GroupRef, Position, View};
use parking_lot::RwLock;

pub use dialect::{At, Dialect, Framing};
pub use member::{Behind, Joined, Subscribing, ToldUpTo};
pub use topic::Seat;

use crate::feed::{Follower, Interest};
use crate::metrics::Metrics;
use crate::socket::Outbox;
use topic::Topic;

/// Numbers connections.
pub type ConnectionId = u64;

/// The table of topics is parted so that groups do not wait for each other. A power of two.
const SHARDS: usize = 64;

/// Learns which groups have subscribers. Called while a part of the table is held, so it must not block, and must not call the
/// hub.
pub trait Audience: Send + Sync {
    /// A group has a first subscriber: before that one can read anything of it.
    fn came(&self, group: &GroupKey);

    /// A group has no subscribers any more.
    fn went(&self, group: &GroupKey);
}

/// See the module.
pub struct Hub {
    shards: Vec<RwLock<HashMap<GroupKey, Arc<Topic>>>>,
    hasher: DefaultHashBuilder,
    /// Who has to know for which groups there are subscribers.
    audience: Option<Arc<dyn Audience>>,
    /// Changes held back for one connection and group while it joins. Beyond it they are dropped, and a fresh `sync` follows.
    held_max: usize,
    metrics: Arc<Metrics>,
}

impl Hub {
    /// Nobody subscribes yet. A connection that joins a group holds back at most `held_max` of its changes.
    pub fn new(
        held_max: usize,
        audience: Option<Arc<dyn Audience>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            audience,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            held_max,
            metrics,
        }
    }

    /// Gives a connection its place in a group, from where on the changes reach it that are in its `view`.
    pub fn enter(
        &self,
        group: &GroupKey,
        connection: ConnectionId,
        outbox: &Arc<Outbox>,
        dialect: Dialect,
        view: &View,
    ) -> Seat {
        loop {
            let topic = self.find_or_make(group);
            if let Some(seat) = topic.enter(connection, outbox, dialect, view) {
                return seat;
            }
        }
    }

    /// Ends a connection's part in a group.
    pub fn exit(&self, seat: &Seat) {
        let mut shard = self.shard(seat.topic.key.as_ref()).write();
        if seat.topic.exit(seat) {
            shard.remove(&seat.topic.key);
            if let Some(audience) = &self.audience {
                audience.went(&seat.topic.key);
            }
        }
    }

    /// How many groups have subscribers.
    pub fn groups_len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    fn shard(&self, group: GroupRef<'_>) -> &RwLock<HashMap<GroupKey, Arc<Topic>>> {
        let hash = self.hasher.hash_one(group) >> 48;
        &self.shards[hash as usize % SHARDS]
    }

    fn find(&self, group: GroupRef<'_>) -> Option<Arc<Topic>> {
        self.shard(group).read().get(&group).cloned()
    }

    fn find_or_make(&self, group: &GroupKey) -> Arc<Topic> {
        if let Some(topic) = self.find(group.as_ref()) {
            return topic;
        }
        let mut shard = self.shard(group.as_ref()).write();
        let topic = shard.entry(group.clone()).or_insert_with(|| {
            if let Some(audience) = &self.audience {
                audience.came(group);
            }
            Arc::new(Topic::new(
                group.clone(),
                self.held_max,
                self.metrics.clone(),
            ))
        });
        topic.clone()
    }
}

impl Follower for Hub {
    fn interest(&self, group: GroupRef<'_>) -> Interest {
        let shard = self.shard(group).read();
        shard
            .get(&group)
            .map_or(Interest::None, |topic| topic.interest())
    }

    fn deliver<'a>(&'a self, group: &'a GroupKey, changes: &'a [Arc<Change>]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(topic) = self.find(group.as_ref()) {
                topic.deliver(changes).await;
            }
        })
    }

    fn missed(&self, group: &GroupKey, events: bool) {
        if let Some(topic) = self.find(group.as_ref()) {
            topic.missed(events);
        }
    }

    fn restarted(&self, group: &GroupKey, at: &Position) {
        if let Some(topic) = self.find(group.as_ref()) {
            topic.restarted(at);
        }
    }
}
