//! What changed in what one subscription shows since it was told last, and the text that tells it. Knows no frames.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashSet;

use crate::text::{Json, push_number, push_string};

/// See the module. Everything is new at first.
#[derive(Debug)]
pub(super) struct Changed {
    ids: HashSet<Arc<str>>,
    is_reset: bool,
    told_synced: Option<bool>,
}

/// An item as it is shown.
pub(super) struct ShownItem {
    pub(super) id: Arc<str>,
    pub(super) value: Json,
    /// `None` where only pending mutations made it.
    pub(super) seq: Option<u64>,
    pub(super) order: u64,
    pub(super) is_pending: bool,
}

impl Changed {
    pub(super) fn new() -> Self {
        Self {
            ids: HashSet::new(),
            is_reset: true,
            told_synced: None,
        }
    }

    pub(super) fn note(&mut self, id: &Arc<str>) {
        if !self.is_reset {
            self.ids.get_or_insert_with(id, Arc::clone);
        }
    }

    /// Makes everything new.
    pub(super) fn reset(&mut self) {
        self.is_reset = true;
        self.ids.clear();
    }

    pub(super) fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// Whether there is anything to tell.
    pub(super) fn has_any(&self, is_synced: bool) -> bool {
        self.is_reset || !self.ids.is_empty() || self.told_synced != Some(is_synced)
    }

    /// The items that changed, and begins anew.
    pub(super) fn take(&mut self, is_synced: bool) -> Vec<Arc<str>> {
        self.is_reset = false;
        self.told_synced = Some(is_synced);
        self.ids.drain().collect()
    }
}

/// The places of keys in ascending order. Not generic, so that there is one sort.
pub(super) fn in_order(keys: Vec<u64>) -> impl Iterator<Item = usize> {
    let mut places: Vec<_> = keys.into_iter().zip(0_usize..).collect();
    places.sort_unstable();
    places.into_iter().map(|(_, place)| place)
}

/// Shape: `{"reset","synced","items":[{"id","value","seq","order","pending"}],"removed":["id"]}`, items in order.
pub(super) fn changes_json(
    is_reset: bool,
    is_synced: bool,
    items: &[ShownItem],
    removed: &[Arc<str>],
) -> String {
    let bytes = items.iter().map(|item| {
        let around = r#",{"id":"","value":,"seq":,"order":,"pending":false}"#.len() + 32;
        around + item.id.len() + item.value.as_str().len()
    });
    let mut out = String::with_capacity(bytes.sum::<usize>() + 64);
    let flag = |flag| if flag { "true" } else { "false" };
    out.push_str(r#"{"reset":"#);
    out.push_str(flag(is_reset));
    out.push_str(r#","synced":"#);
    out.push_str(flag(is_synced));
    out.push_str(r#","items":["#);
    let orders = items.iter().map(|item| item.order).collect();
    for (index, place) in in_order(orders).enumerate() {
        let item = &items[place];
        out.push_str(if 0 < index { r#",{"id":"# } else { r#"{"id":"# });
        push_string(&mut out, &item.id);
        out.push_str(r#","value":"#);
        out.push_str(item.value.as_str());
        out.push_str(r#","seq":"#);
        match item.seq {
            Some(seq) => push_number(&mut out, seq),
            None => out.push_str("null"),
        }
        out.push_str(r#","order":"#);
        push_number(&mut out, item.order);
        out.push_str(r#","pending":"#);
        out.push_str(flag(item.is_pending));
        out.push('}');
    }
    out.push_str(r#"],"removed":["#);
    for (index, id) in removed.iter().enumerate() {
        if 0 < index {
            out.push(',');
        }
        push_string(&mut out, id);
    }
    out.push_str("]}");
    out
}
