//! What a client says of a subscription that has not begun: kept in order, and bounded.

use std::collections::VecDeque;

use iii_stream_core::Position;

use crate::hub::Subscribing;

/// Messages about one subscription that wait for its beginning. Of more, joins are forgotten that were left again; one more than
/// that closes the connection.
const WAITING_MAX: usize = 64;

/// What a client said of a subscription.
pub(super) enum Said {
    Join(Subscribing, Option<Position>),
    Leave,
}

/// See the module.
#[derive(Default)]
pub(super) struct Waiting(VecDeque<Said>);

impl Waiting {
    /// Keeps what was said for later. Whether there was room for it.
    #[must_use]
    pub(super) fn keep(&mut self, said: Said) -> bool {
        self.0.push_back(said);
        if WAITING_MAX < self.0.len() {
            self.forget_what_was_left();
        }
        self.0.len() <= WAITING_MAX
    }

    pub(super) fn next(&mut self) -> Option<Said> {
        self.0.pop_front()
    }

    /// Takes what was said later.
    pub(super) fn append(&mut self, later: &mut Self) {
        self.0.append(&mut later.0);
    }

    /// Forgets the joins that were left again before they could begin, each with its leave: nobody waits for them, and no guard was
    /// asked about them.
    fn forget_what_was_left(&mut self) {
        let mut kept: VecDeque<Said> = VecDeque::with_capacity(self.0.len());
        for said in self.0.drain(..) {
            let mut is_needed = true;
            if matches!(said, Said::Leave) {
                while matches!(kept.back(), Some(Said::Join(..))) {
                    kept.pop_back();
                    // What was there before them has left already.
                    is_needed = !matches!(kept.back(), Some(Said::Leave));
                }
            }
            if is_needed {
                kept.push_back(said);
            }
        }
        self.0 = kept;
    }
}

#[cfg(test)]
mod tests {
    use iii_stream_core::GroupKey;

    use super::*;

    fn join(number: u64) -> Said {
        let join = Subscribing {
            subscription_id: number.to_string().into(),
            group: GroupKey {
                stream: "s".into(),
                group: "g".into(),
            },
            item: None,
            clients: None,
        };
        Said::Join(join, None)
    }

    #[test]
    fn joins_that_were_left_again_are_forgotten_where_too_much_waits() {
        let mut waiting = Waiting::default();
        for number in 0..1_000 {
            assert!(waiting.keep(Said::Leave));
            assert!(waiting.keep(join(number)));
            assert!(waiting.0.len() <= WAITING_MAX);
        }
        assert!(
            matches!(waiting.next(), Some(Said::Leave)),
            "what began has left"
        );
        let mut last = None;
        while let Some(said) = waiting.next() {
            last = Some(said);
        }
        assert!(matches!(last, Some(Said::Join(join, _)) if &*join.subscription_id == "999"));
    }

    #[test]
    fn leaves_of_nothing_are_kept_up_to_the_bound() {
        let mut waiting = Waiting::default();
        for _ in 0..WAITING_MAX {
            assert!(waiting.keep(Said::Leave));
        }
        assert!(!waiting.keep(Said::Leave));
    }

    #[test]
    fn what_replaced_another_and_was_left_leaves_that_one() {
        let mut waiting = Waiting::default();
        for number in 0..WAITING_MAX as u64 {
            assert!(waiting.keep(join(number)));
        }
        assert!(waiting.keep(Said::Leave));
        assert!(matches!(waiting.next(), Some(Said::Leave)));
        assert!(waiting.next().is_none());
    }

    #[test]
    fn joins_that_nobody_left_are_kept_up_to_their_bound() {
        let mut waiting = Waiting::default();
        for number in 0..WAITING_MAX as u64 {
            assert!(waiting.keep(join(number)));
        }
        assert!(!waiting.keep(join(0)));
    }
}
