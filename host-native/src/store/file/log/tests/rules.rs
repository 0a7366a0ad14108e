//! The rules for opening, one by one: see the module of the log.

use std::sync::Arc;

use super::super::super::Disk as _;
use super::super::super::disk::simulated::{Fate, Operation};
use super::super::format::{FIRST_BATCH, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::*;

/// Headers of 56 bytes, and a record's frame of 8.
const OF_ONE: u64 = 56 + 8;

fn message(disk: &SimDisk) -> String {
    let Err(error) = open(&disk.after_kill()) else {
        panic!("it opens");
    };
    error.to_string()
}

/// Two segments, the first sealed by the second, and the records in both.
fn two_segments() -> (SimDisk, Vec<Record>) {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    let mut written = commit(&mut log, &[&[1; 3000]]);
    written.extend(commit(&mut log, &[&[2; 3000]]));
    assert_eq!(log.space().sealed_segments().len(), 1);
    (disk, written)
}

#[test]
fn a_torn_tail_is_cut_once_and_writing_goes_on_there() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    let mut written = commit(&mut log, &[b"kept"]);
    // Neither is synced; of the first the middle is lost.
    write(&mut log, &[&[1; 1000]]).expect("writes");
    write(&mut log, &[b"behind"]).expect("writes");
    let disk = disk.after_power_cut_with(Fate::Everything, 1);
    let cut = FIRST_BATCH + OF_ONE + 8;
    disk.corrupt_sector("log-0000000001", cut + 600);
    let (mut log, opened, records) = open(&disk).expect("opens");
    assert_eq!(records, written);
    let told = opened.cut.expect("a cut");
    assert_eq!(
        (told.file.as_str(), told.offset),
        ("simulated/log-0000000001", cut)
    );
    assert_eq!(told.bytes, 56 + 8 + 1000 + OF_ONE + 6);
    assert!(told.why.contains("its checksum is wrong"), "{}", told.why);
    // Exactly what was cut off, so that what was behind would continue it.
    written.extend(commit(&mut log, &[&[1; 1000]]));
    let (_, opened, records) = open(&disk.after_kill()).expect("opens");
    assert_eq!(records, written);
    assert_eq!(opened.cut, None);
}

#[test]
fn a_batch_that_a_later_one_calls_durable_must_be_there() {
    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    commit(&mut log, &[b"one!"]);
    commit(&mut log, &[b"two"]);
    log.seal(1_000, false).expect("seals");
    disk.flip_bit("log-0000000001", FIRST_BATCH + 72 + 60, 0);
    let told = message(&disk);
    for part in [
        "simulated/log-0000000001 is damaged at byte 4168: a batch at lsn 12 was expected",
        "the one at byte 4240 says that all up to lsn 23 was durable, but its checksum is wrong",
        "128 bytes follow",
        "`iii-stream verify --repair simulated`",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn the_end_of_a_segment_must_be_where_the_next_one_begins() {
    let (disk, _) = two_segments();
    disk.flip_bit("log-0000000001", FIRST_BATCH + 100, 0);
    let told = message(&disk);
    assert!(
        told.contains("log-0000000001 is damaged at byte 4096: a batch at lsn 0 was expected, since log-0000000002 begins at lsn 3008"),
        "{told}"
    );
}

#[test]
fn a_missing_segment_is_named() {
    for (removed, start) in [(1, (1, 0)), (2, (1, 0))] {
        let (disk, _) = two_segments();
        let mut log = open(&disk).expect("opens").0;
        for _ in 0..5 {
            commit(&mut log, &[&[3; 4000]]);
        }
        disk.remove(&format!("log-000000000{removed}"))
            .expect("removes");
        let Err(error) = open_from(&disk, start) else {
            panic!("it opens");
        };
        assert!(matches!(error, LogError::Missing { .. }), "{error}");
        let told = error.to_string();
        assert!(
            told.contains(&format!("simulated/log-000000000{removed} is missing")),
            "{told}"
        );
    }
    let error = open(&SimDisk::new(1)).err().expect("there is nothing");
    assert!(matches!(error, LogError::Missing { .. }), "{error}");
}

#[test]
fn the_end_must_be_at_or_after_what_was_asked_for() {
    let (disk, written) = two_segments();
    let end = written[1].0.end_lsn();
    assert!(open_from(&disk.after_kill(), (2, end)).is_ok());
    let error = open_from(&disk.after_kill(), (2, end + 1))
        .err()
        .expect("too short");
    assert!(
        error
            .to_string()
            .contains("records up to lsn 6017 were expected"),
        "{error}"
    );
    let error = open_from(&disk.after_kill(), (2, 3007))
        .err()
        .expect("begins later");
    assert!(
        error
            .to_string()
            .contains("from lsn 3007 or before was expected"),
        "{error}"
    );
}

#[test]
fn only_records_that_were_asked_for_are_handed_over() {
    let (disk, written) = two_segments();
    let (log, opened, records) = open_from(&disk, (1, 3008)).expect("opens");
    assert_eq!(records, written[1..]);
    assert_eq!(opened.records, 1);
    assert_eq!(
        log.reader().read(written[0].0).expect("reads"),
        written[0].1
    );
}

#[test]
fn a_newer_format_and_another_store_are_told() {
    let (disk, _) = two_segments();
    let content = disk.bytes_of("log-0000000002").expect("the file");
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes.copy_from_slice(&content[..SEGMENT_HEADER_BYTES]);
    let header = SegmentHeader::decode(&bytes).expect("a header");
    overwrite(&disk, "log-0000000002", 0, &header.encode_as(7));
    let told = message(&disk);
    assert!(
        told.contains(
            "simulated/log-0000000002 has format version 7; this release reads up to version 1"
        ),
        "{told}"
    );

    let disk = disk.after_kill();
    let other = SegmentHeader {
        store_id: [9; 16],
        ..header
    };
    overwrite(&disk, "log-0000000002", 0, &other.encode());
    assert!(matches!(open(&disk), Err(LogError::Foreign { .. })));
}

#[test]
fn files_of_other_names_are_left_alone() {
    let (disk, written) = two_segments();
    for name in [
        "log-1",
        "log-00000000x1",
        "spare-",
        "manifest-0000000001",
        "a.stream",
    ] {
        disk.create(name).expect("creates");
    }
    let (_, opened, records) = open(&disk).expect("opens");
    assert_eq!(records, written);
    assert_eq!(
        opened.strange,
        [
            "simulated/log-00000000x1",
            "simulated/log-1",
            "simulated/spare-"
        ]
    );
    assert!(disk.open("log-1").is_ok());
}

#[test]
fn spares_of_the_right_size_are_kept_and_used() {
    let (disk, _) = two_segments();
    // Left over: one whole, one that was not finished.
    for (name, bytes) in [("spare-0000000050", 16 << 10), ("spare-0000000051", 4096)] {
        disk.create(name)
            .expect("creates")
            .set_len(bytes)
            .expect("lengthens");
    }
    let (mut log, _, _) = open(&disk).expect("opens");
    let names =
        |disk: &SimDisk| -> Vec<_> { disk.files().into_iter().map(|(name, _)| name).collect() };
    assert!(!names(&disk).contains(&"spare-0000000051".to_owned()));
    assert!(!log.space().needs_spare());
    let creates = disk.count(Operation::Create);
    for _ in 0..3 {
        commit(&mut log, &[&[3; 5000]]);
    }
    assert_eq!(log.space().sealed_segments().len(), 2);
    assert_eq!(disk.count(Operation::Create), creates);
    assert!(!names(&disk).iter().any(|name| name.starts_with("spare-")));
}

#[test]
fn users_data_cannot_pose_as_a_batch() {
    // A copy of a whole log in a record, seals included, that says a lot was durable.
    let other = SimDisk::new(1);
    let mut log = Log::create(Arc::new(other.clone()), [1; 16], options()).expect("creates");
    commit(&mut log, &[&[1; 1500]]);
    log.seal(1, true).expect("seals");
    let content = other.bytes_of("log-0000000001").expect("the file");
    let forged = &content[FIRST_BATCH as usize..][..2000];

    let disk = SimDisk::new(1);
    let mut log = create(&disk);
    let written = commit(&mut log, &[b"12345678"]);
    write(&mut log, &[forged]).expect("writes");
    disk.flip_bit("log-0000000001", FIRST_BATCH + 72 + 56 + 3000 - 1000, 0);
    let (_, opened, records) = open(&disk.after_kill()).expect("opens");
    assert_eq!(records, written);
    assert!(opened.cut.is_some());
}

#[test]
fn a_log_with_records_is_not_made_anew() {
    let disk = SimDisk::new(1);
    drop(create(&disk));
    // Nothing was written: the manifest may not have come to be.
    let disk = disk.after_kill();
    commit(&mut create(&disk), &[b"one"]);
    let disk = disk.after_kill();
    let error = Log::create(Arc::new(disk), STORE, options())
        .err()
        .expect("it is there");
    assert!(matches!(error, LogError::AlreadyThere { .. }), "{error}");
}

#[test]
fn a_record_that_cannot_be_understood_is_named() {
    let (disk, _) = two_segments();
    let opened = Log::open(
        Arc::new(disk),
        STORE,
        0,
        1,
        options(),
        &mut |at, _| match at.lsn {
            0 => Ok(()),
            _ => Err("kind 9 is unknown".into()),
        },
    );
    let error = opened.err().expect("it is not understood").to_string();
    assert_eq!(
        error,
        "simulated/log-0000000002: the record at lsn 3008, of 3000 bytes, cannot be understood: kind 9 is unknown"
    );
}

#[test]
fn a_record_read_alone_is_checked() {
    let (disk, written) = two_segments();
    let (log, _, _) = open(&disk).expect("opens");
    disk.flip_bit("log-0000000001", FIRST_BATCH + OF_ONE + 5, 0);
    let error = log
        .reader()
        .read(written[0].0)
        .expect_err("it is damaged")
        .to_string();
    assert!(
        error
            .contains("log-0000000001 is damaged at byte 4152: the record at lsn 0, of 3000 bytes"),
        "{error}"
    );
    let mut buffer = Vec::new();
    let error = log
        .reader()
        .read_segment(1, &mut buffer, &mut |_, _| Ok(()))
        .expect_err("also");
    assert!(
        error.to_string().contains("damaged at byte 4096"),
        "{error}"
    );
    let beyond = RecordAt {
        lsn: 3008,
        len: 3001,
    };
    assert!(matches!(
        log.reader().read(beyond),
        Err(LogError::Gone { lsn: 3008 })
    ));
}
