//! How far one group of a stream has come with one trigger: what was taken, what is not done yet, what waits for a read of the
//! history. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use super::pursuit::Numbered;

/// Most changes of one group that wait for a read of its history. What comes beyond is read again.
pub(super) const HELD_MAX: usize = 256;

/// Up to where a trigger has come in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Names the group's history.
    pub(super) epoch: Arc<str>,
    /// The last change.
    pub(super) seq: u64,
}

/// One group.
pub(super) struct Course<C> {
    /// The last change that was taken; `None`: nothing is known of the group yet.
    pub(super) taken: Option<Place>,
    /// The timestamp of the last change that was taken.
    pub(super) last_ms: u64,
    /// What was taken and is not done, in order; what is done stays until all before it is.
    undone: VecDeque<Undone>,
    /// Counts the histories of the group that were followed, so that their changes have an order.
    era: u32,
    /// Whether the history is to be read.
    pub(super) phase: Phase<C>,
    /// When a message last came in order, by the pursuit's count of rounds and losses.
    pub(super) heard_in: u64,
    /// A round did not read it since messages came; the next one has to look at it.
    pub(super) is_skipped: bool,
    /// What the cursor in Redis says, where that is known.
    pub(super) stored: Option<Place>,
    /// Whether the cursor in Redis may name the group.
    pub(super) is_named: bool,
    /// Whether it stands in the list of those whose cursor may have to be written.
    pub(super) is_dirty: bool,
}

struct Undone {
    era: u32,
    epoch: Arc<str>,
    seq: u64,
    is_done: bool,
}

/// Whether a group's history has to be read before more can be taken.
pub(super) enum Phase<C> {
    /// No: messages are taken as they come.
    Live,
    /// A read is due, or on its way.
    Reading {
        /// The read has begun.
        is_open: bool,
        /// It has to be repeated, as messages were dropped meanwhile.
        again: bool,
        /// The whole history is wanted, since it began anew.
        from_begin: bool,
        /// A round ends only when this is read.
        for_round: bool,
        /// What came meanwhile.
        held: Vec<Held<C>>,
    },
}

/// A message that waits for a read.
pub(super) struct Held<C> {
    pub(super) epoch: Arc<str>,
    pub(super) change: C,
    /// It came before the read began: what the read does not tell before it is not there.
    pub(super) is_covered: bool,
}

impl<C: Numbered> Course<C> {
    /// A group of which up to `taken` is done.
    pub(super) fn new(taken: Option<Place>, last_ms: u64) -> Self {
        Self {
            taken,
            last_ms,
            undone: VecDeque::new(),
            era: 0,
            phase: Phase::Live,
            heard_in: 0,
            is_skipped: false,
            stored: None,
            is_named: false,
            is_dirty: false,
        }
    }

    /// Takes a change; gives the era that [`Course::done`] wants.
    pub(super) fn take(&mut self, epoch: &Arc<str>, change: &C) -> u32 {
        let is_other = |place: &Place| place.epoch != *epoch;
        if self.taken.as_ref().is_some_and(is_other) {
            self.era += 1;
        }
        self.undone.push_back(Undone {
            era: self.era,
            epoch: epoch.clone(),
            seq: change.seq(),
            is_done: false,
        });
        self.pass(epoch, change.seq());
        self.last_ms = self.last_ms.max(change.timestamp());
        self.era
    }

    /// Goes on to `seq` without taking what lies before it.
    pub(super) fn pass(&mut self, epoch: &Arc<str>, seq: u64) {
        self.taken = Some(Place {
            epoch: epoch.clone(),
            seq,
        });
    }

    /// Notes that a change is done. Whether everything is done up to a later place now.
    pub(super) fn done(&mut self, era: u32, seq: u64) -> bool {
        let Ok(index) = self
            .undone
            .binary_search_by_key(&(era, seq), |undone| (undone.era, undone.seq))
        else {
            return false;
        };
        self.undone[index].is_done = true;
        while self.undone.front().is_some_and(|first| first.is_done) {
            self.undone.pop_front();
        }
        index == 0
    }

    /// Up to where everything is done.
    pub(super) fn done_up_to(&self) -> Option<Place> {
        match self.undone.front() {
            Some(first) => Some(Place {
                epoch: first.epoch.clone(),
                seq: first.seq - 1,
            }),
            None => self.taken.clone(),
        }
    }

    /// Whether messages are taken as they come.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// Whether nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.undone.is_empty() && self.is_live() && !self.is_skipped
    }

    /// Holds a change until the history was read.
    pub(super) fn hold(&mut self, epoch: &Arc<str>, change: Option<C>) {
        let Phase::Reading {
            again,
            held,
            is_open,
            ..
        } = &mut self.phase
        else {
            return;
        };
        match change {
            Some(change) if held.len() < HELD_MAX => held.push(Held {
                epoch: epoch.clone(),
                change,
                is_covered: false,
            }),
            // A read that has not begun will find it.
            _ => *again |= *is_open,
        }
    }
}
