//! Growing pauses between attempts, with jitter so that many clients do not come back in step.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use super::options::{BACKOFF_FIRST, BACKOFF_MAX};

/// The pauses of one series of attempts.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            next: BACKOFF_FIRST,
        }
    }
}

impl Backoff {
    /// The next pause: twice the last one, of which at least half.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(BACKOFF_MAX);
        jittered(pause)
    }
}

/// Between half of a time and all of it.
pub(super) fn jittered(time: Duration) -> Duration {
    // Each state has keys of its own: random enough, and no crate for it.
    let random = RandomState::new().hash_one(0_u8) as u32;
    let share = f64::from(random) / f64::from(u32::MAX);
    time.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..12).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= BACKOFF_FIRST && pauses[0] >= BACKOFF_FIRST / 2);
        assert!(pauses[11] <= BACKOFF_MAX && pauses[11] >= BACKOFF_MAX / 2);
    }
}
