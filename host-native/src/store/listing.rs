//! Which streams have which groups with items: what `list_groups` and `list_all` tell. Knows no items.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iii_stream_core::GroupKey;
use parking_lot::Mutex;

use super::StreamGroups;

/// See the module. Names are sorted.
#[derive(Default)]
pub(super) struct Listing(Mutex<BTreeMap<Arc<str>, BTreeSet<Arc<str>>>>);

impl Listing {
    /// Takes note whether a group has items.
    pub(super) fn note(&self, group: &GroupKey, has_items: bool) {
        let mut streams = self.0.lock();
        if has_items {
            streams
                .entry(group.stream.clone())
                .or_default()
                .insert(group.group.clone());
        } else if let Some(groups) = streams.get_mut(&group.stream) {
            groups.remove(&group.group);
            if groups.is_empty() {
                streams.remove(&group.stream);
            }
        }
    }

    pub(super) fn groups_of(&self, stream: &str) -> Vec<Arc<str>> {
        let streams = self.0.lock();
        let groups = streams
            .get(stream)
            .map(|groups| groups.iter().cloned().collect());
        groups.unwrap_or_default()
    }

    pub(super) fn all(&self) -> Vec<StreamGroups> {
        let streams = self.0.lock();
        streams
            .iter()
            .map(|(stream, groups)| (stream.clone(), groups.iter().cloned().collect()))
            .collect()
    }
}
