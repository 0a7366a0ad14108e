//! When pending mutations that the server has taken are shown no more: once what is confirmed has come to their changes. Knows no
//! frames but for what they tell of mutations.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::replica::confirmed::Confirmed;
use crate::replica::frame::Taken;
use crate::replica::overlay::{Acknowledged, Overlay, Pending};
use crate::replica::subscription::{Stage, Subscription};

/// What a `sync` told of clients' mutations.
#[derive(Debug)]
pub(in crate::replica) struct Promise {
    /// With everything up to this change, the mutations are in what is confirmed.
    pub(in crate::replica) until: u64,
    /// The last one of each client, by its tag.
    pub(in crate::replica) taken: Vec<(Arc<str>, u64)>,
}

impl Subscription {
    /// Everything up to a change is in what is confirmed.
    pub(super) fn advance(&mut self, seq: Option<u64>) {
        let (Stage::Live, Some(position), Some(seq)) = (&self.stage, &mut self.position, seq)
        else {
            return;
        };
        position.seq = position.seq.max(seq);
        let reached = position.seq;
        while let Some((_, id)) = self.awaited.pop_front_if(|(seq, _)| *seq <= reached) {
            if let Some(overlay) = self.overlays.get_mut(&id) {
                overlay.settle(|acknowledged| acknowledged.change_seq <= reached);
                self.changed.note(&id);
                self.drop_empty(&id);
            }
        }
    }

    /// Takes away acknowledged mutations that are in what is confirmed, and predicts the others anew.
    pub(super) fn sweep(&mut self, is_in_base: impl Fn(&Confirmed, &str, Acknowledged) -> bool) {
        self.awaited.clear();
        for (id, overlay) in &mut self.overlays {
            overlay.invalidate();
            overlay.settle(|acknowledged| is_in_base(&self.confirmed, id, acknowledged));
            for seq in overlay.awaited() {
                await_change(&mut self.awaited, seq, id);
            }
            self.changed.note(id);
        }
        self.overlays.retain(|_, overlay| !overlay.is_empty());
    }

    pub(super) fn promise(&mut self, until: u64, mutations: &[Taken<'_>]) {
        let taken = mutations.iter();
        let taken = taken.map(|taken| (taken.tag.as_ref().into(), taken.seq));
        let taken: Vec<_> = taken.collect();
        if !taken.is_empty() {
            self.promise = Some(Promise { until, taken });
        }
    }

    /// What was promised, once it has come.
    pub(in crate::replica) fn kept_promise(&mut self) -> Option<Promise> {
        if let Stage::Reading(_) = self.stage {
            return self.promise.take();
        }
        let held = self.position.as_ref()?.seq;
        self.promise.take_if(|promise| promise.until <= held)
    }

    /// A page that is shown has told which mutations were taken: in what is held of an item they are.
    pub(super) fn settle_read(&mut self, mutations: &[Taken<'_>]) {
        if mutations.is_empty() {
            return;
        }
        for (id, overlay) in &mut self.overlays {
            if self.confirmed.get(id).is_some() {
                for taken in mutations {
                    overlay.confirm(&taken.tag, taken.seq);
                }
                self.changed.note(id);
            }
        }
        self.overlays.retain(|_, overlay| !overlay.is_empty());
    }

    /// The server has taken a mutation of this item, as this subscription was told by a `sync` that came to `until`.
    pub(in crate::replica) fn settle_told(&mut self, id: &Arc<str>, pending: &Pending, until: u64) {
        match self.stage {
            // The item may be in a later page.
            Stage::Reading(_) => self.acknowledge(id, pending, until),
            Stage::Away | Stage::Asked | Stage::Live => self.withdraw(id, pending),
        }
    }

    /// The server has taken a mutation of this item: it is in what is confirmed from `change_seq` on.
    pub(in crate::replica) fn acknowledge(
        &mut self,
        id: &Arc<str>,
        pending: &Pending,
        change_seq: u64,
    ) {
        if self.is_version1 || self.has_reached(id, change_seq) {
            return self.withdraw(id, pending);
        }
        if let Some(overlay) = self.overlays.get_mut(id)
            && overlay.acknowledge(pending, soon(change_seq))
        {
            await_change(&mut self.awaited, change_seq, id);
        }
    }

    /// The server has taken a mutation of this item, and the next `sync` has what came of it; the last one has, where that was
    /// on this connection.
    pub(in crate::replica) fn acknowledge_by_sync(&mut self, id: &Arc<str>, pending: &Pending) {
        if self.is_live() {
            return self.withdraw(id, pending);
        }
        if let Some(overlay) = self.overlays.get_mut(id) {
            let heard = Acknowledged {
                change_seq: u64::MAX,
                is_due_at_sync: true,
            };
            overlay.acknowledge(pending, heard);
        }
    }

    /// A mutation is not shown any more.
    pub(in crate::replica) fn withdraw(&mut self, id: &Arc<str>, pending: &Pending) {
        if let Some(overlay) = self.overlays.get_mut(id) {
            overlay.withdraw(pending);
            self.changed.note(id);
            self.drop_empty(id);
        }
    }

    fn has_reached(&self, id: &str, seq: u64) -> bool {
        let item_seq = self.confirmed.get(id).and_then(|item| item.seq);
        let reached = match &self.stage {
            Stage::Live => item_seq.max(self.position.as_ref().map(|position| position.seq)),
            Stage::Reading(reading) if reading.replacement.is_none() => {
                item_seq.max(reading.between.gone(id))
            }
            Stage::Reading(_) | Stage::Away | Stage::Asked => None,
        };
        Some(seq) <= reached
    }

    pub(super) fn drop_empty(&mut self, id: &str) {
        if self.overlays.get(id).is_some_and(Overlay::is_empty) {
            self.overlays.remove(id);
        }
    }
}

/// Acknowledgements mostly come in order.
fn await_change(awaited: &mut VecDeque<(u64, Arc<str>)>, seq: u64, id: &Arc<str>) {
    let place = awaited.partition_point(|(other, _)| *other <= seq);
    awaited.insert(place, (seq, id.clone()));
}

pub(super) fn soon(change_seq: u64) -> Acknowledged {
    Acknowledged {
        change_seq,
        is_due_at_sync: false,
    }
}
