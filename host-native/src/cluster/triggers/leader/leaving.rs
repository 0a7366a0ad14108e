//! How a trigger is given up: its cursor is written as it stands, and the lease let go.

use std::sync::Arc;
use std::time::Duration;

use super::super::tenure::{Answer, Hold};
use super::{Leader, State};

/// How long the answers of handlers that are not bound any more are looked for. They have come by then, or do not count.
const LANES_END_TIME_MAX: Duration = Duration::from_millis(500);

impl Leader {
    /// Writes the cursor as it stands, and lets the lease go.
    pub(super) async fn give_up(self: &Arc<Self>) {
        self.shared.taps.remove(&self.shared.ground, self);
        let (term, forgets, is_unbound) = {
            let state = self.state.lock();
            state.gate.close();
            let is_unbound = state.lanes.is_empty();
            (state.tenure.term(), state.forgets, is_unbound)
        };
        if term == 0 {
            return;
        }
        if is_unbound && !forgets {
            // Lanes that have ended let go at once of all that has no answer; one may still wait for a condition.
            let _ = tokio::time::timeout(LANES_END_TIME_MAX, self.lanes_ended()).await;
        }
        if !forgets && !self.write_all(term).await {
            // Another one leads, or Redis is away: the lease ends by itself, and the cursor is an older one.
            tracing::warn!(trigger = %self.identity, "a stream trigger was given up without its last place: what was just called may be called again");
            return;
        }
        self.shared
            .ground
            .release(&self.identity, term, forgets)
            .await;
    }

    /// Waits until nothing that was handed over is in a lane.
    async fn lanes_ended(&self) {
        let has_open = |state: &State| {
            let pursuit = state.tenure.pursuit.as_ref();
            pursuit.is_some_and(|pursuit| 0 < pursuit.open())
        };
        while has_open(&self.state.lock()) {
            self.wake.notified().await;
        }
    }

    /// Writes all that is new in the cursor. Whether it is written.
    async fn write_all(&self, term: u64) -> bool {
        loop {
            let delta = {
                let mut state = self.state.lock();
                let Some(pursuit) = &mut state.tenure.pursuit else {
                    return false;
                };
                pursuit.delta()
            };
            let has_more = delta.has_more;
            let hold = Hold {
                term,
                fresh_ms: 0,
                seize_until_ms: 0,
                delta,
            };
            let answer = self.shared.ground.hold(&self.identity, &hold).await;
            if !matches!(answer, Some(Answer::Renewed)) {
                return false;
            }
            if !has_more {
                return true;
            }
        }
    }
}
