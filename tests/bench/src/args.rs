//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Benchmarks of iii-stream. Run it on an idle machine and from a release build.
#[derive(Debug, Parser)]
#[command(name = "iii-stream-bench", version)]
pub(crate) struct Args {
    /// What to measure.
    #[arg(value_enum, default_value_t = What::All)]
    pub(crate) what: What,
    /// Measured seconds of each load in all, split over interleaved rounds; warm-ups come on top.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub(crate) seconds: f64,
    /// Items that the durable store starts with.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub(crate) items: u64,
    /// Of the durable store: few items and short rounds, to see that everything works; the numbers mean little.
    #[arg(long)]
    pub(crate) quick: bool,
    /// The server binary; by default `iii-stream` beside this program, else in target/release.
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// Also write the report as JSON to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

/// The parts of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Acknowledged calls on the worker port, beside Redis and a raw echo.
    WorkerPort,
    /// Fan-out, joins, slow subscribers and growth, beside a raw server and other products.
    Fanout,
    /// The durable store: writes beside memory, the bare disk and Redis; starts and replay.
    Durable,
    /// Several instances over one Redis, beside Redis alone.
    Scaling,
    /// Native cost of the core's operations.
    Core,
    /// Everything.
    All,
    /// The echo server the bench starts as its own child.
    #[value(hide = true)]
    EchoServer,
    /// The raw server, with a write for each message.
    #[value(hide = true)]
    RawEach,
    /// The raw server, with one write for all that is queued.
    #[value(hide = true)]
    RawQueued,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && 0.0 < seconds => Ok(seconds),
        _ => Err(format!("`{text}` is not a positive number of seconds")),
    }
}
