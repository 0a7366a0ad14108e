//! One call at a time on one connection: what a caller waits for when nothing else happens.

use std::io::{self, Read, Write};
use std::time::Instant;

use iii_stream::bench::histogram::Histogram;
use iii_stream::bench::load::Window;
use iii_stream::bench::process_cost;
use iii_stream::bench::wire::{Session, Wire, unexpected};

/// One window of single calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SingleSample {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU time of the serving process for each call.
    pub(crate) server_cpu_us: f64,
    /// All calls, those of the warm-up included.
    pub(crate) acknowledged: u64,
}

/// Calls and waits, through warm-up and window, with plain blocking reads and writes.
pub(crate) fn run<W: Wire>(wire: &W, window: Window, server: u32) -> io::Result<SingleSample> {
    let (mut stream, mut session) = wire.open(0)?;
    let mut latency = Histogram::new();
    let mut buffers = Buffers::new();
    let end = Instant::now() + window.warm;
    while Instant::now() < end {
        let sent = Instant::now();
        buffers.round_trip(&mut stream, &mut session)?;
        latency.record(sent.elapsed());
    }
    let warm = latency.total();

    latency.clear();
    let cpu = process_cost::cpu(server)?;
    let end = Instant::now() + window.measured;
    loop {
        let sent = Instant::now();
        if end <= sent {
            break;
        }
        buffers.round_trip(&mut stream, &mut session)?;
        latency.record(sent.elapsed());
    }
    let cpu = process_cost::cpu(server)? - cpu;
    Ok(SingleSample {
        p50_us: latency.quantile_us(0.5),
        p99_us: latency.quantile_us(0.99),
        server_cpu_us: cpu.as_secs_f64() * 1e6 / latency.total() as f64,
        acknowledged: warm + latency.total(),
    })
}

/// Kept between calls, so that a call allocates nothing.
struct Buffers {
    input: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    done: Vec<usize>,
}

impl Buffers {
    fn new() -> Self {
        Self {
            input: vec![0; 64 << 10],
            filled: 0,
            output: Vec::new(),
            done: Vec::new(),
        }
    }

    fn round_trip<S: Session>(
        &mut self,
        stream: &mut std::net::TcpStream,
        session: &mut S,
    ) -> io::Result<()> {
        session.call(0, &mut self.output);
        self.done.clear();
        while self.done.is_empty() {
            stream.write_all(&self.output)?;
            self.output.clear();
            let read = stream.read(&mut self.input[self.filled..])?;
            if read == 0 {
                return Err(unexpected("the peer ended the connection", b""));
            }
            self.filled += read;
            let input = &self.input[..self.filled];
            let scanned = session.scan(input, &mut self.done, &mut self.output)?;
            self.input.copy_within(scanned..self.filled, 0);
            self.filled -= scanned;
        }
        Ok(())
    }
}
