//! Items as they are kept in an image, and put back.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Items, Record};
use crate::group::Item;
use crate::held::{Held, Size};
use crate::text::Json;

/// All of an item.
#[derive(Clone, Debug)]
pub(crate) struct KeptItem {
    pub(crate) id: Arc<str>,
    pub(crate) value: Json,
    pub(crate) seq: u64,
    pub(crate) created_seq: u64,
    pub(crate) timestamp: u64,
    pub(crate) heard_ms: u64,
    pub(crate) heard_seq: u64,
    /// Its time to live and when it goes, in milliseconds and Unix milliseconds.
    pub(crate) expiry: Option<(u64, u64)>,
}

impl Items {
    /// All items, in order of creation.
    pub(crate) fn kept(&mut self) -> Vec<KeptItem> {
        let Self {
            order,
            records,
            size,
            ..
        } = self;
        let items = order.values().filter_map(|id| {
            let record = records.get_mut(id)?;
            Some(KeptItem {
                id: id.clone(),
                value: record.text(size),
                seq: record.seq,
                created_seq: record.created_seq,
                timestamp: record.timestamp,
                heard_ms: record.heard_ms,
                heard_seq: record.heard_seq,
                expiry: record.ttl_ms.zip(record.expires_ms),
            })
        });
        items.collect()
    }

    pub(crate) fn reserve(&mut self, items: usize) {
        self.records.reserve(items);
    }

    /// Puts an item back; whether there was none with this id.
    pub(crate) fn put(&mut self, item: KeptItem) -> bool {
        let (ttl_ms, expires_ms) = item.expiry.unzip();
        let record = Record {
            value: Held::from_text(item.value),
            seq: item.seq,
            created_seq: item.created_seq,
            timestamp: item.timestamp,
            heard_ms: item.heard_ms,
            heard_seq: item.heard_seq,
            ttl_ms,
            expires_ms,
            hot_weight: 0,
            is_touched: false,
        };
        self.size += Size::of_text(&item.id) + record.value.size();
        self.order.insert(item.created_seq, item.id.clone());
        if let Some(expires_ms) = expires_ms {
            self.expiries.insert((expires_ms, item.created_seq));
        }
        self.records.insert(item.id, record).is_none()
    }

    /// Takes an item out.
    pub(crate) fn take(&mut self, id: &str) -> Option<(Arc<str>, Item)> {
        let id = self.key(id)?;
        let item = self.get(&id)?;
        self.delete(&id);
        Some((id, item))
    }

    /// The id of an item that is there, to be shared.
    pub(crate) fn key(&self, id: &str) -> Option<Arc<str>> {
        self.records.get_key_value(id).map(|(id, _)| id.clone())
    }

    /// The text that an item has, if that was written and the item has not changed since `seq`.
    pub(crate) fn written_at(&self, id: &str, seq: u64) -> Option<Json> {
        let record = self.records.get(id).filter(|record| record.seq == seq)?;
        record.value.written().cloned()
    }

    /// Whether an item's value can be read; `None` if the item is not there. It stays parsed, for an update that follows.
    pub(crate) fn is_readable(&mut self, id: &str) -> Option<bool> {
        let record = self.records.get_mut(id)?;
        Some(self.size.follow(&mut record.value, Held::is_readable))
    }
}
