//! `iii-stream bench`: puts load on a server and tells what came of it.
//!
//! Reading order: [`writes`], [`fanout`], [`connect`], [`slow`] and [`growth`] are the loads; [`crowd`] (many
//! subscribers), [`publisher`] and [`load`] (calls) drive them; [`checker`] says whether everything came exactly once
//! and in order; [`medium`] and [`wire`] are what these know of a product, so that others can be measured by the same
//! code, as `iii-stream-bench` does.

pub mod caller;
pub mod checker;
pub mod connect;
pub mod crowd;
pub mod events;
pub mod fanout;
pub mod frame;
pub mod growth;
pub mod histogram;
pub mod load;
pub mod machine;
pub mod medium;
pub mod meter;
pub mod process_cost;
pub mod publisher;
pub mod report;
pub mod slow;
pub mod stream_medium;
pub mod target;
pub mod wire;
pub mod worker_calls;
pub mod worker_wire;
pub mod writes;

use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use target::Target;

/// What `iii-stream bench` is asked.
#[derive(Debug, Args)]
#[command(
    after_help = "Every event carries a counter, and every subscriber must see each exactly once and in order; if one does not, the run \
ends with an error. With --rate nothing waits for the server: latencies count from when a thing was due, so a server \
that stalls cannot hide it.

The load shares the machine with the server when both run on one: with --pid you see what each takes.

  iii-stream &
  iii-stream bench fanout --subscribers 1000 --pid $!
  iii-stream bench fanout --subscribers 10 --rate 1000 --pid $!
  iii-stream bench writes update --json -"
)]
pub struct Arguments {
    #[command(subcommand)]
    load: Load,
    #[command(flatten)]
    target: Target,
    /// Write the result as JSON to this file; - is standard output, instead of the table.
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Load {
    /// Acknowledged calls of workers: set, update, send or get.
    Writes(writes::Options),
    /// One publisher, many subscribers of one group.
    Fanout(fanout::Options),
    /// Subscribers coming in: how fast, and what each costs.
    Connect(connect::Options),
    /// Subscribers that stop reading, and what the others notice.
    Slow(slow::Options),
    /// Whether calls, joins and appends become dearer with size.
    Growth(growth::Options),
}

/// Runs the load and shows what came of it.
///
/// Errors: a server that is not there or refuses, and anything lost, duplicated or misordered.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    let target = &arguments.target;
    let report = match &arguments.load {
        Load::Writes(options) => writes::measure(options, target)?,
        Load::Fanout(options) => fanout::measure(options, target)?,
        Load::Connect(options) => connect::measure(options, target)?,
        Load::Slow(options) => slow::measure(options, target)?,
        Load::Growth(options) => growth::measure(options, target)?,
    };
    report.show(arguments.json.as_deref())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && 0.0 < number => Ok(number),
        _ => Err(format!("`{text}` is not a positive number")),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if 0 < number => Ok(number),
        _ => Err(format!("`{text}` is not a number from 1 on")),
    }
}
