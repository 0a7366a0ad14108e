//! Extents are read as they were written, or are told to be damaged; space is used again only when it was given back.

mod crash;

use super::super::disk::RealDisk;
use super::super::disk::simulated::{Fault, Lasting, Operation, SimDisk};
use super::super::test_random::Random;
use super::*;

const STORE: [u8; 16] = *b"a store's own id";

const FILE: &str = "chat.stream";

fn created(disk: &SimDisk) -> StreamFile {
    StreamFile::create(disk, STORE, "chat").expect("created")
}

fn reopened(disk: &SimDisk, live: &[Extent]) -> Result<StreamFile, StreamFileError> {
    StreamFile::open(disk, STORE, "chat", live.iter().copied())
}

#[test]
fn extents_are_read_as_a_whole_and_part_by_part() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = RealDisk::new(dir.path());
    let stream = "a/b\0\u{1f600}";
    let mut file = StreamFile::create(&disk, STORE, stream).expect("created");
    let mut random = Random::new(1);
    let mut written = Vec::new();
    for sizes in [
        &[][..],
        &[0],
        &[1],
        &[5, 0, 7],
        &[4096, 100_000],
        &[300_000, 3, 1_000_000],
        &[1; EXTENT_PARTS_MAX],
    ] {
        let parts: Vec<Vec<u8>> = sizes.iter().map(|&size| random.bytes(size)).collect();
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let kind = random.next() as u8;
        let extent = file.write(kind, &slices).expect("written");
        written.push((extent, kind, parts));
    }
    file.sync().expect("synced");
    let live: Vec<Extent> = written.iter().map(|(extent, ..)| *extent).collect();
    let again = StreamFile::open(&disk, STORE, stream, live.into_iter()).expect("opened");
    assert_eq!(again.live_bytes(), file.live_bytes());
    for (extent, kind, parts) in &written {
        let content = again.reader().read(*extent).expect("whole");
        assert_eq!((content.kind, content.part_count()), (*kind, parts.len()));
        for (index, part) in parts.iter().enumerate() {
            assert_eq!(content.part(index), Some(&part[..]));
            let (found_kind, found) = again.reader().read_part(*extent, index).expect("whole");
            assert_eq!((found_kind, &found), (*kind, part));
        }
        assert_eq!(content.part(parts.len()), None);
        let error = again.reader().read_part(*extent, parts.len());
        assert!(matches!(error, Err(StreamFileError::Damaged { .. })));
    }
    let error = file
        .write(0, &[&[][..]; EXTENT_PARTS_MAX + 1])
        .expect_err("too many");
    assert!(error.to_string().contains("17 parts") && error.to_string().contains("16"));
}

#[test]
fn space_is_used_again_once_it_was_given_back() {
    let disk = SimDisk::new(1);
    let mut file = created(&disk);
    let one = file.write(1, &[&[1; 1000]]).expect("written");
    let two = file.write(1, &[&[2; 500]]).expect("written");
    let three = file.write(1, &[&[3; 1000]]).expect("written");
    assert_eq!(one.offset, HEADER_BYTES);
    assert!(two.offset > one.offset && three.offset > two.offset);
    file.release([two]);
    let small = file.write(1, &[&[4; 100]]).expect("written");
    assert_eq!(small.offset, two.offset);
    let beside = file.write(1, &[&[5; 300]]).expect("written");
    assert!(beside.offset > small.offset && beside.offset < three.offset);
    assert!([small, beside].iter().all(|it| it.offset % 8 == 0));
    // All that is not live is free after the next start.
    let mut file = reopened(&disk, &[three, small]).expect("opened");
    assert_eq!(
        file.write(1, &[&[6; 1000]]).expect("written").offset,
        one.offset
    );
    for (extent, byte, bytes) in [(three, 3, 1000), (small, 4, 100)] {
        let content = file.reader().read(extent).expect("whole");
        assert_eq!(content.part(0), Some(&vec![byte; bytes][..]));
    }
    let error = file.reader().read(one).expect_err("it was overwritten");
    assert!(error.to_string().contains("another extent"), "{error}");
}

#[test]
fn the_file_shrinks_when_it_is_worth_it() {
    let disk = SimDisk::new(1);
    let mut file = created(&disk);
    let big = vec![7; 800_000];
    let extents: Vec<Extent> = (0..6)
        .map(|_| file.write(1, &[&big]).expect("written"))
        .collect();
    let full = file.file_bytes();
    assert_eq!(disk.files()[0].1.next_multiple_of(8), full);
    file.release([extents[5]]);
    assert!(!file.shrink().expect("nothing to do"), "less than 1 MiB");
    file.release([extents[4]]);
    assert!(file.shrink().expect("cut"));
    assert_eq!(file.file_bytes(), extents[4].offset);
    assert_eq!(disk.files()[0].1, extents[4].offset);
    file.release([extents[0], extents[1]]);
    assert!(!file.shrink().expect("nothing to do"), "not at the end");
    let mut file = reopened(&disk, &extents[2..4]).expect("opened");
    assert_eq!(file.live_bytes(), 2 * 800_032);
    file.reader().read(extents[3]).expect("whole");
    file.release(extents[2..4].iter().copied());
    assert!(file.shrink().expect("cut"));
    assert_eq!((file.live_bytes(), file.file_bytes()), (0, HEADER_BYTES));
}

#[test]
fn a_full_disk_leaves_the_file_as_it_was() {
    for size in [1_000, 500_000] {
        let disk = SimDisk::new(1);
        let mut file = created(&disk);
        let kept = file.write(1, &[&[1; 1000]]).expect("written");
        let hole = file.write(1, &[&[2; 100]]).expect("written");
        let last = file.write(1, &[&[3; 1000]]).expect("written");
        file.sync().expect("synced");
        file.release([hole]);
        let used = disk.used_bytes();
        disk.set_capacity(Some(used + 500));
        let state = (file.live_bytes(), file.file_bytes());
        for _ in 0..3 {
            let error = file
                .write(1, &[&[4; 10], &vec![4; size]])
                .expect_err("full");
            assert!(
                error.is_disk_full() && error.to_string().contains(FILE),
                "{error}"
            );
            assert_eq!((file.live_bytes(), file.file_bytes()), state);
            assert_eq!(
                disk.used_bytes(),
                used,
                "what was written of it is given back"
            );
        }
        let small = file.write(1, &[&[5; 90]]).expect("in the hole");
        assert_eq!(small.offset, hole.offset);
        disk.set_capacity(None);
        let more = file.write(1, &[&vec![6; size]]).expect("at the end");
        let file = reopened(&disk, &[kept, last, small, more]).expect("opened");
        for extent in [kept, last, small, more] {
            file.reader().read(extent).expect("whole");
        }
    }
}

#[test]
fn errors_of_the_system_name_the_file_and_leave_it_usable() {
    let disk = SimDisk::new(1);
    let mut file = created(&disk);
    let kept = file.write(1, &[&[1; 100]]).expect("written");
    for operation in [Operation::Write, Operation::Sync, Operation::Read] {
        disk.plan(Fault::Error {
            operation,
            name_prefix: FILE,
            at: 1,
            lasting: Lasting::Once,
        });
    }
    let error = file.write(1, &[&[2; 100]]).expect_err("planned");
    assert!(
        error
            .to_string()
            .contains("cannot write simulated/chat.stream"),
        "{error}"
    );
    let error = file.reader().read(kept).expect_err("planned");
    assert!(
        error
            .to_string()
            .contains("cannot read simulated/chat.stream"),
        "{error}"
    );
    let error = file.sync().expect_err("planned");
    assert!(
        error
            .to_string()
            .contains("cannot sync simulated/chat.stream"),
        "{error}"
    );
    let again = file.write(1, &[&[3; 100]]).expect("written");
    file.sync().expect("synced");
    file.reader().read(again).expect("whole");
}

#[test]
fn every_flipped_bit_of_an_extent_is_found() {
    let disk = SimDisk::new(1);
    let mut file = created(&disk);
    let extent = file.write(9, &[b"state", b"a history"]).expect("written");
    for bit in 0..extent.bytes * 8 {
        let (offset, bit) = (extent.offset + bit / 8, (bit % 8) as u8);
        disk.flip_bit(FILE, offset, bit);
        let error = file.reader().read(extent).expect_err("damaged").to_string();
        assert!(
            error.contains("offset 4096") && error.contains(FILE),
            "{error}"
        );
        disk.flip_bit(FILE, offset, bit);
    }
    // The state can be read though the history is damaged.
    disk.flip_bit(FILE, extent.offset + extent.bytes - 1, 0);
    let (_, state) = file.reader().read_part(extent, 0).expect("whole");
    assert_eq!(state, b"state");
    assert!(file.reader().read_part(extent, 1).is_err());
    disk.open(FILE).expect("there").set_len(4100).expect("cut");
    let error = file.reader().read(extent).expect_err("cut off").to_string();
    assert!(error.contains("the file ends before"), "{error}");
}

#[test]
fn live_extents_that_cannot_be_are_refused() {
    let disk = SimDisk::new(1);
    let mut file = created(&disk);
    let one = file.write(1, &[&[1; 100]]).expect("written");
    file.write(1, &[&[2; 100]]).expect("written");
    let inside = Extent {
        offset: one.offset + 8,
        ..one
    };
    let error = reopened(&disk, &[one, inside]).err().expect("overlap");
    assert!(matches!(
        error,
        StreamFileError::Overlap {
            offset: 4096,
            other_offset: 4104,
            ..
        }
    ));
    let beyond = Extent {
        offset: one.offset + 4096,
        ..one
    };
    let endless = Extent {
        bytes: u64::MAX,
        ..one
    };
    let in_header = Extent {
        offset: 4088,
        ..one
    };
    for bad in [beyond, endless, in_header] {
        let error = reopened(&disk, &[bad]).err().expect("outside");
        assert!(matches!(error, StreamFileError::Outside { .. }), "{error}");
    }
}

#[test]
fn headers_are_checked() {
    let disk = SimDisk::new(1);
    let error = reopened(&disk, &[]).err().expect("missing");
    assert!(error.is_missing(), "{error}");
    created(&disk).write(1, &[b"data"]).expect("written");
    for bit in 0..HEADER_BYTES * 8 {
        if bit % 7 == 0 || bit < 1024 {
            disk.flip_bit(FILE, bit / 8, (bit % 8) as u8);
            assert!(reopened(&disk, &[]).is_err(), "{bit}");
            assert!(StreamFile::create(&disk, STORE, "chat").is_err(), "{bit}");
            disk.flip_bit(FILE, bit / 8, (bit % 8) as u8);
        }
    }
    let error = StreamFile::open(&disk, [0; 16], "chat", std::iter::empty()).err();
    assert!(matches!(error, Some(StreamFileError::OtherStore { .. })));
    disk.rename(FILE, "todo.stream").expect("renamed");
    let error = StreamFile::open(&disk, STORE, "todo", std::iter::empty()).err();
    let error = error.expect("another's").to_string();
    assert!(
        error.contains("\"chat\"") && error.contains("\"todo\""),
        "{error}"
    );
    let file = disk.open("todo.stream").expect("there");
    let newer = format_mark::encode(KIND, VERSION + 1);
    write_all_at(&*file, &newer, 0).expect("written");
    let error = StreamFile::open(&disk, STORE, "todo", std::iter::empty()).err();
    let error = error.expect("newer").to_string();
    assert!(
        error.contains("version 2") && error.contains("version 1"),
        "{error}"
    );
}

#[test]
fn what_is_left_of_a_fold_that_came_to_nothing_is_replaced() {
    let disk = SimDisk::new(1);
    created(&disk).write(1, &[b"data"]).expect("written");
    let file = created(&disk);
    assert_eq!(file.file_bytes(), HEADER_BYTES);
    assert_eq!(disk.files(), [(FILE.to_owned(), HEADER_BYTES)]);
    disk.flip_bit(FILE, 700, 1);
    created(&disk);
    disk.open(FILE).expect("there").set_len(10).expect("cut");
    created(&disk);
    reopened(&disk, &[]).expect("whole");
    let error = StreamFile::create(&disk, [0; 16], "chat").err();
    assert!(matches!(error, Some(StreamFileError::OtherStore { .. })));
    let error = StreamFile::create(&disk, STORE, &"x".repeat(1025)).err();
    assert!(matches!(error, Some(StreamFileError::NameTooLong { .. })));
    StreamFile::create(&disk, STORE, &"x".repeat(1024)).expect("created");
}

#[test]
fn extents_are_read_while_others_are_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = RealDisk::new(dir.path());
    let mut file = StreamFile::create(&disk, STORE, "chat").expect("created");
    let live: Vec<Extent> = (0..20_u8)
        .map(|byte| file.write(byte, &[&vec![byte; 5000]]).expect("written"))
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (reader, live) = (file.reader(), &live);
            scope.spawn(move || {
                for _ in 0..200 {
                    for extent in live {
                        let content = reader.read(*extent).expect("whole");
                        assert_eq!(content.part(0), Some(&[content.kind; 5000][..]));
                    }
                }
            });
        }
        for size in 0..500 {
            let extent = file.write(0, &[&vec![0; size * 10]]).expect("written");
            file.release([extent]);
        }
    });
}
