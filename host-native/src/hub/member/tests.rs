//! Members by themselves: what they are sent, in short, and how they stand.

mod paging;

use std::ops::RangeInclusive;
use std::task::{Context as TaskContext, Poll, Waker};

use iii_stream_core::{GroupKey, Json, Kind};

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
    epoch: Arc<str>,
    restarts: u32,
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
            member: Member::new(1, outbox, dialect, view, 0),
            epoch: "e".into(),
            restarts: 0,
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Member, Context<'_>) -> T) -> T {
        let context = Context {
            group: GROUP,
            epoch: &self.epoch,
            restarts: self.restarts,
            held_max: 100,
            metrics: &self.metrics,
            tally: &self.tally,
        };
        act(&mut self.member, context)
    }

    /// Begins a subscription as its connection does.
    fn begin(&mut self, id: &str, item: Option<&str>, seq: u64) {
        assert_eq!(self.try_begin(id, item, seq), Joined::Live);
    }

    fn try_begin(&mut self, id: &str, item: Option<&str>, seq: u64) -> Joined {
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
        self.with(|member, context| member.begin(&join, seq, &[frame], context))
    }

    /// The history begins anew, as the topic tells.
    fn restart(&mut self, epoch: &str, kept_seq: Option<u64>) {
        let restarts = self.restarts + 1;
        self.with(|member, context| member.restart(restarts, kept_seq, context));
        (self.epoch, self.restarts) = (epoch.into(), restarts);
    }

    fn take_lag(&mut self) -> Vec<Behind> {
        self.with(Member::take_lag)
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
        let epoch = self.epoch.clone();
        let batch = Batch::new(GROUP, &epoch, changes);
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

fn behind(lag: &[Behind]) -> Vec<(&str, u64)> {
    let since = |behind: &Behind| behind.since.as_ref().expect("its history goes on").seq;
    lag.iter()
        .map(|behind| (&*behind.subscription_id, since(behind)))
        .collect()
}

/// Those that have to begin anew with a snapshot.
fn restarted(lag: &[Behind]) -> Vec<&str> {
    assert!(lag.iter().all(|behind| behind.since.is_none()), "{lag:?}");
    lag.iter().map(|behind| &*behind.subscription_id).collect()
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
    let lag = fixture.take_lag();
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
    let lag = fixture.take_lag();
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
    assert!(fixture.take_lag().is_empty());
}

fn event(seq: u64) -> Arc<Change> {
    let label = Json::from_text("\"n\"").expect("JSON");
    Arc::new(Change {
        kind: Kind::Event { label },
        ..Change::clone(&change(seq, Some("1")))
    })
}

#[test]
fn version_1_is_told_of_no_item_between_what_it_missed_and_its_sync() {
    let mut fixture = Fixture::of(Dialect::VERSION_1, View::All);
    fixture.begin("a", None, 10);
    fixture.fill();
    fixture.take(11..=20);
    fixture.read();
    assert_eq!(behind(&fixture.take_lag()), [("a", 10)]);
    // What the snapshot knows of, and what it does not. No `sync` tells of custom events.
    fixture.take_changes(&[change(21, Some("1")), event(22), change(23, Some("1"))]);
    fixture.take_changes(&[event(24), change(25, Some("1"))]);
    assert_eq!(fixture.read(), "");
    fixture.begin("a", None, 23);
    fixture.release();
    assert_eq!(fixture.read(), " 22 <a:23> 24  25 ");
    fixture.take(26..=26);
    assert_eq!(fixture.read(), " 26 ");
    assert!(fixture.take_lag().is_empty());
}

#[test]
fn version_1_is_told_custom_events_once_while_several_begin_anew() {
    let mut fixture = Fixture::of(Dialect::VERSION_1, View::All);
    fixture.begin("a", None, 10);
    fixture.begin("b", Some("i"), 10);
    fixture.fill();
    fixture.take(11..=20);
    fixture.read();
    assert_eq!(behind(&fixture.take_lag()), [("a", 10), ("b", 10)]);
    fixture.take_changes(&[event(21), change(22, Some("1")), event(23)]);
    fixture.begin("a", None, 21);
    fixture.release();
    fixture.begin("b", Some("i"), 22);
    fixture.release();
    assert_eq!(fixture.read(), " 21 <a:21><b:22> 22  23 ");
    assert!(!fixture.member.outbox.is_closing());
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
    assert_eq!(behind(&fixture.take_lag()), [("a", 10)]);
}

#[test]
fn an_older_change_without_its_value_is_no_reason_to_lag() {
    let mut fixture = Fixture::new();
    fixture.begin("a", None, 10);
    fixture.take_changes(&[change(10, None), change(11, Some("1"))]);
    assert_eq!(fixture.read(), "<a:10> 11 ");
    fixture.take_changes(&[change(12, None)]);
    assert_eq!(behind(&fixture.take_lag()), [("a", 11)]);
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
    assert!(fixture.take_lag().is_empty(), "nothing was missed");
    fixture.take_changes(&run(20));
    assert_eq!(behind(&fixture.take_lag()), [("a", 19), ("b", 19)]);
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

#[test]
fn after_a_restart_all_begin_anew_and_lower_sequences_are_told() {
    let mut fixture = Fixture::new();
    fixture.begin("a", None, 100);
    fixture.begin("b", Some("i"), 100);
    fixture.take(101..=101);
    assert_eq!(fixture.read(), "<a:100><b:100> 101 ");
    fixture.restart("f", None);
    // The first changes of the new history come before anybody has asked.
    fixture.take(3..=4);
    assert_eq!(restarted(&fixture.take_lag()), ["a", "b"]);
    assert!(fixture.take_lag().is_empty(), "asked once");
    fixture.take(5..=5);
    fixture.begin("a", None, 4);
    fixture.release();
    assert_eq!(fixture.read(), "<a:4>", "b does not know yet");
    fixture.take(6..=6);
    fixture.begin("b", Some("i"), 5);
    fixture.release();
    assert_eq!(fixture.read(), "<b:5> 5  6 ");
    assert_eq!(fixture.member.position("a"), 6);
    fixture.take(7..=7);
    assert_eq!(fixture.read(), " 7 ");
    assert!(fixture.take_lag().is_empty());
}

#[test]
fn a_snapshot_of_the_history_before_is_too_old() {
    let mut fixture = Fixture::new();
    fixture.hold();
    fixture.take(101..=102);
    // The topic knows already, the member does not.
    fixture.restarts = 1;
    assert_eq!(fixture.try_begin("a", None, 102), Joined::SnapshotTooOld);
    fixture.restarts = 0;
    fixture.restart("f", None);
    fixture.take(1..=3);
    assert!(fixture.take_lag().is_empty(), "nobody was told anything");
    fixture.begin("a", None, 2);
    fixture.release();
    assert_eq!(fixture.read(), "<a:2> 3 ", "nothing of the old history");
}

#[test]
fn what_is_held_of_the_old_history_is_shown_to_those_who_live_in_it() {
    let mut fixture = Fixture::of(Dialect::VERSION_1, View::All);
    fixture.begin("a", None, 10);
    fixture.hold();
    fixture.take(11..=12);
    fixture.restart("f", None);
    fixture.take(1..=2);
    assert_eq!(fixture.read(), "<a:10> 11  12 ");
    assert_eq!(restarted(&fixture.take_lag()), ["a"]);
    fixture.begin("b", Some("i"), 1);
    fixture.release();
    fixture.begin("a", None, 1);
    fixture.release();
    assert_eq!(fixture.read(), "<b:1><a:1> 2 ");
}

#[test]
fn whoever_lagged_in_the_old_history_begins_anew_in_the_new_one() {
    let mut fixture = Fixture::new();
    fixture.begin("a", None, 10);
    fixture.fill();
    fixture.take(11..=12);
    fixture.restart("f", None);
    fixture.take(1..=1);
    fixture.read();
    assert_eq!(restarted(&fixture.take_lag()), ["a"]);
    // Again, before it has begun.
    fixture.restart("g", None);
    assert_eq!(restarted(&fixture.take_lag()), ["a"]);
    fixture.take(7..=8);
    // One was begun anew already when the second was asked for.
    fixture.release();
    fixture.begin("a", None, 7);
    fixture.release();
    assert_eq!(fixture.read(), "<a:7> 8 ");
}

#[test]
fn a_history_that_goes_on_earlier_begins_anew_for_those_who_saw_more() {
    let mut fixture = Fixture::new();
    fixture.begin("a", None, 10);
    fixture.restart("e", Some(10));
    assert!(fixture.take_lag().is_empty());
    fixture.take(11..=12);
    assert_eq!(fixture.read(), "<a:10> 11  12 ");
    fixture.restart("e", Some(11));
    assert_eq!(restarted(&fixture.take_lag()), ["a"]);
    fixture.begin("a", None, 11);
    fixture.release();
    assert_eq!(fixture.read(), "<a:11>");
    // What is held counts as well.
    fixture.hold();
    fixture.take(12..=12);
    fixture.restart("e", Some(11));
    assert_eq!(restarted(&fixture.take_lag()), ["a"]);
}

#[test]
fn custom_events_after_a_restart_are_no_reason_to_close() {
    let mut fixture = Fixture::of(Dialect::VERSION_1, View::All);
    fixture.begin("a", None, 10);
    fixture.restart("f", None);
    fixture.take_changes(&[event(2)]);
    assert_eq!(restarted(&fixture.take_lag()), ["a"]);
    fixture.begin("a", None, 1);
    fixture.release();
    assert!(!fixture.member.outbox.is_closing());
    assert_eq!(fixture.member.position("a"), 2);
}
