//! The items of a group as the server has told them: by id, with their order. Knows no subscriptions, and of pending
//! mutations only what the one that is expected next would do.

use alloc::sync::Arc;

use hashbrown::HashMap;

use crate::command::Action;
use crate::decide::update;
use crate::held::Held;
use crate::replica::frame::{ItemChange, PageItem};
use crate::replica::overlay::{Base, Pending};
use crate::text::Json;

/// Where the order of items begins that came by an event. Those of snapshots are before, in the order of their pages.
const EVENTS_ORDER: u64 = 1 << 40;

/// See the module.
#[derive(Debug)]
pub(super) struct Confirmed {
    items: HashMap<Arc<str>, ConfirmedItem>,
    /// The order of the next item of a snapshot.
    page_order: u64,
    /// The order of the next item that comes by an event.
    event_order: u64,
}

#[derive(Debug)]
pub(super) struct ConfirmedItem {
    pub(super) held: Held,
    /// The sequence of its last change; `None` where the server counts none.
    pub(super) seq: Option<u64>,
    /// Its place among the others.
    pub(super) order: u64,
}

/// What is remembered while the pages of a snapshot come in between events.
#[derive(Debug, Default)]
pub(super) struct Between {
    /// Items that were created or deleted last at this change, and whether they are there.
    changes: HashMap<Arc<str>, (u64, bool)>,
}

/// What became of a change that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in what is held. `as_expected`: it is what the expected mutation does.
    Done { as_expected: bool },
    /// It was in what is held already.
    Old,
    /// It is in a later page.
    Ahead,
    /// It does not fit what is held.
    Misfit,
}

impl Default for Confirmed {
    fn default() -> Self {
        Self {
            items: HashMap::new(),
            page_order: 0,
            event_order: EVENTS_ORDER,
        }
    }
}

impl Confirmed {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn get(&self, id: &str) -> Option<&ConfirmedItem> {
        self.items.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut ConfirmedItem> {
        self.items.get_mut(id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.items.keys()
    }

    /// What mutations of an item start from. `is_complete` says that what is not held is not there.
    pub(super) fn base(&self, id: &str, is_complete: bool) -> Base<'_> {
        match self.items.get(id) {
            Some(item) => Base::Present {
                held: &item.held,
                seq: item.seq,
            },
            None if is_complete => Base::Absent,
            None => Base::Unknown,
        }
    }

    /// Takes in a change of an item. `between` is there while pages come.
    pub(super) fn change(
        &mut self,
        id: &Arc<str>,
        seq: Option<u64>,
        change: ItemChange,
        expected: Option<&Pending>,
        between: Option<&mut Between>,
    ) -> Outcome {
        let item = self.items.get_mut(id);
        let known = item.as_ref().and_then(|item| item.seq);
        let gone = between.as_ref().and_then(|between| between.gone(id));
        if seq.is_some() && seq <= known.max(gone) {
            return Outcome::Old;
        }
        let (value, is_create) = match change {
            ItemChange::Delta { base, ops } => {
                let Some(item) = item else {
                    let is_paging = between.is_some();
                    return if is_paging {
                        Outcome::Ahead
                    } else {
                        Outcome::Misfit
                    };
                };
                if item.seq != Some(base) {
                    return Outcome::Misfit;
                }
                item.held.apply(&ops, false);
                item.seq = seq;
                let action = expected.map(|expected| &expected.action);
                let as_expected = matches!(action, Some(Action::Update { ops: own, .. }) if own.text() == ops.text());
                return Outcome::Done { as_expected };
            }
            ItemChange::Delete => {
                self.items.remove(id);
                if let (Some(between), Some(seq)) = (between, seq) {
                    between.changes.insert(id.clone(), (seq, false));
                }
                let action = expected.map(|expected| &expected.action);
                let as_expected = matches!(action, Some(Action::Delete));
                return Outcome::Done { as_expected };
            }
            ItemChange::Create(value) => (value, true),
            ItemChange::Update(value) => (value, false),
        };
        let as_expected = match item {
            Some(item) if !is_create => {
                item.seq = seq;
                replace(&mut item.held, value, expected)
            }
            held => {
                let as_expected = held.is_none() && creates(&value, expected);
                self.event_order += 1;
                let created = ConfirmedItem {
                    held: Held::from_text(value),
                    seq,
                    order: self.event_order,
                };
                self.items.insert(id.clone(), created);
                if let (Some(between), Some(seq)) = (between, seq)
                    && is_create
                {
                    between.changes.insert(id.clone(), (seq, true));
                }
                as_expected
            }
        };
        Outcome::Done { as_expected }
    }

    /// Takes in an item of a snapshot. Whether that changed anything.
    pub(super) fn page_item(&mut self, item: &PageItem, between: &Between) -> bool {
        let PageItem { id, seq, value } = item;
        // A page may be of a moment before the item was deleted, and perhaps created anew.
        let since = between.changes.get(id);
        if since.is_some_and(|(since, _)| seq < since) {
            return false;
        }
        self.page_order += 1;
        let order = self.page_order;
        match self.items.get_mut(id) {
            Some(held) => {
                held.order = order;
                if held.seq < Some(*seq) {
                    held.seq = Some(*seq);
                    held.held = Held::from_text(value.clone());
                }
            }
            None => {
                let held = Held::from_text(value.clone());
                let seq = Some(*seq);
                self.items
                    .insert(id.clone(), ConfirmedItem { held, seq, order });
            }
        }
        true
    }

    /// Takes in an item of a server that counts no changes, in order.
    pub(super) fn uncounted_item(&mut self, id: Arc<str>, value: Json) {
        self.page_order += 1;
        let item = ConfirmedItem {
            held: Held::from_text(value),
            seq: None,
            order: self.page_order,
        };
        self.items.insert(id, item);
    }
}

impl Between {
    /// The sequence of the deletion of an item that is not there.
    pub(super) fn gone(&self, id: &str) -> Option<u64> {
        let (seq, is_there) = self.changes.get(id)?;
        (!is_there).then_some(*seq)
    }
}

/// Whether an item that is created with this value is what was expected.
fn creates(value: &Json, expected: Option<&Pending>) -> bool {
    match expected.map(|expected| &expected.action) {
        Some(Action::Set { value: own, .. }) => own == value,
        Some(Action::Update { ops, .. }) => update(None, ops).0 == *value,
        Some(Action::Delete | Action::Send { .. }) | None => false,
    }
}

/// Gives an item another value. Whether that was expected; then an item that is parsed stays so.
fn replace(held: &mut Held, value: Json, expected: Option<&Pending>) -> bool {
    let as_expected = match expected.map(|expected| &expected.action) {
        Some(Action::Set { value: own, .. }) => *own == value,
        Some(Action::Update { ops, .. }) => {
            held.apply(ops, false);
            if *held.text() == value {
                return true;
            }
            false
        }
        Some(Action::Delete | Action::Send { .. }) | None => false,
    };
    *held = Held::from_text(value);
    as_expected
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Ops;

    fn json(text: &str) -> Json {
        Json::from_text(text).expect("JSON text")
    }

    fn change(confirmed: &mut Confirmed, seq: u64, change: ItemChange) -> Outcome {
        confirmed.change(&"a".into(), Some(seq), change, None, None)
    }

    fn page_item(seq: u64) -> PageItem {
        PageItem {
            id: "a".into(),
            seq,
            value: json("0"),
        }
    }

    #[test]
    fn what_a_page_is_too_old_for_stays_deleted() {
        let (mut confirmed, mut between) = (Confirmed::default(), Between::default());
        let gone = confirmed.change(
            &"a".into(),
            Some(7),
            ItemChange::Delete,
            None,
            Some(&mut between),
        );
        assert_eq!(gone, Outcome::Done { as_expected: false });
        assert!(!confirmed.page_item(&page_item(6), &between));
        assert!(confirmed.is_empty());
        assert!(
            confirmed.page_item(&page_item(8), &between),
            "it is there anew"
        );
    }

    #[test]
    fn an_item_keeps_its_place_until_it_is_created_anew() {
        let mut confirmed = Confirmed::default();
        let order = |confirmed: &Confirmed| confirmed.get("a").expect("an item").order;
        confirmed.page_item(&page_item(1), &Between::default());
        let first = order(&confirmed);
        change(&mut confirmed, 2, ItemChange::Update(json("1")));
        assert_eq!(order(&confirmed), first);
        change(&mut confirmed, 3, ItemChange::Create(json("2")));
        assert!(EVENTS_ORDER < order(&confirmed));
    }

    #[test]
    fn operations_apply_to_the_state_that_they_name_alone() {
        let delta = |base| ItemChange::Delta {
            base,
            ops: Ops::from_text(r#"[{"type":"increment","by":1}]"#).expect("operations"),
        };
        let mut confirmed = Confirmed::default();
        let between = &mut Between::default();
        let ahead = confirmed.change(&"a".into(), Some(4), delta(3), None, Some(between));
        assert_eq!(ahead, Outcome::Ahead, "a later page has it");
        assert_eq!(change(&mut confirmed, 4, delta(3)), Outcome::Misfit);
        confirmed.page_item(&page_item(3), &Between::default());
        assert_eq!(change(&mut confirmed, 5, delta(4)), Outcome::Misfit);
        assert_eq!(change(&mut confirmed, 3, delta(2)), Outcome::Old);
        let done = Outcome::Done { as_expected: false };
        assert_eq!(change(&mut confirmed, 4, delta(3)), done);
        let item = confirmed.get_mut("a").expect("an item");
        assert_eq!(item.held.text().as_str(), "1");
    }
}
