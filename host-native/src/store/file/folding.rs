//! Carries what the log holds into the streams' files, so that the log stays short. Run by one thread; the tests run it by hand.
//!
//! A fold writes extents where nothing live is, syncs them, and then appends one unit to the manifest that says where everything
//! is now: before that nothing of the fold counts, after it all of it does. Only then old extents and segments are given up.

mod extents;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::HashSet;
use parking_lot::{Condvar, Mutex};

use super::Inner;
use super::disk::Disk;
use super::entry::Entry;
use super::extent::Extent;
use super::log::LogError;
use super::manifest::{Edit, Manifest, ManifestError};
use super::stream_file::StreamFileError;
use crate::metrics::Counter;
use crate::store::StoreError;
use extents::Folded;

pub(super) use extents::IMAGE;

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
