//! What a `sync` tells a subscription: pages of a snapshot, or that it goes on where it was. Knows no changes of items.

use alloc::sync::Arc;

use crate::position::Position;
use crate::replica::confirmed::{Between, Confirmed};
use crate::replica::frame::{PageOfItems, StreamFrame};
use crate::replica::received::Received;
use crate::replica::subscription::{Reading, Stage, Subscription};
use crate::text::Json;

impl Subscription {
    pub(super) fn page(
        &mut self,
        frame: &StreamFrame<'_>,
        page: &PageOfItems,
        received: &mut Received,
    ) {
        let (Some(epoch), Some(seq)) = (&frame.epoch, frame.seq) else {
            return;
        };
        if page.reset || !matches!(self.stage, Stage::Reading(_)) {
            let position = self.position.as_ref();
            let heard = match &self.stage {
                Stage::Reading(before) if *before.epoch == **epoch => before.heard,
                _ => position
                    .filter(|position| *position.epoch == **epoch)
                    .map(|position| position.seq),
            };
            let is_held = self.is_complete || !self.confirmed.is_empty();
            self.stage = Stage::Reading(Reading {
                epoch: epoch.as_ref().into(),
                replacement: is_held.then(Confirmed::default),
                between: Between::default(),
                heard,
            });
        }
        let Stage::Reading(reading) = &mut self.stage else {
            return;
        };
        if *reading.epoch != **epoch {
            return self.lose(received);
        }
        // Whatever came before is told; what comes late is old.
        reading.heard = reading.heard.max(Some(seq));
        for item in &page.items {
            if self.item.as_ref().is_some_and(|own| *own != item.id) {
                continue;
            }
            match &mut reading.replacement {
                Some(replacement) => drop(replacement.page_item(item, &reading.between)),
                None if self.confirmed.page_item(item, &reading.between) => {
                    self.changed.note(&item.id);
                    if let Some(overlay) = self.overlays.get_mut(&item.id) {
                        overlay.invalidate();
                        overlay.settle(|acknowledged| acknowledged.change_seq <= item.seq);
                    }
                }
                None => {}
            }
        }
        if !page.more {
            self.finish(seq, received);
        } else if reading.replacement.is_some() {
            // What is shown does not come from the pages yet.
            return;
        } else {
            self.settle_read(&frame.mutations);
        }
        self.promise(seq, &frame.mutations);
    }

    /// The last page has come.
    fn finish(&mut self, seq: u64, received: &mut Received) {
        let Stage::Reading(reading) = core::mem::replace(&mut self.stage, Stage::Live) else {
            return;
        };
        let seq = reading.heard.map_or(seq, |heard| heard.max(seq));
        let before = self.position.replace(Position {
            epoch: reading.epoch.clone(),
            seq,
        });
        if let Some(replacement) = reading.replacement {
            self.confirmed = replacement;
            self.changed.reset();
        }
        self.is_complete = true;
        self.is_version1 = false;
        // A sequence of another history is never reached.
        let is_other = before.is_some_and(|before| before.epoch != reading.epoch);
        self.sweep(|confirmed, id, acknowledged| {
            let item_seq = confirmed.get(id).and_then(|item| item.seq);
            let reached = item_seq.map_or(seq, |item_seq| item_seq.max(seq));
            is_other || acknowledged.is_due_at_sync || acknowledged.change_seq <= reached
        });
        received.synced.push(self.name.clone());
    }

    pub(super) fn resume(&mut self, frame: &StreamFrame<'_>, from: u64, received: &mut Received) {
        let (Some(position), Some(epoch), Some(seq)) =
            (&mut self.position, &frame.epoch, frame.seq)
        else {
            return self.lose(received);
        };
        let fits = match self.stage {
            Stage::Asked => from <= position.seq,
            // Unasked it comes where changes have passed by. The server knows best what was told before, also of the changes
            // that this subscription does not hear of.
            Stage::Live => true,
            Stage::Away | Stage::Reading(_) => false,
        };
        if !fits || *position.epoch != **epoch {
            return self.lose(received);
        }
        position.seq = position.seq.max(from);
        self.stage = Stage::Live;
        received.synced.push(self.name.clone());
        let is_item = self.item.is_some();
        let held = self.position.as_ref().map_or(0, |position| position.seq);
        self.sweep(|_, _, acknowledged| {
            let is_due = is_item && acknowledged.is_due_at_sync;
            is_due || acknowledged.change_seq <= held
        });
        // A subscription to an item does not hear of every change: nothing may ever come that reaches `seq`.
        let until = if is_item { 0 } else { seq };
        self.promise(until, &frame.mutations);
    }

    /// Version 1: all there is.
    pub(super) fn version1(
        &mut self,
        items: impl Iterator<Item = (Arc<str>, Json)>,
        received: &mut Received,
    ) {
        self.confirmed = Confirmed::default();
        for (id, value) in items {
            self.confirmed.uncounted_item(id, value);
        }
        self.position = None;
        self.is_complete = true;
        self.is_version1 = true;
        self.stage = Stage::Live;
        self.changed.reset();
        self.sweep(|_, _, _| true);
        received.synced.push(self.name.clone());
        received.is_version1 = true;
    }

    pub(super) fn deny(&mut self, received: &mut Received) {
        self.stage = Stage::Away;
        // What may not be read any more is not shown any more.
        self.confirmed = Confirmed::default();
        self.position = None;
        self.is_complete = false;
        self.promise = None;
        self.changed.reset();
        self.sweep(|_, _, _| false);
        received.denied.push(self.name.clone());
    }

    /// What is held does not fit what is told: it must be told all again.
    pub(super) fn lose(&mut self, received: &mut Received) {
        self.hang_up();
        self.position = None;
        received.rejoin.push(self.name.clone());
    }
}
