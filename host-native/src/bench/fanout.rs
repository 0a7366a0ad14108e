//! `bench fanout`: one publisher, many subscribers, every event checked at each of them.

use std::io;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::checker::Faults;
use super::crowd::{Crowd, Schedule};
use super::load::Window;
use super::medium::Medium;
use super::meter::{Cost, Meter};
use super::publisher::Publisher;
use super::report::Report;
use super::stream_medium::{Spread, StreamMedium};
use super::target::{Target, check_open_files};

/// How events follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many are published together, and the next so many when all subscribers have all of them.
    Window(u64),
    /// So many a second, whatever becomes of those before.
    Rate(f64),
}

const FILL_WINDOW: u64 = 8;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Subscribers that get every event.
    pub subscribers: usize,
    /// How many of them stop reading once they have joined.
    pub stuck: usize,
    /// Subscribers that get none, because they watch something else.
    pub idle: usize,
    /// How events follow each other.
    pub pace: Pace,
    /// For how long.
    pub window: Window,
    /// Events that come before everything else, a window after the other: they fill the buffers between the server
    /// and those who do not read.
    pub fill: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Events of the measured time.
    pub published: u64,
    /// Deliveries of the measured time: an event counts once for each subscriber.
    pub delivered: u64,
    /// Deliveries a second.
    pub delivered_per_second: f64,
    /// From the time an event was due to be published until a subscriber had it.
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
    /// The same.
    pub max_us: f64,
    /// What went wrong, warm-up included.
    pub faults: Faults,
    /// Bytes of an event's frame.
    pub frame_bytes: f64,
    /// CPU time of the serving process per delivery, if its process is known.
    pub server_cpu_us: Option<f64>,
    /// The same per event.
    pub server_cpu_us_per_event: Option<f64>,
    /// CPU time of this process per delivery.
    pub client_cpu_us: f64,
    /// The most memory that the serving process had, in bytes.
    pub server_rss_peak: Option<u64>,
    /// What the serving process had before anybody joined.
    pub server_rss_before: Option<u64>,
    /// The longest that a subscriber got nothing.
    pub silence: Duration,
    /// Why connections ended that should not have.
    pub ended: Vec<String>,
}

/// Joins, publishes through warm-up and window, and waits until everything is there.
pub fn run<M: Medium>(medium: &M, plan: &Plan, server: Option<u32>) -> io::Result<Sample> {
    let mut meter = Meter::new(server)?;
    let rss_before = meter.rss()?;
    let mut publisher = Publisher::open(medium)?;
    let mut crowd = Crowd::new(medium)?;
    crowd.join(plan.subscribers, true, 0)?;
    crowd.join(plan.idle, false, 0)?;
    crowd.freeze(plan.subscribers - plan.stuck..plan.subscribers)?;
    while publisher.published < plan.fill {
        crowd.schedule = Schedule::At(Instant::now());
        publisher.publish(FILL_WINDOW)?;
        crowd.until_delivered(publisher.published)?;
        publisher.collect()?;
    }
    let (cost, published) = match plan.pace {
        Pace::Window(width) => by_window(&mut crowd, &mut publisher, &mut meter, width, plan)?,
        Pace::Rate(rate) => by_rate(&mut crowd, &mut publisher, &mut meter, rate, plan)?,
    };
    publisher.finish()?;
    let delivered = cost.things as f64;
    let per_event = |us: f64| us * delivered / (published as f64);
    Ok(Sample {
        published,
        delivered: cost.things,
        delivered_per_second: delivered / cost.elapsed.as_secs_f64(),
        p50_us: crowd.latency.quantile_us(0.5),
        p99_us: crowd.latency.quantile_us(0.99),
        max_us: crowd.latency.max_us(),
        faults: crowd.faults(publisher.published),
        frame_bytes: crowd.event_bytes as f64 / crowd.delivered as f64,
        server_cpu_us: cost.server_us(),
        server_cpu_us_per_event: cost.server_us().map(per_event),
        client_cpu_us: cost.client_us(),
        server_rss_peak: meter.rss_peak(),
        server_rss_before: rss_before,
        silence: crowd.silence,
        ended: std::mem::take(&mut crowd.ended),
    })
}

/// Rounds of `width` events; answers the cost of the measured ones and how many events they had.
fn by_window<M: Medium>(
    crowd: &mut Crowd<'_, M>,
    publisher: &mut Publisher<'_, M>,
    meter: &mut Meter,
    width: u64,
    plan: &Plan,
) -> io::Result<(Cost, u64)> {
    let mut rounds = |crowd: &mut Crowd<'_, M>, meter: &mut Meter, length: Duration| {
        let end = Instant::now() + length;
        loop {
            crowd.schedule = Schedule::At(Instant::now());
            publisher.publish(width)?;
            let is_whole = crowd.until_delivered(publisher.published)?;
            publisher.collect()?;
            meter.look()?;
            if !is_whole || end <= Instant::now() {
                return io::Result::Ok(publisher.published);
            }
        }
    };
    let warm = rounds(crowd, meter, plan.window.warm)?;
    crowd.measured_from = warm;
    crowd.latency.clear();
    crowd.hush();
    meter.start(crowd.delivered)?;
    let published = rounds(crowd, meter, plan.window.measured)?;
    let cost = meter.stop(crowd.delivered)?;
    Ok((cost, published - warm))
}

/// `rate` events a second, from a thread of its own; answers the cost of the measured time and how many events it had.
fn by_rate<M: Medium>(
    crowd: &mut Crowd<'_, M>,
    publisher: &mut Publisher<'_, M>,
    meter: &mut Meter,
    rate: f64,
    plan: &Plan,
) -> io::Result<(Cost, u64)> {
    let interval = Duration::from_secs_f64(1.0 / rate);
    let start = Instant::now() + Duration::from_millis(20);
    let (measured, end) = (
        start + plan.window.warm,
        start + plan.window.warm + plan.window.measured,
    );
    let schedule = Schedule::Every {
        first: publisher.published,
        start,
        interval,
    };
    crowd.schedule = schedule;
    let warm = publisher.published + (plan.window.warm.as_secs_f64() * rate).ceil() as u64;
    crowd.measured_from = warm;
    crowd.latency.clear();
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            publisher
                .keep_time(schedule, end)
                .map(|()| publisher.published)
        });
        let serve = |crowd: &mut Crowd<'_, M>, meter: &mut Meter, end: Instant| {
            loop {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return io::Result::Ok(());
                }
                crowd.turn(left.min(Duration::from_millis(100)))?;
                meter.look()?;
            }
        };
        serve(crowd, meter, measured)?;
        crowd.hush();
        meter.start(crowd.delivered)?;
        serve(crowd, meter, end)?;
        let cost = meter.stop(crowd.delivered)?;
        let published = match publishing.join() {
            Ok(outcome) => outcome?,
            Err(_) => return Err(io::Error::other("the publishing thread panicked")),
        };
        crowd.until_delivered(published)?;
        Ok((cost, published.saturating_sub(warm)))
    })
}

/// The options of `bench fanout`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Subscribers of the group.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = super::at_least_one)]
    subscribers: usize,
    /// Events in flight: so many are published together, the next when every subscriber has them.
    #[arg(long, value_name = "W", default_value_t = 8, conflicts_with = "rate", value_parser = super::at_least_one)]
    window: usize,
    /// Publish so many events a second instead, whatever becomes of those before.
    #[arg(long, value_name = "R", value_parser = super::positive)]
    rate: Option<f64>,
    /// Size of an event's frame as a subscriber receives it.
    #[arg(long, value_name = "B", default_value_t = 393)]
    bytes: usize,
    /// Measured seconds; a fifth of that comes before as warm-up.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = super::positive)]
    seconds: f64,
    /// More subscribers, each in a group of its own, that get nothing.
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: usize,
}

/// Runs it.
pub fn measure(options: &Options, target: &Target) -> io::Result<Report> {
    check_open_files(options.subscribers + options.idle)?;
    let medium = StreamMedium::new(target, options.bytes, Spread::Alone(options.subscribers))?;
    let plan = Plan {
        subscribers: options.subscribers,
        stuck: 0,
        idle: options.idle,
        pace: options
            .rate
            .map_or(Pace::Window(options.window as u64), Pace::Rate),
        window: Window::of_seconds(options.seconds),
        fill: 0,
    };
    let sample = run(&medium, &plan, target.process()?)?;
    let mut report = Report::new("fanout");
    report.setting("subscribers", json!(options.subscribers));
    report.setting("idle subscribers", json!(options.idle));
    match plan.pace {
        Pace::Window(width) => report.setting("events in flight", json!(width)),
        Pace::Rate(rate) => report.setting("events a second", json!(rate)),
    }
    report.setting("seconds", json!(options.seconds));
    report_sample(&sample, &mut report);
    if options.rate.is_some() {
        report.number(
            "silence_ms",
            "longest silence of a subscriber",
            "ms",
            sample.silence.as_secs_f64() * 1e3,
        );
    }
    Ok(report)
}

/// Says what a sample holds.
pub(super) fn report_sample(sample: &Sample, report: &mut Report) {
    report.count("published", "events", sample.published);
    report.count("delivered", "delivered", sample.delivered);
    report.faults(sample.faults, &sample.ended);
    report.number(
        "delivered_per_second",
        "delivered a second",
        "/s",
        sample.delivered_per_second,
    );
    report.number("frame_bytes", "bytes of a frame", "B", sample.frame_bytes);
    report.number("p50_us", "p50, from when it was due", "us", sample.p50_us);
    report.number("p99_us", "p99", "us", sample.p99_us);
    report.number("max_us", "longest", "us", sample.max_us);
    report.maybe(
        "server_cpu_us",
        "server CPU for each delivered",
        "us",
        sample.server_cpu_us,
    );
    report.maybe(
        "server_cpu_us_per_event",
        "server CPU for each event",
        "us",
        sample.server_cpu_us_per_event,
    );
    report.number(
        "client_cpu_us",
        "the bench's own CPU for each delivered",
        "us",
        sample.client_cpu_us,
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    report.maybe(
        "server_rss_before_mib",
        "server memory before",
        "MiB",
        sample.server_rss_before.map(mib),
    );
    report.maybe(
        "server_rss_peak_mib",
        "server memory, at most",
        "MiB",
        sample.server_rss_peak.map(mib),
    );
}
