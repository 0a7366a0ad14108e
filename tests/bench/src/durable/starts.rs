//! Starts with a million items: replay of the log, the first answer, memory, and the first read of each group.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use iii_stream::bench::caller::Caller;
use iii_stream::bench::histogram::Histogram;
use iii_stream::bench::process_cost::rss_bytes;
use serde_json::json;
use tempfile::TempDir;

use super::counters::Counters;
use super::items::Items;
use super::page_cache;
use super::rounds::FSYNC;
use crate::report::{Bound, Report, Row};
use crate::server_process::{self, ServerProcess};
use crate::spread::Spread;

const STARTS: usize = 3;
const REPLAYED_PER_SECOND: f64 = 500_000.0;
const FIRST_ANSWER_MS: f64 = 3_000.0;
const SMALL_CACHE_BYTES: f64 = 67_108_864.0;
/// Time for a fold that was put off.
const FOLDING_MAX: Duration = Duration::from_secs(120);
/// The log's share that waits for a fold by default (64 MiB), and the segment that is written (16 MiB), rounded up.
const UNFOLDED_BYTES_MAX: f64 = 96_000_000.0;

/// Nothing is folded, and everything stays in memory while it is written.
const ALL_IN_LOG: [(&str, &str); 3] = [
    ("log_fold_bytes", "4294967296"),
    ("log_bytes_max", "8589934592"),
    ("cache_bytes_max", "4294967296"),
];
const SMALL_CACHE: [(&str, &str); 1] = [("cache_bytes_max", "67108864")];

/// The folder, and how a server is started there.
struct Place {
    binary: PathBuf,
    folder: TempDir,
    items: Items,
    /// Each start is made so often.
    starts: usize,
    /// Whether a start shall find a cold disk.
    forgets: bool,
}

/// A start, timed from before the process was made.
struct Start {
    server: ServerProcess,
    listening: Duration,
    answered: Duration,
}

/// First reads of groups, each followed by a second one.
struct Reads {
    cold: Histogram,
    hot: Histogram,
    rss_max: f64,
    cache_max: f64,
}

/// Writes the items, then starts the server in every way.
///
/// A quick run starts it once in each, and leaves the page cache to the others on the machine.
pub(crate) fn measure(
    binary: &Path,
    items: u64,
    is_quick: bool,
    report: &mut Report,
) -> io::Result<Vec<Row>> {
    let forgets = !is_quick && page_cache::forget(binary)?;
    if !forgets {
        report.note("the page cache is not emptied: starts find their files in it");
    }
    let place = Place {
        binary: binary.into(),
        folder: tempfile::tempdir()?,
        items: Items { count: items },
        starts: if is_quick { 1 } else { STARTS },
        forgets,
    };
    report.setting(
        "durable: starts",
        json!(format!(
            "{items} items of 200 B in {} groups",
            place.items.groups()
        )),
    );
    let mut rows = place.replay()?;
    place.fold()?;
    rows.extend(place.first_answers()?);
    rows.extend(place.cold_reads()?);
    Ok(rows)
}

impl Place {
    fn forget(&self) -> io::Result<()> {
        if self.forgets {
            page_cache::forget(&self.binary)?;
        }
        Ok(())
    }

    fn start(&self, keys: &[(&str, &str)]) -> io::Result<Start> {
        self.forget()?;
        let start = Instant::now();
        let keys = [FSYNC, keys].concat();
        let server = server_process::start_in(&self.binary, self.folder.path(), &keys)?;
        let listening = start.elapsed();
        self.items.read(&mut Caller::at(server.workers, None)?, 0)?;
        Ok(Start {
            server,
            listening,
            answered: start.elapsed(),
        })
    }

    /// Everything is in the log, and the server was killed.
    fn replay(&self) -> io::Result<Vec<Row>> {
        let mut empty = Vec::new();
        for _ in 0..self.starts {
            self.forget()?;
            let start = Instant::now();
            let server = server_process::start_with(&self.binary, FSYNC)?;
            empty.push(start.elapsed().as_secs_f64() * 1e3);
            server.stop()?;
        }
        let empty = Spread::of(empty);
        eprintln!("durable: writing {} items", self.items.count);
        let keys = [FSYNC, &ALL_IN_LOG].concat();
        let server = server_process::start_in(&self.binary, self.folder.path(), &keys)?;
        let start = Instant::now();
        self.items.write(&server)?;
        let written = self.items.count as f64 / start.elapsed().as_secs_f64();
        let counters = Counters::read(server.admin)?;
        if 0.0 < counters.folds {
            return Err(io::Error::other(
                "the log was folded, which it should not be",
            ));
        }
        drop(server);

        let mut replayed = Vec::new();
        let (mut listening, mut answered) = (Vec::new(), Vec::new());
        let mut last = None;
        for number in 1..=self.starts {
            eprintln!("durable: replay {number} of {}", self.starts);
            drop(last.take());
            let start = self.start(&ALL_IN_LOG)?;
            let taken = (start.listening.as_secs_f64() - empty.median / 1e3).max(1e-6);
            replayed.push(counters.records / taken);
            listening.push(start.listening.as_secs_f64() * 1e3);
            answered.push(start.answered.as_secs_f64() * 1e3);
            last = Some(start.server);
        }
        let rate = Row::new(
            "replay after SIGKILL, all in the log",
            "records/s",
            Spread::of(replayed),
        );
        let bound = Bound::at_least(&rate, REPLAYED_PER_SECOND);
        let mut rows = vec![
            rate.target(bound),
            milliseconds("start with nothing stored, until it listens", empty),
            milliseconds(
                "start with all in the log, until it listens",
                Spread::of(listening),
            ),
            milliseconds(
                "start with all in the log, until the first answer",
                Spread::of(answered),
            ),
            once("items written, 4 x 256 in flight", "calls/s", written),
            once(
                "bytes of the log for each",
                "B",
                counters.log_written / counters.records,
            ),
        ];
        if let Some(server) = last {
            let start = Instant::now();
            let reads = self.read_all(&server)?;
            let seconds = start.elapsed().as_secs_f64();
            rows.push(once(
                "then a get of each group, from the log: all",
                "s",
                seconds,
            ));
            rows.push(once(
                "then a get of each group, from the log: p50",
                "us",
                reads.cold.quantile_us(0.5),
            ));
            rows.push(once(
                "then a get of each group, from the log: p99",
                "us",
                reads.cold.quantile_us(0.99),
            ));
        }
        Ok(rows)
    }

    /// Lets a server with the usual bounds fold what waits, and kills it.
    fn fold(&self) -> io::Result<()> {
        eprintln!("durable: folding");
        let server = self.start(&[])?.server;
        let start = Instant::now();
        while UNFOLDED_BYTES_MAX < Counters::read(server.admin)?.log_bytes {
            if FOLDING_MAX < start.elapsed() {
                return Err(io::Error::other("the log is not folded"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// How soon a server answers, and how much memory it has then.
    fn first_answers(&self) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for is_killed in [true, false] {
            let (mut answered, mut rss) = (Vec::new(), Vec::new());
            for number in 0..=self.starts {
                let start = self.start(&[])?;
                // The first one comes after whatever was before.
                if 0 < number {
                    answered.push(start.answered.as_secs_f64() * 1e3);
                    rss.push(mib(rss_bytes(start.server.child.pid())? as f64));
                }
                if is_killed {
                    drop(start);
                } else {
                    start.server.stop()?;
                }
            }
            let after = if is_killed { "SIGKILL" } else { "a clean stop" };
            let row = milliseconds(
                &format!("start after {after}, until the first answer"),
                Spread::of(answered),
            );
            let bound = Bound::at_most(&row, FIRST_ANSWER_MS);
            rows.push(row.target(bound));
            rows.push(Row::new(
                format!("start after {after}, memory then"),
                "MiB",
                Spread::of(rss),
            ));
        }
        Ok(rows)
    }

    /// Reads of groups that are not in memory: for the first time, and after they had to leave.
    fn cold_reads(&self) -> io::Result<Vec<Row>> {
        let start = self.start(&SMALL_CACHE)?;
        let from = rss_bytes(start.server.child.pid())? as f64;
        let mut rows = Vec::new();
        let (mut rss_max, mut cache_max) = (0.0_f64, 0.0_f64);
        for name in ["after a start", "after eviction"] {
            eprintln!("durable: reading each group, {name}");
            let reads = self.read_all(&start.server)?;
            let (cold, hot) = (reads.cold.quantile_us(0.99), reads.hot.quantile_us(0.99));
            let row = once(
                &format!("get {name}: p99 / (3 x p99 of hot ones + 1 ms)"),
                "x",
                cold / (3.0 * hot + 1e3),
            );
            let bound = Bound::at_most(&row, 1.0);
            rows.push(row.target(bound));
            rows.push(once(
                &format!("get {name}: p50"),
                "us",
                reads.cold.quantile_us(0.5),
            ));
            rows.push(once(&format!("get {name}: p99"), "us", cold));
            rows.push(once(&format!("get {name}: p99 of hot ones"), "us", hot));
            rss_max = rss_max.max(reads.rss_max);
            cache_max = cache_max.max(reads.cache_max);
        }
        let row = once(
            "cache of 64 MiB, all groups read: groups in memory",
            "MiB",
            mib(cache_max),
        );
        let bound = Bound::at_most(&row, mib(SMALL_CACHE_BYTES));
        rows.push(row.target(bound));
        rows.push(once(
            "cache of 64 MiB, all groups read: memory at most",
            "MiB",
            mib(rss_max),
        ));
        rows.push(once("cache of 64 MiB: memory before", "MiB", mib(from)));
        Ok(rows)
    }

    /// Reads one item of each group twice; the second read finds the group in memory.
    fn read_all(&self, server: &ServerProcess) -> io::Result<Reads> {
        const LOOK_EVERY: u64 = 256;
        let mut caller = Caller::at(server.workers, None)?;
        let mut reads = Reads {
            cold: Histogram::new(),
            hot: Histogram::new(),
            rss_max: 0.0,
            cache_max: 0.0,
        };
        // Group 0 was read to see that the server answers.
        for group in 1..self.items.groups() {
            reads.cold.record(self.items.read(&mut caller, group)?);
            reads.hot.record(self.items.read(&mut caller, group)?);
            if group % LOOK_EVERY == 0 || group + 1 == self.items.groups() {
                let rss = rss_bytes(server.child.pid())? as f64;
                reads.rss_max = reads.rss_max.max(rss);
                let cache = Counters::read(server.admin)?.cache_bytes;
                reads.cache_max = reads.cache_max.max(cache);
            }
        }
        Ok(reads)
    }
}

fn once(what: &str, unit: &'static str, value: f64) -> Row {
    Row::new(what, unit, Spread::of([value]))
}

fn milliseconds(what: &str, spread: Spread) -> Row {
    Row::new(what, "ms", spread)
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
