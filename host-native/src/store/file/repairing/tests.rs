//! Damage in each kind of file is found, told with its place, and repaired with nothing else lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iii_stream_core::command::read_set;
use iii_stream_core::{GroupKey, GroupRef};

use super::super::disk::simulated::SimDisk;
use super::super::disk::{Disk, read_exact_at, write_all_at};
use super::super::looking::{Look, LookError};
use super::super::test_random::Random;
use super::super::tests::{ByHand, options};
use super::super::verifying::{Verified, verify_look};
use super::*;

/// The states that a group has had, each with its items in order; the last one is the present.
type States = BTreeMap<GroupKey, Vec<Vec<String>>>;

/// A store with images, deltas, and records in the log.
fn made() -> (Vec<(String, Vec<u8>)>, States) {
    let disk = SimDisk::new(7);
    let mut store = ByHand::open(&disk, options()).expect("a store");
    let mut states = States::new();
    let mut random = Random::new(3);
    for round in 0..360 {
        let (stream, group) = (random.below(3), random.below(3));
        let group = GroupKey {
            stream: format!("s/{stream}").into(),
            group: format!("g{group}").into(),
        };
        let set = format!(
            r#"{{"stream_name":"{}","group_id":"{}","item_id":"i{}","data":{{"n":{round},"text":"{}"}}}}"#,
            group.stream,
            group.group,
            random.below(4),
            "x".repeat(random.below(300) as usize)
        );
        let done = store.send(read_set(&set), 1_000 + round);
        store.turn();
        done.recv().expect("an answer").expect("success");
        let items = texts(&mut store, group.as_ref());
        states.entry(group).or_default().push(items);
        if matches!(round, 100 | 200 | 210 | 300) {
            store.folder.fold().expect("a fold");
        }
    }
    (files_of(&disk), states)
}

fn texts(store: &mut ByHand, group: GroupRef<'_>) -> Vec<String> {
    let items = store.list(group).expect("items");
    let text = |(id, item): (Arc<str>, super::super::Item)| format!("{id}={}", item.value.as_str());
    items.into_iter().map(text).collect()
}

fn disk_with(files: &[(String, Vec<u8>)]) -> SimDisk {
    let disk = SimDisk::new(1);
    for (name, bytes) in files {
        let file = disk.create(name).expect("room");
        write_all_at(&*file, bytes, 0).expect("room");
        file.sync().expect("synced");
    }
    disk.sync_names().expect("synced");
    disk
}

fn door(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn files_of(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let files = disk.files().into_iter().map(|(name, bytes)| {
        let mut content = vec![0; bytes as usize];
        let file = disk.open(&name).expect("there");
        read_exact_at(&*file, &mut content, 0).expect("readable");
        (name, content)
    });
    files.collect()
}

fn verified(disk: &SimDisk) -> Result<Verified, LookError> {
    let before = files_of(disk);
    let look = Look::at(door(disk), options().limits)?;
    let verified = verify_look(&look, &mut |_, _| {});
    assert_eq!(files_of(disk), before, "nothing is changed");
    Ok(verified)
}

/// The groups of a store that is opened, where they are not as they were, with how they are.
fn changed(disk: &SimDisk, states: &States) -> BTreeMap<GroupKey, Vec<String>> {
    let mut store = ByHand::open(disk, options()).expect("it opens");
    let mut changed = BTreeMap::new();
    for (key, had) in states {
        let has = texts(&mut store, key.as_ref());
        if had.last() != Some(&has) {
            changed.insert(key.clone(), has);
        }
    }
    let set = r#"{"stream_name":"s/1","group_id":"g1","item_id":"new","data":1}"#;
    let done = store.send(read_set(set), 9_000);
    store.turn();
    done.recv().expect("an answer").expect("it takes changes");
    store.close();
    changed
}

#[test]
fn a_whole_store_is_found_so_whether_it_was_closed_or_not() {
    let (files, states) = made();
    let disk = disk_with(&files);
    let verified_ = verified(&disk).expect("a store");
    assert_eq!(verified_.findings, []);
    let items: usize = states.values().map(|had| had[had.len() - 1].len()).sum();
    assert_eq!(verified_.counts.items, items as u64);
    assert_eq!(
        (verified_.counts.streams, verified_.counts.groups),
        (3, states.len() as u64)
    );
    assert!(verified_.counts.records > 10, "some are in the log only");
    let mut say = |line: &str| panic!("{line}");
    assert!(!repair_on(&door(&disk), options().limits, 5, &mut say).expect("nothing to do"));
    let look = Look::at(door(&disk), options().limits).expect("a store");
    for (key, had) in &states {
        let items = look.items(key).expect("items").into_iter();
        let items: Vec<_> = items
            .map(|(id, item)| format!("{id}={}", item.value.as_str()))
            .collect();
        assert_eq!(Some(&items), had.last());
    }
    drop(look);
    assert_eq!(files_of(&disk), files);
    assert_eq!(changed(&disk, &states), BTreeMap::new());
    assert!(!verified(&disk).expect("a store").is_damaged());
}

#[test]
fn a_flipped_bit_is_found_and_repaired_wherever_it_is() {
    let (files, states) = made();
    let mut random = Random::new(11);
    let mut kinds = BTreeSet::new();
    for (index, (name, bytes)) in files.iter().enumerate() {
        if name.starts_with("spare-") {
            continue;
        }
        for turn in 0..10 {
            let mut files = files.clone();
            // Most of a segment is zeros.
            let at = loop {
                let at = random.below(bytes.len() as u64) as usize;
                if bytes[at] != 0 || turn == 0 {
                    break at;
                }
            };
            files[index].1[at] ^= 1 << random.below(8);
            let disk = disk_with(&files);
            let what = format!("byte {at} of {name}");
            let found = match verified(&disk) {
                Ok(found) => found,
                Err(error) => {
                    assert!(error.to_string().contains(name.as_str()), "{what}: {error}");
                    assert!(repair_on(&door(&disk), options().limits, 5, &mut |_| {}).is_err());
                    continue;
                }
            };
            if !found.is_damaged() {
                // Nothing that anybody reads, or the end of what was written last.
                let changed = changed(&disk, &states);
                assert!(changed.len() <= 1, "{what}: {changed:?}");
                for (key, has) in changed {
                    let had = &states[&key];
                    assert_eq!(had[had.len() - 2], has, "{what}");
                }
                continue;
            }
            let damages = found.findings.iter().filter(|finding| finding.is_damage);
            let told: Vec<_> = damages.clone().collect();
            let names_it = |trouble: &super::super::looking::Trouble| {
                trouble.file.contains(name.as_str()) || trouble.what.contains(name.as_str())
            };
            assert!(
                told.iter().any(|finding| names_it(&finding.trouble)),
                "{what}: {told:?}"
            );
            kinds.insert(match name.split_once('-') {
                Some((kind, _)) => kind.to_owned(),
                None => "a stream's file".to_owned(),
            });
            let mut said = Vec::new();
            let mut say = |line: &str| said.push(line.to_owned());
            let repaired = repair_on(&door(&disk), options().limits, 5, &mut say);
            assert!(repaired.expect("repaired"), "{what}");
            let after = verified(&disk).expect("a store");
            let damage = after.findings.iter().find(|finding| finding.is_damage);
            assert_eq!(damage, None, "{what}");
            let kept = disk.files();
            let is_stream = name.ends_with(".stream");
            for (key, has) in changed(&disk, &states) {
                let is_old = has.is_empty() || states[&key].contains(&has);
                assert!(is_old, "{what}: {has:?}");
                let group = format!("group `{}` of stream `{}`", key.group, key.stream);
                let is_told = !is_stream || said.iter().any(|line| line.contains(&group));
                assert!(is_told, "{what}: {key:?} is changed, {said:?}");
                let has_copy = kept.iter().any(|(name, _)| name.starts_with("lost-5-"));
                assert!(has_copy, "{what}: {said:?}");
            }
            let look = Look::at(door(&disk), options().limits).expect("a store");
            assert!(look.manifest.contents.era >= 5, "positions are void");
        }
    }
    assert!(
        kinds.iter().eq(["a stream's file", "log", "manifest"]),
        "{kinds:?}"
    );
}

#[test]
fn a_file_that_is_missing_takes_only_its_own_with_it() {
    let (files, states) = made();
    let logs = files.iter().filter(|(name, _)| name.starts_with("log-"));
    // What ends with a whole segment looks whole.
    let last_log = logs.map(|(name, _)| name.clone()).max().expect("a log");
    for gone in 0..files.len() {
        let mut files = files.clone();
        let (name, _) = files.remove(gone);
        if ["spare-", "manifest-", &last_log]
            .iter()
            .any(|start| name.starts_with(start))
        {
            continue;
        }
        let disk = disk_with(&files);
        let found = verified(&disk).expect("a store");
        assert!(found.is_damaged(), "{name}");
        let mut said = Vec::new();
        let mut say = |line: &str| said.push(line.to_owned());
        let repaired = repair_on(&door(&disk), options().limits, 5, &mut say);
        assert!(repaired.expect("repaired"), "{name}");
        assert!(!verified(&disk).expect("a store").is_damaged(), "{name}");
        for key in changed(&disk, &states).keys() {
            let is_its = stream_file_name(&key.stream) == name || name.starts_with("log-");
            assert!(is_its, "{name}: {key:?}, {said:?}");
        }
    }
}

#[test]
fn a_new_era_is_later_than_any_copy_counted() {
    let (files, _) = made();
    let disk = disk_with(&files);
    let era = |disk: &SimDisk| {
        let look = Look::at(door(disk), options().limits).expect("a store");
        look.manifest.contents.era
    };
    assert_eq!(era(&disk), 0);
    begin_new_era_on(&door(&disk), 1_700_000_000_000).expect("appended");
    assert_eq!(era(&disk), 1_700_000_000_000);
    begin_new_era_on(&door(&disk), 5).expect("appended");
    assert_eq!(era(&disk), 1_700_000_000_001);
}
