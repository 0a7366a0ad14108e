//! From cold to hot: makes a group of its image, its deltas, and its records in the log. Start, eviction and the taking back
//! of what could not be written all come this way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use iii_stream_core::{Group, GroupRef};

use super::Inner;
use super::entry::{After, Body, Entry, Kept, State};
use super::log::RecordAt;
use super::record::{read_record, steps};
use super::stream_file::StreamReader;
use super::writing::EXPIRE_RETRY_MS;
use crate::clock;
use crate::store::StoreError;

/// The parts of an image.
pub(super) const IMAGE_STATE: usize = 0;
pub(super) const IMAGE_HISTORY: usize = 1;

/// The part of a delta.
pub(super) const DELTA_STEPS: usize = 0;

impl Inner {
    /// Does something with a hot group: at once, or when it is loaded. It then holds the group.
    pub(super) fn with_group(
        self: &Arc<Self>,
        group: GroupRef<'_>,
        work: impl FnOnce(&Arc<Self>, &Arc<Entry>, Result<&mut State, StoreError>) -> After
        + Send
        + 'static,
    ) {
        loop {
            let entry = self.find_or_make(group);
            let mut state = entry.state.lock();
            if state.is_forgotten {
                drop(state);
                // It is about to leave the table.
                std::thread::yield_now();
                continue;
            }
            entry.touch(self.turn.load(Ordering::Relaxed));
            match &mut state.body {
                Body::Hot(_) => {
                    let after = work(self, &entry, Ok(&mut state));
                    drop(state);
                    if let Some(after) = after {
                        after();
                    }
                }
                Body::Loading(jobs) => jobs.push(Box::new(work)),
                Body::Cold => {
                    state.body = Body::Loading(vec![Box::new(work)]);
                    drop(state);
                    let inner = self.clone();
                    (self.run_aside)(Box::new(move || inner.load(&entry)));
                }
            }
            return;
        }
    }

    /// Makes a group hot, and does what waits for that.
    fn load(self: &Arc<Self>, entry: &Arc<Entry>) {
        let loaded = {
            // Until it is read, nothing that it is made of may be given to others.
            let _layout = self.layout.read();
            let (epoch, kept, pending) = {
                let state = entry.state.lock();
                let pending: Vec<_> = state.pending.iter().copied().collect();
                (state.epoch.clone(), state.kept.clone(), pending)
            };
            self.assemble(&entry.key.stream, self.era.name(&epoch), &kept, &pending)
        };
        let mut afters = Vec::new();
        let mut state = entry.state.lock();
        let Body::Loading(jobs) = std::mem::replace(&mut state.body, Body::Cold) else {
            return;
        };
        match loaded {
            Ok(group) => {
                self.loads.inc();
                state.has_whole_history = state.kept.image.is_none();
                state.body = Body::Hot(Box::new(group));
                self.count(entry, &mut state);
                for job in jobs {
                    // One before may have found that nothing can be written.
                    if let Body::Hot(_) = state.body {
                        afters.extend(job(self, entry, Ok(&mut state)));
                    } else {
                        afters.extend(job(self, entry, Err(StoreError::in_trouble())));
                    }
                }
            }
            Err(error) => {
                let (stream, group) = (&entry.key.stream, &entry.key.group);
                tracing::error!(%stream, %group, "cannot load a group: {error}");
                if state.deadline_ms.is_some() {
                    // Its items have to go nevertheless, once it can be loaded.
                    let retry_ms = clock::unix_ms() + EXPIRE_RETRY_MS;
                    self.set_deadline(entry, &mut state, Some(retry_ms));
                }
                for job in jobs {
                    afters.extend(job(self, entry, Err(error.clone())));
                }
            }
        }
        drop(state);
        for after in afters {
            after();
        }
        // Groups may be loaded faster than the cache is looked at.
        self.evict_after_load();
    }

    /// Makes a group of what is on the disk. The caller keeps hold of the layout.
    pub(super) fn assemble(
        &self,
        stream: &Arc<str>,
        epoch: Arc<str>,
        kept: &Kept,
        pending: &[RecordAt],
    ) -> Result<Group, StoreError> {
        let reader = if kept.is_empty() {
            None
        } else {
            Some(self.files.reader(stream)?)
        };
        let mut group = self.assemble_kept(reader.as_ref(), epoch, kept)?;
        for &at in pending {
            let bytes = self.log_reader.read(at).map_err(StoreError::damaged)?;
            let record = read_record(&bytes).ok_or_else(|| {
                StoreError::damaged(format!("at lsn {} of the log is no record", at.lsn))
            })?;
            group.restore(record.step).map_err(|error| {
                StoreError::damaged(format!("the record at lsn {}: {error}", at.lsn))
            })?;
        }
        group.raise_sync(self.floor.above(group.floor()));
        Ok(group)
    }

    /// The part of it that is in the stream's file.
    fn assemble_kept(
        &self,
        reader: Option<&StreamReader>,
        epoch: Arc<str>,
        kept: &Kept,
    ) -> Result<Group, StoreError> {
        let unfit = |extent: super::extent::Extent, error: &dyn std::fmt::Display| {
            StoreError::damaged(format!("the extent at {}: {error}", extent.offset))
        };
        let mut group = match (reader, kept.image) {
            (Some(reader), Some(image)) => {
                let (_, bytes) = reader
                    .read_part(image, IMAGE_STATE)
                    .map_err(StoreError::damaged)?;
                Group::from_image(epoch, &bytes, self.limits)
                    .map_err(|error| unfit(image, &error))?
            }
            _ => Group::new(epoch, self.floor.of_new_group(), self.limits),
        };
        let Some(reader) = reader else {
            return Ok(group);
        };
        for &delta in &kept.deltas {
            let (_, bytes) = reader
                .read_part(delta, DELTA_STEPS)
                .map_err(StoreError::damaged)?;
            for step in steps(&bytes) {
                let step = step.ok_or_else(|| unfit(delta, &"it ends within a step"))?;
                group.restore(step).map_err(|error| unfit(delta, &error))?;
            }
        }
        Ok(group)
    }

    /// Brings the part of a group's history into memory that only its image has, then goes on.
    pub(super) fn load_history(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        then: impl FnOnce() + Send + 'static,
    ) {
        let inner = self.clone();
        (self.run_aside)(Box::new(move || {
            // What is missing then is told with a snapshot.
            if let Err(error) = inner.restore_history(&entry) {
                let (stream, group) = (&entry.key.stream, &entry.key.group);
                tracing::error!(%stream, %group, "cannot load a group's history: {error}");
            }
            then();
        }));
    }

    fn restore_history(&self, entry: &Arc<Entry>) -> Result<(), StoreError> {
        let _layout = self.layout.read();
        let Some(image) = entry.state.lock().kept.image else {
            return Ok(());
        };
        let reader = self.files.reader(&entry.key.stream)?;
        let (_, bytes) = reader
            .read_part(image, IMAGE_HISTORY)
            .map_err(StoreError::damaged)?;
        let mut state = entry.state.lock();
        state.has_whole_history = true;
        if let Some(group) = state.hot() {
            group.restore_history(&bytes).map_err(StoreError::damaged)?;
            self.count(entry, &mut state);
        }
        Ok(())
    }
}
