//! The two threads of the store: one writes the log, one folds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::Inner;
use super::committing::{Committer, IDLE_TIME};
use super::folding::{Folder, RETRY_TIME};
use super::opening::Opened;

/// How often the folding thread looks at the log unasked.
const FOLD_INTERVAL: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Threads {
    inner: Arc<Inner>,
    is_stopping: Arc<AtomicBool>,
    folding: JoinHandle<Folder>,
    committing: JoinHandle<Committer>,
    /// Another process may use the directory once this is dropped.
    _lock: Option<std::fs::File>,
}

impl Threads {
    /// Errors: the system gives no threads.
    pub(super) fn start(opened: Opened) -> std::io::Result<Self> {
        let Opened {
            inner,
            log,
            manifest,
            disk,
            lock,
        } = opened;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let mut committer = Committer::new(inner.clone(), log);
        let committing = Builder::new().name("log".to_owned()).spawn(move || {
            while committer.turn(IDLE_TIME) {}
            committer
        })?;
        let mut folder = Folder::new(inner.clone(), disk, manifest, true);
        let (stopping, folds) = (is_stopping.clone(), inner.clone());
        let folding = Builder::new().name("fold".to_owned()).spawn(move || {
            while !stopping.load(Ordering::Acquire) {
                let begun = Instant::now();
                let has_room = folder.turn();
                let pause = if has_room { FOLD_INTERVAL } else { RETRY_TIME };
                folds.folds.wait(pause.saturating_sub(begun.elapsed()));
            }
            folder
        })?;
        Ok(Self {
            inner,
            is_stopping,
            folding,
            committing,
            _lock: lock,
        })
    }

    /// Lets a fold come to its end, writes what waits, and says on the disk that this was all.
    pub(super) fn stop(self) {
        self.is_stopping.store(true, Ordering::Release);
        self.inner.folds.wake();
        let folder = self.folding.join();
        self.inner.queue.stop();
        match self.committing.join() {
            Ok(committer) => committer.close(),
            Err(_) => tracing::error!("the log's thread has panicked"),
        }
        match folder {
            Ok(folder) => folder.close(),
            Err(_) => tracing::error!("the folding thread has panicked"),
        }
    }
}
