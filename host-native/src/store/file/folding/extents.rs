//! The first half of a fold: groups as extents in their streams' files, safe but not counting yet.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use iii_stream_core::{Group, GroupKey, GroupRef};

use super::{FoldError, Folder};
use crate::store::StoreError;
use crate::store::file::entry::{Body, Entry, Kept, State};
use crate::store::file::extent::Extent;
use crate::store::file::loading::{DELTA_STEPS, IMAGE_HISTORY, IMAGE_STATE};
use crate::store::file::log::RecordAt;
use crate::store::file::manifest::{Edit, GroupKept};
use crate::store::file::record::{push_step, read_record};
use crate::store::file::stream_file::StreamFile;

/// Kinds of extents.
pub(in crate::store::file) const IMAGE: u8 = 1;
const DELTA: u8 = 2;

/// A group is written as a whole once its deltas take so many times what the last image took.
const IMAGE_FACTOR: u64 = 2;

/// Deltas of less than this are not worth an image, in bytes.
const IMAGE_BYTES_MIN: u64 = 4 << 10;

/// Deltas of a group that is not in memory and has no image yet may take this before it is loaded to be written as a whole.
const COLD_DELTAS_BYTES_MAX: u64 = 1 << 20;

/// The steps of a group that go into one delta.
struct Delta {
    /// From here on the records are of the present history.
    first_lsn: u64,
    steps: Vec<u8>,
    seq: u64,
    has_items: bool,
    has_clients: bool,
    /// When the first item may go, of those whose time the steps set.
    expires_ms: Option<u64>,
}

/// A group as it is kept after the fold.
pub(super) struct Folded {
    pub(super) entry: Arc<Entry>,
    pub(super) kept: Kept,
    /// Extents that are no longer needed then.
    pub(super) old: Vec<Extent>,
    /// All its records before this are in `kept`.
    pub(super) up_to_lsn: u64,
    pub(super) epoch: Arc<str>,
    pub(super) seq: u64,
    pub(super) has_items: bool,
    pub(super) has_clients: bool,
    pub(super) next_expiry_ms: Option<u64>,
}

impl Folder {
    /// Writes and syncs the extents. Whatever was written is added to `written`.
    pub(super) fn write(
        &mut self,
        entries: &[Arc<Entry>],
        up_to_lsn: u64,
        written: &mut Vec<(Arc<str>, Extent)>,
    ) -> Result<Vec<Folded>, FoldError> {
        let inner = self.inner.clone();
        let mut as_images = Vec::new();
        let mut deltas = HashMap::new();
        let mut as_deltas = Vec::new();
        for entry in entries {
            let state = entry.state.lock();
            let bytes = state
                .pending_before(up_to_lsn)
                .map(|at| u64::from(at.len))
                .sum();
            let Some(first) = state.pending.front().filter(|at| at.lsn < up_to_lsn) else {
                continue;
            };
            if is_image_due(&state, bytes) {
                as_images.push(entry.clone());
            } else {
                as_deltas.push(entry.clone());
                deltas.insert(entry.key.clone(), Delta::new(first.lsn));
            }
        }
        if !deltas.is_empty() {
            self.read_deltas(&mut deltas, up_to_lsn)?;
        }
        let mut by_stream = BTreeMap::<Arc<str>, Vec<_>>::new();
        let images = as_images.into_iter().map(|entry| (entry, None));
        let with_deltas = as_deltas.into_iter().map(|entry| {
            let delta = deltas.remove(&entry.key);
            (entry, delta)
        });
        for (entry, delta) in images.chain(with_deltas) {
            let stream = entry.key.stream.clone();
            by_stream.entry(stream).or_default().push((entry, delta));
        }
        let mut folded = Vec::new();
        for (stream, groups) in by_stream {
            let ((), is_made) = inner.files.write(&stream, |_| Ok(()))?;
            self.are_names_new |= is_made;
            for (entry, delta) in groups {
                folded.push(match delta {
                    Some(delta) => self.write_delta(&entry, delta, up_to_lsn, written)?,
                    None => self.write_image(&entry, up_to_lsn, written)?,
                });
            }
            inner.files.write(&stream, |file| file.sync())?;
        }
        if self.are_names_new {
            inner.files.sync_names().map_err(FoldError::Names)?;
            self.are_names_new = false;
        }
        Ok(folded)
    }

    /// Reads the steps of groups out of the log.
    fn read_deltas(
        &mut self,
        deltas: &mut HashMap<GroupKey, Delta>,
        up_to_lsn: u64,
    ) -> Result<(), FoldError> {
        for segment in self.inner.log_space.sealed_segments() {
            if up_to_lsn <= segment.base_lsn {
                break;
            }
            self.inner.log_reader.read_segment(
                segment.number,
                &mut self.buffer,
                &mut |at: RecordAt, bytes: &[u8]| {
                    let record = read_record(bytes).ok_or("it is no record")?;
                    if let Some(delta) = deltas.get_mut(&record.group)
                        && delta.first_lsn <= at.lsn
                    {
                        push_step(&mut delta.steps, record.step);
                        delta.seq = record.seq;
                        delta.has_items = record.has_items;
                        delta.has_clients = record.has_clients;
                        delta.expires_ms = earlier(delta.expires_ms, record.expires_ms);
                    }
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    fn write_delta(
        &self,
        entry: &Arc<Entry>,
        delta: Delta,
        up_to_lsn: u64,
        written: &mut Vec<(Arc<str>, Extent)>,
    ) -> Result<Folded, FoldError> {
        let inner = &self.inner;
        let stream = &entry.key.stream;
        let Delta {
            mut steps,
            seq,
            has_items,
            has_clients,
            expires_ms,
            ..
        } = delta;
        let (mut kept, epoch, next_expiry_ms) = {
            let state = entry.state.lock();
            let mut next_expiry_ms = state.deadline_ms;
            if state.pending.back().is_some_and(|at| up_to_lsn <= at.lsn) {
                // The deadline is of a group with later steps, which may not come to the disk.
                next_expiry_ms = earlier(next_expiry_ms, state.kept_expiry_ms);
                next_expiry_ms = earlier(next_expiry_ms, expires_ms);
            }
            (state.kept.clone(), state.epoch.clone(), next_expiry_ms)
        };
        // Deltas that are no longer than the new one become part of it, so that there are few.
        let mut old = Vec::new();
        while let Some(&last) = kept.deltas.last()
            && last.bytes <= steps.len() as u64
        {
            let (_, mut before) = inner
                .files
                .reader(stream)
                .map_err(FoldError::Group)?
                .read_part(last, DELTA_STEPS)?;
            before.extend_from_slice(&steps);
            steps = before;
            kept.deltas.pop();
            old.push(last);
        }
        let write = |file: &mut StreamFile| file.write(DELTA, &[&steps]);
        let (extent, _) = inner.files.write(stream, write)?;
        inner.folds.written_bytes.inc_by(extent.bytes);
        written.push((stream.clone(), extent));
        kept.deltas.push(extent);
        Ok(Folded {
            entry: entry.clone(),
            kept,
            old,
            up_to_lsn,
            epoch,
            seq,
            has_items,
            has_clients,
            next_expiry_ms,
        })
    }

    /// Writes a group as a whole, as it is in memory or can be made.
    fn write_image(
        &self,
        entry: &Arc<Entry>,
        up_to_lsn: u64,
        written: &mut Vec<(Arc<str>, Extent)>,
    ) -> Result<Folded, FoldError> {
        let inner = &self.inner;
        let stream = &entry.key.stream;
        let mut state = entry.state.lock();
        let is_usable = self.may_wait || state.end_lsn <= inner.queue.durable_lsn();
        if let Some(image) = state.kept.image.filter(|_| !state.has_whole_history)
            && let Body::Hot(_) = state.body
        {
            drop(state);
            let (_, history) = inner
                .files
                .reader(stream)
                .map_err(FoldError::Group)?
                .read_part(image, IMAGE_HISTORY)?;
            state = entry.state.lock();
            if let Some(group) = state.hot() {
                group
                    .restore_history(&history)
                    .map_err(|error| FoldError::Group(StoreError::damaged(error)))?;
            }
            state.has_whole_history = true;
            inner.count(entry, &mut state);
        }
        let (kept, epoch) = (state.kept.clone(), state.epoch.clone());
        let end_lsn = state.end_lsn;
        let (mut folded, image) = match state.hot().filter(|_| is_usable) {
            Some(group) => {
                let image = group.image();
                (Folded::of(entry, group, end_lsn), image)
            }
            None => {
                let pending: Vec<_> = state.pending_before(up_to_lsn).collect();
                drop(state);
                let mut group = inner
                    .assemble(stream, epoch.clone(), &kept, &pending)
                    .map_err(FoldError::Group)?;
                if let Some(image) = kept.image {
                    let reader = inner.files.reader(stream).map_err(FoldError::Group)?;
                    let (_, history) = reader.read_part(image, IMAGE_HISTORY)?;
                    group
                        .restore_history(&history)
                        .map_err(|error| FoldError::Group(StoreError::damaged(error)))?;
                }
                let image = group.image();
                (Folded::of(entry, &mut group, up_to_lsn), image)
            }
        };
        let (mut group_state, mut history) = (Vec::new(), Vec::new());
        image.write_state(&mut group_state);
        image.write_history(&mut history);
        let mut parts: [&[u8]; 2] = [&[]; 2];
        parts[IMAGE_STATE] = &group_state;
        parts[IMAGE_HISTORY] = &history;
        let write = |file: &mut StreamFile| file.write(IMAGE, &parts);
        let (extent, _) = inner.files.write(stream, write)?;
        inner.folds.written_bytes.inc_by(extent.bytes);
        written.push((stream.clone(), extent));
        folded.old = kept.extents().collect();
        folded.kept.image = Some(extent);
        folded.epoch = epoch;
        Ok(folded)
    }
}

/// The earlier of two times, where there are any.
fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// Whether a group should be written as a whole instead of as a delta of so many bytes.
fn is_image_due(state: &State, bytes: u64) -> bool {
    let bytes = bytes + state.kept.deltas_bytes();
    let limit = match (&state.kept.image, &state.body) {
        (Some(image), _) => IMAGE_FACTOR * image.bytes,
        (None, Body::Hot(group)) => IMAGE_FACTOR * group.memory_bytes() as u64,
        (None, Body::Cold | Body::Loading(_)) => COLD_DELTAS_BYTES_MAX,
    };
    limit + IMAGE_BYTES_MIN < bytes
}

impl Delta {
    fn new(first_lsn: u64) -> Self {
        Self {
            first_lsn,
            steps: Vec::new(),
            seq: 0,
            has_items: false,
            has_clients: false,
            expires_ms: None,
        }
    }
}

impl Folded {
    fn of(entry: &Arc<Entry>, group: &mut Group, up_to_lsn: u64) -> Self {
        Self {
            entry: entry.clone(),
            kept: Kept::default(),
            old: Vec::new(),
            up_to_lsn,
            epoch: group.epoch().clone(),
            seq: group.seq(),
            has_items: !group.is_empty(),
            has_clients: group.has_clients(),
            next_expiry_ms: group.next_expiry_ms(),
        }
    }

    pub(super) fn edit(&self) -> Edit<'_> {
        let GroupRef { stream, group } = self.entry.key.as_ref();
        let kept = GroupKept {
            epoch: self.epoch.clone(),
            seq: self.seq,
            has_items: self.has_items,
            has_clients: self.has_clients,
            has_image: self.kept.image.is_some(),
            next_expiry_ms: self.next_expiry_ms,
            extents: self.kept.extents().collect(),
        };
        Edit::Group {
            stream,
            group,
            kept: Cow::Owned(kept),
        }
    }
}
