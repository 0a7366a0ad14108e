//! `bench writes`: acknowledged calls on the worker port.

use std::io;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::events::padded;
use super::load::{self, Load, Window};
use super::report::Report;
use super::target::Target;
use super::worker_calls::Calls;
use super::worker_wire::WorkerWire;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// stream::set of a value.
    Set,
    /// stream::update that adds one to a field.
    Update,
    /// stream::send of an event.
    Send,
    /// stream::get.
    Get,
}

/// The options of `bench writes`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// What to call.
    #[arg(value_enum, default_value_t = What::Set)]
    what: What,
    /// Worker connections.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = super::at_least_one)]
    connections: usize,
    /// Calls in flight on each connection.
    #[arg(long, value_name = "N", default_value_t = 32, conflicts_with = "rate", value_parser = super::at_least_one)]
    depth: usize,
    /// Call so many times a second instead, whatever becomes of the calls before.
    #[arg(long, value_name = "R", value_parser = super::positive)]
    rate: Option<f64>,
    /// Size of a value.
    #[arg(long, value_name = "B", default_value_t = 256)]
    bytes: usize,
    /// Items, over all groups.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = super::at_least_one)]
    items: usize,
    /// Groups that the items are in.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::at_least_one)]
    groups: usize,
    /// Measured seconds; a fifth of that comes before as warm-up.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = super::positive)]
    seconds: f64,
}

/// Runs it.
pub fn measure(options: &Options, target: &Target) -> io::Result<Report> {
    let run = uuid::Uuid::new_v4().simple().to_string();
    let wire = |what| {
        Ok::<_, io::Error>(WorkerWire {
            address: target.workers()?,
            token: target.token(),
            calls: Arc::new(calls(what, options, &run)),
        })
    };
    let server = target.process()?;
    let mut load = Load {
        connections: options.connections,
        depth: options.depth,
        rate: options.rate,
        window: Window::of_seconds(options.seconds),
    };
    // What is updated or read has to be there. One connection in order, each item once.
    if matches!(options.what, What::Update | What::Get) {
        super::caller::Caller::open(target)?.pipeline(
            "stream::set",
            (0..options.items).map(|item| data(What::Set, options, &run, item)),
        )?;
    }
    load.connections = options.connections;
    let sample = load::run(&wire(options.what)?, &load, server)?;

    let mut report = Report::new("writes");
    let name = options.what.to_possible_value();
    let name = name.map_or_else(String::new, |value| value.get_name().to_owned());
    report.setting("what", json!(name));
    report.setting("connections", json!(options.connections));
    match options.rate {
        Some(rate) => report.setting("calls a second", json!(rate)),
        None => report.setting("in flight on each", json!(options.depth)),
    }
    report.setting("bytes", json!(options.bytes));
    report.setting("items", json!(options.items));
    report.setting("groups", json!(options.groups));
    report.setting("seconds", json!(options.seconds));
    report.count(
        "delivered",
        "answered, warm-up included",
        sample.acknowledged,
    );
    report.faults(sample.faults, &[]);
    report.number(
        "calls_per_second",
        "answered a second",
        "/s",
        sample.calls_per_second,
    );
    let from = if options.rate.is_some() {
        "p50, from when it was due"
    } else {
        "p50"
    };
    report.number("p50_us", from, "us", sample.p50_us);
    report.number("p99_us", "p99", "us", sample.p99_us);
    report.number("max_us", "longest", "us", sample.max_us);
    report.maybe(
        "server_cpu_us",
        "server CPU for each call",
        "us",
        sample.server_cpu_us,
    );
    report.number(
        "client_cpu_us",
        "the bench's own CPU for each call",
        "us",
        sample.client_cpu_us,
    );
    if let Some(pid) = server {
        let rss = super::process_cost::rss_bytes(pid)? as f64 / f64::from(1 << 20);
        report.number("server_rss_mib", "server memory at the end", "MiB", rss);
    }
    if options.what == What::Update {
        check_counters(options, target, &run, sample.acknowledged)?;
    }
    Ok(report)
}

fn calls(what: What, options: &Options, run: &str) -> Calls {
    let (function, sign) = match what {
        What::Set => ("stream::set", "new_value"),
        What::Update => ("stream::update", "new_value"),
        What::Send => ("stream::send", "\"result\""),
        What::Get => ("stream::get", "\"result\""),
    };
    Calls::new(function, sign, options.items, |item| {
        members(what, options, run, item)
    })
}

/// The input of an item's call, but for the stream's name and the braces.
fn members(what: What, options: &Options, run: &str, item: usize) -> String {
    let place = format!(r#""group_id":"{run}-{}""#, item % options.groups);
    let value = || {
        let head = format!(r#"{{"id":"item-{item}","n":0,"text":""#);
        padded(head, options.bytes, "\"}")
    };
    match what {
        What::Set => format!(r#"{place},"item_id":"item-{item}","data":{}"#, value()),
        What::Update => format!(
            r#"{place},"item_id":"item-{item}","ops":[{{"type":"increment","path":"n","by":1}}]"#
        ),
        What::Send => format!(
            r#"{place},"id":"item-{item}","type":"bench","data":{}"#,
            value()
        ),
        What::Get => format!(r#"{place},"item_id":"item-{item}""#),
    }
}

fn data(what: What, options: &Options, run: &str, item: usize) -> String {
    let stream = super::stream_medium::STREAM;
    format!(
        r#"{{"stream_name":"{stream}",{}}}"#,
        members(what, options, run, item)
    )
}

/// Every acknowledged increment must be in a counter.
fn check_counters(options: &Options, target: &Target, run: &str, expected: u64) -> io::Result<()> {
    let mut caller = super::caller::Caller::open(target)?;
    let mut sum = 0;
    for item in 0..options.items {
        let found = caller.call("stream::get", &data(What::Get, options, run, item))?;
        sum += found["n"].as_u64().unwrap_or_default();
    }
    if sum == expected {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "{expected} increments were acknowledged, the counters say {sum}"
        )))
    }
}
