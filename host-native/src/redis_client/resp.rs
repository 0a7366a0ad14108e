//! Reads RESP3: bytes of a connection become values. A value that is not complete yet is not read twice.

use bytes::{Buf, BytesMut};
use redis::{PushKind, Value, VerbatimFormat};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Values stand in values at most so deep.
const DEPTH_MAX: usize = 64;
/// Free space that a read is offered.
const READ_BYTES: usize = 64 * 1024;

/// The server sent what is no RESP3.
#[derive(Debug, thiserror::Error)]
#[error("it does not speak RESP3: {0}")]
pub(super) struct Malformed(&'static str);

/// The bytes of a connection that are not read yet.
#[derive(Debug, Default)]
pub(super) struct Replies {
    buffer: BytesMut,
    /// How far the buffer has been looked through for the end of the next value.
    scanned: usize,
    /// Parts of that value that are still to come.
    parts_left: Option<usize>,
}

impl Replies {
    /// Reads what has come; zero at the end.
    pub(super) async fn read_more(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> std::io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        stream.read_buf(&mut self.buffer).await
    }

    /// The next value, if all of it has come.
    pub(super) fn next(&mut self) -> Result<Option<Value>, Malformed> {
        if !self.scan()? {
            return Ok(None);
        }
        let frame = self.buffer.split_to(self.scanned);
        (self.scanned, self.parts_left) = (0, None);
        let mut at = &frame[..];
        read(&mut at, 0).map(Some)
    }

    /// Looks for the end of the next value.
    fn scan(&mut self) -> Result<bool, Malformed> {
        let mut left = self.parts_left.unwrap_or(1);
        while left > 0 {
            let Some(line) = line(&self.buffer[self.scanned..]) else {
                self.parts_left = Some(left);
                return Ok(false);
            };
            let mut length = line.len() + 2;
            let kind = *line.first().ok_or(Malformed("an empty line"))?;
            left -= 1;
            match kind {
                b'$' | b'=' | b'!' => {
                    if let Some(bytes) = count(line)? {
                        length += bytes + 2;
                        if self.buffer.len() < self.scanned + length {
                            self.parts_left = Some(left + 1);
                            return Ok(false);
                        }
                    }
                }
                b'*' | b'~' | b'>' => left += count(line)?.unwrap_or(0),
                b'%' => left += 2 * count(line)?.unwrap_or(0),
                // Attributes stand before the value that they belong to.
                b'|' => left += 2 * count(line)?.unwrap_or(0) + 1,
                _ => {}
            }
            self.scanned += length;
        }
        Ok(true)
    }
}

/// The first line without its end.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\r', bytes)?;
    (bytes.len() > end + 1).then(|| &bytes[..end])
}

/// The number in a line such as `$5`. None is null.
fn count(line: &[u8]) -> Result<Option<usize>, Malformed> {
    match number(line)? {
        -1 => Ok(None),
        count => usize::try_from(count)
            .map(Some)
            .map_err(|_| Malformed("a negative length")),
    }
}

fn number(line: &[u8]) -> Result<i64, Malformed> {
    let text =
        std::str::from_utf8(&line[1..]).map_err(|_| Malformed("a number that is no text"))?;
    text.parse().map_err(|_| Malformed("a number that is none"))
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[1..]).into_owned()
}

/// Reads one value of a frame that is complete.
fn read(at: &mut &[u8], depth: usize) -> Result<Value, Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed("values stand too deep in values"));
    }
    let line = line(at).ok_or(Malformed("an unfinished line"))?;
    at.advance(line.len() + 2);
    Ok(match line[0] {
        b'+' if &line[1..] == b"OK" => Value::Okay,
        b'+' => Value::SimpleString(text(line)),
        b'-' => server_error(&line[1..])?,
        b':' => Value::Int(number(line)?),
        b'$' => match count(line)? {
            Some(length) => Value::BulkString(bulk(at, length).to_vec()),
            None => Value::Nil,
        },
        b'!' => match count(line)? {
            Some(length) => server_error(bulk(at, length))?,
            None => Value::Nil,
        },
        b'=' => verbatim(bulk(at, count(line)?.unwrap_or(0))),
        b'_' => Value::Nil,
        b'#' => Value::Boolean(line.get(1) == Some(&b't')),
        b',' => Value::Double(
            text(line)
                .parse()
                .map_err(|_| Malformed("a fraction that is none"))?,
        ),
        b'(' => Value::BigNumber(line[1..].to_vec()),
        b'*' => match count(line)? {
            Some(length) => Value::Array(values(at, length, depth)?),
            None => Value::Nil,
        },
        b'~' => Value::Set(values(at, count(line)?.unwrap_or(0), depth)?),
        b'%' => Value::Map(pairs(at, count(line)?.unwrap_or(0), depth)?),
        b'>' => push(values(at, count(line)?.unwrap_or(0), depth)?)?,
        b'|' => {
            pairs(at, count(line)?.unwrap_or(0), depth)?;
            read(at, depth + 1)?
        }
        _ => return Err(Malformed("a value of an unknown kind")),
    })
}

fn bulk<'a>(at: &mut &'a [u8], length: usize) -> &'a [u8] {
    let bytes = &at[..length];
    at.advance(length + 2);
    bytes
}

fn values(at: &mut &[u8], length: usize, depth: usize) -> Result<Vec<Value>, Malformed> {
    (0..length).map(|_| read(at, depth + 1)).collect()
}

fn pairs(at: &mut &[u8], length: usize, depth: usize) -> Result<Vec<(Value, Value)>, Malformed> {
    (0..length)
        .map(|_| Ok((read(at, depth + 1)?, read(at, depth + 1)?)))
        .collect()
}

/// An error of the server; only the crate's own parser can make that value.
fn server_error(text: &[u8]) -> Result<Value, Malformed> {
    let mut line = Vec::with_capacity(text.len() + 3);
    line.push(b'-');
    line.extend(text.iter().map(|byte| match byte {
        b'\r' | b'\n' => b' ',
        byte => *byte,
    }));
    line.extend_from_slice(b"\r\n");
    redis::parse_redis_value(&line).map_err(|_| Malformed("an error that is none"))
}

fn verbatim(bytes: &[u8]) -> Value {
    let all = String::from_utf8_lossy(bytes);
    let (format, text) = all.split_once(':').unwrap_or(("txt", &all));
    Value::VerbatimString {
        format: match format {
            "txt" => VerbatimFormat::Text,
            "mkd" => VerbatimFormat::Markdown,
            other => VerbatimFormat::Unknown(other.to_owned()),
        },
        text: text.to_owned(),
    }
}

fn push(mut data: Vec<Value>) -> Result<Value, Malformed> {
    if data.is_empty() {
        return Err(Malformed("an empty push"));
    }
    let kind = match data.remove(0) {
        Value::BulkString(kind) => String::from_utf8_lossy(&kind).into_owned(),
        Value::SimpleString(kind) => kind,
        _ => return Err(Malformed("a push without a name")),
    };
    let kind = match kind.as_str() {
        "message" => PushKind::Message,
        "smessage" => PushKind::SMessage,
        "subscribe" => PushKind::Subscribe,
        "ssubscribe" => PushKind::SSubscribe,
        "unsubscribe" => PushKind::Unsubscribe,
        "sunsubscribe" => PushKind::SUnsubscribe,
        _ => PushKind::Other(kind),
    };
    Ok(Value::Push { kind, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the crate's own parser reads is the measure.
    const FRAMES: &[&[u8]] = &[
        b"+OK\r\n",
        b"+PONG\r\n",
        b":-42\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"=8\r\ntxt:role\r\n",
        b"*0\r\n",
        b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n_\r\n-ERR no\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n$1\r\nx\r\n",
        b"~2\r\n:1\r\n:2\r\n",
        b"-MOVED 5 127.0.0.1:7000\r\n",
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n",
        b">3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n",
    ];

    #[test]
    fn values_are_those_of_the_crates_parser() {
        for frame in FRAMES {
            let mut replies = Replies::default();
            replies.buffer.extend_from_slice(frame);
            let value = replies.next().expect("RESP3").expect("a whole frame");
            let expected = redis::parse_redis_value(frame).expect("RESP3");
            assert_eq!(value, expected, "{:?}", String::from_utf8_lossy(frame));
            assert!(replies.buffer.is_empty());
        }
    }

    #[test]
    fn values_may_come_in_any_pieces() {
        let all = FRAMES.concat();
        let mut replies = Replies::default();
        let mut values = Vec::new();
        for byte in &all {
            replies.buffer.extend_from_slice(&[*byte]);
            while let Some(value) = replies.next().expect("RESP3") {
                values.push(value);
            }
        }
        assert_eq!(values.len(), FRAMES.len());
    }

    #[test]
    fn what_is_no_resp3_is_told() {
        for frame in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"$x\r\n",
            b"*-7\r\n",
            b"\r\n",
        ] {
            let mut replies = Replies::default();
            replies.buffer.extend_from_slice(frame);
            assert!(replies.next().is_err(), "{frame:?}");
        }
    }
}
