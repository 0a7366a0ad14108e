//! A closed loop over many connections: each reply releases the next call. One thread.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::histogram::Histogram;
use crate::plan::Window;
use crate::process_cost;
use crate::wire::{PATIENCE, Session, Wire, unexpected};

/// Connections of the load.
pub(crate) const CONNECTIONS: usize = 8;
/// Calls in flight on each.
pub(crate) const DEPTH: usize = 32;

const INPUT_BYTES: usize = 256 << 10;

/// One window of load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadSample {
    pub(crate) calls_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU time of the serving process for each call.
    pub(crate) server_cpu_us: f64,
    /// CPU time of this process for each call: near the wall time per call, the client was the limit.
    pub(crate) client_cpu_us: f64,
    /// All calls, those of the warm-up and the end included.
    pub(crate) acknowledged: u64,
}

/// Opens the connections, keeps them full through warm-up and window, and waits for the last replies.
pub(crate) fn run<W: Wire>(wire: &W, window: Window, server: u32) -> io::Result<LoadSample> {
    let mut crowd = Crowd::open(wire)?;
    crowd.until(Instant::now() + window.warm)?;

    crowd.latency.clear();
    let cpu = (
        process_cost::cpu(server)?,
        process_cost::cpu(std::process::id())?,
    );
    let start = Instant::now();
    crowd.until(start + window.measured)?;
    let elapsed = start.elapsed();
    let server_cpu = process_cost::cpu(server)? - cpu.0;
    let client_cpu = process_cost::cpu(std::process::id())? - cpu.1;
    let calls = crowd.latency.total() as f64;
    let (p50_us, p99_us) = (
        crowd.latency.quantile_us(0.5),
        crowd.latency.quantile_us(0.99),
    );

    crowd.drain()?;
    Ok(LoadSample {
        calls_per_second: calls / elapsed.as_secs_f64(),
        p50_us,
        p99_us,
        server_cpu_us: micros(server_cpu) / calls,
        client_cpu_us: micros(client_cpu) / calls,
        acknowledged: crowd.acknowledged,
    })
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// All connections and what they have seen.
struct Crowd<S> {
    poll: Poll,
    events: Events,
    lanes: Vec<Lane<S>>,
    latency: Histogram,
    acknowledged: u64,
    /// False while the last replies are awaited.
    calling: bool,
}

/// One connection.
struct Lane<S> {
    stream: TcpStream,
    session: S,
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    written: usize,
    done: Vec<usize>,
    sent_at: Vec<Instant>,
    in_flight: usize,
}

impl<S: Session> Crowd<S> {
    fn open<W: Wire<Session = S>>(wire: &W) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut lanes = Vec::new();
        for connection in 0..CONNECTIONS {
            let (stream, session) = wire.open(connection)?;
            stream.set_nonblocking(true)?;
            let mut lane = Lane::new(TcpStream::from_std(stream), session);
            poll.registry().register(
                &mut lane.stream,
                Token(connection),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            lane.fill(Instant::now())?;
            lanes.push(lane);
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(CONNECTIONS),
            lanes,
            latency: Histogram::new(),
            acknowledged: 0,
            calling: true,
        })
    }

    /// Serves the connections until this time.
    fn until(&mut self, end: Instant) -> io::Result<()> {
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// Starts no more calls and waits for the replies still owed.
    fn drain(&mut self) -> io::Result<()> {
        self.calling = false;
        while self.lanes.iter().any(|lane| 0 < lane.in_flight) {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.poll.poll(&mut self.events, Some(PATIENCE))?;
        if self.events.is_empty() {
            return Err(io::Error::other(format!("no reply for {PATIENCE:?}")));
        }
        for event in &self.events {
            let lane = &mut self.lanes[event.token().0];
            if event.is_readable() {
                self.acknowledged += lane.receive(&mut self.latency, self.calling)?;
            }
            lane.flush()?;
        }
        Ok(())
    }
}

impl<S: Session> Lane<S> {
    fn new(stream: TcpStream, session: S) -> Self {
        Self {
            stream,
            session,
            input: vec![0; INPUT_BYTES],
            filled: 0,
            output: Vec::new(),
            written: 0,
            done: Vec::new(),
            sent_at: Vec::new(),
            in_flight: 0,
        }
    }

    /// Starts all calls of the connection.
    fn fill(&mut self, now: Instant) -> io::Result<()> {
        for slot in 0..DEPTH {
            self.session.call(slot, &mut self.output);
        }
        self.sent_at = vec![now; DEPTH];
        self.in_flight = DEPTH;
        self.flush()
    }

    /// Reads what has arrived and queues the calls it releases; answers the number of replies.
    fn receive(&mut self, latency: &mut Histogram, calling: bool) -> io::Result<u64> {
        let mut replies = 0;
        loop {
            let room = &mut self.input[self.filled..];
            let offered = room.len();
            let read = match self.stream.read(room) {
                Ok(0) => return Err(unexpected("the peer ended the connection", b"")),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(replies),
                Err(error) => return Err(error),
            };
            self.filled += read;
            replies += self.answered(latency, calling)?;
            // A short read has emptied the socket: the next event tells of more.
            if read < offered {
                return Ok(replies);
            }
            if self.filled == self.input.len() {
                return Err(unexpected("a message too long for the bench", &self.input));
            }
        }
    }

    fn answered(&mut self, latency: &mut Histogram, calling: bool) -> io::Result<u64> {
        let arrived = Instant::now();
        let input = &self.input[..self.filled];
        let scanned = self.session.scan(input, &mut self.done, &mut self.output)?;
        self.input.copy_within(scanned..self.filled, 0);
        self.filled -= scanned;
        let replies = self.done.len();
        self.in_flight -= replies;
        for slot in self.done.drain(..) {
            latency.record(arrived - self.sent_at[slot]);
            if calling {
                self.session.call(slot, &mut self.output);
                self.sent_at[slot] = arrived;
                self.in_flight += 1;
            }
        }
        Ok(replies as u64)
    }

    /// Writes everything queued in one go, or as much as the socket takes.
    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }
}
