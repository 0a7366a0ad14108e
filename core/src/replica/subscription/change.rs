//! What an event tells a subscription of an item, and what that makes of the item's pending mutations. Knows no `sync`.

use alloc::sync::Arc;

use crate::replica::confirmed::Outcome;
use crate::replica::frame::{ItemChange, Taken};
use crate::replica::received::Received;
use crate::replica::subscription::settling::soon;
use crate::replica::subscription::{Stage, Subscription};

impl Subscription {
    pub(super) fn change(
        &mut self,
        id: &Arc<str>,
        seq: Option<u64>,
        mutation: Option<&Taken<'_>>,
        change: ItemChange,
        received: &mut Received,
    ) {
        if seq.is_none() && !self.is_version1 {
            return;
        }
        let overlay = self.overlays.get_mut(id);
        let outcome = match &mut self.stage {
            Stage::Away | Stage::Asked => return,
            Stage::Reading(reading) if seq <= reading.heard && reading.replacement.is_some() => {
                return;
            }
            Stage::Reading(reading) if seq <= reading.heard => Outcome::Old,
            Stage::Reading(reading) => {
                reading.heard = seq;
                let between = Some(&mut reading.between);
                if let Some(replacement) = &mut reading.replacement {
                    let outcome = replacement.change(id, seq, change, None, between);
                    if let (Some(overlay), Some(mutation), Some(change_seq)) =
                        (overlay, mutation, seq)
                    {
                        overlay.acknowledge_echo(&mutation.tag, mutation.seq, soon(change_seq));
                    }
                    if outcome == Outcome::Misfit {
                        self.lose(received);
                    }
                    return;
                }
                self.confirmed.change(id, seq, change, None, between)
            }
            Stage::Live => {
                let held = self.position.as_ref().map(|position| position.seq);
                if seq.is_some() && seq <= held {
                    Outcome::Old
                } else {
                    let expected = overlay.as_ref().zip(mutation);
                    let expected = expected
                        .and_then(|(overlay, taken)| overlay.expected(&taken.tag, taken.seq));
                    let expected = expected.as_deref();
                    self.confirmed.change(id, seq, change, expected, None)
                }
            }
        };
        if outcome == Outcome::Misfit {
            return self.lose(received);
        }
        if let Outcome::Done { .. } = outcome {
            self.changed.note(id);
        }
        if let Some(overlay) = self.overlays.get_mut(id) {
            let taken = mutation.map(|taken| (&*taken.tag, taken.seq));
            match (outcome, taken, seq) {
                (Outcome::Ahead, Some((tag, own)), Some(seq)) => {
                    overlay.acknowledge_echo(tag, own, soon(seq));
                }
                (Outcome::Ahead, ..) => {}
                (Outcome::Done { as_expected: true }, ..) => overlay.confirm_first(),
                (outcome, taken, _) => {
                    if let Outcome::Done { .. } = outcome {
                        overlay.invalidate();
                    }
                    if let Some((tag, own)) = taken {
                        overlay.confirm(tag, own);
                    }
                }
            }
            if let Some(seq) = seq
                && outcome != Outcome::Ahead
            {
                overlay.settle(|acknowledged| acknowledged.change_seq <= seq);
            }
            self.changed.note(id);
            self.drop_empty(id);
        }
        self.advance(seq);
    }

    /// Takes note of a change. Whether it is new.
    pub(super) fn hears(&mut self, seq: Option<u64>) -> bool {
        match &mut self.stage {
            Stage::Away | Stage::Asked => return false,
            Stage::Reading(reading) => {
                if seq <= reading.heard {
                    return false;
                }
                reading.heard = seq;
            }
            Stage::Live => {
                let held = self.position.as_ref().map(|position| position.seq);
                let is_new = if held.is_some() {
                    held < seq
                } else {
                    self.is_version1
                };
                if !is_new {
                    return false;
                }
                self.advance(seq);
            }
        }
        true
    }
}
