//! Numbers that many threads count at once: counters, gauges, histograms.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::page::{Metric, Samples, with_label};
use crate::clock;

/// Each number is kept in so many parts, so that threads seldom write to the same cache line. A power of two.
const PARTS: usize = 8;

/// A part on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Part<T>(T);

/// The part that this thread writes to.
fn part() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PART: usize = NEXT.fetch_add(1, Ordering::Relaxed) % PARTS;
    }
    PART.with(|part| *part)
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter([Part<AtomicU64>; PARTS]);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// So many more.
    pub fn inc_by(&self, count: u64) {
        self.0[part()].0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0
            .iter()
            .map(|part| part.0.load(Ordering::Relaxed))
            .sum()
    }
}

impl Metric for Counter {
    const TYPE: &'static str = "counter";

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        samples.add("", labels, self.get());
    }
}

/// A number that grows and shrinks.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many now.
    pub fn set(&self, count: usize) {
        self.0
            .store(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metric for Gauge {
    const TYPE: &'static str = "gauge";

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        samples.add("", labels, self.get());
    }
}

/// How far the latest timestamp that was given is ahead of the clock. Hot items run ahead: each of their changes takes a
/// millisecond of its own.
#[derive(Debug, Default)]
pub struct TimestampLead(AtomicU64);

impl TimestampLead {
    /// Notes a timestamp, in Unix milliseconds.
    pub fn note(&self, timestamp_ms: u64) {
        // Most are not later than the last one, and reading disturbs no other thread.
        if self.0.load(Ordering::Relaxed) < timestamp_ms {
            self.0.fetch_max(timestamp_ms, Ordering::Relaxed);
        }
    }

    fn ms(&self, now_ms: u64) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_sub(now_ms)
    }
}

impl Metric for TimestampLead {
    const TYPE: &'static str = "gauge";

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        samples.add("", labels, self.ms(clock::unix_ms()) as f64 / 1e3);
    }
}

/// Where the buckets of a histogram end.
pub trait Buckets {
    /// The upper ends, rising, in the unit that is counted in.
    const ENDS: &'static [u64];
    /// How many of that unit make one of the unit that is shown.
    const PER_SHOWN: f64;
}

/// Times: counted in nanoseconds, shown in seconds, from 10 µs to 10 s.
#[derive(Debug)]
pub struct TimeBuckets;

impl Buckets for TimeBuckets {
    const ENDS: &'static [u64] = &[
        10_000,
        30_000,
        100_000,
        300_000,
        1_000_000,
        3_000_000,
        10_000_000,
        30_000_000,
        100_000_000,
        300_000_000,
        1_000_000_000,
        3_000_000_000,
        10_000_000_000,
    ];
    const PER_SHOWN: f64 = 1e9;
}

/// Numbers of messages, from 1 to 100,000.
#[derive(Debug)]
pub struct MessageBuckets;

impl Buckets for MessageBuckets {
    const ENDS: &'static [u64] = &[1, 10, 100, 1_000, 10_000, 100_000];
    const PER_SHOWN: f64 = 1.0;
}

/// Most buckets of a histogram, with the one for what lies above all ends.
const BUCKETS_MAX: usize = 14;

/// How often values fell between the ends of buckets, and their sum.
#[derive(Debug)]
pub struct Histogram<B> {
    parts: [Part<HistogramPart>; PARTS],
    buckets: PhantomData<B>,
}

#[derive(Debug, Default)]
struct HistogramPart {
    counts: [AtomicU64; BUCKETS_MAX],
    sum: AtomicU64,
}

impl<B> Default for Histogram<B> {
    fn default() -> Self {
        Self {
            parts: Default::default(),
            buckets: PhantomData,
        }
    }
}

impl<B: Buckets> Histogram<B> {
    /// Counts a value, in the unit that is counted in.
    pub fn observe(&self, value: u64) {
        const { assert!(B::ENDS.len() < BUCKETS_MAX) };
        let bucket = B::ENDS.iter().take_while(|end| **end < value).count();
        let part = &self.parts[part()].0;
        part.counts[bucket].fetch_add(1, Ordering::Relaxed);
        part.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn sum_of(&self, number: impl Fn(&HistogramPart) -> &AtomicU64) -> u64 {
        let numbers = self.parts.iter().map(|part| number(&part.0));
        numbers.map(|number| number.load(Ordering::Relaxed)).sum()
    }
}

impl Histogram<TimeBuckets> {
    /// Counts how long something took.
    pub fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl<B: Buckets> Metric for Histogram<B> {
    const TYPE: &'static str = "histogram";

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        let mut count = 0;
        for (bucket, end) in B::ENDS.iter().enumerate() {
            count += self.sum_of(|part| &part.counts[bucket]);
            let end = (*end as f64 / B::PER_SHOWN).to_string();
            samples.add("_bucket", &with_label(labels, "le", &end), count);
        }
        count += self.sum_of(|part| &part.counts[B::ENDS.len()]);
        samples.add("_bucket", &with_label(labels, "le", "+Inf"), count);
        let sum = self.sum_of(|part| &part.sum) as f64 / B::PER_SHOWN;
        samples.add("_sum", labels, sum);
        samples.add("_count", labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Page;

    #[test]
    fn nothing_counted_by_many_threads_is_lost() {
        let (counter, messages) = (Counter::default(), Histogram::<MessageBuckets>::default());
        std::thread::scope(|scope| {
            for _ in 0..2 * PARTS {
                scope.spawn(|| {
                    for value in 0..1_000 {
                        counter.inc();
                        messages.observe(value);
                    }
                });
            }
        });
        assert_eq!(counter.get(), 16_000);
        assert_eq!(messages.sum_of(|part| &part.sum), 16 * 499_500);
    }

    #[test]
    fn buckets_hold_what_is_not_above_their_end() {
        let messages = Histogram::<MessageBuckets>::default();
        for value in [0, 1, 2, 10, 11, 1_000_000] {
            messages.observe(value);
        }
        let mut page = Page::default();
        page.metric("m", "help", &messages);
        let text = page.into_text();
        for line in [
            r#"m_bucket{le="1"} 2"#,
            r#"m_bucket{le="10"} 4"#,
            r#"m_bucket{le="100"} 5"#,
            r#"m_bucket{le="100000"} 5"#,
            r#"m_bucket{le="+Inf"} 6"#,
            "m_sum 1000024",
            "m_count 6",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
        let times = Histogram::<TimeBuckets>::default();
        times.observe_time(Duration::from_micros(20));
        let mut page = Page::default();
        page.metric("t", "help", &times);
        let text = page.into_text();
        assert!(text.contains("t_bucket{le=\"0.00001\"} 0\n"), "{text}");
        assert!(text.contains("t_bucket{le=\"0.00003\"} 1\n"), "{text}");
        assert!(text.contains("t_sum 0.00002\n"), "{text}");
    }

    #[test]
    fn the_lead_is_that_of_the_latest_timestamp() {
        let lead = TimestampLead::default();
        lead.note(5_000);
        lead.note(4_000);
        assert_eq!((lead.ms(4_500), lead.ms(6_000)), (500, 0));
    }
}
