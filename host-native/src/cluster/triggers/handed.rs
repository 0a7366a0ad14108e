//! A change on its way through the lanes of a trigger. When the last of them is done with it, it is done, unless the trigger was
//! lost or given up before: then somebody else has to do it.

use std::sync::Arc;

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
}

impl Ticket for Handed {
    fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if !self.gate.is_closed() {
            self.leader
                .done(self.generation, &self.group, self.era, self.seq);
        }
    }
}
