//! Times small pieces of code in batches, many kinds in turn.

use std::time::{Duration, Instant};

use crate::spread::Spread;

/// Runs of one batch: enough that reading the clock twice costs nothing beside them.
const BATCH: u32 = 64;
/// Every kind is visited this often, so that a slow moment hits all of them.
const TURNS: u32 = 10;
/// The share of batches that is at least as fast as what is called their best decile.
const BEST: f64 = 0.1;

/// One kind of work; a run of it is one operation.
pub(crate) struct Kind<'w> {
    pub(crate) name: &'static str,
    pub(crate) work: Box<dyn FnMut(u32) + 'w>,
}

/// Nanoseconds per operation, over the turns.
pub(crate) struct Cost {
    /// Of the best tenth of a turn's batches: the code's own cost, whatever else the machine does.
    pub(crate) best_decile: Spread,
    pub(crate) median: Spread,
}

impl<'w> Kind<'w> {
    /// Work that is the same each time; what it gives is handed to the optimiser's blind spot.
    pub(crate) fn new<T>(name: &'static str, mut once: impl FnMut() -> T + 'w) -> Self {
        let work = move |runs| {
            for _ in 0..runs {
                std::hint::black_box(once());
            }
        };
        Self {
            name,
            work: Box::new(work),
        }
    }
}

/// Gives every kind `share` of time in all, after a warm-up of a tenth of it.
pub(crate) fn time(kinds: &mut [Kind<'_>], share: Duration) -> Vec<Cost> {
    let turn = share / TURNS;
    for kind in kinds.iter_mut() {
        batches(kind, turn);
    }
    let mut turns: Vec<Vec<Vec<f64>>> = kinds.iter().map(|_| Vec::new()).collect();
    for _ in 0..TURNS {
        for (kind, turns) in kinds.iter_mut().zip(&mut turns) {
            turns.push(batches(kind, turn));
        }
    }
    turns.iter().map(|turns| Cost::of(turns)).collect()
}

/// The batches of one turn, sorted; at least one.
fn batches(kind: &mut Kind<'_>, turn: Duration) -> Vec<f64> {
    let end = Instant::now() + turn;
    let mut batches = Vec::new();
    loop {
        let start = Instant::now();
        (kind.work)(BATCH);
        let stop = Instant::now();
        batches.push((stop - start).as_nanos() as f64 / f64::from(BATCH));
        if end <= stop {
            break;
        }
    }
    batches.sort_by(f64::total_cmp);
    batches
}

impl Cost {
    fn of(turns: &[Vec<f64>]) -> Self {
        let at = |share: f64| {
            let pick = |turn: &Vec<f64>| turn[((turn.len() - 1) as f64 * share) as usize];
            Spread::of(turns.iter().map(pick))
        };
        Self {
            best_decile: at(BEST),
            median: at(0.5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_gets_a_cost() {
        let mut runs = 0_u64;
        let mut kinds = [
            Kind::new("count", || runs += 1),
            Kind::new("nothing", || ()),
        ];
        let costs = time(&mut kinds, Duration::from_millis(1));
        assert_eq!(costs.len(), 2);
        assert!(costs[0].best_decile.median <= costs[0].median.median);
        drop(kinds);
        assert!(u64::from(BATCH * TURNS) <= runs);
    }
}
