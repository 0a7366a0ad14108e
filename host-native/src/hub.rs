//! Who subscribes to which group, and what each connection gets to see of it. Follows the feed; knows no stores and no
//! sockets, only outboxes.
//!
//! A join runs in three steps: hold back the connection's events of that group, read a snapshot, then send what was
//! held up to the snapshot, the `sync`, and what was held after it. So no event is lost between snapshot and
//! subscription, none is seen twice, and none of the group overtakes the `sync`.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};
use iii_stream_core::event::{event_frame, group_sync_frame, item_sync_frame, wants};
use iii_stream_core::{Change, GroupKey, GroupRef};
use indexmap::IndexMap;
use parking_lot::{Mutex, RwLock};

use crate::feed::Follower;
use crate::socket::{CloseCode, Frame, Outbox};
use crate::store::Snapshot;

/// Numbers connections.
pub type ConnectionId = u64;

/// The table of topics is parted so that groups do not wait for each other. A power of two.
const SHARDS: usize = 64;

/// See the module.
pub struct Hub {
    shards: Vec<RwLock<HashMap<GroupKey, Arc<Topic>>>>,
    hasher: DefaultHashBuilder,
    /// Events held back for one connection and group while it joins. Beyond it the connection is closed as a slow one.
    held_max: usize,
}

/// The connections that subscribe to one group or to items of it.
struct Topic {
    key: GroupKey,
    state: Mutex<TopicState>,
}

#[derive(Default)]
struct TopicState {
    members: IndexMap<ConnectionId, Member>,
    /// No longer in the table: whoever still holds this topic must look it up again.
    is_removed: bool,
}

/// One connection's part in a group.
struct Member {
    outbox: Arc<Outbox>,
    subscriptions: Vec<Subscription>,
    /// Joins that have not seen their snapshot yet; meanwhile events are held back.
    joining: usize,
    held: Vec<(Arc<Change>, Frame)>,
    /// The last change that was handed to the outbox or skipped.
    seen: u64,
}

struct Subscription {
    id: Arc<str>,
    /// `None`: the whole group.
    item: Option<Arc<str>>,
    /// Its `sync` told of all changes up to this one.
    synced: u64,
}

/// What a connection subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribing {
    /// Chosen by the client, unique on its connection.
    pub subscription_id: Arc<str>,
    /// The group.
    pub group: GroupKey,
    /// The item; `None`: the whole group.
    pub item: Option<Arc<str>>,
}

/// What is to be done after a snapshot was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The subscription is live.
    Live,
    /// The connection has seen later changes than the snapshot holds: take another one.
    SnapshotTooOld,
    /// The connection is gone.
    Gone,
}

impl Hub {
    /// Nobody subscribes yet. A connection that joins a group holds back at most `held_max` of its events.
    pub fn new(held_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            held_max,
        }
    }

    /// Begins a join: from now on events of the group are held back for this connection.
    pub fn begin_join(&self, group: &GroupKey, connection: ConnectionId, outbox: &Arc<Outbox>) {
        loop {
            let topic = self.find_or_make(group);
            let mut state = topic.state.lock();
            if state.is_removed {
                continue;
            }
            let member = state.members.entry(connection).or_insert_with(|| Member {
                outbox: outbox.clone(),
                subscriptions: Vec::new(),
                joining: 0,
                held: Vec::new(),
                seen: 0,
            });
            member.joining += 1;
            return;
        }
    }

    /// Ends a join with a snapshot that was read after it began: sends the `sync`, and what was held back around it.
    pub fn finish_join(
        &self,
        connection: ConnectionId,
        join: &Subscribing,
        snapshot: &Snapshot,
    ) -> Joined {
        let Some(topic) = self.find(join.group.as_ref()) else {
            return Joined::Gone;
        };
        // Written before the lock is taken: it may be large.
        let sync = sync_frame(join, snapshot);
        let mut state = topic.state.lock();
        let Some(member) = state.members.get_mut(&connection) else {
            return Joined::Gone;
        };
        if snapshot.seq < member.seen {
            return Joined::SnapshotTooOld;
        }
        member.send_held(snapshot.seq);
        member.seen = snapshot.seq;
        member.outbox.push_uncounted(sync);
        member
            .subscriptions
            .retain(|subscription| subscription.id != join.subscription_id);
        member.subscriptions.push(Subscription {
            id: join.subscription_id.clone(),
            item: join.item.clone(),
            synced: snapshot.seq,
        });
        if join.item.is_none() {
            // This `sync` tells of everything, to the connection's other subscriptions of the group too.
            for subscription in &mut member.subscriptions {
                subscription.synced = subscription.synced.max(snapshot.seq);
            }
        }
        member.joining -= 1;
        if member.joining == 0 {
            member.send_held(u64::MAX);
        }
        Joined::Live
    }

    /// Gives a join up that was begun.
    pub fn abandon_join(&self, group: GroupRef<'_>, connection: ConnectionId) {
        self.change_member(group, connection, |member| {
            member.joining = member.joining.saturating_sub(1);
            if member.joining == 0 {
                member.send_held(u64::MAX);
            }
        });
    }

    /// Ends one subscription of a connection.
    pub fn leave(&self, group: GroupRef<'_>, connection: ConnectionId, subscription_id: &str) {
        self.change_member(group, connection, |member| {
            member
                .subscriptions
                .retain(|subscription| &*subscription.id != subscription_id);
        });
    }

    /// Ends all of a connection's part in a group.
    pub fn disconnect(&self, group: GroupRef<'_>, connection: ConnectionId) {
        self.change_member(group, connection, |member| {
            member.subscriptions.clear();
            member.joining = 0;
        });
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
            Arc::new(Topic {
                key: group.clone(),
                state: Mutex::default(),
            })
        });
        topic.clone()
    }

    /// Changes a member, and takes away what is of no use afterwards.
    fn change_member(
        &self,
        group: GroupRef<'_>,
        connection: ConnectionId,
        change: impl FnOnce(&mut Member),
    ) {
        let Some(topic) = self.find(group) else {
            return;
        };
        let mut shard = self.shard(group).write();
        let mut state = topic.state.lock();
        let Some(member) = state.members.get_mut(&connection) else {
            return;
        };
        change(member);
        if member.joining == 0 && member.subscriptions.is_empty() {
            state.members.swap_remove(&connection);
        }
        if state.members.is_empty() && !state.is_removed {
            state.is_removed = true;
            shard.remove(&topic.key);
        }
    }
}

impl Member {
    /// Sends what was held back up to a change, and keeps the rest.
    fn send_held(&mut self, up_to: u64) {
        let count = self
            .held
            .iter()
            .take_while(|(change, _)| change.seq <= up_to)
            .count();
        for (change, frame) in self.held.drain(..count) {
            self.seen = self.seen.max(change.seq);
            if wanted(&self.subscriptions, &change) {
                self.outbox.push(frame);
            }
        }
    }
}

/// Whether one of the subscriptions gets to see a change that its `sync` did not tell of.
fn wanted(subscriptions: &[Subscription], change: &Change) -> bool {
    subscriptions.iter().any(|subscription| {
        subscription.synced < change.seq && wants(subscription.item.as_deref(), change)
    })
}

fn sync_frame(join: &Subscribing, snapshot: &Snapshot) -> Frame {
    let Snapshot {
        epoch,
        seq,
        timestamp,
        items,
    } = snapshot;
    let group = join.group.as_ref();
    let text = match &join.item {
        Some(item) => {
            let value = items.first().map(|(_, item)| &item.value);
            item_sync_frame(group, item, *timestamp, epoch, *seq, value)
        }
        None => {
            let values = items.iter().map(|(_, item)| &item.value);
            group_sync_frame(group, *timestamp, epoch, *seq, values)
        }
    };
    text.into()
}

impl Follower for Hub {
    fn follows(&self, group: GroupRef<'_>) -> bool {
        self.shard(group).read().contains_key(&group)
    }

    fn deliver(&self, group: &GroupKey, changes: &[Arc<Change>]) {
        let Some(topic) = self.find(group.as_ref()) else {
            return;
        };
        // Each frame is written once, and only if somebody gets it.
        let mut frames: Vec<Option<Frame>> = vec![None; changes.len()];
        let mut frame = |index: usize, change: &Change| {
            frames[index]
                .get_or_insert_with(|| {
                    // The feed demands values, so there is a frame.
                    let text = event_frame(group.as_ref(), change, None);
                    text.unwrap_or_default().into()
                })
                .clone()
        };
        let mut state = topic.state.lock();
        for member in state.members.values_mut() {
            let indexed = changes.iter().enumerate();
            if 0 < member.joining {
                if self.held_max < member.held.len() + changes.len() {
                    member.held.clear();
                    member.outbox.close(CloseCode::SlowConsumer);
                    continue;
                }
                member
                    .held
                    .extend(indexed.map(|(index, change)| (change.clone(), frame(index, change))));
                continue;
            }
            let subscriptions = &member.subscriptions;
            let mut wanted = indexed
                .filter(|(_, change)| wanted(subscriptions, change))
                .peekable();
            if wanted.peek().is_some() {
                member
                    .outbox
                    .push_all(wanted.map(|(index, change)| frame(index, change)));
            }
            if let Some(last) = changes.last() {
                member.seen = member.seen.max(last.seq);
            }
        }
    }

    fn missed(&self, group: &GroupKey) {
        let Some(topic) = self.find(group.as_ref()) else {
            return;
        };
        for member in topic.state.lock().members.values() {
            member.outbox.close(CloseCode::SlowConsumer);
        }
    }
}
