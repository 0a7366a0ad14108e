//! The power is cut at every operation: what was synced is there.

use super::super::super::disk::simulated::Moment;
use super::super::super::test_seeds::few_or_many;
use super::*;

/// What may be found: `None` for no manifest.
type Possible = Vec<Option<Contents>>;

/// Works until the power is cut or the steps are done. What may be found then, and how many steps were done.
fn work(disk: &SimDisk, random: &mut Random, before: Option<Contents>, steps: u64) -> Possible {
    let door = door(disk);
    let Ok(opened) = Manifest::open(&door) else {
        assert!(disk.has_ended());
        return vec![before];
    };
    let (mut manifest, mut contents) = match opened {
        Some((manifest, contents, _)) => (manifest, contents),
        None => match Manifest::create(&door, STORE) {
            Ok(manifest) => (manifest, nothing()),
            Err(_) => return vec![before, Some(nothing())],
        },
    };
    for _ in 0..steps {
        let edits = random_edits(random);
        let after = with(contents.clone(), &edits);
        let result = match random.below(4) {
            0 => manifest.rewrite(after.edits()),
            _ => manifest.append(edits),
        };
        if let Err(error) = result {
            assert!(disk.has_ended(), "{error}");
            return vec![Some(contents), Some(after)];
        }
        contents = after;
    }
    vec![Some(contents)]
}

fn found(disk: &SimDisk) -> Option<Contents> {
    let opened = Manifest::open(&door(disk)).unwrap_or_else(|error| panic!("{error}"));
    opened.map(|(_, contents, _)| contents)
}

#[test]
fn what_was_synced_is_there_after_a_power_cut_at_any_operation() {
    const STEPS: u64 = 12;
    let mut cuts = 0;
    for seed in 0..few_or_many(8, 30) {
        let whole = SimDisk::new(seed);
        work(&whole, &mut Random::new(seed), None, STEPS);
        for at in 1..=whole.changes() {
            for moment in [Moment::Before, Moment::Midway, Moment::After] {
                let disk = SimDisk::new(seed);
                disk.plan(Fault::PowerCut { at, moment });
                let possible = work(&disk, &mut Random::new(seed), None, STEPS);
                for fate in 0..4 {
                    let left = disk.after_power_cut(at * 4 + fate);
                    let found = found(&left);
                    assert!(
                        possible.contains(&found),
                        "seed {seed}, cut {moment:?} {at}, fate {fate}"
                    );
                    cuts += 1;
                }
            }
        }
    }
    assert!(cuts > 1_000, "{cuts}");
}

#[test]
fn cuts_while_starting_again_lose_nothing_either() {
    for seed in 0..few_or_many(100, 400) {
        let mut random = Random::new(seed);
        let mut disk = SimDisk::new(seed);
        let mut possible = vec![None];
        for generation in 0..8 {
            disk.plan(Fault::ShortWrites { percent: 20 });
            disk.plan(Fault::ShortReads { percent: 20 });
            let before = found(&disk);
            assert!(possible.contains(&before), "seed {seed}, {generation}");
            disk = disk.after_power_cut(random.next());
            let before_again = found(&disk.after_kill());
            assert_eq!(before_again, before, "seed {seed}: what was read is lost");
            disk = disk.after_power_cut(random.next());
            disk.plan(Fault::PowerCut {
                at: 1 + random.below(25),
                moment: Moment::Midway,
            });
            possible = work(&disk, &mut random, before, 10);
            disk = disk.after_power_cut(random.next());
        }
    }
}
