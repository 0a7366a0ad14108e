//! The store that keeps groups in Redis as an iii engine does, so that engines and we can share one Redis.
//!
//! Reading order: [`CompatibleStore`] takes commands and reads; `queue.rs` keeps those of one group in order; `deciding.rs`
//! decides a batch with the core, `committing.rs` has Redis write and publish it in one step (`commit.lua`), or finds that
//! somebody was faster; `reading.rs` reads; `hearing.rs` takes what engines and we publish to subscribers, with the
//! timestamps of `stamps.rs`. `keys.rs` and `frame.rs` know what the layout looks like.
//!
//! The layout has no versions, no index, no order and no time to live, so neither has this store.

mod answers;
mod committing;
mod deciding;
mod frame;
mod hearing;
mod keys;
mod queue;
mod reading;
mod stamps;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use iii_stream_core::{
    Change, Command, Committed, Draft, GroupKey, GroupLimits, GroupRef, Item, Position,
};

pub use keys::Kept;

use frame::EVENTS;
use hearing::Hearing;
use queue::{Announcing, Batch, Job, Put, Queues};

use super::{
    ChangeSink, Done, PageWish, RelaySink, ResumeWish, Resumed, Snapshot, SnapshotPage, Store,
    StoreError, StreamGroups,
};
use crate::metrics::Metrics;
use crate::redis_client::{Channel, ChannelEvent, Listener, RedisClient, Slot};

/// What was begun is waited for so long at least, also where `wait_max` is shorter: else every short delay would be an error.
const TIME_MIN: Duration = Duration::from_secs(1);

/// How a [`CompatibleStore`] is kept.
#[derive(Clone, Debug)]
pub struct CompatibleOptions {
    /// What it keeps.
    pub kept: Kept,
    /// Bounds of a group. Only that of items is kept, and nearly: engines know none.
    pub limits: GroupLimits,
    /// Names this process, `[a-z0-9]+`, new for each.
    pub epoch: Arc<str>,
    /// How long a command waits for Redis.
    pub wait_max: Duration,
    /// Commands that wait in a group; one more is refused.
    pub queue_commands_max: usize,
    /// Bytes of commands that wait in a group, beyond which no more are taken.
    pub queue_bytes_max: usize,
    /// Bytes of the commands of all groups that wait or are on their way.
    pub queue_total_bytes_max: usize,
}

/// See the module.
pub struct CompatibleStore {
    shared: Arc<Shared>,
}

/// What the tasks of all groups need.
struct Shared {
    client: Arc<RedisClient>,
    kept: Kept,
    limits: GroupLimits,
    wait_max: Duration,
    queues: Queues,
    hearing: Hearing,
    triggers: Arc<dyn ChangeSink>,
    metrics: Arc<Metrics>,
    runtime: tokio::runtime::Handle,
}

impl CompatibleStore {
    /// A store whose own commits go to `triggers`, and everything that is published to `subscribers`; the state has none.
    pub fn new(
        client: Arc<RedisClient>,
        options: CompatibleOptions,
        subscribers: Option<Arc<dyn RelaySink>>,
        triggers: Arc<dyn ChangeSink>,
        metrics: Arc<Metrics>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let listens = subscribers.is_some();
        let shared = Arc::new(Shared {
            client,
            kept: options.kept,
            limits: options.limits,
            wait_max: options.wait_max,
            queues: Queues::new(
                options.queue_commands_max,
                options.queue_bytes_max,
                options.queue_total_bytes_max,
            ),
            hearing: Hearing::new(subscribers, options.epoch, metrics.clone()),
            triggers,
            metrics,
            runtime,
        });
        if listens {
            let channels = shared.channels();
            for channel in channels {
                let listener = Arc::new(Ears(Arc::downgrade(&shared)));
                shared.client.subscribe(channel, listener);
            }
        }
        Self { shared }
    }

    /// What waits for Redis in all groups here, in bytes.
    pub fn queued_bytes(&self) -> usize {
        self.shared.queues.queued_bytes()
    }

    /// A group has its first subscriber. To be called before anything of it is read.
    pub fn watch(&self, group: &GroupKey) {
        self.shared.hearing.came(group);
    }

    /// A group has no subscribers any more.
    pub fn unwatch(&self, group: &GroupKey) {
        self.shared.hearing.went(group);
    }

    /// Reads something of a group: after what waits there, or at once.
    fn read<T: Send + 'static>(
        &self,
        group: GroupRef<'_>,
        done: Done<T>,
        read: impl FnOnce(Arc<Shared>, GroupKey) -> BoxFuture<'static, Result<T, StoreError>>,
    ) {
        let key = group.to_key();
        let reading = read(self.shared.clone(), key.clone());
        let reading = reading.map(done).boxed();
        if self.shared.queues.is_busy(&key) {
            self.put(&key, Job::Read(reading));
        } else {
            self.shared.runtime.spawn(reading);
        }
    }

    fn put(&self, group: &GroupKey, job: Job) {
        match self.shared.queues.put(group, job) {
            Put::Waits => {}
            Put::First => {
                let (shared, group) = (self.shared.clone(), group.clone());
                self.shared
                    .runtime
                    .spawn(async move { shared.work(&group).await });
            }
            Put::Full(job, error) => match *job {
                Job::Commit(waiting) => (waiting.done)(Err(error)),
                Job::Announce(announcing) => (announcing.done)(Err(error)),
                // It changes nothing, and its caller waits for it in any case.
                Job::Read(read) => drop(self.shared.runtime.spawn(read)),
            },
        }
    }
}

impl Drop for CompatibleStore {
    fn drop(&mut self) {
        for channel in self.shared.channels() {
            self.shared.client.unsubscribe(&channel);
        }
    }
}

impl Shared {
    /// Does what waits in a group until nothing does.
    async fn work(&self, group: &GroupKey) {
        while let Some(batch) = self.queues.take(group) {
            match batch {
                Batch::Commit(commands) => self.commit(group, commands).await,
                Batch::Announce(announcing) => self.announce(group, *announcing).await,
                Batch::Read(reads) => drop(join_all(reads).await),
            }
        }
    }

    fn channels(&self) -> [Channel; 2] {
        [EVENTS, &*self.hearing.fences].map(|name| Channel {
            name: name.into(),
            slot: None,
        })
    }

    /// How long a command may take in all.
    fn time_max(&self) -> Duration {
        self.wait_max.max(TIME_MIN)
    }
}

/// Hears for a store as long as that is there.
struct Ears(std::sync::Weak<Shared>);

impl Listener for Ears {
    fn hear(&self, channel: &str, event: ChannelEvent) {
        if let Some(shared) = self.0.upgrade() {
            let now_ms = shared.client.now_ms(Slot::of(channel.as_bytes()));
            shared.hearing.hear(channel, &event, now_ms);
        }
    }
}

impl Store for CompatibleStore {
    fn keeps_versions(&self) -> bool {
        false
    }

    fn commit(&self, group: GroupRef<'_>, command: Command, _: u64, done: Done<Committed>) {
        self.put(&group.to_key(), Job::commit(command, done));
    }

    fn announce(&self, group: GroupRef<'_>, draft: Draft, _: u64, done: Done<Arc<Change>>) {
        let announcing = Announcing { draft, done };
        self.put(&group.to_key(), Job::Announce(Box::new(announcing)));
    }

    fn get(&self, group: GroupRef<'_>, item: &str, done: Done<Option<Item>>) {
        let item = item.to_owned();
        self.read(group, done, |shared, key| {
            async move { shared.get(key.as_ref(), &item).await }.boxed()
        });
    }

    fn list(&self, group: GroupRef<'_>, done: Done<Vec<(Arc<str>, Item)>>) {
        self.read(group, done, |shared, key| {
            async move { shared.list(key.as_ref()).await }.boxed()
        });
    }

    fn snapshot(&self, group: GroupRef<'_>, item: Option<&str>, _: u64, done: Done<Snapshot>) {
        let item = item.map(str::to_owned);
        self.read(group, done, |shared, key| {
            async move { shared.snapshot(key.as_ref(), item.as_deref()).await }.boxed()
        });
    }

    fn page(&self, _: GroupRef<'_>, _: PageWish, _: u64, done: Done<SnapshotPage>) {
        done(Err(unversioned("pages")));
    }

    fn resume(&self, _: GroupRef<'_>, _: ResumeWish, _: u64, done: Done<Option<Resumed>>) {
        done(Err(unversioned("a position to come back to")));
    }

    fn position(&self, group: GroupRef<'_>, done: Done<Position>) {
        done(Ok(self.shared.hearing.position(group)));
    }

    fn list_groups(&self, stream: &str, done: Done<Vec<Arc<str>>>) {
        let (shared, stream) = (self.shared.clone(), stream.to_owned());
        self.shared
            .runtime
            .spawn(async move { done(shared.list_groups(&stream).await) });
    }

    fn list_all(&self, done: Done<Vec<StreamGroups>>) {
        let shared = self.shared.clone();
        self.shared
            .runtime
            .spawn(async move { done(shared.list_all().await) });
    }
}

fn unversioned(what: &str) -> StoreError {
    StoreError::other(format!(
        "{what} need versions, which the layout of an iii engine does not have"
    ))
}
