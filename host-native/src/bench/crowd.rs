//! Many subscribers on one thread: connects them, reads them as they become readable, and checks what they get.
//!
//! It shares the machine with the server, so a message costs little here: one buffer for all, one read for all that waits
//! on a connection, no JSON.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::checker::{Checker, Faults};
use super::histogram::Histogram;
use super::medium::{Heard, Medium, Stage};
use super::wire::{PATIENCE, unreachable};

/// Connections that are being made at the same time.
pub const JOINS_AT_ONCE: usize = 64;

const READ_BYTES: usize = 256 << 10;

/// When an event should have left its publisher: that, and not when it really left, is where its latency begins.
#[derive(Clone, Copy, Debug)]
pub enum Schedule {
    /// All at this time.
    At(Instant),
    /// One after the other.
    Every {
        /// The counter of the first.
        first: u64,
        /// When that one is due.
        start: Instant,
        /// From one to the next.
        interval: Duration,
    },
}

impl Schedule {
    /// The time of the event with this counter.
    pub fn intended(&self, counter: u64) -> Instant {
        match self {
            Self::At(time) => *time,
            Self::Every {
                first,
                start,
                interval,
            } => *start + interval.mul_f64(counter.saturating_sub(*first) as f64),
        }
    }
}

/// All subscribers, and what they have seen.
pub struct Crowd<'m, M> {
    medium: &'m M,
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    input: Vec<u8>,
    /// Where latencies begin.
    pub schedule: Schedule,
    /// Events below this counter are counted, but have no latency: they belong to the warm-up.
    pub measured_from: u64,
    /// How long events took.
    pub latency: Histogram,
    /// Events that came, each once for each subscriber.
    pub delivered: u64,
    /// Bytes of these events, with what frames them.
    pub event_bytes: u64,
    /// The longest that a subscriber heard nothing since [`Crowd::hush`].
    pub silence: Duration,
    /// Why connections ended that should not have.
    pub ended: Vec<String>,
    ready: usize,
}

/// One subscriber.
struct Member {
    stream: TcpStream,
    stage: Stage,
    /// The part of a message that is still to be completed.
    rest: Vec<u8>,
    check: Checker,
    asked_at: Instant,
    heard_at: Instant,
    /// What it still has to send.
    greeting: Vec<u8>,
    /// Whether events are due here. The others are only there.
    listens: bool,
    /// Events that came although none were due.
    strays: u64,
    is_over: bool,
}

/// How connecting and joining went.
pub struct Joined {
    /// From the first attempt to the last answer.
    pub elapsed: Duration,
    /// From each attempt to its answer.
    pub latency: Histogram,
}

impl<'m, M: Medium> Crowd<'m, M> {
    /// Nobody yet.
    pub fn new(medium: &'m M) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            medium,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            members: Vec::new(),
            input: vec![0; READ_BYTES],
            schedule: Schedule::At(now),
            measured_from: 0,
            latency: Histogram::new(),
            delivered: 0,
            event_bytes: 0,
            silence: Duration::ZERO,
            ended: Vec::new(),
            ready: 0,
        })
    }

    /// Connects so many more, and waits until each has its subscription. Those who listen get events from `next` on.
    pub fn join(&mut self, count: usize, listens: bool, next: u64) -> io::Result<Joined> {
        let start = Instant::now();
        let first = self.members.len();
        let mut latency = Histogram::new();
        let mut waiting: Vec<usize> = Vec::new();
        while self.members.len() < first + count || !waiting.is_empty() {
            while waiting.len() < JOINS_AT_ONCE && self.members.len() < first + count {
                waiting.push(self.members.len());
                self.connect(listens, next)?;
            }
            let progress = self.ready;
            self.turn(PATIENCE)?;
            if let Some(reason) = self.ended.first() {
                return Err(io::Error::other(reason.clone()));
            }
            if self.ready == progress
                && waiting
                    .iter()
                    .all(|index| PATIENCE < self.members[*index].asked_at.elapsed())
            {
                return Err(io::Error::other(format!(
                    "{} of {count} subscribers have no answer to their join within {PATIENCE:?}",
                    waiting.len()
                )));
            }
            waiting.retain(|index| {
                let member = &self.members[*index];
                let is_waiting = member.stage != Stage::Live;
                if !is_waiting {
                    latency.record(member.heard_at - member.asked_at);
                }
                is_waiting
            });
        }
        Ok(Joined {
            elapsed: start.elapsed(),
            latency,
        })
    }

    fn connect(&mut self, listens: bool, next: u64) -> io::Result<()> {
        let index = self.members.len();
        let asked_at = Instant::now();
        let address = self.medium.subscribers();
        let lost = |error| unreachable(address, &error, self.medium.how_to_start());
        let mut stream = TcpStream::connect(address).map_err(lost)?;
        self.poll.registry().register(
            &mut stream,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let mut greeting = Vec::new();
        self.medium.subscribe(index, &mut greeting);
        self.members.push(Member {
            stream,
            stage: Stage::Greeting,
            rest: Vec::new(),
            check: Checker::begin(next, None),
            asked_at,
            heard_at: asked_at,
            greeting,
            listens,
            strays: 0,
            is_over: false,
        });
        Ok(())
    }

    /// From now on these read nothing more: what comes for them waits in the kernel, and then in the server.
    pub fn freeze(&mut self, who: Range<usize>) -> io::Result<()> {
        for member in &mut self.members[who] {
            self.poll.registry().deregister(&mut member.stream)?;
            member.listens = false;
        }
        Ok(())
    }

    /// Subscribers that events are due to.
    pub fn listeners(&self) -> u64 {
        self.members.iter().filter(|member| member.listens).count() as u64
    }

    /// Serves until each listener has got every event below `published`: true; or nothing has come for the time of patience.
    pub fn until_delivered(&mut self, published: u64) -> io::Result<bool> {
        let due = published * self.listeners();
        let mut heard = (self.delivered, Instant::now());
        while self.delivered < due {
            self.turn(Duration::from_millis(200))?;
            if self.delivered != heard.0 {
                heard = (self.delivered, Instant::now());
            } else if PATIENCE < heard.1.elapsed() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Serves whoever has something, once; waits at most this long for it.
    pub fn turn(&mut self, patience: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let outcome = events.iter().try_for_each(|event| {
            let index = event.token().0;
            if event.is_writable() && !self.members[index].greeting.is_empty() {
                self.greet(index)?;
            }
            if event.is_readable() || event.is_error() || event.is_read_closed() {
                // No further event tells of an end that is here already.
                self.receive(index, event.is_error() || event.is_read_closed())?;
            }
            Ok(())
        });
        self.events = events;
        outcome
    }

    /// Says who one is, as soon as the connection stands.
    fn greet(&mut self, index: usize) -> io::Result<()> {
        let member = &mut self.members[index];
        let address = self.medium.subscribers();
        let lost = |error: io::Error| unreachable(address, &error, self.medium.how_to_start());
        if let Some(error) = member.stream.take_error()? {
            return Err(lost(error));
        }
        member.stream.set_nodelay(true)?;
        match member.stream.write(&member.greeting) {
            // A fresh connection has room for a greeting.
            Ok(written) if written == member.greeting.len() => {
                member.greeting = Vec::new();
                Ok(())
            }
            Ok(_) => Err(io::Error::other(
                "a greeting did not fit into the connection",
            )),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }

    /// Reads what is there, and the end of the connection too if `is_ending`.
    fn receive(&mut self, index: usize, is_ending: bool) -> io::Result<()> {
        loop {
            let member = &mut self.members[index];
            if member.is_over {
                return Ok(());
            }
            let kept = member.rest.len();
            if self.input.len() < kept * 2 {
                self.input.resize(kept * 4, 0);
            }
            self.input[..kept].copy_from_slice(&member.rest);
            let offered = self.input.len() - kept;
            let read = match member.stream.read(&mut self.input[kept..]) {
                Ok(0) => {
                    self.over(index, "the connection was ended by the other side".into());
                    return Ok(());
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if !member.greeting.is_empty() => {
                    let address = self.medium.subscribers();
                    return Err(unreachable(address, &error, self.medium.how_to_start()));
                }
                Err(error) => {
                    self.over(index, error.to_string());
                    return Ok(());
                }
            };
            member.rest.clear();
            self.heard(index, kept + read)?;
            // A short read has emptied the socket: the next event tells of more.
            if read < offered && !is_ending {
                return Ok(());
            }
        }
    }

    /// Looks at what one has received.
    fn heard(&mut self, index: usize, filled: usize) -> io::Result<()> {
        let now = Instant::now();
        let member = &mut self.members[index];
        let mut at = 0;
        let mut reason = None;
        while at < filled && reason.is_none() {
            match self
                .medium
                .hear(&mut member.stage, &self.input[at..filled])?
            {
                Heard::Event {
                    bytes,
                    counter,
                    seq,
                } => {
                    at += bytes;
                    if !member.listens {
                        member.strays += 1;
                        continue;
                    }
                    if !member.check.take(counter, seq) {
                        continue;
                    }
                    self.delivered += 1;
                    self.event_bytes += bytes as u64;
                    if self.measured_from <= counter {
                        let since = self.schedule.intended(counter);
                        self.latency.record(now.saturating_duration_since(since));
                        self.silence = self.silence.max(now - member.heard_at);
                    }
                    member.heard_at = now;
                }
                Heard::Other { bytes } => at += bytes,
                Heard::Part => break,
                Heard::Ready { bytes, next_seq } => {
                    at += bytes;
                    self.ready += 1;
                    member.stage = Stage::Live;
                    member.heard_at = now;
                    member.check.place(next_seq);
                }
                Heard::Ask { bytes, answer } => {
                    at += bytes;
                    // Some bytes into a connection on which nothing else is sent.
                    let _ = member.stream.write(&answer);
                }
                Heard::Closed(why) => reason = Some(why),
            }
        }
        member.rest.extend_from_slice(&self.input[at..filled]);
        if let Some(why) = reason {
            self.over(index, why);
        }
        Ok(())
    }

    fn over(&mut self, index: usize, why: String) {
        self.members[index].is_over = true;
        self.ended.push(why);
    }

    /// Begins to look for the longest silence.
    pub fn hush(&mut self) {
        let now = Instant::now();
        self.silence = Duration::ZERO;
        for member in &mut self.members {
            member.heard_at = now;
        }
    }

    /// What went wrong, where so many events were published.
    pub fn faults(&self, published: u64) -> Faults {
        let mut faults = Faults::default();
        for member in &self.members {
            if member.listens {
                faults += member.check.faults(published);
            }
            // Who is owed nothing got it too often.
            faults.duplicated += member.strays;
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A server that says `r` to each subscriber, and, when it is told to, digits, one an event.
    struct Digits {
        address: SocketAddr,
        go: Sender<()>,
    }

    impl Digits {
        /// Each of the next subscribers gets one of these texts, and then the end of its connection.
        fn serve(texts: &'static [&'static str]) -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
            let address = listener.local_addr().expect("an address");
            let (go, told) = channel();
            std::thread::spawn(move || {
                let mut streams = Vec::new();
                for _ in texts {
                    let (mut stream, _) = listener.accept().expect("a subscriber");
                    stream.read_exact(&mut [0]).expect("a greeting");
                    stream.write_all(b"r").expect("room");
                    streams.push(stream);
                }
                told.recv().expect("a word");
                for (stream, text) in streams.iter_mut().zip(texts) {
                    for byte in text.bytes() {
                        stream.write_all(&[byte]).expect("room");
                    }
                }
            });
            Self { address, go }
        }

        /// Lets `count` subscribers join, speaks, and waits for the end.
        fn crowd(&self, count: usize, listens: bool) -> Crowd<'_, Self> {
            let mut crowd = Crowd::new(self).expect("a crowd");
            crowd.join(count, listens, 0).expect("subscribers");
            self.go.send(()).expect("a server");
            let started = Instant::now();
            while crowd.ended.len() < count {
                crowd.turn(Duration::from_millis(50)).expect("no error");
                assert!(started.elapsed() < PATIENCE, "no end is seen");
            }
            crowd
        }
    }

    impl Medium for Digits {
        fn subscribers(&self) -> SocketAddr {
            self.address
        }

        fn publishers(&self) -> SocketAddr {
            self.address
        }

        fn how_to_start(&self) -> &'static str {
            "It is a test's."
        }

        fn subscribe(&self, _subscriber: usize, out: &mut Vec<u8>) {
            out.push(b's');
        }

        fn hear(&self, _stage: &mut Stage, input: &[u8]) -> io::Result<Heard> {
            Ok(match input[0] {
                b'r' => Heard::Ready {
                    bytes: 1,
                    next_seq: None,
                },
                digit => Heard::Event {
                    bytes: 1,
                    counter: u64::from(digit - b'0'),
                    seq: None,
                },
            })
        }

        fn introduce(&self, _out: &mut Vec<u8>) -> Stage {
            Stage::Live
        }

        fn publish(&self, _counter: u64, _out: &mut Vec<u8>) {}

        fn answers(&self, _stage: &mut Stage, _input: &[u8]) -> io::Result<(usize, u64)> {
            Ok((0, 0))
        }
    }

    #[test]
    fn what_a_faulty_server_does_is_seen_at_the_subscriber_it_does_it_to() {
        // The third misses 2, the fourth gets 1 twice and 3 before 2.
        let medium = Digits::serve(&["01234", "01234", "0134", "011324"]);
        let crowd = medium.crowd(4, true);
        assert_eq!(crowd.delivered, 19);
        assert_eq!(
            crowd.faults(5),
            Faults {
                lost: 1,
                duplicated: 1,
                misordered: 1
            }
        );
    }

    #[test]
    fn what_comes_to_somebody_who_is_owed_nothing_is_no_delivery_to_a_listener() {
        let medium = Digits::serve(&["0"]);
        let crowd = medium.crowd(1, false);
        assert_eq!(crowd.delivered, 0);
        assert_eq!(crowd.faults(1).duplicated, 1);
    }
}
