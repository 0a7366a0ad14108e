//! One connection's part in one group: what it subscribes to, how far it has seen, and what is held back or missed.
//!
//! A member is in one of three states. *Live*: each change goes to its outbox. *Holding*: while one of its subscriptions
//! begins, changes are held back, so that none overtakes the `sync` and none is lost between snapshot and subscription.
//! *Lagging*: its peer reads too slowly, changes have passed it by, and it is owed a fresh `sync` or a resume. An event is told
//! once for all subscriptions, so whoever lags is told nothing more of the group before all of them have begun anew. Except,
//! in version 1, of custom events: no `sync` tells of them, and they say nothing of the items.

mod hold;
mod restarting;

use std::cell::Cell;
use std::cmp::Ordering;
use std::sync::Arc;

use iii_stream_core::event::wants;
use iii_stream_core::{Change, GroupRef, Position, View};
use tokio::sync::oneshot;

use hold::{Hold, is_event};

use super::batch::Batch;
use super::dialect::{Dialect, Framing};
use crate::metrics::{Metrics, SlowConsumerEnd};
use crate::socket::{CloseCode, Frame, Outbox};
use crate::store::Clients;

/// See the module.
pub(super) struct Member {
    pub(super) connection: super::ConnectionId,
    pub(super) outbox: Arc<Outbox>,
    dialect: Dialect,
    /// What of the group the client may read.
    view: View,
    subscriptions: Vec<Subscription>,
    hold: Option<Box<Hold>>,
    /// The last change that was handed to the outbox or skipped. A subscription that began later has seen more.
    seen: u64,
    /// The last change that a `sync` told some subscription of.
    synced: u64,
    /// Changes after this one have passed by some subscription.
    lags_since: Option<u64>,
    /// How often the group's history had begun anew when this member was last told.
    restarts: u32,
    /// The history has begun anew, and nobody has asked yet for whom it has. Changes are held back until then.
    is_restarted: bool,
}

struct Subscription {
    id: Arc<str>,
    /// `None`: the whole group.
    item: Option<Arc<str>>,
    /// Its `sync` told of all changes up to this one.
    synced: u64,
    standing: Standing,
}

/// Whether a subscription has seen what it was to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has.
    Current,
    /// Changes after this one have passed it by, and it has not begun anew.
    Behind(u64),
    /// The history that it was told of has ended, and it has not begun anew.
    Restarted,
}

/// What a connection subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribing {
    /// Chosen by the client, unique on its connection.
    pub subscription_id: Arc<str>,
    /// The group.
    pub group: iii_stream_core::GroupKey,
    /// The item; `None`: the whole group.
    pub item: Option<Arc<str>>,
    /// Mutation clients that it asks about.
    pub clients: Clients,
}

/// A subscription that changes have passed by, or whose history has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Which one.
    pub subscription_id: Arc<str>,
    /// The last change that it has seen. `None` where its history has ended: there is nothing to go on from.
    pub since: Option<Position>,
}

/// What is to be done after a subscription's beginning was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The subscription is live.
    Live,
    /// The connection has seen later changes than the snapshot holds, or the group's history has begun anew since: take another
    /// one.
    SnapshotTooOld,
    /// The connection is gone.
    Gone,
}

/// Whether everything up to a sequence was told.
#[derive(Debug)]
pub enum ToldUpTo {
    /// It was, and nothing after it.
    Told,
    /// More was, by another subscription of the connection.
    Passed,
    /// It was not, because some of it has yet to come: ask again when this is done.
    Awaited(oneshot::Receiver<()>),
    /// It was not, and will not be: something was dropped, the history has begun anew, or a subscription is to begin anew.
    Never,
}

/// What members of a group share when changes reach them.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) group: GroupRef<'a>,
    /// Names the history that its changes are of now.
    pub(super) epoch: &'a Arc<str>,
    /// How often it has begun anew.
    pub(super) restarts: u32,
    pub(super) held_max: usize,
    pub(super) metrics: &'a Metrics,
    pub(super) tally: &'a Tally,
}

/// What one step has delivered.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) messages: Cell<u64>,
    pub(super) bytes: Cell<u64>,
}

impl Tally {
    fn add(&self, messages: usize, bytes: usize) {
        self.messages.set(self.messages.get() + messages as u64);
        self.bytes.set(self.bytes.get() + bytes as u64);
    }
}

impl Member {
    pub(super) fn new(
        connection: super::ConnectionId,
        outbox: Arc<Outbox>,
        dialect: Dialect,
        view: View,
        restarts: u32,
    ) -> Self {
        Self {
            connection,
            outbox,
            dialect,
            view,
            subscriptions: Vec::with_capacity(1),
            hold: None,
            seen: 0,
            synced: 0,
            lags_since: None,
            restarts,
            is_restarted: false,
        }
    }

    /// The last change that a subscription has been told of, or that did not concern it.
    pub(super) fn position(&self, subscription_id: &str) -> u64 {
        let mut subscriptions = self.subscriptions.iter();
        let synced = subscriptions
            .find(|subscription| &*subscription.id == subscription_id)
            .map_or(0, |subscription| subscription.synced);
        self.seen.max(synced)
    }

    /// The subscriptions that changes have passed by or whose history has ended; asked once, by whoever makes good for it.
    /// Changes are held back from now on, once for each of them.
    pub(super) fn take_lag(&mut self, context: Context<'_>) -> Vec<Behind> {
        if self.restarts != context.restarts {
            // It is about to learn that its history has ended.
            return Vec::new();
        }
        let since = self.lags_since.take();
        let is_restarted = std::mem::take(&mut self.is_restarted);
        if let Some(since) = since {
            for subscription in &mut self.subscriptions {
                if subscription.standing == Standing::Current {
                    subscription.standing = Standing::Behind(since.max(subscription.synced));
                }
            }
        } else if !is_restarted {
            return Vec::new();
        }
        let behind = self.subscriptions.iter();
        let behind: Vec<_> = behind
            .filter_map(|subscription| subscription.behind(context.epoch))
            .collect();
        behind.iter().for_each(|_| self.hold());
        if is_restarted {
            self.release(context);
        }
        behind
    }

    /// A subscription that changes have passed by or whose history has ended, if it has not begun anew.
    pub(super) fn behind(&self, subscription_id: &str, context: Context<'_>) -> Option<Behind> {
        if self.restarts != context.restarts {
            return None;
        }
        let mut subscriptions = self.subscriptions.iter();
        subscriptions
            .find(|subscription| &*subscription.id == subscription_id)?
            .behind(context.epoch)
    }

    /// Begins to hold changes back.
    pub(super) fn hold(&mut self) {
        self.hold.get_or_insert_default().joins += 1;
    }

    /// Ends a hold; once no other is left, sends what was held back.
    pub(super) fn release(&mut self, context: Context<'_>) {
        let Some(hold) = &mut self.hold else { return };
        hold.joins = hold.joins.saturating_sub(1);
        if 0 < hold.joins {
            return;
        }
        let Some(hold) = self.hold.take() else { return };
        if hold.is_overrun {
            self.take_missed(hold.lost_events, context);
        } else {
            self.send(&hold.changes, context);
        }
    }

    /// Tells what is held back up to `seq` while other changes go on being held back.
    pub(super) fn tell_up_to(
        &mut self,
        subscription_id: &str,
        seq: u64,
        context: Context<'_>,
    ) -> ToldUpTo {
        if self.restarts != context.restarts || self.is_some_behind() || self.lags_since.is_some() {
            return ToldUpTo::Never;
        }
        if let Some(hold) = &mut self.hold {
            if hold.is_overrun {
                return ToldUpTo::Never;
            }
            let before = hold.take_up_to(seq);
            self.send(&before, context);
        }
        match (self.position(subscription_id).cmp(&seq), &mut self.hold) {
            (Ordering::Equal, _) => ToldUpTo::Told,
            (Ordering::Greater, _) => ToldUpTo::Passed,
            (Ordering::Less, Some(hold)) if self.lags_since.is_none() => {
                ToldUpTo::Awaited(hold.wait(seq))
            }
            (Ordering::Less, _) => ToldUpTo::Never,
        }
    }

    /// Begins a subscription whose snapshot or resume reaches up to `seq`: sends what was held back before it, then `frames`.
    pub(super) fn begin(
        &mut self,
        join: &Subscribing,
        seq: u64,
        frames: &[Frame],
        context: Context<'_>,
    ) -> Joined {
        if self.restarts != context.restarts || seq < self.seen.max(self.synced) {
            return Joined::SnapshotTooOld;
        }
        // An event now would hide from a subscription that is still behind what it has missed: the client cannot know yet
        // that it is. Those who have begun get it after the last of them, and by its sequence see whether it is news.
        let is_some_behind = self.is_some_behind();
        if let Some(hold) = &mut self.hold {
            let before = match (is_some_behind, self.dialect.is_version_2) {
                (false, _) => hold.take_up_to(seq),
                // No `sync` tells of them, whenever it comes.
                (true, false) => hold.take_events_up_to(seq),
                (true, true) => Vec::new(),
            };
            self.send(&before, context);
        }
        self.synced = seq;
        for frame in frames {
            self.outbox.deliver_uncounted(frame);
        }
        self.unsubscribe(&join.subscription_id);
        self.subscriptions.push(Subscription {
            id: join.subscription_id.clone(),
            item: join.item.clone(),
            synced: seq,
            standing: Standing::Current,
        });
        if join.item.is_none() && !self.dialect.is_version_2 {
            // This `sync` tells of everything, to the connection's other subscriptions of the group too.
            for subscription in &mut self.subscriptions {
                subscription.synced = subscription.synced.max(seq);
            }
        }
        Joined::Live
    }

    pub(super) fn unsubscribe(&mut self, subscription_id: &str) {
        self.subscriptions
            .retain(|subscription| &*subscription.id != subscription_id);
    }

    /// Takes the next changes of the group.
    pub(super) fn take(&mut self, batch: &Batch<'_>, context: Context<'_>) {
        match &mut self.hold {
            Some(hold) => hold.add(batch.changes, context.held_max, self.outbox.bytes_max()),
            None if self.lags_since.is_some() => self.miss(batch.changes, context),
            None => self.send_batch(batch, context),
        }
    }

    /// Learns that changes were dropped before they could be sent.
    pub(super) fn take_missed(&mut self, events: bool, context: Context<'_>) {
        if let Some(hold) = &mut self.hold {
            hold.overrun();
            hold.lost_events |= events;
        } else if events && !self.dialect.is_version_2 {
            self.close_for_missed_event(context);
        } else {
            self.lag();
        }
    }

    fn send(&mut self, changes: &[Arc<Change>], context: Context<'_>) {
        if self.lags_since.is_some() {
            self.miss(changes, context);
        } else if !changes.is_empty() {
            self.send_batch(&Batch::new(context.group, context.epoch, changes), context);
        }
    }

    fn send_batch(&mut self, batch: &Batch<'_>, context: Context<'_>) {
        let Some(first) = batch.changes.first() else {
            return;
        };
        let wants_all = match self.subscriptions.as_slice() {
            [one] => {
                one.item.is_none()
                    && one.synced < first.seq
                    && self.view == View::All
                    && one.standing == Standing::Current
            }
            _ => false,
        };
        let has_own_ids =
            !wants_all && self.dialect.framing == Framing::EventStream && self.view != View::All;
        if !has_own_ids {
            return self.send_wanted(batch, wants_all, context);
        }
        // They tell of a part of the group.
        let epoch = self.view.epoch(context.epoch).into_owned();
        let own = Batch::new(context.group, &epoch, batch.changes);
        self.send_wanted(&own, wants_all, context);
    }

    /// Sends all of the changes, or those that are wanted.
    fn send_wanted(&mut self, batch: &Batch<'_>, wants_all: bool, context: Context<'_>) {
        let Some(last) = batch.changes.last() else {
            return;
        };
        let (run, count) = if wants_all {
            (batch.run(self.dialect), batch.changes.len())
        } else {
            let wanted: Vec<usize> = (0..batch.changes.len())
                .filter(|&index| self.wants(&batch.changes[index]))
                .collect();
            if wanted.is_empty() {
                self.seen = self.seen.max(last.seq);
                return;
            }
            (batch.some(self.dialect, &wanted), wanted.len())
        };
        let Ok(run) = run else {
            // Nobody needed the value when the change was made.
            return self.miss(batch.changes, context);
        };
        if 1 < count && self.outbox.bytes_max() < run.len() {
            return self.send_singly(batch, context);
        }
        match self.outbox.deliver(&run) {
            Ok(()) => {
                self.seen = self.seen.max(last.seq);
                context.tally.add(count, run.len());
            }
            Err(_) => self.miss(batch.changes, context),
        }
    }

    /// Sends one by one what would not fit together.
    fn send_singly(&mut self, batch: &Batch<'_>, context: Context<'_>) {
        for (index, change) in batch.changes.iter().enumerate() {
            if self.wants(change) {
                let Ok(frame) = batch.frame(self.dialect, index) else {
                    return self.miss(&batch.changes[index..], context);
                };
                if self.outbox.deliver(&frame).is_err() {
                    return self.miss(&batch.changes[index..], context);
                }
                context.tally.add(1, frame.len());
            }
            self.seen = self.seen.max(change.seq);
        }
    }

    /// Lets changes pass by. No later state tells of custom events, and version 1 cannot be told that it missed some.
    fn miss(&mut self, changes: &[Arc<Change>], context: Context<'_>) {
        let wanted = || changes.iter().filter(|change| self.wants(change));
        context
            .metrics
            .slow_consumer_missed
            .inc_by(wanted().count() as u64);
        if !self.dialect.is_version_2 && wanted().any(|change| is_event(change)) {
            self.close_for_missed_event(context);
        }
        self.lag();
    }

    fn close_for_missed_event(&self, context: Context<'_>) {
        if !self.outbox.is_closing() {
            let ends = &context.metrics.slow_consumer_ends;
            ends.of(SlowConsumerEnd::MissedEvent).inc();
            self.outbox.close(CloseCode::SlowConsumer);
        }
    }

    fn lag(&mut self) {
        if self.lags_since.is_none() {
            self.lags_since = Some(self.seen);
            self.outbox.want_room();
        }
    }

    /// Whether one of the subscriptions gets to see a change that its `sync` did not tell of.
    fn wants(&self, change: &Change) -> bool {
        let is_wanted = self.subscriptions.iter().any(|subscription| {
            subscription.synced < change.seq
                && wants(subscription.item.as_deref(), change)
                && !self.is_mute(subscription, change)
        });
        is_wanted && self.view.shows(change.item.as_deref())
    }

    /// Whether a subscription is not told of a change before it begins anew: after what it has missed, it would be shown items
    /// that never were beside each other.
    fn is_mute(&self, subscription: &Subscription, change: &Change) -> bool {
        let is_told_always = !self.dialect.is_version_2 && is_event(change);
        subscription.standing != Standing::Current && !is_told_always
    }

    fn is_some_behind(&self) -> bool {
        let mut subscriptions = self.subscriptions.iter();
        subscriptions.any(|other| other.standing != Standing::Current)
    }
}

impl Subscription {
    /// Where it left off in the history of this name, if it has to begin anew.
    fn behind(&self, epoch: &Arc<str>) -> Option<Behind> {
        let since = match self.standing {
            Standing::Current => return None,
            Standing::Behind(seq) => Some(Position {
                epoch: epoch.clone(),
                seq,
            }),
            Standing::Restarted => None,
        };
        Some(Behind {
            subscription_id: self.id.clone(),
            since,
        })
    }
}

#[cfg(test)]
mod tests;
