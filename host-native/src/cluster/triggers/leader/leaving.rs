//! How a trigger is given up: its cursor is written as it stands, and the lease let go.

use std::sync::Arc;

use super::super::tenure::{Answer, Hold};
use super::Leader;

impl Leader {
    /// Writes the cursor as it stands, and lets the lease go.
    pub(super) async fn give_up(self: &Arc<Self>) {
        self.shared.taps.remove(&self.shared.ground, self);
        let (term, forgets) = {
            let state = self.state.lock();
            state.gate.close();
            (state.tenure.term(), state.forgets)
        };
        if term == 0 {
            return;
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
