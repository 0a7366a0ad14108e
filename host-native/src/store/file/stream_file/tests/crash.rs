//! Folds as the store does them, with a manifest, and a power cut at every operation: what the manifest refers to is
//! there, and is what it was.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::super::disk::simulated::Moment;
use super::super::super::manifest::{Edit, GroupKept, Manifest};
use super::super::super::test_seeds::few_or_many;
use super::*;

const GROUPS: [&str; 4] = ["a", "b", "c", "d"];

/// What a group holds: the first number makes the bytes, the second one is how many.
type Groups = BTreeMap<&'static str, (u64, usize)>;

fn payload((seed, bytes): (u64, usize)) -> Vec<u8> {
    Random::new(seed).bytes(bytes)
}

type Started = (Manifest, StreamFile, BTreeMap<&'static str, Extent>, Groups);

/// Starts the store, and checks that each group is there as a whole.
fn start(disk: &SimDisk) -> Result<Started, ()> {
    let failed = |error: &dyn std::fmt::Display| assert!(disk.has_ended(), "{error}");
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = Manifest::open(&door).map_err(|error| failed(&error))?;
    let (manifest, contents) = match opened {
        Some((manifest, contents, _)) => (manifest, contents),
        None => {
            let manifest = Manifest::create(&door, STORE).map_err(|error| failed(&error))?;
            (manifest, Default::default())
        }
    };
    let mut live = BTreeMap::new();
    let mut groups = Groups::new();
    let kept = contents.streams.get("chat");
    for group in GROUPS {
        if let Some(kept) = kept.and_then(|kept| kept.get(group)) {
            live.insert(group, kept.extents[0]);
            groups.insert(
                group,
                (kept.seq, kept.next_expiry_ms.expect("set") as usize),
            );
        }
    }
    let file = if live.is_empty() {
        let file = StreamFile::create(disk, STORE, "chat").map_err(|error| failed(&error))?;
        disk.sync_names().map_err(|error| failed(&error))?;
        file
    } else {
        StreamFile::open(disk, STORE, "chat", live.values().copied())
            .map_err(|error| failed(&error))?
    };
    for (group, extent) in &live {
        let content = file
            .reader()
            .read(*extent)
            .map_err(|error| failed(&error))?;
        assert_eq!(
            content.part(0),
            Some(&payload(groups[group])[..]),
            "{group}"
        );
    }
    Ok((manifest, file, live, groups))
}

/// Folds until the power is cut or all is done: what may be found then.
fn fold(disk: &SimDisk, random: &mut Random, before: Groups) -> [Groups; 2] {
    let Ok((mut manifest, mut file, mut live, mut groups)) = start(disk) else {
        return [before.clone(), before];
    };
    assert_eq!(groups, before);
    for _ in 0..6 {
        let mut after = groups.clone();
        let (mut edits, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..1 + random.below(3) {
            let group = GROUPS[random.below(4) as usize];
            let made = (random.next(), random.below(5000) as usize);
            if new.iter().any(|(other, _)| *other == group) {
                continue;
            }
            let Ok(extent) = file.write(1, &[&payload(made)]) else {
                return [groups.clone(), groups];
            };
            after.insert(group, made);
            new.push((group, extent));
            old.extend(live.get(group));
            edits.push(Edit::Group {
                stream: "chat",
                group,
                kept: Cow::Owned(GroupKept {
                    epoch: "e".into(),
                    seq: made.0,
                    has_items: true,
                    has_clients: false,
                    has_image: true,
                    next_expiry_ms: Some(made.1 as u64),
                    extents: vec![extent],
                }),
            });
        }
        if file.sync().is_err() || manifest.append(edits).is_err() {
            return [groups, after];
        }
        live.extend(new);
        groups = after;
        file.release(old);
        if file.shrink().is_err() {
            break;
        }
    }
    [groups.clone(), groups]
}

#[test]
fn what_the_manifest_refers_to_is_there_after_a_power_cut_at_any_operation() {
    for seed in 0..few_or_many(10, 40) {
        let whole = SimDisk::new(seed);
        fold(&whole, &mut Random::new(seed), Groups::new());
        for at in 1..=whole.changes() {
            let disk = SimDisk::new(seed);
            disk.plan(Fault::PowerCut {
                at,
                moment: Moment::Midway,
            });
            let possible = fold(&disk, &mut Random::new(seed), Groups::new());
            for fate in 0..3 {
                let left = disk.after_power_cut(at * 3 + fate);
                let (.., found) = start(&left).expect("no more cuts");
                assert!(
                    possible.contains(&found),
                    "seed {seed}, cut {at}, fate {fate}"
                );
            }
        }
    }
}

#[test]
fn one_power_cut_after_the_other_loses_nothing() {
    for seed in 0..few_or_many(60, 300) {
        let mut random = Random::new(seed);
        let mut disk = SimDisk::new(seed);
        let mut groups = Groups::new();
        for _ in 0..8 {
            disk.plan(Fault::ShortWrites { percent: 20 });
            disk.plan(Fault::PowerCut {
                at: 1 + random.below(40),
                moment: Moment::Midway,
            });
            let possible = fold(&disk, &mut random, groups);
            disk = disk.after_power_cut(random.next());
            let (.., found) = start(&disk).expect("no cut is planned");
            assert!(possible.contains(&found), "seed {seed}");
            groups = found;
            disk = disk.after_power_cut(random.next());
        }
    }
}
