//! NATS as a medium, and its server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use iii_stream::bench::events::{event_value, find_counter};
use iii_stream::bench::medium::{Heard, Medium, Stage};
use iii_stream::bench::wire::unexpected;
use memchr::memmem;

use crate::child::{OwnChild, until_listening};

const HELLO: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
const MESSAGE: &[u8] = b"MSG bench 1 ";

/// A running server.
pub(crate) struct Nats {
    pub(crate) child: OwnChild,
    address: SocketAddr,
    frame_bytes: usize,
}

/// What `nats-server --version` says; none when there is no such program.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("nats-server").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// Starts it on a free port.
pub(crate) fn start(frame_bytes: usize) -> io::Result<Nats> {
    let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let mut child = OwnChild::new(
        Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?,
    );
    until_listening(&mut child, address, "nats-server")?;
    Ok(Nats {
        child,
        address,
        frame_bytes,
    })
}

impl Medium for Nats {
    fn subscribers(&self) -> SocketAddr {
        self.address
    }

    fn publishers(&self) -> SocketAddr {
        self.address
    }

    fn how_to_start(&self) -> &'static str {
        "The bench starts it by itself."
    }

    fn subscribe(&self, _subscriber: usize, out: &mut Vec<u8>) {
        out.extend(HELLO.as_bytes());
        out.extend(b"SUB bench 1\r\nPING\r\n");
    }

    fn hear(&self, stage: &mut Stage, input: &[u8]) -> io::Result<Heard> {
        let Some(end) = memmem::find(input, b"\r\n") else {
            return Ok(Heard::Part);
        };
        let (line, bytes) = (&input[..end], end + 2);
        if let Some(length) = line.strip_prefix(MESSAGE) {
            let length: usize = std::str::from_utf8(length)
                .ok()
                .and_then(|length| length.parse().ok())
                .ok_or_else(|| unexpected("not a message", line))?;
            let Some(payload) = input.get(bytes..bytes + length + 2) else {
                return Ok(Heard::Part);
            };
            return find_counter(payload)
                .map(|counter| Heard::Event {
                    bytes: bytes + length + 2,
                    counter,
                    seq: None,
                })
                .ok_or_else(|| unexpected("no event", payload));
        }
        match line {
            b"PONG" if *stage != Stage::Live => Ok(Heard::Ready {
                bytes,
                next_seq: None,
            }),
            b"PING" => Ok(Heard::Ask {
                bytes,
                answer: b"PONG\r\n".to_vec(),
            }),
            _ if line.starts_with(b"INFO ") || line == b"PONG" => Ok(Heard::Other { bytes }),
            _ => Err(unexpected("NATS refuses", line)),
        }
    }

    fn introduce(&self, out: &mut Vec<u8>) -> Stage {
        out.extend(HELLO.as_bytes());
        out.extend(b"PING\r\n");
        Stage::Waiting
    }

    fn publish(&self, counter: u64, out: &mut Vec<u8>) {
        let around = MESSAGE.len() + "393\r\n".len() + "\r\n".len();
        let value = event_value(counter, self.frame_bytes - around);
        out.extend(format!("PUB bench {}\r\n{value}\r\n", value.len()).into_bytes());
    }

    fn answers_per_event(&self) -> u64 {
        0
    }

    fn answers(&self, stage: &mut Stage, input: &[u8]) -> io::Result<(usize, u64)> {
        let mut read = 0;
        while let Some(end) = memmem::find(&input[read..], b"\r\n") {
            let line = &input[read..read + end];
            if line == b"PONG" {
                *stage = Stage::Live;
            }
            if line.starts_with(b"-ERR") {
                return Err(unexpected("NATS refuses", line));
            }
            read += end + 2;
        }
        Ok((read, 0))
    }
}
