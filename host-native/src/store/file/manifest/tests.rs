//! Whatever is cut, flipped or lost: a manifest says what it said before the last unit or after it, or that it is damaged.

mod crash;
mod damage;

use std::borrow::Cow;
use std::sync::Arc;

use super::super::disk::RealDisk;
use super::super::disk::simulated::{Fault, Lasting, Operation, SimDisk};
use super::super::extent::Extent;
use super::super::test_random::Random;
use super::*;

const STORE: [u8; 16] = *b"a store's own id";

const STREAMS: [&str; 3] = ["chat", "todo", "\0/..\u{1f600}"];

const GROUPS: [&str; 5] = ["", "room-1", "room-2", "a", "\u{e9}"];

fn random_edit(random: &mut Random) -> Edit<'static> {
    let stream = STREAMS[random.below(3) as usize];
    let group = GROUPS[random.below(5) as usize];
    match random.below(12) {
        0..5 => Edit::Group {
            stream,
            group,
            kept: Cow::Owned(random_kept(random)),
        },
        5..7 => Edit::Gone { stream, group },
        7 => Edit::Log {
            start_lsn: any_number(random),
            start_segment: any_number(random),
        },
        8 => Edit::Floor {
            ms: any_number(random),
        },
        9 => Edit::Era {
            n: any_number(random),
        },
        10 => Edit::Opened {
            boot_id: STREAMS[random.below(3) as usize],
            durability: if random.below(2) == 0 {
                Durability::Os
            } else {
                Durability::Fsync
            },
        },
        _ => Edit::Closed,
    }
}

fn random_kept(random: &mut Random) -> GroupKept {
    let extent = |random: &mut Random| Extent {
        offset: any_number(random) / 8 * 8,
        bytes: any_number(random),
        check: random.next() as u32,
    };
    GroupKept {
        epoch: format!("e{}", random.below(3)).into(),
        seq: any_number(random),
        has_items: random.below(2) == 0,
        has_clients: random.below(2) == 0,
        has_image: random.below(2) == 0,
        next_expiry_ms: (random.below(2) == 0).then(|| any_number(random)),
        extents: (0..random.below(4)).map(|_| extent(random)).collect(),
    }
}

/// Of any length.
fn any_number(random: &mut Random) -> u64 {
    random.next() >> random.below(64)
}

fn random_edits(random: &mut Random) -> Vec<Edit<'static>> {
    (0..1 + random.below(8))
        .map(|_| random_edit(random))
        .collect()
}

fn with(mut contents: Contents, edits: &[Edit<'_>]) -> Contents {
    for edit in edits {
        contents.apply(edit.clone());
    }
    contents
}

fn nothing() -> Contents {
    Contents {
        store_id: STORE,
        ..Contents::default()
    }
}

fn door(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn contents_of(disk: &Arc<dyn Disk>) -> Contents {
    let opened = Manifest::open(disk).expect("readable");
    let (_, contents, cut) = opened.expect("a manifest");
    assert_eq!(cut, None);
    contents
}

#[test]
fn a_directory_without_a_manifest_has_none() {
    let disk = SimDisk::new(1);
    disk.create("manifest-1").expect("room");
    disk.create("manifest-0000000002.new").expect("room");
    disk.create("manifest-0000000001x").expect("room");
    assert!(Manifest::open(&door(&disk)).expect("readable").is_none());
    let names: Vec<_> = disk.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["manifest-0000000001x", "manifest-1"]);
}

#[test]
fn it_says_what_was_appended_and_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()));
    let mut random = Random::new(4);
    let mut expected = nothing();
    drop(Manifest::create(&disk, STORE).expect("created"));
    for _ in 0..20 {
        let (mut manifest, contents, cut) =
            Manifest::open(&disk).expect("readable").expect("there");
        assert_eq!(cut, None);
        assert_eq!(contents, expected);
        for _ in 0..10 {
            let edits = random_edits(&mut random);
            manifest.append(edits.clone()).expect("appended");
            manifest.append([]).expect("nothing to do");
            expected = with(expected, &edits);
        }
    }
    let (mut manifest, contents, _) = Manifest::open(&disk).expect("readable").expect("there");
    let before = manifest.file_bytes();
    manifest.rewrite(contents.edits()).expect("rewritten");
    assert!(manifest.file_bytes() < before);
    assert_eq!(disk.list().expect("listed"), ["manifest-0000000002"]);
    assert_eq!(contents_of(&disk), expected);
}

#[test]
fn a_full_write_of_many_units_is_read_and_shares_its_texts() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(2));
    let mut random = Random::new(5);
    let mut expected = nothing();
    for group in 0..20_000 {
        expected.apply(Edit::Group {
            stream: "many",
            group: &format!("group-{group}"),
            kept: Cow::Owned(random_kept(&mut random)),
        });
    }
    let mut manifest = Manifest::create(&disk, STORE).expect("created");
    manifest.rewrite(expected.edits()).expect("rewritten");
    assert!(manifest.header.base.units > 3);
    let last = [Edit::Floor { ms: 77 }];
    manifest.append(last.clone()).expect("appended");
    let found = contents_of(&disk);
    assert_eq!(found, with(expected, &last));
    let mut epochs: Vec<_> = found.streams["many"]
        .values()
        .map(|kept| Arc::as_ptr(&kept.epoch).cast::<u8>())
        .collect();
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 3);
}

#[test]
fn it_is_due_for_a_rewrite_when_it_has_doubled() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(3));
    let mut manifest = Manifest::create(&disk, STORE).expect("created");
    let long = "x".repeat(10_000);
    let edit = Edit::Gone {
        stream: &long,
        group: "g",
    };
    let mut count = 0;
    while !manifest.is_due_for_rewrite() {
        manifest.append([edit.clone()]).expect("appended");
        count += 1;
    }
    assert_eq!(count, GROWTH_BYTES_MIN.div_ceil(10_000));
    manifest.rewrite([]).expect("rewritten");
    assert!(!manifest.is_due_for_rewrite());
}

#[test]
fn a_full_disk_loses_the_unit_and_nothing_else() {
    let disk = SimDisk::new(6);
    let mut manifest = Manifest::create(&door(&disk), STORE).expect("created");
    let kept = [Edit::Era { n: 1 }];
    manifest.append(kept.clone()).expect("appended");
    let long = "x".repeat(3_000);
    let refused = [Edit::Gone {
        stream: &long,
        group: "g",
    }];
    disk.set_capacity(Some(disk.used_bytes() + 1_000));
    for _ in 0..2 {
        let error = manifest.append(refused.clone()).expect_err("full");
        assert!(error.is_disk_full(), "{error}");
        assert!(!manifest.needs_rewrite());
        let error = manifest.rewrite(refused.clone()).expect_err("full");
        assert!(error.is_disk_full(), "{error}");
    }
    let small = [Edit::Era { n: 2 }];
    manifest.append(small.clone()).expect("there is room");
    let left = disk.after_power_cut(9);
    assert_eq!(contents_of(&door(&left)), with(nothing(), &small));
    assert_eq!(left.files().len(), 1);
}

#[test]
fn after_a_failed_sync_only_a_rewrite_helps() {
    for (operation, prefix) in [
        (Operation::Sync, "manifest-0000000001"),
        (Operation::Write, "manifest-0000000001"),
    ] {
        let disk = SimDisk::new(7);
        let mut manifest = Manifest::create(&door(&disk), STORE).expect("created");
        disk.plan(Fault::Error {
            operation,
            name_prefix: prefix,
            at: 1,
            lasting: Lasting::Once,
        });
        let edits = [Edit::Era { n: 3 }];
        let error = manifest.append(edits.clone()).expect_err("planned");
        assert!(error.to_string().contains("manifest-0000000001"), "{error}");
        assert!(manifest.needs_rewrite());
        let error = manifest.append(edits.clone()).expect_err("unsound");
        assert!(matches!(error, ManifestError::NeedsRewrite { .. }));
        manifest.rewrite([Edit::Era { n: 4 }]).expect("rewritten");
        manifest.append([Edit::Floor { ms: 5 }]).expect("appended");
        let found = contents_of(&door(&disk.after_power_cut(1)));
        assert_eq!((found.era, found.floor_ms), (4, 5));
    }
}

#[test]
fn a_rewrite_that_fails_is_tried_again_under_another_number() {
    for operation in [Operation::Rename, Operation::SyncNames] {
        let disk = SimDisk::new(8);
        let mut manifest = Manifest::create(&door(&disk), STORE).expect("created");
        disk.plan(Fault::Error {
            operation,
            name_prefix: "",
            at: 1,
            lasting: Lasting::Once,
        });
        manifest.rewrite([Edit::Era { n: 1 }]).expect_err("planned");
        assert!(manifest.needs_rewrite());
        manifest.rewrite([Edit::Era { n: 2 }]).expect("rewritten");
        manifest.append([Edit::Floor { ms: 3 }]).expect("appended");
        let names: Vec<_> = disk.files().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names.first().map(String::as_str),
            Some("manifest-0000000003")
        );
        let found = contents_of(&door(&disk.after_power_cut(2)));
        assert_eq!((found.era, found.floor_ms), (2, 3));
    }
}
