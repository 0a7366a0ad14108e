//! One schedule: a store, the disk below it, the model beside it, and those who wait for answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::channel;

use iii_stream_core::command::Write;
use iii_stream_core::{Change, Committed, Draft, Group, GroupKey};

use super::super::FileOptions;
use super::super::disk::simulated::SimDisk;
use super::super::test_random::Random;
use super::life::{Life, demand};
use super::model::{Model, Version, assert_same};
use crate::store::{Condition, Done, Store, StoreError, StoreErrorCause};

/// What is to be expected of failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Errors are planned: whatever is asked of the disk may fail.
    pub(super) errors: bool,
    /// The disk is of limited size.
    pub(super) full: bool,
}

/// Counts of what schedules did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) schedules: u64,
    pub(super) commands: u64,
    pub(super) refused: u64,
    pub(super) lives: u64,
    pub(super) power_cuts: u64,
    pub(super) folds: u64,
    pub(super) full: u64,
    pub(super) read_only: u64,
    pub(super) resumed: u64,
    pub(super) snapshots_instead: u64,
    pub(super) forgotten: u64,
    pub(super) flips_refused: u64,
    pub(super) flips_harmless: u64,
    pub(super) failed_openings: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.schedules += other.schedules;
        self.commands += other.commands;
        self.refused += other.refused;
        self.lives += other.lives;
        self.power_cuts += other.power_cuts;
        self.folds += other.folds;
        self.full += other.full;
        self.read_only += other.read_only;
        self.resumed += other.resumed;
        self.snapshots_instead += other.snapshots_instead;
        self.forgotten += other.forgotten;
        self.flips_refused += other.flips_refused;
        self.flips_harmless += other.flips_harmless;
        self.failed_openings += other.failed_openings;
    }
}

/// Looks at an answer; the flag says that what was not safe was taken back.
type Ask = Box<dyn FnOnce(&mut World, bool)>;

/// A change of a group, in the history of that name, with the end of its record in the log.
type Decided = ((GroupKey, Arc<str>), Arc<Change>, u64);

/// See the module.
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) life: Option<Life>,
    pub(super) options: FileOptions,
    pub(super) model: Model,
    pub(super) random: Random,
    pub(super) now_ms: u64,
    pub(super) boot: u64,
    pub(super) trouble: Trouble,
    pub(super) counts: Counts,
    /// The store tries again only then, where it could not write.
    pub(super) no_expiry_before_ms: u64,
    asks: Vec<Ask>,
    /// Changes that followers are to be told, in order.
    decided: VecDeque<Decided>,
}

impl World {
    pub(super) fn new(seed: u64, options: FileOptions) -> Self {
        Self {
            disk: SimDisk::new(seed),
            life: None,
            options,
            model: Model::new(options.limits),
            random: Random::new(seed),
            now_ms: 1_700_000_000_000,
            boot: 0,
            trouble: Trouble::default(),
            counts: Counts::default(),
            no_expiry_before_ms: 0,
            asks: Vec::new(),
            decided: VecDeque::new(),
        }
    }

    pub(super) fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("the store is open")
    }

    pub(super) fn may_fail(&self) -> bool {
        self.trouble.errors || self.disk.has_ended()
    }

    pub(super) fn is_expected(&self, error: &StoreError) -> bool {
        match error.cause {
            StoreErrorCause::Full => self.trouble.full || self.may_fail(),
            StoreErrorCause::Behind => true,
            _ => self.may_fail(),
        }
    }

    /// Sends a command, to the store and to the model.
    pub(super) fn command(&mut self, write: Write<'_>) {
        let key = write.target.as_ref().to_key();
        let now_ms = self.now_ms;
        let (sender, receiver) = channel();
        let command = write.command.clone();
        let end_before = self.life().end_lsn(key.as_ref());
        let done: Done<Committed> = Box::new(move |outcome| drop(sender.send(outcome)));
        let store = &self.life().store;
        store.commit(key.as_ref(), command, now_ms, done);
        let at_once = match receiver.try_recv() {
            Ok(Err(error)) => {
                assert!(self.is_expected(&error), "{key:?}: {error}");
                self.counts.refused += 1;
                return;
            }
            answer => answer.ok(),
        };
        self.counts.commands += 1;
        let epoch = self.life().epoch(key.as_ref());
        let mut group = self.model.working_copy(&key, epoch.as_ref());
        let committed = group.commit(write.command, now_ms, demand(&key));
        let end = self.life().end_lsn(key.as_ref());
        assert_eq!(
            committed.step.is_some(),
            end_before != end,
            "{key:?}: a step more or less than {committed:?}"
        );
        let lsn = committed.step.is_some().then_some(end);
        if let Some(lsn) = lsn {
            self.note_step(&key, group, committed.change.as_deref(), lsn);
        }
        let expected = committed.reply;
        self.asks.push(Box::new(move |world, was_reset| {
            let answer = at_once.unwrap_or_else(|| receiver.try_recv().expect("an answer"));
            match answer {
                Ok(committed) => {
                    let got = committed.reply.to_json();
                    assert_eq!(got, expected.to_json(), "{key:?}");
                    world.note_safe(&key, lsn, was_reset);
                }
                Err(error) => world.note_refused(&key, &error, was_reset),
            }
        }));
    }

    pub(super) fn announce(&mut self, key: &GroupKey, draft: Draft) {
        let (sender, receiver) = channel();
        let now_ms = self.now_ms;
        let done: Done<Arc<Change>> = Box::new(move |outcome| drop(sender.send(outcome)));
        let store = &self.life().store;
        store.announce(key.as_ref(), draft.clone(), now_ms, done);
        if let Ok(Err(error)) = receiver.try_recv() {
            assert!(self.is_expected(&error), "{key:?}: {error}");
            self.counts.refused += 1;
            return;
        }
        self.counts.commands += 1;
        let epoch = self.life().epoch(key.as_ref());
        let mut group = self.model.working_copy(key, epoch.as_ref());
        let (change, _) = group.announce(draft, now_ms);
        let lsn = self.life().end_lsn(key.as_ref());
        self.note_step(key, group, Some(&change), lsn);
        let key = key.clone();
        self.asks.push(Box::new(move |world, was_reset| {
            match receiver.try_recv().expect("an answer") {
                Ok(got) => {
                    assert_same(&key, &change, &got);
                    world.note_safe(&key, Some(lsn), was_reset);
                }
                Err(error) => world.note_refused(&key, &error, was_reset),
            }
        }));
    }

    fn note_step(&mut self, key: &GroupKey, group: Group, change: Option<&Change>, end_lsn: u64) {
        let life = self.life();
        let epoch = life.epoch(key.as_ref()).expect("a group with steps");
        let mut decided = None;
        if let Some(change) = change {
            decided = life.change(key.as_ref(), change.seq);
            if let Some(decided) = &decided {
                assert_same(key, change, decided);
            }
            let to_tell = Arc::new(change.clone());
            let place = (key.clone(), epoch.clone());
            self.decided.push_back((place, to_tell, end_lsn));
        }
        let version = Version {
            end_lsn,
            epoch,
            group,
            change: decided,
        };
        self.model.push(key, version);
    }

    fn note_safe(&mut self, key: &GroupKey, lsn: Option<u64>, was_reset: bool) {
        if let Some(lsn) = lsn {
            assert!(!was_reset, "{key:?}: told of success, but taken back");
            self.model.acked_lsn = self.model.acked_lsn.max(lsn);
        }
    }

    fn note_refused(&mut self, key: &GroupKey, error: &StoreError, was_reset: bool) {
        assert!(was_reset && self.is_expected(error), "{key:?}: {error}");
        self.counts.refused += 1;
    }

    /// Deletes what is due, and looks whether that was everything.
    pub(super) fn expire(&mut self) {
        let now_ms = self.now_ms;
        let inner = self.life().inner().clone();
        while let Some(key) = inner.deadlines.take_due(now_ms) {
            let end_before = self.life().end_lsn(key.as_ref());
            inner.expire(key.as_ref(), now_ms);
            if self.life().end_lsn(key.as_ref()) == end_before {
                if inner
                    .condition
                    .check_writable()
                    .and(inner.queue.check_room())
                    .is_err()
                {
                    self.no_expiry_before_ms = now_ms + 1_000;
                }
                continue;
            }
            let epoch = self.life().epoch(key.as_ref());
            let mut group = self.model.working_copy(&key, epoch.as_ref());
            let mut ends = self.life().pending_ends(key.as_ref());
            ends.retain(|end| end_before < *end);
            for lsn in ends {
                let deleted = group.expire(now_ms, 1).pop();
                let deleted = deleted.expect("nothing but what is due is deleted");
                self.note_step(&key, group.clone(), deleted.change.as_deref(), lsn);
            }
        }
        if self.no_expiry_before_ms <= now_ms && !self.may_fail() {
            for (key, versions) in &self.model.groups {
                let due_ms = versions.last().and_then(|last| last.group.next_expiry_ms());
                assert!(
                    due_ms.is_none_or(|due_ms| now_ms < due_ms),
                    "{key:?} has an item that should be gone since {due_ms:?}, at {now_ms}"
                );
            }
        }
    }

    /// Adds somebody who waits for an answer, and looks at it once it should be there.
    pub(super) fn ask(&mut self, look: impl FnOnce(&mut Self, bool) + 'static) {
        self.asks.push(Box::new(look));
    }

    /// Has the log's thread do what waits; then everybody must have an answer.
    pub(super) fn settle(&mut self) {
        let inner = self.life().inner().clone();
        let resets = inner.queue.resets();
        let batches = inner.activity.batches.get();
        self.life().turn();
        let was_reset = inner.queue.resets() != resets;
        for (key, change) in self.life().sink.take() {
            let decided = self.decided.pop_front();
            let ((decided_key, epoch), decided, lsn) = decided.expect("only what was decided");
            assert_eq!(key, decided_key);
            assert_same(&key, &decided, &change);
            self.model.note_told(&key, &epoch, &change);
            self.model.acked_lsn = self.model.acked_lsn.max(lsn);
        }
        if was_reset {
            let is_read_only = inner.condition.is_read_only();
            self.model
                .take_back(inner.queue.durable_lsn(), is_read_only);
            self.decided.clear();
        }
        assert!(self.decided.is_empty(), "a follower was not told");
        for look in std::mem::take(&mut self.asks) {
            look(self, was_reset);
        }
        if batches < inner.activity.batches.get() {
            self.model.note_written();
        }
        self.check_condition();
    }

    /// The store is hindered only by what was planned.
    fn check_condition(&mut self) {
        match self.life().store.condition() {
            Condition::Works => {}
            Condition::Full(reason) => assert!(self.trouble.full, "{reason}"),
            Condition::ReadOnly(reason) => assert!(self.may_fail(), "{reason}"),
            Condition::Unavailable(reason) => panic!("no file is in Redis: {reason}"),
        }
    }

    /// Nobody waits any more: the process has ended.
    pub(super) fn forget_asks(&mut self) {
        self.asks.clear();
        self.decided.clear();
    }
}
