//! Whether this instance leads one trigger: asks for the lease, keeps it, writes the cursor with it, and lets it go. Pure: it is
//! handed the time, a monotonic one in milliseconds, so that a process that was stopped for a while knows it on waking.

use super::pursuit::{Cursor, Delta, Numbered, Pursuit};

/// How long after a failed call the lease is asked for again.
const RETRY_MS: u64 = 200;

/// How long a call that takes the lease from another instance may be on its way at least: clocks are only estimated.
const SEIZE_TIME_MIN_MS: u64 = 250;

/// Part of the lease that is given away, so that clocks that do not run alike cannot make two leaders: a tenth.
const SAFETY_PART: u64 = 10;

/// How long leases last.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseTimes {
    /// How long one lasts after it was renewed.
    pub(super) lease_ms: u64,
    /// How often it is renewed, and the cursor is written.
    pub(super) renew_ms: u64,
}

/// A call for the lease.
#[derive(Debug)]
pub(super) struct Hold {
    /// The term that is led; 0: none.
    pub(super) term: u64,
    /// From where on a trigger that nobody knows begins, in Unix milliseconds by Redis.
    pub(super) fresh_ms: u64,
    /// Until when the lease may be taken from another instance, in Unix milliseconds by Redis: a call that Redis gets only after
    /// it was away must not come before that of the one that leads.
    pub(super) seize_until_ms: u64,
    /// What is new in the cursor; written only where the term still is this one.
    pub(super) delta: Delta,
}

/// What Redis answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// The term goes on.
    Renewed,
    /// Redis knew nothing of the trigger: it was restarted without data, or away for very long. A new term, for the same leader.
    Recreated { term: u64 },
    /// A new term begins, at a cursor; `None`: the trigger is new, or nobody remembers it.
    Begun {
        term: u64,
        cursor: Option<Cursor>,
        redis_ms: u64,
    },
    /// Another instance leads, for so long at least.
    Taken { left_ms: u64 },
}

/// What an answer means for whoever hands changes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing new.
    None,
    /// This instance leads from now on.
    Began,
    /// Another one leads: nothing that was handed over and not called may be called any more.
    Lost,
}

/// See the module.
pub(super) struct Tenure<C> {
    times: LeaseTimes,
    /// The term; 0 before there is one.
    term: u64,
    until: u64,
    ask_at: u64,
    is_asking: bool,
    /// Redis cannot be heard.
    is_cut_off: bool,
    /// Until then the lease is left to whoever leads.
    patient_until: u64,
    /// Where a trigger that nobody knows begins, as it was when it was bound here; `None`: now.
    fresh: Option<Cursor>,
    /// What is followed while the term lasts.
    pub(super) pursuit: Option<Pursuit<C>>,
}

impl<C: Numbered> Tenure<C> {
    /// Leads nothing yet, and asks at once.
    pub(super) fn new(times: LeaseTimes, fresh: Cursor) -> Self {
        Self {
            times,
            term: 0,
            until: 0,
            ask_at: 0,
            is_asking: false,
            is_cut_off: false,
            patient_until: 0,
            fresh: Some(fresh),
            pursuit: None,
        }
    }

    /// When [`Tenure::ask`] has something to do next.
    pub(super) fn ask_at(&self) -> Option<u64> {
        (!self.is_asking).then_some(self.ask_at)
    }

    /// The lease may be free now.
    pub(super) fn may_be_free(&mut self, now: u64) {
        if self.pursuit.is_none() {
            self.ask_at = self.ask_at.min(now);
            self.patient_until = now;
        }
    }

    /// Redis cannot be heard, or can be again. Whoever leads renews the lease at once then, also if it has ended meanwhile; the
    /// others leave it the time of a lease for that.
    pub(super) fn set_cut_off(&mut self, is_cut_off: bool, now: u64) {
        let was_cut_off = std::mem::replace(&mut self.is_cut_off, is_cut_off);
        if was_cut_off && !is_cut_off {
            self.patient_until = now + self.times.lease_ms;
            if self.pursuit.is_some() {
                self.ask_at = self.ask_at.min(now);
            }
        }
    }

    /// The call that is due. It must be answered by [`Tenure::answered`] or [`Tenure::failed`].
    pub(super) fn ask(&mut self, now: u64, redis_ms: u64) -> Option<Hold> {
        if self.is_asking || now < self.ask_at {
            return None;
        }
        let is_patient = self.is_cut_off || now < self.patient_until;
        if is_patient && self.pursuit.is_none() {
            self.ask_at = self.patient_until.max(now + self.times.renew_ms);
            return None;
        }
        self.is_asking = true;
        let delta = self.pursuit.as_mut().map(Pursuit::delta);
        Some(Hold {
            term: if delta.is_some() { self.term } else { 0 },
            fresh_ms: self
                .fresh
                .as_ref()
                .map_or(redis_ms, |cursor| cursor.since_ms),
            seize_until_ms: redis_ms + self.times.renew_ms.max(SEIZE_TIME_MIN_MS),
            delta: delta.unwrap_or_default(),
        })
    }

    /// A call failed, or nobody knows what came of it.
    pub(super) fn failed(&mut self, hold: Hold, now: u64) {
        self.is_asking = false;
        self.ask_at = now + RETRY_MS.min(self.times.renew_ms);
        if let Some(pursuit) = self.pursuit.as_mut().filter(|_| hold.term == self.term) {
            pursuit.not_stored(hold.delta);
        }
    }

    /// Takes the answer to a call that was made at `asked_at`.
    pub(super) fn answered(
        &mut self,
        hold: &Hold,
        asked_at: u64,
        now: u64,
        answer: Answer,
    ) -> Turn {
        self.is_asking = false;
        let fresh = self.fresh.take();
        if let Answer::Taken { left_ms } = answer {
            self.ask_at = now + left_ms.max(RETRY_MS.min(self.times.renew_ms));
            return match self.pursuit.take() {
                Some(_) => Turn::Lost,
                None => Turn::None,
            };
        }
        self.until = asked_at + self.times.lease_ms - self.times.lease_ms / SAFETY_PART;
        self.ask_at = asked_at + self.times.renew_ms;
        match (answer, &mut self.pursuit) {
            (Answer::Renewed, Some(_)) => {
                if hold.delta.has_more {
                    self.ask_at = now;
                }
                Turn::None
            }
            (Answer::Recreated { term }, Some(pursuit)) => {
                self.term = term;
                pursuit.nothing_stored();
                Turn::None
            }
            (
                Answer::Begun {
                    term,
                    cursor,
                    redis_ms,
                },
                pursuit,
            ) => {
                self.term = term;
                let is_stored = cursor.is_some();
                let cursor = cursor.or(fresh).unwrap_or_else(|| Cursor {
                    since_ms: hold.fresh_ms,
                    places: Vec::new(),
                });
                *pursuit = Some(Pursuit::begin(cursor, is_stored, redis_ms));
                Turn::Began
            }
            // An answer to a term that was given up meanwhile.
            _ => Turn::None,
        }
    }

    /// Whether a change may be handed over now.
    pub(super) fn holds(&self, now: u64) -> bool {
        self.pursuit.is_some() && now < self.until
    }

    /// Until when the lease lasts.
    pub(super) fn until(&self) -> u64 {
        self.until
    }

    /// The term that is led, 0 for none.
    pub(super) fn term(&self) -> u64 {
        if self.pursuit.is_some() { self.term } else { 0 }
    }
}
