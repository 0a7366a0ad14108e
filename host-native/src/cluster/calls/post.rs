//! What waits to be sent to each other instance. Knows no Redis and no calls.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::roster::InstanceId;

/// One message carries about so many bytes of letters at most, unless a single letter is larger.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// One message carries so many letters at most.
const BATCH_LETTERS_MAX: usize = 1_000;

/// How long a letter is kept for an instance that cannot be reached.
const KEPT_TIME_MAX: Duration = Duration::from_secs(60);

/// A letter that waits.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A call, written when it leaves.
    Call { number: u64, bytes: usize },
    /// A letter that is written already. It is kept until it is delivered.
    Written { text: String, since: Instant },
}

impl Outgoing {
    pub(super) fn written(text: String) -> Self {
        Self::Written {
            text,
            since: Instant::now(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Call { bytes, .. } => *bytes,
            Self::Written { text, .. } => text.len(),
        }
    }

    /// Bytes that only this queue holds; those of calls are counted where they are kept.
    fn held(&self) -> usize {
        match self {
            Self::Call { .. } => 0,
            Self::Written { text, .. } => text.len(),
        }
    }

    fn is_outdated(&self) -> bool {
        match self {
            Self::Call { .. } => false,
            Self::Written { since, .. } => KEPT_TIME_MAX <= since.elapsed(),
        }
    }
}

/// Queues by whom they are for. While a queue is there, somebody empties it.
#[derive(Debug, Default)]
pub(super) struct Post {
    queues: HashMap<InstanceId, VecDeque<Outgoing>>,
    held_bytes: usize,
}

impl Post {
    /// Adds a letter. Whether somebody has to begin to empty the queue.
    pub(super) fn push(&mut self, to: &InstanceId, letter: Outgoing) -> bool {
        self.held_bytes += letter.held();
        match self.queues.get_mut(to) {
            Some(queue) => {
                queue.push_back(letter);
                false
            }
            None => {
                self.queues.insert(to.clone(), VecDeque::from([letter]));
                true
            }
        }
    }

    /// How many bytes of written letters wait.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether nothing waits and nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Takes what goes into the next message. `None` when nothing is left: then the queue is no more.
    pub(super) fn take(&mut self, to: &str) -> Option<Vec<Outgoing>> {
        let queue = self.queues.get_mut(to)?;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(letter) = queue.front() {
            let is_full = BATCH_LETTERS_MAX <= batch.len()
                || (!batch.is_empty() && BATCH_BYTES_MAX < bytes + letter.len());
            if is_full {
                break;
            }
            bytes += letter.len();
            self.held_bytes -= letter.held();
            // Proof: the loop has just seen the front.
            #[expect(clippy::unwrap_used)]
            batch.push(queue.pop_front().unwrap());
        }
        if batch.is_empty() {
            self.queues.remove(to);
            return None;
        }
        Some(batch)
    }

    /// Puts back what could not be sent, before everything else. What is too old is dropped.
    pub(super) fn put_back(&mut self, to: &str, letters: Vec<Outgoing>) {
        let Some(queue) = self.queues.get_mut(to) else {
            return;
        };
        for letter in letters.into_iter().rev() {
            if !letter.is_outdated() {
                self.held_bytes += letter.held();
                queue.push_front(letter);
            }
        }
    }

    /// Whether anything for an instance waits or is on its way.
    pub(super) fn is_busy(&self, to: &str) -> bool {
        self.queues.contains_key(to)
    }

    /// Takes all calls that wait for an instance.
    pub(super) fn take_calls(&mut self, to: &str) -> Vec<Outgoing> {
        let Some(queue) = self.queues.get_mut(to) else {
            return Vec::new();
        };
        let (calls, others): (Vec<_>, Vec<_>) = queue
            .drain(..)
            .partition(|letter| matches!(letter, Outgoing::Call { .. }));
        queue.extend(others);
        calls
    }

    /// Drops what waits for an instance that is gone.
    pub(super) fn clear(&mut self, to: &str) {
        if let Some(queue) = self.queues.get_mut(to) {
            self.held_bytes -= queue.drain(..).map(|letter| letter.held()).sum::<usize>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(batch: &[Outgoing]) -> Vec<String> {
        let text = |letter: &Outgoing| match letter {
            Outgoing::Call { number, .. } => number.to_string(),
            Outgoing::Written { text, .. } => text.chars().take(3).collect(),
        };
        batch.iter().map(text).collect()
    }

    #[test]
    fn letters_leave_in_order_and_together() {
        let mut post = Post::default();
        let to = InstanceId::from("a");
        let call = |number| Outgoing::Call { number, bytes: 10 };
        assert!(post.push(&to, call(1)));
        assert!(!post.push(&to, Outgoing::written("two".to_owned())));
        assert_eq!(post.held_bytes(), 3);
        let batch = post.take("a").expect("a batch");
        assert_eq!(
            (texts(&batch), post.held_bytes()),
            (vec!["1".to_owned(), "two".to_owned()], 0)
        );
        assert!(!post.push(&to, call(3)), "somebody still empties it");
        post.put_back("a", batch);
        let batch = post.take("a").expect("a batch");
        assert_eq!(texts(&batch), ["1", "two", "3"]);
        assert!(!post.is_empty() && post.take("a").is_none() && post.is_empty());
        assert!(post.push(&to, call(4)));
    }

    #[test]
    fn messages_have_a_bound_but_a_large_letter_leaves_too() {
        let mut post = Post::default();
        let to = InstanceId::from("a");
        for text in ["one", "two", "six"] {
            post.push(&to, Outgoing::written(text.repeat(BATCH_BYTES_MAX / 4)));
        }
        post.push(&to, Outgoing::written("big".repeat(BATCH_BYTES_MAX)));
        let mut batches = Vec::new();
        while let Some(batch) = post.take("a") {
            batches.push(texts(&batch).join("+"));
        }
        assert_eq!(batches, ["one", "two", "six", "big"]);
        post.push(&to, Outgoing::written("lost".to_owned()));
        post.clear("a");
        assert_eq!((post.held_bytes(), post.take("a").is_none()), (0, true));
    }
}
