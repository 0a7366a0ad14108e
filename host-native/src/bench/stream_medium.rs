//! This server as a medium: events are `stream::set` calls of one item, subscribers watch its group.

use std::io;
use std::net::SocketAddr;

use memchr::memmem::{self, Finder};

use super::events::{event_value, find_counter};
use super::frame::{self, CLOSE, PING, PONG, TEXT};
use super::medium::{Heard, Medium, Stage};
use super::target::Target;
use super::wire::unexpected;
use super::worker_wire::upgrade_request;

/// The stream of all that the bench writes.
pub const STREAM: &str = "bench";

/// How subscribers are spread over groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// All in the group of the events.
    One,
    /// The first so many in the group of the events, each other one in a group of its own.
    Alone(usize),
    /// The first so many in the group of the events, the others in a second one that gets all events too.
    Two(usize),
}

/// A server, and a group that nobody else uses.
pub struct StreamMedium {
    subscribers: SocketAddr,
    workers: SocketAddr,
    token: Option<String>,
    /// The group of the events; other groups begin with it.
    pub group: String,
    /// The size of an event's frame, its header included.
    pub frame_bytes: usize,
    /// Who watches what.
    pub spread: Spread,
    /// What stands behind the path of a subscriber's address, for example `?v=2`.
    pub query: &'static str,
    finders: Finders,
}

impl StreamMedium {
    /// The server that the options name.
    pub fn new(target: &Target, frame_bytes: usize, spread: Spread) -> io::Result<Self> {
        Ok(Self {
            subscribers: target.subscribers()?,
            workers: target.workers()?,
            token: target.token(),
            // Short, as groups of applications are: it is in every frame.
            group: format!("g{:08x}", uuid::Uuid::new_v4().as_fields().0),
            frame_bytes,
            spread,
            query: "",
            finders: Finders::new(),
        })
    }

    /// The token that the worker port wants.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    fn group_of(&self, subscriber: usize) -> String {
        match self.spread {
            Spread::Alone(first) if first <= subscriber => self.lone_group(subscriber),
            Spread::Two(first) if first <= subscriber => self.second_group(),
            _ => self.group.clone(),
        }
    }

    /// The group that only this subscriber watches.
    pub fn lone_group(&self, subscriber: usize) -> String {
        format!("{}-{subscriber}", self.group)
    }

    fn second_group(&self) -> String {
        format!("{}-too", self.group)
    }

    /// Appends a call that publishes the event with this counter in a group.
    pub fn publish_in(&self, group: &str, counter: u64, out: &mut Vec<u8>) {
        let value = event_value(counter, self.value_bytes(group, counter + 1));
        let call = format!(
            r#"{{"type":"invokefunction","invocation_id":"00000000-0000-4000-8000-{counter:012x}","function_id":"stream::set","data":{{"stream_name":"{STREAM}","group_id":"{group}","item_id":"m1","data":{value},"returning":"none"}}}}"#
        );
        frame::encode(TEXT, call.as_bytes(), out);
    }

    /// How long a value must be for its event's frame to have the size asked for.
    fn value_bytes(&self, group: &str, seq: u64) -> usize {
        let around = format!(
            r#"{{"type":"stream","timestamp":1760000000000,"streamName":"{STREAM}","groupId":"{group}","id":"m1","seq":{seq},"event":{{"type":"update","data":}}}}"#
        );
        let header = match self.frame_bytes {
            0..=127 => 2,
            128..=65_539 => 4,
            _ => 10,
        };
        self.frame_bytes.saturating_sub(around.len() + header)
    }
}

impl Medium for StreamMedium {
    fn subscribers(&self) -> SocketAddr {
        self.subscribers
    }

    fn publishers(&self) -> SocketAddr {
        self.workers
    }

    fn how_to_start(&self) -> &'static str {
        "Is the server running? Start it with: iii-stream"
    }

    fn subscribe(&self, subscriber: usize, out: &mut Vec<u8>) {
        let group = self.group_of(subscriber);
        let path = format!("/stream/{STREAM}/{group}{}", self.query);
        out.extend(upgrade_request(self.subscribers, &path, None).into_bytes());
    }

    fn hear(&self, stage: &mut Stage, input: &[u8]) -> io::Result<Heard> {
        if *stage == Stage::Greeting {
            return head(stage, input);
        }
        let Some(frame) = frame::decode(input) else {
            return Ok(Heard::Part);
        };
        let bytes = frame.bytes;
        match frame.opcode {
            TEXT if !frame.fin && *stage == Stage::Live => Err(unexpected(
                "an event in several frames, which the bench does not read: choose smaller --bytes",
                b"",
            )),
            // Of a state in several frames the first says all that counts.
            TEXT => {
                let Some(said) = self.finders.read(frame.payload) else {
                    return Err(unexpected("not an event of this bench", frame.payload));
                };
                Ok(match (said, *stage) {
                    (Said::Event { counter, seq }, _) => Heard::Event {
                        bytes,
                        counter,
                        seq: Some(seq),
                    },
                    (Said::Sync { seq }, Stage::Waiting) => Heard::Ready {
                        bytes,
                        next_seq: Some(seq + 1),
                    },
                    // A page that is not the last, or a state after missed changes, which the checker has seen missing.
                    (Said::Sync { .. } | Said::Page, _) => Heard::Other { bytes },
                })
            }
            PING => {
                let mut answer = Vec::new();
                frame::encode(PONG, frame.payload, &mut answer);
                Ok(Heard::Ask { bytes, answer })
            }
            CLOSE => Ok(Heard::Closed(frame::close_reason(frame.payload))),
            _ => Ok(Heard::Other { bytes }),
        }
    }

    fn introduce(&self, out: &mut Vec<u8>) -> Stage {
        out.extend(upgrade_request(self.workers, "/", self.token.as_deref()).into_bytes());
        Stage::Greeting
    }

    fn publish(&self, counter: u64, out: &mut Vec<u8>) {
        self.publish_in(&self.group, counter, out);
        if matches!(self.spread, Spread::Two(_)) {
            self.publish_in(&self.second_group(), counter, out);
        }
    }

    fn answers_per_event(&self) -> u64 {
        match self.spread {
            Spread::Two(_) => 2,
            Spread::One | Spread::Alone(_) => 1,
        }
    }

    fn answers(&self, stage: &mut Stage, input: &[u8]) -> io::Result<(usize, u64)> {
        let (mut read, mut answers) = (0, 0);
        if *stage == Stage::Greeting {
            match head(stage, input)? {
                Heard::Other { bytes } => read += bytes,
                _ => return Ok((0, 0)),
            }
            *stage = Stage::Live;
        }
        while let Some(frame) = frame::decode(&input[read..]) {
            read += frame.bytes;
            match frame.opcode {
                TEXT if memmem::find(frame.payload, br#""error""#).is_some() => {
                    return Err(unexpected("an event was refused", frame.payload));
                }
                TEXT => {
                    let is_answer = memmem::find(frame.payload, b"invocationresult").is_some();
                    answers += u64::from(is_answer);
                }
                CLOSE => {
                    return Err(io::Error::other(format!(
                        "the server closed a worker's connection: {}",
                        frame::close_reason(frame.payload)
                    )));
                }
                _ => {}
            }
        }
        Ok((read, answers))
    }
}

/// The answer to an upgrade.
pub fn head(stage: &mut Stage, input: &[u8]) -> io::Result<Heard> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(end) = memmem::find(input, END) else {
        return Ok(Heard::Part);
    };
    if !input.starts_with(b"HTTP/1.1 101 ") {
        let status = input
            .split(|byte| *byte == b'\r')
            .next()
            .unwrap_or_default();
        let said = String::from_utf8_lossy(&input[end + END.len()..]);
        let status = String::from_utf8_lossy(status);
        return Err(io::Error::other(format!(
            "refused: {status}: {}",
            said.trim()
        )));
    }
    *stage = Stage::Waiting;
    Ok(Heard::Other {
        bytes: end + END.len(),
    })
}

/// What a subscriber's text says.
#[derive(Debug, PartialEq)]
enum Said {
    Event {
        counter: u64,
        seq: u64,
    },
    /// A whole state, or the last page of it.
    Sync {
        seq: u64,
    },
    Page,
}

const SEQ: &[u8] = br#""seq":"#;
const KIND: &[u8] = br#""event":{"type":""#;

/// Finds sequence, kind and counter without reading JSON.
struct Finders {
    seq: Finder<'static>,
    kind: Finder<'static>,
}

impl Finders {
    fn new() -> Self {
        Self {
            seq: Finder::new(SEQ),
            kind: Finder::new(KIND),
        }
    }

    /// None if it is none of this bench's events.
    fn read(&self, text: &[u8]) -> Option<Said> {
        let at = self.seq.find(text)? + SEQ.len();
        let mut seq = 0u64;
        let mut digits = 0;
        for digit in text[at..].iter().take_while(|byte| byte.is_ascii_digit()) {
            seq = seq.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            digits += 1;
        }
        let rest = &text[at + digits..];
        // The kind follows at once, unless a mutation stands between.
        let kind = match rest
            .strip_prefix(b",")
            .and_then(|rest| rest.strip_prefix(KIND))
        {
            Some(kind) => kind,
            None => &rest[self.kind.find(rest)? + KIND.len()..],
        };
        if !kind.starts_with(b"sync") {
            let counter = find_counter(text)?;
            return Some(Said::Event { counter, seq });
        }
        const MORE: &[u8] = br#""more":true"#;
        let tail = &text[text.len().saturating_sub(MORE.len() + 4)..];
        if memmem::find(tail, MORE).is_some() {
            Some(Said::Page)
        } else {
            Some(Said::Sync { seq })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medium(frame_bytes: usize) -> StreamMedium {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        StreamMedium {
            subscribers: nobody,
            workers: nobody,
            token: None,
            group: "g".into(),
            frame_bytes,
            spread: Spread::One,
            query: "",
            finders: Finders::new(),
        }
    }

    #[test]
    fn what_subscribers_are_told_is_understood() {
        let finders = Finders::new();
        let read = |text: &str| finders.read(text.as_bytes());
        assert_eq!(
            read(
                r#"{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":"m1","seq":58,"event":{"type":"update","data":{"n":"~000000002a"}}}"#
            ),
            Some(Said::Event {
                counter: 42,
                seq: 58
            })
        );
        assert_eq!(
            read(
                r#"{"type":"stream","timestamp":1,"id":"m1","seq":58,"mutation":{"tag":"t","seq":1},"event":{"type":"update","base":52,"ops":[{"type":"append","path":"text","value":"~000000002b"}]}}"#
            ),
            Some(Said::Event {
                counter: 43,
                seq: 58
            })
        );
        // The counter in a state is not an event.
        assert_eq!(
            read(
                r#"{"type":"stream","timestamp":1,"id":null,"epoch":"k","seq":7,"event":{"type":"sync","data":[{"n":"~000000002b"}]}}"#
            ),
            Some(Said::Sync { seq: 7 })
        );
        assert_eq!(
            read(
                r#"{"type":"stream","epoch":"k3","seq":57,"event":{"type":"sync","mode":"snapshot","items":[],"more":true}}"#
            ),
            Some(Said::Page)
        );
        assert_eq!(
            read(
                r#"{"type":"stream","epoch":"k3","seq":57,"event":{"type":"sync","mode":"snapshot","items":[],"more":false}}"#
            ),
            Some(Said::Sync { seq: 57 })
        );
        assert_eq!(read(r#"{"type":"error","code":"x"}"#), None);
    }

    #[test]
    fn frames_have_the_size_asked_for() {
        for (bytes, counter) in [(393, 0), (393, 99_999), (16_384, 5), (70_000, 7)] {
            let medium = medium(bytes);
            let value = event_value(counter, medium.value_bytes("g", counter + 1));
            let text = format!(
                r#"{{"type":"stream","timestamp":1760000000000,"streamName":"bench","groupId":"g","id":"m1","seq":{},"event":{{"type":"update","data":{value}}}}}"#,
                counter + 1
            );
            let mut out = Vec::new();
            let start = frame::encode(TEXT, text.as_bytes(), &mut out);
            // A server's frame has no mask, which takes 4 bytes.
            let header = start - 4;
            assert_eq!(header + text.len(), bytes);
        }
    }

    #[test]
    fn a_stream_of_bytes_is_cut_into_events_wherever_reads_end() {
        let medium = medium(393);
        let mut bytes = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec();
        let mut add = |text: &str| {
            let from = bytes.len();
            let start = frame::encode(TEXT, text.as_bytes(), &mut bytes);
            bytes[from + 1] &= 0x7F;
            bytes.drain(start - 4..start);
        };
        add(r#"{"type":"stream","id":null,"epoch":"e","seq":0,"event":{"type":"sync","data":[]}}"#);
        add(
            r#"{"type":"stream","id":"m1","seq":1,"event":{"type":"create","data":{"n":"~0000000000"}}}"#,
        );
        add(
            r#"{"type":"stream","id":"m1","seq":2,"event":{"type":"update","data":{"n":"~0000000001"}}}"#,
        );
        for step in 1..bytes.len() {
            let mut stage = Stage::Greeting;
            let (mut at, mut filled, mut heard) = (0, 0, Vec::new());
            while filled < bytes.len() {
                filled = (filled + step).min(bytes.len());
                while at < filled {
                    let next = medium
                        .hear(&mut stage, &bytes[at..filled])
                        .expect("no refusal");
                    match next {
                        Heard::Part => break,
                        Heard::Other { bytes } => at += bytes,
                        Heard::Ready { bytes, .. } => {
                            at += bytes;
                            stage = Stage::Live;
                        }
                        Heard::Event {
                            bytes,
                            counter,
                            seq,
                        } => {
                            at += bytes;
                            heard.push((counter, seq));
                        }
                        other => panic!("{other:?} was not sent"),
                    }
                }
            }
            assert_eq!(heard, [(0, Some(1)), (1, Some(2))], "in steps of {step}");
        }
    }
}
