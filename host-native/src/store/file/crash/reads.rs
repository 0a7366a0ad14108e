//! Reads of the store under test, held against the model.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use iii_stream_core::{GroupKey, Item, Position};

use super::model::Version;
use super::world::World;
use crate::store::{
    Done, PageWish, ResumeWish, Resumed, Snapshot, SnapshotPage, Store, StoreError,
};

type Answer<T> = Result<T, StoreError>;

fn answering<T: Send + 'static>() -> (Done<T>, Receiver<Answer<T>>) {
    let (sender, receiver) = channel();
    (Box::new(move |answer| drop(sender.send(answer))), receiver)
}

impl World {
    /// What a read that is asked now should show.
    fn shown(&mut self, key: &GroupKey) -> Option<Version> {
        let epoch = self.life().epoch(key.as_ref());
        self.model.current(key, epoch.as_ref()).cloned()
    }

    /// Waits for the answer to a read; `check` gets it with what should be shown.
    fn expect<T: 'static>(
        &mut self,
        key: &GroupKey,
        receiver: Receiver<Answer<T>>,
        check: impl FnOnce(&mut Self, Option<Version>, T) + 'static,
    ) {
        let key = key.clone();
        let version = self.shown(&key);
        let look = move |world: &mut Self, was_reset: bool, answer: Answer<T>| match answer {
            Ok(answer) => {
                // Then it was read again.
                let version = if was_reset {
                    world.shown(&key)
                } else {
                    version
                };
                let lsn = version.as_ref().map_or(0, |version| version.end_lsn);
                world.model.acked_lsn = world.model.acked_lsn.max(lsn);
                check(world, version, answer);
            }
            Err(error) => assert!(world.is_expected(&error), "{key:?}: {error}"),
        };
        match receiver.try_recv() {
            Ok(answer) => look(self, false, answer),
            Err(_) => self.ask(move |world, was_reset| {
                look(world, was_reset, receiver.try_recv().expect("an answer"));
            }),
        }
    }

    pub(super) fn list(&mut self, key: &GroupKey) {
        let (done, receiver) = answering();
        self.life().store.list(key.as_ref(), done);
        let of = key.clone();
        self.expect(key, receiver, move |world, version, items: Vec<_>| {
            let checked = world.model.check_items(&of, version.as_ref(), &items);
            checked.unwrap_or_else(|wrong| panic!("{wrong}"));
        });
    }

    pub(super) fn get(&mut self, key: &GroupKey, item: &str) {
        let (done, receiver) = answering();
        self.life().store.get(key.as_ref(), item, done);
        let item = item.to_owned();
        self.expect(key, receiver, move |_, version, got: Option<Item>| {
            let expected = version.and_then(|mut version| version.group.get(&item));
            let strip = |item: Item| (item.value, item.seq, item.created_seq);
            assert_eq!(got.map(strip), expected.map(strip));
        });
    }

    fn check_shown(
        &mut self,
        key: &GroupKey,
        version: Option<&Version>,
        (epoch, seq, sync_ms): (&Arc<str>, u64, u64),
    ) {
        let expected = version.map_or(0, |version| version.group.seq());
        assert_eq!(seq, expected, "{key:?}");
        if let Some(version) = version {
            assert_eq!(*epoch, version.epoch, "{key:?}");
        }
        self.model.note_sync(key, epoch, seq, sync_ms);
    }

    pub(super) fn snapshot(&mut self, key: &GroupKey) {
        let (done, receiver) = answering();
        let now_ms = self.now_ms;
        self.life().store.snapshot(key.as_ref(), None, now_ms, done);
        let of = key.clone();
        self.expect(key, receiver, move |world, version, got: Snapshot| {
            let checked = world.model.check_items(&of, version.as_ref(), &got.items);
            checked.unwrap_or_else(|wrong| panic!("{wrong}"));
            let shown = (&got.epoch, got.seq, got.timestamp);
            world.check_shown(&of, version.as_ref(), shown);
        });
    }

    pub(super) fn page(&mut self, key: &GroupKey) {
        let (done, receiver) = answering();
        let now_ms = self.now_ms;
        self.life()
            .store
            .page(key.as_ref(), PageWish::default(), now_ms, done);
        let of = key.clone();
        self.expect(key, receiver, move |world, version, got: SnapshotPage| {
            assert!(got.next_after.is_none(), "all items fit a page here");
            let checked = world.model.check_items(&of, version.as_ref(), &got.items);
            checked.unwrap_or_else(|wrong| panic!("{wrong}"));
            let shown = (&got.epoch, got.seq, got.timestamp);
            world.check_shown(&of, version.as_ref(), shown);
        });
    }

    /// Comes back with a position that somebody was told.
    pub(super) fn resume(&mut self, item: Option<&str>, needs_values: bool) {
        if self.model.positions.is_empty() {
            return;
        }
        // Mostly a late one, which the history may still reach.
        let count = self.model.positions.len() as u64;
        let span = if self.random.below(4) == 0 {
            count
        } else {
            count.min(40)
        };
        let index = count - 1 - self.random.below(span);
        let (key, epoch, seq) = self.model.positions[index as usize].clone();
        let (done, receiver) = answering();
        let since = Position {
            epoch: epoch.clone(),
            seq,
        };
        let now_ms = self.now_ms;
        let store = &self.life().store;
        let wish = ResumeWish {
            item: item.map(Into::into),
            since,
            needs_values,
            clients: None,
        };
        store.resume(key.as_ref(), wish, now_ms, done);
        let item = item.map(str::to_owned);
        let of = key.clone();
        self.expect(
            &key,
            receiver,
            move |world, version, got: Option<Resumed>| {
                let Some(got) = got else {
                    world.counts.snapshots_instead += 1;
                    let known = version.filter(|version| version.epoch == epoch && !needs_values);
                    let reached = known.and_then(|version| {
                        version.group.changes_since(seq, item.as_deref(), false)
                    });
                    assert_eq!(
                        reached, None,
                        "{of:?} {epoch}:{seq} for {item:?} should be known"
                    );
                    return;
                };
                assert_eq!(got.epoch, epoch, "{of:?}");
                let shown = (&got.epoch, got.seq, got.timestamp);
                world.check_shown(&of, version.as_ref(), shown);
                let Some(version) = version else {
                    assert_eq!((got.changes.len(), got.seq), (0, seq));
                    return;
                };
                assert!(seq <= version.group.seq(), "{of:?} went back behind {seq}");
                if needs_values {
                    assert!(got.changes.iter().all(|change| change.value.is_some()));
                }
                world
                    .model
                    .check_resumed(&of, &version, seq, item.as_deref(), &got.changes);
                world.counts.resumed += 1;
            },
        );
    }

    /// Which groups there are. Nothing may be on its way.
    pub(super) fn check_listing(&mut self) {
        let (done, receiver) = answering();
        let life = self.life.as_ref().expect("the store is open");
        life.store.list_all(done);
        let got = receiver.recv().expect("an answer").expect("success");
        let expected = self
            .model
            .listing(|key, version| life.epoch(key.as_ref()).as_ref() == Some(&version.epoch));
        assert_eq!(got, expected);
        for (stream, groups) in expected {
            let (done, receiver) = answering();
            life.store.list_groups(&stream, done);
            assert_eq!(receiver.recv().expect("an answer"), Ok(groups));
        }
    }
}
