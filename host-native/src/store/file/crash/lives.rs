//! How a store comes to its end, and what is there at the next opening.

use std::sync::Arc;
use std::sync::mpsc::channel;

use iii_stream_core::{GroupKey, Item};

use super::super::Durability;
use super::super::disk::simulated::{Fate, Fault, Lasting, Moment, Operation};
use super::life::Life;
use super::world::{Trouble, World};
use crate::store::{Store, StoreErrorCause};

/// How a store comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Killed,
    PowerCut(Option<Fate>),
}

impl World {
    /// Opens the store where nothing is in the way.
    pub(super) fn open(&mut self) {
        assert!(self.life.is_none());
        let life = Life::open(&self.disk, self.options, self.boot, false);
        self.life = Some(life.unwrap_or_else(|error| panic!("{error}")));
        self.counts.lives += 1;
    }

    /// Ends the store in a way, and opens it again.
    pub(super) fn restart(&mut self, end: End) {
        let mut is_whole = false;
        if end == End::Closed && !self.disk.has_ended() {
            self.settle();
            self.life.take().expect("the store is open").close();
            self.forget_asks();
            is_whole = self.trouble == Trouble::default() && !self.disk.has_ended();
            if is_whole && self.random.below(3) == 0 {
                self.flip_a_bit();
            }
        }
        let end = if self.disk.has_ended() && !is_whole {
            match end {
                End::PowerCut(fate) => End::PowerCut(fate),
                End::Closed | End::Killed => End::PowerCut(None),
            }
        } else {
            end
        };
        self.life = None;
        self.forget_asks();
        let was_os = self.options.durability == Durability::Os;
        self.end_disk(end);
        self.trouble = Trouble::default();
        self.disk.set_capacity(None);
        let mut loses = was_os && matches!(end, End::PowerCut(_));
        if self.random.below(4) == 0 && !loses {
            self.now_ms -= self.random.below(3_777);
            if !is_whole {
                self.model.forget_loose_times();
            }
        } else {
            self.now_ms += 5_000;
        }
        loses |= self.fail_to_open() && was_os;
        self.open();
        self.check_recovered(loses);
    }

    /// Maybe tries to open the store where something is in the way. Says whether the power was cut.
    fn fail_to_open(&mut self) -> bool {
        let at = 1 + self.random.below(20);
        let operations = [
            Operation::Read,
            Operation::Write,
            Operation::Sync,
            Operation::Open,
        ];
        let fault = match self.random.below(8) {
            0 => Fault::PowerCut {
                at,
                moment: Moment::Midway,
            },
            1 => Fault::Error {
                operation: operations[self.random.below(4) as usize],
                name_prefix: "",
                at,
                lasting: Lasting::Once,
            },
            2 => {
                self.disk.set_capacity(Some(self.disk.used_bytes()));
                Fault::ShortReads { percent: 20 }
            }
            _ => return false,
        };
        self.disk.plan(fault);
        if let Err(error) = Life::open(&self.disk, self.options, self.boot, false) {
            assert!(error.to_string().contains("simulated/"), "{error}");
            self.counts.failed_openings += 1;
        }
        let end = if self.disk.has_ended() {
            End::PowerCut(None)
        } else {
            End::Killed
        };
        self.end_disk(end);
        self.disk.set_capacity(None);
        end != End::Killed
    }

    fn end_disk(&mut self, end: End) {
        let seed = self.random.next();
        self.disk = match end {
            End::Closed | End::Killed => self.disk.after_kill(),
            End::PowerCut(fate) => {
                self.boot += 1;
                self.counts.power_cuts += 1;
                match fate {
                    Some(fate) => self.disk.after_power_cut_with(fate, seed),
                    None => self.disk.after_power_cut(seed),
                }
            }
        };
    }

    /// The groups are what they were after the last command that the log has.
    fn check_recovered(&mut self, loses: bool) {
        let inner = self.life().inner().clone();
        let end_lsn = inner.queue.durable_lsn();
        if loses {
            self.find_recovered(end_lsn);
        } else {
            let acked_lsn = self.model.acked_lsn;
            assert!(
                acked_lsn <= end_lsn,
                "acknowledged up to {acked_lsn}, but the log ends at {end_lsn}"
            );
            self.model.cut(end_lsn);
            self.model.note_visible();
        }
        for (key, versions) in &self.model.groups {
            let last = versions.last().expect("no empty ones are kept");
            let epoch = self.life.as_ref().and_then(|life| life.epoch(key.as_ref()));
            match epoch {
                Some(epoch) => assert_eq!(epoch, last.epoch, "{key:?}"),
                None => assert!(last.group.is_forgettable(), "{key:?} is not there"),
            }
        }
        self.check_listing();
        if self.random.below(3) == 0 {
            self.check_all();
        }
    }

    /// After a loss that was announced: each group is as it was at some time, under another name.
    fn find_recovered(&mut self, end_lsn: u64) {
        self.model.forget_times();
        self.model.merge_maybe();
        let keys: Vec<_> = self.model.groups.keys().cloned().collect();
        for key in keys {
            let Some(epoch) = self.life().epoch(key.as_ref()) else {
                let versions = self.model.groups.remove(&key).expect("it is there");
                let mut all = versions.iter();
                let is_lost = all.all(|version| end_lsn < version.end_lsn);
                let was_empty = versions
                    .iter()
                    .any(|version| version.group.is_forgettable());
                assert!(is_lost || was_empty, "{key:?} is not there");
                continue;
            };
            let (position, items) = self.state_of(&key);
            let mut versions = self.model.groups.remove(&key).expect("it is there");
            let count = versions.len();
            while let Some(last) = versions.last() {
                let is_it = last.group.seq() == position
                    && self.model.check_items(&key, Some(last), &items).is_ok();
                if is_it {
                    break;
                }
                assert!(
                    end_lsn < last.end_lsn,
                    "{key:?} lacks what the log has, up to {}: it is at {position} with {items:?}",
                    last.end_lsn
                );
                versions.pop();
            }
            let Some(last) = versions.last() else {
                assert_eq!((position, items.len()), (0, 0), "{key:?}");
                continue;
            };
            let mut version = last.clone();
            if version.epoch == epoch {
                // The end was orderly after all.
                assert_eq!(
                    versions.len(),
                    count,
                    "{key:?} lost changes under the same name"
                );
                self.model.groups.insert(key, versions);
                continue;
            }
            version.epoch = epoch;
            version.end_lsn = version.end_lsn.min(end_lsn);
            version.change = None;
            self.model.groups.insert(key, vec![version]);
        }
        self.model.acked_lsn = end_lsn;
    }

    fn state_of(&mut self, key: &GroupKey) -> (u64, Vec<(Arc<str>, Item)>) {
        let (sender, receiver) = channel();
        let done = Box::new(move |answer| drop(sender.send(answer)));
        let now_ms = self.now_ms;
        self.life().store.snapshot(key.as_ref(), None, now_ms, done);
        let snapshot = receiver.recv().expect("an answer").expect("success");
        (snapshot.seq, snapshot.items)
    }

    /// Everything is as it should be, and may be changed.
    pub(super) fn check_all(&mut self) {
        self.settle();
        let keys: Vec<_> = self.model.groups.keys().cloned().collect();
        for key in keys {
            self.list(&key);
            self.snapshot(&key);
        }
        self.settle();
        self.check_listing();
    }

    /// Damage is found, wherever it is, or does no harm.
    fn flip_a_bit(&mut self) {
        let damaged = self.disk.after_kill();
        let files = damaged.files();
        let files: Vec<_> = files.iter().filter(|(_, bytes)| 0 < *bytes).collect();
        let (name, bytes) = files[self.random.below(files.len() as u64) as usize];
        // What is in use is more often at the beginning.
        let span = if self.random.below(2) == 0 {
            *bytes
        } else {
            (*bytes).min(2_000)
        };
        let offset = self.random.below(span);
        let bit = self.random.below(8) as u8;
        damaged.flip_bit(name, offset, bit);
        let told = format!("bit {bit} of byte {offset} of {name}, which has {bytes}");
        let life = match Life::open(&damaged, self.options, self.boot, false) {
            Ok(life) => life,
            Err(error) => {
                assert!(error.to_string().contains(name.as_str()), "{told}: {error}");
                self.counts.flips_refused += 1;
                return;
            }
        };
        let mut is_found = false;
        for (key, versions) in &self.model.groups {
            let epoch = life.epoch(key.as_ref());
            let version = versions
                .last()
                .filter(|last| Some(&last.epoch) == epoch.as_ref());
            let (sender, receiver) = channel();
            let done = Box::new(move |answer| drop(sender.send(answer)));
            life.store.list(key.as_ref(), done);
            match receiver.recv().expect("an answer") {
                Ok(items) => {
                    let checked = self.model.check_items(key, version, &items);
                    checked.unwrap_or_else(|wrong| panic!("{told}: {wrong}"));
                }
                Err(error) => {
                    assert_eq!(error.cause, StoreErrorCause::Damaged, "{told}: {error}");
                    assert!(error.message.contains(name.as_str()), "{told}: {error}");
                    is_found = true;
                }
            }
        }
        if is_found {
            self.counts.flips_refused += 1;
        } else {
            self.counts.flips_harmless += 1;
        }
    }
}
