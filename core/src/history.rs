//! The last changes of a group, for those who come back. Knows no items.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::decide::Kind;
use crate::event::wants;
use crate::group::GroupLimits;
use crate::stamp::Change;
use crate::text::Json;

/// What a change takes beside its texts, in bytes.
const CHANGE_BYTES: usize = 160;

/// Changes without a gap, up to the last one.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
}

impl History {
    /// Adds the next change. One that alone is larger than the bound leaves nothing.
    pub(crate) fn push(&mut self, change: &Arc<Change>, limits: &GroupLimits) {
        let bytes = bytes_of(change);
        if limits.history_bytes_max < bytes || limits.history_changes_max == 0 {
            self.trim(0);
            return;
        }
        while limits.history_changes_max <= self.changes.len()
            || limits.history_bytes_max < self.bytes + bytes
        {
            if !self.pop() {
                break;
            }
        }
        self.bytes += bytes;
        self.changes.push_back(change.clone());
    }

    pub(crate) fn first_seq(&self) -> Option<u64> {
        self.changes.front().map(|change| change.seq)
    }

    /// All changes, the oldest first.
    pub(crate) fn changes(&self) -> Vec<Arc<Change>> {
        self.changes.iter().cloned().collect()
    }

    /// Puts `older` before the changes that are there, as many as the bounds allow: the oldest fall away first.
    pub(crate) fn extend_back(&mut self, older: Vec<Arc<Change>>, limits: &GroupLimits) {
        for change in older.into_iter().rev() {
            let bytes = self.bytes + bytes_of(&change);
            if limits.history_bytes_max < bytes || limits.history_changes_max <= self.changes.len()
            {
                break;
            }
            self.bytes = bytes;
            self.changes.push_front(change);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops the oldest changes until what is left takes no more than `bytes_max`.
    pub(crate) fn trim(&mut self, bytes_max: usize) {
        while bytes_max < self.bytes && self.pop() {}
        if self.changes.is_empty() {
            self.changes = VecDeque::new();
        }
    }

    /// The changes after `seq` that a subscription to `item` wants; `None` where they do not reach back so far. `last`
    /// is the sequence of the group's last change.
    pub(crate) fn since(
        &self,
        seq: u64,
        last: u64,
        item: Option<&str>,
    ) -> Option<Vec<Arc<Change>>> {
        let count = usize::try_from(last.checked_sub(seq)?).ok()?;
        let first = self.changes.len().checked_sub(count)?;
        let wanted = self
            .changes
            .range(first..)
            .filter(|change| wants(item, change));
        Some(wanted.cloned().collect())
    }

    /// The sequence of the last change of an item; events about it count only where `counts_events`.
    pub(crate) fn last_of(&self, item: &str, counts_events: bool) -> Option<u64> {
        let mut changes = self.changes.iter().rev();
        let last = changes.find(|change| {
            change.item.as_deref() == Some(item)
                && (counts_events || !matches!(change.kind, Kind::Event { .. }))
        });
        last.map(|change| change.seq)
    }

    fn pop(&mut self) -> bool {
        let oldest = self.changes.pop_front();
        self.bytes -= oldest.as_deref().map_or(0, bytes_of);
        oldest.is_some()
    }
}

fn bytes_of(change: &Change) -> usize {
    let text = |json: Option<&Json>| json.map_or(0, |json| json.as_str().len());
    let item = change.item.as_deref().map_or(0, str::len);
    CHANGE_BYTES + item + text(change.value.as_ref()) + text(change.ops.as_ref())
}
