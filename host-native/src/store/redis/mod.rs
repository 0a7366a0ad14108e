//! The store that keeps groups in Redis, for any number of instances.
//!
//! ```text
//! Pg:{stream:group}   hash: m the group's meta, h<item> heads, v<item> values, c<client> last mutations
//! Po:{…} order of items   Ph:{…} history   Pu:{…} clients by last use   Px:{…} items by expiry   Pe:{…} channel of changes
//! Pt:<stream> channel of a stream with triggers   Pstreams, Pgroups:<stream> index   Pdue groups with items that go
//! ```
//!
//! Reading order: a call becomes work (`calls.rs`) and waits in its group's line (`lines.rs`); all commands that wait are decided on
//! what is known (`deciding.rs`, `known.rs`) and sent as one script call (`committing.rs`, `scripts/commit.lua`), which verifies,
//! counts sequence and time, writes, and publishes; what it answers (`commit_answer.rs`) is told to the callers. Groups do not wait for
//! each other.

mod answer;
mod arguments;
mod calls;
mod commit_answer;
mod committing;
mod deciding;
mod expiry;
mod history;
mod index;
mod kept;
mod keys;
mod known;
mod lines;
mod reading;
mod resolving;
mod scripts;
#[cfg(test)]
mod tests;
mod time_limit;
mod watching;
mod work;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use iii_stream_core::{GroupKey, GroupLimits, GroupRef, Position};
use parking_lot::Mutex;
use uuid::Uuid;

pub use history::{Kept, Logged};

use super::{ChangeSink, RelaySink, StoreError};
use crate::metrics::Metrics;
use crate::redis_client::{RedisClient, Slot};
use keys::Keys;
use lines::Lines;
use watching::{Histories, Watching};

/// How often an instance that writes a group says so in the index.
const INDEX_TOUCH: Duration = Duration::from_secs(10);

/// A command that was sent has at least so long until Redis refuses to begin with it.
const DEADLINE_MIN: Duration = Duration::from_secs(1);

/// Entries of the history where nobody comes back to it: enough to find out what became of a batch.
const BARE_HISTORY_CHANGES: usize = 256;

/// Hexadecimal digits of a store's name.
const NAME_DIGITS: usize = 20;

/// See the module.
pub struct RedisStore {
    shared: Arc<Shared>,
    expiry: tokio::task::JoinHandle<()>,
}

/// How a [`RedisStore`] keeps groups.
#[derive(Clone, Debug)]
pub struct RedisStoreOptions {
    /// What all keys and channels begin with.
    pub prefix: String,
    /// The bounds of one group.
    pub limits: GroupLimits,
    /// Whether changes are kept for those who come back.
    pub keeps_history: bool,
    /// How long a command waits for Redis.
    pub wait_max: Duration,
    /// Most commands that wait in one group; beyond it calls are refused as `behind`.
    pub queue_commands_max: usize,
    /// Most bytes of these commands.
    pub queue_bytes_max: usize,
    /// What is known of items and clients takes at most so many bytes; beyond it the groups that were not written for longest are
    /// forgotten here, and read again when needed.
    pub cache_bytes_max: usize,
}

/// Where changes go.
#[derive(Clone)]
pub enum Sinks {
    /// Into the group's channel, for all instances.
    Channel,
    /// To a sink of the instance that commits them, with the value before.
    AtOnce(Arc<dyn ChangeSink>),
}

/// Says which streams have triggers.
pub trait Triggered: Send + Sync {
    /// Whether any instance of the cluster has a trigger on a stream.
    fn is_triggered(&self, stream: &str) -> bool;

    /// Learns up to where this instance has committed a group, before callers are answered.
    fn committed(&self, group: &GroupKey, epoch: &Arc<str>, seq: u64) {
        let _ = (group, epoch, seq);
    }
}

/// What all tasks of a store share.
struct Shared {
    client: Arc<RedisClient>,
    options: RedisStoreOptions,
    keys: Keys,
    sinks: Sinks,
    triggered: Arc<dyn Triggered>,
    /// The groups that have subscribers here, where anybody has.
    watching: OnceLock<Watching>,
    lines: Lines,
    runtime: tokio::runtime::Handle,
    /// Names this store; no other ever had the name.
    name: String,
    names: AtomicU64,
    hasher: hashbrown::DefaultHashBuilder,
    /// The latest time that any server of Redis told.
    now_ms: AtomicU64,
    next_due: Mutex<expiry::NextDue>,
    due_changed: tokio::sync::Notify,
}

impl RedisStore {
    /// A store on a Redis that is connected. It works on the runtime it is made on.
    pub fn new(
        client: Arc<RedisClient>,
        options: RedisStoreOptions,
        sinks: Sinks,
        triggered: Arc<dyn Triggered>,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared {
            client,
            keys: Keys::new(&options.prefix),
            sinks,
            triggered,
            watching: OnceLock::new(),
            lines: Lines::new(
                options.cache_bytes_max,
                options.queue_commands_max,
                options.queue_bytes_max,
            ),
            runtime: tokio::runtime::Handle::current(),
            name: Uuid::new_v4().simple().to_string()[..NAME_DIGITS].to_owned(),
            names: AtomicU64::new(0),
            hasher: hashbrown::DefaultHashBuilder::default(),
            now_ms: AtomicU64::new(0),
            next_due: Mutex::default(),
            due_changed: tokio::sync::Notify::new(),
            options,
        });
        let expiry = tokio::spawn(shared.clone().run_expiry());
        Arc::new(Self { shared, expiry })
    }

    /// Watches groups from now on, and tells `sink` what happens in them. Only the first call counts.
    pub fn set_watching(&self, sink: Arc<dyn RelaySink>, metrics: Arc<Metrics>) {
        let client = self.shared.client.clone();
        let watching = Watching::new(client, sink, self.shared.options.wait_max, metrics);
        // A second call is a fault of the composition; the first stays.
        let _ = self.shared.watching.set(watching);
    }

    /// A group has subscribers here from now on: see [`RedisStore::set_watching`]. Does not block.
    pub fn watch(&self, group: &GroupKey) {
        if let Some(watching) = self.shared.watching.get() {
            watching.came(group, self.channel(group.as_ref()));
        }
    }

    /// A group has no subscribers here any more. Does not block.
    pub fn unwatch(&self, group: &GroupKey) {
        if let Some(watching) = self.shared.watching.get() {
            watching.went(group);
        }
    }

    /// Reads what could not be heard of watched groups, for as long as the process lives.
    pub async fn run_watching(&self) {
        if let Some(watching) = self.shared.watching.get() {
            watching.run(self.shared.clone()).await;
        }
    }

    /// The channel that the changes of a group come over.
    pub fn channel(&self, group: GroupRef<'_>) -> crate::redis_client::Channel {
        let keys = self.shared.keys.group(group);
        crate::redis_client::Channel {
            name: keys.channel,
            slot: Some(keys.slot),
        }
    }

    /// The name of the channel that all changes of a stream with triggers come over.
    pub fn stream_channel(&self, stream: &str) -> crate::redis_client::Channel {
        crate::redis_client::Channel {
            name: self.shared.keys.stream_channel(stream).into(),
            slot: None,
        }
    }

    /// What is known of items and clients here, in bytes.
    pub fn cache_bytes(&self) -> usize {
        self.shared.lines.bytes()
    }

    /// Reads where the history of a group is, without waiting for its commands or for those who watch it.
    pub async fn position_now(&self, group: GroupRef<'_>) -> Result<Position, StoreError> {
        let keys = self.shared.keys.group(group);
        self.shared.position(&keys).await
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.expiry.abort();
    }
}

impl Shared {
    /// Which history of the server at a slot what is read there belongs to, as scripts take it.
    fn replication_id(&self, slot: Slot) -> Arc<str> {
        let id = self.client.replication_id(slot);
        if id.is_empty() { "-".into() } else { id }
    }

    /// A name that nobody else uses: of a batch, and of a history that begins with it.
    fn new_name(&self) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("{}x{number}", self.name)
    }

    /// Until when Redis may begin with what is sent now for calls that wait until `deadline`, in Unix milliseconds of its clock.
    fn deadline_ms(&self, slot: Slot, deadline: Instant) -> u64 {
        let wait = deadline.saturating_duration_since(Instant::now());
        let wait = wait.max(DEADLINE_MIN);
        // Where another server took over, its own word is newer than the estimate.
        self.client.now_ms(slot).max(self.floor_ms()) + wait.as_millis() as u64
    }

    /// Takes note of the time that a server told.
    fn hear_now_ms(&self, now_ms: u64) {
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// No timestamp may be earlier: a server that takes over may have a slow clock.
    fn floor_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// What a history may have: changes and bytes.
    fn history_bounds(&self) -> (usize, usize) {
        let limits = &self.options.limits;
        match self.options.keeps_history {
            true => (limits.history_changes_max, limits.history_bytes_max),
            false => (BARE_HISTORY_CHANGES, usize::MAX >> 16),
        }
    }

    /// A share between a half and one, another one each time.
    fn jitter(&self) -> f64 {
        use std::hash::BuildHasher;
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let hash = self.hasher.hash_one(number) >> 32;
        0.5 + hash as f64 / f64::from(u32::MAX) / 2.0
    }
}

impl Histories for Shared {
    fn read<'a>(
        &'a self,
        group: GroupRef<'a>,
        after_seq: u64,
    ) -> BoxFuture<'a, Result<Logged, StoreError>> {
        Box::pin(self.logged(group, after_seq))
    }
}
