//! What waits in the queue of a group: commands, and reads that must see what went before.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use iii_stream_core::command::Action;
use iii_stream_core::{Change, Command, Committed, Draft, Json};

use crate::store::queue_room::QueueShare;
use crate::store::{Done, StoreError};

/// One entry of a queue.
pub(super) enum Work {
    Write(Pending),
    Read(Read),
}

/// Reads the group, and tells whoever asked.
pub(super) type Read = BoxFuture<'static, ()>;

/// A command that waits, or is on its way.
pub(super) struct Pending {
    pub(super) task: Task,
    /// When it was asked for.
    pub(super) since: Instant,
    /// What it takes in the queue.
    pub(super) bytes: usize,
    /// The same of what all groups may have together, from when it waits until it is answered.
    pub(super) share: Option<QueueShare>,
}

/// What is to be done, and who is told.
pub(super) enum Task {
    Commit {
        command: Command,
        done: Done<Committed>,
    },
    Announce {
        draft: Draft,
        done: Done<Arc<Change>>,
    },
    /// Deletes an item if its time has come.
    Expire { item: Arc<str> },
}

/// What a command takes in the queue beside its texts, in bytes.
const PENDING_BYTES: usize = 200;

impl Pending {
    pub(super) fn new(task: Task) -> Self {
        let bytes = PENDING_BYTES + task.text_bytes();
        Self {
            task,
            since: Instant::now(),
            bytes,
            share: None,
        }
    }

    /// Tells that it failed.
    pub(super) fn fail(self, error: &StoreError) {
        match self.task {
            Task::Commit { done, .. } => done(Err(error.clone())),
            Task::Announce { done, .. } => done(Err(error.clone())),
            // It is tried again by whoever looks for what is due.
            Task::Expire { .. } => {}
        }
    }
}

impl Task {
    fn text_bytes(&self) -> usize {
        let (item, text) = match self {
            Self::Commit { command, .. } => {
                let text = match &command.action {
                    Action::Set { value, .. } => value.as_str().len(),
                    Action::Update { ops, .. } => ops.text().as_str().len(),
                    Action::Send { data, .. } => data.as_str().len(),
                    Action::Delete => 0,
                };
                (command.item.as_deref(), text)
            }
            Self::Announce { draft, .. } => {
                let text =
                    |json: &Option<Json>| json.as_ref().map_or(0, |json| json.as_str().len());
                (draft.item.as_deref(), text(&draft.value) + text(&draft.ops))
            }
            Self::Expire { item } => (Some(&**item), 0),
        };
        item.map_or(0, str::len) + text
    }
}
