//! Until when those who asked wait: one bound from the moment a call came, wherever it spends its time. It goes along with the
//! task that works for the call, so that what is read on the way knows it too.

use std::time::{Duration, Instant};

use super::Shared;
use crate::store::{StoreError, StoreErrorCause};

tokio::task_local! {
    static DEADLINE: Instant;
}

/// A call is answered at least so long after it came, also where `wait_max` is shorter: Redis needs a moment.
const ANSWER_TIME_MIN: Duration = Duration::from_secs(1);

/// Works for a call that waits until `deadline`.
pub(super) fn within<F: Future>(
    deadline: Instant,
    work: F,
) -> tokio::task::futures::TaskLocalFuture<Instant, F> {
    DEADLINE.scope(deadline, work)
}

impl Shared {
    /// Until when the call waits that is worked for; as long as a call may wait where it is none.
    pub(super) fn deadline(&self) -> Instant {
        let own = DEADLINE.try_with(|deadline| *deadline);
        own.unwrap_or_else(|_| self.deadline_of(Instant::now()))
    }

    /// Until when a call waits that came at `since`.
    pub(super) fn deadline_of(&self, since: Instant) -> Instant {
        since + self.options.wait_max
    }

    /// Until when it is awaited what became of a call that was sent and came at `since`.
    pub(super) fn answer_deadline_of(&self, since: Instant) -> Instant {
        since + self.options.wait_max.max(ANSWER_TIME_MIN)
    }

    /// Whether a call that came at `since` has waited as long as it may. One that does not wait at all may still be sent.
    pub(super) fn is_overdue(&self, since: Instant) -> bool {
        let wait_max = self.options.wait_max;
        let wait_max = if wait_max.is_zero() {
            ANSWER_TIME_MIN
        } else {
            wait_max
        };
        wait_max <= since.elapsed()
    }

    /// What a call is told that has waited and was not sent.
    pub(super) fn overdue(&self) -> StoreError {
        StoreError::new(
            StoreErrorCause::Unavailable,
            format!(
                "Redis took nothing within {} ms: nothing was done",
                self.options.wait_max.as_millis()
            ),
        )
    }
}
