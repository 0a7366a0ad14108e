//! Calls over the worker port, at the least cost to the client: no JSON is parsed, only scanned.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use memchr::memmem::Finder;

use crate::frame;
use crate::values::ITEMS;
use crate::wire::{Session, Wire, connect, unexpected};
use crate::worker_calls::{Calls, parse_id};

/// The worker port and the calls to make there.
pub(crate) struct WorkerWire {
    pub(crate) address: SocketAddr,
    pub(crate) calls: Arc<Calls>,
}

/// One worker connection.
pub(crate) struct WorkerSession {
    calls: Arc<Calls>,
    next_item: usize,
    count: u32,
    /// The count each slot waits for.
    waiting: Vec<Option<u32>>,
    id: Finder<'static>,
    error: Finder<'static>,
    new_value: Finder<'static>,
}

impl Wire for WorkerWire {
    type Session = WorkerSession;

    fn open(&self, connection: usize) -> io::Result<(TcpStream, WorkerSession)> {
        let stream = upgrade(self.address)?;
        let session = WorkerSession {
            calls: Arc::clone(&self.calls),
            // Connections walk the same items from places far apart.
            next_item: connection * 125 % ITEMS,
            count: 0,
            waiting: Vec::new(),
            id: Finder::new(br#""invocation_id":""#),
            // Also finds the `"errors"` of an update.
            error: Finder::new(br#""error"#),
            new_value: Finder::new(br#""new_value":"#),
        };
        Ok((stream, session))
    }
}

impl Session for WorkerSession {
    fn call(&mut self, slot: usize, out: &mut Vec<u8>) {
        self.count = self.count.wrapping_add(1);
        self.calls.append(self.next_item, slot, self.count, out);
        self.next_item = (self.next_item + 1) % ITEMS;
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
                frame::CLOSE => return Err(unexpected("the server closed", frame.payload)),
                _ => return Err(unexpected("not a whole text message", frame.payload)),
            }
        }
        Ok(read)
    }
}

impl WorkerSession {
    /// The slot a message answers; none for the greeting.
    fn reply(&mut self, text: &[u8]) -> io::Result<Option<usize>> {
        let Some(at) = self.id.find(text) else {
            return if text.windows(16).any(|part| part == b"workerregistered") {
                Ok(None)
            } else {
                Err(unexpected("neither a reply nor a greeting", text))
            };
        };
        let id = &text[at + self.id.needle().len()..];
        if self.error.find(text).is_some() || self.new_value.find(text).is_none() {
            return Err(unexpected("the call failed", text));
        }
        let known = parse_id(id).filter(|(slot, count)| {
            self.waiting
                .get_mut(*slot)
                .is_some_and(|waiting| waiting.take_if(|expected| expected == count).is_some())
        });
        match known {
            Some((slot, _)) => Ok(Some(slot)),
            None => Err(unexpected("a reply nobody waits for", text)),
        }
    }
}

/// Opens a connection and its WebSocket; what follows are frames.
pub(crate) fn upgrade(address: SocketAddr) -> io::Result<TcpStream> {
    const HEAD_BYTES_MAX: usize = 16 << 10;
    let mut stream = connect(address)?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
    )?;
    // Byte by byte, so that no frame is read with it.
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        Ok(stream)
    } else {
        Err(unexpected("no WebSocket here", &head))
    }
}
