//! The subscriptions of one connection: from join over guard and snapshot to live, and to leave.
//!
//! Nothing here waits. What takes time, a guard or a snapshot from a worker, goes on beside the reading of messages and comes
//! back as a [`Step`]; so a slow one delays neither other joins nor pongs. What a client says of a subscription that has not
//! begun takes effect once it has, in order. A subscription begins once the `sync` before its own is on its way, and so does
//! each page of a large one, so that they do not pile up. A subscription that changes have passed by begins anew.

mod paging;
mod remedy;
mod said;

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use hashbrown::HashMap;
use iii_stream_core::event::{session_input, unauthorized_frame};
use iii_stream_core::version2::error_frame;
use iii_stream_core::{Grants, GroupKey, Position};

use paging::Paging;
use said::{Said, Waiting};

use super::opening::{self, OpenError, Opening, Wish};
use super::protocol::Asks;
use super::subscribers::Subscribers;
use crate::clock;
use crate::hub::{ConnectionId, Dialect, Framing, Joined, Seat, Subscribing};
use crate::socket::{CloseCode, Outbox};
use crate::store::SnapshotPage;

/// See the module.
pub(super) struct Subscriptions {
    id: ConnectionId,
    subscribers: Arc<Subscribers>,
    outbox: Arc<Outbox>,
    admitted: Admitted,
    dialect: Dialect,
    /// How the client wanted to be spoken to; `None` before it said so.
    asks: Option<Asks>,
    groups: HashMap<GroupKey, Part>,
    live: HashMap<Arc<str>, Box<Live>>,
    beginning: HashMap<Arc<str>, Beginning>,
    steps: FuturesUnordered<BoxFuture<'static, (Arc<str>, Step)>>,
    /// Subscriptions that wait for room, to begin or for their next page; the first ones first.
    queued: VecDeque<Arc<str>>,
}

/// What the connection was let in with.
pub(super) struct Admitted {
    /// What the auth function gave, as JSON text.
    pub(super) context: Option<Arc<str>>,
    /// What the client may do.
    pub(super) grants: Arc<Grants>,
}

/// The connection's part in a group.
struct Part {
    seat: Seat,
    /// Subscriptions that live or begin there.
    subscriptions: usize,
}

/// A subscription that has begun.
struct Live {
    join: Subscribing,
    paging: Option<Paging>,
}

/// A subscription that has not begun.
struct Beginning {
    join: Subscribing,
    wish: Wish,
    stage: Stage,
    /// Changes are held back for it already, because some have passed it by.
    is_held: bool,
    /// What was said of it since.
    waiting: Waiting,
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
    /// What a subscription begins with.
    Opened(Result<Opening, OpenError>),
    /// The page of its snapshot that follows an item.
    Paged(u64, Result<SnapshotPage, OpenError>),
    /// A pause is over, after which it is read again what a subscription begins anew with.
    Again,
    /// The same for the page that follows an item.
    PageAgain(u64),
}

impl Subscriptions {
    /// None yet. `asks` is what the request's address says of how to speak, if it does.
    pub(super) fn new(
        id: ConnectionId,
        subscribers: Arc<Subscribers>,
        outbox: Arc<Outbox>,
        admitted: Admitted,
        framing: Framing,
        asks: Option<Asks>,
    ) -> Self {
        let mut this = Self {
            id,
            subscribers,
            outbox,
            admitted,
            dialect: Dialect {
                framing,
                ..Dialect::VERSION_1
            },
            asks: None,
            groups: HashMap::new(),
            live: HashMap::new(),
            beginning: HashMap::new(),
            steps: FuturesUnordered::new(),
            queued: VecDeque::new(),
        };
        if let Some(asks) = asks {
            this.speak(asks);
        }
        this
    }

    /// Whether something that takes time is under way.
    pub(super) fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The next thing that has come to its end. May be dropped and called again.
    pub(super) async fn next_step(&mut self) -> Option<(Arc<str>, Step)> {
        self.steps.next().await
    }

    /// Whether the client understands answers that published clients do not know.
    pub(super) fn is_version_2(&self) -> bool {
        self.dialect.is_version_2
    }

    /// Takes a client's wish to subscribe, and to be spoken to in some way.
    pub(super) fn join_speaking(&mut self, join: Subscribing, asks: Asks, since: Option<Position>) {
        match self.asks {
            None => self.speak(asks),
            Some(first) if !asks.agrees_with(first) => {
                let message = "version, deltas and core belong to the connection: they were set by its address or its first join, and this join differs";
                return self.tell_error(
                    Some(&join.subscription_id),
                    "subscription.version_mismatch",
                    message,
                );
            }
            Some(_) => {}
        }
        self.join(join, since);
    }

    /// Takes a client's wish to subscribe.
    pub(super) fn join(&mut self, join: Subscribing, since: Option<Position>) {
        if let Some(beginning) = self.beginning.get_mut(&join.subscription_id) {
            if !beginning.waiting.keep(Said::Join(join, since)) {
                self.outbox.close(CloseCode::Policy);
            }
            return;
        }
        let limit = self.subscribers.limits.subscriptions_max;
        let is_new = !self.live.contains_key(&join.subscription_id);
        if is_new && limit <= self.live.len() + self.beginning.len() {
            let id = self.id;
            tracing::debug!(
                connection = id,
                limit,
                "join refused: too many subscriptions"
            );
            return self.refuse_for_limit(&join, limit);
        }
        if !self.may_read(&join) {
            return self.refuse(&join);
        }
        if !self.subscribers.joins.is_guarded(&join.group.stream) {
            return self.join_admitted(join, since);
        }
        let subscribers = self.subscribers.clone();
        let (stream, input) = (join.group.stream.clone(), self.input(&join));
        let guarded = self.insert(join, since, Stage::Guarded);
        self.steps.push(Box::pin(async move {
            let admits = subscribers.joins.admits(&stream, &input).await;
            (guarded, Step::Verdict(admits))
        }));
    }

    /// Begins a subscription that no guard has to be asked about any more.
    pub(super) fn join_admitted(&mut self, join: Subscribing, since: Option<Position>) {
        let id = self.insert(join, since, Stage::Queued);
        self.begin_or_queue(&id);
    }

    /// Ends a subscription that exists; triggers learn its own data, whatever else the message said.
    pub(super) fn leave(&mut self, subscription_id: &str) {
        if let Some(beginning) = self.beginning.get_mut(subscription_id) {
            if !beginning.waiting.keep(Said::Leave) {
                self.outbox.close(CloseCode::Policy);
            }
        } else if let Some(live) = self.take_live(subscription_id) {
            self.end_paging(&live);
            self.unsubscribe(&live.join);
            self.tell_left(&live.join);
        }
    }

    /// Goes on with a subscription for which something has come to its end.
    pub(super) fn take_step(&mut self, subscription_id: &Arc<str>, step: Step) {
        match step {
            Step::Verdict(true) => self.begin_or_queue(subscription_id),
            Step::Verdict(false) => {
                if let Some(Beginning { join, waiting, .. }) = self.take_beginning(subscription_id)
                {
                    self.refuse(&join);
                    self.begin_anew_if_behind(subscription_id);
                    self.take_waiting(subscription_id, waiting);
                }
            }
            Step::Opened(opened) => self.take_opened(subscription_id, opened),
            Step::Paged(after, page) => self.take_page(subscription_id, after, page),
            Step::Again => self.take_again(subscription_id),
            Step::PageAgain(after) => self.take_page_again(subscription_id, after),
        }
    }

    /// Goes on with what waited for room: makes good for what has passed subscriptions by, begins others, tells next pages.
    pub(super) fn go_on(&mut self) {
        self.make_good();
        while !self.queued.is_empty() && self.outbox.asks_room() {
            let Some(id) = self.queued.pop_front() else {
                break;
            };
            match self.beginning.get(&id).map(|beginning| beginning.stage) {
                Some(Stage::Queued) => self.begin(&id),
                // It waits for its guard: this turn is for a page of what the same id stands for until then.
                Some(Stage::Guarded) | None => self.read_page(&id),
                Some(Stage::Reading) => {}
            }
        }
    }

    /// Ends everything. Whoever was let in by a guard is told to have left, also where the subscription had no time to begin.
    pub(super) fn end(mut self) {
        for part in std::mem::take(&mut self.groups).values() {
            self.subscribers.hub.exit(&part.seat);
        }
        for live in self.live.values() {
            self.subscribers.metrics.subscriptions.dec();
            self.tell_left(&live.join);
        }
        let mut guarded = HashMap::new();
        for (id, Beginning { join, stage, .. }) in std::mem::take(&mut self.beginning) {
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

    /// Tells a client of version 2 what was wrong with something it said.
    pub(super) fn tell_error(&self, subscription_id: Option<&str>, code: &str, message: &str) {
        let frame = error_frame(subscription_id, code, message);
        self.outbox.push(self.dialect.frame(&frame, None));
    }

    fn speak(&mut self, asks: Asks) {
        let is_version_2 = asks.version_2 == Some(true);
        self.asks = Some(asks);
        self.dialect.is_version_2 = is_version_2;
        self.dialect.deltas = is_version_2 && asks.takes_deltas();
    }

    fn insert(&mut self, join: Subscribing, since: Option<Position>, stage: Stage) -> Arc<str> {
        let id = join.subscription_id.clone();
        let beginning = Beginning {
            wish: Wish {
                since: since.map(|since| self.place(&join.group, &since)),
                ..Wish::default()
            },
            join,
            stage,
            is_held: false,
            waiting: Waiting::default(),
        };
        self.beginning.insert(id.clone(), beginning);
        id
    }

    /// Where a client left off, by the history's own name. Whoever could read something else then has been nowhere.
    fn place(&self, group: &GroupKey, told: &Position) -> Position {
        let view = self.admitted.grants.view(group.as_ref());
        Position {
            epoch: view.history(&told.epoch).unwrap_or_default().into(),
            seq: told.seq,
        }
    }

    /// Takes out a subscription that begins no longer. Many connections are quiet, so they keep no empty table.
    fn take_beginning(&mut self, subscription_id: &Arc<str>) -> Option<Beginning> {
        let beginning = self.beginning.remove(subscription_id);
        if self.beginning.is_empty() {
            self.beginning = HashMap::new();
        }
        beginning
    }

    fn begin_or_queue(&mut self, subscription_id: &Arc<str>) {
        if self.outbox.asks_room() {
            self.begin(subscription_id);
        } else if let Some(beginning) = self.beginning.get_mut(subscription_id) {
            beginning.stage = Stage::Queued;
            self.queued.push_back(subscription_id.clone());
        }
    }

    /// Holds changes back and reads what the subscription begins with. A live subscription with the same id is replaced, and has
    /// left if it was to something else.
    fn begin(&mut self, subscription_id: &Arc<str>) {
        let Some(beginning) = self.beginning.get_mut(subscription_id) else {
            return;
        };
        beginning.stage = Stage::Reading;
        let (join, wish) = (beginning.join.clone(), beginning.wish.clone());
        let is_held = beginning.is_held;
        let seat = self.sit(&join.group);
        if !is_held {
            seat.hold();
        }
        if let Some(old) = self.take_live(subscription_id) {
            self.end_paging(&old);
            if (&old.join.group, &old.join.item) == (&join.group, &join.item) {
                self.stand_up(&old.join.group);
            } else {
                self.unsubscribe(&old.join);
                self.tell_left(&old.join);
            }
        }
        self.open(join, wish);
    }

    /// Reads what a subscription begins with: here and now where the store can.
    fn open(&mut self, join: Subscribing, wish: Wish) {
        let id = join.subscription_id.clone();
        let streams = self.subscribers.streams.clone();
        let view = self.admitted.grants.view(join.group.as_ref());
        let mut opening = Box::pin(opening::open(streams, join, self.dialect, wish, view));
        match (&mut opening).now_or_never() {
            Some(opened) => self.take_opened(&id, opened),
            None => self
                .steps
                .push(Box::pin(async move { (id, Step::Opened(opening.await)) })),
        }
    }

    fn take_opened(&mut self, subscription_id: &Arc<str>, opened: Result<Opening, OpenError>) {
        let Some(Beginning {
            join,
            wish,
            waiting,
            ..
        }) = self.take_beginning(subscription_id)
        else {
            return;
        };
        let framed = opened.map(|opening| (opening.frame(&join, self.dialect), opening));
        let (frame, opening) = match framed {
            Ok((Some(frame), opening)) => (frame, opening),
            Ok((None, _)) => {
                // A change without its value: only a snapshot tells how things stand.
                let wish = Wish {
                    since: None,
                    is_reset: true,
                    ..wish
                };
                return self.open_again(join, wish, waiting);
            }
            Err(error) if wish.is_remedy && error.may_pass() => {
                return self.open_later(join, wish, waiting, &error);
            }
            Err(error) => {
                self.give_up(&join, &error);
                return self.take_waiting(subscription_id, waiting);
            }
        };
        let Some(Part { seat, .. }) = self.groups.get(&join.group) else {
            return;
        };
        match seat.begin(&join, opening.epoch(), opening.seq(), &[frame]) {
            Joined::Live => {
                self.count(&opening, &wish);
                let paging = opening.next_page_after().map(|after| Paging {
                    epoch: opening.epoch().clone(),
                    after,
                    first_seq: opening.seq(),
                    is_reading: false,
                });
                if paging.is_some() {
                    self.queued.push_back(subscription_id.clone());
                    self.outbox.want_room();
                }
                // The ids of an event stream must not get ahead of its snapshot, so its events wait for the last page.
                if paging.is_none() || self.dialect.framing == Framing::WebSocket {
                    seat.release();
                }
                self.subscribers.metrics.subscriptions.inc();
                self.live
                    .insert(subscription_id.clone(), Box::new(Live { join, paging }));
                self.take_waiting(subscription_id, waiting);
            }
            Joined::SnapshotTooOld => self.open_again(join, wish, waiting),
            // The connection ends.
            Joined::Gone => {}
        }
    }

    fn open_again(&mut self, join: Subscribing, wish: Wish, waiting: Waiting) {
        self.keep_reading(join.clone(), wish.clone(), waiting);
        self.open(join, wish);
    }

    fn keep_reading(&mut self, join: Subscribing, wish: Wish, waiting: Waiting) {
        let id = join.subscription_id.clone();
        let beginning = Beginning {
            join,
            wish,
            stage: Stage::Reading,
            is_held: true,
            waiting,
        };
        self.beginning.insert(id, beginning);
    }

    fn count(&self, opening: &Opening, wish: &Wish) {
        let metrics = &self.subscribers.metrics;
        if !opening.is_resumed() {
            metrics.snapshot_pages.inc();
        }
        if wish.is_remedy {
            // No join, and no client that came back.
            return;
        }
        metrics.joins.inc();
        if opening.is_resumed() {
            metrics.resumes.inc();
        } else if opening.is_reset() {
            metrics.resets.inc();
        }
    }

    /// Takes a subscription out of those that live.
    fn take_live(&mut self, subscription_id: &str) -> Option<Box<Live>> {
        let live = self.live.remove(subscription_id)?;
        self.subscribers.metrics.subscriptions.dec();
        Some(live)
    }

    /// Gives up a subscription that cannot begin.
    fn give_up(&mut self, join: &Subscribing, error: &OpenError) {
        if let Some(part) = self.groups.get(&join.group) {
            // It may have been live before.
            part.seat.unsubscribe(&join.subscription_id);
            part.seat.release();
        }
        self.stand_up(&join.group);
        match error {
            OpenError::Unsupported => self.tell_error(
                Some(&join.subscription_id),
                "unsupported_by_storage",
                &error.to_string(),
            ),
            OpenError::Store(_) => {
                tracing::error!(stream = %join.group.stream, group = %join.group.group, %error, "join failed");
                // Without a snapshot there is nothing true to show; the client connects again.
                self.outbox.close(CloseCode::StoreFailed);
            }
        }
        self.tell_left(join);
    }

    /// Takes what was said of a subscription before it began, up to its next beginning.
    fn take_waiting(&mut self, subscription_id: &Arc<str>, mut waiting: Waiting) {
        while let Some(said) = waiting.next() {
            match said {
                Said::Join(join, since) => self.join(join, since),
                Said::Leave => self.leave(subscription_id),
            }
            if let Some(beginning) = self.beginning.get_mut(subscription_id) {
                beginning.waiting.append(&mut waiting);
                return;
            }
        }
    }

    /// The connection's seat in a group, for one more subscription.
    fn sit(&mut self, group: &GroupKey) -> &Seat {
        let part = self.groups.entry_ref(group).or_insert_with(|| {
            let view = self.admitted.grants.view(group.as_ref());
            let hub = &self.subscribers.hub;
            Part {
                seat: hub.enter(group, self.id, &self.outbox, self.dialect, &view),
                subscriptions: 0,
            }
        });
        part.subscriptions += 1;
        &part.seat
    }

    /// Gives the seat up when no other subscription needs it.
    fn stand_up(&mut self, group: &GroupKey) {
        let Some(part) = self.groups.get_mut(group) else {
            return;
        };
        part.subscriptions -= 1;
        if part.subscriptions == 0
            && let Some(part) = self.groups.remove(group)
        {
            self.subscribers.hub.exit(&part.seat);
        }
    }

    fn unsubscribe(&mut self, join: &Subscribing) {
        if let Some(part) = self.groups.get(&join.group) {
            part.seat.unsubscribe(&join.subscription_id);
        }
        self.stand_up(&join.group);
    }

    /// Whether the client may see anything of what it wants to subscribe to.
    fn may_read(&self, join: &Subscribing) -> bool {
        let view = self.admitted.grants.view(join.group.as_ref());
        view.shows(join.item.as_deref())
    }

    fn refuse(&self, join: &Subscribing) {
        self.subscribers.metrics.joins_refused.inc();
        let subscription_id = self.dialect.is_version_2.then_some(&*join.subscription_id);
        let (group, item) = (join.group.as_ref(), join.item.as_deref());
        let frame = unauthorized_frame(group, item, subscription_id, clock::unix_ms());
        self.outbox.push(self.dialect.frame(&frame, None));
    }

    fn refuse_for_limit(&self, join: &Subscribing, limit: usize) {
        if !self.dialect.is_version_2 {
            return self.refuse(join);
        }
        self.subscribers.metrics.joins_refused.inc();
        let message = format!(
            "this connection has {limit} subscriptions, which is the limit (subscriptions_max)"
        );
        self.tell_error(Some(&join.subscription_id), "subscription.limit", &message);
    }

    fn tell_left(&self, join: &Subscribing) {
        self.subscribers.metrics.leaves.inc();
        self.subscribers
            .leaves
            .tell(&join.group.stream, || self.input(join));
    }

    fn input(&self, join: &Subscribing) -> String {
        let Subscribing {
            subscription_id,
            group,
            item,
            ..
        } = join;
        session_input(
            subscription_id,
            group.as_ref(),
            item.as_deref(),
            self.admitted.context.as_deref(),
        )
    }
}
