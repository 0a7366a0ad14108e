//! Empties the queue of one other instance: one message on its way at a time, so that letters keep their order; while it is, more
//! gather for the next.

use std::sync::Arc;
use std::time::Duration;

use super::letter::{self, Request};
use super::post::Outgoing;
use super::{Calls, Delivery, START_TIME_MAX};
use crate::cluster::roster::InstanceId;
use crate::engine::Failure;

/// Between two attempts to reach an instance.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

impl Calls {
    /// Runs until the queue is empty.
    pub(super) async fn carry(self: Arc<Self>, to: InstanceId) {
        loop {
            let Some(batch) = self.post.lock().take(&to) else {
                return;
            };
            let batch = self.still_needed(&to, batch);
            if batch.is_empty() {
                continue;
            }
            let message = self.write(&to, &batch);
            let delivery = self.wire.send(&to, message).await;
            let letters = batch.into_iter().map(|(letter, _)| letter);
            let kept = match delivery {
                Delivery::Heard => continue,
                Delivery::Unheard => letters
                    .filter(|letter| match letter {
                        Outgoing::Call { number, .. } => self.unheard(*number, &to),
                        Outgoing::Written { .. } => true,
                    })
                    .collect(),
                // Calls may have arrived and are not sent twice; for other letters that does no harm.
                Delivery::Unknown => letters.filter(is_written).collect(),
                Delivery::Unavailable => {
                    let (written, calls): (Vec<_>, Vec<_>) = letters.partition(is_written);
                    let waiting = self.post.lock().take_calls(&to);
                    self.give_up(&to, calls.into_iter().chain(waiting));
                    written
                }
            };
            self.post.lock().put_back(&to, kept);
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Leaves out calls that have ended, and notes that the others may be there from now on.
    fn still_needed(
        &self,
        to: &str,
        batch: Vec<Outgoing>,
    ) -> Vec<(Outgoing, Option<Arc<Request>>)> {
        let mut open = self.open.lock();
        let needed = batch.into_iter().filter_map(|letter| match letter {
            Outgoing::Call { number, .. } => {
                let request = open.send(number, to)?;
                Some((letter, Some(request)))
            }
            Outgoing::Written { .. } => Some((letter, None)),
        });
        needed.collect()
    }

    fn write(&self, to: &str, batch: &[(Outgoing, Option<Arc<Request>>)]) -> String {
        let start_ms = u64::try_from(START_TIME_MAX.as_millis()).unwrap_or(u64::MAX);
        let deadline_ms = self.wire.now_ms(to).saturating_add(start_ms);
        let mut message = letter::begin_message(&self.own);
        for (letter, request) in batch {
            match (letter, request) {
                (Outgoing::Call { number, .. }, Some(request)) => {
                    let text = letter::write_call(*number, request, deadline_ms);
                    letter::push_letter(&mut message, &text);
                }
                (Outgoing::Written { text, .. }, _) => letter::push_letter(&mut message, text),
                (Outgoing::Call { .. }, None) => {}
            }
        }
        message
    }

    /// Ends calls for which there is no way: those that wait too, as their callers have waited long enough.
    fn give_up(&self, to: &str, calls: impl Iterator<Item = Outgoing>) {
        let failure = Failure::new(
            "cluster_unavailable",
            "the function is another instance's, which cannot be asked: Redis is not reachable",
        );
        for call in calls {
            if let Outgoing::Call { number, .. } = call {
                self.end(number, to, &failure);
            }
        }
    }
}

fn is_written(letter: &Outgoing) -> bool {
    matches!(letter, Outgoing::Written { .. })
}
