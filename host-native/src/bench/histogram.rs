//! Latencies in a fixed table: recording costs an increment, quantiles are exact to 0.8 %.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: u64 = 128;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// Up to 2^40 ns, 18 minutes: longer than any reply the bench waits for.
const BUCKETS: usize = (STEPS * (40 - STEPS_LOG2 as u64 + 1)) as usize;

/// A count per latency, in nanoseconds.
pub struct Histogram {
    counts: Vec<u32>,
    total: u64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Without a record.
    pub fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            longest: Duration::ZERO,
        }
    }

    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns).min(BUCKETS - 1)] += 1;
        self.total += 1;
        self.longest = self.longest.max(latency);
    }

    /// Forgets all records.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
        self.longest = Duration::ZERO;
    }

    /// The longest of all, in microseconds.
    pub fn max_us(&self) -> f64 {
        self.longest.as_secs_f64() * 1e6
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency that a share `q` (0 to 1) of all records does not exceed, in microseconds; 0 when empty.
    pub fn quantile_us(&self, q: f64) -> f64 {
        let rank = ((self.total as f64) * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if rank <= seen {
                return middle(index) / 1000.0;
            }
        }
        0.0
    }
}

/// Below `STEPS` one bucket a nanosecond, above it `STEPS` buckets for every doubling.
fn bucket(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let doubling = ns.ilog2() - STEPS_LOG2;
    ((u64::from(doubling) * STEPS) + (ns >> doubling)) as usize
}

/// The middle of a bucket in nanoseconds.
fn middle(index: usize) -> f64 {
    let index = index as u64;
    if index < STEPS {
        return index as f64;
    }
    let doubling = index / STEPS - 1;
    let low = (index - doubling * STEPS) << doubling;
    low as f64 + ((1u64 << doubling) as f64 - 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_near_the_middle_of_its_bucket() {
        for ns in (0..34).flat_map(|bit| [1u64 << bit, (1 << bit) + 1, (3 << bit) - 1]) {
            let near = middle(bucket(ns));
            assert!(
                (near - ns as f64).abs() <= ns as f64 / 128.0,
                "{ns} read as {near}"
            );
        }
    }

    #[test]
    fn quantiles_of_a_ramp() {
        let mut histogram = Histogram::new();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        assert!((histogram.quantile_us(0.5) - 500.0).abs() < 5.0);
        assert!((histogram.quantile_us(0.99) - 990.0).abs() < 9.0);
        assert_eq!(histogram.total(), 1000);
    }
}
