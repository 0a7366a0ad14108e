//! A model of Redis: the histories of groups, the lease of one trigger with its cursor.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::course::Place;
use super::super::pursuit::{Cursor, Delta, Found, From, Numbered};
use super::super::tenure::{Answer, Hold};

const HISTORY_MAX: usize = 2_000;

/// A small generator of random numbers, so that a seed names a run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Made {
    /// Unique.
    pub(super) number: u64,
    pub(super) seq: u64,
    pub(super) ms: u64,
}

impl Numbered for Made {
    fn seq(&self) -> u64 {
        self.seq
    }
    fn timestamp(&self) -> u64 {
        self.ms
    }
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) history: VecDeque<Made>,
    pub(super) touched_ms: u64,
    /// Where the history of this epoch begins; what is before is of an earlier one.
    first: u64,
    /// Redis was restarted since somebody looked at the group.
    is_of_before: bool,
}

impl Group {
    /// Lets another history begin, if Redis was restarted. What there was before stays.
    fn see(&mut self) {
        if std::mem::take(&mut self.is_of_before) {
            self.epoch += 1;
            self.first = self.seq + 1;
        }
    }
}

#[derive(Default)]
pub(super) struct Stored {
    pub(super) holder: Option<usize>,
    pub(super) term: u64,
    pub(super) until: u64,
    pub(super) cursor: Option<(u64, BTreeMap<Arc<str>, Place>)>,
}

#[derive(Default)]
pub(super) struct Redis {
    pub(super) groups: BTreeMap<Arc<str>, Group>,
    pub(super) stored: Stored,
    pub(super) made: u64,
    pub(super) lease_ms: u64,
    /// How often the lease was taken from a home that had not let it go.
    pub(super) seized: usize,
}

impl Redis {
    pub(super) fn hold(&mut self, me: usize, hold: &Hold, now: u64) -> Answer {
        let stored = &mut self.stored;
        if stored.holder.is_some_and(|holder| holder != me) && now < stored.until {
            return Answer::Taken {
                left_ms: stored.until - now,
            };
        }
        if stored.holder.is_some_and(|holder| holder != me) && hold.seize_until_ms < now {
            return Answer::Taken {
                left_ms: self.lease_ms,
            };
        }
        if stored.holder.is_some_and(|holder| holder != me) {
            self.seized += 1;
        }
        let goes_on = hold.term != 0 && stored.holder == Some(me) && stored.term == hold.term;
        stored.holder = Some(me);
        stored.until = now + self.lease_ms;
        if goes_on {
            self.write(&hold.delta);
            return Answer::Renewed;
        }
        let was = stored.term;
        stored.term = stored.term.max(hold.term) + 1;
        let term = stored.term;
        match &stored.cursor {
            None if hold.term != 0 => Answer::Recreated { term },
            None => {
                assert_eq!(was, 0);
                stored.cursor = Some((hold.fresh_ms, BTreeMap::new()));
                Answer::Begun {
                    term,
                    cursor: None,
                    redis_ms: now,
                }
            }
            Some((since_ms, places)) => Answer::Begun {
                term,
                cursor: Some(Cursor {
                    since_ms: *since_ms,
                    places: places.clone().into_iter().collect(),
                }),
                redis_ms: now,
            },
        }
    }

    pub(super) fn write(&mut self, delta: &Delta) {
        let (since_ms, places) = self.stored.cursor.get_or_insert_default();
        *since_ms = delta.since_ms;
        for group in &delta.forgotten {
            places.remove(group);
        }
        places.extend(delta.places.iter().cloned());
    }

    pub(super) fn commit(&mut self, group: &Arc<str>, now: u64) -> (Arc<str>, Made) {
        self.made += 1;
        let group = self.groups.entry(group.clone()).or_default();
        group.see();
        group.seq += 1;
        let made = Made {
            number: self.made,
            seq: group.seq,
            ms: now,
        };
        group.history.push_back(made.clone());
        if HISTORY_MAX < group.history.len() {
            group.history.pop_front();
        }
        if group.touched_ms + 10_000 <= now || group.seq == 1 {
            group.touched_ms = now;
        }
        (epoch(group), made)
    }

    pub(super) fn restart(&mut self) {
        let groups = self.groups.values_mut();
        groups.for_each(|group| group.is_of_before = true);
    }

    pub(super) fn history(&mut self, group: &Arc<str>, from: &From) -> Found<Made> {
        let group = self.groups.entry(group.clone()).or_default();
        if let From::After(_) = from {
            group.see();
        }
        let first = group.history.front();
        let (is_whole, changes) = match from {
            From::After(seq) => (
                first.map_or(group.seq, |first| first.seq - 1) <= *seq,
                group
                    .history
                    .iter()
                    .filter(|made| *seq < made.seq)
                    .cloned()
                    .collect(),
            ),
            From::Since(ms) => (
                first.is_none_or(|first| first.seq == 1 || first.ms < *ms),
                group
                    .history
                    .iter()
                    .filter(|made| *ms <= made.ms)
                    .cloned()
                    .collect(),
            ),
        };
        Found {
            epoch: epoch(group),
            seq: group.seq,
            changes,
            is_whole,
            first: group.first.max(1),
        }
    }
}

pub(super) fn epoch(group: &Group) -> Arc<str> {
    group.epoch.to_string().into()
}
