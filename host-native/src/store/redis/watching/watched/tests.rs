//! A watched group by itself.

mod model;

use iii_stream_core::{GroupKey, Json, Kind};

use super::*;

fn change(seq: u64) -> Arc<Change> {
    Arc::new(Change {
        seq,
        timestamp: seq,
        item: Some("i".into()),
        kind: Kind::Update,
        value: Some(Json::from_text("1").expect("JSON")),
        ops: None,
        base: None,
        mutation: None,
    })
}

fn message(epoch: &str, seqs: std::ops::RangeInclusive<u64>) -> Relayed {
    Relayed {
        epoch: epoch.into(),
        group: GroupKey {
            stream: "s".into(),
            group: "g".into(),
        },
        changes: seqs.map(|seq| RelayedChange::Whole(change(seq))).collect(),
    }
}

fn at(epoch: &str, seq: u64) -> Position {
    Position {
        epoch: epoch.into(),
        seq,
    }
}

/// One that writes down what follows, in short.
#[derive(Default)]
struct Fixture {
    watched: Watched,
    out: Vec<Act>,
}

impl Fixture {
    /// Ready, and read once.
    fn live(epoch: &str, seq: u64) -> Self {
        let mut fixture = Self::default();
        fixture.watched.ready(&mut fixture.out);
        fixture.note(epoch, seq);
        fixture.read(epoch, seq, Some(seq + 1));
        assert_eq!(fixture.told(), "read settled");
        fixture
    }

    fn note(&mut self, epoch: &str, seq: u64) {
        self.watched.note(epoch, seq, &mut self.out);
    }

    fn is_fresh(&mut self, mark: Mark, epoch: &str, seq: u64) -> bool {
        self.watched.is_fresh(mark, epoch, seq, &mut self.out)
    }

    fn hear(&mut self, message: Relayed) {
        self.watched.hear(message, 1, usize::MAX, &mut self.out);
    }

    fn start(&mut self) -> Asked {
        self.watched.start_read().expect("a read is wanted")
    }

    fn find(&mut self, asked: Asked, epoch: &str, seq: u64, first: Option<u64>) {
        let logged = Logged {
            epoch: epoch.into(),
            seq,
            changes: first.map(|first| (first..=seq).map(change).collect()),
        };
        self.watched.take_read(asked.read, logged, &mut self.out);
    }

    fn read(&mut self, epoch: &str, seq: u64, first: Option<u64>) {
        let asked = self.start();
        self.find(asked, epoch, seq, first);
    }

    fn told(&mut self) -> String {
        let acts: Vec<_> = self
            .out
            .drain(..)
            .map(|act| match act {
                Act::Change(change) => change.seq.to_string(),
                Act::Missed => "missed".to_owned(),
                Act::Restarted(at) => format!("={at}"),
                Act::Read => "read".to_owned(),
                Act::Settled => "settled".to_owned(),
            })
            .collect();
        acts.join(" ")
    }
}

#[test]
fn a_first_reader_need_not_wait_for_the_subscription_to_read() {
    // It reads at 5, and another one at 7, while others write; then the subscription is there.
    let mut fixture = Fixture::default();
    let mark = fixture.watched.mark();
    fixture.note("a", 5);
    fixture.note("a", 7);
    assert!(!fixture.watched.is_settled());
    fixture.watched.ready(&mut fixture.out);
    fixture.hear(message("a", 8..=8));
    let asked = fixture.start();
    assert_eq!(asked.after_seq, 5);
    fixture.hear(message("a", 9..=9));
    fixture.hear(message("a", 9..=9));
    fixture.hear(message("a", 10..=10));
    assert_eq!(fixture.told(), "read");
    fixture.find(asked, "a", 9, Some(6));
    assert_eq!(fixture.told(), "6 7 8 9 10 settled");
    assert!(fixture.is_fresh(mark, "a", 5));
    assert!(fixture.is_fresh(mark, "a", 7));
    assert!(!fixture.is_fresh(mark, "a", 4), "nobody is told of 5");
    assert_eq!(fixture.told(), "");
    fixture.hear(message("a", 3..=11));
    assert_eq!(fixture.told(), "11");
}

#[test]
fn before_anybody_has_read_nothing_is_held_or_read() {
    let mut fixture = Fixture::default();
    fixture.watched.ready(&mut fixture.out);
    fixture.hear(message("a", 4..=4));
    fixture.watched.hear_noise(&mut fixture.out);
    assert_eq!(
        (fixture.told(), fixture.watched.held_bytes()),
        (String::new(), 0)
    );
    assert_eq!(fixture.watched.start_read(), None);
    fixture.note("a", 4);
    fixture.hear(message("a", 5..=5));
    fixture.read("a", 5, Some(5));
    assert_eq!(fixture.told(), "read 5 settled");
}

#[test]
fn a_history_that_begins_anew_behind_a_first_reader_is_read_again() {
    let mut fixture = Fixture::default();
    let mark = fixture.watched.mark();
    fixture.note("a", 5);
    fixture.watched.ready(&mut fixture.out);
    fixture.read("b", 3, None);
    assert_eq!(fixture.told(), "read missed =b:3 settled");
    assert!(!fixture.is_fresh(mark, "a", 5));
    let mark = fixture.watched.mark();
    assert!(fixture.is_fresh(mark, "b", 3));
}

#[test]
fn a_gap_is_read_and_where_the_history_does_not_reach_it_is_missed() {
    let mut fixture = Fixture::live("a", 5);
    fixture.hear(message("a", 8..=8));
    fixture.hear(message("a", 9..=9));
    let asked = fixture.start();
    assert_eq!(asked.after_seq, 5);
    fixture.hear(message("a", 10..=10));
    fixture.find(asked, "a", 9, Some(6));
    assert_eq!(fixture.told(), "read 6 7 8 9 10 settled");
    fixture.hear(message("a", 12..=12));
    fixture.read("a", 12, None);
    assert_eq!(fixture.told(), "read missed settled");
    fixture.hear(message("a", 13..=13));
    assert_eq!(fixture.told(), "13");
}

#[test]
fn a_body_that_was_left_out_is_read() {
    let mut fixture = Fixture::live("a", 5);
    let mut left_out = message("a", 6..=8);
    left_out.changes[1] = RelayedChange::LeftOut {
        seq: 7,
        timestamp: 7,
    };
    fixture.hear(left_out);
    assert_eq!(fixture.told(), "6 read");
    fixture.read("a", 8, Some(7));
    assert_eq!(fixture.told(), "7 8 settled");
}

#[test]
fn what_was_lost_is_read_once_it_is_ready_again() {
    let mut fixture = Fixture::live("a", 5);
    let mark = fixture.watched.mark();
    fixture.watched.lost();
    assert!(!fixture.watched.is_settled());
    assert!(!fixture.is_fresh(mark, "a", 6), "not yet");
    fixture.watched.ready(&mut fixture.out);
    let old = fixture.start();
    // Lost again while it is read: what the first read finds may be older than what is missing.
    fixture.watched.lost();
    fixture.watched.ready(&mut fixture.out);
    let new = fixture.start();
    fixture.find(old, "a", 6, Some(6));
    assert_eq!(fixture.told(), "read read");
    fixture.find(new, "a", 7, Some(6));
    assert_eq!(fixture.told(), "6 7 settled");
    assert!(
        fixture.is_fresh(mark, "a", 6),
        "it was read before it was lost"
    );
}

#[test]
fn another_history_is_believed_when_it_was_read() {
    let mut fixture = Fixture::live("a", 5);
    fixture.hear(message("b", 3..=3));
    assert!(!fixture.watched.is_settled(), "readers wait");
    fixture.hear(message("b", 4..=4));
    let asked = fixture.start();
    fixture.hear(message("b", 5..=5));
    fixture.find(asked, "b", 4, None);
    assert_eq!(fixture.told(), "read missed =b:4 5 settled");
    // One of the old history, late: asked about, and dropped.
    fixture.hear(message("a", 6..=6));
    fixture.read("b", 5, Some(6));
    assert_eq!(fixture.told(), "read settled");
    // A history that goes on where the old one ended loses nothing.
    fixture.hear(message("c", 6..=6));
    fixture.read("c", 6, Some(6));
    assert_eq!(fixture.told(), "read =c:5 6 settled");
}

#[test]
fn a_history_that_went_back_begins_anew_where_it_is() {
    let mut fixture = Fixture::live("a", 9);
    fixture.watched.ready(&mut fixture.out);
    fixture.read("a", 7, None);
    assert_eq!(fixture.told(), "read =a:7 settled");
}

#[test]
fn a_reader_that_is_ahead_of_the_messages_waits_until_they_are_there() {
    let mut fixture = Fixture::live("a", 5);
    let mark = fixture.watched.mark();
    assert!(fixture.is_fresh(mark, "a", 5));
    assert!(fixture.is_fresh(mark, "a", 7));
    assert_eq!(fixture.told(), "");
    for (epoch, seq) in [("b", 6), ("a", 4)] {
        let mark = fixture.watched.mark();
        assert!(!fixture.is_fresh(mark, epoch, seq));
        assert!(!fixture.watched.is_settled());
        fixture.read(epoch, seq, None);
        fixture.out.clear();
        assert!(!fixture.is_fresh(mark, epoch, seq), "an old mark");
        let mark = fixture.watched.mark();
        assert!(fixture.is_fresh(mark, epoch, seq));
    }
}

#[test]
fn what_is_held_is_bounded_and_read_again_beyond() {
    let mut fixture = Fixture::default();
    fixture.note("a", 5);
    fixture.watched.ready(&mut fixture.out);
    let asked = fixture.start();
    // One is held however large it is.
    let Fixture { watched, out } = &mut fixture;
    watched.hear(message("a", 6..=6), 100, 10, out);
    assert_eq!(watched.held_bytes(), 100);
    watched.hear(message("a", 7..=7), 1, 0, out);
    watched.hear(message("a", 8..=8), 1, 100, out);
    assert_eq!(watched.held_bytes(), 0);
    fixture.find(asked, "a", 5, Some(6));
    assert_eq!(fixture.told(), "read read settled");
    fixture.read("a", 8, Some(6));
    assert_eq!(fixture.told(), "6 7 8 settled");
    let mut fixture = Fixture::default();
    fixture.note("a", 0);
    fixture.watched.ready(&mut fixture.out);
    for seq in 1..=HELD_CHANGES_MAX as u64 + 1 {
        fixture.hear(message("a", seq..=seq));
    }
    assert_eq!(fixture.watched.held_bytes(), 0);
}

#[test]
fn a_page_waits_until_the_followers_were_told_what_it_knows() {
    let fixture = Fixture::default();
    let mark = fixture.watched.mark();
    assert!(!fixture.watched.has_told(0, mark), "nobody has read it");
    let mut fixture = Fixture::live("a", 5);
    let mark = fixture.watched.mark();
    assert!(fixture.watched.has_told(5, mark));
    // It was read at 7, and the messages of that are on their way, one of them lost.
    assert!(fixture.is_fresh(mark, "a", 7));
    assert!(!fixture.watched.has_told(7, mark));
    fixture.hear(message("a", 7..=7));
    assert!(!fixture.watched.has_told(7, mark), "held until 6 is there");
    assert!(!fixture.watched.has_told(6, mark));
    fixture.read("a", 7, Some(6));
    assert_eq!(fixture.told(), "read 6 7 settled");
    assert!(fixture.watched.has_told(7, mark));
    assert!(!fixture.watched.has_told(8, mark));
}

#[test]
fn a_page_of_a_history_that_has_ended_waits_no_longer() {
    let mut fixture = Fixture::live("a", 5);
    let mark = fixture.watched.mark();
    assert!(fixture.is_fresh(mark, "a", 9));
    fixture.hear(message("b", 3..=3));
    assert!(!fixture.watched.has_told(9, mark), "not believed yet");
    fixture.read("b", 3, None);
    assert!(
        fixture.watched.has_told(9, mark),
        "nobody will be told of 9"
    );
    let mark = fixture.watched.mark();
    assert!(!fixture.watched.has_told(9, mark));
}
