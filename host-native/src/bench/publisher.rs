//! One publisher: sends events in one write as many as are due, and counts the answers.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::crowd::Schedule;
use super::medium::{Medium, Stage};
use super::wire::{PATIENCE, unreachable};

/// How long to wait when a connection takes or gives nothing.
const PAUSE: Duration = Duration::from_micros(100);

/// A connection that publishes.
pub struct Publisher<'m, M> {
    medium: &'m M,
    stream: TcpStream,
    stage: Stage,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Events sent so far, which is the counter of the next one.
    pub published: u64,
    answered: u64,
}

impl<'m, M: Medium> Publisher<'m, M> {
    /// Connects, and waits until it may publish.
    pub fn open(medium: &'m M) -> io::Result<Self> {
        let address = medium.publishers();
        let stream = TcpStream::connect(address)
            .map_err(|error| unreachable(address, &error, medium.how_to_start()))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut output = Vec::new();
        let stage = medium.introduce(&mut output);
        let mut publisher = Self {
            medium,
            stream,
            stage,
            output,
            input: Vec::new(),
            published: 0,
            answered: 0,
        };
        publisher.send()?;
        let started = Instant::now();
        while publisher.stage != Stage::Live {
            publisher.collect()?;
            if PATIENCE < started.elapsed() {
                return Err(io::Error::other(format!(
                    "{address} does not greet a publisher"
                )));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(publisher)
    }

    /// Publishes so many events in one write.
    pub fn publish(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            self.medium.publish(self.published, &mut self.output);
            self.published += 1;
        }
        self.send()
    }

    /// Publishes each event when it is due, whatever becomes of those before it, until `end`.
    pub fn keep_time(&mut self, schedule: Schedule, end: Instant) -> io::Result<()> {
        loop {
            let due = schedule.intended(self.published);
            if end <= due {
                return self.finish();
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            let mut count = 1;
            while schedule.intended(self.published + count) <= now.min(end) {
                count += 1;
            }
            self.publish(count)?;
            self.collect()?;
        }
    }

    /// Reads the answers that are there.
    pub fn collect(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::Error::other("a publisher's connection was ended")),
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let (bytes, answers) = self.medium.answers(&mut self.stage, &self.input)?;
        self.input.drain(..bytes);
        self.answered += answers;
        Ok(())
    }

    /// Waits for the answers that are still due.
    pub fn finish(&mut self) -> io::Result<()> {
        let due = self.published * self.medium.answers_per_event();
        let started = Instant::now();
        while self.answered < due {
            self.collect()?;
            if PATIENCE < started.elapsed() {
                return Err(io::Error::other(format!(
                    "{} of {due} published events have no answer within {PATIENCE:?}",
                    due - self.answered
                )));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.output.len() {
            match self.stream.write(&self.output[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Whoever waits for us to read must not wait for ever.
                    self.collect()?;
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        Ok(())
    }
}
