//! Which seeds the tests run that go by seeds: a few, `III_STREAM_CRASH_SCHEDULES=N` of them, or only `III_STREAM_CRASH_SEED=S`.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A number from the environment.
pub(super) fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} should be a number, not {text:?}")),
    )
}

/// How much of it is done: `few`, or `many` where a number of schedules is named.
pub(super) fn few_or_many(few: u64, many: u64) -> u64 {
    match setting("III_STREAM_CRASH_SCHEDULES") {
        None => few,
        Some(_) => many,
    }
}

/// Which seeds a test runs: so many, or those that the environment names.
pub(super) fn seeds(few: u64) -> Range<u64> {
    if let Some(seed) = setting("III_STREAM_CRASH_SEED") {
        return seed..seed + 1;
    }
    0..setting("III_STREAM_CRASH_SCHEDULES").unwrap_or(few)
}

/// Runs a test for each seed, and says which one failed.
pub(super) fn for_each_seed(test: &str, few: u64, mut run: impl FnMut(u64)) {
    for seed in seeds(few) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!(
                "failed with III_STREAM_CRASH_SEED={seed} cargo test -p iii-stream --lib {test}"
            );
            resume_unwind(panic);
        }
    }
}
