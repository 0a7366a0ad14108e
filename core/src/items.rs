//! The items of a group: by id, in order of creation, with what they take and which of them are parsed. Knows no
//! sequence and no timestamps but those it is given.
//!
//! An item that was updated stays parsed, so that the next update costs in proportion to its operations. At most so many
//! items of a group are parsed at a time, small ones in greater number; the one that was not updated for longest, nearly,
//! makes room.

mod restore;

pub(crate) use restore::KeptItem;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::decide::{Refusal, Ttl, Updated};
use crate::group::{GroupLimits, Item, Page};
use crate::held::{Held, Size};
use crate::op::Ops;
use crate::stamp::Moment;
use crate::text::Json;

/// The text of a value up to this size is written with every update, asked for or not: that costs no more than to keep
/// track of it, in bytes.
const SMALL_VALUE_BYTES: usize = 4 << 10;

/// How many small values count as one when values are kept parsed.
const SMALL_VALUES_PER_HOT_ITEM: usize = 16;

/// What an item takes beside its id and its value, in bytes. Measured by what is allocated: 270 to 390, by how far the tables
/// are filled.
const ITEM_BYTES: usize = 320;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Items {
    records: HashMap<Arc<str>, Record>,
    /// Ids by the sequence of their creation. Apart from the map, because taking an id out of an
    /// insertion-ordered map costs as much as the map is long.
    order: BTreeMap<u64, Arc<str>>,
    /// When items go, with the sequence of their creation.
    expiries: BTreeSet<(u64, u64)>,
    /// Items that were parsed, by the sequence of their creation, the first ones first. Some may not be any more.
    hot: VecDeque<u64>,
    /// What the items in that list weigh together.
    hot_weight: usize,
    /// What ids and values take; the bound of their texts is exact where every text is written.
    size: Size,
}

#[derive(Clone, Debug)]
struct Record {
    value: Held,
    seq: u64,
    created_seq: u64,
    timestamp: u64,
    /// The latest timestamp that its subscribers have seen; later than `timestamp` after a `send`.
    heard_ms: u64,
    /// The latest change that its subscribers have seen.
    heard_seq: u64,
    ttl_ms: Option<u64>,
    /// When it goes if it is not written again, in Unix milliseconds.
    expires_ms: Option<u64>,
    /// What it weighs in the list of those that were parsed; 0 outside.
    hot_weight: usize,
    /// Whether it was updated since it came to the head of that list.
    is_touched: bool,
}

/// Which texts of an updated item are needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) old: bool,
    pub(crate) new: bool,
}

impl Items {
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// About what the items take in memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.len() * ITEM_BYTES + self.size.memory
    }

    pub(crate) fn seq(&self, id: &str) -> Option<u64> {
        self.records.get(id).map(|record| record.seq)
    }

    /// The latest timestamp that an item's subscribers have seen.
    pub(crate) fn heard_ms(&self, id: &str) -> Option<u64> {
        self.records.get(id).map(|record| record.heard_ms)
    }

    /// The latest change that an item's subscribers have seen.
    pub(crate) fn heard_seq(&self, id: &str) -> Option<u64> {
        self.records.get(id).map(|record| record.heard_seq)
    }

    pub(crate) fn next_expiry_ms(&self) -> Option<u64> {
        self.expiries.first().map(|&(expires_ms, _)| expires_ms)
    }

    /// An item whose time has come.
    pub(crate) fn expired(&self, now_ms: u64) -> Option<Arc<str>> {
        let &(expires_ms, created_seq) = self.expiries.first()?;
        let id = self.order.get(&created_seq)?;
        (expires_ms <= now_ms).then(|| id.clone())
    }

    /// An item's value as text.
    pub(crate) fn text(&mut self, id: &str) -> Option<Json> {
        let record = self.records.get_mut(id)?;
        Some(record.text(&mut self.size))
    }

    pub(crate) fn get(&mut self, id: &str) -> Option<Item> {
        let record = self.records.get_mut(id)?;
        Some(record.item(&mut self.size))
    }

    /// All items with their ids, in order of creation.
    pub(crate) fn iter(&mut self) -> impl Iterator<Item = (Arc<str>, Item)> {
        let Self {
            order,
            records,
            size,
            ..
        } = self;
        order.values().filter_map(move |id| {
            let record = records.get_mut(id)?;
            Some((id.clone(), record.item(size)))
        })
    }

    /// Items created after `after`, in order of creation.
    pub(crate) fn page(&mut self, after: u64, items_max: usize, bytes_max: usize) -> Page {
        let mut items = Vec::new();
        let mut bytes = 0;
        for id in self
            .order
            .range(after.saturating_add(1)..)
            .map(|(_, id)| id)
        {
            if !items.is_empty() && (items_max <= items.len() || bytes_max <= bytes) {
                return Page { items, more: true };
            }
            if let Some(record) = self.records.get_mut(id) {
                let item = record.item(&mut self.size);
                bytes += id.len() + item.value.as_str().len();
                items.push((id.clone(), item));
            }
        }
        Page { items, more: false }
    }

    /// Applies operations to an item; `None` if it is not there. Without a need for its text, and without the danger that the group gets
    /// too full, that costs in proportion to the operations, but for an atomic update by several of them.
    pub(crate) fn update(
        &mut self,
        id: &str,
        ops: &Ops,
        is_atomic: bool,
        needs: Needs,
        limits: &GroupLimits,
    ) -> Result<Option<Updated>, Refusal> {
        let Some(record) = self.records.get_mut(id) else {
            return Ok(None);
        };
        let old = needs.old.then(|| record.text(&mut self.size));
        let old_bytes_max = record.value.bytes_max();
        let needs_new = needs.new || old_bytes_max <= SMALL_VALUE_BYTES;
        record.is_touched = true;
        let others_bytes_max = self.size.text_max - old_bytes_max;
        let may_fill = limits.bytes_max < others_bytes_max + record.value.bytes_max_after(ops);
        let errors = if may_fill || (is_atomic && 1 < ops.len()) {
            let (mut value, errors) = self
                .size
                .follow(&mut record.value, |held| held.applied(ops));
            if !is_atomic || errors.is_empty() {
                if may_fill {
                    let new_bytes = value.text().as_str().len();
                    if let Err(refusal) = self.check_bytes(id, new_bytes, limits) {
                        self.list_as_hot(id, limits.hot_items_max);
                        return Err(refusal);
                    }
                }
                self.replace(id, value);
            }
            errors
        } else {
            let value = &mut record.value;
            self.size.follow(value, |held| held.apply(ops, is_atomic))
        };
        let is_undone = is_atomic && !errors.is_empty();
        let record = self.records.get_mut(id).filter(|_| needs_new);
        let new = record.map(|record| record.text(&mut self.size));
        self.list_as_hot(id, limits.hot_items_max);
        Ok(Some(Updated {
            old,
            new,
            errors,
            is_undone,
        }))
    }

    /// Whether the group may have an item with a value of so many bytes.
    pub(crate) fn check_room(
        &mut self,
        id: &str,
        value_bytes: usize,
        limits: &GroupLimits,
    ) -> Result<(), Refusal> {
        let old_bytes_max = match self.records.get(id) {
            Some(record) => id.len() + record.value.bytes_max(),
            None if limits.items_max <= self.len() => {
                let items_max = limits.items_max;
                return Err(Refusal::TooManyItems { items_max });
            }
            None => 0,
        };
        if self.size.text_max - old_bytes_max + id.len() + value_bytes <= limits.bytes_max {
            return Ok(());
        }
        self.check_bytes(id, value_bytes, limits)
    }

    /// The same by exact sizes, which may have to be found out first.
    fn check_bytes(
        &mut self,
        id: &str,
        value_bytes: usize,
        limits: &GroupLimits,
    ) -> Result<(), Refusal> {
        // Whoever has no text is parsed, so it is in this list.
        for created_seq in &self.hot {
            let id = self.order.get(created_seq);
            if let Some(record) = id.and_then(|id| self.records.get_mut(id)) {
                record.text(&mut self.size);
            }
        }
        let record = self.records.get(id);
        let old_bytes = record.map_or(0, |record| id.len() + record.value.bytes_max());
        let new_bytes = id.len() + value_bytes;
        let bytes_max = limits.bytes_max;
        // A group that is too large already can still shrink.
        if old_bytes < new_bytes && bytes_max < self.size.text_max - old_bytes + new_bytes {
            return Err(Refusal::TooManyBytes { bytes_max });
        }
        Ok(())
    }

    /// Adds an item that was not there.
    pub(crate) fn create(
        &mut self,
        id: &Arc<str>,
        value: Json,
        moment: Moment,
        ttl: Ttl,
        now_ms: u64,
    ) {
        let record = Record {
            value: Held::from_text(value),
            seq: moment.seq,
            created_seq: moment.seq,
            timestamp: moment.timestamp,
            heard_ms: moment.timestamp,
            heard_seq: moment.seq,
            ttl_ms: None,
            expires_ms: None,
            hot_weight: 0,
            is_touched: false,
        };
        self.size += Size::of_text(id) + record.value.size();
        self.order.insert(moment.seq, id.clone());
        let record = self.records.entry(id.clone()).insert(record).into_mut();
        record.schedule(&mut self.expiries, ttl, now_ms);
    }

    /// Stamps an item that has a new value; with `value` it gets that only now. Gives its id and its sequence before; `None`
    /// if it is not there.
    pub(crate) fn write(
        &mut self,
        id: &str,
        value: Option<Json>,
        moment: Moment,
        ttl: Ttl,
        now_ms: u64,
    ) -> Option<(&Arc<str>, u64)> {
        let (id, record) = self.records.get_key_value_mut(id)?;
        if let Some(value) = value {
            let value = Held::from_text(value);
            self.size.follow(&mut record.value, |held| *held = value);
        }
        let base = core::mem::replace(&mut record.seq, moment.seq);
        record.timestamp = moment.timestamp;
        record.hear(moment);
        record.schedule(&mut self.expiries, ttl, now_ms);
        Some((id, base))
    }

    pub(crate) fn delete(&mut self, id: &str) {
        let Some(record) = self.records.remove(id) else {
            return;
        };
        self.size -= Size::of_text(id) + record.value.size();
        self.hot_weight -= record.hot_weight;
        self.order.remove(&record.created_seq);
        if let Some(expires_ms) = record.expires_ms {
            self.expiries.remove(&(expires_ms, record.created_seq));
        }
    }

    /// Takes note of a change that an item's subscribers see and that leaves its value. Gives the item's id and sequence;
    /// `None` if it is not there.
    pub(crate) fn hear(&mut self, id: &str, moment: Moment) -> Option<(&Arc<str>, u64)> {
        let (id, record) = self.records.get_key_value_mut(id)?;
        record.hear(moment);
        Some((id, record.seq))
    }

    fn replace(&mut self, id: &str, value: Held) {
        if let Some(record) = self.records.get_mut(id) {
            self.size.follow(&mut record.value, |held| *held = value);
        }
    }

    /// Puts an item that was parsed on the list, and takes others off it that are too many.
    fn list_as_hot(&mut self, id: &str, hot_items_max: usize) {
        if let Some(record) = self.records.get_mut(id) {
            if record.hot_weight == 0 {
                record.is_touched = false;
                self.hot.push_back(record.created_seq);
            }
            self.hot_weight -= record.hot_weight;
            record.hot_weight = match record.value.bytes_max() {
                ..=SMALL_VALUE_BYTES => 1,
                _ => SMALL_VALUES_PER_HOT_ITEM,
            };
            self.hot_weight += record.hot_weight;
        }
        let weight_max = hot_items_max.saturating_mul(SMALL_VALUES_PER_HOT_ITEM);
        while weight_max < self.hot_weight.max(self.hot.len())
            && let Some(created_seq) = self.hot.pop_front()
        {
            let id = self.order.get(&created_seq);
            // An item that was deleted leaves its place.
            let Some(record) = id.and_then(|id| self.records.get_mut(id)) else {
                continue;
            };
            if record.is_touched && record.value.has_tree() {
                record.is_touched = false;
                self.hot.push_back(created_seq);
                continue;
            }
            self.size.follow(&mut record.value, Held::cool);
            self.hot_weight -= record.hot_weight;
            record.hot_weight = 0;
        }
    }
}

impl Record {
    /// The value as text; `size` is what all items take.
    fn text(&mut self, size: &mut Size) -> Json {
        size.follow(&mut self.value, |held| held.text().clone())
    }

    fn item(&mut self, size: &mut Size) -> Item {
        Item {
            value: self.text(size),
            seq: self.seq,
            created_seq: self.created_seq,
            timestamp: self.timestamp,
            ttl_ms: self.ttl_ms,
            expires_ms: self.expires_ms,
        }
    }

    fn hear(&mut self, moment: Moment) {
        self.heard_ms = moment.timestamp;
        self.heard_seq = moment.seq;
    }

    /// Starts the time to live anew.
    fn schedule(&mut self, expiries: &mut BTreeSet<(u64, u64)>, ttl: Ttl, now_ms: u64) {
        if let Some(expires_ms) = self.expires_ms.take() {
            expiries.remove(&(expires_ms, self.created_seq));
        }
        if let Ttl::Replace(ttl_ms) = ttl {
            self.ttl_ms = ttl_ms;
        }
        self.expires_ms = self.ttl_ms.map(|ttl_ms| now_ms + ttl_ms);
        if let Some(expires_ms) = self.expires_ms {
            expiries.insert((expires_ms, self.created_seq));
        }
    }
}
