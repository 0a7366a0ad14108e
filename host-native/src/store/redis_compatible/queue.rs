//! The commands and reads of each group that wait for Redis, in order. Knows no Redis.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hashbrown::HashMap;
use iii_stream_core::command::Action;
use iii_stream_core::{Change, Command, Committed, Draft, GroupKey};
use parking_lot::Mutex;

use crate::store::queue_room::{QueueRoom, QueueShare};
use crate::store::{Done, StoreError, StoreErrorCause};

/// Commands that are decided and written together.
const BATCH_COMMANDS_MAX: usize = 256;

/// A batch takes no further command once it has so many bytes.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What a command takes in the queues of all groups beside its text, in bytes.
const COMMAND_BYTES: usize = 200;

/// A command that waits.
pub(super) struct Waiting {
    pub(super) command: Command,
    pub(super) done: Done<Committed>,
    bytes: usize,
    /// Of what all groups may have together, from when it waits until it is answered.
    pub(super) share: Option<QueueShare>,
}

/// A change of an item that is kept elsewhere.
pub(super) struct Announcing {
    pub(super) draft: Draft,
    pub(super) done: Done<Arc<Change>>,
}

/// What is to be done with a group.
pub(super) enum Job {
    Commit(Waiting),
    Announce(Box<Announcing>),
    Read(BoxFuture<'static, ()>),
}

/// Jobs that are done together.
pub(super) enum Batch {
    /// Decided one after another, and written together.
    Commit(Vec<Waiting>),
    Announce(Box<Announcing>),
    /// Done side by side.
    Read(Vec<BoxFuture<'static, ()>>),
}

/// See the module.
pub(super) struct Queues {
    groups: Mutex<HashMap<GroupKey, Queue>>,
    commands_max: usize,
    bytes_max: usize,
    /// For the commands of all groups.
    room: Arc<QueueRoom>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
}

/// What became of a job that was put into a queue.
pub(super) enum Put {
    /// It waits behind others, for a task that is at work.
    Waits,
    /// A task has to be started for the group.
    First,
    /// There was no room.
    Full(Box<Job>, StoreError),
}

impl Job {
    pub(super) fn commit(command: Command, done: Done<Committed>) -> Self {
        let bytes = match &command.action {
            Action::Set { value, .. } => value.as_str().len(),
            Action::Update { ops, .. } => ops.text().as_str().len(),
            Action::Send { data, .. } => data.as_str().len(),
            Action::Delete => 0,
        };
        Self::Commit(Waiting {
            command,
            done,
            bytes,
            share: None,
        })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Commit(waiting) => waiting.bytes,
            Self::Announce(_) | Self::Read(_) => 0,
        }
    }
}

impl Queues {
    /// A group's queue takes at most `commands_max` jobs, and no further one once they have `bytes_max`; all groups together take
    /// at most `total_bytes_max`.
    pub(super) fn new(commands_max: usize, bytes_max: usize, total_bytes_max: usize) -> Self {
        Self {
            groups: Mutex::default(),
            commands_max,
            bytes_max,
            room: QueueRoom::new(total_bytes_max),
        }
    }

    /// What waits in all groups, or is on its way, in bytes.
    pub(super) fn queued_bytes(&self) -> usize {
        self.room.bytes()
    }

    /// Whether something of the group waits or is being done.
    pub(super) fn is_busy(&self, group: &GroupKey) -> bool {
        self.groups.lock().contains_key(group)
    }

    pub(super) fn put(&self, group: &GroupKey, mut job: Job) -> Put {
        if let Job::Commit(waiting) = &mut job {
            match self.room.take(COMMAND_BYTES + waiting.bytes) {
                Ok(share) => waiting.share = Some(share),
                Err(error) => return Put::Full(Box::new(job), error),
            }
        }
        let mut groups = self.groups.lock();
        let is_first = !groups.contains_key(group);
        let queue = groups.entry_ref(group).or_default();
        if self.commands_max <= queue.jobs.len()
            || (0 < queue.bytes && self.bytes_max <= queue.bytes)
        {
            let (jobs, bytes) = (queue.jobs.len(), queue.bytes);
            let message = format!(
                "{jobs} commands of {bytes} bytes wait for Redis in this group; at most {} (queue_commands_max) and {} bytes (queue_bytes_max) may",
                self.commands_max, self.bytes_max
            );
            let error = StoreError::new(StoreErrorCause::Behind, message);
            return Put::Full(Box::new(job), error);
        }
        queue.bytes += job.bytes();
        queue.jobs.push_back(job);
        if is_first { Put::First } else { Put::Waits }
    }

    /// What a group's task does next; `None` ends it.
    pub(super) fn take(&self, group: &GroupKey) -> Option<Batch> {
        let mut groups = self.groups.lock();
        let queue = groups.get_mut(group)?;
        let batch = queue.take();
        if batch.is_none() {
            groups.remove(group);
        }
        batch
    }
}

impl Queue {
    fn take(&mut self) -> Option<Batch> {
        let job = self.pop(|_| true)?;
        Some(match job {
            Job::Announce(announcing) => Batch::Announce(announcing),
            Job::Read(read) => {
                let mut reads = vec![read];
                while reads.len() < BATCH_COMMANDS_MAX
                    && let Some(Job::Read(read)) = self.pop(|job| matches!(job, Job::Read(_)))
                {
                    reads.push(read);
                }
                Batch::Read(reads)
            }
            Job::Commit(first) => {
                let mut bytes = first.bytes;
                let mut commands = vec![first];
                while commands.len() < BATCH_COMMANDS_MAX
                    && bytes < BATCH_BYTES_MAX
                    && let Some(Job::Commit(next)) = self.pop(|job| matches!(job, Job::Commit(_)))
                {
                    bytes += next.bytes;
                    commands.push(next);
                }
                Batch::Commit(commands)
            }
        })
    }

    fn pop(&mut self, is_wanted: impl FnOnce(&Job) -> bool) -> Option<Job> {
        let job = self.jobs.pop_front_if(|job| is_wanted(job))?;
        self.bytes -= job.bytes();
        Some(job)
    }
}
