//! The end of the log's queue: writes what waits as one batch, makes it safe, and releases whoever waited. Run by one thread; the
//! tests run it by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::log::{Batch, Log, WriteError};
use super::queue::Taken;
use super::waiting::Waiting;
use super::{Durability, Inner};
use crate::metrics::{Counter, Histogram, TimeBuckets};
use crate::socket::in_one_turn;
use crate::store::StoreError;

/// How long the queue may be empty before the log is looked after: the last batch gets its seal.
pub(super) const IDLE_TIME: Duration = Duration::from_millis(200);

/// How long writes wait for the folding before it is looked again.
const FOLD_PAUSE: Duration = Duration::from_millis(1);

/// What the log's thread has done.
#[derive(Default)]
pub(super) struct Activity {
    pub(super) batches: Counter,
    pub(super) records: Counter,
    pub(super) written_bytes: Counter,
    pub(super) sync_seconds: Arc<Histogram<TimeBuckets>>,
}

/// The one who writes the log.
pub(super) struct Committer {
    inner: Arc<Inner>,
    log: Log,
    /// What was taken last.
    batch: Batch,
}

impl Committer {
    pub(super) fn new(inner: Arc<Inner>, log: Log) -> Self {
        Self {
            inner,
            log,
            batch: Batch::new(0),
        }
    }

    /// Does what there is to do, or waits for it at most so long. `false` once there will be no more.
    pub(super) fn turn(&mut self, time_max: Duration) -> bool {
        match self.inner.queue.take(time_max, &mut self.batch) {
            Taken::Work(waiting) => self.commit(waiting),
            Taken::Idle => self.look_after(),
            Taken::Stopping => return false,
        }
        true
    }

    /// Makes everything safe, and the next opening know that nothing is missing.
    pub(super) fn close(mut self) {
        if self.inner.condition.check_writable().is_ok()
            && let Err(error) = self.log.seal(self.inner.floor.get(), true)
        {
            tracing::error!("cannot close the log in order: {error}");
        }
    }

    fn commit(&mut self, waiting: Vec<Waiting>) {
        if !self.batch.is_empty() {
            self.wait_for_folding();
            if let Err(error) = self.write() {
                return self.fail(waiting, &error);
            }
            self.inner.queue.set_durable_lsn(self.log.end_lsn());
        }
        self.inner.releasing.release(&self.inner, waiting);
    }

    fn write(&mut self) -> Result<(), WriteError> {
        let batch = &mut self.batch;
        let floor_ms = self.inner.floor.get();
        let switches = self.log.would_switch(batch);
        let begun = Instant::now();
        self.log.write(batch, floor_ms)?;
        if self.inner.durability == Durability::Fsync {
            self.log.sync()?;
        }
        let activity = &self.inner.activity;
        activity.sync_seconds.observe_time(begun.elapsed());
        activity.batches.inc();
        activity.records.inc_by(u64::from(batch.records()));
        activity.written_bytes.inc_by(batch.written_bytes() as u64);
        if switches {
            self.inner.folds.wake();
        }
        Ok(())
    }

    /// A log that grows faster than it is folded is not let grow without end.
    fn wait_for_folding(&self) {
        let inner = &self.inner;
        while inner.log_bytes_max < inner.log_space.live_bytes() && inner.folds.is_running() {
            std::thread::sleep(FOLD_PAUSE);
        }
    }

    /// Takes all groups back to what is safe, and tells whoever waited.
    fn fail(&mut self, waiting: Vec<Waiting>, error: &WriteError) {
        let inner = &self.inner;
        let told = match error {
            WriteError::NoSpace { .. } => {
                tracing::error!("nothing can be written until there is room again: {error}");
                inner.condition.set_full(error.to_string());
                StoreError::full(&error.to_string())
            }
            WriteError::TooLarge { .. } => {
                tracing::error!("changes were refused: {error}");
                StoreError::other(error.to_string())
            }
            WriteError::Failed { .. } => {
                tracing::error!("the store is read-only until a restart: {error}");
                inner.condition.set_read_only(error.to_string());
                StoreError::read_only(&error.to_string())
            }
        };
        let late = inner.queue.refuse();
        in_one_turn(|| {
            for waiting in waiting.into_iter().chain(late) {
                waiting.fail(inner, &told);
            }
        });
        inner.queue.end_reset();
        if !inner.condition.is_read_only() {
            inner.queue.accept();
        }
    }

    /// Nothing was to do for a while: proves the last batch, and looks whether there is room again.
    fn look_after(&mut self) {
        let inner = &self.inner;
        if inner.condition.is_read_only() {
            return;
        }
        if inner.condition.is_full() {
            match inner.log_space.make_spare() {
                Ok(()) => {
                    tracing::info!("there is room again: changes are taken");
                    inner.condition.set_works();
                }
                Err(error) => tracing::debug!("still no room: {error}"),
            }
            return;
        }
        let floor_ms = inner.floor.get();
        // What is synced last is the seal: it also tells which times were given out.
        let result = self
            .log
            .seal(floor_ms, false)
            .and_then(|()| self.log.sync());
        match result {
            // Whoever waited was told already that it is safe: nothing of that is lost by this.
            Ok(()) | Err(WriteError::NoSpace { .. } | WriteError::TooLarge { .. }) => {}
            Err(error) => self.fail(Vec::new(), &error),
        }
    }
}
