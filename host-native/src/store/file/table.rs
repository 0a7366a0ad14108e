//! The groups of the durable store by name. Parted so that looking up does not wait.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};
use iii_stream_core::{GroupKey, GroupRef};
use parking_lot::RwLock;

use super::entry::Entry;

/// A power of two.
const SHARDS: usize = 64;

/// See the module.
pub(super) struct Table {
    shards: Vec<RwLock<HashMap<GroupKey, Arc<Entry>>>>,
    hasher: DefaultHashBuilder,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub(super) fn find(&self, group: GroupRef<'_>) -> Option<Arc<Entry>> {
        self.shard(group).read().get(&group).cloned()
    }

    pub(super) fn find_or_insert(
        &self,
        group: GroupRef<'_>,
        make: impl FnOnce() -> Arc<Entry>,
    ) -> Arc<Entry> {
        if let Some(entry) = self.find(group) {
            return entry;
        }
        let mut shard = self.shard(group).write();
        if let Some(entry) = shard.get(&group) {
            return entry.clone();
        }
        let entry = make();
        shard.insert(entry.key.clone(), entry.clone());
        entry
    }

    pub(super) fn insert(&self, entry: Arc<Entry>) {
        let mut shard = self.shard(entry.key.as_ref()).write();
        shard.insert(entry.key.clone(), entry);
    }

    pub(super) fn remove(&self, group: GroupRef<'_>) {
        self.shard(group).write().remove(&group);
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// All entries, a part at a time, so that nobody waits for long.
    pub(super) fn parts(&self) -> impl Iterator<Item = Vec<Arc<Entry>>> {
        self.shards
            .iter()
            .map(|shard| shard.read().values().cloned().collect())
    }

    fn shard(&self, group: GroupRef<'_>) -> &RwLock<HashMap<GroupKey, Arc<Entry>>> {
        // The high bits: the tables inside the shards use the low ones.
        let hash = self.hasher.hash_one(group) >> 48;
        &self.shards[hash as usize % SHARDS]
    }
}
