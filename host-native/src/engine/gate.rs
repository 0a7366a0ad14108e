//! Says whether calls of a trigger may leave: where several instances share one, only that which leads it may call, and only
//! as long as it knows that it does.

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// See the module. It is open until a moment, which can be moved.
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    until: Instant,
    is_closed: bool,
}

/// Whether a call may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It may.
    Open,
    /// It must wait: it may be allowed later.
    Shut,
    /// It never may.
    Closed,
}

/// What goes with a call through a lane. It is dropped when the call is done with: answered, not wanted, or given up.
pub(crate) trait Ticket: Send + Sync {
    /// What must be open when the call leaves.
    fn gate(&self) -> &Gate;

    /// A lane is done with the call; whether its handler answered.
    fn leaves_lane(&self, is_answered: bool);
}

impl Gate {
    /// A gate that is open until then.
    pub(crate) fn open_until(until: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                until,
                is_closed: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Moves the moment.
    pub(crate) fn extend(&self, until: Instant) {
        self.state.lock().until = until;
        self.changed.notify_waiters();
    }

    /// Closes it for ever.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    pub(crate) fn passage(&self) -> Passage {
        let state = self.state.lock();
        match (state.is_closed, Instant::now() < state.until) {
            (true, _) => Passage::Closed,
            (false, true) => Passage::Open,
            (false, false) => Passage::Shut,
        }
    }

    /// Waits until a call may leave, or never may.
    pub(crate) async fn settled(&self) -> Passage {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.passage() {
                Passage::Shut => changed.await,
                settled => return settled,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_gate_that_shut_by_itself_opens_again() {
        let gate = Arc::new(Gate::open_until(Instant::now()));
        assert_eq!(gate.passage(), Passage::Shut);
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.settled().await }
        });
        tokio::task::yield_now().await;
        gate.extend(Instant::now() + Duration::from_secs(60));
        assert_eq!(waiting.await.expect("ends"), Passage::Open);
        gate.close();
        assert_eq!(gate.settled().await, Passage::Closed);
    }
}
