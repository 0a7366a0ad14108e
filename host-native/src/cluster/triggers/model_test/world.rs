//! Several homes on one Redis, and what befalls them, by chance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::pursuit::{HandOver, Pursuit, Read};
use super::Faults;
use super::home::{Answered, Home};
use super::redis::{Dice, Redis};

/// The times of a lease where steps take a millisecond.
const LEASE_MS: u64 = 500;

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: u64,
    pub(super) redis: Redis,
    pub(super) homes: Vec<Home>,
    pub(super) next_home: usize,
    /// What was called, in order, by group.
    pub(super) calls: BTreeMap<Arc<str>, Vec<u64>>,
    pub(super) faults: Faults,
    /// Redis is away until then.
    away_until: Option<u64>,
    unnoticed_until: u64,
    /// How long a step takes, in milliseconds.
    pub(super) pace: u64,
}

impl World {
    pub(super) fn new(seed: u64, pace: u64, faults: Faults) -> Self {
        let mut world = Self {
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now: 1_000_000,
            redis: Redis {
                lease_ms: LEASE_MS * pace,
                ..Redis::default()
            },
            homes: Vec::new(),
            next_home: 0,
            calls: BTreeMap::new(),
            faults,
            away_until: None,
            unnoticed_until: 0,
            pace,
        };
        world.add_home();
        world.add_home();
        world
    }

    pub(super) fn add_home(&mut self) {
        let lease_ms = self.redis.lease_ms;
        self.homes
            .push(Home::new(self.next_home, self.now, lease_ms));
        self.next_home += 1;
    }

    /// Some groups are written all the time, others once in a while.
    pub(super) fn group(&mut self) -> u64 {
        let sides = if self.dice.one_in(20) { 12 } else { 4 };
        self.dice.roll(sides)
    }

    /// Redis is away for a while, and begins anew. Who waits for it is noticed late, as where connections stay open.
    fn restart(&mut self) {
        if self.away_until.is_some() {
            return;
        }
        self.redis.restart();
        let long = self.dice.roll(4 * self.redis.lease_ms);
        self.away_until = Some(self.now + long);
        self.unnoticed_until = self.now + self.dice.roll(self.redis.lease_ms / 5);
        self.homes.iter_mut().for_each(|home| home.messages.clear());
    }

    /// Redis is back: what was on its way to it is carried out, in any order.
    fn come_back(&mut self) {
        let from = self.dice.roll(self.homes.len() as u64) as usize;
        self.homes.rotate_left(from);
        for home in &mut self.homes {
            home.tenure.set_cut_off(false, self.now);
            if home.hears
                && let Some(pursuit) = &mut home.tenure.pursuit
            {
                pursuit.may_have_missed();
            }
            if let Some((hold, asked_at)) = home.waiting.take() {
                let answer = self.redis.hold(home.me, &hold, self.now);
                home.answers.push_back(match self.dice.one_in(3) {
                    true => Answered::HoldFailed(hold),
                    false => Answered::Hold(hold, asked_at, answer),
                });
            }
        }
    }

    fn watch_redis(&mut self) {
        let Some(away_until) = self.away_until else {
            return;
        };
        if away_until <= self.now {
            self.away_until = None;
            self.come_back();
        } else if self.unnoticed_until <= self.now {
            for home in &mut self.homes {
                home.tenure.set_cut_off(true, self.now);
            }
        }
    }

    pub(super) fn commit(&mut self) {
        if self.away_until.is_some() {
            return;
        }
        let group: Arc<str> = format!("g{}", self.group()).into();
        for _ in 0..=self.dice.roll(3) {
            let (epoch, made) = self.redis.commit(&group, self.now);
            let is_published = !(self.faults.losses && self.dice.one_in(40));
            for home in self.homes.iter_mut().filter(|home| home.hears) {
                if is_published {
                    let message = (group.clone(), epoch.clone(), made.clone());
                    home.messages.push_back(message);
                }
            }
        }
    }

    pub(super) fn fault(&mut self) {
        let index = self.dice.roll(self.homes.len() as u64) as usize;
        match self.dice.roll(5) {
            0 if self.faults.kills => {
                self.homes.remove(index);
                self.add_home();
            }
            1 if self.faults.drains && !self.homes.iter().any(|home| home.is_leaving) => {
                self.homes[index].is_leaving = true;
                self.add_home();
            }
            2 if self.faults.losses => {
                let home = &mut self.homes[index];
                home.messages.clear();
                if home.hears
                    && let Some(pursuit) = &mut home.tenure.pursuit
                {
                    pursuit.may_have_missed();
                }
            }
            3 if self.faults.pauses => {
                let long = self.dice.roll(1_200) * self.pace;
                self.homes[index].stands_still_until = self.now + long;
            }
            4 if self.faults.restarts => self.restart(),
            _ => {}
        }
    }

    /// One step of one home.
    pub(super) fn step(&mut self, index: usize) {
        let Self {
            dice,
            now,
            redis,
            homes,
            calls,
            faults,
            pace,
            away_until,
            ..
        } = self;
        let (now, home) = (*now, &mut homes[index]);
        if now < home.stands_still_until {
            return;
        }
        let is_away = away_until.is_some();
        if let Some(hold) = home.tenure.ask(now, now) {
            if is_away {
                home.waiting = Some((hold, now));
                return;
            }
            let fails = faults.redis_errors && dice.one_in(8);
            let reaches = !fails || dice.one_in(2);
            let answer = reaches.then(|| redis.hold(home.me, &hold, now));
            home.answers.push_back(match answer {
                Some(answer) if !fails => Answered::Hold(hold, now, answer),
                _ => Answered::HoldFailed(hold),
            });
        }
        if dice.one_in(2)
            && let Some(answer) = home.answers.pop_front()
        {
            home.take(answer, now);
        }
        let is_leaving = home.is_leaving;
        let Some(pursuit) = &mut home.tenure.pursuit else {
            return;
        };
        if is_leaving {
            pursuit.halt();
        }
        if home.look_at <= now {
            home.look_at = now + 1_000 * *pace;
            pursuit.look_again();
        }
        if dice.one_in(2)
            && let Some((group, epoch, made)) = home.messages.pop_front()
        {
            let is_too_large = dice.one_in(20);
            let seq = made.seq;
            pursuit.heard(&group, &epoch, seq, (!is_too_large).then_some(made));
        }
        if let Some(read) = pursuit.next_read() {
            let fails = is_away || faults.redis_errors && dice.one_in(8);
            home.answers.push_back(match read {
                read if fails => Answered::Failed(read),
                Read::Touched { since_ms } => {
                    let touched = redis.groups.iter();
                    let touched = touched.filter(|(_, group)| since_ms <= group.touched_ms);
                    Answered::Touched(now, touched.map(|(id, _)| id.clone()).collect())
                }
                Read::History { group, from } => {
                    let found = redis.history(&group, &from);
                    Answered::Found(group, from, found)
                }
            });
        }
        if home.tenure.holds(now)
            && let Some(next) = home
                .tenure
                .pursuit
                .as_mut()
                .and_then(Pursuit::next_hand_over)
        {
            home.lane.push_back(next);
        }
        if home.tenure.holds(now)
            && dice.one_in(2)
            && let Some(HandOver { group, change, era }) = home.lane.pop_front()
        {
            calls.entry(group.clone()).or_default().push(change.number);
            home.called.push((group, era, change.seq));
        }
        if !home.called.is_empty() && dice.one_in(2) {
            let answered = dice.roll(home.called.len() as u64) as usize;
            let (group, era, seq) = home.called.swap_remove(answered);
            if let Some(pursuit) = &mut home.tenure.pursuit {
                pursuit.done(&group, era, seq);
            }
        }
    }

    /// Lets a home go that has done what it had taken.
    pub(super) fn leave(&mut self, index: usize) {
        let home = &mut self.homes[index];
        let still = home.stands_still_until <= self.now;
        let is_asking = home.tenure.ask_at().is_none();
        if !home.is_leaving || !still || is_asking || self.away_until.is_some() {
            return;
        }
        let term = home.tenure.term();
        let Some(pursuit) = &mut home.tenure.pursuit else {
            self.homes.remove(index);
            return;
        };
        pursuit.halt();
        if 0 < pursuit.open() {
            return;
        }
        let stored = &self.redis.stored;
        if stored.holder == Some(home.me) && stored.term == term {
            loop {
                let delta = pursuit.delta();
                self.redis.write(&delta);
                if !delta.has_more {
                    break;
                }
            }
            self.redis.stored.holder = None;
        }
        self.homes.remove(index);
        for home in &mut self.homes {
            home.tenure.may_be_free(self.now);
        }
    }

    pub(super) fn run(&mut self, steps: u64) {
        for step in 0..steps {
            self.now += self.dice.roll(3 * self.pace);
            self.watch_redis();
            if step < steps / 3 {
                if self.dice.one_in(12) {
                    self.commit();
                }
                if self.dice.one_in(150) {
                    self.fault();
                }
            }
            let index = self.dice.roll(self.homes.len() as u64) as usize;
            self.step(index);
            let index = self.dice.roll(self.homes.len() as u64) as usize;
            self.leave(index);
        }
    }

    /// What was called of each group, without repetitions, must be what was made, in order. Gives how many were repeated.
    pub(super) fn check(&self, seed: u64) -> usize {
        let mut repeated = 0;
        for (id, group) in &self.redis.groups {
            let calls = self.calls.get(id).map_or(&[][..], Vec::as_slice);
            let mut seen = BTreeSet::new();
            let mut first_calls = Vec::new();
            for number in calls {
                if seen.insert(*number) {
                    first_calls.push(*number);
                }
            }
            repeated += calls.len() - first_calls.len();
            assert!(
                first_calls.is_sorted(),
                "seed {seed}, {id}: {first_calls:?}"
            );
            assert_eq!(first_calls.len() as u64, group.seq, "seed {seed}, {id}");
        }
        repeated
    }
}
