//! How calls of the server's own functions end, and how long they take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::number::{Counter, Histogram, TimeBuckets};
use super::page::{Metric, Samples, with_label};

/// Numbers of each of the server's own functions.
#[derive(Debug, Default)]
pub struct ByFunction<T>(Mutex<BTreeMap<Box<str>, Arc<T>>>);

impl<T: Default> ByFunction<T> {
    /// The numbers of one function. Taken once, when it is registered.
    pub fn of(&self, id: &str) -> Arc<T> {
        self.0.lock().entry(id.into()).or_default().clone()
    }
}

impl<T: Metric> Metric for ByFunction<T> {
    const TYPE: &'static str = T::TYPE;

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        for (id, metric) in &*self.0.lock() {
            metric.write(samples, &with_label(labels, "function", id));
        }
    }
}

/// Most error codes of one function that are counted apart; further ones are counted as `other`.
const CODES_MAX: usize = 64;

/// How calls of one function ended.
#[derive(Debug, Default)]
pub struct Outcomes {
    ok: Counter,
    errors: Mutex<BTreeMap<Box<str>, u64>>,
}

impl Outcomes {
    /// A call that was answered with an error.
    pub fn failed(&self, code: &str) {
        let mut errors = self.errors.lock();
        let is_counted_apart = errors.len() < CODES_MAX || errors.contains_key(code);
        let code = if is_counted_apart { code } else { "other" };
        *errors.entry(code.into()).or_default() += 1;
    }
}

impl Metric for Outcomes {
    const TYPE: &'static str = "counter";

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        samples.add("", &with_label(labels, "outcome", "ok"), self.ok.get());
        for (code, count) in &*self.errors.lock() {
            samples.add("", &with_label(labels, "outcome", code), *count);
        }
    }
}

/// The numbers of one of the server's own functions.
#[derive(Debug)]
pub struct FunctionCalls {
    pub(super) outcomes: Arc<Outcomes>,
    pub(super) seconds: Arc<Histogram<TimeBuckets>>,
}

impl FunctionCalls {
    /// A call that was answered now; `error` is the code of its error.
    pub fn answered(&self, since: Instant, error: Option<&str>) {
        self.seconds.observe_time(since.elapsed());
        match error {
            None => self.outcomes.ok.inc(),
            Some(code) => self.outcomes.failed(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn codes_are_counted_apart_up_to_a_bound() {
        let metrics = Metrics::default();
        let calls = metrics.function("stream::set");
        calls.answered(Instant::now(), None);
        for code in 0..2 * CODES_MAX {
            calls.answered(Instant::now(), Some(&format!("code_{code}")));
        }
        let mut page = crate::metrics::Page::default();
        page.metric("c", "help", &metrics.calls);
        let text = page.into_text();
        assert!(
            text.contains("c{function=\"stream::set\",outcome=\"ok\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("c{function=\"stream::set\",outcome=\"other\"} 64\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2 + 1 + CODES_MAX + 1);
    }
}
