//! The subscriptions of one connection: from join over guard and snapshot to live, and to leave.
//!
//! Nothing here waits. What takes time, a guard or a snapshot from a worker, goes on beside the reading of messages and comes
//! back as a [`Step`]; so a slow one delays neither other joins nor pongs. What a client says of a subscription that has not
//! begun takes effect once it has, in order. A subscription begins once the `sync` before its own is on its way, so that many
//! large ones do not pile up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use iii_stream_core::event::{session_input, unauthorized_frame};
use tokio::sync::oneshot;

use super::subscribers::Subscribers;
use crate::clock;
use crate::hub::{ConnectionId, Joined, Subscribing};
use crate::socket::{CloseCode, Outbox};
use crate::store::{Snapshot, StoreError};

/// Messages about one subscription that wait for its beginning; one more closes the connection.
const WAITING_MAX: usize = 64;

/// See the module.
pub(super) struct Subscriptions {
    id: ConnectionId,
    subscribers: Arc<Subscribers>,
    outbox: Arc<Outbox>,
    /// What the auth function gave, as JSON text.
    context: Option<Arc<str>>,
    live: HashMap<Arc<str>, Subscribing>,
    beginning: HashMap<Arc<str>, Beginning>,
    steps: FuturesUnordered<BoxFuture<'static, (Arc<str>, Step)>>,
    /// Subscriptions that were let in and wait for room, the first ones first.
    queued: VecDeque<Arc<str>>,
}

/// A subscription that has not begun.
struct Beginning {
    join: Subscribing,
    stage: Stage,
    /// What was said of it since.
    waiting: VecDeque<Said>,
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its guard is out.
    Guarded,
    /// It was let in and waits for room.
    Queued,
    /// Its snapshot is being read, and its events are held back.
    Reading,
}

/// What came of something that took time.
pub(super) enum Step {
    /// A guard's verdict.
    Verdict(bool),
    /// A snapshot.
    Read(Result<Snapshot, StoreError>),
}

/// What a client said of a subscription.
enum Said {
    Join(Subscribing),
    Leave,
}

impl Subscriptions {
    pub(super) fn new(
        id: ConnectionId,
        subscribers: Arc<Subscribers>,
        outbox: Arc<Outbox>,
        context: Option<Arc<str>>,
    ) -> Self {
        Self {
            id,
            subscribers,
            outbox,
            context,
            live: HashMap::new(),
            beginning: HashMap::new(),
            steps: FuturesUnordered::new(),
            queued: VecDeque::new(),
        }
    }

    /// Whether something that takes time is under way.
    pub(super) fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The next thing that has come to its end. May be dropped and called again.
    pub(super) async fn next_step(&mut self) -> Option<(Arc<str>, Step)> {
        self.steps.next().await
    }

    /// Whether subscriptions wait for room.
    pub(super) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Takes a client's wish to subscribe.
    pub(super) fn join(&mut self, join: Subscribing) {
        if let Some(beginning) = self.beginning.get_mut(&join.subscription_id) {
            beginning.waiting.push_back(Said::Join(join));
            self.bound_waiting();
            return;
        }
        let limit = self.subscribers.limits.subscriptions_max;
        let is_new = !self.live.contains_key(&join.subscription_id);
        if is_new && limit <= self.live.len() + self.beginning.len() {
            tracing::debug!(
                connection = self.id,
                limit,
                "join refused: too many subscriptions"
            );
            self.refuse(&join);
            return;
        }
        let id = join.subscription_id.clone();
        if !self.subscribers.joins.is_guarded(&join.group.stream) {
            self.insert(join, Stage::Queued);
            self.begin_or_queue(&id);
            return;
        }
        let subscribers = self.subscribers.clone();
        let (guarded, stream, input) = (id, join.group.stream.clone(), self.input(&join));
        self.insert(join, Stage::Guarded);
        self.steps.push(Box::pin(async move {
            let admits = subscribers.joins.admits(&stream, &input).await;
            (guarded, Step::Verdict(admits))
        }));
    }

    /// Ends a subscription that exists; triggers learn its own data, whatever else the message said.
    pub(super) fn leave(&mut self, subscription_id: &str) {
        if let Some(beginning) = self.beginning.get_mut(subscription_id) {
            beginning.waiting.push_back(Said::Leave);
            self.bound_waiting();
        } else if let Some(join) = self.live.remove(subscription_id) {
            self.subscribers
                .hub
                .leave(join.group.as_ref(), self.id, subscription_id);
            self.tell_left(&join);
        }
    }

    /// Goes on with a subscription for which something has come to its end.
    pub(super) fn take_step(&mut self, subscription_id: &Arc<str>, step: Step) {
        match step {
            Step::Verdict(true) => self.begin_or_queue(subscription_id),
            Step::Verdict(false) => {
                if let Some(Beginning { join, waiting, .. }) =
                    self.beginning.remove(subscription_id)
                {
                    self.refuse(&join);
                    self.take_waiting(subscription_id, waiting);
                }
            }
            Step::Read(snapshot) => self.take_snapshot(subscription_id, &snapshot),
        }
    }

    /// Begins subscriptions that wait for room.
    pub(super) fn begin_queued(&mut self) {
        while self.outbox.has_room()
            && let Some(id) = self.queued.pop_front()
        {
            self.begin(&id);
        }
    }

    /// Ends everything. Whoever was let in by a guard is told to have left, also where the subscription had no time to begin.
    pub(super) fn end(mut self) {
        for join in self.live.values() {
            self.subscribers
                .hub
                .disconnect(join.group.as_ref(), self.id);
            self.tell_left(join);
        }
        let mut guarded = HashMap::new();
        for (id, Beginning { join, stage, .. }) in std::mem::take(&mut self.beginning) {
            self.subscribers
                .hub
                .disconnect(join.group.as_ref(), self.id);
            match stage {
                Stage::Guarded => drop(guarded.insert(id, join)),
                Stage::Queued | Stage::Reading => self.tell_left(&join),
            }
        }
        if guarded.is_empty() {
            return;
        }
        tokio::spawn(async move {
            while let Some((id, step)) = self.steps.next().await {
                let join = guarded.remove(&id);
                if let (Step::Verdict(true), Some(join)) = (step, join) {
                    self.tell_left(&join);
                }
            }
        });
    }

    fn insert(&mut self, join: Subscribing, stage: Stage) {
        let beginning = Beginning {
            stage,
            waiting: VecDeque::new(),
            join,
        };
        self.beginning
            .insert(beginning.join.subscription_id.clone(), beginning);
    }

    fn begin_or_queue(&mut self, subscription_id: &Arc<str>) {
        if self.outbox.has_room() {
            self.begin(subscription_id);
        } else if let Some(beginning) = self.beginning.get_mut(subscription_id) {
            beginning.stage = Stage::Queued;
            self.queued.push_back(subscription_id.clone());
        }
    }

    /// Holds events back and reads the snapshot. A live subscription with the same id is replaced, and has left if it was to
    /// something else.
    fn begin(&mut self, subscription_id: &Arc<str>) {
        let Some(beginning) = self.beginning.get_mut(subscription_id) else {
            return;
        };
        beginning.stage = Stage::Reading;
        let join = beginning.join.clone();
        if let Some(old) = self.live.remove(subscription_id)
            && (&old.group, &old.item) != (&join.group, &join.item)
        {
            self.subscribers
                .hub
                .leave(old.group.as_ref(), self.id, subscription_id);
            self.tell_left(&old);
        }
        self.subscribers
            .hub
            .begin_join(&join.group, self.id, &self.outbox);
        self.read(join);
    }

    /// Reads a snapshot: here and now where the store can.
    fn read(&mut self, join: Subscribing) {
        let id = join.subscription_id.clone();
        let mut reading = Box::pin(snapshot(self.subscribers.clone(), join));
        match (&mut reading).now_or_never() {
            Some(snapshot) => self.take_snapshot(&id, &snapshot),
            None => self
                .steps
                .push(Box::pin(async move { (id, Step::Read(reading.await)) })),
        }
    }

    fn take_snapshot(
        &mut self,
        subscription_id: &Arc<str>,
        snapshot: &Result<Snapshot, StoreError>,
    ) {
        let Some(Beginning { join, waiting, .. }) = self.beginning.remove(subscription_id) else {
            return;
        };
        let hub = &self.subscribers.hub;
        let joined = match snapshot {
            Ok(snapshot) => hub.finish_join(self.id, &join, snapshot),
            Err(error) => {
                tracing::error!(stream = %join.group.stream, group = %join.group.group, %error, "join failed");
                hub.abandon_join(join.group.as_ref(), self.id);
                // Without a snapshot there is nothing true to show; the client connects again.
                self.outbox.close(CloseCode::StoreFailed);
                self.tell_left(&join);
                return;
            }
        };
        match joined {
            Joined::Live => {
                self.live.insert(subscription_id.clone(), join);
                self.take_waiting(subscription_id, waiting);
            }
            Joined::SnapshotTooOld => {
                let beginning = Beginning {
                    join: join.clone(),
                    stage: Stage::Reading,
                    waiting,
                };
                self.beginning.insert(subscription_id.clone(), beginning);
                self.read(join);
            }
            // The connection ends.
            Joined::Gone => {}
        }
    }

    /// Takes what was said of a subscription before it began, up to its next beginning.
    fn take_waiting(&mut self, subscription_id: &Arc<str>, mut waiting: VecDeque<Said>) {
        while let Some(said) = waiting.pop_front() {
            match said {
                Said::Join(join) => self.join(join),
                Said::Leave => self.leave(subscription_id),
            }
            if let Some(beginning) = self.beginning.get_mut(subscription_id) {
                beginning.waiting.append(&mut waiting);
                return;
            }
        }
    }

    fn refuse(&self, join: &Subscribing) {
        let frame = unauthorized_frame(join.group.as_ref(), join.item.as_deref(), clock::unix_ms());
        self.outbox.push(frame.into());
    }

    /// Closes the connection of a client that says too much of one subscription before it has begun.
    fn bound_waiting(&self) {
        if self
            .beginning
            .values()
            .any(|beginning| WAITING_MAX < beginning.waiting.len())
        {
            self.outbox.close(CloseCode::Policy);
        }
    }

    fn tell_left(&self, join: &Subscribing) {
        self.subscribers
            .leaves
            .tell(&join.group.stream, || self.input(join));
    }

    fn input(&self, join: &Subscribing) -> String {
        let Subscribing {
            subscription_id,
            group,
            item,
        } = join;
        session_input(
            subscription_id,
            group.as_ref(),
            item.as_deref(),
            self.context.as_deref(),
        )
    }
}

async fn snapshot(
    subscribers: Arc<Subscribers>,
    join: Subscribing,
) -> Result<Snapshot, StoreError> {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |snapshot| {
        // The connection may be gone.
        let _ = sender.send(snapshot);
    });
    subscribers.streams.snapshot(
        join.group.as_ref(),
        join.item.as_deref(),
        clock::unix_ms(),
        done,
    );
    let dropped = |_| StoreError {
        message: "the store dropped the request".into(),
    };
    receiver.await.map_err(dropped)?
}
