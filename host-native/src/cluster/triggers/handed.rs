//! A change on its way through the lanes of a trigger. When the last of them is done with it, it is done, unless the trigger was
//! lost or given up before one of them had its answer: then somebody else has to do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::leader::Leader;
use crate::engine::{Gate, Ticket};

/// See the module.
pub(super) struct Handed {
    pub(super) leader: Arc<Leader>,
    pub(super) gate: Arc<Gate>,
    pub(super) generation: u64,
    pub(super) group: Arc<str>,
    pub(super) era: u32,
    pub(super) seq: u64,
    /// A lane let it go unanswered when the gate was closed.
    pub(super) is_given_up: AtomicBool,
}

impl Ticket for Handed {
    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn leaves_lane(&self, is_answered: bool) {
        if !is_answered && self.gate.is_closed() {
            self.is_given_up.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let (generation, group) = (self.generation, &self.group);
        match *self.is_given_up.get_mut() {
            false => self.leader.done(generation, group, self.era, self.seq),
            true => self.leader.given_up(generation),
        }
    }
}
