//! How one connection is spoken to: what carries its frames, and what it asked to see in them. Knows no groups.

use bytes::Bytes;

use crate::socket::{Frame, push_text};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// What carries the frames.
    pub framing: Framing,
    /// Whether the client speaks version 2: positions, pages, resumes, errors.
    pub is_version_2: bool,
    /// Whether it takes operations instead of values.
    pub deltas: bool,
}

/// What carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// WebSocket text messages.
    WebSocket,
    /// Server-sent events, whose ids are positions.
    EventStream,
}

/// A position that a client may come back with.
pub type At<'a> = (&'a str, u64);

impl Dialect {
    /// What published clients speak.
    pub const VERSION_1: Self = Self {
        framing: Framing::WebSocket,
        is_version_2: false,
        deltas: false,
    };

    /// How many kinds of event frames there are.
    pub(super) const ENCODINGS: usize = 4;

    /// Which of them this is.
    pub(super) fn encoding(self) -> usize {
        usize::from(self.framing == Framing::EventStream) * 2 + usize::from(self.deltas)
    }

    /// Appends one message. A client that has seen it can come back to `at`.
    pub fn push(self, out: &mut Vec<u8>, text: &str, at: Option<At<'_>>) {
        match self.framing {
            Framing::WebSocket => push_text(out, text),
            Framing::EventStream => {
                if let Some((epoch, seq)) = at {
                    out.extend_from_slice(format!("id: {epoch}:{seq}\n").as_bytes());
                }
                // JSON text has no line breaks.
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\n\n");
            }
        }
    }

    /// One message by itself.
    pub fn frame(self, text: &str, at: Option<At<'_>>) -> Frame {
        // Room for the header of a message, or the parts of an event.
        const AROUND_BYTES: usize = 64;
        let mut out = Vec::with_capacity(text.len() + AROUND_BYTES);
        self.push(&mut out, text, at);
        Frame::encoded(Bytes::from(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT_STREAM: Dialect = Dialect {
        framing: Framing::EventStream,
        is_version_2: true,
        deltas: false,
    };

    #[test]
    fn encodings_are_told_apart() {
        let deltas = |dialect| Dialect {
            deltas: true,
            ..dialect
        };
        let all = [
            Dialect::VERSION_1,
            deltas(Dialect::VERSION_1),
            EVENT_STREAM,
            deltas(EVENT_STREAM),
        ];
        assert_eq!(all.map(Dialect::encoding), [0, 1, 2, 3]);
        assert_eq!(Dialect::ENCODINGS, all.len());
    }

    #[test]
    fn an_event_of_an_event_stream_has_its_position_as_id() {
        let frame = EVENT_STREAM.frame("{}", Some(("k3", 57)));
        assert_eq!(frame.into_bytes(), "id: k3:57\ndata: {}\n\n");
        assert_eq!(EVENT_STREAM.frame("{}", None).into_bytes(), "data: {}\n\n");
    }
}
