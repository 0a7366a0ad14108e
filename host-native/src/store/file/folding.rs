//! Carries what the log holds into the streams' files, so that the log stays short. Run by one thread; the tests run it by hand.
//!
//! A fold writes extents where nothing live is, syncs them, and then appends one unit to the manifest that says where everything
//! is now: before that nothing of the fold counts, after it all of it does. Only then old extents and segments are given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use iii_stream_core::{Group, GroupKey, GroupRef};
use parking_lot::{Condvar, Mutex};

use super::Inner;
use super::disk::Disk;
use super::entry::{Body, Entry, Kept, State};
use super::extent::Extent;
use super::loading::{DELTA_STEPS, IMAGE_HISTORY, IMAGE_STATE};
use super::log::{LogError, RecordAt};
use super::manifest::{Edit, GroupKept, Manifest, ManifestError};
use super::record::{push_step, read_record};
use super::stream_file::{StreamFile, StreamFileError};
use crate::metrics::Counter;
use crate::store::StoreError;

/// Kinds of extents.
pub(super) const IMAGE: u8 = 1;
const DELTA: u8 = 2;

/// A group is written as a whole once its deltas take so many times what the last image took.
const IMAGE_FACTOR: u64 = 2;

/// Deltas of less than this are not worth an image, in bytes.
const IMAGE_BYTES_MIN: u64 = 4 << 10;

/// Deltas of a group that is not in memory and has no image yet may take this before it is loaded to be written as a whole.
const COLD_DELTAS_BYTES_MAX: u64 = 1 << 20;

/// How long a fold waits for the log to have what is in an image.
const DURABLE_PAUSE: Duration = Duration::from_millis(1);

/// How long a fold that found no room is not tried again.
pub(super) const RETRY_TIME: Duration = Duration::from_secs(1);

/// What the folding thread has done and is doing.
#[derive(Default)]
pub(super) struct Activity {
    pub(super) finished: Counter,
    pub(super) written_bytes: Counter,
    is_running: AtomicBool,
    wanted: Mutex<bool>,
    woken: Condvar,
}

impl Activity {
    /// Has the folding thread look at the log.
    pub(super) fn wake(&self) {
        *self.wanted.lock() = true;
        self.woken.notify_one();
    }

    /// Waits to be woken, at most so long.
    pub(super) fn wait(&self, time_max: Duration) {
        let mut wanted = self.wanted.lock();
        if !*wanted {
            self.woken.wait_for(&mut wanted, time_max);
        }
        *wanted = false;
    }

    /// Whether the log is about to become shorter.
    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }
}

/// Why a fold came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum FoldError {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Stream(#[from] StreamFileError),
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    #[error("{0}")]
    Group(StoreError),
    #[error("cannot sync the directory: {0}")]
    Names(std::io::Error),
    /// Groups were taken back meanwhile.
    #[error("changes could not be written meanwhile")]
    TakenBack,
}

impl FoldError {
    /// Whether it may go well later.
    fn is_passing(&self) -> bool {
        match self {
            Self::Stream(error) => error.is_disk_full(),
            Self::Manifest(error) => error.is_disk_full(),
            Self::TakenBack => true,
            Self::Log(_) | Self::Group(_) | Self::Names(_) => false,
        }
    }
}

/// The one who folds.
pub(super) struct Folder {
    inner: Arc<Inner>,
    disk: Arc<dyn Disk>,
    manifest: Manifest,
    /// Whether a fold may wait for the log's thread.
    may_wait: bool,
    /// Whether there are files whose names are not lasting yet, maybe of a fold that came to nothing.
    are_names_new: bool,
    buffer: Vec<u8>,
}

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
struct Folded {
    entry: Arc<Entry>,
    kept: Kept,
    /// Extents that are no longer needed then.
    old: Vec<Extent>,
    /// All its records before this are in `kept`.
    up_to_lsn: u64,
    epoch: Arc<str>,
    seq: u64,
    has_items: bool,
    has_clients: bool,
    next_expiry_ms: Option<u64>,
}

impl Folder {
    pub(super) fn new(
        inner: Arc<Inner>,
        disk: Arc<dyn Disk>,
        manifest: Manifest,
        may_wait: bool,
    ) -> Self {
        Self {
            inner,
            disk,
            manifest,
            may_wait,
            are_names_new: false,
            buffer: Vec::new(),
        }
    }

    /// Makes a spare segment if one is missing, and folds if the log is long enough. `false` where the disk is full.
    pub(super) fn turn(&mut self) -> bool {
        let inner = self.inner.clone();
        let mut has_room = true;
        if inner.log_space.needs_spare()
            && let Err(error) = inner.log_space.make_spare()
        {
            // It is told once the log needs the room.
            tracing::debug!("no spare segment: {error}");
            has_room = false;
        }
        if inner.sealed_bytes() < inner.fold_bytes || inner.condition.is_read_only() {
            return has_room;
        }
        inner.folds.is_running.store(true, Ordering::Release);
        let result = self.fold();
        inner.folds.is_running.store(false, Ordering::Release);
        match result {
            Ok(()) => inner.folds.finished.inc(),
            Err(error) if error.is_passing() => {
                tracing::warn!("folding is put off: {error}");
                has_room = false;
            }
            Err(error) => {
                tracing::error!("the store is read-only until a restart: folding failed: {error}");
                inner
                    .condition
                    .set_read_only(format!("folding the log failed: {error}"));
            }
        }
        has_room
    }

    /// Says in the manifest that everything was written.
    pub(super) fn close(mut self) {
        if self.inner.condition.check_writable().is_ok()
            && let Err(error) = self.manifest.append([Edit::Closed])
        {
            tracing::error!("cannot close the manifest in order: {error}");
        }
    }

    /// Folds everything but the log's present segment.
    pub(super) fn fold(&mut self) -> Result<(), FoldError> {
        let inner = self.inner.clone();
        let sealed = inner.log_space.sealed_segments();
        let Some(up_to_lsn) = sealed.last().map(|segment| segment.end_lsn) else {
            return Ok(());
        };
        let resets = inner.queue.resets();
        // Those that still have records in the log's present segment stay known.
        let is_folded = |entry: &Arc<Entry>| {
            let state = entry.state.lock();
            state.pending.back().is_none_or(|at| at.lsn < up_to_lsn)
        };
        let gone = std::mem::take(&mut *inner.gone.lock());
        let (gone, later): (Vec<_>, Vec<_>) = gone.into_iter().partition(is_folded);
        inner.gone.lock().extend(later);
        let entries = std::mem::take(&mut *inner.unfolded.lock());
        let mut written = Vec::new();
        // One that is forgotten from here on is folded like the others: nothing says yet that it is gone. One that was taken
        // back to what is safe may be there twice.
        let mut seen: HashSet<_> = gone.iter().map(Arc::as_ptr).collect();
        let entries: Vec<_> = entries
            .into_iter()
            .filter(|entry| seen.insert(Arc::as_ptr(entry)))
            .collect();
        let result = self
            .write(&entries, up_to_lsn, &mut written)
            .and_then(|folded| {
                self.wait_until_durable(&folded, resets)?;
                self.tell(&folded, &gone, up_to_lsn)?;
                Ok(folded)
            });
        match result {
            Ok(folded) => {
                self.finish(&entries, folded, &gone, up_to_lsn);
                self.rewrite_manifest();
                Ok(())
            }
            Err(error) => {
                let mut unfolded = inner.unfolded.lock();
                unfolded.extend(entries);
                unfolded.extend(gone.iter().cloned());
                drop(unfolded);
                inner.gone.lock().extend(gone);
                if !self.manifest.needs_rewrite() {
                    for (stream, extent) in written {
                        inner.files.release(&stream, &[extent]);
                    }
                }
                Err(error)
            }
        }
    }

    /// Writes and syncs the extents. Whatever was written is added to `written`.
    fn write(
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

    /// Images may hold what the log's thread has not written yet.
    fn wait_until_durable(&self, folded: &[Folded], resets: u64) -> Result<(), FoldError> {
        let queue = &self.inner.queue;
        let lsn = folded
            .iter()
            .map(|folded| folded.up_to_lsn)
            .max()
            .unwrap_or(0);
        let is_running = &self.inner.folds.is_running;
        // Meanwhile the log's thread must not wait for this one.
        let was_running = is_running.swap(false, Ordering::AcqRel);
        while queue.durable_lsn() < lsn && queue.resets() == resets {
            std::thread::sleep(DURABLE_PAUSE);
        }
        is_running.store(was_running, Ordering::Release);
        if queue.resets() == resets {
            Ok(())
        } else {
            Err(FoldError::TakenBack)
        }
    }

    /// Makes the fold count.
    fn tell(
        &mut self,
        folded: &[Folded],
        gone: &[Arc<Entry>],
        up_to_lsn: u64,
    ) -> Result<(), FoldError> {
        let (start_lsn, start_segment) = {
            let (number, base_lsn) = self.inner.log_space.start_for(up_to_lsn);
            (base_lsn, number)
        };
        let gone = gone.iter().map(|entry| Edit::Gone {
            stream: &entry.key.stream,
            group: &entry.key.group,
        });
        let groups = folded.iter().map(Folded::edit);
        let log = Edit::Log {
            start_lsn,
            start_segment,
        };
        let floor = Edit::Floor {
            ms: self.inner.floor.get(),
        };
        self.manifest
            .append(gone.chain(groups).chain([log, floor]))
            .map_err(FoldError::Manifest)
    }

    /// The fold counts: groups are where it says, and what they were made of before is given up.
    fn finish(
        &self,
        entries: &[Arc<Entry>],
        folded: Vec<Folded>,
        gone: &[Arc<Entry>],
        up_to_lsn: u64,
    ) {
        let inner = &self.inner;
        let mut old: BTreeMap<Arc<str>, Vec<Extent>> = BTreeMap::new();
        for folded in folded {
            let mut state = folded.entry.state.lock();
            state.kept = folded.kept;
            state.kept_expiry_ms = folded.next_expiry_ms;
            state.drop_pending_before(folded.up_to_lsn);
            drop(state);
            let stream = folded.entry.key.stream.clone();
            old.entry(stream).or_default().extend(folded.old);
        }
        let has_more = |entry: &&Arc<Entry>| !entry.state.lock().pending.is_empty();
        // Not held while a group is waited for: whoever holds a group may want it.
        let unfolded: Vec<_> = entries.iter().filter(has_more).cloned().collect();
        inner.unfolded.lock().extend(unfolded);
        for entry in gone {
            let mut state = entry.state.lock();
            let kept = std::mem::take(&mut state.kept);
            let stream = entry.key.stream.clone();
            old.entry(stream).or_default().extend(kept.extents());
        }
        // Whoever reads the old places now has them until then.
        let _layout = inner.layout.write();
        for (stream, extents) in old {
            inner.files.release(&stream, &extents);
        }
        if let Err(error) = inner.log_space.release_up_to(up_to_lsn) {
            tracing::warn!("segments of the log stay for now: {error}");
        }
    }

    /// Keeps the manifest in proportion to what it says.
    fn rewrite_manifest(&mut self) {
        if !self.manifest.is_due_for_rewrite() {
            return;
        }
        let result = super::opening::rewrite(&self.disk, &mut self.manifest);
        if let Err(error) = result {
            tracing::warn!("the manifest could not be written anew: {error}");
        }
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

    fn edit(&self) -> Edit<'_> {
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
            kept: std::borrow::Cow::Owned(kept),
        }
    }
}
