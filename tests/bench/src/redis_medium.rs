//! Redis pub/sub as a medium.

use std::io;
use std::net::SocketAddr;

use iii_stream::bench::events::{event_value, find_counter};
use iii_stream::bench::medium::{Heard, Medium, Stage};
use iii_stream::bench::wire::unexpected;
use memchr::memmem;

use crate::redis_wire::command;

const CHANNEL: &str = "bench";
const SUBSCRIBED: &[u8] = b"*3\r\n$9\r\nsubscribe\r\n$5\r\nbench\r\n:1\r\n";
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$5\r\nbench\r\n$";

/// A Redis server, at one address or by two ways.
pub(crate) struct RedisMedium {
    pub(crate) subscribers: SocketAddr,
    pub(crate) publishers: SocketAddr,
    pub(crate) frame_bytes: usize,
}

impl Medium for RedisMedium {
    fn subscribers(&self) -> SocketAddr {
        self.subscribers
    }

    fn publishers(&self) -> SocketAddr {
        self.publishers
    }

    fn how_to_start(&self) -> &'static str {
        "The bench starts it by itself."
    }

    fn subscribe(&self, _subscriber: usize, out: &mut Vec<u8>) {
        out.extend(command(&["SUBSCRIBE", CHANNEL]));
    }

    fn hear(&self, stage: &mut Stage, input: &[u8]) -> io::Result<Heard> {
        if *stage != Stage::Live {
            return match input.get(..SUBSCRIBED.len()) {
                None => Ok(Heard::Part),
                Some(SUBSCRIBED) => Ok(Heard::Ready {
                    bytes: SUBSCRIBED.len(),
                    next_seq: None,
                }),
                Some(_) => Err(unexpected("Redis refuses", input)),
            };
        }
        let Some((head, rest)) = input.split_at_checked(MESSAGE.len()) else {
            return Ok(Heard::Part);
        };
        if head != MESSAGE {
            return Err(unexpected("not a message", input));
        }
        let Some((length, digits)) = number_and_line_end(rest) else {
            return Ok(Heard::Part);
        };
        let Some(payload) = rest.get(digits..digits + length + 2) else {
            return Ok(Heard::Part);
        };
        let bytes = head.len() + digits + length + 2;
        find_counter(payload)
            .map(|counter| Heard::Event {
                bytes,
                counter,
                seq: None,
            })
            .ok_or_else(|| unexpected("no event", payload))
    }

    fn introduce(&self, _out: &mut Vec<u8>) -> Stage {
        Stage::Live
    }

    fn publish(&self, counter: u64, out: &mut Vec<u8>) {
        // What stands around a payload of three digits' length.
        let around = MESSAGE.len() + "393\r\n".len() + "\r\n".len();
        let value = event_value(counter, self.frame_bytes - around);
        out.extend(command(&["PUBLISH", CHANNEL, &value]));
    }

    fn answers(&self, _stage: &mut Stage, input: &[u8]) -> io::Result<(usize, u64)> {
        let (mut read, mut answers) = (0, 0);
        while let Some(end) = memmem::find(&input[read..], b"\r\n") {
            if input[read] != b':' {
                return Err(unexpected("Redis refuses", &input[read..]));
            }
            read += end + 2;
            answers += 1;
        }
        Ok((read, answers))
    }
}

/// The number at the start of a text, and how long it is with the line's end.
pub(crate) fn number_and_line_end(text: &[u8]) -> Option<(usize, usize)> {
    let end = memmem::find(text.get(..text.len().min(20))?, b"\r\n")?;
    let number = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    Some((number, end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_recognised_whole() {
        let medium = RedisMedium {
            subscribers: SocketAddr::from(([127, 0, 0, 1], 1)),
            publishers: SocketAddr::from(([127, 0, 0, 1], 1)),
            frame_bytes: 393,
        };
        let mut published = Vec::new();
        medium.publish(9, &mut published);
        let at = memmem::find(&published, b"$5\r\nbench\r\n").expect("the channel");
        let mut message = b"*3\r\n$7\r\nmessage\r\n".to_vec();
        message.extend(&published[at..]);
        assert_eq!(message.len(), 393);
        let hear = |input: &[u8]| medium.hear(&mut Stage::Live, input).expect("a message");
        let event = Heard::Event {
            bytes: 393,
            counter: 9,
            seq: None,
        };
        assert_eq!(hear(&message), event);
        for cut in 1..message.len() {
            assert_eq!(hear(&message[..cut]), Heard::Part);
        }
    }
}
