//! A watched group by itself, and against a server that loses, doubles and begins histories anew.

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

/// Small random numbers, the same for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A server with one group, the connection that its messages come by, and another for one read.
struct Server {
    epoch: u64,
    seq: u64,
    history_from: u64,
    /// Sent, not heard.
    channel: Vec<Relayed>,
    is_subscribed: bool,
    read: Option<(Asked, Option<Logged>)>,
}

impl Server {
    fn name(epoch: u64) -> Arc<str> {
        format!("e{epoch}").into()
    }

    fn commit(&mut self, random: &mut Random) {
        let count = 1 + random.below(3);
        let first = self.seq + 1;
        self.seq += count;
        let mut sent = message(&Self::name(self.epoch), first..=self.seq);
        for relayed in &mut sent.changes {
            if random.below(20) == 0 {
                let seq = relayed.seq();
                *relayed = RelayedChange::LeftOut {
                    seq,
                    timestamp: seq,
                };
            }
        }
        if self.is_subscribed {
            self.channel.push(sent);
        }
    }

    fn logged(&self, asked: Asked) -> Logged {
        let after =
            Some(asked.after_seq).filter(|after| self.history_from <= *after && *after <= self.seq);
        Logged {
            epoch: Self::name(self.epoch),
            seq: self.seq,
            changes: after.map(|after| (after + 1..=self.seq).map(change).collect()),
        }
    }

    /// Another master, that has lost some of the last changes or none.
    fn fail_over(&mut self, random: &mut Random) {
        let kept = self.seq.saturating_sub(random.below(4));
        self.seq = kept;
        self.epoch += 1;
        self.history_from = self.seq;
    }
}

/// What a follower makes of it: where it is, and what it was told of that it cannot know all.
#[derive(Default)]
struct Follower {
    at: Option<Position>,
    told: usize,
    missed: usize,
    restarts: usize,
    has_missed: bool,
}

impl Follower {
    fn take(&mut self, act: Act, first: &Position) {
        let at = self.at.get_or_insert_with(|| first.clone());
        match act {
            Act::Change(change) if self.has_missed => {
                assert!(at.seq < change.seq, "not twice");
                at.seq = change.seq;
                self.has_missed = false;
            }
            Act::Change(change) => {
                at.seq += 1;
                assert_eq!(change.seq, at.seq, "in order, none left out");
                self.told += 1;
            }
            Act::Missed => {
                self.missed += 1;
                self.has_missed = true;
            }
            Act::Restarted(new) => {
                self.restarts += 1;
                self.has_missed = false;
                *at = new;
            }
            Act::Read | Act::Settled => {}
        }
    }
}

#[test]
fn whatever_is_lost_or_doubled_a_follower_is_told_all_in_order_or_that_it_missed_some() {
    let (mut told, mut missed, mut restarts) = (0, 0, 0);
    for seed in 0..400 {
        let mut random = Random(seed);
        let mut server = Server {
            epoch: 0,
            seq: 5,
            history_from: 0,
            channel: Vec::new(),
            is_subscribed: false,
            read: None,
        };
        let mut watched = Watched::default();
        let mut follower = Follower::default();
        let (mut out, mut is_read_wanted, mut first) = (Vec::new(), false, None::<Position>);
        let has_losses = seed % 4 != 0;
        let has_failovers = 2 <= seed % 4;
        for step in 0..600 {
            let is_quiet = 500 <= step;
            let kind = random.below(if is_quiet { 50 } else { 64 });
            match kind {
                _ if !server.is_subscribed => {
                    server.is_subscribed = true;
                    watched.ready(&mut out);
                }
                0..10 if !is_quiet => server.commit(&mut random),
                10..30 if !server.channel.is_empty() => {
                    let heard = server.channel.remove(0);
                    // Doubled now and then.
                    if has_losses && random.below(10) == 0 {
                        watched.hear(heard.clone(), 1, usize::MAX, &mut out);
                    }
                    watched.hear(heard, 1, usize::MAX, &mut out);
                }
                30..40 if is_read_wanted && server.read.is_none() => {
                    is_read_wanted = false;
                    server.read = watched.start_read().map(|asked| (asked, None));
                }
                40..50 if first.is_none() => {
                    watched.note(&Server::name(server.epoch), server.seq, &mut out);
                    first = Some(at(&Server::name(server.epoch), server.seq));
                }
                40..50 => match server.read.take() {
                    Some((asked, None)) => {
                        let logged = server.logged(asked);
                        server.read = Some((asked, Some(logged)));
                    }
                    Some((asked, Some(logged))) => {
                        watched.take_read(asked.read, logged, &mut out);
                    }
                    None => {}
                },
                50..52 if has_losses => {
                    watched.lost();
                    server.channel.clear();
                    server.is_subscribed = false;
                }
                52..54 if has_losses && !server.channel.is_empty() => {
                    let lost = random.below(server.channel.len() as u64);
                    server.channel.remove(lost as usize);
                }
                54 if has_failovers => server.fail_over(&mut random),
                55 if has_failovers => server.history_from = server.seq,
                _ => {}
            }
            // A read that nobody awaits any more is as good as answered.
            if let Some((asked, _)) = &server.read
                && !watched.awaits(asked.read)
            {
                server.read = None;
            }
            for act in out.drain(..) {
                is_read_wanted |= act == Act::Read;
                if let Some(first) = &first {
                    follower.take(act, first);
                }
            }
        }
        // A message that was lost without a sign is told of by the next one, or by the next subscription.
        watched.lost();
        watched.ready(&mut out);
        let asked = watched.start_read().expect("a read is wanted");
        watched.take_read(asked.read, server.logged(asked), &mut out);
        let first = first.expect("it was read once");
        for act in out.drain(..) {
            follower.take(act, &first);
        }
        if !follower.has_missed {
            let end = at(&Server::name(server.epoch), server.seq);
            assert_eq!(follower.at.as_ref(), Some(&end), "seed {seed}");
        }
        if !has_failovers {
            assert_eq!((follower.missed, follower.restarts), (0, 0), "seed {seed}");
            assert_eq!(follower.told as u64, server.seq - first.seq, "seed {seed}");
        }
        told += follower.told;
        (missed, restarts) = (missed + follower.missed, restarts + follower.restarts);
    }
    assert!(
        10_000 < told && 100 < missed && 100 < restarts,
        "{told} {missed} {restarts}"
    );
}
