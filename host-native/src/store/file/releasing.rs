//! Tells those who waited for the log that it is safe, in the order of the log. A few are told by the log's own thread, many by a
//! task, so that the next batch need not wait for that.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::Inner;
use super::waiting::Waiting;
use crate::socket::in_one_turn;

/// So many are told by the log's own thread. With two cores that is faster than a task of their own (measured: 120,000 instead of
/// 95,000 acknowledged sets a second with 256 in flight, medians of three), as the next batch grows meanwhile.
const TOLD_AT_ONCE_MAX: usize = 256;

/// So many are told before others get their turn.
const TURN_MAX: usize = 64;

/// See the module.
pub(super) struct Releasing {
    /// Where tasks run; without, everything is told at once.
    runtime: Option<Handle>,
    safe: Mutex<Safe>,
}

#[derive(Default)]
struct Safe {
    batches: VecDeque<Vec<Waiting>>,
    /// A task is at it.
    is_running: bool,
}

impl Releasing {
    pub(super) fn new(runtime: Option<Handle>) -> Self {
        Self {
            runtime,
            safe: Mutex::default(),
        }
    }

    /// Tells everybody, after those who came before.
    pub(super) fn release(&self, inner: &Arc<Inner>, waiting: Vec<Waiting>) {
        let is_short = waiting.len() <= TOLD_AT_ONCE_MAX;
        let mut safe = self.safe.lock();
        safe.batches.push_back(waiting);
        if std::mem::replace(&mut safe.is_running, true) {
            return;
        }
        drop(safe);
        match &self.runtime {
            Some(runtime) if !is_short => drop(runtime.spawn(run(inner.clone()))),
            _ => {
                while let Some(batch) = self.next() {
                    tell(inner, batch);
                }
            }
        }
    }

    /// Tells somebody after those who are being told now. It comes back if there is nobody.
    pub(super) fn release_after(&self, waiting: Waiting) -> Option<Waiting> {
        let mut safe = self.safe.lock();
        if !safe.is_running {
            return Some(waiting);
        }
        safe.batches.push_back(vec![waiting]);
        None
    }

    fn next(&self) -> Option<Vec<Waiting>> {
        let mut safe = self.safe.lock();
        let next = safe.batches.pop_front();
        safe.is_running = next.is_some();
        next
    }
}

fn tell(inner: &Arc<Inner>, batch: impl IntoIterator<Item = Waiting>) {
    in_one_turn(|| {
        for waiting in batch {
            waiting.release(inner);
        }
    });
}

/// Tells those of all batches that are safe.
async fn run(inner: Arc<Inner>) {
    while let Some(batch) = inner.releasing.next() {
        let mut batch = batch.into_iter();
        while 0 < batch.len() {
            tell(&inner, batch.by_ref().take(TURN_MAX));
            tokio::task::yield_now().await;
        }
    }
}
