//! Tells those who waited for the log that it is safe, in the order of the log. A few are told by the log's own thread, many by a
//! task, so that the next batch need not wait for that.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::Inner;
use super::waiting::Waiting;
use crate::socket::in_one_turn;

/// So many are told by the log's own thread: to wake another would take longer.
const TOLD_AT_ONCE_MAX: usize = 8;

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

    /// Tells everybody. Called by one thread.
    pub(super) fn release(&self, inner: &Arc<Inner>, waiting: Vec<Waiting>) {
        let mut safe = self.safe.lock();
        let is_short = !safe.is_running && waiting.len() <= TOLD_AT_ONCE_MAX;
        let Some(runtime) = self.runtime.as_ref().filter(|_| !is_short) else {
            drop(safe);
            return in_one_turn(|| {
                for waiting in waiting {
                    waiting.release(inner);
                }
            });
        };
        safe.batches.push_back(waiting);
        if !std::mem::replace(&mut safe.is_running, true) {
            drop(safe);
            runtime.spawn(run(inner.clone()));
        }
    }

    fn next(&self) -> Option<Vec<Waiting>> {
        let mut safe = self.safe.lock();
        let next = safe.batches.pop_front();
        safe.is_running = next.is_some();
        next
    }
}

/// Tells those of all batches that are safe.
async fn run(inner: Arc<Inner>) {
    while let Some(batch) = inner.releasing.next() {
        let mut batch = batch.into_iter();
        while 0 < batch.len() {
            in_one_turn(|| {
                for waiting in batch.by_ref().take(TURN_MAX) {
                    waiting.release(&inner);
                }
            });
            tokio::task::yield_now().await;
        }
    }
}
