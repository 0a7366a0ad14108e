//! nginx with the nchan module as a medium, and its server: events by HTTP POST, subscribers by WebSocket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use iii_stream::bench::events::{event_value, find_counter};
use iii_stream::bench::frame::{self, CLOSE, TEXT};
use iii_stream::bench::medium::{Heard, Medium, Stage};
use iii_stream::bench::stream_medium::head;
use iii_stream::bench::wire::unexpected;
use iii_stream::bench::worker_wire::upgrade_request;
use memchr::memmem;
use tempfile::TempDir;

use crate::child::{OwnChild, until_listening};

/// Where Debian puts it.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// A running nginx.
pub(crate) struct Nchan {
    pub(crate) child: OwnChild,
    address: SocketAddr,
    frame_bytes: usize,
    /// Each run has a channel of its own: a channel remembers.
    run: AtomicU64,
    folder: TempDir,
}

/// What `nginx -v` says; none when there is no nginx, or no module.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Path::new(MODULE)
        .exists()
        .then(|| format!("{said} with nchan"))
}

/// Starts it on a free port.
pub(crate) fn start(frame_bytes: usize) -> io::Result<Nchan> {
    let folder = tempfile::tempdir()?;
    let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let config = format!(
        "load_module {MODULE};
worker_processes auto;
worker_rlimit_nofile 20000;
daemon off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 15000; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 1000000000;
  server {{
    listen {address} backlog=4096;
    location = /sub {{ nchan_subscriber websocket; nchan_channel_id $arg_run; nchan_subscriber_first_message oldest; }}
    location = /pub {{ nchan_publisher http; nchan_channel_id $arg_run; nchan_message_buffer_length 100; nchan_message_timeout 0; }}
  }}
}}
"
    );
    std::fs::write(folder.path().join("nginx.conf"), config)?;
    let mut child = OwnChild::new(
        nginx(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?,
    );
    until_listening(&mut child, address, "nginx")?;
    Ok(Nchan {
        child,
        address,
        frame_bytes,
        run: AtomicU64::new(0),
        folder,
    })
}

fn nginx(folder: &Path) -> Command {
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"));
    command
}

impl Drop for Nchan {
    fn drop(&mut self) {
        // Its workers would survive a killed master.
        let _ = nginx(self.folder.path()).args(["-s", "stop"]).status();
        let _ = self.child.handle().wait();
    }
}

impl Medium for Nchan {
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
        let path = format!("/sub?run={}", self.run.load(Ordering::Relaxed));
        out.extend(upgrade_request(self.address, &path, None).into_bytes());
    }

    fn hear(&self, stage: &mut Stage, input: &[u8]) -> io::Result<Heard> {
        if *stage == Stage::Greeting {
            return Ok(match head(stage, input)? {
                Heard::Other { bytes } => Heard::Ready {
                    bytes,
                    next_seq: None,
                },
                other => other,
            });
        }
        websocket_event(input)
    }

    fn introduce(&self, _out: &mut Vec<u8>) -> Stage {
        self.run.fetch_add(1, Ordering::Relaxed);
        Stage::Live
    }

    fn publish(&self, counter: u64, out: &mut Vec<u8>) {
        const HEADER_BYTES: usize = 4;
        let value = event_value(counter, self.frame_bytes - HEADER_BYTES);
        let length = value.len();
        let run = self.run.load(Ordering::Relaxed);
        let request = format!(
            "POST /pub?run={run} HTTP/1.1\r\nHost: bench\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{value}"
        );
        out.extend(request.into_bytes());
    }

    fn answers(&self, _stage: &mut Stage, input: &[u8]) -> io::Result<(usize, u64)> {
        const LENGTH: &[u8] = b"Content-Length: ";
        let (mut read, mut answers) = (0, 0);
        while let Some(end) = memmem::find(&input[read..], b"\r\n\r\n") {
            let head = &input[read..read + end + 2];
            if !head.starts_with(b"HTTP/1.1 20") {
                return Err(unexpected("nginx refuses", head));
            }
            let length = memmem::find(head, LENGTH)
                .and_then(|at| crate::redis_medium::number_and_line_end(&head[at + LENGTH.len()..]))
                .map_or(0, |(length, _)| length);
            let bytes = end + 4 + length;
            if input.len() < read + bytes {
                break;
            }
            read += bytes;
            answers += 1;
        }
        Ok((read, answers))
    }
}

/// An event in a WebSocket frame.
pub(crate) fn websocket_event(input: &[u8]) -> io::Result<Heard> {
    let Some(frame) = frame::decode(input) else {
        return Ok(Heard::Part);
    };
    let bytes = frame.bytes;
    match frame.opcode {
        TEXT => find_counter(frame.payload)
            .map(|counter| Heard::Event {
                bytes,
                counter,
                seq: None,
            })
            .ok_or_else(|| unexpected("no event", frame.payload)),
        CLOSE => Ok(Heard::Closed(frame::close_reason(frame.payload))),
        _ => Ok(Heard::Other { bytes }),
    }
}
