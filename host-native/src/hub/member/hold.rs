//! The changes that are held back for a connection in one group, while one of its subscriptions begins or a page of a snapshot is read.

use std::sync::Arc;

use iii_stream_core::{Change, Kind};
use tokio::sync::oneshot;

/// What is held back.
#[derive(Default)]
pub(super) struct Hold {
    /// Subscriptions that begin.
    pub(super) joins: usize,
    pub(super) changes: Vec<Arc<Change>>,
    /// What values and operations take in them.
    pub(super) bytes: usize,
    /// More came than is held, and was dropped.
    pub(super) is_overrun: bool,
    /// There were custom events in it.
    pub(super) lost_events: bool,
    /// Who waits for the change of which sequence. Dropped where it does not come.
    pub(super) awaited: Vec<(u64, oneshot::Sender<()>)>,
}

fn bytes_of(changes: &[Arc<Change>]) -> usize {
    let bytes = |change: &Arc<Change>| {
        let texts = [change.value.as_ref(), change.ops.as_ref()];
        texts
            .into_iter()
            .flatten()
            .map(|json| json.as_str().len())
            .sum::<usize>()
    };
    changes.iter().map(bytes).sum()
}

pub(super) fn is_event(change: &Change) -> bool {
    matches!(change.kind, Kind::Event { .. })
}

impl Hold {
    pub(super) fn add(&mut self, changes: &[Arc<Change>], held_max: usize, bytes_max: usize) {
        let bytes = self.bytes + bytes_of(changes);
        // One is always held, as one frame is always admitted to an outbox.
        let is_heavy = bytes_max < bytes && 1 < self.changes.len() + changes.len();
        if self.is_overrun || is_heavy || held_max < self.changes.len() + changes.len() {
            self.overrun();
            self.lost_events |= changes.iter().any(|change| is_event(change));
        } else {
            self.changes.extend_from_slice(changes);
            self.bytes = bytes;
            if let Some(last) = changes.last() {
                self.awaited.retain(|(seq, _)| last.seq < *seq);
            }
        }
    }

    /// Resolves, with an error, once changes up to a sequence are held back or there is no hope of them.
    pub(super) fn wait(&mut self, seq: u64) -> oneshot::Receiver<()> {
        let (awaited, comes) = oneshot::channel();
        self.awaited.push((seq, awaited));
        comes
    }

    /// Takes out what is held back up to a sequence.
    pub(super) fn take_up_to(&mut self, seq: u64) -> Vec<Arc<Change>> {
        let count = self.changes.partition_point(|change| change.seq <= seq);
        let taken: Vec<_> = self.changes.drain(..count).collect();
        self.bytes -= bytes_of(&taken);
        taken
    }

    /// The same for custom events alone.
    pub(super) fn take_events_up_to(&mut self, seq: u64) -> Vec<Arc<Change>> {
        let (taken, kept) = std::mem::take(&mut self.changes)
            .into_iter()
            .partition(|change| is_event(change) && change.seq <= seq);
        self.changes = kept;
        self.bytes -= bytes_of(&taken);
        taken
    }

    /// Takes out what is held back, because its history has ended. What was dropped of it is only missed where it was custom
    /// events.
    pub(super) fn take(&mut self) -> Vec<Arc<Change>> {
        self.is_overrun = self.lost_events;
        self.bytes = 0;
        self.awaited = Vec::new();
        std::mem::take(&mut self.changes)
    }

    pub(super) fn overrun(&mut self) {
        self.is_overrun = true;
        self.lost_events |= self.changes.iter().any(|change| is_event(change));
        self.changes = Vec::new();
        self.bytes = 0;
        self.awaited = Vec::new();
    }
}
