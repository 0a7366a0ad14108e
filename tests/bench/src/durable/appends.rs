//! Appends of 20 bytes to items of 100 KB: what is written for each, in the log and by folding.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iii_stream::bench::caller::Caller;
use iii_stream::bench::events::padded;
use iii_stream::bench::load::Window;
use iii_stream::bench::stream_medium::STREAM;
use iii_stream::bench::worker_calls::Calls;
use iii_stream::bench::worker_wire::WorkerWire;

use super::counters::Counters;
use super::rounds::FSYNC;
use crate::report::{Bound, Row};
use crate::rounds::loaded;
use crate::server_process::{self, ServerProcess};
use crate::single;
use crate::spread::Spread;

const ITEM_BYTES: usize = 100_000;
const TOKEN: &str = "a token of 20 bytes ";
/// Items that are appended to in turn.
const ITEMS: usize = 200;
/// Folding is judged over at least so many.
const FOLDS: f64 = 4.0;
/// Folds come this soon, or fewer of them are judged.
const PATIENCE: Duration = Duration::from_secs(30);
/// Without a fold for so long, none is due.
const QUIET: Duration = Duration::from_millis(1_000);
const BYTES_PER_CALL_MAX: f64 = 300.0;
const AMPLIFICATION_MAX: f64 = 3.0;
/// A fold after 1 MiB instead of 64 MiB, so that four of them do not make one item much larger than it was.
const SMALL_FOLDS: [(&str, &str); 2] = [
    ("log_segment_bytes", "262144"),
    ("log_fold_bytes", "1048576"),
];

/// One item, many in turn with small folds, and many as the server is by default.
pub(crate) fn measure(binary: &Path, is_quick: bool) -> io::Result<Vec<Row>> {
    let small = [FSYNC, &SMALL_FOLDS].concat();
    let mut rows = run(binary, &small, 1, "one item, folds of 1 MiB")?;
    if !is_quick {
        let name = format!("{ITEMS} items in turn");
        rows.extend(run(
            binary,
            &small,
            ITEMS,
            &format!("{name}, folds of 1 MiB"),
        )?);
        rows.extend(run(
            binary,
            FSYNC,
            ITEMS,
            &format!("{name}, folds of 64 MiB"),
        )?);
    }
    Ok(rows)
}

fn run(
    binary: &Path,
    store: server_process::StoreKeys<'_>,
    items: usize,
    name: &str,
) -> io::Result<Vec<Row>> {
    eprintln!("durable: appends, {name}");
    let server = server_process::start_with(binary, store)?;
    seed(&server, items)?;
    until_folded(&server)?;
    let append = Calls::new("stream::update", "\"result\"", items, |item| {
        format!(
            r#"{},"ops":[{{"type":"append","path":"text","value":"{TOKEN}"}}],"returning":"none""#,
            place(item)
        )
    });
    let wire = WorkerWire {
        address: server.workers,
        token: None,
        calls: Arc::new(append),
    };

    let before = Counters::read(server.admin)?;
    let alone = single::run(&wire, Window::of_seconds(0.5), server.child.pid())?;
    let singly = Counters::read(server.admin)?.since(before);
    let per_call = singly.log_written / alone.acknowledged as f64;

    let start = Instant::now();
    let mut calls = alone.acknowledged;
    let mut written = singly;
    let (mut rate, mut cpu) = (Vec::new(), Vec::new());
    while written.folds < FOLDS && start.elapsed() < PATIENCE {
        let sample = loaded(&wire, Window::of_seconds(0.2), server.child.pid())?;
        calls += sample.acknowledged;
        rate.push(sample.calls_per_second);
        cpu.extend(sample.server_cpu_us);
        written = Counters::read(server.admin)?.since(before);
    }
    if written.folds < 1.0 {
        return Err(io::Error::other(format!("{calls} appends caused no fold")));
    }
    verify(&server, items, calls)?;

    let once =
        |what: &str, unit, value| Row::new(format!("{name}: {what}"), unit, Spread::of([value]));
    let per_call = once(
        "bytes given to the log, one call at a time",
        "B/call",
        per_call,
    );
    let bound = Bound::at_most(&per_call, BYTES_PER_CALL_MAX);
    let amplification = (written.log_written + written.fold_written) / written.log_written;
    let amplification = once("(log + folding) / log", "x", amplification);
    let folding_bound = Bound::at_most(&amplification, AMPLIFICATION_MAX);
    let mut rows = vec![
        per_call.target(bound),
        amplification.target(folding_bound),
        once("folds meanwhile", "", written.folds),
        once("appends", "", calls as f64),
    ];
    rows.push(once("single, p50", "us", alone.p50_us));
    if !rate.is_empty() {
        let loaded = |what: &str, unit, values: Vec<f64>| {
            Row::new(format!("{name}: loaded{what}"), unit, Spread::of(values))
        };
        rows.push(loaded("", "calls/s", rate));
        rows.push(loaded(", server CPU", "us/call", cpu));
    }
    Ok(rows)
}

fn place(item: usize) -> String {
    format!(r#""group_id":"g-{item}","item_id":"m1""#)
}

fn seed(server: &ServerProcess, items: usize) -> io::Result<()> {
    let text = padded(String::new(), ITEM_BYTES, "");
    Caller::at(server.workers, None)?.pipeline(
        "stream::set",
        (0..items).map(|item| {
            let place = place(item);
            format!(
                r#"{{"stream_name":"{STREAM}",{place},"data":{{"text":"{text}"}},"returning":"none"}}"#
            )
        }),
    )
}

/// Waits until no more of the seeds is in the log than may stay there: folding them is no part of what is measured.
fn until_folded(server: &ServerProcess) -> io::Result<()> {
    let start = Instant::now();
    let mut folds = 0.0;
    loop {
        std::thread::sleep(QUIET);
        let counters = Counters::read(server.admin)?;
        if counters.folds == folds || PATIENCE < start.elapsed() {
            return Ok(());
        }
        folds = counters.folds;
    }
}

/// Every acknowledged append must be in a text.
fn verify(server: &ServerProcess, items: usize, appends: u64) -> io::Result<()> {
    let mut caller = Caller::at(server.workers, None)?;
    let mut grown = 0;
    for item in 0..items {
        let place = place(item);
        let found = caller.call(
            "stream::get",
            &format!(r#"{{"stream_name":"{STREAM}",{place}}}"#),
        )?;
        let length = found["text"].as_str().map_or(0, str::len);
        if length < ITEM_BYTES {
            return Err(io::Error::other(format!("item {item} has {length} bytes")));
        }
        grown += length - ITEM_BYTES;
    }
    let expected = appends as usize * TOKEN.len();
    if grown == expected {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "{expected} bytes were appended, the texts have grown by {grown}"
        )))
    }
}
