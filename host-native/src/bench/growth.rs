//! `bench growth`: whether things become dearer with size: with many items, with many groups, with a long text.

use std::io::{self, Read};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::caller::Caller;
use super::checker::Faults;
use super::crowd::{Crowd, Schedule};
use super::events::{counter_text, padded};
use super::frame::{self, CONTINUATION, TEXT};
use super::histogram::Histogram;
use super::meter::Meter;
use super::report::Report;
use super::stream_medium::{STREAM, Spread, StreamMedium};
use super::target::{Target, check_open_files};
use super::wire::connect;
use super::worker_wire::{upgrade_on, upgrade_request};

/// What is appended: a counter and words, so many bytes.
const TOKEN_BYTES: usize = 20;
/// Asks for pages and for operations instead of values.
const DELTAS: &str = "?v=2&deltas=1&core=1";

/// The options of `bench growth`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The largest number of items in a group, and of groups.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = super::at_least_one)]
    most: usize,
    /// Calls of each kind for each size.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = super::at_least_one)]
    calls: usize,
    /// How often all sizes are gone through; ratios are taken within a pass, and the medians told.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = super::at_least_one)]
    passes: usize,
    /// Subscribers that watch the item that texts are appended to.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = super::at_least_one)]
    subscribers: usize,
    /// Appends for each length of the text.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = super::at_least_one)]
    appends: usize,
    /// Appends to an item that begins empty, for a subscriber with deltas beside one with values.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = super::at_least_one)]
    tokens: usize,
}

impl Options {
    /// What a release is measured with.
    pub fn standard(is_short: bool) -> Self {
        let share = if is_short { 10 } else { 1 };
        Self {
            most: 100_000 / share,
            calls: 1000 / share,
            passes: 5,
            subscribers: 100,
            appends: 500 / share,
            tokens: 5000 / share,
        }
    }
}

/// The medians at one size, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Items in the group, or groups.
    pub size: usize,
    /// `stream::set` of an item that is there.
    pub set_us: f64,
    /// `stream::get`.
    pub get_us: f64,
    /// `stream::delete`.
    pub delete_us: f64,
    /// From connecting to the whole first frame.
    pub join_us: f64,
    /// How long that frame is.
    pub join_bytes: usize,
}

/// The same sizes again and again, so that a slow moment of the machine does not look like growth.
#[derive(Clone, Debug, Default)]
pub struct Sizes(Vec<Vec<Row>>);

impl Sizes {
    /// From the smallest to the largest, each number the median of the passes.
    pub fn rows(&self) -> Vec<Row> {
        let first = self.0.first().map_or(&[][..], Vec::as_slice);
        let middle = |index: usize, of: Column| median(self.0.iter().map(|pass| of(&pass[index])));
        let row = |(index, row): (usize, &Row)| Row {
            size: row.size,
            set_us: middle(index, |row| row.set_us),
            get_us: middle(index, |row| row.get_us),
            delete_us: middle(index, |row| row.delete_us),
            join_us: middle(index, |row| row.join_us),
            join_bytes: row.join_bytes,
        };
        first.iter().enumerate().map(row).collect()
    }

    /// The dearest size by the smallest one, of ratios that are taken within a pass.
    pub fn growth(&self, of: Column) -> f64 {
        let sizes = self.0.first().map_or(0, Vec::len);
        (0..sizes)
            .map(|index| median(self.0.iter().map(|pass| of(&pass[index]) / of(&pass[0]))))
            .fold(0.0, f64::max)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// What appends of 20 bytes have cost.
#[derive(Clone, Copy, Debug)]
pub struct Appends {
    /// The text's length before the first.
    pub length: usize,
    /// From the call until the last subscriber has it, the median.
    pub p50_us: f64,
    /// CPU time of the serving process for each, if its process is known.
    pub server_cpu_us: Option<f64>,
    /// Bytes that a subscriber received for each.
    pub bytes: f64,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Sample {
    /// By items in one group.
    pub items: Sizes,
    /// By groups with one item each.
    pub groups: Sizes,
    /// By the length of the text. Empty where the server has no version 2.
    pub appends: Vec<Appends>,
    /// Tokens appended to an empty text: with deltas, and with values.
    pub tokens: Option<(Appends, Appends)>,
    /// Events that came.
    pub delivered: u64,
    /// What went wrong.
    pub faults: Faults,
}

/// Runs it.
pub fn run(options: &Options, target: &Target) -> io::Result<Sample> {
    let medium = || StreamMedium::new(target, 0, Spread::One);
    let mut sample = Sample {
        items: Sizes::default(),
        groups: Sizes::default(),
        appends: Vec::new(),
        tokens: None,
        delivered: 0,
        faults: Faults::default(),
    };
    for _ in 0..options.passes {
        let (mut items, mut groups) = (Vec::new(), Vec::new());
        for size in sizes(options.most) {
            let medium = medium()?;
            let place = |n: usize| (medium.group.clone(), format!("item-{n}"));
            items.push(by_size(size, options, target, &place)?);
            let place = |n: usize| (format!("{}-g{n}", medium.group), "item".to_owned());
            groups.push(by_size(size, options, target, &place)?);
        }
        sample.items.0.push(items);
        sample.groups.0.push(groups);
    }
    if !speaks_version_2(target)? {
        return Ok(sample);
    }
    for length in [1 << 10, 1 << 20] {
        let appends = append(
            length,
            DELTAS,
            options.subscribers,
            options.appends,
            target,
            &mut sample,
        )?;
        sample.appends.push(appends);
    }
    let deltas = append(0, DELTAS, 1, options.tokens, target, &mut sample)?;
    let values = append(0, "", 1, options.tokens, target, &mut sample)?;
    sample.tokens = Some((deltas, values));
    Ok(sample)
}

/// 1, 10, 100 … `most`.
fn sizes(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |size| Some(size * 10)).take_while(move |size| *size <= most)
}

/// Fills so many places, measures calls at places all over them, and empties them.
fn by_size(
    size: usize,
    options: &Options,
    target: &Target,
    place: &dyn Fn(usize) -> (String, String),
) -> io::Result<Row> {
    let mut caller = Caller::open(target)?;
    let at = |n: usize| {
        let (group, item) = place(n);
        format!(r#""stream_name":"{STREAM}","group_id":"{group}","item_id":"{item}""#)
    };
    let value = |n: usize| padded(format!(r#"{{"n":{n},"text":""#), 100, "\"}");
    let set = |n: usize| format!(r#"{{{},"data":{},"returning":"none"}}"#, at(n), value(n));
    let plain = |n: usize| format!("{{{}}}", at(n));
    caller.pipeline("stream::set", (0..size).map(set))?;
    // Far from each other, and the same at every run.
    let places: Vec<usize> = (0..options.calls).map(|call| call * 7_919 % size).collect();
    let mut timed = |function: &str, data: &dyn Fn(usize) -> String, restore: bool| {
        let mut latency = Histogram::new();
        for n in &places {
            let data = data(*n);
            let start = Instant::now();
            caller.run(function, &data)?;
            latency.record(start.elapsed());
            if restore {
                caller.run("stream::set", &set(*n))?;
            }
        }
        io::Result::Ok(latency.quantile_us(0.5))
    };
    let set_us = timed("stream::set", &set, false)?;
    let get_us = timed("stream::get", &plain, false)?;
    let delete_us = timed("stream::delete", &plain, true)?;
    let mut latency = Histogram::new();
    let mut join_bytes = 0;
    // Whole groups are long where the server has no pages.
    let joins = (options.calls / 10).clamp(5, 100);
    for n in places.iter().cycle().take(joins) {
        let start = Instant::now();
        join_bytes = first_frame(target, &place(*n).0)?.len();
        latency.record(start.elapsed());
    }
    caller.pipeline("stream::delete", (0..size).map(plain))?;
    Ok(Row {
        size,
        set_us,
        get_us,
        delete_us,
        join_us: latency.quantile_us(0.5),
        join_bytes,
    })
}

/// The first text that a new subscriber of version 2 gets.
fn first_frame(target: &Target, group: &str) -> io::Result<Vec<u8>> {
    let address = target.subscribers()?;
    let path = format!("/stream/{STREAM}/{group}{DELTAS}");
    let stream = connect(address).map_err(|error| {
        super::wire::unreachable(address, &error, "Start the server with: iii-stream")
    })?;
    let mut stream = upgrade_on(stream, &upgrade_request(address, &path, None))?;
    let (mut input, mut chunk) = (Vec::new(), [0; 64 << 10]);
    let (mut at, mut text) = (0, Vec::new());
    loop {
        while let Some(frame) = frame::decode(&input[at..]) {
            at += frame.bytes;
            // A long text may come in several frames.
            if matches!(frame.opcode, TEXT | CONTINUATION) {
                text.extend_from_slice(frame.payload);
                if frame.fin {
                    return Ok(text);
                }
            }
        }
        match stream.read(&mut chunk)? {
            0 => {
                return Err(io::Error::other(
                    "the server ended a subscriber's connection",
                ));
            }
            read => input.extend_from_slice(&chunk[..read]),
        }
    }
}

/// A server without it answers as if nothing had been asked.
fn speaks_version_2(target: &Target) -> io::Result<bool> {
    let medium = StreamMedium::new(target, 0, Spread::One)?;
    let frame = first_frame(target, &medium.group)?;
    Ok(memchr::memmem::find(&frame, br#""mode":"#).is_some())
}

/// Appends tokens to a text of this length, one after the other, each when all subscribers have the one before.
fn append(
    length: usize,
    query: &'static str,
    subscribers: usize,
    appends: usize,
    target: &Target,
    total: &mut Sample,
) -> io::Result<Appends> {
    const WARM: u64 = 20;
    let mut medium = StreamMedium::new(target, 0, Spread::One)?;
    medium.query = query;
    let at = format!(
        r#""stream_name":"{STREAM}","group_id":"{}","item_id":"m1""#,
        medium.group
    );
    let mut caller = Caller::open(target)?;
    let text = padded(String::new(), length, "");
    caller.run(
        "stream::set",
        &format!(r#"{{{at},"data":{{"text":"{text}"}},"returning":"none"}}"#),
    )?;
    let mut crowd = Crowd::new(&medium)?;
    crowd.join(subscribers, true, 0)?;
    let mut meter = Meter::new(target.process()?)?;
    let mut latency = Histogram::new();
    let mut bytes = 0;
    let count = appends as u64 + WARM;
    for counter in 0..count {
        if counter == WARM {
            meter.start(0)?;
            latency.clear();
            bytes = crowd.event_bytes;
        }
        let token = padded(counter_text(counter), TOKEN_BYTES, "");
        let call = format!(
            r#"{{{at},"ops":[{{"type":"append","path":"text","value":"{token}"}}],"returning":"none"}}"#
        );
        let start = Instant::now();
        crowd.schedule = Schedule::At(start);
        caller.run("stream::update", &call)?;
        let is_whole = crowd.until_delivered(counter + 1)?;
        latency.record(start.elapsed());
        if !is_whole {
            break;
        }
    }
    let cost = meter.stop(appends as u64)?;
    total.faults += crowd.faults(count);
    total.delivered += crowd.delivered;
    if let Some(reason) = crowd.ended.first() {
        return Err(io::Error::other(format!(
            "a subscriber's connection ended: {reason}"
        )));
    }
    caller.run(
        "stream::delete",
        &format!("{{{at},\"returning\":\"none\"}}"),
    )?;
    Ok(Appends {
        length,
        p50_us: latency.quantile_us(0.5),
        server_cpu_us: cost.server_us(),
        bytes: (crowd.event_bytes - bytes) as f64 / (appends * subscribers) as f64,
    })
}

/// Runs it and tells.
pub fn measure(options: &Options, target: &Target) -> io::Result<Report> {
    check_open_files(options.subscribers)?;
    let sample = run(options, target)?;
    let mut report = Report::new("growth");
    report.setting("calls of each kind", json!(options.calls));
    report.setting(
        "subscribers of an appended text",
        json!(options.subscribers),
    );
    report.setting("appends", json!(options.appends));
    report.count(
        "delivered",
        "delivered to subscribers of appends",
        sample.delivered,
    );
    report.faults(sample.faults, &[]);
    for (key, what, rows) in [
        ("items", "items in a group", &sample.items),
        ("groups", "groups", &sample.groups),
    ] {
        for row in rows.rows() {
            let size = super::report::number(row.size as f64);
            report.row(format!("{size} {what}: set, p50"), "us", row.set_us);
            report.row(format!("{size} {what}: get, p50"), "us", row.get_us);
            report.row(format!("{size} {what}: delete, p50"), "us", row.delete_us);
            report.row(
                format!("{size} {what}: join to first page, p50"),
                "us",
                row.join_us,
            );
            report.row(
                format!("{size} {what}: bytes of the first page"),
                "B",
                row.join_bytes as f64,
            );
        }
        for (name, of) in COLUMNS {
            let ratio = rows.growth(of);
            report.number(
                &format!("{key}_{name}_ratio"),
                &format!("{what}: {name}, dearest / smallest"),
                "x",
                ratio,
            );
        }
    }
    for (key, appends) in ["append_1k", "append_1m"].iter().zip(&sample.appends) {
        let length = super::report::number(appends.length as f64);
        let mut number = |name: &str, what: &str, unit, value: Option<f64>| {
            report.maybe(
                &format!("{key}_{name}"),
                &format!("append to {length} B: {what}"),
                unit,
                value,
            );
        };
        number(
            "p50_us",
            "until all have it, p50",
            "us",
            Some(appends.p50_us),
        );
        number("server_cpu_us", "server CPU", "us", appends.server_cpu_us);
        number(
            "bytes",
            "bytes for each subscriber",
            "B",
            Some(appends.bytes),
        );
    }
    match &sample.tokens {
        Some((deltas, values)) => {
            report.number("token_delta_bytes", "a token, with deltas", "B", deltas.bytes);
            report.number("token_value_bytes", "a token, with values", "B", values.bytes);
            report.number("token_text_bytes", "a token's own text", "B", TOKEN_BYTES as f64);
        }
        None => report.note(
            "appends with deltas were left out: this server does not speak version 2 of subscriptions",
        ),
    }
    Ok(report)
}

/// One number of a row.
pub type Column = fn(&Row) -> f64;

/// The columns whose growth is told.
pub const COLUMNS: [(&str, Column); 3] = [
    ("set", |row| row.set_us),
    ("get", |row| row.get_us),
    ("delete", |row| row.delete_us),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_seen_and_a_slow_moment_is_not() {
        let row = |size, set_us, get_us| Row {
            size,
            set_us,
            get_us,
            delete_us: 1.0,
            join_us: 1.0,
            join_bytes: 1,
        };
        // Sets are three times as dear with 10; the second pass was slow as a whole, a get of the third by itself.
        let sizes = Sizes(vec![
            vec![row(1, 10.0, 10.0), row(10, 30.0, 11.0)],
            vec![row(1, 50.0, 50.0), row(10, 150.0, 55.0)],
            vec![row(1, 10.0, 10.0), row(10, 30.0, 90.0)],
        ]);
        assert_eq!(sizes.growth(|row| row.set_us), 3.0);
        assert_eq!(sizes.growth(|row| row.get_us), 1.1);
        assert_eq!(sizes.rows()[1].set_us, 30.0);
    }
}
