//! Sends the answers of one connection's calls in the order of the calls, whenever each is ready. Knows no frames.
//!
//! A change is answered once it is safe, a read of something else at once: without this the read would overtake the change. Calls
//! that another worker executes leave the order, since nobody knows when that one answers.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::socket::Outbox;

/// See the module.
pub(super) struct AnswerOrder {
    outbox: Arc<Outbox>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The ticket of the first place.
    first: u64,
    places: VecDeque<Place>,
}

/// A place among the answers.
enum Place {
    /// Its answer is not known yet.
    Taken,
    /// Its answer has to wait for those before.
    Answered(String),
    /// Its answer goes whenever it comes.
    Left,
}

/// Which place a call has. Given back with its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket(u64);

impl AnswerOrder {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            outbox,
            waiting: Mutex::default(),
        }
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// A place after all calls that came before.
    pub(super) fn enter(&self) -> Ticket {
        let mut waiting = self.waiting.lock();
        waiting.places.push_back(Place::Taken);
        Ticket(waiting.first + waiting.places.len() as u64 - 1)
    }

    /// Nobody waits for this call's answer from now on.
    pub(super) fn leave(&self, ticket: Ticket) {
        let mut waiting = self.waiting.lock();
        if let Some(place @ Place::Taken) = waiting.place(ticket) {
            *place = Place::Left;
            self.send_ready(&mut waiting);
        }
    }

    /// Sends an answer, once all those before it are sent.
    pub(super) fn answer(&self, ticket: Ticket, frame: String) {
        // Held while it is sent, so that no other answer comes between.
        let mut waiting = self.waiting.lock();
        match waiting.place(ticket) {
            Some(place @ Place::Taken) => {
                *place = Place::Answered(frame);
                self.send_ready(&mut waiting);
            }
            _ => self.outbox.push(frame.into()),
        }
    }

    fn send_ready(&self, waiting: &mut Waiting) {
        let is_ready = |place: &mut Place| !matches!(place, Place::Taken);
        while let Some(place) = waiting.places.pop_front_if(is_ready) {
            waiting.first += 1;
            if let Place::Answered(frame) = place {
                self.outbox.push(frame.into());
            }
        }
    }
}

impl Waiting {
    /// `None` where it is no more in the order.
    fn place(&mut self, ticket: Ticket) -> Option<&mut Place> {
        let index = ticket.0.checked_sub(self.first)?;
        self.places.get_mut(usize::try_from(index).ok()?)
    }
}
