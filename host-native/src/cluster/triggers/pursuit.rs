//! Follows the changes of one stream for one trigger: from messages, and from the history where messages are missing, each
//! change once and in the order of its group; and knows up to where everything is done, so that another instance can go on
//! there. Pure: no clock, no Redis; it says what is to be read and is told what was found.
//!
//! What is promised: each change that was committed at or after the cursor's time and is not in it is handed over once, as long as
//! the history reaches back to it; what it does not reach is counted.

mod cursor;
mod progress;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub(super) use cursor::{Cursor, Delta, Found, From, Numbered, Read};

use super::course::{Course, Held, Phase, Place};
use progress::GROUPS_MAX;

/// From how many changes that wait to be handed over on no more are taken; they are read from the history later.
const READY_MAX: usize = 1_024;

/// Most reads at one time.
const READS_MAX: usize = 8;

/// How late the index may tell that a group was written, with room for clocks that differ.
const INDEX_LATE_MS: u64 = 25_000;

/// A change that is due.
#[derive(Debug)]
pub(super) struct HandOver<C> {
    pub(super) group: Arc<str>,
    pub(super) change: C,
    /// For [`Pursuit::done`].
    pub(super) era: u32,
}

/// See the module.
pub(super) struct Pursuit<C> {
    since_ms: u64,
    stored_since_ms: Option<u64>,
    groups: HashMap<Arc<str>, Course<C>>,
    ready: VecDeque<HandOver<C>>,
    unread: VecDeque<Arc<str>>,
    reads_open: usize,
    dirty: Vec<Arc<str>>,
    forgotten: Vec<Arc<str>>,
    round: Round,
    /// How many groups there are when room is made next.
    forget_from: usize,
    /// Counts rounds and losses.
    listening: u64,
    /// Handed over and not done.
    open: usize,
    lost: u64,
    is_halted: bool,
}

/// Looking at all groups that were touched, for changes of which no message came.
#[derive(Default)]
struct Round {
    is_due: bool,
    /// Its read of the index is on its way.
    is_asking: bool,
    /// The groups it still has to read, and when it began; `None`: none goes on.
    open: Option<(usize, u64)>,
    /// Messages were lost since it began: it does not count.
    is_void: bool,
    /// When the last one that came to its end began, in Unix milliseconds by Redis.
    last_ms: Option<u64>,
    /// Messages of what count of rounds and losses make a read of a group needless.
    heard_in: u64,
    /// Groups that the last round left to this one.
    skipped: Vec<Arc<str>>,
}

impl<C: Numbered> Pursuit<C> {
    /// Goes on from a cursor. `now_ms` is the time by Redis.
    pub(super) fn begin(cursor: Cursor, is_stored: bool, now_ms: u64) -> Self {
        let mut pursuit = Self {
            since_ms: cursor.since_ms,
            stored_since_ms: is_stored.then_some(cursor.since_ms),
            groups: HashMap::new(),
            ready: VecDeque::new(),
            unread: VecDeque::new(),
            reads_open: 0,
            dirty: Vec::new(),
            forgotten: Vec::new(),
            round: Round {
                is_due: true,
                ..Round::default()
            },
            forget_from: GROUPS_MAX,
            listening: 1,
            open: 0,
            lost: 0,
            is_halted: false,
        };
        for (group, place) in cursor.places {
            // When the place's change was is not known: not later than now.
            let mut course = Course::new(Some(place.clone()), now_ms);
            course.stored = is_stored.then_some(place);
            course.is_named = is_stored;
            // Where changes were left undone the group need not have been touched since.
            course.is_skipped = true;
            pursuit.round.skipped.push(group.clone());
            pursuit.groups.insert(group.clone(), course);
            if !is_stored {
                pursuit.mark(&group);
            }
        }
        pursuit
    }

    /// Messages may be missing up to now: all groups that were touched are to be looked at.
    pub(super) fn may_have_missed(&mut self) {
        self.listening += 1;
        self.round.is_void = true;
        self.round.is_due = true;
    }

    /// It is time to look again whether there are changes of which no message came.
    pub(super) fn look_again(&mut self) {
        self.round.is_due = true;
    }

    /// Takes a message's change; `None` where it is too large for a message.
    pub(super) fn heard(
        &mut self,
        group: &Arc<str>,
        epoch: &Arc<str>,
        seq: u64,
        change: Option<C>,
    ) {
        if self.is_halted {
            return;
        }
        let has_room = self.ready.len() < READY_MAX;
        let listening = self.listening;
        let course = self.course(group);
        if let Phase::Reading { .. } = course.phase {
            course.hold(epoch, change);
            return;
        }
        let next = match &course.taken {
            Some(place) if place.epoch == *epoch => place.seq + 1,
            // The first change of a group is the first, whatever was known.
            None => 1,
            Some(_) => 0,
        };
        if seq < next {
            return;
        }
        course.heard_in = listening;
        match change {
            Some(change) if seq == next && has_room => self.take(group, epoch, change),
            change => {
                self.want(group, false);
                if let Some(course) = self.groups.get_mut(group) {
                    course.hold(epoch, change);
                }
            }
        }
    }

    /// What is to be read next. Each must be answered by [`Pursuit::touched`], [`Pursuit::found`] or [`Pursuit::failed`].
    pub(super) fn next_read(&mut self) -> Option<Read> {
        if self.is_halted || READS_MAX <= self.reads_open {
            return None;
        }
        if self.round.is_due && !self.round.is_asking && self.round.open.is_none() {
            self.round.is_due = false;
            self.round.is_asking = true;
            self.round.is_void = false;
            self.round.heard_in = self.listening;
            self.listening += 1;
            self.reads_open += 1;
            let since_ms = self.round.last_ms.unwrap_or(self.since_ms);
            let since_ms = since_ms.saturating_sub(INDEX_LATE_MS);
            return Some(Read::Touched { since_ms });
        }
        if READY_MAX / 2 <= self.ready.len() {
            return None;
        }
        let group = self.unread.pop_front()?;
        let course = self.groups.get_mut(&group)?;
        let Phase::Reading {
            is_open,
            again,
            from_begin,
            held,
            ..
        } = &mut course.phase
        else {
            return None;
        };
        *is_open = true;
        *again = false;
        held.iter_mut().for_each(|held| held.is_covered = true);
        let from = match &course.taken {
            _ if *from_begin => From::Since(0),
            Some(place) => From::After(place.seq),
            None => From::Since(course.last_ms),
        };
        self.reads_open += 1;
        Some(Read::History { group, from })
    }

    /// A read failed: it will be asked for again.
    pub(super) fn failed(&mut self, read: &Read) {
        self.reads_open -= 1;
        match read {
            Read::Touched { .. } => {
                self.round.is_asking = false;
                self.round.is_due = true;
            }
            Read::History { group, .. } => {
                let Some(course) = self.groups.get_mut(group) else {
                    return;
                };
                if let Phase::Reading { is_open, .. } = &mut course.phase {
                    *is_open = false;
                    self.unread.push_back(group.clone());
                }
            }
        }
    }

    /// The groups that were touched; `begun_ms` is the time by Redis when that was asked.
    pub(super) fn touched(&mut self, begun_ms: u64, groups: Vec<Arc<str>>) {
        self.reads_open -= 1;
        self.round.is_asking = false;
        let heard_in = self.round.heard_in;
        let mut open = 0;
        let left = std::mem::take(&mut self.round.skipped);
        for group in &left {
            self.course(group).is_skipped = false;
        }
        for group in groups.into_iter().chain(left) {
            let course = self.course(&group);
            let is_known = course.taken.is_some();
            let is_skipped = is_known && course.is_live() && heard_in <= course.heard_in;
            if !is_skipped {
                open += usize::from(self.want(&group, true));
            } else if !std::mem::replace(&mut course.is_skipped, true) {
                self.round.skipped.push(group);
            }
        }
        self.round.open = Some((open, begun_ms));
        self.end_round();
    }

    /// What a group's history holds.
    pub(super) fn found(&mut self, group: &Arc<str>, from: &From, found: Found<C>) {
        self.reads_open -= 1;
        let Some(course) = self.groups.get_mut(group) else {
            return;
        };
        let was_from_begin = *from == From::Since(0);
        let is_same = course
            .taken
            .as_ref()
            .is_none_or(|place| place.epoch == found.epoch);
        let Phase::Reading {
            is_open,
            again,
            from_begin,
            for_round,
            held,
        } = &mut course.phase
        else {
            return;
        };
        if !is_same && !was_from_begin {
            // The history began anew: all of it is wanted.
            *is_open = false;
            *from_begin = true;
            self.unread.push_back(group.clone());
            return;
        }
        let (mut again, for_round) = (*again, *for_round);
        let held = std::mem::take(held);
        course.phase = Phase::Live;
        if !self.is_halted {
            let epoch = found.epoch.clone();
            self.take_found(group, found);
            for held in held {
                again |= held.epoch != epoch;
                self.take_held(group, &epoch, held);
            }
        }
        if again && !self.is_halted {
            self.want(group, for_round);
        } else if for_round {
            if let Some((open, _)) = &mut self.round.open {
                *open = open.saturating_sub(1);
            }
            self.end_round();
        }
    }

    /// Takes what came while the history was read. Of another history it says no more than that it is there.
    fn take_held(&mut self, group: &Arc<str>, epoch: &Arc<str>, held: Held<C>) {
        let seq = held.change.seq();
        if held.epoch != *epoch {
            return;
        }
        let course = self.groups.get(group);
        let taken = course.and_then(|course| course.taken.as_ref());
        let next = taken.map_or(1, |place| place.seq + 1);
        if next < seq && held.is_covered && course.is_some_and(Course::is_live) {
            self.lost += seq - next;
            self.take(group, epoch, held.change);
        } else {
            // What does not follow makes a read due, and is held again.
            self.heard(group, epoch, seq, Some(held.change));
        }
    }

    fn take_found(&mut self, group: &Arc<str>, found: Found<C>) {
        let Found {
            epoch,
            seq,
            changes,
            is_whole,
            first,
        } = found;
        let Some(course) = self.groups.get_mut(group) else {
            return;
        };
        // Of another history, also what went before it is due, from where the one that was followed ended.
        let is_other = |place: &Place| place.epoch != epoch;
        let is_other = course.taken.as_ref().is_some_and(is_other);
        let mut next = course.taken.as_ref().map(|place| match is_other {
            true => first.min(place.seq + 1),
            false => place.seq + 1,
        });
        if next.is_none() && !is_whole {
            // How many came before what is left is not known.
            self.lost += 1;
        }
        for change in changes {
            if next.is_some_and(|next| change.seq() < next) {
                continue;
            }
            self.lost += change.seq() - next.unwrap_or(change.seq());
            next = Some(change.seq() + 1);
            self.take(group, &epoch, change);
        }
        let Some(course) = self.groups.get_mut(group) else {
            return;
        };
        let up_to = next.unwrap_or(0);
        if up_to <= seq || is_other {
            self.lost += next.map_or(0, |next| (seq + 1).saturating_sub(next));
            course.pass(&epoch, seq);
            self.mark(group);
        }
    }

    /// The next change that is due.
    pub(super) fn next_hand_over(&mut self) -> Option<HandOver<C>> {
        let next = self.ready.pop_front()?;
        self.open += 1;
        Some(next)
    }

    /// Whether a change is due.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A change that was handed over is done: it was answered, or nobody wanted it.
    pub(super) fn done(&mut self, group: &Arc<str>, era: u32, seq: u64) {
        self.open = self.open.saturating_sub(1);
        let Some(course) = self.groups.get_mut(group) else {
            return;
        };
        if course.done(era, seq) {
            self.mark(group);
        }
    }

    /// A change that was handed over is not done: whoever goes on from the cursor has to do it.
    pub(super) fn given_up(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Takes and hands over nothing more. What was not handed over counts as not done.
    pub(super) fn halt(&mut self) {
        self.is_halted = true;
        self.ready.clear();
    }

    /// How many changes were handed over and are not done.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// How many changes were lost since this was asked last.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    fn take(&mut self, group: &Arc<str>, epoch: &Arc<str>, change: C) {
        let Some(course) = self.groups.get_mut(group) else {
            return;
        };
        let era = course.take(epoch, &change);
        self.mark(group);
        self.ready.push_back(HandOver {
            group: group.clone(),
            change,
            era,
        });
    }

    /// Makes a read of a group due. Whether the round has to wait for one more now.
    fn want(&mut self, group: &Arc<str>, for_round: bool) -> bool {
        let Some(course) = self.groups.get_mut(group) else {
            return false;
        };
        match &mut course.phase {
            Phase::Reading {
                is_open,
                again,
                for_round: is_for_round,
                ..
            } => {
                // A read that began before the round did may not show everything.
                *again |= *is_open && for_round;
                for_round && !std::mem::replace(is_for_round, true)
            }
            Phase::Live => {
                course.phase = Phase::Reading {
                    is_open: false,
                    again: false,
                    from_begin: false,
                    for_round,
                    held: Vec::new(),
                };
                self.unread.push_back(group.clone());
                for_round
            }
        }
    }

    fn course(&mut self, group: &Arc<str>) -> &mut Course<C> {
        if self.forget_from <= self.groups.len() && !self.groups.contains_key(group) {
            self.forget_quiet();
        }
        let since_ms = self.since_ms;
        self.groups
            .entry(group.clone())
            .or_insert_with(|| Course::new(None, since_ms))
    }
}
