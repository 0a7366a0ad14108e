//! The raw limit: a plain TCP server that writes given bytes to every subscriber, and nothing else.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use iii_stream::bench::events::{event_value, find_counter};
use iii_stream::bench::frame::{self, TEXT};
use iii_stream::bench::medium::{Heard, Medium, Stage};
use iii_stream::bench::wire::unexpected;

use crate::child::OwnChild;

const SUBSCRIBER: u8 = b'S';
const PUBLISHER: u8 = b'P';
const WELCOME: &[u8] = b"+";

/// How the server writes what came together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// A write for each message to each subscriber.
    Each,
    /// One write to each subscriber.
    Queued,
}

/// The server: prints its address, then serves until its standard input ends.
pub(crate) fn serve(writes: Writes) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    let crowd: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever goes before having said anything is no concern of ours.
            let _ = admit(stream, writes, &crowd);
        }
    });
    // The parent holds the other end; when it dies, so does this process.
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}

fn admit(
    mut stream: TcpStream,
    writes: Writes,
    crowd: &Arc<Mutex<Vec<TcpStream>>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind == [SUBSCRIBER] {
        // Whoever is welcome gets everything from then on.
        let mut crowd = crowd.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(WELCOME)?;
        crowd.push(stream);
    } else {
        stream.write_all(WELCOME)?;
        let crowd = Arc::clone(crowd);
        std::thread::spawn(move || spread(stream, writes, &crowd));
    }
    Ok(())
}

/// Passes on what a publisher sends: for each message 4 bytes of length, then what to write.
fn spread(
    mut publisher: TcpStream,
    writes: Writes,
    crowd: &Mutex<Vec<TcpStream>>,
) -> io::Result<()> {
    let (mut input, mut filled) = (vec![0; 1 << 20], 0);
    let mut queued = Vec::new();
    loop {
        let read = publisher.read(&mut input[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut crowd = crowd.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = 0;
        queued.clear();
        while let Some(length) = input[at..filled].first_chunk() {
            let (start, length) = (at + 4, u32::from_be_bytes(*length) as usize);
            let Some(message) = input[..filled].get(start..start + length) else {
                break;
            };
            at = start + length;
            match writes {
                Writes::Each => crowd.retain_mut(|stream| stream.write_all(message).is_ok()),
                Writes::Queued => queued.extend_from_slice(message),
            }
        }
        if !queued.is_empty() {
            crowd.retain_mut(|stream| stream.write_all(&queued).is_ok());
        }
        input.copy_within(at..filled, 0);
        filled -= at;
    }
}

/// A running raw server, as a medium.
pub(crate) struct Raw {
    pub(crate) child: OwnChild,
    address: SocketAddr,
    pub(crate) frame_bytes: usize,
}

/// Starts this program again as the raw server, for one run.
pub(crate) fn start(writes: Writes, frame_bytes: usize) -> io::Result<Raw> {
    let role = match writes {
        Writes::Each => "raw-each",
        Writes::Queued => "raw-queued",
    };
    let mut child = OwnChild::new(
        Command::new(std::env::current_exe()?)
            .arg(role)
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
        .map_err(|error| io::Error::other(format!("raw server: {error}")))?;
    Ok(Raw {
        child,
        address,
        frame_bytes,
    })
}

impl Medium for Raw {
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
        out.push(SUBSCRIBER);
    }

    fn hear(&self, stage: &mut Stage, input: &[u8]) -> io::Result<Heard> {
        if *stage != Stage::Live {
            return Ok(Heard::Ready {
                bytes: WELCOME.len(),
                next_seq: None,
            });
        }
        let Some(frame) = frame::decode(input) else {
            return Ok(Heard::Part);
        };
        match find_counter(frame.payload) {
            Some(counter) => Ok(Heard::Event {
                bytes: frame.bytes,
                counter,
                seq: None,
            }),
            None => Err(unexpected("no event", frame.payload)),
        }
    }

    fn introduce(&self, out: &mut Vec<u8>) -> Stage {
        out.push(PUBLISHER);
        Stage::Waiting
    }

    fn publish(&self, counter: u64, out: &mut Vec<u8>) {
        out.extend(
            u32::try_from(self.frame_bytes)
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        server_frame(counter, self.frame_bytes, out);
    }

    fn answers_per_event(&self) -> u64 {
        0
    }

    fn answers(&self, stage: &mut Stage, input: &[u8]) -> io::Result<(usize, u64)> {
        if !input.is_empty() {
            *stage = Stage::Live;
        }
        Ok((input.len(), 0))
    }
}

/// Appends a frame of exactly so many bytes, header included, as a server would send it.
fn server_frame(counter: u64, bytes: usize, out: &mut Vec<u8>) {
    const MASK_BYTES: usize = 4;
    let header = if bytes < 128 { 2 } else { 4 };
    let from = out.len();
    let value = event_value(counter, bytes - header);
    let start = frame::encode(TEXT, value.as_bytes(), out);
    out[from + 1] &= 0x7F;
    out.drain(start - MASK_BYTES..start);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_size_asked_for() {
        let mut out = Vec::new();
        server_frame(7, 393, &mut out);
        assert_eq!(out.len(), 393);
        let frame = frame::decode(&out).expect("a whole frame");
        assert_eq!(find_counter(frame.payload), Some(7));
    }
}
