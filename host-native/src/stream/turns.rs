//! Work on one item, one after another. Knows nothing of the work.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use iii_stream_core::GroupKey;
use parking_lot::Mutex;

/// Which item.
pub(super) type ItemKey = (GroupKey, Arc<str>);

type Job = Box<dyn FnOnce(Turn) + Send>;

/// What waits for its turn, by item. As much can wait as callers may have calls in flight.
pub(super) struct Turns {
    waiting: Mutex<HashMap<ItemKey, VecDeque<Job>>>,
    runtime: tokio::runtime::Handle,
}

/// An item's turn. Dropping it gives the turn to the next.
pub(super) struct Turn {
    turns: Arc<Turns>,
    key: ItemKey,
}

impl Turns {
    pub(super) fn new(runtime: tokio::runtime::Handle) -> Self {
        Self {
            waiting: Mutex::default(),
            runtime,
        }
    }

    /// Does a job once all earlier ones on the item are done, which is when they have dropped their turn.
    pub(super) fn take(self: &Arc<Self>, key: ItemKey, job: impl FnOnce(Turn) + Send + 'static) {
        {
            let mut all = self.waiting.lock();
            if let Some(waiting) = all.get_mut(&key) {
                waiting.push_back(Box::new(job));
                return;
            }
            all.insert(key.clone(), VecDeque::new());
        }
        job(Turn {
            turns: self.clone(),
            key,
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.turns.waiting.lock();
        let next = waiting.get_mut(&self.key).and_then(VecDeque::pop_front);
        let Some(job) = next else {
            waiting.remove(&self.key);
            return;
        };
        drop(waiting);
        let turn = Self {
            turns: self.turns.clone(),
            key: self.key.clone(),
        };
        // On a task of its own: a long queue of jobs that end at once must not pile up on the stack.
        self.turns.runtime.spawn(async move { job(turn) });
    }
}
