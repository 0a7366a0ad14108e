//! From the bytes of a peer to its messages: frames, pieces, masks, and what a peer may not do. Knows no sockets.
//!
//! Between messages it holds no memory: ten thousand quiet peers cost nothing here. Source: RFC 6455, section 5.

use std::io::Cursor;

use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::frame::CONTROL_BYTES_MAX;
use super::outbox::CloseCode;

/// What a peer has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Text(Utf8Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    Close(Bytes),
}

/// See the module.
pub(super) struct Reader {
    inbox: BytesMut,
    /// The beginning of a message that comes in pieces.
    pieces: Option<Pieces>,
    message_bytes_max: usize,
}

struct Pieces {
    is_text: bool,
    payload: BytesMut,
}

impl Reader {
    /// `early` is what came together with the upgrade request.
    pub(super) fn new(early: &[u8], message_bytes_max: usize) -> Self {
        Self {
            inbox: BytesMut::from(early),
            pieces: None,
            message_bytes_max,
        }
    }

    /// Where bytes of the peer go, with room for `bytes` more.
    pub(super) fn room(&mut self, bytes: usize) -> &mut BytesMut {
        // A message that is being received doubles its room: its announcement alone must not take memory.
        self.inbox.reserve(bytes.max(self.inbox.len()));
        &mut self.inbox
    }

    /// Gives memory back while nothing comes.
    pub(super) fn rest(&mut self) {
        if self.inbox.is_empty() && 0 < self.inbox.capacity() {
            self.inbox = BytesMut::new();
        }
    }

    /// The next thing that has arrived whole.
    ///
    /// Errors: what the peer did wrong; nothing more can be read then.
    pub(super) fn next(&mut self) -> Result<Option<Received>, CloseCode> {
        loop {
            let mut cursor = Cursor::new(&self.inbox[..]);
            let header = FrameHeader::parse(&mut cursor).map_err(|_| CloseCode::Protocol)?;
            let Some((header, payload_bytes)) = header else {
                return Ok(None);
            };
            // A header has at most fourteen bytes.
            let header_bytes = cursor.position() as usize;
            let payload_bytes = usize::try_from(payload_bytes).map_err(|_| CloseCode::TooLarge)?;
            self.check(&header, payload_bytes)?;
            if self.inbox.len() - header_bytes < payload_bytes {
                return Ok(None);
            }
            let mut payload = self.inbox.split_to(header_bytes + payload_bytes);
            let _header = payload.split_to(header_bytes);
            unmask(&mut payload, header.mask.unwrap_or_default());
            match header.opcode {
                OpCode::Control(Control::Ping) => {
                    return Ok(Some(Received::Ping(payload.freeze())));
                }
                OpCode::Control(Control::Close) => {
                    return Ok(Some(Received::Close(close_payload(payload)?)));
                }
                OpCode::Control(_) => return Ok(Some(Received::Pong)),
                OpCode::Data(kind) => {
                    if let Some(message) = self.add(kind, payload, header.is_final)? {
                        return Ok(Some(message));
                    }
                }
            }
        }
    }

    fn check(&self, header: &FrameHeader, payload_bytes: usize) -> Result<(), CloseCode> {
        let FrameHeader {
            is_final,
            rsv1,
            rsv2,
            rsv3,
            opcode,
            mask,
        } = header;
        if *rsv1 || *rsv2 || *rsv3 || mask.is_none() {
            return Err(CloseCode::Protocol);
        }
        match (opcode, &self.pieces) {
            (OpCode::Control(_), _) if !is_final || CONTROL_BYTES_MAX < payload_bytes => {
                Err(CloseCode::Protocol)
            }
            (OpCode::Control(_), _) => Ok(()),
            (OpCode::Data(Data::Continue), None) => Err(CloseCode::Protocol),
            (OpCode::Data(Data::Text | Data::Binary), Some(_)) => Err(CloseCode::Protocol),
            (OpCode::Data(_), pieces) => {
                let before = pieces.as_ref().map_or(0, |pieces| pieces.payload.len());
                if self.message_bytes_max - before < payload_bytes {
                    return Err(CloseCode::TooLarge);
                }
                Ok(())
            }
        }
    }

    /// Takes the payload of a data frame; gives the message that it completes.
    fn add(
        &mut self,
        kind: Data,
        payload: BytesMut,
        is_final: bool,
    ) -> Result<Option<Received>, CloseCode> {
        let (is_text, payload) = match self.pieces.take() {
            None => (kind == Data::Text, payload),
            Some(Pieces {
                is_text,
                payload: mut all,
            }) => {
                all.extend_from_slice(&payload);
                (is_text, all)
            }
        };
        if !is_final {
            // Copied where it may be the first of many: pieces must not hold the whole inbox.
            let payload = if kind == Data::Continue {
                payload
            } else {
                BytesMut::from(&payload[..])
            };
            self.pieces = Some(Pieces { is_text, payload });
            return Ok(None);
        }
        if is_text {
            let text = Utf8Bytes::try_from(payload.freeze()).map_err(|_| CloseCode::InvalidText)?;
            return Ok(Some(Received::Text(text)));
        }
        Ok(Some(Received::Binary(payload.freeze())))
    }
}

/// A close carries nothing, or a code and a reason. Source: RFC 6455, section 5.5.1.
fn close_payload(payload: BytesMut) -> Result<Bytes, CloseCode> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(Bytes::new())
        } else {
            Err(CloseCode::Protocol)
        };
    };
    let code = u16::from_be_bytes(*code);
    let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if !may_be_sent {
        return Err(CloseCode::Protocol);
    }
    if str::from_utf8(reason).is_err() {
        return Err(CloseCode::InvalidText);
    }
    Ok(payload.freeze())
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    if mask == [0; 4] {
        return;
    }
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut masked = payload.to_vec();
        unmask(&mut masked, MASK);
        let mut out = vec![first];
        if payload.len() < 126 {
            out.push(0x80 | payload.len() as u8);
        } else {
            out.push(0x80 | 126);
            out.extend((payload.len() as u16).to_be_bytes());
        }
        out.extend(MASK);
        out.extend(masked);
        out
    }

    fn read(bytes: &[u8], step: usize) -> (Vec<Received>, Option<CloseCode>) {
        let mut reader = Reader::new(b"", 1_000);
        let mut received = Vec::new();
        for chunk in bytes.chunks(step) {
            reader.room(chunk.len()).extend_from_slice(chunk);
            loop {
                match reader.next() {
                    Ok(Some(one)) => received.push(one),
                    Ok(None) => break,
                    Err(code) => return (received, Some(code)),
                }
            }
        }
        (received, None)
    }

    #[test]
    fn messages_come_out_whole_however_they_arrive() {
        let long = "é".repeat(200);
        let bytes = [
            frame(0x81, b"one"),
            frame(0x89, b"are you there"),
            frame(0x01, &long.as_bytes()[..101]),
            frame(0x8a, b""),
            frame(0x80, &long.as_bytes()[101..]),
            frame(0x82, b"\xff"),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let expected = vec![
            Received::Text("one".into()),
            Received::Ping(Bytes::from_static(b"are you there")),
            Received::Pong,
            Received::Text(long.into()),
            Received::Binary(Bytes::from_static(b"\xff")),
            Received::Close(Bytes::from_static(b"\x03\xe8bye")),
        ];
        for step in [1, 2, 7, 64, bytes.len()] {
            assert_eq!(
                read(&bytes, step),
                (expected.clone(), None),
                "{step} bytes at a time"
            );
        }
    }

    #[test]
    fn faults_of_the_peer_have_their_codes() {
        let large = frame(0x81, &[b'x'; 1_001]);
        let cases: [(&[u8], CloseCode); 14] = [
            (b"\x81\x02hi", CloseCode::Protocol),
            (&frame(0xc1, b"x"), CloseCode::Protocol),
            (&frame(0x83, b"x"), CloseCode::Protocol),
            (&frame(0x09, b""), CloseCode::Protocol),
            (&frame(0x89, &[0; 126]), CloseCode::Protocol),
            (&frame(0x80, b"x"), CloseCode::Protocol),
            (
                &[frame(0x01, b"x"), frame(0x81, b"y")].concat(),
                CloseCode::Protocol,
            ),
            (&frame(0x88, b"\x03"), CloseCode::Protocol),
            (&frame(0x88, b"\x03\xed"), CloseCode::Protocol),
            (&frame(0x88, b"\x03\xe8\xff"), CloseCode::InvalidText),
            (&frame(0x81, b"\xff"), CloseCode::InvalidText),
            (
                &frame(0x81, "é".as_bytes().split_at(1).0),
                CloseCode::InvalidText,
            ),
            (&large[..8], CloseCode::TooLarge),
            (
                &[frame(0x01, &[b'x'; 600]), frame(0x80, &[b'x'; 401])].concat(),
                CloseCode::TooLarge,
            ),
        ];
        for (bytes, code) in cases {
            assert_eq!(read(bytes, 1), (vec![], Some(code)), "{bytes:x?}");
        }
    }

    #[test]
    fn a_quiet_peer_holds_no_memory() {
        let mut reader = Reader::new(b"", 1_000);
        reader.room(4_096).extend_from_slice(&frame(0x81, b"x"));
        assert!(matches!(reader.next(), Ok(Some(Received::Text(_)))));
        reader.rest();
        assert_eq!(reader.inbox.capacity(), 0);
    }
}
