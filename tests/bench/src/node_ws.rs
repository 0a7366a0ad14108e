//! A broadcast by Node's `ws` as a medium, and its server.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use iii_stream::bench::events::event_value;
use iii_stream::bench::frame::{self, TEXT};
use iii_stream::bench::medium::{Heard, Medium, Stage};
use iii_stream::bench::stream_medium::head;
use iii_stream::bench::worker_wire::upgrade_request;

use crate::child::OwnChild;
use crate::nchan::websocket_event;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/ws-broadcast.mjs");
const LIBRARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/node_modules/ws");

/// A running Node.
pub(crate) struct NodeWs {
    pub(crate) child: OwnChild,
    address: SocketAddr,
    frame_bytes: usize,
}

/// What `node --version` says; none when there is no Node, or no `ws`.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("node").arg("--version").output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Path::new(LIBRARY)
        .exists()
        .then(|| format!("node {version} with ws"))
}

/// Starts it on a free port.
pub(crate) fn start(frame_bytes: usize) -> io::Result<NodeWs> {
    let mut child = OwnChild::new(
        Command::new("node")
            .arg(PROGRAM)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut line = String::new();
    if let Some(stdout) = child.handle().stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let address = line
        .trim()
        .parse()
        .map_err(|error| io::Error::other(format!("ws-broadcast.mjs: {error}")))?;
    Ok(NodeWs {
        child,
        address,
        frame_bytes,
    })
}

impl Medium for NodeWs {
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
        out.extend(upgrade_request(self.address, "/sub", None).into_bytes());
    }

    fn hear(&self, stage: &mut Stage, input: &[u8]) -> io::Result<Heard> {
        match stage {
            Stage::Greeting => head(stage, input),
            // The welcome of the program.
            Stage::Waiting => Ok(
                frame::decode(input).map_or(Heard::Part, |frame| Heard::Ready {
                    bytes: frame.bytes,
                    next_seq: None,
                }),
            ),
            Stage::Live => websocket_event(input),
        }
    }

    fn introduce(&self, out: &mut Vec<u8>) -> Stage {
        out.extend(upgrade_request(self.address, "/pub", None).into_bytes());
        Stage::Greeting
    }

    fn publish(&self, counter: u64, out: &mut Vec<u8>) {
        const HEADER_BYTES: usize = 4;
        let value = event_value(counter, self.frame_bytes - HEADER_BYTES);
        frame::encode(TEXT, value.as_bytes(), out);
    }

    fn answers_per_event(&self) -> u64 {
        0
    }

    fn answers(&self, stage: &mut Stage, input: &[u8]) -> io::Result<(usize, u64)> {
        if *stage == Stage::Live || input.is_empty() {
            return Ok((input.len(), 0));
        }
        match head(stage, input)? {
            Heard::Other { bytes } => {
                *stage = Stage::Live;
                Ok((bytes, 0))
            }
            _ => Ok((0, 0)),
        }
    }
}
