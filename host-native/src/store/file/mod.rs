//! The store that keeps groups in a directory: acknowledged is durable. See `docs/decisions/0017-durable-store.md`.
//!
//! One change goes: `writing` (decided on the group in memory, made a record) → `queue` → `committing` (the log's thread:
//! one write, one sync for all that wait) → `waiting` (event and reply, in the order of the log). Later `folding` carries it into
//! its stream's file. The other way, `loading` makes groups of what is on the disk, and `cache` lets them go.

mod cache;
mod committing;
mod condition;
#[cfg(test)]
mod crash;
pub mod disk;
mod entry;
pub mod extent;
mod files;
mod folding;
mod format_mark;
mod loading;
mod locking;
pub mod log;
pub mod looking;
pub mod manifest;
pub mod names;
mod opening;
mod queue;
mod reading;
mod record;
mod releasing;
pub mod repairing;
mod space;
pub mod stream_file;
mod table;
#[cfg(test)]
mod test_random;
#[cfg(test)]
mod test_seeds;
#[cfg(test)]
mod tests;
mod threads;
pub mod verifying;
mod waiting;
mod writing;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use iii_stream_core::{
    Change, Command, Committed, Draft, GroupKey, GroupLimits, GroupRef, Item, Position,
};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;

use super::deadlines::Deadlines;
use super::listing::Listing;
use super::{
    ChangeSink, Condition, Done, PageWish, ResumeWish, Resumed, Snapshot, SnapshotPage, Store,
    StreamGroups,
};
use crate::clock;
use crate::metrics::{Counter, Histogram, TimeBuckets};
use cache::{FloorMs, Sum};
use condition::Present;
use entry::{Body, Entry, State};
use files::Files;
use log::{LogReader, LogSpace};
use queue::Queue;
use releasing::Releasing;
use table::Table;
use threads::Threads;

pub use disk::RealDisk;
pub use disk::{Disk, DiskFile, read_exact_at, write_all_at};
pub use manifest::Durability;
pub use opening::OpenError;

/// How a directory is used.
#[derive(Clone, Copy, Debug)]
pub struct FileOptions {
    /// When a change counts as safe.
    pub durability: Durability,
    /// The bounds of one group.
    pub limits: GroupLimits,
    /// Bytes of the histories of all groups in memory.
    pub history_bytes_max: usize,
    /// Bytes of all groups in memory; beyond it those that were not used for longest leave it.
    pub cache_bytes_max: usize,
    /// Bytes of changes that wait for the disk; beyond it writes are refused.
    pub queue_bytes_max: usize,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes of the log from which on it is folded into the streams' files.
    pub fold_bytes: u64,
    /// Bytes of the log at which writes wait for the folding.
    pub log_bytes_max: u64,
}

/// A store in a directory. See the module.
pub struct FileStore {
    inner: Arc<Inner>,
    threads: Mutex<Option<Threads>>,
}

/// Runs something on another thread, soon.
type RunAside = Box<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// What the threads share.
struct Inner {
    sink: Arc<dyn ChangeSink>,
    limits: GroupLimits,
    history_bytes_max: usize,
    cache_bytes_max: usize,
    fold_bytes: u64,
    log_bytes_max: u64,
    durability: Durability,
    table: Table,
    listing: Listing,
    deadlines: Deadlines,
    queue: Arc<Queue>,
    condition: Present,
    files: Files,
    log_reader: LogReader,
    log_space: LogSpace,
    /// Held while the places are read that groups are made of, and taken by whoever gives such places to others.
    layout: RwLock<()>,
    run_aside: RunAside,
    releasing: Releasing,
    /// Names the histories that began in this process.
    epoch: Arc<str>,
    era: opening::Era,
    floor: FloorMs,
    /// How many groups were forgotten: a group that comes again starts a history with another name.
    forgotten: AtomicU64,
    /// Groups with records in the log that are not folded.
    unfolded: Mutex<Vec<Arc<Entry>>>,
    /// Forgotten groups of which there is something on the disk.
    gone: Mutex<Vec<Arc<Entry>>>,
    /// Groups that may hold nothing any more.
    idle: Mutex<BTreeSet<GroupKey>>,
    history_bytes: Sum,
    memory_bytes: Sum,
    /// Held by the one who lets groups go.
    evicting: Mutex<()>,
    /// What is in memory cannot leave it now.
    eviction_is_vain: AtomicBool,
    /// Counts the looks at the cache: when a group was last used is told in these.
    turn: AtomicU64,
    loads: Counter,
    evictions: Counter,
    activity: committing::Activity,
    folds: folding::Activity,
}

impl FileStore {
    /// Opens a directory, or makes a store there, and starts the store's threads. Changes go to `sink`.
    ///
    /// Errors: [`OpenError`].
    pub fn open(
        dir: &Path,
        sink: Arc<dyn ChangeSink>,
        options: FileOptions,
    ) -> Result<Self, OpenError> {
        let runtime = Handle::try_current().ok();
        let releasing = Releasing::new(runtime.clone());
        let run_aside: RunAside = match runtime {
            Some(runtime) => Box::new(move |work| drop(runtime.spawn_blocking(work))),
            None => Box::new(|work| work()),
        };
        let opened = opening::open_dir(dir, sink, options, run_aside, releasing)?;
        let inner = opened.inner.clone();
        let threads = Threads::start(opened).map_err(OpenError::Threads)?;
        Ok(Self {
            inner,
            threads: Mutex::new(Some(threads)),
        })
    }

    /// Writes everything that waits and closes the directory. Calls after this fail.
    pub fn close(&self) {
        if let Some(threads) = self.threads.lock().take() {
            threads.stop();
        }
    }

    /// Deletes items whose time has come, for as long as the process lives.
    pub async fn run_expiry(&self) {
        loop {
            self.inner.deadlines.due().await;
            let now_ms = clock::unix_ms();
            if let Some(group) = self.inner.deadlines.take_due(now_ms) {
                self.inner.expire(group.as_ref(), now_ms);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Keeps the cache within its bound, for as long as the process lives.
    pub async fn run_cache(&self) {
        loop {
            tokio::time::sleep(cache::TURN_INTERVAL).await;
            self.inner.turn.fetch_add(1, Ordering::Relaxed);
            self.inner.evict();
        }
    }

    /// Forgets groups that hold nothing and that nobody watches, and old changes of quiet groups when there are many, for
    /// as long as the process lives.
    pub async fn run_forgetting(&self, is_watched: impl Fn(GroupRef<'_>) -> bool + Send + Sync) {
        loop {
            tokio::time::sleep(super::FORGET_INTERVAL).await;
            self.inner.forget_idle(&is_watched);
            self.inner.sweep_histories();
        }
    }

    /// Whether it can be written.
    pub fn condition(&self) -> Condition {
        self.inner.condition.get()
    }

    /// How long it takes to write a batch and to make it safe.
    pub fn sync_seconds(&self) -> Arc<Histogram<TimeBuckets>> {
        self.inner.activity.sync_seconds.clone()
    }

    /// What is counted and measured.
    pub fn readings(&self) -> FileReadings {
        self.inner.readings()
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// How a store in a directory does.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileReadings {
    /// Groups, hot and cold.
    pub groups: u64,
    /// Bytes of histories in memory.
    pub history_bytes: u64,
    /// Bytes of groups in memory.
    pub cache_bytes: u64,
    /// The bound of these.
    pub cache_bytes_max: u64,
    /// Bytes of records that wait for the log.
    pub queue_bytes: u64,
    /// The bound of these.
    pub queue_bytes_max: u64,
    /// Bytes of the log that are not folded.
    pub log_bytes: u64,
    /// The bound of these.
    pub log_bytes_max: u64,
    /// Batches written to the log.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes given to the system for the log.
    pub log_written_bytes: u64,
    /// Bytes given to the system by folding.
    pub fold_written_bytes: u64,
    /// Finished folds.
    pub folds: u64,
    /// Groups loaded from the disk.
    pub loads: u64,
    /// Groups that left memory because it was full.
    pub evictions: u64,
}

impl Inner {
    fn readings(&self) -> FileReadings {
        FileReadings {
            groups: self.table.len() as u64,
            history_bytes: self.history_bytes.get() as u64,
            cache_bytes: self.memory_bytes.get() as u64,
            cache_bytes_max: self.cache_bytes_max as u64,
            queue_bytes: self.queue.bytes() as u64,
            queue_bytes_max: self.queue.bytes_max() as u64,
            log_bytes: self.log_space.live_bytes(),
            log_bytes_max: self.log_bytes_max,
            batches: self.activity.batches.get(),
            records: self.activity.records.get(),
            log_written_bytes: self.activity.written_bytes.get(),
            fold_written_bytes: self.folds.written_bytes.get(),
            folds: self.folds.finished.get(),
            loads: self.loads.get(),
            evictions: self.evictions.get(),
        }
    }

    /// Bytes of the log that a fold would carry away.
    fn sealed_bytes(&self) -> u64 {
        let sealed = self.log_space.sealed_segments();
        sealed
            .iter()
            .map(|segment| segment.end_lsn - segment.base_lsn)
            .sum()
    }

    fn find_or_make(&self, group: GroupRef<'_>) -> Arc<Entry> {
        self.table.find_or_insert(group, || {
            let forgotten = self.forgotten.load(Ordering::Acquire);
            let epoch = match forgotten {
                0 => self.epoch.clone(),
                // `x` is no digit of the number, so no two names are alike.
                count => format!("{}x{count}", self.epoch).into(),
            };
            let body = iii_stream_core::Group::new(
                self.era.name(&epoch),
                self.floor.of_new_group(),
                self.limits,
            );
            let key = group.to_key();
            self.idle.lock().insert(key.clone());
            Arc::new(Entry::new(
                key,
                State::new(epoch, Body::Hot(Box::new(body))),
            ))
        })
    }
}

impl Store for FileStore {
    fn commit(&self, group: GroupRef<'_>, command: Command, now_ms: u64, done: Done<Committed>) {
        self.inner.commit(group, command, now_ms, done);
    }

    fn announce(&self, group: GroupRef<'_>, draft: Draft, now_ms: u64, done: Done<Arc<Change>>) {
        self.inner.announce(group, draft, now_ms, done);
    }

    fn get(&self, group: GroupRef<'_>, item: &str, done: Done<Option<Item>>) {
        if self.inner.table.find(group).is_none() {
            return done(Ok(None));
        }
        let item = item.to_owned();
        self.inner.read(group, move |group| group.get(&item), done);
    }

    fn list(&self, group: GroupRef<'_>, done: Done<Vec<(Arc<str>, Item)>>) {
        if self.inner.table.find(group).is_none() {
            return done(Ok(Vec::new()));
        }
        self.inner.read(group, |group| group.iter().collect(), done);
    }

    fn snapshot(&self, group: GroupRef<'_>, item: Option<&str>, now_ms: u64, done: Done<Snapshot>) {
        let item = item.map(str::to_owned);
        self.inner.floor.note(now_ms);
        let ask = move |group: &mut iii_stream_core::Group| {
            let timestamp = group.sync_timestamp(now_ms);
            let items = match &item {
                Some(id) => {
                    let item = group.get(id).map(|item| (id.as_str().into(), item));
                    item.into_iter().collect()
                }
                None => group.iter().collect(),
            };
            Snapshot {
                epoch: group.epoch().clone(),
                seq: group.seq(),
                timestamp,
                items,
            }
        };
        self.inner.read(group, ask, done);
    }

    fn page(&self, group: GroupRef<'_>, wish: PageWish, now_ms: u64, done: Done<SnapshotPage>) {
        self.inner.floor.note(now_ms);
        self.inner
            .read(group, move |group| wish.read(group, now_ms), done);
    }

    fn resume(
        &self,
        group: GroupRef<'_>,
        wish: ResumeWish,
        now_ms: u64,
        done: Done<Option<Resumed>>,
    ) {
        self.inner.floor.note(now_ms);
        let since = wish.since.clone();
        let ask = move |group: &mut iii_stream_core::Group| wish.read(group, now_ms);
        self.inner.resume(group, &since, ask, done);
    }

    fn position(&self, group: GroupRef<'_>, done: Done<Position>) {
        let ask = |group: &mut iii_stream_core::Group| Position {
            epoch: group.epoch().clone(),
            seq: group.seq(),
        };
        self.inner.read(group, ask, done);
    }

    fn list_groups(&self, stream: &str, done: Done<Vec<Arc<str>>>) {
        let stream = stream.to_owned();
        self.inner
            .list_names(move |listing| listing.groups_of(&stream), done);
    }

    fn list_all(&self, done: Done<Vec<StreamGroups>>) {
        self.inner.list_names(Listing::all, done);
    }
}
