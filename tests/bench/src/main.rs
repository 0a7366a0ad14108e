//! Runs the benchmarks the command line asks for and prints one report.
//!
//! Reading order: `args`, `worker_port`, `fanout`, `durable` and `scaling` (what is measured, in which order), `iii_stream::bench` and `single`
//! (how), the implementations of its `Wire` and `Medium` (what travels), `report` (what is said).

mod args;
mod batches;
mod child;
mod core_cost;
mod durable;
mod echo;
mod fanout;
mod fanout_rows;
mod nats;
mod nchan;
mod node_ws;
mod plan;
mod raw;
mod redis_medium;
mod redis_process;
mod redis_wire;
mod report;
mod rounds;
mod scaling;
mod server_process;
mod single;
mod spread;
mod strangers;
mod values;
mod worker_calls;
mod worker_client;
mod worker_port;
mod worker_rows;

use std::io;
use std::process::ExitCode;

use args::{Args, What};
use iii_stream::bench::machine;
use raw::Writes;
use report::Report;
use strangers::Strangers;

// The server binary uses it, so the core's numbers here are the core's numbers there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = <Args as clap::Parser>::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iii-stream-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    match args.what {
        What::EchoServer => return echo::serve(),
        What::RawEach => return raw::serve(Writes::Each),
        What::RawQueued => return raw::serve(Writes::Queued),
        What::WorkerPort
        | What::Fanout
        | What::Durable
        | What::Scaling
        | What::Core
        | What::All => {}
    }
    let mut report = Report::new(machine::describe());
    if cfg!(debug_assertions) {
        report.note("this is a debug build of the bench: use `cargo run --release`");
    }
    let strangers = Strangers::watch()?;
    if matches!(args.what, What::WorkerPort | What::All) {
        worker_port::measure(args, &mut report)?;
    }
    if matches!(args.what, What::Fanout | What::All) {
        fanout::measure(args, &mut report)?;
    }
    if matches!(args.what, What::Durable | What::All) {
        durable::measure(args, &mut report)?;
    }
    if matches!(args.what, What::Scaling | What::All) {
        scaling::measure(args, &mut report)?;
    }
    if matches!(args.what, What::Core | What::All) {
        core_cost::measure(args, &mut report)?;
    }
    let share = strangers.share()?;
    let percent = format!("{:.1} % of the machine", share * 100.0);
    if strangers::SHARE_MAX < share {
        report.note(format!(
            "other processes took {percent}: measure again when it is idle"
        ));
    }
    report.setting("taken by others", percent.into());
    print!("{}", report.text());
    if let Some(path) = &args.json {
        std::fs::write(path, report.json())?;
    }
    Ok(())
}
