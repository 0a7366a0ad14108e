//! Calls over the worker port, at the least cost to the client: no JSON is parsed, only scanned.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use memchr::memmem::Finder;

use super::checker::{Checker, Faults};
use super::frame;
use super::wire::{Session, Wire, connect, unexpected, unreachable};
use super::worker_calls::{Calls, parse_id};

/// The worker port and the calls to make there.
pub struct WorkerWire {
    /// Where it is.
    pub address: SocketAddr,
    /// The token it wants.
    pub token: Option<String>,
    /// What to call.
    pub calls: Arc<Calls>,
}

/// One worker connection.
pub struct WorkerSession {
    calls: Arc<Calls>,
    next_item: usize,
    count: u32,
    /// The count each slot waits for.
    waiting: Vec<Option<u32>>,
    /// Calls of a connection are answered in their order.
    check: Checker,
    id: Finder<'static>,
    error: Finder<'static>,
    sign: Finder<'static>,
}

impl Wire for WorkerWire {
    type Session = WorkerSession;

    fn open(&self, connection: usize) -> io::Result<(TcpStream, WorkerSession)> {
        let stream = upgrade(self.address, self.token.as_deref())?;
        let session = WorkerSession {
            // Connections walk the same items from places far apart.
            next_item: connection * 125 % self.calls.items(),
            calls: Arc::clone(&self.calls),
            count: 0,
            waiting: Vec::new(),
            check: Checker::begin(1, None),
            id: Finder::new(br#""invocation_id":""#),
            // Also finds the `"errors"` of an update.
            error: Finder::new(br#""error"#),
            sign: Finder::new(self.calls.sign.as_bytes()),
        };
        Ok((stream, session))
    }
}

impl Session for WorkerSession {
    fn call(&mut self, slot: usize, out: &mut Vec<u8>) {
        self.count = self.count.wrapping_add(1);
        self.calls.append(self.next_item, slot, self.count, out);
        self.next_item = (self.next_item + 1) % self.calls.items();
        if self.waiting.len() <= slot {
            self.waiting.resize(slot + 1, None);
        }
        self.waiting[slot] = Some(self.count);
    }

    fn scan(
        &mut self,
        input: &[u8],
        done: &mut Vec<usize>,
        out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let mut read = 0;
        while let Some(frame) = frame::decode(&input[read..]) {
            read += frame.bytes;
            match frame.opcode {
                frame::TEXT if frame.fin => done.extend(self.reply(frame.payload)?),
                frame::PING => {
                    frame::encode(frame::PONG, frame.payload, out);
                }
                frame::CLOSE => {
                    return Err(io::Error::other(frame::close_reason(frame.payload)));
                }
                _ => return Err(unexpected("not a whole text message", frame.payload)),
            }
        }
        Ok(read)
    }

    fn faults(&self) -> Faults {
        Faults {
            // Replies that never come are counted by the slots that wait for them.
            lost: 0,
            ..self.check.faults(0)
        }
    }
}

impl WorkerSession {
    /// The slot a message answers; none for the greeting, and for a reply that nobody waits for.
    fn reply(&mut self, text: &[u8]) -> io::Result<Option<usize>> {
        let Some(at) = self.id.find(text) else {
            return if text.windows(16).any(|part| part == b"workerregistered") {
                Ok(None)
            } else {
                Err(unexpected("neither a reply nor a greeting", text))
            };
        };
        let id = &text[at + self.id.needle().len()..];
        if self.error.find(text).is_some() || self.sign.find(text).is_none() {
            return Err(unexpected("the call failed", text));
        }
        let Some((slot, count)) = parse_id(id) else {
            return Err(unexpected("a reply to a call that was never made", text));
        };
        self.check.take(u64::from(count), None);
        let is_awaited = self
            .waiting
            .get_mut(slot)
            .is_some_and(|waiting| waiting.take_if(|expected| *expected == count).is_some());
        Ok(is_awaited.then_some(slot))
    }
}

/// The head of a request for a WebSocket.
pub fn upgrade_request(host: SocketAddr, path: &str, token: Option<&str>) -> String {
    let authorization = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n{authorization}\r\n"
    )
}

/// Opens a connection to the worker port and its WebSocket; what follows are frames.
pub fn upgrade(address: SocketAddr, token: Option<&str>) -> io::Result<TcpStream> {
    let stream = connect(address).map_err(|error| {
        let what_to_do = "Is the server running? Start it with: iii-stream";
        unreachable(address, &error, what_to_do)
    })?;
    upgrade_on(stream, &upgrade_request(address, "/", token))
}

/// Sends an upgrade request and reads its answer, and no byte more.
pub fn upgrade_on(mut stream: TcpStream, request: &str) -> io::Result<TcpStream> {
    const HEAD_BYTES_MAX: usize = 16 << 10;
    stream.write_all(request.as_bytes())?;
    // Byte by byte, so that no frame is read with it.
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        return Ok(stream);
    }
    let status = String::from_utf8_lossy(&head);
    let status = status.lines().next().unwrap_or_default();
    let hint = if status.contains(" 401 ") {
        ": show the worker port's token with --token or III_TOKEN"
    } else {
        ""
    };
    Err(io::Error::other(format!("refused: {status}{hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> WorkerSession {
        let calls = Calls::new("stream::set", "new_value", 1, |_| String::new());
        WorkerSession {
            next_item: 0,
            calls: Arc::new(calls),
            count: 0,
            waiting: Vec::new(),
            check: Checker::begin(1, None),
            id: Finder::new(br#""invocation_id":""#),
            error: Finder::new(br#""error"#),
            sign: Finder::new(b"new_value"),
        }
    }

    fn reply(slot: u32, count: u32) -> Vec<u8> {
        let text = format!(
            r#"{{"invocation_id":"00000000-0000-4000-8000-{slot:04x}{count:08x}","result":{{"new_value":1}}}}"#
        );
        let mut out = Vec::new();
        let start = frame::encode(frame::TEXT, text.as_bytes(), &mut out);
        out[1] &= 0x7F;
        out.drain(start - 4..start);
        out
    }

    #[test]
    fn replies_that_come_twice_or_too_late_are_counted() {
        let mut session = session();
        let (mut done, mut out) = (Vec::new(), Vec::new());
        for slot in 0..3 {
            session.call(slot, &mut out);
        }
        for (slot, count) in [(0, 1), (2, 3), (1, 2), (1, 2)] {
            let input = reply(slot, count);
            let read = session
                .scan(&input, &mut done, &mut out)
                .expect("a good reply");
            assert_eq!(read, input.len());
        }
        assert_eq!(done, [0, 2, 1]);
        let faults = session.faults();
        assert_eq!((faults.duplicated, faults.misordered), (1, 1));
    }
}
