//! The calls that workers of this instance execute for others. Knows no Redis and calls nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::roster::InstanceId;

/// Whether somebody still waits for the answer of a call.
#[derive(Clone, Debug)]
pub(super) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    pub(super) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Calls by whose they are and their number there.
pub(super) struct Executing {
    calls_max: usize,
    by_caller: HashMap<InstanceId, HashMap<u64, Wanted>>,
    count: usize,
}

impl Executing {
    pub(super) fn new(calls_max: usize) -> Self {
        Self {
            calls_max,
            by_caller: HashMap::new(),
            count: 0,
        }
    }

    /// Notes a call that begins. `None`: there are too many.
    pub(super) fn begin(&mut self, caller: &InstanceId, number: u64) -> Option<Wanted> {
        if self.calls_max <= self.count {
            return None;
        }
        let wanted = Wanted(Arc::new(AtomicBool::new(true)));
        let calls = self.by_caller.entry(caller.clone()).or_default();
        if calls.insert(number, wanted.clone()).is_none() {
            self.count += 1;
        }
        Some(wanted)
    }

    /// Notes that a call has ended, or that nobody waits for it any more.
    pub(super) fn end(&mut self, caller: &str, number: u64) {
        let Some(calls) = self.by_caller.get_mut(caller) else {
            return;
        };
        if let Some(wanted) = calls.remove(&number) {
            wanted.0.store(false, Ordering::Release);
            self.count -= 1;
        }
        if calls.is_empty() {
            self.by_caller.remove(caller);
        }
    }

    /// Notes that nobody waits any more for what an instance has asked for.
    pub(super) fn end_all(&mut self, caller: &str) {
        let calls = self.by_caller.remove(caller).unwrap_or_default();
        self.count -= calls.len();
        for wanted in calls.into_values() {
            wanted.0.store(false, Ordering::Release);
        }
    }

    /// Which of these calls of an instance are not being executed.
    pub(super) fn unknown(&self, caller: &str, numbers: Vec<u64>) -> Vec<u64> {
        let calls = self.by_caller.get(caller);
        let is_unknown = |number: &u64| calls.is_none_or(|calls| !calls.contains_key(number));
        numbers.into_iter().filter(is_unknown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_wanted_until_they_end_or_their_caller_does() {
        let mut executing = Executing::new(3);
        let (a, b) = ("a".into(), "b".into());
        let first = executing.begin(&a, 1).expect("room");
        let second = executing.begin(&a, 2).expect("room");
        let third = executing.begin(&b, 1).expect("room");
        assert!(executing.begin(&b, 2).is_none(), "too many");
        assert_eq!(executing.unknown("a", vec![1, 2, 3]), [3]);
        executing.end("a", 1);
        assert!(!first.is_wanted() && second.is_wanted());
        executing.end_all("a");
        assert!(!second.is_wanted() && third.is_wanted());
        assert_eq!(executing.unknown("a", vec![1, 2]), [1, 2]);
        assert_eq!(executing.count, 1);
    }
}
