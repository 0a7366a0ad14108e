//! The whole store under power cuts, failures, full disks and flipped bits, held against a model: by seeds that tell all.

mod growth;
mod life;
mod lives;
mod model;
mod reads;
mod schedule;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::disk::simulated::{Fate, Fault, Moment};
use super::test_random::Random;
use super::test_seeds::{for_each_seed, setting};
use lives::End;
use world::{Counts, World};

#[test]
fn schedules() {
    let mut counts = Counts::default();
    for_each_seed("crash::schedules", 200, |seed| {
        let options = schedule::options(&mut Random::new(!seed));
        let mut world = World::new(seed, options);
        world.open();
        for _ in 0..3 + seed % 4 {
            world.plan_trouble();
            let actions = 20 + world.random.below(150);
            world.work(actions);
            let end = world.any_end();
            world.restart(end);
        }
        world.check_all();
        world.counts.schedules += 1;
        counts.add(&world.counts);
    });
    eprintln!("{counts:?}");
}

#[test]
fn a_power_cut_at_every_operation() {
    // The first life is the same each time, but for the power cut.
    let begin = |seed| {
        let mut world = World::new(seed, schedule::options(&mut Random::new(!seed)));
        world.open();
        world
    };
    let most = setting("III_STREAM_CRASH_SCHEDULES").unwrap_or(150);
    let mut runs = 0;
    for seed in 0.. {
        let mut whole = begin(seed);
        let before = whole.disk.changes();
        whole.work(70);
        for at in 1..=whole.disk.changes() - before {
            for moment in [Moment::Before, Moment::Midway, Moment::After] {
                let mut world = begin(seed);
                world.disk.plan(Fault::PowerCut { at, moment });
                let ran = catch_unwind(AssertUnwindSafe(|| {
                    world.work(70);
                    let fate = Fate::ALL[world.random.below(8) as usize];
                    world.restart(End::PowerCut(Some(fate)));
                    world.work(20);
                    world.check_all();
                }));
                if let Err(panic) = ran {
                    eprintln!("failed with seed {seed}, power cut {moment:?} change {at}");
                    resume_unwind(panic);
                }
                runs += 1;
                if most <= runs {
                    return;
                }
            }
        }
    }
}
