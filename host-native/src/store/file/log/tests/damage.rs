//! Nothing that was durable goes without a word.

use super::super::super::Disk as _;
use super::super::{repair, scan_report};
use super::*;

/// A log of three segments with a seal at its end.
fn sealed_log() -> (SimDisk, Vec<Record>) {
    let disk = SimDisk::new(1);
    let mut log = Log::create(
        Arc::new(disk.clone()),
        STORE,
        LogOptions {
            segment_bytes: 8 << 10,
            ..options()
        },
    )
    .expect("creates");
    let mut written = commit(&mut log, &[b"one", b"two"]);
    written.extend(commit(&mut log, &[&[3; 2100]]));
    written.extend(commit(&mut log, &[&[4; 2000], b""]));
    written.extend(commit(&mut log, &[&[5; 2500]]));
    written.extend(commit(&mut log, &[b"six"]));
    assert_eq!(log.space().sealed_segments().len(), 2);
    log.seal(2_000, true).expect("seals");
    (disk, written)
}

fn assert_all_or_damaged(disk: &SimDisk, written: &[Record], told: &str) -> bool {
    match open(disk) {
        Ok((_, _, records)) => {
            assert!(records == written, "{told}: records are missing");
            false
        }
        Err(LogError::Damaged { file, .. }) => {
            assert!(file.starts_with("simulated/log-"), "{told}: {file}");
            true
        }
        Err(error) => panic!("{told}: {error}"),
    }
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let (disk, written) = sealed_log();
    for (name, bytes) in disk.files() {
        let content = disk.bytes_of(&name).expect("it is there");
        let mut damaged = 0;
        for offset in 0..bytes {
            // Bits of the long runs of zeros are alike.
            let alike = offset > 100
                && content[offset as usize - 64..][..65]
                    .iter()
                    .all(|byte| *byte == 0);
            for bit in 0..8 {
                if alike && u64::from(bit) != offset % 8 {
                    continue;
                }
                let disk = disk.after_kill();
                disk.flip_bit(&name, offset, bit);
                let told = format!("{name}, byte {offset}, bit {bit}");
                damaged += u32::from(assert_all_or_damaged(&disk, &written, &told));
            }
        }
        assert!(damaged > 64 * 8, "{name}: {damaged}");
    }
}

#[test]
fn every_shortened_file_is_found() {
    let (disk, written) = sealed_log();
    for (name, bytes) in disk.files() {
        // Between header and batches all places are alike.
        for len in (0..bytes).filter(|len| !(128..4096).contains(len) || len % 64 == 0) {
            let disk = disk.after_kill();
            truncate(&disk, &name, len);
            let told = format!("{name}, cut to {len}");
            assert!(assert_all_or_damaged(&disk, &written, &told), "{told}");
        }
    }
}

#[test]
fn every_place_can_be_repaired() {
    let (disk, written) = sealed_log();
    for (name, bytes) in disk.files() {
        for offset in (0..bytes).step_by(8) {
            let flipped = disk.after_kill();
            flipped.flip_bit(&name, offset, 3);
            let told = format!("{name}, byte {offset}");
            let is_damaged = open(&flipped.after_kill()).is_err();
            let disk = flipped.after_kill();
            let report = scan_report(&disk, &STORE, 1).expect("reports");
            assert_eq!(
                !report.places.is_empty(),
                is_damaged,
                "{told}: {:?}",
                report.places
            );
            let shared: Arc<dyn super::super::super::Disk> = Arc::new(disk.clone());
            let repaired = repair(&shared, &STORE, 0, 1, options()).expect("repairs");
            assert_eq!(repaired.is_some(), is_damaged, "{told}");
            let disk = disk.after_power_cut(offset);
            let (mut log, opened, records) =
                open(&disk).unwrap_or_else(|error| panic!("{told}: {error}"));
            assert!(records[..] == written[..records.len()], "{told}");
            // A damaged seal at the very end is a torn tail: nothing is behind it.
            assert!(!is_damaged || opened.cut.is_none(), "{told}");
            if let Some(repaired) = repaired {
                assert_eq!(repaired.end_lsn, log.end_lsn(), "{told}");
            }
            let mut expected = records;
            expected.extend(commit(&mut log, &[b"after", &[9; 3000]]));
            let (_, _, records) = open(&disk.after_power_cut(1)).expect("opens");
            assert!(records == expected, "{told}");
        }
    }
}

#[test]
fn a_report_goes_on_behind_damage() {
    let (disk, written) = sealed_log();
    // In the first batch of the first and in the header of the second segment.
    disk.flip_bit("log-0000000001", 4096 + 60, 0);
    disk.flip_bit("log-0000000002", 20, 0);
    let report = scan_report(&disk, &STORE, 1).expect("reports");
    let places: Vec<_> = report
        .places
        .iter()
        .map(|place| (place.file.as_str(), place.offset))
        .collect();
    assert_eq!(
        places,
        [
            ("simulated/log-0000000001", 4096),
            ("simulated/log-0000000002", 0)
        ],
        "{:?}",
        report.places
    );
    assert!(report.places[0].lost_bytes > 0);
    let records: u64 = report.segments.iter().map(|segment| segment.records).sum();
    assert_eq!(records, written.len() as u64 - 2);
    assert_eq!(report.floor_ms, 2_000);

    disk.remove("log-0000000002").expect("removes");
    let report = scan_report(&disk, &STORE, 1).expect("reports");
    assert_eq!(report.places[1].what, "the file is missing");
}

#[test]
fn where_nothing_can_be_kept_a_repair_begins_at_the_start() {
    let (disk, written) = sealed_log();
    let space_start = {
        let (log, _, _) = open(&disk).expect("opens");
        log.space().start_for(written[2].0.end_lsn())
    };
    assert_eq!(space_start.0, 2);
    disk.flip_bit("log-0000000002", 20, 0);
    let shared: Arc<dyn super::super::super::Disk> = Arc::new(disk.clone());
    let repaired = repair(&shared, &STORE, space_start.1, 2, options())
        .expect("repairs")
        .expect("there is damage");
    assert_eq!(repaired.removed.len(), 2);
    let (log, opened, records) = open_from(&disk.after_power_cut(1), space_start).expect("opens");
    assert_eq!(records, []);
    assert_eq!(log.end_lsn(), space_start.1);
    assert_eq!(opened.floor_ms, 2_000, "timestamps are not given out twice");
}
