//! Starts a Redis server for the comparison, in a folder of its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::child::OwnChild;
use crate::redis_wire::command;
use iii_stream::bench::wire::{PATIENCE, connect};

/// A running Redis.
pub(crate) struct RedisProcess {
    pub(crate) child: OwnChild,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

/// What Redis keeps of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Nothing outside its memory.
    Nothing,
    /// It writes each change to its log and syncs it before the answer.
    Synced,
}

/// What `redis-server --version` says; none when there is no such program.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("redis-server")
        .arg("--version")
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// Starts Redis on a free port and waits for its first answer.
pub(crate) fn start(keeps: Keeps) -> io::Result<RedisProcess> {
    let folder = tempfile::tempdir()?;
    // Redis has no port 0 of this kind: take a free one and let go of it.
    let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let mut child = OwnChild::new(
        Command::new("redis-server")
            .args(["--port", &address.port().to_string()])
            .args(["--bind", "127.0.0.1", "--save", ""])
            .args(keeps.arguments())
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?,
    );
    let started = Instant::now();
    while !answers(address) {
        if let Some(status) = child.handle().try_wait()? {
            return Err(io::Error::other(format!("redis-server ended: {status}")));
        }
        if PATIENCE < started.elapsed() {
            return Err(io::Error::other("redis-server does not answer"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(RedisProcess {
        child,
        address,
        _folder: folder,
    })
}

impl Keeps {
    fn arguments(self) -> [&'static str; 4] {
        let log = if self == Self::Synced { "yes" } else { "no" };
        ["--appendonly", log, "--appendfsync", "always"]
    }
}

fn answers(address: SocketAddr) -> bool {
    let ask = || -> io::Result<[u8; 7]> {
        let mut stream = connect(address)?;
        stream.write_all(&command(&["PING"]))?;
        let mut pong = [0; 7];
        stream.read_exact(&mut pong)?;
        Ok(pong)
    };
    ask().is_ok_and(|pong| &pong == b"+PONG\r\n")
}
