//! Whoever waits for the log: told of success in the order of the log, or taken back where a batch could not be written.

use std::sync::Arc;

use iii_stream_core::{Change, Committed};

use super::Inner;
use super::entry::Entry;
use crate::store::{Done, StoreError};

/// See the module.
pub(super) enum Waiting {
    /// A command that was decided.
    Commit {
        entry: Arc<Entry>,
        committed: Committed,
        /// `None` for those that the store gave itself.
        done: Option<Done<Committed>>,
        /// Whether the group has items now, where that changed.
        lists: Option<bool>,
        /// For one that has no record of its own: how often groups had been taken back when it was decided.
        resets: Option<u64>,
    },
    /// A change of an item that is kept elsewhere.
    Announce {
        entry: Arc<Entry>,
        change: Arc<Change>,
        done: Done<Arc<Change>>,
    },
    /// A read of what was decided.
    Read(Box<dyn PendingRead>),
}

/// What was read of a group in memory, and is shown once that is safe.
pub(super) trait PendingRead: Send {
    /// Shows it. Reads again where the group was taken back since.
    fn release(self: Box<Self>, inner: &Arc<Inner>);
}

impl Waiting {
    /// Everything before is safe: tells the change to those who follow, and the outcome to the caller.
    pub(super) fn release(self, inner: &Arc<Inner>) {
        match self {
            Self::Commit {
                entry,
                committed,
                done,
                lists,
                resets,
            } => {
                if resets.is_some_and(|resets| resets != inner.queue.resets()) {
                    // It was decided on what is not there any more.
                    if let Some(done) = done {
                        done(Err(StoreError::in_trouble()));
                    }
                    return;
                }
                if let Some(has_items) = lists {
                    inner.listing.note(&entry.key, has_items);
                }
                if let Some(change) = &committed.change {
                    let old = match done {
                        Some(_) => committed.reply.outcome.old(),
                        None => change.value.as_ref(),
                    };
                    inner.sink.publish(&entry.key, change.clone(), old);
                }
                if let Some(done) = done {
                    done(Ok(committed));
                }
            }
            Self::Announce {
                entry,
                change,
                done,
            } => {
                inner.sink.publish(&entry.key, change.clone(), None);
                done(Ok(change));
            }
            Self::Read(read) => read.release(inner),
        }
    }

    /// The record, or one before it, could not be written: the group goes back to what is safe, and the caller is told.
    pub(super) fn fail(self, inner: &Arc<Inner>, error: &StoreError) {
        match self {
            Self::Commit { entry, done, .. } => {
                inner.take_back_if_ahead(&entry);
                if let Some(done) = done {
                    done(Err(error.clone()));
                }
            }
            Self::Announce { entry, done, .. } => {
                inner.take_back_if_ahead(&entry);
                done(Err(error.clone()));
            }
            Self::Read(read) => read.release(inner),
        }
    }
}

impl Inner {
    /// Takes a group back to what is safe, unless it is there.
    fn take_back_if_ahead(&self, entry: &Arc<Entry>) {
        let mut state = entry.state.lock();
        if self.queue.durable_lsn() < state.end_lsn {
            self.take_back(entry, &mut state);
        }
    }
}
