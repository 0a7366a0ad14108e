//! How one watched group stands, and what follows from what is heard and read of it. Decides only: no I/O, no clock.
//!
//! Messages come in the order of the group, but some may get lost, and a read comes by another connection, so its place
//! among them is not known. Two things are: a read that is sent after a message was heard knows of that message, or what the
//! message told is no part of the history any more; and a message that is heard later may be of either side. So whatever was
//! heard before a read is replaced by it, and a history that nobody knows yet is never believed by a message alone.
//!
//! The first who reads the group for a follower says where its followers begin, and what came after that is read once it is
//! subscribed: so their own reads need not wait for it.

use std::sync::Arc;

use iii_stream_core::relay::{Relayed, RelayedChange};
use iii_stream_core::{Change, Position};

use crate::store::redis::Logged;

/// Changes of one group that wait for a read.
pub(super) const HELD_CHANGES_MAX: usize = 10_000;

/// Bytes of messages of one group that wait for a read. One message is always held.
pub(super) const HELD_BYTES_MAX: usize = 16 << 20;

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Tell the followers a change.
    Change(Arc<Change>),
    /// Tell them that changes cannot be told.
    Missed,
    /// Tell them that the history begins anew and is here.
    Restarted(Position),
    /// Let [`Watched::start_read`] begin a read.
    Read,
    /// Let those go on who wait for [`Watched::is_settled`].
    Settled,
}

/// What a reader of the group has to go by: see [`Watched::is_fresh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::redis) struct Mark {
    generation: u32,
    /// What the followers have been told before; `None` where there were none.
    seq: Option<u64>,
}

/// A read that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Which one.
    pub(super) read: u32,
    /// The changes after this one are wanted.
    pub(super) after_seq: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watched {
    /// Where the followers are; `None` before one has read the group.
    at: Option<Position>,
    /// Where the first of them began.
    first_seq: u64,
    /// How often the history began anew.
    generation: u32,
    /// Numbers reads.
    reads: u32,
    phase: Phase,
    /// Whether readers may go on: the history is known that the messages are of.
    is_settled: bool,
    /// What was heard while a read is wanted or under way.
    held: Vec<Relayed>,
    held_changes: usize,
    held_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not subscribed: messages may be missing.
    Deaf,
    /// Subscribed, but nobody has read the group, so nobody needs what comes.
    Unread,
    /// Messages are held until a read has told where the history is.
    Reading {
        /// Held messages that were heard before the read was sent; `None` before it is.
        heard_before: Option<usize>,
        /// Another one must follow: this one may not know of something.
        again: bool,
    },
    /// Messages are told as they come.
    Live,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            at: None,
            first_seq: 0,
            generation: 0,
            reads: 0,
            phase: Phase::Deaf,
            is_settled: false,
            held: Vec::new(),
            held_changes: 0,
            held_bytes: 0,
        }
    }
}

impl Watched {
    /// Bytes of what is held.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// From here on messages come: first or again.
    pub(super) fn ready(&mut self, out: &mut Vec<Act>) {
        self.is_settled = false;
        self.forget_held();
        self.phase = Phase::Unread;
        if self.at.is_some() {
            self.begin_reading(out);
        }
    }

    /// A reader for a follower has found the group here. The first one says where followers begin.
    pub(super) fn note(&mut self, epoch: &str, seq: u64, out: &mut Vec<Act>) {
        if self.at.is_some() {
            return;
        }
        self.first_seq = seq;
        self.at = Some(Position {
            epoch: epoch.into(),
            seq,
        });
        if self.phase == Phase::Unread {
            self.begin_reading(out);
        }
    }

    /// Messages may be missing until it is ready again.
    pub(super) fn lost(&mut self) {
        self.is_settled = false;
        self.forget_held();
        self.phase = Phase::Deaf;
    }

    /// Takes a message of so many bytes; `room_bytes` may be held.
    pub(super) fn hear(
        &mut self,
        message: Relayed,
        bytes: usize,
        room_bytes: usize,
        out: &mut Vec<Act>,
    ) {
        match self.phase {
            Phase::Deaf | Phase::Unread => {}
            Phase::Live => self.take(message, bytes, out),
            Phase::Reading { .. } => self.hold(message, bytes, room_bytes),
        }
    }

    /// A message came that cannot be read.
    pub(super) fn hear_noise(&mut self, out: &mut Vec<Act>) {
        self.want_read(out);
    }

    /// Begins the read that is wanted; `None` where none is any more.
    pub(super) fn start_read(&mut self) -> Option<Asked> {
        let after_seq = self.at.as_ref()?.seq;
        let Phase::Reading {
            heard_before,
            again,
        } = &mut self.phase
        else {
            return None;
        };
        (*heard_before, *again) = (Some(self.held.len()), false);
        self.reads = self.reads.wrapping_add(1);
        Some(Asked {
            read: self.reads,
            after_seq,
        })
    }

    /// Whether somebody still waits for a read.
    pub(super) fn awaits(&self, read: u32) -> bool {
        self.reads == read
            && matches!(
                self.phase,
                Phase::Reading {
                    heard_before: Some(_),
                    ..
                }
            )
    }

    /// Takes what a read has found.
    pub(super) fn take_read(&mut self, read: u32, logged: Logged, out: &mut Vec<Act>) {
        let Phase::Reading {
            heard_before: Some(heard_before),
            again,
        } = self.phase
        else {
            return;
        };
        if self.reads != read {
            return;
        }
        self.catch_up(logged, out);
        self.phase = Phase::Live;
        self.is_settled = true;
        let held = std::mem::take(&mut self.held);
        (self.held_changes, self.held_bytes) = (0, 0);
        for message in held.into_iter().skip(heard_before) {
            let bytes = bytes_of(&message);
            match self.phase {
                Phase::Live => self.take(message, bytes, out),
                _ => self.hold(message, bytes, HELD_BYTES_MAX),
            }
        }
        if again {
            self.want_read(out);
        }
        if self.is_settled {
            out.push(Act::Settled);
        }
    }

    /// Whether readers may go on: the history is known that the messages are of.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// What a reader needs before it reads. The follower that it reads for must hold changes back already.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            generation: self.generation,
            seq: self.at.as_ref().map(|at| at.seq),
        }
    }

    /// Whether what a reader has read since it got its mark, and noted, is of the history that the messages are of, and whatever
    /// follows it is told. If not, it must wait until this is settled, and read again.
    pub(super) fn is_fresh(
        &mut self,
        mark: Mark,
        epoch: &str,
        seq: u64,
        out: &mut Vec<Act>,
    ) -> bool {
        let Some(at) = self.at.as_ref().filter(|_| self.is_settled) else {
            return false;
        };
        if self.generation != mark.generation {
            return false;
        }
        let is_known = *at.epoch == *epoch;
        match mark.seq {
            Some(told) if is_known && told <= seq => return true,
            // Another one was first, and found more: what is between is told to nobody.
            None if is_known => return self.first_seq <= seq,
            _ => {}
        }
        // It is ahead of the messages.
        self.is_settled = false;
        self.want_read(out);
        false
    }

    fn want_read(&mut self, out: &mut Vec<Act>) {
        match &mut self.phase {
            // It will be read when it is ready, or the first reader has noted where it found it.
            Phase::Deaf | Phase::Unread => {}
            Phase::Reading { again, .. } => *again = true,
            Phase::Live => self.begin_reading(out),
        }
    }

    fn begin_reading(&mut self, out: &mut Vec<Act>) {
        self.phase = Phase::Reading {
            heard_before: None,
            again: false,
        };
        out.push(Act::Read);
    }

    /// Tells the changes of a message that come next. From the first one on that does not, it is held, and read.
    fn take(&mut self, message: Relayed, bytes: usize, out: &mut Vec<Act>) {
        let Some(at) = &mut self.at else { return };
        if message.epoch != at.epoch {
            self.is_settled = false;
            self.begin_reading(out);
            return self.hold(message, bytes, HELD_BYTES_MAX);
        }
        for (index, relayed) in message.changes.iter().enumerate() {
            let seq = relayed.seq();
            match relayed {
                _ if seq <= at.seq => {}
                RelayedChange::Whole(change) if seq == at.seq + 1 => {
                    at.seq = seq;
                    out.push(Act::Change(change.clone()));
                }
                _ => {
                    let rest = Relayed {
                        changes: message.changes[index..].to_vec(),
                        ..message
                    };
                    self.begin_reading(out);
                    return self.hold(rest, bytes, HELD_BYTES_MAX);
                }
            }
        }
    }

    fn hold(&mut self, message: Relayed, bytes: usize, room_bytes: usize) {
        let Phase::Reading { again, .. } = &mut self.phase else {
            return;
        };
        let changes = self.held_changes + message.changes.len();
        let is_first = self.held.is_empty();
        let room_bytes = room_bytes.min(HELD_BYTES_MAX - self.held_bytes.min(HELD_BYTES_MAX));
        if *again || !is_first && (HELD_CHANGES_MAX < changes || room_bytes < bytes) {
            *again = true;
            return self.forget_held();
        }
        self.held_changes = changes;
        self.held_bytes += bytes;
        self.held.push(message);
    }

    fn forget_held(&mut self) {
        self.held = Vec::new();
        (self.held_changes, self.held_bytes) = (0, 0);
        if let Phase::Reading {
            heard_before: Some(heard_before),
            ..
        } = &mut self.phase
        {
            *heard_before = 0;
        }
    }

    /// Tells what a read found beyond what was told.
    fn catch_up(&mut self, logged: Logged, out: &mut Vec<Act>) {
        let found = Position {
            epoch: logged.epoch,
            seq: logged.seq,
        };
        let Some(at) = self.at.replace(found.clone()) else {
            return;
        };
        let missed = found.seq.checked_sub(at.seq);
        let changes = logged
            .changes
            .filter(|changes| follow(changes, at.seq, found.seq));
        let is_other = at.epoch != found.epoch;
        if is_other || missed.is_none() {
            self.generation = self.generation.wrapping_add(1);
        }
        match (missed, changes) {
            // Those who follow have seen more of it than there is now.
            (None, _) if !is_other => out.push(Act::Restarted(found)),
            (Some(0), _) if !is_other => {}
            (Some(_), Some(changes)) => {
                if is_other {
                    out.push(Act::Restarted(Position {
                        seq: at.seq,
                        ..found
                    }));
                }
                out.extend(changes.into_iter().map(Act::Change));
            }
            _ => {
                out.push(Act::Missed);
                if is_other {
                    out.push(Act::Restarted(found));
                }
            }
        }
    }
}

/// Whether these are all changes after one sequence up to another.
fn follow(changes: &[Arc<Change>], after_seq: u64, last_seq: u64) -> bool {
    let mut seqs = after_seq..last_seq;
    changes
        .iter()
        .all(|change| seqs.next().is_some_and(|before| change.seq == before + 1))
        && seqs.next().is_none()
}

fn bytes_of(message: &Relayed) -> usize {
    let bytes = |relayed: &RelayedChange| match relayed {
        RelayedChange::Whole(change) => {
            let texts = [change.value.as_ref(), change.ops.as_ref()];
            let texts = texts.into_iter().flatten();
            texts.map(|json| json.as_str().len()).sum()
        }
        RelayedChange::LeftOut { .. } => 0,
    };
    message.changes.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests;
