//! What waits for the log: records that are to be written, and whoever is told once they are safe. Filled by many threads,
//! emptied by the log's. Knows no files.
//!
//! Order: whoever adds a record holds its group, so the records of a group are in the order of its sequence; and everything is
//! released in the order in which it was added.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::log::{Batch, RecordAt};
use super::waiting::Waiting;
use crate::socket::at_end_of_turn;
use crate::store::StoreError;

/// See the module.
pub(super) struct Queue {
    pending: Mutex<Pending>,
    filled: Condvar,
    /// Everything in the log before this is safe.
    durable_lsn: AtomicU64,
    /// How often what groups had in memory was dropped, because it could not be written.
    resets: AtomicU64,
    /// Records that wait, in bytes.
    bytes: AtomicUsize,
    /// Their bound; beyond it writes are refused.
    bytes_max: usize,
}

struct Pending {
    batch: Batch,
    waiting: Vec<Waiting>,
    /// Records are refused, while groups are taken back to what is safe.
    is_refusing: bool,
    /// The log's thread sleeps and nobody is about to wake it.
    is_asleep: bool,
    is_stopping: bool,
}

/// What the log's thread finds.
pub(super) enum Taken {
    /// Who waits for the records of the batch, maybe none, and for those before.
    Work(Vec<Waiting>),
    /// Nothing for a while.
    Idle,
    /// Nothing, and nothing will come any more.
    Stopping,
}

impl Queue {
    /// An empty queue for a log that is safe up to `durable_lsn`.
    pub(super) fn new(durable_lsn: u64, bytes_max: usize) -> Self {
        Self {
            pending: Mutex::new(Pending {
                batch: Batch::new(durable_lsn),
                waiting: Vec::new(),
                is_refusing: false,
                is_asleep: false,
                is_stopping: false,
            }),
            filled: Condvar::new(),
            durable_lsn: AtomicU64::new(durable_lsn),
            resets: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            bytes_max,
        }
    }

    pub(super) fn durable_lsn(&self) -> u64 {
        self.durable_lsn.load(Ordering::Acquire)
    }

    pub(super) fn set_durable_lsn(&self, lsn: u64) {
        self.durable_lsn.store(lsn, Ordering::Release);
    }

    pub(super) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Acquire)
    }

    /// Adds a record, and who waits for it. The caller holds the record's group.
    ///
    /// Errors: nothing can be written now; the waiting one comes back.
    pub(super) fn push(
        self: &Arc<Self>,
        record: &[u8],
        waiting: Waiting,
    ) -> Result<RecordAt, Box<(StoreError, Waiting)>> {
        let mut pending = self.pending.lock();
        if pending.is_refusing || pending.is_stopping {
            return Err(Box::new((StoreError::in_trouble(), waiting)));
        }
        let at = pending.batch.push(|out| out.extend_from_slice(record));
        self.bytes.store(pending.batch.bytes(), Ordering::Relaxed);
        pending.waiting.push(waiting);
        self.wake(pending);
        Ok(at)
    }

    /// Adds somebody who waits for the log to be safe up to `lsn`, and for everybody who came before. It comes back if there is
    /// nothing to wait for.
    pub(super) fn wait(self: &Arc<Self>, lsn: u64, waiting: Waiting) -> Option<Waiting> {
        if lsn <= self.durable_lsn() {
            return Some(waiting);
        }
        let mut pending = self.pending.lock();
        if lsn <= self.durable_lsn() {
            return Some(waiting);
        }
        pending.waiting.push(waiting);
        self.wake(pending);
        None
    }

    /// Adds somebody who waits for everything that came before. It comes back if there is nothing to wait for.
    pub(super) fn wait_for_all(self: &Arc<Self>, waiting: Waiting) -> Option<Waiting> {
        let lsn = self.pending.lock().batch.end_lsn();
        self.wait(lsn, waiting)
    }

    /// Takes everything, or waits for something at most so long. Leaves `spare` in place of the batch.
    pub(super) fn take(&self, time_max: Duration, spare: &mut Batch) -> Taken {
        let mut pending = self.pending.lock();
        if pending.waiting.is_empty() {
            if pending.is_stopping {
                return Taken::Stopping;
            }
            pending.is_asleep = true;
            self.filled.wait_for(&mut pending, time_max);
            pending.is_asleep = false;
        }
        if pending.waiting.is_empty() {
            return Taken::Idle;
        }
        spare.restart(pending.batch.end_lsn());
        std::mem::swap(&mut pending.batch, spare);
        self.bytes.store(0, Ordering::Relaxed);
        // As many are likely to come again.
        let next = Vec::with_capacity(pending.waiting.len());
        Taken::Work(std::mem::replace(&mut pending.waiting, next))
    }

    /// Refuses records from now on, until groups were taken back ([`Queue::end_reset`]); gives those who wait for records that will not be written.
    pub(super) fn refuse(&self) -> Vec<Waiting> {
        let mut pending = self.pending.lock();
        pending.is_refusing = true;
        self.resets.fetch_add(1, Ordering::AcqRel);
        pending.batch.restart(self.durable_lsn());
        self.bytes.store(0, Ordering::Relaxed);
        std::mem::take(&mut pending.waiting)
    }

    /// All groups were taken back. What was read of one meanwhile, before its turn came, does not count.
    pub(super) fn end_reset(&self) {
        self.resets.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes records again.
    pub(super) fn accept(&self) {
        self.pending.lock().is_refusing = false;
    }

    /// Lets the log's thread end once everything is written.
    pub(super) fn stop(&self) {
        self.pending.lock().is_stopping = true;
        self.filled.notify_one();
    }

    /// What waits to be written, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Errors: too much waits already.
    pub(super) fn check_room(&self) -> Result<(), StoreError> {
        if self.bytes() < self.bytes_max {
            return Ok(());
        }
        Err(StoreError::behind(self.bytes_max))
    }

    /// Wakes the log's thread at the end of the caller's turn: what it writes together is written together.
    fn wake(self: &Arc<Self>, mut pending: MutexGuard<'_, Pending>) {
        let is_asleep = std::mem::take(&mut pending.is_asleep);
        // Outside of a turn the thread is woken here and now, which takes the same lock.
        drop(pending);
        if is_asleep {
            at_end_of_turn(Waker::from(self.clone()));
        }
    }
}

impl Wake for Queue {
    fn wake(self: Arc<Self>) {
        // Taken so that the notice cannot come between the look at the queue and the sleep.
        drop(self.pending.lock());
        self.filled.notify_one();
    }
}
