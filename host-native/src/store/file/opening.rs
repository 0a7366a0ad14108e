//! Opens a directory: reads the manifest and what the log has after it, and makes an entry for each group. Loads no group.

mod groups;

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use super::cache::FloorMs;
use super::disk::{Disk, RealDisk};
use super::files::Files;
use super::log::{Log, LogError, LogOptions, RecordAt};
use super::manifest::{Contents, Durability, Edit, Manifest, ManifestError};
use super::queue::Queue;
use super::releasing::Releasing;
use super::table::Table;
use super::{FileOptions, Inner, RunAside};
use crate::store::ChangeSink;
use crate::store::listing::Listing;

pub(super) use groups::{Groups, Known};

/// Held as long as a process uses the directory.
pub(super) const LOCK: &str = "lock";

/// Size of the first segment of a log.
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;

/// Files that are kept ready for segments to come.
const SPARES_MAX: usize = 2;

/// An opening says how far it is after this time, and each time that it has passed again.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Records between two looks at the time.
const PROGRESS_RECORDS: u64 = 4_096;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path is no directory.
    #[error("the data directory {path} is a file: name a directory with `file_path`")]
    NotADirectory {
        /// The path.
        path: String,
    },
    /// The system does not let it be used.
    #[error("cannot {doing} the data directory {path}: {source}")]
    System {
        /// The path.
        path: String,
        /// A verb.
        doing: &'static str,
        /// What it says.
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error(
        "the data directory {path} is in use by another process: stop that one, or name another directory with `file_path`"
    )]
    InUse {
        /// The path.
        path: String,
    },
    /// It holds something else.
    #[error(
        "the data directory {path} holds files that this program did not make, for example {example:?}: name an empty or new directory with `file_path`{hint}"
    )]
    Foreign {
        /// The path.
        path: String,
        /// The name of a file.
        example: String,
        /// What else may help.
        hint: &'static str,
    },
    /// Files of a store without the one that says what is where.
    #[error(
        "the data directory {path} has {example:?} but no manifest: files are missing, restore the directory from a backup"
    )]
    NoManifest {
        /// The path.
        path: String,
        /// The name of a file.
        example: String,
    },
    /// What the manifest says begins before the log.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The manifest cannot be used.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// The system gives no threads.
    #[error("cannot start the store's threads: {0}")]
    Threads(std::io::Error),
}

/// An opened store, before its threads run.
pub(super) struct Opened {
    pub(super) inner: Arc<Inner>,
    pub(super) log: Log,
    pub(super) manifest: Manifest,
    pub(super) disk: Arc<dyn Disk>,
    /// Held until the directory is closed.
    pub(super) lock: Option<File>,
}

/// How often sequences may have been issued twice: after a power cut in a mode that does not survive one. Each time all histories
/// get other names, so that nobody comes back to a change that is now another.
pub(super) struct Era(u64);

impl Era {
    /// The name by which subscribers know a history.
    pub(super) fn name(&self, epoch: &Arc<str>) -> Arc<str> {
        match self.0 {
            0 => epoch.clone(),
            // `y` and `x` are no digits of the name before.
            era => format!("{epoch}y{era}").into(),
        }
    }
}

/// Opens a directory of the system.
///
/// Errors: [`OpenError`].
pub(super) fn open_dir(
    dir: &Path,
    sink: Arc<dyn ChangeSink>,
    options: FileOptions,
    run_aside: RunAside,
    releasing: Releasing,
) -> Result<Opened, OpenError> {
    let path = dir.display().to_string();
    let failed = |doing, source| OpenError::System {
        path: path.clone(),
        doing,
        source,
    };
    if dir.exists() && !dir.is_dir() {
        return Err(OpenError::NotADirectory { path });
    }
    std::fs::create_dir_all(dir).map_err(|error| failed("make", error))?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir));
    // Before the lock is made: what is somebody else's stays as it is.
    let names = disk.list().map_err(|error| failed("list", error))?;
    if !names.iter().any(|name| name.starts_with("manifest-")) {
        check_new(path.clone(), names)?;
    }
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK))
        .map_err(|error| failed("write to", error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path }),
        Err(TryLockError::Error(error)) => return Err(failed("lock", error)),
    }
    let mut opened = open(&disk, sink, options, run_aside, releasing, &boot_id())?;
    opened.lock = Some(lock);
    Ok(opened)
}

/// Opens what is on a disk. `boot_id` names the start of the machine.
pub(super) fn open(
    disk: &Arc<dyn Disk>,
    sink: Arc<dyn ChangeSink>,
    options: FileOptions,
    run_aside: RunAside,
    releasing: Releasing,
    boot_id: &str,
) -> Result<Opened, OpenError> {
    let (mut manifest, mut contents) = open_manifest(disk)?;
    let log_options = LogOptions {
        first_segment_bytes: FIRST_SEGMENT_BYTES.min(options.segment_bytes),
        segment_bytes: options.segment_bytes,
        spares_max: SPARES_MAX,
        os: options.durability == Durability::Os,
    };
    let mut groups = Groups::of(&mut contents);
    let (log, log_floor_ms) = match contents.log {
        None if contents.opened.is_none() => {
            let log = Log::create(disk.clone(), contents.store_id, log_options)?;
            (log, 0)
        }
        start => {
            let (lsn, segment) =
                start.map_or((0, Log::FIRST_SEGMENT), |start| (start.lsn, start.segment));
            let mut progress = Progress::new();
            let mut on_record = |at: RecordAt, bytes: &[u8]| {
                progress.note(at.lsn - lsn);
                groups.take(at, bytes)
            };
            let (log, opened) = Log::open(
                disk.clone(),
                contents.store_id,
                lsn,
                segment,
                log_options,
                &mut on_record,
            )?;
            if let Some(cut) = &opened.cut {
                tracing::warn!(
                    "the last write to the log was not finished when the store ended, and nobody was told that it was: cut off {} bytes at {} of {} ({})",
                    cut.bytes,
                    cut.offset,
                    cut.file,
                    cut.why
                );
            }
            for name in &opened.strange {
                tracing::warn!("{name} is none of the log's files and is left alone");
            }
            (log, opened.floor_ms)
        }
    };
    let mut edits = Vec::new();
    if may_have_lost(&contents, boot_id) {
        contents.era += 1;
        tracing::warn!(
            "the machine was restarted while the store ran without syncing (durability: os): changes may be missing, subscribers begin anew"
        );
        edits.push(Edit::Era { n: contents.era });
    }
    edits.push(Edit::Opened {
        boot_id,
        durability: options.durability,
    });
    manifest.append(edits)?;
    let files = Files::new(disk.clone(), contents.store_id);
    for (stream, extents) in groups.live_extents() {
        files.add(&stream, extents);
    }
    let inner = Inner {
        sink,
        limits: options.limits,
        history_bytes_max: options.history_bytes_max,
        cache_bytes_max: options.cache_bytes_max,
        fold_bytes: options.fold_bytes,
        log_bytes_max: options.log_bytes_max,
        durability: options.durability,
        table: Table::new(),
        listing: Listing::default(),
        deadlines: Default::default(),
        queue: Arc::new(Queue::new(log.end_lsn(), options.queue_bytes_max)),
        condition: Default::default(),
        files,
        log_reader: log.reader(),
        log_space: log.space(),
        layout: Default::default(),
        run_aside,
        releasing,
        epoch: new_epoch().into(),
        era: Era(contents.era),
        floor: FloorMs::new(contents.floor_ms.max(log_floor_ms)),
        forgotten: AtomicU64::new(0),
        unfolded: Mutex::default(),
        gone: Mutex::default(),
        idle: Mutex::default(),
        history_bytes: Default::default(),
        memory_bytes: Default::default(),
        evicting: Mutex::default(),
        eviction_is_vain: AtomicBool::new(false),
        turn: AtomicU64::new(0),
        loads: Default::default(),
        evictions: Default::default(),
        activity: Default::default(),
        folds: Default::default(),
    };
    groups.install(&inner);
    Ok(Opened {
        inner: Arc::new(inner),
        log,
        manifest,
        disk: disk.clone(),
        lock: None,
    })
}

/// Writes a manifest anew, without what is outdated in it.
pub(super) fn rewrite(disk: &Arc<dyn Disk>, manifest: &mut Manifest) -> Result<(), ManifestError> {
    if let Some((mut read, contents, _)) = Manifest::open(disk)? {
        read.rewrite(contents.edits())?;
        *manifest = read;
    }
    Ok(())
}

fn open_manifest(disk: &Arc<dyn Disk>) -> Result<(Manifest, Contents), OpenError> {
    if let Some((manifest, contents, cut)) = Manifest::open(disk)? {
        if let Some(cut) = cut {
            tracing::warn!(
                "the last note of a fold was not finished when the store ended; the log still has what it was about: cut off {} bytes at {} of {}",
                cut.bytes,
                cut.offset,
                cut.path
            );
        }
        return Ok((manifest, contents));
    }
    let path = disk.path_of("");
    let names = disk.list().map_err(|source| OpenError::System {
        path: path.clone(),
        doing: "list",
        source,
    })?;
    check_new(path, names)?;
    let store_id = *Uuid::new_v4().as_bytes();
    let manifest = Manifest::create(disk, store_id)?;
    let contents = Contents {
        store_id,
        ..Contents::default()
    };
    Ok((manifest, contents))
}

/// Errors: in a directory with these files no store can be made.
fn check_new(path: String, names: Vec<String>) -> Result<(), OpenError> {
    for example in names {
        if example == LOCK {
            continue;
        }
        if super::names::is_stream_file_name(&example) || example.starts_with("log-") {
            return Err(OpenError::NoManifest { path, example });
        }
        if !example.starts_with("spare-") {
            let hint = if Path::new(&example)
                .extension()
                .is_some_and(|end| end == "bin")
            {
                "; to move over from an existing engine: iii-stream import --from DIR"
            } else {
                ""
            };
            return Err(OpenError::Foreign {
                path,
                example,
                hint,
            });
        }
    }
    Ok(())
}

/// Whether changes that subscribers have seen may be missing. That the log ends in order says nothing: it may have done so
/// before the store was opened last.
fn may_have_lost(contents: &Contents, boot_id: &str) -> bool {
    contents.opened.as_ref().is_some_and(|last| {
        last.durability == Durability::Os
            && !last.closed
            && (last.boot_id.is_empty() || last.boot_id != boot_id)
    })
}

/// Names the start of the machine; empty where it has no name.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// A name for the histories that begin in this process, that no other process has: `[a-z0-9]+`.
fn new_epoch() -> String {
    let random = Uuid::new_v4().simple().to_string();
    random[..12].to_owned()
}

/// Says how far an opening is, if it takes long.
struct Progress {
    begun: Instant,
    told: Duration,
    records: u64,
}

impl Progress {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            told: Duration::ZERO,
            records: 0,
        }
    }

    fn note(&mut self, log_bytes: u64) {
        self.records += 1;
        if !self.records.is_multiple_of(PROGRESS_RECORDS) {
            return;
        }
        let elapsed = self.begun.elapsed();
        if self.told + PROGRESS_INTERVAL <= elapsed {
            self.told = elapsed;
            tracing::info!(
                "opening the store: {} changes ({} MiB) of the log read so far",
                self.records,
                log_bytes >> 20
            );
        }
    }
}
