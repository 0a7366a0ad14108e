//! Calls over many connections, by one thread: a closed loop, where each reply releases the next call, or an open one,
//! where calls are due at a rate whatever becomes of those before.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use super::checker::Faults;
use super::crowd::Schedule;
use super::histogram::Histogram;
use super::process_cost;
use super::wire::{PATIENCE, Session, Wire, unexpected};

const INPUT_BYTES: usize = 256 << 10;
/// The most calls that wait for their reply on a connection of an open loop; what is due beyond waits here, and its
/// latency runs.
const OPEN_DEPTH: usize = 4096;
/// Shorter sleeps cost more than they tell.
const BEAT_MIN: Duration = Duration::from_micros(200);

/// A warm-up and the measured time after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Not measured.
    pub warm: Duration,
    /// Measured.
    pub measured: Duration,
}

impl Window {
    /// So long, with a fifth of it before as warm-up.
    pub fn of_seconds(seconds: f64) -> Self {
        const WARM_SHARE: f64 = 0.2;
        const WARM_SECONDS_MIN: f64 = 0.1;
        Self {
            warm: Duration::from_secs_f64((seconds * WARM_SHARE).max(WARM_SECONDS_MIN)),
            measured: Duration::from_secs_f64(seconds),
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections.
    pub connections: usize,
    /// Calls in flight on each, in a closed loop.
    pub depth: usize,
    /// Calls per second over all connections, in an open loop.
    pub rate: Option<f64>,
    /// For how long.
    pub window: Window,
}

/// One window of load.
#[derive(Clone, Copy, Debug)]
pub struct LoadSample {
    /// Answered calls by the length of the window.
    pub calls_per_second: f64,
    /// Half of the calls took at most this.
    pub p50_us: f64,
    /// 99 of 100 calls took at most this.
    pub p99_us: f64,
    /// No call took longer.
    pub max_us: f64,
    /// CPU time of the serving process for each call, if its process is known.
    pub server_cpu_us: Option<f64>,
    /// CPU time of this process for each call: near the wall time per call, the client was the limit.
    pub client_cpu_us: f64,
    /// All calls, those of the warm-up and the end included.
    pub acknowledged: u64,
    /// What was wrong with their replies.
    pub faults: Faults,
}

/// Opens the connections, calls through warm-up and window, and waits for the last replies.
pub fn run<W: Wire>(wire: &W, load: &Load, server: Option<u32>) -> io::Result<LoadSample> {
    let mut crowd = Crowd::open(wire, load)?;
    crowd.until(Instant::now() + load.window.warm)?;

    crowd.latency.clear();
    let server_cpu = || server.map(process_cost::cpu).transpose();
    let cpu = (server_cpu()?, process_cost::own_cpu()?);
    let start = Instant::now();
    crowd.until(start + load.window.measured)?;
    let elapsed = start.elapsed();
    let server_cpu = server_cpu()?;
    let client_cpu = process_cost::own_cpu()? - cpu.1;
    let calls = crowd.latency.total() as f64;
    let rate = calls / elapsed.as_secs_f64();
    // What is still in flight was due in the window: without it the slowest calls of an open loop would not count.
    if load.rate.is_none() {
        crowd.counts_latency = false;
    }
    crowd.drain()?;

    let mut faults = Faults::default();
    for lane in &crowd.lanes {
        faults += lane.session.faults();
        faults.lost += lane.in_flight() as u64;
    }
    Ok(LoadSample {
        calls_per_second: rate,
        p50_us: crowd.latency.quantile_us(0.5),
        p99_us: crowd.latency.quantile_us(0.99),
        max_us: crowd.latency.max_us(),
        server_cpu_us: (server_cpu.zip(cpu.0)).map(|(end, start)| micros(end - start) / calls),
        client_cpu_us: micros(client_cpu) / calls,
        acknowledged: crowd.acknowledged,
        faults,
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
    counts_latency: bool,
    acknowledged: u64,
    /// The rest of a closed loop ends when this does.
    calling: bool,
    /// Of an open loop: when calls are due, and which is next.
    due: Option<(Schedule, u64)>,
    _beat: Option<Beat>,
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
    /// When the call in each slot was due; a free slot is in `free`.
    sent_at: Vec<Instant>,
    free: Vec<usize>,
}

/// A thread that wakes the loop when calls are due: the poll itself sleeps in whole milliseconds.
struct Beat(Arc<AtomicBool>);

impl Beat {
    fn start(waker: Waker, start: Instant, interval: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let step = interval.max(BEAT_MIN);
        std::thread::spawn(move || {
            let mut next = start;
            while !seen.load(Ordering::Relaxed) {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                if waker.wake().is_err() {
                    return;
                }
                let behind = Instant::now().saturating_duration_since(next);
                let steps = (behind.as_secs_f64() / step.as_secs_f64()).floor() + 1.0;
                next += step.mul_f64(steps);
            }
        });
        Self(is_over)
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<S: Session> Crowd<S> {
    fn open<W: Wire<Session = S>>(wire: &W, load: &Load) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut lanes = Vec::new();
        let depth = if load.rate.is_some() {
            OPEN_DEPTH
        } else {
            load.depth
        };
        for connection in 0..load.connections {
            let (stream, session) = wire.open(connection)?;
            stream.set_nonblocking(true)?;
            let mut lane = Lane::new(TcpStream::from_std(stream), session, depth);
            poll.registry().register(
                &mut lane.stream,
                Token(connection),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            lanes.push(lane);
        }
        let start = Instant::now();
        let mut due = None;
        let mut beat = None;
        if let Some(rate) = load.rate {
            let interval = Duration::from_secs_f64(1.0 / rate);
            due = Some((
                Schedule::Every {
                    first: 0,
                    start,
                    interval,
                },
                0,
            ));
            let waker = Waker::new(poll.registry(), Token(usize::MAX))?;
            beat = Some(Beat::start(waker, start, interval));
        } else {
            for lane in &mut lanes {
                while lane.call(start) {}
                lane.flush()?;
            }
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(load.connections + 1),
            lanes,
            latency: Histogram::new(),
            counts_latency: true,
            acknowledged: 0,
            calling: true,
            due,
            _beat: beat,
        })
    }

    /// Serves the connections until this time.
    fn until(&mut self, end: Instant) -> io::Result<()> {
        while Instant::now() < end {
            self.call_what_is_due(end)?;
            self.turn()?;
        }
        self.call_what_is_due(end)
    }

    /// Sends the calls of an open loop whose time has come, connection after connection.
    fn call_what_is_due(&mut self, end: Instant) -> io::Result<()> {
        let Some((schedule, next)) = &mut self.due else {
            return Ok(());
        };
        let now = Instant::now().min(end);
        let lanes = self.lanes.len();
        loop {
            let at = schedule.intended(*next);
            if now < at || !self.lanes[*next as usize % lanes].call(at) {
                break;
            }
            *next += 1;
        }
        self.lanes.iter_mut().try_for_each(Lane::flush)
    }

    /// Starts no more calls and waits for the replies still owed, as long as any come.
    fn drain(&mut self) -> io::Result<()> {
        self.calling = false;
        self.due = None;
        let mut heard = (self.acknowledged, Instant::now());
        while self.lanes.iter().any(|lane| 0 < lane.in_flight()) {
            self.turn()?;
            if self.acknowledged != heard.0 {
                heard = (self.acknowledged, Instant::now());
            } else if PATIENCE < heard.1.elapsed() {
                break;
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(PATIENCE)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        if self.events.is_empty() && self.calling {
            return Err(io::Error::other(format!("no reply for {PATIENCE:?}")));
        }
        let is_closed_loop = self.calling && self.due.is_none();
        for event in &self.events {
            // The beat's token is no lane's.
            let Some(lane) = self.lanes.get_mut(event.token().0) else {
                continue;
            };
            if event.is_readable() {
                let latency = self.counts_latency.then_some(&mut self.latency);
                self.acknowledged += lane.receive(latency, is_closed_loop)?;
            }
            lane.flush()?;
        }
        Ok(())
    }
}

impl<S: Session> Lane<S> {
    fn new(stream: TcpStream, session: S, depth: usize) -> Self {
        Self {
            stream,
            session,
            input: vec![0; INPUT_BYTES],
            filled: 0,
            output: Vec::new(),
            written: 0,
            done: Vec::new(),
            sent_at: vec![Instant::now(); depth],
            free: (0..depth).rev().collect(),
        }
    }

    fn in_flight(&self) -> usize {
        self.sent_at.len() - self.free.len()
    }

    /// Queues a call that was due at this time. False when too many wait for their reply.
    fn call(&mut self, due: Instant) -> bool {
        let Some(slot) = self.free.pop() else {
            return false;
        };
        self.session.call(slot, &mut self.output);
        self.sent_at[slot] = due;
        true
    }

    /// Reads what has arrived and queues the calls it releases; answers the number of replies.
    fn receive(&mut self, mut latency: Option<&mut Histogram>, calling: bool) -> io::Result<u64> {
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
            replies += self.answered(latency.as_deref_mut(), calling)?;
            // A short read has emptied the socket: the next event tells of more.
            if read < offered {
                return Ok(replies);
            }
            if self.filled == self.input.len() {
                self.input.resize(self.filled * 2, 0);
            }
        }
    }

    fn answered(&mut self, mut latency: Option<&mut Histogram>, calling: bool) -> io::Result<u64> {
        let arrived = Instant::now();
        let input = &self.input[..self.filled];
        let scanned = self.session.scan(input, &mut self.done, &mut self.output)?;
        self.input.copy_within(scanned..self.filled, 0);
        self.filled -= scanned;
        let replies = self.done.len();
        for slot in self.done.drain(..) {
            if let Some(latency) = &mut latency {
                latency.record(arrived.saturating_duration_since(self.sent_at[slot]));
            }
            if calling {
                self.session.call(slot, &mut self.output);
                self.sent_at[slot] = arrived;
            } else {
                self.free.push(slot);
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
