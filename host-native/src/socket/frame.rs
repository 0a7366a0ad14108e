//! Messages as they leave the server: encoded once, shared by everybody who gets them. Knows no sockets.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::outbox::CloseCode;

/// Longest payload of one WebSocket frame, in bytes; longer messages leave in pieces. Published Rust clients read frames of up to
/// 16 MiB.
const PAYLOAD_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// Longest payload of a control frame, in bytes. Source: RFC 6455, section 5.5.
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// Longest header of a frame from a server, in bytes.
const HEADER_BYTES_MAX: usize = 10;

/// Whole messages, ready to be written to a socket. Cloning shares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// One text message.
    pub fn text(text: &str) -> Self {
        let mut out = Vec::with_capacity(text.len() + HEADER_BYTES_MAX);
        push_text(&mut out, text);
        Self(out.into())
    }

    /// What is sent as it is: it has been encoded already.
    pub fn encoded(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn ping() -> Self {
        control(Control::Ping, &[])
    }

    pub(super) fn pong(payload: &[u8]) -> Self {
        control(Control::Pong, payload)
    }

    pub(super) fn close(code: CloseCode) -> Self {
        let (code, reason) = code.on_wire();
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(reason.bytes());
        control(Control::Close, &payload)
    }

    /// The answer to a peer's close, which repeats it.
    pub(super) fn close_echo(payload: &[u8]) -> Self {
        control(Control::Close, payload)
    }

    /// How many bytes it takes on the wire.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, for a connection that writes them itself.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self::text(&text)
    }
}

impl From<&str> for Frame {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

/// Appends a text message.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    if text.len() <= PAYLOAD_BYTES_MAX {
        push_frame(out, OpCode::Data(Data::Text), true, text.as_bytes());
        return;
    }
    let mut kind = Data::Text;
    let mut pieces = text.as_bytes().chunks(PAYLOAD_BYTES_MAX).peekable();
    while let Some(piece) = pieces.next() {
        push_frame(out, OpCode::Data(kind), pieces.peek().is_none(), piece);
        kind = Data::Continue;
    }
}

fn control(kind: Control, payload: &[u8]) -> Frame {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    let mut out = Vec::with_capacity(payload.len() + HEADER_BYTES_MAX);
    push_frame(&mut out, OpCode::Control(kind), true, payload);
    Frame(out.into())
}

fn push_frame(out: &mut Vec<u8>, opcode: OpCode, is_final: bool, payload: &[u8]) {
    let header = FrameHeader {
        is_final,
        opcode,
        ..FrameHeader::default()
    };
    // Writing to memory cannot fail, and lengths fit.
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_by_their_length() {
        assert_eq!(Frame::text("hi").as_bytes(), b"\x81\x02hi");
        let longer = "x".repeat(300);
        assert_eq!(&Frame::text(&longer).as_bytes()[..4], b"\x81\x7e\x01\x2c");
        assert_eq!(Frame::text(&"x".repeat(70_000)).len(), 70_000 + 10);
    }

    #[test]
    fn what_is_too_long_for_a_frame_leaves_in_pieces() {
        let text = "x".repeat(PAYLOAD_BYTES_MAX + 1);
        let frame = Frame::text(&text);
        let bytes = frame.as_bytes();
        assert_eq!((bytes[0], bytes[1]), (0x01, 127));
        let second = HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX;
        assert_eq!(&bytes[second..], b"\x80\x01x");
    }

    #[test]
    fn closes_carry_code_and_reason() {
        assert_eq!(
            Frame::close(CloseCode::GoingAway).as_bytes(),
            b"\x88\x0e\x03\xe9server stops"
        );
        assert_eq!(
            Frame::close_echo(b"\x03\xe8bye").as_bytes(),
            b"\x88\x05\x03\xe8bye"
        );
        assert_eq!(Frame::close_echo(b"").as_bytes(), b"\x88\x00");
    }
}
