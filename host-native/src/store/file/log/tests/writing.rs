//! What is written is read again.

use std::sync::Arc;

use super::super::super::disk::simulated::{Fault, Lasting, Operation};
use super::*;

#[test]
fn records_come_back_at_their_places() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    let mut written = commit(&mut log, &[b"one", b"", b"three"]);
    written.extend(commit(&mut log, &[&[7; 1000]]));
    assert_eq!(log.end_lsn(), 3 + 5 + 1000 + 4 * 8);
    let reader = log.reader();
    for (at, record) in &written {
        assert_eq!(&reader.read(*at).expect("reads"), record);
    }
    drop(log);
    let (log, opened, records) = open(&disk.after_kill()).expect("opens");
    assert_eq!(records, written);
    assert_eq!((opened.records, opened.bytes), (4, 1008));
    assert_eq!(
        (opened.cut, opened.was_clean, opened.floor_ms),
        (None, false, 1_000)
    );
    let reader = log.reader();
    for (at, record) in &written {
        assert_eq!(&reader.read(*at).expect("reads"), record);
    }
}

#[test]
fn segments_follow_each_other_and_are_released() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    let mut written = Vec::new();
    for number in 0..60_u8 {
        written.extend(commit(&mut log, &[&[number; 700], &[number; 300]]));
        if log.space().needs_spare() {
            log.space().make_spare().expect("makes one");
        }
    }
    // Much larger than a segment.
    written.extend(commit(&mut log, &[&[9; 100_000]]));
    written.extend(commit(&mut log, &[&[10; 6000]]));
    let space = log.space();
    let sealed = space.sealed_segments();
    assert!(sealed.len() > 4, "{sealed:?}");
    assert_eq!(sealed[0].file_bytes, 8 << 10);
    assert_eq!(sealed[1].file_bytes, 16 << 10);
    assert!(sealed.iter().any(|segment| segment.file_bytes > 100_000));
    assert!(sealed.is_sorted_by(|a, b| a.end_lsn == b.base_lsn && a.number + 1 == b.number));

    let reader = log.reader();
    let mut folded = Vec::new();
    let mut buffer = Vec::new();
    for segment in &sealed {
        reader
            .read_segment(segment.number, &mut buffer, &mut |at, record| {
                folded.push((at, record.to_vec()));
                Ok(())
            })
            .expect("reads");
    }
    assert_eq!(folded, written[..folded.len()]);
    let (_, _, records) = open(&disk.after_kill()).expect("opens");
    assert_eq!(records, written);

    let disk = disk.after_kill();
    let (log, _, _) = open(&disk).expect("opens");
    let space = log.space();
    let upto = sealed[3].end_lsn;
    let start = space.start_for(upto);
    assert_eq!(start, (sealed[4].number, sealed[4].base_lsn));
    let live = space.live_bytes();
    space.release_up_to(upto).expect("releases");
    assert_eq!(space.live_bytes(), live - upto);
    assert!(matches!(
        log.reader().read(written[0].0),
        Err(LogError::Gone { lsn: 0 })
    ));
    let kept: Vec<_> = disk.files().into_iter().map(|(name, _)| name).collect();
    assert!(!kept.contains(&"log-0000000001".to_owned()), "{kept:?}");
    assert_eq!(
        kept.iter()
            .filter(|name| name.starts_with("spare-"))
            .count(),
        2,
        "{kept:?}"
    );
    let disk = disk.after_kill();
    let (_, opened, records) = open_from(&disk, start).expect("opens");
    assert_eq!(records.first().map(|record| record.0.lsn), Some(upto));
    assert_eq!(opened.strange, Vec::<String>::new());
}

#[test]
fn a_clean_end_is_told_and_a_seal_is_not_repeated() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    commit(&mut log, &[b"one"]);
    let before = disk.count(Operation::Write);
    log.seal(5_000, false).expect("seals");
    log.seal(5_000, false).expect("seals");
    assert_eq!(disk.count(Operation::Write), before + 1);
    log.seal(6_000, true).expect("seals");
    log.seal(6_000, true).expect("seals");
    assert_eq!(disk.count(Operation::Write), before + 2);
    let disk = disk.after_power_cut(1);
    let (mut log, opened, _) = open(&disk).expect("opens");
    assert!(opened.was_clean);
    assert_eq!(opened.floor_ms, 6_000);
    commit(&mut log, &[b"two"]);
    let (_, opened, _) = open(&disk.after_kill()).expect("opens");
    assert!(!opened.was_clean);
    assert_eq!(opened.floor_ms, 6_000, "never less than it was");
}

#[test]
fn the_floor_is_kept_where_there_are_only_segments_without_batches() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    let mut batch = Batch::new(0);
    batch.push(|buffer| buffer.resize(3_000, 1));
    log.write(&mut batch, 77_000).expect("writes");
    // The next segment is begun, and its batch does not arrive.
    disk.plan(Fault::Error {
        operation: Operation::Write,
        name_prefix: "log-0000000002",
        at: 1,
        lasting: Lasting::FromThenOn,
    });
    batch.restart(log.end_lsn());
    batch.push(|buffer| buffer.resize(3_000, 2));
    assert!(matches!(
        log.write(&mut batch, 77_001),
        Err(WriteError::Failed { .. })
    ));
    let start = log.space().start_for(log.end_lsn());
    assert_eq!(start.0, 2);
    let (_, opened, records) = open_from(&disk.after_power_cut(1), start).expect("opens");
    assert_eq!(records, []);
    assert_eq!(opened.floor_ms, 77_001);
}

#[test]
fn without_room_for_a_segment_nothing_is_written_and_a_later_try_succeeds() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    let mut written = commit(&mut log, &[&[1; 3000]]);
    disk.set_capacity(Some(disk.used_bytes() + 4096));
    for _ in 0..3 {
        let error = write(&mut log, &[&[2; 3000]]).expect_err("no room");
        assert!(matches!(error, WriteError::NoSpace { .. }), "{error}");
    }
    // What fits the present segment still goes.
    written.extend(commit(&mut log, &[&[3; 100]]));
    disk.set_capacity(None);
    written.extend(commit(&mut log, &[&[4; 3000]]));
    let (_, _, records) = open(&disk.after_power_cut(3)).expect("opens");
    assert_eq!(records, written);
}

#[test]
fn after_a_failed_write_or_sync_nothing_more_is_taken() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = SimDisk::new(1);
        let mut log = create(&disk);
        commit(&mut log, &[b"one"]);
        disk.plan(Fault::Error {
            operation,
            name_prefix: "log-",
            at: 1,
            lasting: Lasting::Once,
        });
        let error = write(&mut log, &[b"two"])
            .and_then(|_| log.sync())
            .expect_err("it fails");
        assert!(
            error.to_string().contains("simulated/log-0000000001"),
            "{error}"
        );
        for _ in 0..2 {
            assert!(matches!(
                write(&mut log, &[b"three"]),
                Err(WriteError::Failed { .. })
            ));
            assert!(matches!(log.sync(), Err(WriteError::Failed { .. })));
            assert!(matches!(log.seal(1, true), Err(WriteError::Failed { .. })));
        }
    }
}

#[test]
fn a_batch_from_another_place_is_refused() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    let mut batch = Batch::new(8);
    batch.push(|buffer| buffer.push(1));
    let error = log.write(&mut batch, 1).expect_err("there is a hole");
    assert!(
        error
            .to_string()
            .contains("begins at lsn 8, but the log ends at 0"),
        "{error}"
    );
}

#[test]
fn left_to_the_system_nothing_is_claimed_durable_that_was_not_synced() {
    let disk = SimDisk::new(1);
    let os = LogOptions {
        os: true,
        ..options()
    };
    let mut log = Log::create(Arc::new(disk.clone()), STORE, os).expect("creates");
    for _ in 0..5 {
        write(&mut log, &[b"a record"]).expect("writes");
        log.seal(1_000, false).expect("seals");
    }
    assert_eq!(log.durable_lsn(), 0);
    // So nothing that is missing after a power cut is damage.
    for seed in 0..200 {
        let (_, _, records) = open(&disk.after_power_cut(seed)).expect("opens");
        assert!(records.len() <= 5);
    }
    let disk = disk.after_kill();
    let (mut log, _, _) = open(&disk).expect("opens");
    log.seal(1_000, true).expect("seals");
    let (_, opened, records) = open(&disk.after_power_cut(1)).expect("opens");
    assert_eq!((records.len(), opened.was_clean), (5, true));
}

#[test]
fn a_real_directory_holds_a_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = Arc::new(super::super::super::RealDisk::new(dir.path()));
    let mut log = Log::create(disk.clone(), STORE, options()).expect("creates");
    let mut written = Vec::new();
    for number in 0..30_u8 {
        written.extend(commit(&mut log, &[&[number; 1500]]));
    }
    drop(log);
    let mut records = Vec::new();
    let (_, opened) = Log::open(disk, STORE, 0, 1, options(), &mut |at, record| {
        records.push((at, record.to_vec()));
        Ok(())
    })
    .expect("opens");
    assert_eq!(records, written);
    assert_eq!(opened.cut, None);
}
