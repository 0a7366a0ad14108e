//! One subscription of a replica: takes in what it is told, and what is pending on its items. Knows no other subscription.

mod change;
mod settling;
mod sync;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::fields::Fields;
use crate::name::is_name;
use crate::position::Position;
use crate::replica::confirmed::{Between, Confirmed};
use crate::replica::frame::{Event, StreamFrame};
use crate::replica::overlay::{Base, Overlay, Pending, Prediction, Shown};
use crate::replica::received::{Received, ReceivedEvent};
use crate::replica::view::{Changed, ShownItem, changes_json};
use crate::text::Json;
pub(super) use settling::Promise;

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
