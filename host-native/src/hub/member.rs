//! One connection's part in one group: what it subscribes to, how far it has seen, and what is held back or missed.
//!
//! A member is in one of three states. *Live*: each change goes to its outbox. *Holding*: while one of its subscriptions
//! begins, changes are held back, so that none overtakes the `sync` and none is lost between snapshot and subscription.
//! *Lagging*: its peer reads too slowly, changes have passed it by, and it is owed a fresh `sync` or a resume. An event is told
//! once for all subscriptions, so whoever lags is told nothing more of the group before all of them have begun anew.

use std::cell::Cell;
use std::sync::Arc;

use iii_stream_core::event::wants;
use iii_stream_core::{Change, GroupRef, Kind, View};

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
}

/// What is held back.
#[derive(Default)]
struct Hold {
    /// Subscriptions that begin.
    joins: usize,
    changes: Vec<Arc<Change>>,
    /// What values and operations take in them.
    bytes: usize,
    /// More came than is held, and was dropped.
    is_overrun: bool,
    /// There were custom events in it.
    lost_events: bool,
}

struct Subscription {
    id: Arc<str>,
    /// `None`: the whole group.
    item: Option<Arc<str>>,
    /// Its `sync` told of all changes up to this one.
    synced: u64,
    /// Changes after this one have passed it by, and it has not begun anew.
    behind: Option<u64>,
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

/// A subscription that changes have passed by, with the last one that it has seen.
pub type Behind = (Arc<str>, u64);

/// What is to be done after a subscription's beginning was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The subscription is live.
    Live,
    /// The connection has seen later changes than the snapshot holds: take another one.
    SnapshotTooOld,
    /// The connection is gone.
    Gone,
}

/// What members of a group share when changes reach them.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) group: GroupRef<'a>,
    pub(super) epoch: &'a str,
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

    /// The subscriptions that changes have passed by, each with the last one that it was told of; asked once, by whoever
    /// makes good for it. Changes are held back from now on, once for each of them.
    pub(super) fn take_lag(&mut self) -> Vec<Behind> {
        let Some(since) = self.lags_since.take() else {
            return Vec::new();
        };
        let behind: Vec<_> = self
            .subscriptions
            .iter_mut()
            .map(|subscription| {
                let since = since.max(subscription.synced);
                let behind = *subscription.behind.get_or_insert(since);
                (subscription.id.clone(), behind)
            })
            .collect();
        behind.iter().for_each(|_| self.hold());
        behind
    }

    /// Since which change some have passed a subscription by that has not begun anew.
    pub(super) fn behind(&self, subscription_id: &str) -> Option<u64> {
        let mut subscriptions = self.subscriptions.iter();
        subscriptions
            .find(|subscription| &*subscription.id == subscription_id)?
            .behind
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

    /// Begins a subscription whose snapshot or resume reaches up to `seq`: sends what was held back before it, then `frames`.
    pub(super) fn begin(
        &mut self,
        join: &Subscribing,
        seq: u64,
        frames: &[Frame],
        context: Context<'_>,
    ) -> Joined {
        if seq < self.seen.max(self.synced) {
            return Joined::SnapshotTooOld;
        }
        // An event now would hide from a subscription that is still behind what it has missed: the client cannot know yet
        // that it is. Those who have begun get it after the last of them, and by its sequence see whether it is news.
        let is_some_behind = self.subscriptions.iter().any(|other| self.is_mute(other));
        if !is_some_behind && let Some(hold) = &mut self.hold {
            let count = hold
                .changes
                .iter()
                .take_while(|change| change.seq <= seq)
                .count();
            let before: Vec<_> = hold.changes.drain(..count).collect();
            hold.bytes -= bytes_of(&before);
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
            behind: None,
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
                    && !self.is_mute(one)
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
                && !self.is_mute(subscription)
        });
        is_wanted && self.view.shows(change.item.as_deref())
    }

    /// Whether a subscription is told nothing until it begins anew. Version 1 has no positions that could be wrong: its next
    /// `sync` is right whatever came before.
    fn is_mute(&self, subscription: &Subscription) -> bool {
        self.dialect.is_version_2 && subscription.behind.is_some()
    }
}

fn bytes_of(changes: &[Arc<Change>]) -> usize {
    let bytes = |change: &Arc<Change>| {
        let texts = [change.value.as_ref(), change.ops.as_ref()];
        texts
            .into_iter()
            .flatten()
            .map(|json| json.as_str().len())
            .sum::<usize>()
    };
    changes.iter().map(bytes).sum()
}

fn is_event(change: &Change) -> bool {
    matches!(change.kind, Kind::Event { .. })
}

impl Hold {
    fn add(&mut self, changes: &[Arc<Change>], held_max: usize, bytes_max: usize) {
        let bytes = self.bytes + bytes_of(changes);
        // One is always held, as one frame is always admitted to an outbox.
        let is_heavy = bytes_max < bytes && 1 < self.changes.len() + changes.len();
        if self.is_overrun || is_heavy || held_max < self.changes.len() + changes.len() {
            self.overrun();
            self.lost_events |= changes.iter().any(|change| is_event(change));
        } else {
            self.changes.extend_from_slice(changes);
            self.bytes = bytes;
        }
    }

    fn overrun(&mut self) {
        self.is_overrun = true;
        self.lost_events |= self.changes.iter().any(|change| is_event(change));
        self.changes = Vec::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;
    use std::task::{Context as TaskContext, Poll, Waker};

    use iii_stream_core::{GroupKey, Json};

    use super::*;

    const GROUP: GroupRef<'_> = GroupRef {
        stream: "s",
        group: "g",
    };
    const VERSION_2: Dialect = Dialect {
        is_version_2: true,
        ..Dialect::VERSION_1
    };
    const QUEUE_BYTES_MAX: usize = 1_000;

    /// A member of version 2 with what it needs.
    struct Fixture {
        metrics: Metrics,
        tally: Tally,
        member: Member,
    }

    impl Fixture {
        fn new() -> Self {
            Self::of(VERSION_2, View::All)
        }

        fn of(dialect: Dialect, view: View) -> Self {
            let outbox = Arc::new(Outbox::to_taker(QUEUE_BYTES_MAX));
            Self {
                metrics: Metrics::default(),
                tally: Tally::default(),
                member: Member::new(1, outbox, dialect, view),
            }
        }

        fn with<T>(&mut self, act: impl FnOnce(&mut Member, Context<'_>) -> T) -> T {
            let context = Context {
                group: GROUP,
                epoch: "e",
                held_max: 100,
                metrics: &self.metrics,
                tally: &self.tally,
            };
            act(&mut self.member, context)
        }

        /// Begins a subscription as its connection does.
        fn begin(&mut self, id: &str, item: Option<&str>, seq: u64) {
            let join = Subscribing {
                subscription_id: id.into(),
                group: GroupKey {
                    stream: "s".into(),
                    group: "g".into(),
                },
                item: item.map(Into::into),
                clients: None,
            };
            let frame = Frame::encoded(format!("<{id}:{seq}>").into());
            let joined = self.with(|member, context| member.begin(&join, seq, &[frame], context));
            assert_eq!(joined, Joined::Live);
        }

        fn hold(&mut self) {
            self.with(|member, _| member.hold());
        }

        fn release(&mut self) {
            self.with(Member::release);
        }

        fn take(&mut self, seqs: RangeInclusive<u64>) {
            let changes: Vec<_> = seqs.map(|seq| change(seq, Some("1"))).collect();
            self.take_changes(&changes);
        }

        fn take_changes(&mut self, changes: &[Arc<Change>]) {
            let batch = Batch::new(GROUP, "e", changes);
            self.with(|member, context| member.take(&batch, context));
        }

        /// Lets nothing more through until it is read.
        fn fill(&mut self) {
            let filling = Frame::encoded("#".repeat(QUEUE_BYTES_MAX).into());
            assert!(self.member.outbox.deliver(&filling).is_ok());
        }

        /// What was sent, in short: the subscriptions that began, and the sequences of events.
        fn read(&mut self) -> String {
            let cx = TaskContext::from_waker(Waker::noop());
            let mut out = String::new();
            while let Poll::Ready(Some(bytes)) = self.member.outbox.poll_take(&cx) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if text.starts_with('<') {
                    out.push_str(&text);
                }
                for part in text.split(r#""seq":"#).skip(1) {
                    let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
                    out.push_str(&format!(" {digits} "));
                }
            }
            out
        }
    }

    fn change(seq: u64, value: Option<&str>) -> Arc<Change> {
        change_of(Some("i"), seq, value)
    }

    fn change_of(item: Option<&str>, seq: u64, value: Option<&str>) -> Arc<Change> {
        Arc::new(Change {
            seq,
            timestamp: seq,
            item: item.map(Into::into),
            kind: Kind::Update,
            value: value.map(|text| Json::from_text(text).expect("JSON text")),
            ops: None,
            base: None,
            mutation: None,
        })
    }

    fn behind(lag: &[(Arc<str>, u64)]) -> Vec<(&str, u64)> {
        lag.iter().map(|(id, since)| (&**id, *since)).collect()
    }

    #[test]
    fn a_join_does_not_move_where_another_subscription_is() {
        let mut fixture = Fixture::new();
        fixture.begin("a", None, 10);
        fixture.hold();
        // Changes 11 to 20 are in this snapshot, but on their way only.
        fixture.begin("b", None, 20);
        fixture.release();
        assert_eq!(fixture.member.position("a"), 10);
        assert_eq!(fixture.member.position("b"), 20);
        fixture.fill();
        fixture.take(11..=25);
        let lag = fixture.member.take_lag();
        assert_eq!(behind(&lag), [("a", 10), ("b", 20)]);
    }

    #[test]
    fn whoever_lags_is_told_nothing_before_all_have_begun_anew() {
        let mut fixture = Fixture::new();
        fixture.begin("a", None, 10);
        fixture.begin("b", Some("i"), 10);
        fixture.fill();
        fixture.take(11..=20);
        fixture.read();
        let lag = fixture.member.take_lag();
        assert_eq!(behind(&lag), [("a", 10), ("b", 10)]);
        fixture.take(21..=22);
        fixture.begin("a", None, 21);
        fixture.release();
        fixture.take(23..=23);
        assert_eq!(fixture.read(), "<a:21>", "b does not know yet that it lags");
        // Another one begins meanwhile.
        fixture.hold();
        fixture.begin("c", None, 22);
        fixture.release();
        fixture.begin("b", Some("i"), 23);
        fixture.release();
        assert_eq!(fixture.read(), "<c:22><b:23> 22  23 ");
        fixture.take(24..=24);
        assert_eq!(fixture.read(), " 24 ");
        assert!(fixture.member.take_lag().is_empty());
    }

    #[test]
    fn what_is_held_back_is_bounded_in_bytes() {
        let mut fixture = Fixture::new();
        fixture.begin("a", None, 10);
        fixture.hold();
        let large = format!(r#""{}""#, "x".repeat(QUEUE_BYTES_MAX));
        fixture.take_changes(&[change(11, Some(&large))]);
        fixture.take(12..=12);
        fixture.release();
        assert_eq!(fixture.read(), "<a:10>");
        assert_eq!(behind(&fixture.member.take_lag()), [("a", 10)]);
    }

    #[test]
    fn an_older_change_without_its_value_is_no_reason_to_lag() {
        let mut fixture = Fixture::new();
        fixture.begin("a", None, 10);
        fixture.take_changes(&[change(10, None), change(11, Some("1"))]);
        assert_eq!(fixture.read(), "<a:10> 11 ");
        fixture.take_changes(&[change(12, None)]);
        assert_eq!(behind(&fixture.member.take_lag()), [("a", 11)]);
    }

    fn some_items() -> View {
        let grants = r#"[{"stream":"*","group":"*","item":"i*","can":["read"]}]"#;
        let grants = iii_stream_core::Grants::from_text(grants).expect("grants");
        grants.view(GROUP)
    }

    #[test]
    fn a_member_is_told_what_it_may_read_whether_held_back_or_not() {
        let mut fixture = Fixture::of(VERSION_2, some_items());
        fixture.begin("a", None, 10);
        let of = |item, seq| change_of(item, seq, Some("1"));
        let run = |first| {
            [
                of(Some("other"), first),
                of(Some("i1"), first + 1),
                of(None, first + 2),
                of(Some("other"), first + 3),
            ]
        };
        fixture.take_changes(&run(11));
        assert_eq!(fixture.read(), "<a:10> 12  13 ");
        assert_eq!(
            fixture.member.position("a"),
            14,
            "it was shown all there is to see"
        );
        fixture.hold();
        fixture.take_changes(&run(15));
        fixture.begin("b", None, 16);
        fixture.release();
        assert_eq!(fixture.read(), " 16 <b:16> 17 ");
        fixture.fill();
        fixture.take_changes(&[of(Some("other"), 19)]);
        assert!(fixture.member.take_lag().is_empty(), "nothing was missed");
        fixture.take_changes(&run(20));
        assert_eq!(behind(&fixture.member.take_lag()), [("a", 19), ("b", 19)]);
    }

    #[test]
    fn a_change_without_a_value_is_no_reason_to_lag_where_it_may_not_be_read() {
        let mut fixture = Fixture::of(VERSION_2, some_items());
        fixture.begin("a", None, 10);
        fixture.take_changes(&[change_of(Some("other"), 11, None), change(12, Some("1"))]);
        assert_eq!(fixture.read(), "<a:10> 12 ");
    }

    #[test]
    fn positions_of_an_event_stream_are_of_the_part_that_it_shows() {
        let view = some_items();
        let told = view.epoch("e").into_owned();
        let dialect = Dialect {
            framing: Framing::EventStream,
            ..VERSION_2
        };
        let mut fixture = Fixture::of(dialect, view);
        fixture.begin("a", None, 10);
        fixture.read();
        fixture.take_changes(&[change(11, Some("1"))]);
        let cx = TaskContext::from_waker(Waker::noop());
        let Poll::Ready(Some(bytes)) = fixture.member.outbox.poll_take(&cx) else {
            panic!("an event is sent");
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.starts_with(&format!("id: {told}:11\n")), "{text}");
        assert_ne!(told, "e");
    }
}
