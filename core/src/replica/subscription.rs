//! One subscription of a replica: takes in what it is told, and what is pending on its items. Knows no other subscription.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::fields::Fields;
use crate::name::is_name;
use crate::position::Position;
use crate::replica::confirmed::{Between, Confirmed, Outcome};
use crate::replica::frame::{Event, ItemChange, PageOfItems, StreamFrame, Taken};
use crate::replica::overlay::{Acknowledged, Base, Overlay, Pending, Prediction, Shown};
use crate::replica::received::{Received, ReceivedEvent};
use crate::replica::view::{Changed, ShownItem, changes_json};
use crate::text::Json;

/// Where the order of items begins that only pending mutations made. Those of the server are before.
const PENDING_ORDER: u64 = 1 << 52;

/// See the module.
#[derive(Debug)]
pub(super) struct Subscription {
    name: Arc<str>,
    /// The item, where it is not to all of the group.
    item: Option<Arc<str>>,
    stage: Stage,
    confirmed: Confirmed,
    /// Whether `confirmed` was all there is, at some time.
    is_complete: bool,
    /// The place in the group's history that `confirmed` is of; `None` where there is no such place.
    position: Option<Position>,
    /// Whether the server counts no changes.
    is_version1: bool,
    /// What is pending, by item.
    overlays: HashMap<Arc<str>, Overlay>,
    /// Changes that acknowledged mutations are waiting for, in order, with their items.
    awaited: VecDeque<(u64, Arc<str>)>,
    promise: Option<Promise>,
    changed: Changed,
}

/// How far it is on the present connection.
#[derive(Debug)]
enum Stage {
    /// Not told of anything.
    Away,
    /// Waits for the answer to its `join`.
    Asked,
    /// Reads the pages of a snapshot.
    Reading(Reading),
    Live,
}

#[derive(Debug)]
struct Reading {
    epoch: Arc<str>,
    /// What is being read, where something complete is shown until it is.
    replacement: Option<Confirmed>,
    between: Between,
    /// The last event.
    heard: Option<u64>,
}

/// What a `sync` told of clients' mutations.
#[derive(Debug)]
pub(super) struct Promise {
    /// With everything up to this change, the mutations are in what is confirmed.
    pub(super) until: u64,
    /// The last one of each client, by its tag.
    pub(super) taken: Vec<(Arc<str>, u64)>,
}

impl Subscription {
    pub(super) fn new(name: Arc<str>, item: Option<Arc<str>>) -> Self {
        Self {
            name,
            item,
            stage: Stage::Away,
            confirmed: Confirmed::default(),
            is_complete: false,
            position: None,
            is_version1: false,
            overlays: HashMap::new(),
            awaited: VecDeque::new(),
            promise: None,
            changed: Changed::new(),
        }
    }

    pub(super) fn item(&self) -> Option<&str> {
        self.item.as_deref()
    }

    /// Whether it shows this item.
    pub(super) fn follows(&self, item: Option<&str>) -> bool {
        self.item.is_none() || self.item.as_deref() == item
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live)
    }

    /// It is asked for anew. Where it left off.
    pub(super) fn ask(&mut self) -> Option<&Position> {
        self.stage = Stage::Asked;
        self.promise = None;
        self.position.as_ref()
    }

    /// It is not told of anything any more.
    pub(super) fn hang_up(&mut self) {
        let was_reading = matches!(self.stage, Stage::Reading(_));
        self.stage = Stage::Away;
        self.promise = None;
        for (id, overlay) in &mut self.overlays {
            overlay.expect_sync();
            if was_reading {
                // What was deleted between pages is not known to be gone any more.
                overlay.invalidate();
                self.changed.note(id);
            }
        }
    }

    /// Its `join` failed.
    pub(super) fn fail(&mut self) {
        if let Stage::Asked = self.stage {
            self.stage = Stage::Away;
        }
    }

    /// Takes in a frame that is for this subscription.
    pub(super) fn receive(
        &mut self,
        frame: &StreamFrame<'_>,
        event: Event,
        received: &mut Received,
    ) {
        if let Stage::Away = self.stage {
            return;
        }
        let is_named = frame.subscription.is_some();
        match event {
            Event::Page(page) if is_named => self.page(frame, &page, received),
            Event::Resume { from } if is_named => self.resume(frame, from, received),
            Event::Values(values) if self.item.is_none() => {
                let items = values.into_iter().filter_map(|value| {
                    let id = id_member(&value)?;
                    Some((id, value))
                });
                self.version1(items, received);
            }
            Event::Value(value) => {
                if let Some(item) = self.item.clone() {
                    self.version1(
                        value.into_iter().map(|value| (item.clone(), value)),
                        received,
                    );
                }
            }
            Event::Change(change) => {
                if let Some(id) = &frame.item {
                    self.change(id, frame.seq, frame.mutation.as_ref(), change, received);
                }
            }
            Event::Custom { label, data } if self.hears(frame.seq) => {
                received.events.push(ReceivedEvent {
                    subscription: self.name.clone(),
                    item: frame.item.clone(),
                    seq: frame.seq,
                    label,
                    data,
                });
            }
            Event::Unauthorized if is_named || matches!(self.stage, Stage::Asked) => {
                self.deny(received);
            }
            _ => {}
        }
    }

    fn page(&mut self, frame: &StreamFrame<'_>, page: &PageOfItems, received: &mut Received) {
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
            self.promise(seq, &frame.mutations);
        }
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

    fn resume(&mut self, frame: &StreamFrame<'_>, from: u64, received: &mut Received) {
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
    fn version1(&mut self, items: impl Iterator<Item = (Arc<str>, Json)>, received: &mut Received) {
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

    fn deny(&mut self, received: &mut Received) {
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
    fn lose(&mut self, received: &mut Received) {
        self.hang_up();
        self.position = None;
        received.rejoin.push(self.name.clone());
    }

    fn change(
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
    fn hears(&mut self, seq: Option<u64>) -> bool {
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

    /// Everything up to a change is in what is confirmed.
    fn advance(&mut self, seq: Option<u64>) {
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
    fn sweep(&mut self, is_in_base: impl Fn(&Confirmed, &str, Acknowledged) -> bool) {
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

    fn promise(&mut self, until: u64, mutations: &[Taken<'_>]) {
        let taken = mutations.iter();
        let taken = taken.map(|taken| (taken.tag.as_ref().into(), taken.seq));
        let taken: Vec<_> = taken.collect();
        if !taken.is_empty() {
            self.promise = Some(Promise { until, taken });
        }
    }

    /// What was promised, once it has come.
    pub(super) fn kept_promise(&mut self) -> Option<Promise> {
        let held = self.position.as_ref()?.seq;
        self.promise.take_if(|promise| promise.until <= held)
    }

    /// Shows one more mutation. `None` where nothing is known of its item.
    pub(super) fn show(&mut self, id: &Arc<str>, pending: Arc<Pending>) -> Option<Prediction> {
        let base = base(&self.confirmed, &self.stage, self.is_complete, id);
        let overlay = self.overlays.entry_ref(id);
        let overlay = overlay.or_insert_with(Overlay::new);
        let prediction = overlay.push(pending, base);
        self.changed.note(id);
        match overlay.shown(base) {
            Shown::Unknown => None,
            Shown::Absent | Shown::Present { .. } => Some(prediction),
        }
    }

    /// The server has taken a mutation of this item: it is in what is confirmed from `change_seq` on.
    pub(super) fn acknowledge(&mut self, id: &Arc<str>, pending: &Pending, change_seq: u64) {
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
    pub(super) fn acknowledge_by_sync(&mut self, id: &Arc<str>, pending: &Pending) {
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
    pub(super) fn withdraw(&mut self, id: &Arc<str>, pending: &Pending) {
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

    fn drop_empty(&mut self, id: &str) {
        if self.overlays.get(id).is_some_and(Overlay::is_empty) {
            self.overlays.remove(id);
        }
    }

    /// Whether there is anything that was not told.
    pub(super) fn is_dirty(&self) -> bool {
        self.changed.has_any(self.is_live())
    }

    /// What changed since this was asked last, as JSON text.
    pub(super) fn changes(&mut self) -> String {
        let is_synced = self.is_live();
        let is_reset = self.changed.is_reset();
        let mut ids = self.changed.take(is_synced);
        if is_reset {
            let pending = self.overlays.keys();
            let pending = pending.filter(|id| self.confirmed.get(id).is_none());
            ids = self.confirmed.ids().chain(pending).cloned().collect();
        }
        let mut items = Vec::with_capacity(ids.len());
        let mut removed = Vec::new();
        for id in ids {
            match self.shown(&id) {
                Some(item) => items.push(item),
                None if is_reset => {}
                None => removed.push(id),
            }
        }
        changes_json(is_reset, is_synced, &items, &removed)
    }

    fn shown(&mut self, id: &Arc<str>) -> Option<ShownItem> {
        let overlay = self.overlays.get_mut(id);
        let Some(overlay) = overlay else {
            let item = self.confirmed.get_mut(id)?;
            return Some(ShownItem {
                id: id.clone(),
                value: item.held.text().clone(),
                seq: item.seq,
                order: item.order,
                is_pending: false,
            });
        };
        let base = base(&self.confirmed, &self.stage, self.is_complete, id);
        let (value, creator) = match overlay.shown(base) {
            Shown::Unknown | Shown::Absent => return None,
            Shown::Present { held, creator } => (held.text().clone(), *creator),
        };
        let item = self.confirmed.get(id);
        let order = match (creator, item) {
            (None, Some(item)) => item.order,
            (creator, _) => PENDING_ORDER + creator.unwrap_or(0),
        };
        Some(ShownItem {
            id: id.clone(),
            value,
            seq: item.and_then(|item| item.seq),
            order,
            is_pending: overlay.is_effective(),
        })
    }
}

/// Acknowledgements mostly come in order.
fn await_change(awaited: &mut VecDeque<(u64, Arc<str>)>, seq: u64, id: &Arc<str>) {
    let place = awaited.partition_point(|(other, _)| *other <= seq);
    awaited.insert(place, (seq, id.clone()));
}

fn soon(change_seq: u64) -> Acknowledged {
    Acknowledged {
        change_seq,
        is_due_at_sync: false,
    }
}

fn base<'a>(confirmed: &'a Confirmed, stage: &Stage, is_complete: bool, id: &str) -> Base<'a> {
    let is_gone = match stage {
        Stage::Reading(reading) if reading.replacement.is_none() => {
            reading.between.gone(id).is_some()
        }
        Stage::Reading(_) | Stage::Away | Stage::Asked | Stage::Live => false,
    };
    confirmed.base(id, is_complete || is_gone)
}

/// What a version 1 client knows an item of a group by.
fn id_member(value: &Json) -> Option<Arc<str>> {
    let fields = Fields::read(value.as_str(), &["id"]).ok()?;
    let id = fields.string(0).ok()?;
    is_name(&id).then(|| id.as_ref().into())
}
