//! The groups that this server has subscribers of: hears their changes from Redis, in order and once, and finds out what
//! it could not hear. Knows no subscribers.
//!
//! A group is watched from its first subscriber to its last. It costs a table entry and a channel, and nothing here goes through
//! all of them. `watched.rs` decides; this listens, reads, and hands over.

mod watched;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hashbrown::{DefaultHashBuilder, HashMap};
use iii_stream_core::relay::read_message;
use iii_stream_core::{GroupKey, GroupRef, Position};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use watched::{Act, Mark, Watched};

use super::Logged;
use super::keys::GroupKeys;
use crate::metrics::Metrics;
use crate::redis_client::{Channel, ChannelEvent, Listener, RedisClient};
use crate::store::{RelaySink, Resumed, Snapshot, SnapshotPage, StoreError, StoreErrorCause};

/// The table is parted so that groups do not wait for each other. A power of two.
const SHARDS: usize = 64;

/// Groups whose history is read at one time, beside those that subscribers read.
const READS_MAX: usize = 64;

/// Bytes of messages that wait for such a read, in all groups. Beyond it they are forgotten, and read once more.
const HELD_BYTES_MAX: usize = 256 << 20;

/// Pause before a read is tried again that failed; up to twice as much.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// How long readers wait at least until a group can be heard, also where `wait_max` is shorter: subscribing takes a moment even
/// when nothing is wrong.
const SETTLE_TIME_MIN: Duration = Duration::from_secs(1);

/// How often a reader reads until its answer is of the history that is heard.
const ATTEMPTS_MAX: usize = 8;

/// Where the history of a group can be read.
pub(super) trait Histories: Send + Sync {
    /// Where it is, with the changes after a sequence. Must not wait for [`Watching`].
    fn read<'a>(
        &'a self,
        group: GroupRef<'a>,
        after_seq: u64,
    ) -> BoxFuture<'a, Result<Logged, StoreError>>;
}

/// What is read of a group.
pub(super) trait Placed {
    /// Where in which history it is; `None` where it fits any.
    fn place(&self) -> Option<(&str, u64)>;
}

impl Placed for Snapshot {
    fn place(&self) -> Option<(&str, u64)> {
        Some((&self.epoch, self.seq))
    }
}

impl Placed for SnapshotPage {
    fn place(&self) -> Option<(&str, u64)> {
        Some((&self.epoch, self.seq))
    }
}

impl Placed for Option<Resumed> {
    fn place(&self) -> Option<(&str, u64)> {
        let resumed = self.as_ref()?;
        Some((&resumed.epoch, resumed.seq))
    }
}

impl Placed for Position {
    fn place(&self) -> Option<(&str, u64)> {
        Some((&self.epoch, self.seq))
    }
}

/// See the module.
pub(super) struct Watching {
    shared: Arc<Shared>,
    shards: Vec<Mutex<HashMap<GroupKey, Arc<Watch>>>>,
    hasher: DefaultHashBuilder,
    /// Taken by the task that reads.
    wanted: Mutex<Option<mpsc::UnboundedReceiver<Arc<Watch>>>>,
}

/// What all watched groups need.
struct Shared {
    client: Arc<RedisClient>,
    sink: Arc<dyn RelaySink>,
    settle_time_max: Duration,
    /// Each group is in it once at most.
    reads: mpsc::UnboundedSender<Arc<Watch>>,
    held_bytes: AtomicUsize,
    metrics: Arc<Metrics>,
}

type Reading<T> = BoxFuture<'static, Result<T, StoreError>>;

/// A read that has begun.
pub(super) struct Begun {
    /// `None`: nobody watches the group, so whatever is found is good.
    watch: Option<Arc<Watch>>,
    mark: Option<Mark>,
}

impl Begun {
    /// The same read, which also notes where it found the group: changes after that are told.
    pub(super) fn noting<T, F, R>(
        &self,
        read: R,
    ) -> impl FnOnce(Arc<super::Shared>, GroupKeys) -> Reading<T> + Send + use<T, F, R>
    where
        R: FnOnce(Arc<super::Shared>, GroupKeys) -> F + Send + 'static,
        T: Placed + Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let watch = self.watch.clone();
        move |shared, keys| -> Reading<T> {
            Box::pin(async move {
                let found = read(shared, keys).await?;
                if let (Some(watch), Some((epoch, seq))) = (watch, found.place()) {
                    watch.change(|watched, out| watched.note(epoch, seq, out));
                }
                Ok(found)
            })
        }
    }
}

/// One watched group.
struct Watch {
    me: Weak<Watch>,
    group: GroupKey,
    channel: Channel,
    shared: Arc<Shared>,
    /// Watched no more: what may still be heard is of no use.
    is_gone: AtomicBool,
    /// A read is wanted and not begun.
    is_queued: AtomicBool,
    /// Held while followers are told, so that they are told in order. The hub calls [`Watching::came`] and [`Watching::went`]
    /// with its own lock held, so these must not need it.
    state: Mutex<Watched>,
    settled: Notify,
}

impl Watching {
    /// Watches nothing yet, and tells `sink`. Nothing is read before [`Watching::run`].
    pub(super) fn new(
        client: Arc<RedisClient>,
        sink: Arc<dyn RelaySink>,
        wait_max: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (reads, wanted) = mpsc::unbounded_channel();
        Self {
            shared: Arc::new(Shared {
                client,
                sink,
                settle_time_max: wait_max.max(SETTLE_TIME_MIN),
                reads,
                held_bytes: AtomicUsize::new(0),
                metrics,
            }),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            wanted: Mutex::new(Some(wanted)),
        }
    }

    /// Watches a group from now on; its changes come by `channel`.
    pub(super) fn came(&self, group: &GroupKey, channel: Channel) {
        let watch = Arc::new_cyclic(|me| Watch {
            me: me.clone(),
            group: group.clone(),
            channel: channel.clone(),
            shared: self.shared.clone(),
            is_gone: AtomicBool::new(false),
            is_queued: AtomicBool::new(false),
            state: Mutex::default(),
            settled: Notify::new(),
        });
        let before = self
            .shard(group.as_ref())
            .lock()
            .insert(group.clone(), watch.clone());
        if let Some(before) = before {
            before.is_gone.store(true, Ordering::Release);
        }
        self.shared.client.subscribe(channel, watch);
    }

    /// Watches a group no more.
    pub(super) fn went(&self, group: &GroupKey) {
        let Some(watch) = self.shard(group.as_ref()).lock().remove(group) else {
            return;
        };
        watch.is_gone.store(true, Ordering::Release);
        self.shared.client.unsubscribe(&watch.channel);
    }

    /// Begins to read a group for somebody who follows its changes, and whose changes are held back from now on.
    pub(super) fn begin(&self, group: GroupRef<'_>) -> Begun {
        let watch = self.shard(group).lock().get(&group).cloned();
        Begun {
            mark: watch.as_ref().map(|watch| watch.state.lock().mark()),
            watch,
        }
    }

    /// Ends such a read with what was found `first`: not before the changes that follow it are heard, and `again` where it is of
    /// another history than they are.
    ///
    /// Errors: those of the reads; [`StoreErrorCause::Unavailable`] where the changes cannot be heard in time;
    /// [`StoreErrorCause::Contended`] where the history does not come to rest.
    pub(super) async fn finish<T, F>(
        &self,
        group: GroupRef<'_>,
        mut begun: Begun,
        first: F,
        again: impl Fn(&Begun) -> F,
    ) -> Result<T, StoreError>
    where
        T: Placed,
        F: Future<Output = Result<T, StoreError>>,
    {
        let settle_by = tokio::time::Instant::now() + self.shared.settle_time_max;
        let mut reading = first;
        for _ in 0..ATTEMPTS_MAX {
            let found = reading.await?;
            let (Some(watch), Some(mark)) = (&begun.watch, begun.mark) else {
                return Ok(found);
            };
            let Some((epoch, seq)) = found.place() else {
                return Ok(found);
            };
            let Ok(()) = tokio::time::timeout_at(settle_by, watch.settled()).await else {
                return Err(StoreError::new(
                    StoreErrorCause::Unavailable,
                    "Redis is not available: the changes of this group cannot be heard",
                ));
            };
            if watch.is_fresh(mark, epoch, seq) {
                return Ok(found);
            }
            // Another history is known by the time it is read again.
            let _ = tokio::time::timeout_at(settle_by, watch.settled()).await;
            begun = self.begin(group);
            reading = again(&begun);
        }
        Err(StoreError::new(
            StoreErrorCause::Contended,
            "the history of this group began anew again and again while it was read",
        ))
    }

    /// Reads what is missing, for as long as the process lives.
    pub(super) async fn run(&self, histories: Arc<dyn Histories>) {
        let Some(mut wanted) = self.wanted.lock().take() else {
            return;
        };
        let mut reads = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(watch) = wanted.recv(), if reads.len() < READS_MAX => {
                    reads.push(watch.read(histories.clone()));
                }
                Some(()) = reads.next() => {}
                else => return,
            }
        }
    }

    fn shard(&self, group: GroupRef<'_>) -> &Mutex<HashMap<GroupKey, Arc<Watch>>> {
        let hash = self.hasher.hash_one(group) >> 48;
        &self.shards[hash as usize % SHARDS]
    }
}

impl Watch {
    /// Waits until the changes of the group are heard.
    async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // From here on none is missed.
            settled.as_mut().enable();
            if self.state.lock().is_settled() {
                return;
            }
            settled.await;
        }
    }

    fn is_fresh(&self, mark: Mark, epoch: &str, seq: u64) -> bool {
        self.change(|watched, out| watched.is_fresh(mark, epoch, seq, out))
    }

    /// Reads once, or has it tried again after a pause.
    async fn read(self: Arc<Self>, histories: Arc<dyn Histories>) {
        self.is_queued.store(false, Ordering::Release);
        if self.is_gone.load(Ordering::Acquire) {
            return;
        }
        let Some(asked) = self.state.lock().start_read() else {
            return;
        };
        self.shared.metrics.redis_history_reads.inc();
        match histories.read(self.group.as_ref(), asked.after_seq).await {
            Ok(logged) => {
                self.change(|watched, out| watched.take_read(asked.read, logged, out));
            }
            Err(error) => {
                tracing::debug!(stream = %self.group.stream, group = %self.group.group, %error, "reading a watched group failed");
                tokio::spawn(async move {
                    let jitter = DefaultHashBuilder::default().hash_one(asked.read) % 256;
                    tokio::time::sleep(READ_PAUSE + READ_PAUSE * jitter as u32 / 256).await;
                    if self.state.lock().awaits(asked.read) {
                        self.queue_read();
                    }
                });
            }
        }
    }

    fn queue_read(&self) {
        let Some(me) = self.me.upgrade() else { return };
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            // Nobody reads any more when the server ends.
            let _ = self.shared.reads.send(me);
        }
    }

    /// Changes how the group stands, and does what follows.
    fn change<T>(&self, change: impl FnOnce(&mut Watched, &mut Vec<Act>) -> T) -> T {
        let mut out = Vec::new();
        let mut watched = self.state.lock();
        let held_before = watched.held_bytes();
        let changed = change(&mut watched, &mut out);
        let held = &self.shared.held_bytes;
        match watched.held_bytes().checked_sub(held_before) {
            Some(more) => held.fetch_add(more, Ordering::Relaxed),
            None => held.fetch_sub(held_before - watched.held_bytes(), Ordering::Relaxed),
        };
        let is_gone = self.is_gone.load(Ordering::Acquire);
        for act in out {
            match act {
                Act::Read => self.queue_read(),
                Act::Settled => self.settled.notify_waiters(),
                _ if is_gone => {}
                Act::Change(change) => self.shared.sink.publish(&self.group, change, None),
                Act::Missed => {
                    self.shared.metrics.redis_history_gaps.inc();
                    self.shared.sink.missed(&self.group, true);
                }
                Act::Restarted(at) => {
                    self.shared.metrics.redis_history_restarts.inc();
                    self.shared.sink.restarted(&self.group, &at);
                }
            }
        }
        changed
    }
}

impl Listener for Watch {
    fn hear(&self, channel: &str, event: ChannelEvent) {
        if self.is_gone.load(Ordering::Acquire) {
            return;
        }
        match event {
            ChannelEvent::Ready => self.change(Watched::ready),
            ChannelEvent::Lost => self.change(|watched, _| watched.lost()),
            ChannelEvent::Message(bytes) => match read_message(&bytes) {
                Ok(message) => {
                    let held = self.shared.held_bytes.load(Ordering::Relaxed);
                    let room = HELD_BYTES_MAX.saturating_sub(held);
                    self.change(|watched, out| watched.hear(message, bytes.len(), room, out));
                }
                Err(error) => {
                    tracing::warn!(%channel, %error, "a message from Redis cannot be read: the group is read anew");
                    self.change(Watched::hear_noise);
                }
            },
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let held = self.state.get_mut().held_bytes();
        self.shared.held_bytes.fetch_sub(held, Ordering::Relaxed);
    }
}
