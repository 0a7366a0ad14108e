//! `bench connect`: how fast subscribers come in, and what each costs while nothing happens.

use std::io;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::checker::Faults;
use super::crowd::{Crowd, JOINS_AT_ONCE, Schedule};
use super::frame::{self, TEXT};
use super::medium::Medium;
use super::meter::Meter;
use super::publisher::Publisher;
use super::report::Report;
use super::stream_medium::{Spread, StreamMedium};
use super::target::{Target, check_open_files};

/// How long memory is given to settle, before it is looked at again.
const SETTLE: Duration = Duration::from_millis(500);

/// How subscribers are spread over groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Groups {
    /// All in one.
    One,
    /// Each in its own.
    Own,
}

/// The options of `bench connect`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Subscribers that connect.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = super::at_least_one)]
    subscribers: usize,
    /// Which groups they watch.
    #[arg(long, value_enum, default_value_t = Groups::Own)]
    groups: Groups,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Subscribers that were answered, by the time from the first attempt to the last answer.
    pub per_second: f64,
    /// From an attempt to its answer.
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
    /// The same.
    pub max_us: f64,
    /// CPU time of the serving process for each, if its process is known.
    pub server_cpu_us: Option<f64>,
    /// CPU time of this process for each.
    pub client_cpu_us: f64,
    /// Resident memory of the serving process that came with each, in bytes.
    pub server_bytes: Option<f64>,
}

/// Connects so many, and looks at the server's memory when all are quiet. The crowd stays for what is to follow.
pub fn join<'m, M: Medium>(
    medium: &'m M,
    subscribers: usize,
    server: Option<u32>,
) -> io::Result<(Crowd<'m, M>, Sample)> {
    let mut meter = Meter::new(server)?;
    let before = meter.rss()?;
    let mut crowd = Crowd::new(medium)?;
    meter.start(0)?;
    let joined = crowd.join(subscribers, true, 0)?;
    let cost = meter.stop(subscribers as u64)?;
    let end = Instant::now() + SETTLE;
    while Instant::now() < end {
        crowd.turn(SETTLE)?;
    }
    let after = meter.rss()?;
    let grown = |(after, before): (u64, u64)| (after as f64 - before as f64) / subscribers as f64;
    let sample = Sample {
        per_second: subscribers as f64 / joined.elapsed.as_secs_f64(),
        p50_us: joined.latency.quantile_us(0.5),
        p99_us: joined.latency.quantile_us(0.99),
        max_us: joined.latency.max_us(),
        server_cpu_us: cost.server_us(),
        client_cpu_us: cost.client_us(),
        server_bytes: after.zip(before).map(grown),
    };
    Ok((crowd, sample))
}

/// Runs it.
pub fn measure(options: &Options, target: &Target) -> io::Result<Report> {
    const FRAME_BYTES: usize = 393;
    check_open_files(options.subscribers)?;
    let spread = match options.groups {
        Groups::One => Spread::One,
        Groups::Own => Spread::Alone(0),
    };
    let medium = StreamMedium::new(target, FRAME_BYTES, spread)?;
    let (mut crowd, sample) = join(&medium, options.subscribers, target.process()?)?;
    let faults = prove(&mut crowd, &medium, options)?;

    let mut report = Report::new("connect");
    report.setting("subscribers", json!(options.subscribers));
    let groups = match options.groups {
        Groups::One => "one",
        Groups::Own => "own",
    };
    report.setting("groups", json!(groups));
    report.setting("at the same time", json!(JOINS_AT_ONCE));
    report.count("delivered", "got the event after that", crowd.delivered);
    report.faults(faults, &crowd.ended);
    report.number(
        "joined_per_second",
        "joined a second",
        "/s",
        sample.per_second,
    );
    report.number("p50_us", "p50, connect to first sync", "us", sample.p50_us);
    report.number("p99_us", "p99", "us", sample.p99_us);
    report.number("max_us", "longest", "us", sample.max_us);
    report.maybe(
        "server_cpu_us",
        "server CPU for each",
        "us",
        sample.server_cpu_us,
    );
    report.number(
        "client_cpu_us",
        "the bench's own CPU for each",
        "us",
        sample.client_cpu_us,
    );
    report.maybe(
        "server_bytes",
        "server memory for each",
        "B",
        sample.server_bytes,
    );
    Ok(report)
}

/// One event for everybody: who is connected must also be heard of.
fn prove(
    crowd: &mut Crowd<'_, StreamMedium>,
    medium: &StreamMedium,
    options: &Options,
) -> io::Result<Faults> {
    crowd.schedule = Schedule::At(Instant::now());
    match options.groups {
        Groups::One => {
            let mut publisher = Publisher::open(medium)?;
            publisher.publish(1)?;
            publisher.finish()?;
        }
        Groups::Own => {
            let mut calls = super::worker_wire::upgrade(medium.publishers(), medium.token())?;
            let mut out = Vec::new();
            for subscriber in 0..options.subscribers {
                medium.publish_in(&medium.lone_group(subscriber), 0, &mut out);
            }
            frame::encode(TEXT, br#"{"type":"ping"}"#, &mut out);
            // Answers are not read: they fit into what a worker's queue holds.
            io::Write::write_all(&mut calls, &out)?;
            crowd.until_delivered(1)?;
        }
    }
    crowd.until_delivered(1)?;
    Ok(crowd.faults(1))
}
