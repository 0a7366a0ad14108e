//! What becomes of a member when the group's history begins anew: sequences of the old one say nothing of the new one, so
//! all that was told is forgotten, and all of its subscriptions begin anew with a snapshot.

use super::{Context, Member, Standing};

impl Member {
    /// Learns that the history has ended, of which `context` still is. Where it goes on under its name, `kept_seq` is its last
    /// change that there still is: whoever was told of no later one goes on.
    ///
    /// Changes of the new history are held back until its subscriptions begin anew.
    pub(in crate::hub) fn restart(
        &mut self,
        restarts: u32,
        kept_seq: Option<u64>,
        context: Context<'_>,
    ) {
        if std::mem::replace(&mut self.restarts, restarts) == restarts {
            return;
        }
        if kept_seq.is_some_and(|kept_seq| self.last_known_seq() <= kept_seq) {
            return;
        }
        if let Some(hold) = &mut self.hold {
            let held = hold.take();
            // What they were to be shown has happened, and version 1 is not to miss its custom events.
            if !self.is_some_behind() || !self.dialect.is_version_2 {
                self.send(&held, context);
            }
        }
        (self.seen, self.synced, self.lags_since) = (0, 0, None);
        for subscription in &mut self.subscriptions {
            subscription.synced = 0;
            subscription.standing = Standing::Restarted;
        }
        if !self.is_restarted && !self.subscriptions.is_empty() {
            self.is_restarted = true;
            self.hold();
            self.outbox.want_room();
        }
    }

    /// The last change that this member was told of in some way, or holds back.
    fn last_known_seq(&self) -> u64 {
        let synced = self.subscriptions.iter().map(|other| other.synced).max();
        let held = self.hold.as_ref().and_then(|hold| hold.changes.last());
        let held = held.map_or(0, |change| change.seq);
        self.seen
            .max(self.synced)
            .max(synced.unwrap_or(0))
            .max(held)
    }
}
