//! Where groups are kept: one trait at the level of commands, so that each store can be atomic in its own way.
//! Knows no sockets and no functions.

#[cfg(test)]
mod contract;
mod deadlines;
pub mod file;
mod listing;
mod memory;
mod queue_room;
pub mod redis;
pub mod redis_compatible;

use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::{
    Change, Command, Committed, Demand, Draft, Echo, Group, GroupKey, GroupRef, Item, Json, Page,
    Position,
};

pub use file::{Durability, FileOptions, FileReadings, FileStore, OpenError};
pub use memory::MemoryStore;
pub use redis::RedisStore;

/// Takes what became of a request, now or later, on any thread. It must not block.
pub type Done<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

/// Where the state's directory is, in that of the streams.
pub const STATE_DIR: &str = "state";

/// How often groups that hold nothing are looked at, to be forgotten, and what all histories take.
const FORGET_INTERVAL: Duration = Duration::from_secs(30);

/// Why a store could not do what was asked. The message is for operators and callers alike.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What happened.
    pub message: String,
    /// What a program may branch on.
    pub cause: StoreErrorCause,
}

/// What a program may branch on when a store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorCause {
    /// None of the others.
    Other,
    /// There is no room on the disk, or in Redis. It goes on by itself once there is.
    Full,
    /// The store takes no changes until a restart.
    ReadOnly,
    /// Too much waits for the disk, or for Redis; the call may be tried again later.
    Behind,
    /// What is on the disk, or in Redis, cannot be read.
    Damaged,
    /// Redis is not there: surely nothing was done. The call may be tried again later.
    Unavailable,
    /// Redis did not answer: the call may or may not have been carried out.
    Unknown,
    /// Others changed the item each time before it was this call's turn: nothing was done.
    Contended,
}

impl StoreErrorCause {
    /// The stable name, for the field `storage` of an error; `None` where there is nothing to tell.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Other => None,
            Self::Full => Some("full"),
            Self::ReadOnly => Some("read_only"),
            Self::Behind => Some("behind"),
            Self::Damaged => Some("damaged"),
            Self::Unavailable => Some("unavailable"),
            Self::Unknown => Some("unknown"),
            Self::Contended => Some("contended"),
        }
    }
}

impl StoreError {
    /// An error without a cause of its own.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(StoreErrorCause::Other, message)
    }

    fn new(cause: StoreErrorCause, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            cause,
        }
    }
}

/// Whether a store can be written, with the reason where it cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It can.
    Works,
    /// There is no room on the disk, or Redis takes no writes, for now.
    Full(String),
    /// Something failed: not until a restart.
    ReadOnly(String),
    /// It is elsewhere and not there, for now: it cannot be read either.
    Unavailable(String),
}

/// How a group, or one of its items, stands at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Names the group's history.
    pub epoch: Arc<str>,
    /// The last change that the items hold.
    pub seq: u64,
    /// The timestamp of a `sync` that tells of it: later than every change before, earlier than every one after.
    pub timestamp: u64,
    /// The items with their ids, in order of creation.
    pub items: Vec<(Arc<str>, Item)>,
}

/// Most items of a page.
pub const PAGE_ITEMS_MAX: usize = 1_000;

/// A page ends once its items take so many bytes; the last one may go beyond.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// A part of a group, as it stands at one moment.
#[derive(Clone, Debug)]
pub struct SnapshotPage {
    /// Names the group's history.
    pub epoch: Arc<str>,
    /// The last change that the items hold.
    pub seq: u64,
    /// The timestamp of a `sync` that tells of it: as in [`Snapshot`].
    pub timestamp: u64,
    /// The items with their ids, in order of creation.
    pub items: Vec<(Arc<str>, Item)>,
    /// After which item, by its `created_seq`, the next page begins, if there is one.
    pub next_after: Option<u64>,
    /// What is known of the clients that were asked about.
    pub mutations: Vec<Echo>,
}

/// Mutation clients that a subscription asks about; `None`: about none.
pub type Clients = Option<Arc<[Box<str>]>>;

/// Which page is wanted.
#[derive(Clone, Debug, Default)]
pub struct PageWish {
    /// The page is of this item alone.
    pub item: Option<Arc<str>>,
    /// Of a group: after the item created here.
    pub after: u64,
    /// Whose mutations to tell of.
    pub clients: Clients,
    /// Tells only of mutations that had their effect up to here; `None`: of all.
    pub mutations_up_to: Option<u64>,
}

impl PageWish {
    /// Reads the page.
    fn read(&self, group: &mut Group, now_ms: u64) -> SnapshotPage {
        let timestamp = group.sync_timestamp(now_ms);
        let page = match &self.item {
            Some(id) => Page {
                items: group
                    .get(id)
                    .map(|item| (id.clone(), item))
                    .into_iter()
                    .collect(),
                more: false,
            },
            None => group.page(self.after, PAGE_ITEMS_MAX, PAGE_BYTES_MAX),
        };
        let seq = group.seq();
        let next_after = page.next_after();
        let up_to = self.mutations_up_to.unwrap_or(seq);
        let mutations = mutations_up_to(group, &self.clients, up_to);
        SnapshotPage {
            epoch: group.epoch().clone(),
            seq,
            timestamp,
            items: page.items,
            next_after,
            mutations,
        }
    }
}

fn mutations_up_to(group: &Group, clients: &Clients, seq: u64) -> Vec<Echo> {
    match clients.as_deref() {
        Some(clients) => group.mutations_up_to(clients.iter().map(|client| &**client), seq),
        None => Vec::new(),
    }
}

/// From where a subscription goes on.
#[derive(Clone, Debug)]
pub struct ResumeWish {
    /// The item; `None`: the whole group.
    pub item: Option<Arc<str>>,
    /// What it has seen.
    pub since: Position,
    /// Whether operations are of no use to it.
    pub needs_values: bool,
    /// Whose mutations to tell of.
    pub clients: Clients,
}

impl ResumeWish {
    /// Reads what was missed.
    fn read(&self, group: &mut Group, now_ms: u64) -> Option<Resumed> {
        if *group.epoch() != self.since.epoch {
            return None;
        }
        let changes =
            group.changes_since(self.since.seq, self.item.as_deref(), self.needs_values)?;
        let seq = group.seq();
        Some(Resumed {
            epoch: group.epoch().clone(),
            seq,
            timestamp: group.sync_timestamp(now_ms),
            changes,
            mutations: mutations_up_to(group, &self.clients, seq),
        })
    }
}

/// What happened in a group since a subscriber was there.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// Names the group's history.
    pub epoch: Arc<str>,
    /// The last change of the group.
    pub seq: u64,
    /// The timestamp of a `sync` that is sent before the changes.
    pub timestamp: u64,
    /// The changes that the subscription gets to see, in order.
    pub changes: Vec<Arc<Change>>,
    /// What is known of the clients that were asked about.
    pub mutations: Vec<Echo>,
}

/// A stream's name with the ids of its groups.
pub type StreamGroups = (Arc<str>, Vec<Arc<str>>);

/// Takes the changes of each group in the order of their sequence, while the group is held. It must not block,
/// and must not call the store.
pub trait ChangeSink: Send + Sync {
    /// What is needed of the next change of `group`. Asked for each command, so it must be quick.
    fn demand(&self, group: &GroupKey) -> Demand;

    /// Takes the next change of `group`; `old` is the item's value before, where it is at hand or values were demanded.
    fn publish(&self, group: &GroupKey, change: Arc<Change>, old: Option<&Json>);
}

/// Takes changes of each group in order too, from a store in which other servers write as well: so some may get lost on their
/// way, and the history may turn out to be another one.
pub trait RelaySink: ChangeSink {
    /// Learns that changes of `group` cannot be told; `events` says whether there may have been custom events among them, which no
    /// later state tells of.
    fn missed(&self, group: &GroupKey, events: bool);

    /// Learns that the history of `group` begins anew, or goes on earlier than it was, and is at `at` now. The changes that come
    /// are later than that.
    fn restarted(&self, group: &GroupKey, at: &Position);
}

/// A place where groups are kept.
///
/// Duties: commands on one group take effect one after another; each change is handed to the [`ChangeSink`] exactly
/// once, in order, and not before it is as durable as the store promises; `done` is called after that.
pub trait Store: Send + Sync {
    /// Whether items have sequences and times to live, groups a history, and clients are remembered. Where not, whoever asks for
    /// one of these must be refused before the store is asked.
    fn keeps_versions(&self) -> bool {
        true
    }

    /// Carries out a command, or refuses it: see [`iii_stream_core::Group::commit`].
    fn commit(&self, group: GroupRef<'_>, command: Command, now_ms: u64, done: Done<Committed>);

    /// Stamps and publishes a change of an item that is kept elsewhere: see [`iii_stream_core::Group::announce`].
    fn announce(&self, group: GroupRef<'_>, draft: Draft, now_ms: u64, done: Done<Arc<Change>>);

    /// Reads one item.
    fn get(&self, group: GroupRef<'_>, item: &str, done: Done<Option<Item>>);

    /// Reads all items of a group, in order of creation.
    fn list(&self, group: GroupRef<'_>, done: Done<Vec<(Arc<str>, Item)>>);

    /// Reads a group, or one item of it, for a new subscriber.
    fn snapshot(&self, group: GroupRef<'_>, item: Option<&str>, now_ms: u64, done: Done<Snapshot>);

    /// Reads as many items of a group as fit a page, or one item.
    fn page(&self, group: GroupRef<'_>, wish: PageWish, now_ms: u64, done: Done<SnapshotPage>);

    /// Reads what a subscription missed. `None` where that is not known any more, or if an update lacks a value although
    /// the subscription needs it.
    fn resume(
        &self,
        group: GroupRef<'_>,
        wish: ResumeWish,
        now_ms: u64,
        done: Done<Option<Resumed>>,
    );

    /// Reads where the history of a group is.
    fn position(&self, group: GroupRef<'_>, done: Done<Position>);

    /// Reads the ids of a stream's groups that have items, sorted.
    fn list_groups(&self, stream: &str, done: Done<Vec<Arc<str>>>);

    /// Reads the names of all streams that have items, sorted, with their groups.
    fn list_all(&self, done: Done<Vec<StreamGroups>>);
}
