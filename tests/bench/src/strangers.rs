//! How much of the machine others took while the bench ran: what the numbers are worth.

use std::io;
use std::time::{Duration, Instant};

use iii_stream::bench::process_cost::{cpu_of_bench_and_children, cpu_of_machine};

/// Beyond this share the report warns.
pub(crate) const SHARE_MAX: f64 = 0.05;

/// A run of the bench, from its start. Read it when all children have ended.
pub(crate) struct Strangers {
    start: Instant,
    machine: Duration,
    ours: Duration,
}

impl Strangers {
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            start: Instant::now(),
            machine: cpu_of_machine()?,
            ours: cpu_of_bench_and_children()?,
        })
    }

    /// The share of all cores that processes other than ours took since the start.
    pub(crate) fn share(&self) -> io::Result<f64> {
        let machine = cpu_of_machine()?.saturating_sub(self.machine);
        let ours = cpu_of_bench_and_children()?.saturating_sub(self.ours);
        let cores = std::thread::available_parallelism()?.get() as f64;
        let offered = self.start.elapsed().as_secs_f64() * cores;
        Ok(machine.saturating_sub(ours).as_secs_f64() / offered)
    }
}
