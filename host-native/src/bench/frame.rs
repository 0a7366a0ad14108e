//! The little of WebSocket framing a client needs (RFC 6455, section 5).

/// More of the message before.
pub const CONTINUATION: u8 = 0x0;
/// A text message.
pub const TEXT: u8 = 0x1;
/// The peer closes.
pub const CLOSE: u8 = 0x8;
/// The peer asks for a pong.
pub const PING: u8 = 0x9;
/// The answer to a ping.
pub const PONG: u8 = 0xA;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Masking with zeros leaves the payload as it is, so a frame can be encoded once and patched.
const MASK: [u8; 4] = [0; 4];

/// A frame as it arrived.
#[derive(Debug, PartialEq)]
pub struct Frame<'a> {
    /// False for a message split over several frames.
    pub fin: bool,
    /// Its kind.
    pub opcode: u8,
    /// What it carries.
    pub payload: &'a [u8],
    /// Bytes the frame takes, header included.
    pub bytes: usize,
}

/// Appends a masked frame; answers where its payload starts in `out`.
pub fn encode(opcode: u8, payload: &[u8], out: &mut Vec<u8>) -> usize {
    out.push(FIN | opcode);
    if let Ok(short) = u8::try_from(payload.len())
        && short < 126
    {
        out.push(MASKED | short);
    } else if let Ok(medium) = u16::try_from(payload.len()) {
        out.push(MASKED | 126);
        out.extend(medium.to_be_bytes());
    } else {
        out.push(MASKED | 127);
        out.extend((payload.len() as u64).to_be_bytes());
    }
    out.extend(MASK);
    let start = out.len();
    out.extend(payload);
    start
}

/// The unmasked frame at the start of `input`, when all of it is there.
pub fn decode(input: &[u8]) -> Option<Frame<'_>> {
    let [first, second, rest @ ..] = input else {
        return None;
    };
    let (header, length) = match second & !MASKED {
        126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let bytes = usize::try_from(length).ok()?.checked_add(header)?;
    Some(Frame {
        fin: first & FIN != 0,
        opcode: first & 0xF,
        payload: input.get(header..bytes)?,
        bytes,
    })
}

/// Code and reason of a close frame, for people.
pub fn close_reason(payload: &[u8]) -> String {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return "closed without a code".into();
    };
    let reason = String::from_utf8_lossy(reason);
    format!("closed with {} {reason}", u16::from_be_bytes(*code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_lengths() {
        for length in [0usize, 125, 126, 65_535, 65_536] {
            let mut out = Vec::new();
            let start = encode(TEXT, &vec![b'x'; length], &mut out);
            assert_eq!(out.len() - start, length);
            // A server's frame is the same without mask bit and mask.
            out[1] &= !MASKED;
            out.drain(start - MASK.len()..start);
            assert_eq!(decode(&out[..out.len() - 1]), None);
            let frame = decode(&out).expect("the frame is whole");
            assert_eq!((frame.payload.len(), frame.bytes), (length, out.len()));
        }
    }
}
