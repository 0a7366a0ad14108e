//! From a command to a record in the queue of the log.

use std::cell::RefCell;
use std::sync::Arc;

use iii_stream_core::{Change, Command, Committed, Draft, GroupRef, Step, Ttl};

use super::Inner;
use super::entry::{After, Body, Entry, State};
use super::record::{Record, push_record};
use super::waiting::Waiting;
use crate::store::{Done, StoreError};

/// Items deleted in one hold of a group's lock when their time has come; the rest follows at once.
const EXPIRE_BATCH_MAX: usize = 256;

/// When a group is looked at again whose items could not be deleted at their time, in milliseconds.
pub(super) const EXPIRE_RETRY_MS: u64 = 1_000;

/// A buffer that grew beyond is given back after use, in bytes.
const RECORD_BYTES_KEPT: usize = 1 << 20;

thread_local! {
    /// Where records are made before they are copied into the queue, so that it is held for short.
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Inner {
    pub(super) fn commit(
        self: &Arc<Self>,
        group: GroupRef<'_>,
        command: Command,
        now_ms: u64,
        done: Done<Committed>,
    ) {
        if let Err(error) = self.check_writable() {
            return done(Err(error));
        }
        self.with_group(group, move |inner, entry, state| {
            let state = match state {
                Ok(state) => state,
                Err(error) => return Some(Box::new(move || done(Err(error)))),
            };
            let group = state.hot()?;
            let had_items = !group.is_empty();
            let mut committed = group.commit(command, now_ms, inner.sink.demand(&entry.key));
            let has_items = !group.is_empty();
            let step = committed.step.take();
            let waiting = Waiting::Commit {
                entry: entry.clone(),
                committed,
                done: Some(done),
                lists: (had_items != has_items).then_some(has_items),
                resets: step.is_none().then(|| inner.queue.resets()),
            };
            inner.keep(entry, state, step.as_ref(), now_ms, waiting)
        });
    }

    pub(super) fn announce(
        self: &Arc<Self>,
        group: GroupRef<'_>,
        draft: Draft,
        now_ms: u64,
        done: Done<Arc<Change>>,
    ) {
        if let Err(error) = self.check_writable() {
            return done(Err(error));
        }
        self.with_group(group, move |inner, entry, state| {
            let state = match state {
                Ok(state) => state,
                Err(error) => return Some(Box::new(move || done(Err(error)))),
            };
            let (change, step) = state.hot()?.announce(draft, now_ms);
            let waiting = Waiting::Announce {
                entry: entry.clone(),
                change,
                done,
            };
            inner.keep(entry, state, Some(&step), now_ms, waiting)
        });
    }

    /// Deletes the items of a group whose time has come.
    pub(super) fn expire(self: &Arc<Self>, group: GroupRef<'_>, now_ms: u64) {
        self.with_group(group, move |inner, entry, state| {
            let state = state.ok()?;
            inner.set_deadline(entry, state, None);
            let retry_ms = now_ms + EXPIRE_RETRY_MS;
            if inner.check_writable().is_err() {
                inner.set_deadline(entry, state, Some(retry_ms));
                return None;
            }
            for _ in 0..EXPIRE_BATCH_MAX {
                let group = state.hot()?;
                let had_items = !group.is_empty();
                let expired = group.expire(now_ms, 1).pop();
                let has_items = !group.is_empty();
                let Some(mut committed) = expired else { break };
                let step = committed.step.take();
                let waiting = Waiting::Commit {
                    entry: entry.clone(),
                    committed,
                    done: None,
                    lists: (had_items != has_items).then_some(has_items),
                    resets: None,
                };
                inner.keep(entry, state, step.as_ref(), now_ms, waiting);
            }
            inner.count(entry, state);
            None
        });
    }

    /// Errors: why nothing can be written now.
    fn check_writable(&self) -> Result<(), StoreError> {
        self.condition.check_writable()?;
        self.queue.check_room()
    }

    /// Puts a step into the queue of the log, and who waits for it; without a step there is only somebody who waits. Gives back
    /// what to do once the group is let go.
    fn keep(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        state: &mut State,
        step: Option<&Step>,
        now_ms: u64,
        waiting: Waiting,
    ) -> After {
        let Some(step) = step else {
            let waiting = self.queue.wait(state.end_lsn, waiting)?;
            let inner = self.clone();
            return Some(Box::new(move || waiting.release(&inner)));
        };
        self.floor.note(now_ms);
        let epoch = state.is_new().then(|| state.epoch.clone());
        let group = state.hot()?;
        let head = Record {
            group: entry.key.as_ref(),
            epoch: epoch.as_deref(),
            seq: group.seq(),
            has_items: !group.is_empty(),
            has_clients: group.has_clients(),
            expires_ms: match step.ttl {
                Ttl::Replace(Some(ttl_ms)) => Some(now_ms.saturating_add(ttl_ms)),
                Ttl::Replace(None) | Ttl::Keep => None,
            },
            step: &[],
        };
        if state.pending.is_empty() {
            // Before the record can be in the log, or a fold might give up the segment that has it.
            self.unfolded.lock().push(entry.clone());
        }
        let pushed = RECORD.with_borrow_mut(|bytes| {
            bytes.clear();
            push_record(bytes, &head, |out| step.write(out));
            let pushed = self.queue.push(bytes, waiting);
            bytes.shrink_to(RECORD_BYTES_KEPT);
            pushed
        });
        match pushed {
            Ok(at) => {
                state.push_pending(at);
                state.written_ms = now_ms;
                self.count(entry, state);
                None
            }
            Err(refused) => {
                let (error, waiting) = *refused;
                self.take_back(entry, state);
                let inner = self.clone();
                Some(Box::new(move || waiting.refuse(&inner, error)))
            }
        }
    }

    /// Drops what a group has in memory, of which something is not on the disk and will not be.
    pub(super) fn take_back(&self, entry: &Arc<Entry>, state: &mut State) {
        state.drop_pending_from(self.queue.durable_lsn());
        if let Body::Hot(_) = state.body {
            state.body = Body::Cold;
        }
        self.discount(state);
        // Which items go when is not known before the group is loaded again.
        self.set_deadline(entry, state, Some(0));
    }
}

impl Waiting {
    /// Tells that a record was not taken. Its group has been seen to.
    fn refuse(self, inner: &Arc<Inner>, error: StoreError) {
        match self {
            Self::Commit {
                done: Some(done), ..
            } => done(Err(error)),
            Self::Commit { done: None, .. } => {}
            Self::Announce { done, .. } => done(Err(error)),
            Self::Read(read) => read.release(inner),
        }
    }
}
