//! The groups as manifest and log tell of them, before any is loaded.

use std::sync::Arc;

use hashbrown::HashMap;
use iii_stream_core::{GroupKey, GroupRef};

use crate::store::file::Inner;
use crate::store::file::entry::{Body, Entry, Kept, State};
use crate::store::file::extent::Extent;
use crate::store::file::log::RecordAt;
use crate::store::file::manifest::{Contents, GroupKept};
use crate::store::file::record::read_record;

/// The groups as manifest and log tell of them.
pub(in crate::store::file) struct Groups {
    pub(in crate::store::file) by_stream: HashMap<Arc<str>, HashMap<Arc<str>, Known>>,
    /// What is kept of histories that ended, by group.
    pub(in crate::store::file) gone: Vec<(GroupKey, Kept)>,
}

/// What they tell of one group.
pub(in crate::store::file) struct Known {
    pub(in crate::store::file) state: State,
    /// The group\'s sequence at the last fold.
    kept_seq: u64,
    pub(in crate::store::file) has_items: bool,
    has_clients: bool,
}

impl Groups {
    pub(in crate::store::file) fn of(contents: &mut Contents) -> Self {
        let mut groups = Self {
            by_stream: HashMap::new(),
            gone: Vec::new(),
        };
        for (stream, kept) in std::mem::take(&mut contents.streams) {
            let known = kept
                .into_iter()
                .map(|(group, kept)| (group, Known::of(kept)));
            groups.by_stream.insert(stream, known.collect());
        }
        groups
    }

    /// Takes note of a record of the log.
    pub(in crate::store::file) fn take(
        &mut self,
        at: RecordAt,
        bytes: &[u8],
    ) -> Result<(), String> {
        let record = read_record(bytes).ok_or("it is no record of this version")?;
        let GroupRef { stream, group } = record.group;
        let known = self
            .by_stream
            .get_mut(stream)
            .and_then(|groups| groups.get_mut(group));
        let known = match (known, record.epoch) {
            (Some(known), None) => known,
            (None, None) => {
                return Err(format!(
                    "it goes on with group {group:?} of stream {stream:?}, of which nothing is known"
                ));
            }
            (known, Some(epoch)) => {
                if let Some(known) = known {
                    // The group was forgotten, and came again.
                    self.gone
                        .push((record.group.to_key(), std::mem::take(&mut known.state.kept)));
                }
                let groups = match self.by_stream.get_mut(stream) {
                    Some(groups) => groups,
                    None => self.by_stream.entry(stream.into()).or_default(),
                };
                let known = Known {
                    state: State::new(epoch.into(), Body::Cold),
                    kept_seq: 0,
                    has_items: false,
                    has_clients: false,
                };
                groups.entry(group.into()).insert(known).into_mut()
            }
        };
        known.state.push_pending(at);
        // A record that was folded already may be older than what the manifest knows.
        if known.kept_seq <= record.seq {
            known.has_items = record.has_items;
            known.has_clients = record.has_clients;
        }
        if let Some(expires_ms) = record.expires_ms {
            let deadline_ms = &mut known.state.deadline_ms;
            *deadline_ms = Some(deadline_ms.map_or(expires_ms, |old_ms| old_ms.min(expires_ms)));
        }
        Ok(())
    }

    /// What is live in each stream's file.
    pub(super) fn live_extents(&self) -> HashMap<Arc<str>, Vec<Extent>> {
        let mut live: HashMap<Arc<str>, Vec<Extent>> = HashMap::new();
        for (stream, groups) in &self.by_stream {
            let extents = groups.values().flat_map(|known| known.state.kept.extents());
            live.entry(stream.clone()).or_default().extend(extents);
        }
        for (key, kept) in &self.gone {
            live.entry(key.stream.clone())
                .or_default()
                .extend(kept.extents());
        }
        live.retain(|_, extents| !extents.is_empty());
        live
    }

    /// Makes entries of them.
    pub(super) fn install(self, inner: &Inner) {
        for (stream, groups) in self.by_stream {
            for (group, known) in groups {
                let key = GroupKey {
                    stream: stream.clone(),
                    group,
                };
                let Known {
                    mut state,
                    has_items,
                    has_clients,
                    ..
                } = known;
                if has_items {
                    inner.listing.note(&key, true);
                } else if !has_clients {
                    inner.idle.lock().insert(key.clone());
                }
                let deadline_ms = state.deadline_ms.take();
                let has_pending = !state.pending.is_empty();
                let entry = Arc::new(Entry::new(key, state));
                inner.set_deadline(&entry, &mut entry.state.lock(), deadline_ms);
                if has_pending {
                    inner.unfolded.lock().push(entry.clone());
                }
                inner.table.insert(entry);
            }
        }
        for (key, kept) in self.gone {
            let mut state = State::new("".into(), Body::Cold);
            state.kept = kept;
            state.is_forgotten = true;
            inner.gone.lock().push(Arc::new(Entry::new(key, state)));
        }
    }
}

impl Known {
    fn of(kept: GroupKept) -> Self {
        let GroupKept {
            epoch,
            seq,
            has_items,
            has_clients,
            has_image,
            next_expiry_ms,
            extents,
        } = kept;
        let mut extents = extents.into_iter();
        let image = if has_image { extents.next() } else { None };
        let mut state = State::new(epoch, Body::Cold);
        state.kept = Kept {
            image,
            deltas: extents.collect(),
        };
        state.kept_expiry_ms = next_expiry_ms;
        state.deadline_ms = next_expiry_ms;
        Self {
            state,
            kept_seq: seq,
            has_items,
            has_clients,
        }
    }
}
