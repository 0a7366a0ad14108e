//! One instance where the trigger is bound, with what is on its way to it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::pursuit::{Cursor, Found, From, HandOver, Read};
use super::super::tenure::{Answer, Hold, LeaseTimes, Tenure, Turn};
use super::redis::Made;

pub(super) type Message = (Arc<str>, Arc<str>, Made);

/// What is on its way to a home.
pub(super) enum Answered {
    Hold(Hold, u64, Answer),
    HoldFailed(Hold),
    Touched(u64, Vec<Arc<str>>),
    Found(Arc<str>, From, Found<Made>),
    Failed(Read),
}

pub(super) struct Home {
    pub(super) me: usize,
    pub(super) tenure: Tenure<Made>,
    /// Subscribed, and not cut off.
    pub(super) hears: bool,
    pub(super) messages: VecDeque<Message>,
    pub(super) answers: VecDeque<Answered>,
    /// A call for the lease that waits for Redis, and when it was made.
    pub(super) waiting: Option<(Hold, u64)>,
    /// Handed over and not called.
    pub(super) lane: VecDeque<HandOver<Made>>,
    /// Called and not answered.
    pub(super) called: Vec<(Arc<str>, u32, u64)>,
    pub(super) is_leaving: bool,
    pub(super) stands_still_until: u64,
    pub(super) look_at: u64,
}

impl Home {
    pub(super) fn new(me: usize, now: u64, lease_ms: u64) -> Self {
        let times = LeaseTimes {
            lease_ms,
            renew_ms: lease_ms / 5,
        };
        let fresh = Cursor {
            since_ms: now,
            places: Vec::new(),
        };
        Self {
            me,
            tenure: Tenure::new(times, fresh),
            hears: false,
            messages: VecDeque::new(),
            answers: VecDeque::new(),
            waiting: None,
            lane: VecDeque::new(),
            called: Vec::new(),
            is_leaving: false,
            stands_still_until: 0,
            look_at: 0,
        }
    }
}

impl Home {
    pub(super) fn take(&mut self, answer: Answered, now: u64) {
        match answer {
            Answered::Hold(hold, asked_at, answer) => {
                match self.tenure.answered(&hold, asked_at, now, answer) {
                    Turn::None => {}
                    Turn::Began => {
                        self.answers.clear();
                        self.messages.clear();
                        self.lane.clear();
                        self.called.clear();
                        self.hears = true;
                    }
                    Turn::Lost => {
                        self.answers.clear();
                        self.messages.clear();
                        self.lane.clear();
                        self.called.clear();
                        self.hears = false;
                    }
                }
            }
            Answered::HoldFailed(hold) => self.tenure.failed(hold, now),
            answer => {
                let Some(pursuit) = &mut self.tenure.pursuit else {
                    return;
                };
                match answer {
                    Answered::Touched(begun_ms, groups) => pursuit.touched(begun_ms, groups),
                    Answered::Found(group, from, found) => pursuit.found(&group, &from, found),
                    Answered::Failed(read) => pursuit.failed(&read),
                    Answered::Hold(..) | Answered::HoldFailed(_) => {}
                }
            }
        }
    }
}
