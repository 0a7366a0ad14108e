//! A watched group against a server that loses, doubles and leaves out messages, fails over and forgets its history.

use super::*;

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
