//! `bench slow`: what the others notice when some subscribers stop reading.

use std::io;

use clap::Args;
use serde_json::json;

use super::fanout::{self, Pace, Plan, Sample};
use super::load::Window;
use super::report::Report;
use super::stream_medium::{Spread, StreamMedium};
use super::target::{Target, check_open_files};

/// More than the kernel keeps for a connection that nobody reads: what comes after that, the server has to deal with.
const FILL_BYTES: usize = 12 << 20;

/// The options of `bench slow`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Subscribers in all.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = super::at_least_one)]
    subscribers: usize,
    /// How many of them never read once they have joined.
    #[arg(long, value_name = "N", default_value_t = 3)]
    stuck: usize,
    /// They watch another group, which gets all events too.
    #[arg(long)]
    stuck_elsewhere: bool,
    /// Size of an event's frame as a subscriber receives it.
    #[arg(long, value_name = "B", default_value_t = 16_384)]
    bytes: usize,
    /// Events a second.
    #[arg(long, value_name = "R", default_value_t = 50.0, value_parser = super::positive)]
    rate: f64,
    /// Measured seconds, with and without stuck ones each; a fifth of that comes before as warm-up.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = super::positive)]
    seconds: f64,
}

impl Options {
    /// What a release is measured with.
    pub fn standard(seconds: f64, stuck_elsewhere: bool) -> Self {
        Self {
            subscribers: 50,
            stuck: 3,
            stuck_elsewhere,
            bytes: 16_384,
            rate: 50.0,
            seconds,
        }
    }
}

/// The same load without and with stuck subscribers.
#[derive(Clone, Debug)]
pub struct Pair {
    /// All read.
    pub without: Sample,
    /// Some do not.
    pub with: Sample,
}

/// Runs one after the other.
pub fn run(options: &Options, target: &Target) -> io::Result<Pair> {
    if options.subscribers <= options.stuck {
        return Err(io::Error::other(format!(
            "--stuck {} of --subscribers {}: somebody must read",
            options.stuck, options.subscribers
        )));
    }
    let spread = if options.stuck_elsewhere {
        Spread::Two(options.subscribers - options.stuck)
    } else {
        Spread::One
    };
    let server = target.process()?;
    let phase = |stuck| {
        let medium = StreamMedium::new(target, options.bytes, spread)?;
        let plan = Plan {
            subscribers: options.subscribers,
            stuck,
            idle: 0,
            pace: Pace::Rate(options.rate),
            window: Window::of_seconds(options.seconds),
            fill: (FILL_BYTES / options.bytes.max(1)) as u64,
        };
        fanout::run(&medium, &plan, server)
    };
    Ok(Pair {
        without: phase(0)?,
        with: phase(options.stuck)?,
    })
}

/// Runs it.
pub fn measure(options: &Options, target: &Target) -> io::Result<Report> {
    check_open_files(options.subscribers)?;
    let Pair { without, with } = run(options, target)?;
    let mut report = Report::new("slow");
    report.setting("subscribers", json!(options.subscribers));
    report.setting("stuck", json!(options.stuck));
    report.setting("stuck in another group", json!(options.stuck_elsewhere));
    report.setting("bytes", json!(options.bytes));
    report.setting("events a second", json!(options.rate));
    report.setting("seconds", json!(options.seconds));
    let mut faults = without.faults;
    faults += with.faults;
    let ended: Vec<String> = without.ended.iter().chain(&with.ended).cloned().collect();
    report.count(
        "delivered",
        "delivered to those who read",
        without.delivered + with.delivered,
    );
    report.faults(faults, &ended);
    report.note(format!(
        "before each measured time {} MiB were sent, more than the kernel keeps for those who do not read",
        FILL_BYTES >> 20
    ));
    for (key, label, sample) in [
        ("without", "all read", &without),
        ("with", "some stuck", &with),
    ] {
        let mut number = |name: &str, what: &str, unit, value: Option<f64>| {
            report.maybe(
                &format!("{key}_{name}"),
                &format!("{label}: {what}"),
                unit,
                value,
            );
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        number(
            "p50_us",
            "p50, from when it was due",
            "us",
            Some(sample.p50_us),
        );
        number("p99_us", "p99", "us", Some(sample.p99_us));
        number("max_us", "longest", "us", Some(sample.max_us));
        number(
            "silence_ms",
            "longest silence",
            "ms",
            Some(sample.silence.as_secs_f64() * 1e3),
        );
        number(
            "server_cpu_us_per_event",
            "server CPU for each event",
            "us",
            sample.server_cpu_us_per_event,
        );
        number(
            "server_rss_before_mib",
            "server memory before",
            "MiB",
            sample.server_rss_before.map(mib),
        );
        number(
            "server_rss_peak_mib",
            "server memory, at most",
            "MiB",
            sample.server_rss_peak.map(mib),
        );
    }
    Ok(report)
}
