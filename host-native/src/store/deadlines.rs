//! When which group next has to delete items. Knows no groups but their names.

use std::collections::BTreeSet;
use std::time::Duration;

use iii_stream_core::GroupKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock;

/// See the module.
#[derive(Default)]
pub(super) struct Deadlines {
    /// In Unix milliseconds.
    by_time: Mutex<BTreeSet<(u64, GroupKey)>>,
    changed: Notify,
}

impl Deadlines {
    /// Replaces the deadline of a group.
    pub(super) fn replace(&self, group: &GroupKey, old_ms: Option<u64>, new_ms: Option<u64>) {
        if old_ms == new_ms {
            return;
        }
        let mut by_time = self.by_time.lock();
        if let Some(old_ms) = old_ms {
            by_time.remove(&(old_ms, group.clone()));
        }
        if let Some(new_ms) = new_ms {
            by_time.insert((new_ms, group.clone()));
        }
        drop(by_time);
        self.changed.notify_one();
    }

    /// Takes out a group whose deadline has come.
    pub(super) fn take_due(&self, now_ms: u64) -> Option<GroupKey> {
        let mut by_time = self.by_time.lock();
        let (deadline_ms, _) = by_time.first()?;
        if now_ms < *deadline_ms {
            return None;
        }
        by_time.pop_first().map(|(_, group)| group)
    }

    /// Waits until a deadline has come.
    pub(super) async fn due(&self) {
        loop {
            let next_ms = self
                .by_time
                .lock()
                .first()
                .map(|(deadline_ms, _)| *deadline_ms);
            let now_ms = clock::unix_ms();
            match next_ms {
                None => self.changed.notified().await,
                Some(next_ms) if now_ms < next_ms => {
                    let wait = Duration::from_millis(next_ms - now_ms);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.changed.notified() => {}
                    }
                }
                Some(_) => return,
            }
        }
    }
}
