//! What a crowd of subscribers must know of a product: how to subscribe, how to publish, and what an event looks like.

use std::io;
use std::net::SocketAddr;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has been answered.
    Greeting,
    /// It is connected, and waits for what it asked for.
    Waiting,
    /// Its subscription stands, or it may publish.
    Live,
}

/// One thing at the start of what a subscriber received.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// Not all of it is there.
    Part,
    /// Nothing that counts.
    Other {
        /// How long it is.
        bytes: usize,
    },
    /// From here on events are due.
    Ready {
        /// How long it is.
        bytes: usize,
        /// The sequence that the next event will have, where there are sequences.
        next_seq: Option<u64>,
    },
    /// An event.
    Event {
        /// How long it is.
        bytes: usize,
        /// The number that its publisher gave it.
        counter: u64,
        /// The number that the server gave it.
        seq: Option<u64>,
    },
    /// The peer wants this answered.
    Ask {
        /// How long it is.
        bytes: usize,
        /// The answer.
        answer: Vec<u8>,
    },
    /// The peer ends the connection, for this reason.
    Closed(String),
}

/// A product that brings events from publishers to subscribers.
pub trait Medium: Sync {
    /// Where subscribers connect.
    fn subscribers(&self) -> SocketAddr;

    /// Where publishers connect.
    fn publishers(&self) -> SocketAddr;

    /// What the program must be told if nobody listens there.
    fn how_to_start(&self) -> &'static str;

    /// Appends what a new subscriber sends.
    fn subscribe(&self, subscriber: usize, out: &mut Vec<u8>);

    /// Reads one thing from the start of what a subscriber received, `input`, which is not empty.
    ///
    /// Errors: a refusal, or bytes that this product does not send.
    fn hear(&self, stage: &mut Stage, input: &[u8]) -> io::Result<Heard>;

    /// Appends what a new publisher sends; answers where that leaves it.
    fn introduce(&self, out: &mut Vec<u8>) -> Stage;

    /// Appends the event with this counter.
    fn publish(&self, counter: u64, out: &mut Vec<u8>);

    /// How many answers the publisher gets for an event.
    fn answers_per_event(&self) -> u64 {
        1
    }

    /// Reads whole answers from the start of what a publisher received: how many bytes, how many answers.
    ///
    /// Errors: a refusal, or bytes that this product does not send.
    fn answers(&self, stage: &mut Stage, input: &[u8]) -> io::Result<(usize, u64)>;
}
