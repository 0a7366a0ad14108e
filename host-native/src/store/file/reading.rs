//! Reads of groups: what is in memory now, shown once it is safe.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use iii_stream_core::{Group, GroupKey, GroupRef, Position};

use super::Inner;
use super::entry::{After, State};
use super::waiting::{PendingRead, Waiting};
use crate::store::listing::Listing;
use crate::store::{Done, Resumed};

impl Inner {
    /// Reads a group; `ask` is asked again where the group was taken back before its answer was safe.
    pub(super) fn read<T: Send + 'static>(
        self: &Arc<Self>,
        group: GroupRef<'_>,
        ask: impl Fn(&mut Group) -> T + Send + 'static,
        done: Done<T>,
    ) {
        // The short way of most reads, without a box.
        if let Some(entry) = self.table.find(group) {
            let mut state = entry.state.lock();
            let is_safe = state.end_lsn <= self.queue.durable_lsn();
            if let Some(group) = state.hot().filter(|_| is_safe) {
                let answer = ask(group);
                entry.touch(self.turn.load(Ordering::Relaxed));
                drop(state);
                return done(Ok(answer));
            }
        }
        let key = group.to_key();
        self.with_group(group, move |inner, _, state| match state {
            Ok(state) => inner.answer(key, state, ask, done),
            Err(error) => Some(Box::new(move || done(Err(error)))),
        });
    }

    fn answer<T: Send + 'static>(
        self: &Arc<Self>,
        key: GroupKey,
        state: &mut State,
        ask: impl Fn(&mut Group) -> T + Send + 'static,
        done: Done<T>,
    ) -> After {
        let answer = ask(state.hot()?);
        let inner = self.clone();
        let read = Asked {
            key,
            resets: self.queue.resets(),
            ask,
            answer,
            done,
        };
        let waiting = self
            .queue
            .wait(state.end_lsn, Waiting::Read(Box::new(read)))?;
        Some(Box::new(move || waiting.release(&inner)))
    }

    /// Looks at which groups there are, once all that was decided about it is safe.
    pub(super) fn list_names<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&Listing) -> T + Send + 'static,
        done: Done<T>,
    ) {
        let waiting = Waiting::Read(Box::new(Listed { ask, done }));
        let waiting = self.queue.wait_for_all(waiting);
        if let Some(waiting) = waiting.and_then(|waiting| self.releasing.release_after(waiting)) {
            waiting.release(self);
        }
    }

    /// Reads what happened since a place in a group's history, from the disk too where memory does not reach back so far.
    pub(super) fn resume(
        self: &Arc<Self>,
        group: GroupRef<'_>,
        since: &Position,
        ask: impl Fn(&mut Group) -> Option<Resumed> + Send + 'static,
        done: Done<Option<Resumed>>,
    ) {
        let (key, since) = (group.to_key(), since.clone());
        self.with_group(group, move |inner, entry, state| {
            let state = match state {
                Ok(state) => state,
                Err(error) => return Some(Box::new(move || done(Err(error)))),
            };
            let has_whole_history = state.has_whole_history;
            let group = state.hot()?;
            let is_older = group
                .history_first_seq()
                .is_none_or(|first| since.seq.saturating_add(1) < first)
                && since.seq < group.seq();
            if has_whole_history || !is_older || *group.epoch() != since.epoch {
                return inner.answer(key, state, ask, done);
            }
            let (inner, entry) = (inner.clone(), entry.clone());
            Some(Box::new(move || {
                let again = inner.clone();
                inner.load_history(entry, move || again.read(key.as_ref(), ask, done));
            }))
        });
    }
}

/// A look at which groups there are, that waits for those which come and go.
struct Listed<T, F> {
    ask: F,
    done: Done<T>,
}

impl<T: Send + 'static, F: FnOnce(&Listing) -> T + Send + 'static> PendingRead for Listed<T, F> {
    fn release(self: Box<Self>, inner: &Arc<Inner>) {
        (self.done)(Ok((self.ask)(&inner.listing)));
    }
}

/// A read whose answer is not safe yet.
struct Asked<T, F> {
    key: GroupKey,
    /// How often groups had been taken back when it was asked.
    resets: u64,
    ask: F,
    answer: T,
    done: Done<T>,
}

impl<T: Send + 'static, F: Fn(&mut Group) -> T + Send + 'static> PendingRead for Asked<T, F> {
    fn release(self: Box<Self>, inner: &Arc<Inner>) {
        let Self {
            key,
            resets,
            ask,
            answer,
            done,
        } = *self;
        if resets == inner.queue.resets() {
            done(Ok(answer));
        } else {
            inner.read(key.as_ref(), ask, done);
        }
    }
}
