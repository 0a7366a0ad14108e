//! What the simulated disk promises, shown.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::super::{read_exact_at, write_all_at};
use super::*;

const SEEDS: std::ops::Range<u64> = 0..400;

fn disk() -> SimDisk {
    SimDisk::new(1)
}

/// A file whose name and bytes are lasting.
fn with_file(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.create(name).expect("create");
    write_all_at(&*file, bytes, 0).expect("write");
    file.sync().expect("sync");
    disk.sync_names().expect("sync the names");
    file
}

/// All the states that some seeds leave of a file; `None` where it is gone.
fn left_of(disk: &SimDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    SEEDS
        .map(|seed| disk.after_power_cut(seed).bytes_of(name))
        .collect()
}

fn error(operation: Operation, at: u64, lasting: Lasting) -> Fault {
    Fault::Error {
        operation,
        name_prefix: "",
        at,
        lasting,
    }
}

#[test]
fn what_was_synced_stays() {
    let disk = disk();
    let file = with_file(&disk, "a", b"synced");
    file.write_at(b"more", 6).expect("write");
    for seed in SEEDS {
        let left = disk.after_power_cut(seed).bytes_of("a").expect("the file");
        assert_eq!(left[..6], *b"synced", "seed {seed}");
    }
}

#[test]
fn what_was_not_synced_comes_in_any_part() {
    let disk = disk();
    let file = with_file(&disk, "a", &[0; 1024]);
    file.write_at(&[1; 1024], 0).expect("write");
    file.write_at(&[2; 512], 512).expect("write");
    let left: BTreeSet<(u8, u8)> = left_of(&disk, "a")
        .into_iter()
        .map(|bytes| {
            let bytes = bytes.expect("the file");
            assert!(
                bytes
                    .chunks(512)
                    .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
            );
            (bytes[0], bytes[512])
        })
        .collect();
    let all = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)];
    assert_eq!(left, BTreeSet::from(all));
}

#[test]
fn an_append_may_leave_length_without_bytes_and_bytes_without_order() {
    let disk = disk();
    let file = with_file(&disk, "a", &[]);
    file.write_at(&[1; 512], 0).expect("write");
    file.write_at(&[2; 512], 512).expect("write");
    let left = left_of(&disk, "a");
    let zeros = vec![0; 1024];
    let second_only = [[0; 512], [2; 512]].concat();
    let both = [[1; 512], [2; 512]].concat();
    for expected in [vec![], vec![1; 512], zeros, second_only, both] {
        assert!(left.contains(&Some(expected)));
    }
}

#[test]
fn each_fate_leaves_what_it_says() {
    let disk = disk();
    let file = with_file(&disk, "a", &[0; 1024]);
    file.write_at(&[1; 1024], 0).expect("write");
    file.write_at(&[2; 1024], 0).expect("write");
    for fate in Fate::ALL {
        let left: BTreeSet<(u8, u8)> = SEEDS
            .map(|seed| {
                let disk = disk.after_power_cut_with(fate, seed);
                let bytes = disk.bytes_of("a").expect("the file");
                (bytes[0], bytes[512])
            })
            .collect();
        let all = [0, 1, 2]
            .map(|first| [(first, 0), (first, 1), (first, 2)])
            .concat();
        let expected = match fate {
            Fate::Nothing | Fate::LengthOnly => vec![(0, 0)],
            Fate::Everything => vec![(2, 2)],
            Fate::Prefix => vec![(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)],
            Fate::AllButOne => vec![(2, 2), (1, 2), (2, 1)],
            Fate::Moments | Fate::Subset | Fate::Reordered => all,
        };
        assert_eq!(left, BTreeSet::from_iter(expected), "{fate:?}");
    }
}

#[test]
fn only_reordering_brings_an_old_write_over_a_new_one() {
    let disk = disk();
    let file = with_file(&disk, "a", b"...");
    file.write_at(b"ab", 0).expect("write");
    file.write_at(b"cd", 1).expect("write");
    for fate in Fate::ALL {
        let seen = SEEDS.into_iter().any(|seed| {
            let disk = disk.after_power_cut_with(fate, seed);
            disk.bytes_of("a").expect("the file") == b"abd"
        });
        assert_eq!(seen, fate == Fate::Reordered, "{fate:?}");
    }
}

#[test]
fn a_length_is_lasting_after_sync() {
    let disk = disk();
    let file = with_file(&disk, "a", b"0123456789");
    file.set_len(4).expect("set the length");
    let left = left_of(&disk, "a");
    assert!(left.contains(&Some(b"0123".to_vec())) && left.contains(&Some(b"0123456789".to_vec())));

    let disk = self::disk();
    let file = with_file(&disk, "a", b"0123456789");
    file.set_len(4).expect("set the length");
    file.set_len(6).expect("set the length");
    file.sync().expect("sync");
    assert_eq!(
        left_of(&disk, "a"),
        BTreeSet::from([Some(b"0123\0\0".to_vec())])
    );
}

#[test]
fn a_new_file_may_vanish_though_synced_until_the_names_are() {
    let disk = disk();
    let file = disk.create("a").expect("create");
    file.write_at(b"data", 0).expect("write");
    file.sync().expect("sync");
    let other = disk.after_kill();
    assert_eq!(
        left_of(&disk, "a"),
        BTreeSet::from([None, Some(b"data".to_vec())])
    );

    other.sync_names().expect("sync the names");
    assert_eq!(
        left_of(&other, "a"),
        BTreeSet::from([Some(b"data".to_vec())])
    );
}

#[test]
fn a_name_may_come_without_the_bytes() {
    let disk = disk();
    let file = disk.create("a").expect("create");
    file.write_at(b"data", 0).expect("write");
    disk.sync_names().expect("sync the names");
    let left = left_of(&disk, "a");
    for expected in [b"".to_vec(), vec![0; 4], b"data".to_vec()] {
        assert!(left.contains(&Some(expected)));
    }
    assert!(!left.contains(&None));
}

#[test]
fn a_rename_is_whole() {
    let disk = disk();
    with_file(&disk, "a", b"old");
    with_file(&disk, "new", b"new");
    disk.rename("new", "a").expect("rename");
    let left: BTreeSet<_> = SEEDS
        .map(|seed| {
            let left = disk.after_power_cut(seed);
            (
                left.bytes_of("a").expect("one of them"),
                left.bytes_of("new"),
            )
        })
        .collect();
    let before = (b"old".to_vec(), Some(b"new".to_vec()));
    assert_eq!(left, BTreeSet::from([before, (b"new".to_vec(), None)]));
}

#[test]
fn names_come_in_any_part_but_each_in_its_order() {
    let disk = disk();
    with_file(&disk, "gone", b"");
    disk.create("a.new").expect("create");
    disk.rename("a.new", "a").expect("rename");
    disk.create("a.new").expect("create");
    disk.remove("gone").expect("remove");
    let left: BTreeSet<String> = SEEDS
        .map(|seed| disk.after_power_cut(seed).list().expect("list").join(" "))
        .collect();
    let expected = [
        "",
        "gone",
        "a.new",
        "a.new gone",
        "a",
        "a gone",
        "a a.new",
        "a a.new gone",
    ];
    assert_eq!(left, expected.map(String::from).into());
}

#[test]
fn after_the_cut_nothing_works() {
    let disk = disk();
    let file = with_file(&disk, "a", b"data");
    assert!(!disk.has_ended());
    disk.cut_power();
    assert!(disk.has_ended());
    let errors = [
        file.read_at(&mut [0], 0).expect_err("read"),
        file.write_at(b"x", 0).expect_err("write"),
        file.sync().expect_err("sync"),
        file.size().expect_err("size"),
        file.set_len(0).expect_err("set the length"),
        disk.open("a").err().expect("open"),
        disk.create("b").err().expect("create"),
        disk.rename("a", "b").expect_err("rename"),
        disk.remove("a").expect_err("remove"),
        disk.list().expect_err("list"),
        disk.sync_names().expect_err("sync the names"),
    ];
    assert!(
        errors
            .iter()
            .all(|error| error.to_string() == "the power is cut")
    );
    assert_eq!(
        disk.after_power_cut(1).bytes_of("a").as_deref(),
        Some(&b"data"[..])
    );
}

#[test]
fn a_kill_keeps_what_was_written_and_unsynced() {
    let disk = disk();
    let file = with_file(&disk, "a", b"....");
    file.write_at(b"data", 0).expect("write");
    disk.create("b").expect("create");
    let next = disk.after_kill();
    assert_eq!(
        file.sync().expect_err("sync").to_string(),
        "the process was killed"
    );
    assert_eq!(next.files(), [("a".into(), 4), ("b".into(), 0)]);
    assert_eq!(next.bytes_of("a").as_deref(), Some(&b"data"[..]));
    assert_eq!(left_of(&next, "a").len(), 2, "the power may still go");
    assert_eq!(left_of(&next, "b").len(), 2, "the power may still go");
}

fn some_changes(disk: &SimDisk) -> io::Result<()> {
    let file = disk.create("a.new")?;
    write_all_at(&*file, &[7; 2000], 0)?;
    file.sync()?;
    disk.rename("a.new", "a")?;
    disk.sync_names()?;
    file.set_len(1000)?;
    disk.create("b")?;
    disk.remove("b")
}

#[test]
fn the_power_is_cut_at_every_boundary() {
    let whole = disk();
    some_changes(&whole).expect("no fault");
    assert_eq!(whole.changes(), 8);
    for moment in [Moment::Before, Moment::Midway, Moment::After] {
        for at in 1..=whole.changes() {
            let disk = disk();
            disk.plan(Fault::PowerCut { at, moment });
            some_changes(&disk).expect_err("the cut");
            assert_eq!(disk.changes(), at);
            let length = disk.files().first().map(|(_, length)| *length);
            match (at, moment) {
                (2, Moment::Before) => assert_eq!(length, Some(0)),
                (2, Moment::Midway) => assert!(length < Some(2000)),
                (2, Moment::After) => assert_eq!(length, Some(2000)),
                _ => {}
            }
            let lasting = at > 5 || at == 5 && moment == Moment::After;
            assert!(!lasting || disk.after_power_cut(at).bytes_of("a").is_some());
        }
    }
}

#[test]
fn errors_come_when_planned() {
    let disk = disk();
    let file = with_file(&disk, "a", b"data");
    disk.plan(error(Operation::Read, 2, Lasting::Once));
    let reads = [(); 3].map(|()| file.read_at(&mut [0; 4], 0).is_ok());
    assert_eq!(reads, [true, false, true]);
    disk.plan(error(Operation::Write, 2, Lasting::FromThenOn));
    let writes = [(); 4].map(|()| file.write_at(b"data", 0).is_ok());
    assert_eq!(writes, [true, false, false, false]);
    disk.clear_faults();
    file.write_at(b"data", 0).expect("write");

    disk.plan(Fault::Error {
        operation: Operation::Create,
        name_prefix: "log-",
        at: 1,
        lasting: Lasting::FromThenOn,
    });
    disk.create("b").expect("create");
    let text = disk.create("log-1").err().expect("create").to_string();
    assert_eq!(text, "simulated I/O error: Create log-1");
    assert_eq!(disk.list().expect("list"), ["a", "b"]);
}

#[test]
fn a_failed_sync_loses_what_a_later_one_does_not_bring_back() {
    let mut seen = BTreeSet::new();
    for seed in SEEDS {
        let disk = SimDisk::new(seed);
        let file = with_file(&disk, "a", b"old");
        file.write_at(b"newer", 0).expect("write");
        disk.plan(error(Operation::Sync, 1, Lasting::Once));
        file.sync().expect_err("sync");
        file.sync().expect("the next sync");
        let view = disk.bytes_of("a").expect("the file");
        let left = disk.after_power_cut(seed).bytes_of("a").expect("the file");
        assert_eq!((view.len(), left.len()), (5, 5));
        seen.insert((view == b"newer", left == b"newer"));
    }
    let expected = [(true, true), (true, false), (false, false)];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn short_reads_and_writes_are_made_good_by_loops() {
    let disk = disk();
    let file = disk.create("a").expect("create");
    disk.plan(Fault::ShortWrites { percent: 100 });
    disk.plan(Fault::ShortReads { percent: 100 });
    let bytes: Vec<u8> = (0..=255).collect();
    assert!((1..256).contains(&file.write_at(&bytes, 0).expect("write")));
    write_all_at(&*file, &bytes, 0).expect("write");
    let mut read = vec![0; 256];
    assert!((1..256).contains(&file.read_at(&mut read, 0).expect("read")));
    read_exact_at(&*file, &mut read, 0).expect("read");
    assert_eq!(read, bytes);
    assert!(disk.count(Operation::Write) > 2 && disk.count(Operation::Read) > 2);
}

#[test]
fn a_full_disk_takes_what_fits_and_goes_on_when_there_is_room() {
    let disk = disk();
    let file = with_file(&disk, "a", &[1; 100]);
    let other = with_file(&disk, "b", &[1; 100]);
    disk.set_capacity(Some(250));
    assert_eq!(file.write_at(&[2; 200], 50).expect("a part"), 100);
    let full = |result: io::Result<usize>| result.expect_err("full").kind();
    assert_eq!(full(file.write_at(&[2], 150)), ErrorKind::StorageFull);
    assert_eq!(full(file.set_len(151).map(|()| 0)), ErrorKind::StorageFull);
    file.write_at(&[3; 150], 0).expect("over what is there");

    disk.remove("b").expect("remove");
    assert_eq!(disk.used_bytes(), 250, "it is open");
    drop(other);
    assert_eq!(disk.used_bytes(), 150);
    assert_eq!(file.write_at(&[2; 200], 150).expect("a part"), 100);
    disk.set_capacity(None);
    assert_eq!(file.write_at(&[2; 200], 250).expect("all"), 200);
    file.set_len(10).expect("set the length");
    assert_eq!(disk.used_bytes(), 10);
    assert_eq!(disk.after_kill().used_bytes(), 10);
}

#[test]
fn damage_is_everywhere() {
    let disk = disk();
    let file = with_file(&disk, "a", &[0; 1500]);
    file.write_at(&[0; 100], 500).expect("write");
    disk.flip_bit("a", 520, 3);
    file.sync().expect("sync");
    let mut byte = [0];
    file.read_at(&mut byte, 520).expect("read");
    assert_eq!(byte, [8]);
    disk.corrupt_sector("a", 1300);
    let left = disk.after_power_cut(1).bytes_of("a").expect("the file");
    assert_eq!(left[520], 8);
    let bad: Vec<usize> = (0..1500).filter(|at| left[*at] != 0).collect();
    assert_eq!(
        bad,
        std::iter::once(520).chain(1024..1500).collect::<Vec<_>>()
    );
}

#[test]
fn counts_are_kept() {
    let disk = disk();
    let file = with_file(&disk, "log-1", &[0; 100]);
    with_file(&disk, "log-2", &[0; 10]);
    with_file(&disk, "map", &[0; 1]);
    disk.rename("log-1", "spare-1").expect("rename");
    file.write_at(&[0; 1000], 0).expect("write");
    assert_eq!(disk.written_bytes("log-"), 110);
    assert_eq!(disk.written_bytes("spare-"), 1000);
    assert_eq!(disk.written_bytes(""), 1111);
    assert_eq!(disk.count(Operation::Sync), 3);
    assert_eq!(disk.count(Operation::SyncNames), 3);
    assert_eq!(disk.changes(), 14);
    assert_eq!(disk.path_of("map"), "simulated/map");
    assert_eq!(
        disk.open("log-1").err().expect("gone").kind(),
        ErrorKind::NotFound
    );
    let again = disk.create("map").err().expect("there");
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_removed_file_works_while_it_is_open() {
    let disk = disk();
    let file = with_file(&disk, "a", b"data");
    disk.remove("a").expect("remove");
    disk.sync_names().expect("sync the names");
    disk.create("a").expect("another of that name");
    let mut read = [0; 4];
    read_exact_at(&*file, &mut read, 0).expect("read");
    assert_eq!(&read, b"data");
    drop(file);
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn the_same_seed_gives_the_same() {
    let run = |seed: u64| {
        let disk = SimDisk::new(seed);
        disk.plan(Fault::ShortWrites { percent: 50 });
        disk.plan(error(Operation::Sync, 2, Lasting::Once));
        let file = disk.create("a").expect("create");
        for at in 0..20 {
            write_all_at(&*file, &[1; 700], at * 300).expect("write");
            if at % 8 == 0 {
                let _ = file.sync();
            }
        }
        disk.sync_names().expect("sync the names");
        (
            disk.bytes_of("a"),
            disk.changes(),
            disk.after_power_cut(seed).bytes_of("a"),
        )
    };
    assert_eq!(run(5), run(5));
    assert!((0..20).map(run).collect::<BTreeSet<_>>().len() > 10);
}
