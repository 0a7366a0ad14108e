//! What a stretch of time has cost: the server's CPU and memory, and our own CPU.

use std::io;
use std::time::{Duration, Instant};

use super::process_cost;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Watches the serving process, where it is known, and this one.
pub struct Meter {
    server: Option<u32>,
    peak: u64,
    looked_at: Instant,
    start: Instant,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
    things: u64,
}

/// What so many things have cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// How many there were.
    pub things: u64,
    /// How long it took.
    pub elapsed: Duration,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
}

impl Cost {
    /// The server's CPU time for each, in microseconds.
    pub fn server_us(&self) -> Option<f64> {
        Some(self.server_cpu?.as_secs_f64() * 1e6 / self.things as f64)
    }

    /// Our CPU time for each, in microseconds.
    pub fn client_us(&self) -> f64 {
        self.client_cpu.as_secs_f64() * 1e6 / self.things as f64
    }
}

impl Meter {
    /// Begins to watch.
    pub fn new(server: Option<u32>) -> io::Result<Self> {
        let mut meter = Self {
            server,
            peak: 0,
            looked_at: Instant::now(),
            start: Instant::now(),
            server_cpu: None,
            client_cpu: Duration::ZERO,
            things: 0,
        };
        meter.start(0)?;
        Ok(meter)
    }

    /// The server's resident memory now.
    pub fn rss(&mut self) -> io::Result<Option<u64>> {
        let rss = self.server.map(process_cost::rss_bytes).transpose()?;
        self.peak = self.peak.max(rss.unwrap_or_default());
        Ok(rss)
    }

    /// Notes the server's memory now and then; to be called often.
    pub fn look(&mut self) -> io::Result<()> {
        if self.server.is_some() && LOOK_EVERY < self.looked_at.elapsed() {
            self.rss()?;
            self.looked_at = Instant::now();
        }
        Ok(())
    }

    /// The most memory seen.
    pub fn rss_peak(&self) -> Option<u64> {
        self.server.map(|_| self.peak)
    }

    /// Begins to count, with so many things done already.
    pub fn start(&mut self, things: u64) -> io::Result<()> {
        self.server_cpu = self.server.map(process_cost::cpu).transpose()?;
        self.client_cpu = process_cost::own_cpu()?;
        self.things = things;
        self.start = Instant::now();
        Ok(())
    }

    /// What it has cost since [`Meter::start`], with so many things done now.
    pub fn stop(&mut self, things: u64) -> io::Result<Cost> {
        let elapsed = self.start.elapsed();
        self.rss()?;
        let server_cpu = self.server.map(process_cost::cpu).transpose()?;
        let client_cpu = process_cost::own_cpu()?;
        Ok(Cost {
            things: things - self.things,
            elapsed,
            server_cpu: server_cpu
                .zip(self.server_cpu)
                .map(|(end, start)| end.saturating_sub(start)),
            client_cpu: client_cpu.saturating_sub(self.client_cpu),
        })
    }
}
