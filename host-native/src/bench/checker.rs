//! Whether one receiver got everything exactly once and in order.

use std::collections::BTreeSet;
use std::ops::AddAssign;

/// What went wrong, in numbers of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Never came.
    pub lost: u64,
    /// Came again.
    pub duplicated: u64,
    /// Came after a later one, or with a sequence that is not theirs.
    pub misordered: u64,
}

impl Faults {
    /// Whether there are none.
    pub fn is_clean(self) -> bool {
        self == Self::default()
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.misordered += other.misordered;
    }
}

/// Follows the counters that one receiver sees.
#[derive(Debug, Default)]
pub struct Checker {
    /// The counter that comes next when nothing goes wrong.
    next: u64,
    /// What the sequence of a counter is more than the counter.
    offset: Option<u64>,
    /// Counters below `next` that have not come; empty unless something is wrong.
    missing: BTreeSet<u64>,
    duplicated: u64,
    misordered: u64,
}

impl Checker {
    /// Expects this counter next; its sequence, where there are sequences, is `seq`.
    pub fn begin(next: u64, seq: Option<u64>) -> Self {
        Self {
            next,
            offset: seq.map(|seq| seq.wrapping_sub(next)),
            ..Self::default()
        }
    }

    /// The sequence that the counter which comes next will have, where there are sequences.
    pub fn place(&mut self, next_seq: Option<u64>) {
        self.offset = next_seq.map(|seq| seq.wrapping_sub(self.next));
    }

    /// Takes what came. Answers whether it came for the first time.
    pub fn take(&mut self, counter: u64, seq: Option<u64>) -> bool {
        let has_wrong_seq = match (self.offset, seq) {
            (Some(offset), Some(seq)) => seq != counter.wrapping_add(offset),
            _ => false,
        };
        if counter == self.next {
            self.next += 1;
            self.misordered += u64::from(has_wrong_seq);
            return true;
        }
        if self.next < counter {
            self.missing.extend(self.next..counter);
            self.next = counter + 1;
            self.misordered += u64::from(has_wrong_seq);
            return true;
        }
        let is_late = self.missing.remove(&counter);
        if is_late {
            self.misordered += 1;
        } else {
            self.duplicated += 1;
        }
        is_late
    }

    /// What went wrong, where all counters below `published` should have come.
    pub fn faults(&self, published: u64) -> Faults {
        Faults {
            lost: self.missing.len() as u64 + published.saturating_sub(self.next),
            duplicated: self.duplicated,
            misordered: self.misordered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(counters: &[u64], published: u64) -> Faults {
        let mut checker = Checker::begin(0, None);
        for counter in counters {
            checker.take(*counter, None);
        }
        checker.faults(published)
    }

    fn faults(lost: u64, duplicated: u64, misordered: u64) -> Faults {
        Faults {
            lost,
            duplicated,
            misordered,
        }
    }

    #[test]
    fn a_sequence_without_fault_is_clean() {
        assert!(faults_of(&[0, 1, 2, 3], 4).is_clean());
        assert!(faults_of(&[], 0).is_clean());
    }

    #[test]
    fn each_fault_is_counted_as_what_it_is() {
        assert_eq!(faults_of(&[0, 1, 4, 5], 6), faults(2, 0, 0));
        assert_eq!(faults_of(&[0, 1, 2], 5), faults(2, 0, 0));
        assert_eq!(faults_of(&[0, 1, 1, 2, 0], 3), faults(0, 2, 0));
        assert_eq!(faults_of(&[0, 2, 1, 3], 4), faults(0, 0, 1));
        // 3 never comes, 1 comes late, 4 comes twice.
        assert_eq!(faults_of(&[0, 2, 1, 4, 4], 5), faults(1, 1, 1));
    }

    #[test]
    fn a_late_event_counts_as_delivered_and_a_second_one_does_not() {
        let mut checker = Checker::begin(7, None);
        let first: Vec<bool> = [7, 9, 8, 8].map(|n| checker.take(n, None)).into();
        assert_eq!(first, [true, true, true, false]);
    }

    #[test]
    fn a_sequence_that_is_not_the_counters_is_a_fault() {
        let mut checker = Checker::begin(0, Some(41));
        for (counter, seq) in [(0, 41), (1, 42), (2, 44), (3, 44)] {
            checker.take(counter, Some(seq));
        }
        assert_eq!(checker.faults(4), faults(0, 0, 1));
    }
}
