//! Power cuts and failures at every operation: what was synced is there, in order, and nothing is invented.

use std::sync::Arc;

use super::super::super::disk::simulated::{Fate, Fault, Lasting, Moment, Operation};
use super::super::super::test_seeds::few_or_many;
use super::*;

/// A small generator, so that a seed tells all.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What a store would know, kept apart from the disk.
#[derive(Default)]
struct Known {
    written: Vec<Record>,
    /// How many of them are acknowledged.
    acked: usize,
    floor_acked: u64,
    /// What the manifest says.
    start: (u64, u64),
    created: bool,
    records_ever: u64,
    floor: u64,
}

impl Known {
    /// Works until the disk ends or fails, or so many steps are done. Says whether all went well.
    fn work(&mut self, log: &mut Log, dice: &mut Dice, steps: u64) -> bool {
        for _ in 0..steps {
            let went_well = match dice.below(10) {
                0..=5 => self.write(log, dice),
                6 => log.seal(self.floor, false).is_ok(),
                7 => {
                    // Its failure does not concern the log.
                    let _ = log.space().make_spare();
                    true
                }
                8 => {
                    let folded = log.space().sealed_segments();
                    if let Some(last) = folded.last() {
                        self.start = log.space().start_for(last.end_lsn);
                        let _ = log.space().release_up_to(last.end_lsn);
                    }
                    true
                }
                _ => log.seal(self.floor, true).map(|()| self.ack()).is_ok(),
            };
            if !went_well {
                return false;
            }
        }
        true
    }

    fn write(&mut self, log: &mut Log, dice: &mut Dice) -> bool {
        let mut batch = Batch::new(log.end_lsn());
        let mut records = Vec::new();
        for _ in 0..=dice.below(3) {
            let len = match dice.below(12) {
                0 => 20_000,
                1..=4 => dice.below(2_000),
                _ => dice.below(60),
            };
            self.records_ever += 1;
            let mut record = self.records_ever.to_le_bytes().to_vec();
            record.resize_with(8 + len as usize, || dice.below(256) as u8);
            let at = batch.push(|buffer| buffer.extend_from_slice(&record));
            records.push((at, record));
        }
        self.floor += 1;
        // From here on it may be on the disk, whatever the log says.
        self.written.extend(records);
        if log.write(&mut batch, self.floor).is_err() {
            return false;
        }
        if dice.below(4) == 0 {
            return true;
        }
        log.sync().map(|()| self.ack()).is_ok()
    }

    fn ack(&mut self) {
        self.acked = self.written.len();
        self.floor_acked = self.floor;
    }

    /// Opens the log and checks what is there.
    fn reopen(&mut self, disk: &SimDisk, told: &str) -> Log {
        if !self.created {
            let log = Log::create(Arc::new(disk.clone()), STORE, options())
                .unwrap_or_else(|error| panic!("{told}: {error}"));
            self.created = true;
            self.start = (Log::FIRST_SEGMENT, 0);
            return log;
        }
        let (log, opened, records) =
            open_from(disk, self.start).unwrap_or_else(|error| panic!("{told}: {error}"));
        let first = self
            .written
            .partition_point(|(at, _)| at.lsn < self.start.1);
        let count = first + records.len();
        assert!(
            count >= self.acked,
            "{told}: {count} of {} acknowledged",
            self.acked
        );
        assert!(
            records[..] == self.written[first..count],
            "{told}: other records"
        );
        assert!(
            opened.floor_ms >= self.floor_acked,
            "{told}: an earlier floor"
        );
        let reader = log.reader();
        for (at, record) in &records {
            assert!(reader.read(*at).expect("reads") == *record, "{told}");
        }
        self.written.truncate(count);
        self.acked = count;
        self.floor_acked = opened.floor_ms;
        self.floor = self.floor.max(opened.floor_ms);
        log
    }
}

#[test]
fn a_power_cut_at_every_operation() {
    for seed in 0..few_or_many(1, 4) {
        let whole = SimDisk::new(seed);
        let mut known = Known::default();
        let mut log = known.reopen(&whole, "at first");
        known.work(&mut log, &mut Dice(seed), 60);
        for at in 1..=whole.changes() {
            for moment in [Moment::Before, Moment::Midway, Moment::After] {
                let disk = SimDisk::new(seed);
                disk.plan(Fault::PowerCut { at, moment });
                let mut known = Known::default();
                if let Ok(mut log) = Log::create(Arc::new(disk.clone()), STORE, options()) {
                    known.created = true;
                    known.start = (Log::FIRST_SEGMENT, 0);
                    known.work(&mut log, &mut Dice(seed), 60);
                }
                for fate in Fate::ALL {
                    let told = format!("seed {seed}, power cut {moment:?} {at}, {fate:?}");
                    let left = disk.after_power_cut_with(fate, at);
                    let mut known = known.copy();
                    known.reopen(&left, &told);
                }
            }
        }
    }
}

impl Known {
    fn copy(&self) -> Self {
        Self {
            written: self.written.clone(),
            ..*self
        }
    }
}

#[test]
fn many_lives() {
    for seed in 0..few_or_many(60, 1_500) {
        let mut dice = Dice(seed);
        let mut disk = SimDisk::new(seed);
        let mut known = Known::default();
        for life in 0..6 {
            let told = format!("seed {seed}, life {life}");
            let mut log = known.reopen(&disk, &told);
            disk.plan(Fault::ShortWrites { percent: 10 });
            disk.plan(Fault::ShortReads { percent: 10 });
            if dice.below(4) == 0 {
                let operation =
                    [Operation::Write, Operation::Sync, Operation::Rename][dice.below(3) as usize];
                disk.plan(Fault::Error {
                    operation,
                    name_prefix: "",
                    at: 1 + dice.below(60),
                    lasting: Lasting::Once,
                });
            }
            let moment = [Moment::Before, Moment::Midway, Moment::After][dice.below(3) as usize];
            let at = 1 + dice.below(120);
            disk.plan(Fault::PowerCut { at, moment });
            known.work(&mut log, &mut dice, 60);
            disk = if dice.below(3) == 0 && !disk.has_ended() {
                disk.after_kill()
            } else {
                disk.after_power_cut(dice.below(u64::MAX))
            };
        }
    }
}

#[test]
fn a_power_cut_while_the_log_is_opened() {
    for seed in 0..few_or_many(4, 30) {
        let disk = SimDisk::new(seed);
        let mut known = Known::default();
        let mut log = known.reopen(&disk, "at first");
        let at = 20 + seed * 3;
        disk.plan(Fault::PowerCut {
            at,
            moment: Moment::Midway,
        });
        known.work(&mut log, &mut Dice(seed), 200);
        let left = || disk.after_power_cut_with(Fate::Subset, seed);
        let whole = left();
        known.copy().reopen(&whole, "whole");
        for at in 1..=whole.changes() {
            let again = left();
            again.plan(Fault::PowerCut {
                at,
                moment: Moment::Midway,
            });
            assert!(open_from(&again, known.start).is_err());
            for fate in Fate::ALL {
                let told = format!("seed {seed}, opening cut at {at}, {fate:?}");
                known
                    .copy()
                    .reopen(&again.after_power_cut_with(fate, at), &told);
            }
        }
    }
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_not_believed_durable() {
    // The disk loses what a failed sync was to write, but a restarted process still sees it.
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let mut log = create(&disk);
        let mut written = commit(&mut log, &[b"one"]);
        disk.plan(Fault::Error {
            operation: Operation::Sync,
            name_prefix: "log-",
            at: 1,
            lasting: Lasting::Once,
        });
        written.extend(write(&mut log, &[b"two"]).expect("writes"));
        log.sync().expect_err("it fails");
        let disk = disk.after_kill();
        let (mut log, _, records) = open(&disk).expect("opens");
        assert!(records.len() == 1 || records == written);
        written.truncate(records.len());
        written.extend(commit(&mut log, &[b"three"]));
        let (_, _, records) = open(&disk.after_power_cut(seed)).expect("opens");
        assert_eq!(records, written);
    }
}

#[test]
fn a_segment_whose_name_may_not_be_lasting_is_made_so_at_the_opening() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    let mut written = commit(&mut log, &[&[1; 3000]]);
    disk.plan(Fault::Error {
        operation: Operation::SyncNames,
        name_prefix: "",
        at: 1,
        lasting: Lasting::Once,
    });
    write(&mut log, &[&[2; 3000]]).expect_err("the name is not synced");
    let disk = disk.after_kill();
    let (mut log, _, _) = open(&disk).expect("opens");
    written.extend(commit(&mut log, &[b"in the second segment"]));
    assert_eq!(log.space().sealed_segments().len(), 1);
    let (_, _, records) = open(&disk.after_power_cut_with(Fate::Nothing, 1)).expect("opens");
    assert_eq!(records, written);
}
