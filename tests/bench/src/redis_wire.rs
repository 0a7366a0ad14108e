//! The same load for Redis: pipelined `HSET` of the same values (RESP).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::values::{GROUP, ITEMS, item_id, value_text};
use iii_stream::bench::wire::{Session, Wire, connect, unexpected};

/// A Redis server and the commands to send it.
pub(crate) struct RedisWire {
    address: SocketAddr,
    commands: Arc<Vec<Vec<u8>>>,
}

/// One Redis connection; replies come in the order of the commands.
pub(crate) struct RedisSession {
    commands: Arc<Vec<Vec<u8>>>,
    next_item: usize,
    waiting: VecDeque<usize>,
}

impl RedisWire {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let commands = (0..ITEMS)
            .map(|item| command(&["HSET", GROUP, &item_id(item), &value_text(item)]))
            .collect();
        Self {
            address,
            commands: Arc::new(commands),
        }
    }

    /// Checks that every item holds its value.
    pub(crate) fn verify(&self) -> io::Result<()> {
        let mut stream = connect(self.address)?;
        for item in 0..ITEMS {
            stream.write_all(&command(&["HGET", GROUP, &item_id(item)]))?;
            let value = value_text(item);
            let expected = format!("${}\r\n{value}\r\n", value.len());
            let mut found = vec![0; expected.len()];
            stream.read_exact(&mut found)?;
            if found != expected.as_bytes() {
                return Err(unexpected("redis holds another value", &found));
            }
        }
        Ok(())
    }
}

impl Wire for RedisWire {
    type Session = RedisSession;

    fn open(&self, connection: usize) -> io::Result<(TcpStream, RedisSession)> {
        let session = RedisSession {
            commands: Arc::clone(&self.commands),
            next_item: connection * 125 % ITEMS,
            waiting: VecDeque::new(),
        };
        Ok((connect(self.address)?, session))
    }
}

impl Session for RedisSession {
    fn call(&mut self, slot: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.commands[self.next_item]);
        self.next_item = (self.next_item + 1) % ITEMS;
        self.waiting.push_back(slot);
    }

    fn scan(
        &mut self,
        input: &[u8],
        done: &mut Vec<usize>,
        _out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        // `HSET` answers how many fields are new: `:0` or `:1`.
        const REPLY_BYTES: usize = 4;
        let mut read = 0;
        for reply in input.chunks_exact(REPLY_BYTES) {
            match (reply, self.waiting.pop_front()) {
                (b":0\r\n" | b":1\r\n", Some(slot)) => done.push(slot),
                _ => return Err(unexpected("not a reply to HSET", &input[read..])),
            }
            read += REPLY_BYTES;
        }
        Ok(read)
    }
}

/// A command as an array of bulk strings.
pub(crate) fn command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_taken_in_order_and_errors_are_seen() {
        let wire = RedisWire::new(SocketAddr::from(([127, 0, 0, 1], 1)));
        let mut session = RedisSession {
            commands: wire.commands,
            next_item: 0,
            waiting: VecDeque::from([4, 2]),
        };
        let (mut done, mut out) = (Vec::new(), Vec::new());
        let read = session.scan(b":1\r\n:0\r", &mut done, &mut out);
        assert_eq!((read.ok(), done.as_slice()), (Some(4), [4].as_slice()));
        assert!(session.scan(b"-ERR x\r\n", &mut done, &mut out).is_err());
    }
}
