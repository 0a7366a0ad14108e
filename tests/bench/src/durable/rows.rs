//! The rows of the interleaved writes: ratios first, then this machine's numbers, each beside what it must reach.

use iii_stream::bench::load::LoadSample;

use super::rounds::{Round, STREAMS};
use crate::report::{Bound, Row};
use crate::spread::Spread;

const SET_TO_MEMORY: f64 = 0.7;
const SET_TO_BARE: f64 = 0.6;
const CPU_OVER_MEMORY_US: f64 = 2.0;
const UPDATE_TO_SET: f64 = 0.8;
const STREAMS_TO_ONE: f64 = 0.7;
const ECHOES: f64 = 2.5;

/// Each ratio is taken within a round, then told as the median of the rounds.
pub(crate) fn ratios(rounds: &[Round]) -> Vec<Row> {
    let rate = |sample: LoadSample| sample.calls_per_second;
    let to_memory = row(
        rounds,
        "set / set in memory, calls per second",
        "x",
        |round| rate(round.set.sample) / rate(round.memory_set),
    );
    let to_bare = row(
        rounds,
        "set / a bare writer of its batches, records per second",
        "x",
        |round| rate(round.set.sample) / bare_records(round),
    );
    let is_enough = SET_TO_MEMORY <= to_memory.median() || SET_TO_BARE <= to_bare.median();
    let target = Bound::new(
        format!(">= {SET_TO_MEMORY}, or {SET_TO_BARE} x the bare writer"),
        is_enough,
    );
    let mut rows = vec![to_memory.target(target), to_bare];
    if rounds.iter().all(|round| round.redis.is_some()) {
        rows.push(row(
            rounds,
            "set / Redis HSET with appendfsync always, calls per second",
            "x",
            |round| rate(round.set.sample) / round.redis.map_or(f64::NAN, rate),
        ));
    }
    let cpu = row(
        rounds,
        "server CPU of a set over that in memory",
        "us/call",
        |round| cpu_us(round.set.sample) - cpu_us(round.memory_set),
    );
    let bound = Bound::at_most(&cpu, CPU_OVER_MEMORY_US);
    rows.push(cpu.target(bound));
    let update = row(rounds, "update / set, calls per second", "x", |round| {
        rate(round.update) / rate(round.set.sample)
    });
    let bound = Bound::at_least(&update, UPDATE_TO_SET);
    rows.push(update.target(bound));
    rows.push(row(
        rounds,
        "update / set, both in memory, calls per second",
        "x",
        |round| rate(round.memory_update) / rate(round.memory_set),
    ));
    rows.push(row(
        rounds,
        "update / update in memory, calls per second",
        "x",
        |round| rate(round.update) / rate(round.memory_update),
    ));
    rows.push(row(
        rounds,
        "set, durability os / set in memory, calls per second",
        "x",
        |round| rate(round.os_set) / rate(round.memory_set),
    ));
    let what = format!("set in {STREAMS} streams / in one, calls per second");
    let streams = row(rounds, what, "x", |round| {
        rate(round.streams) / rate(round.set.sample)
    });
    let bound = Bound::at_least(&streams, STREAMS_TO_ONE);
    rows.push(streams.target(bound));
    let what = format!("set, single p50 / (bare sync p50 + {ECHOES} x echo p50)");
    let single = row(rounds, what, "x", |round| {
        round.set_single.p50_us / (round.bare_single.p50_us + ECHOES * round.echo.p50_us)
    });
    let bound = Bound::at_most(&single, 1.0);
    rows.push(single.target(bound));
    rows
}

/// Rates, latencies and costs of every side.
pub(crate) fn numbers(rounds: &[Round]) -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(loaded(rounds, "set", |round| Some(round.set.sample)));
    rows.push(row(
        rounds,
        "set, loaded, records in a batch",
        "",
        |round| round.set.counters.records_per_batch(),
    ));
    rows.push(row(rounds, "set, loaded, bytes of a batch", "B", |round| {
        round.set.counters.bytes_per_batch()
    }));
    rows.push(row(
        rounds,
        "the bare writer of such batches",
        "records/s",
        bare_records,
    ));
    rows.push(row(
        rounds,
        "the bare writer of such batches, p50",
        "us",
        |round| round.bare.p50_us,
    ));
    rows.extend(loaded(rounds, "set in memory", |round| {
        Some(round.memory_set)
    }));
    rows.extend(loaded(rounds, "set, durability os", |round| {
        Some(round.os_set)
    }));
    rows.extend(loaded(rounds, "Redis HSET, synced", |round| round.redis));
    let streams = format!("set in {STREAMS} streams");
    rows.extend(loaded(rounds, &streams, |round| Some(round.streams)));
    rows.extend(loaded(rounds, "update", |round| Some(round.update)));
    rows.extend(loaded(rounds, "update in memory", |round| {
        Some(round.memory_update)
    }));
    let single = |what, of: fn(&Round) -> f64| row(rounds, what, "us", of);
    rows.push(single("set, single, p50", |round| round.set_single.p50_us));
    rows.push(single("set, single, p99", |round| round.set_single.p99_us));
    rows.push(single("set in memory, single, p50", |round| {
        round.memory_single.p50_us
    }));
    rows.push(single("bare write and sync of one record, p50", |round| {
        round.bare_single.p50_us
    }));
    rows.push(single("echo of the set, single, p50", |round| {
        round.echo.p50_us
    }));
    rows.push(row(
        rounds,
        "set, single, bytes given to the log",
        "B/call",
        |round| round.single_bytes,
    ));
    rows
}

fn row(
    rounds: &[Round],
    what: impl Into<String>,
    unit: &'static str,
    of: impl Fn(&Round) -> f64,
) -> Row {
    Row::new(what, unit, Spread::of(rounds.iter().map(of)))
}

/// The rows of one loaded side; none when it was not measured.
fn loaded(rounds: &[Round], name: &str, of: fn(&Round) -> Option<LoadSample>) -> Vec<Row> {
    let samples: Vec<LoadSample> = rounds.iter().filter_map(of).collect();
    if samples.is_empty() {
        return Vec::new();
    }
    let row = |what: &str, unit, pick: fn(&LoadSample) -> f64| {
        let spread = Spread::of(samples.iter().map(pick));
        Row::new(format!("{name}, loaded{what}"), unit, spread)
    };
    vec![
        row("", "calls/s", |sample| sample.calls_per_second),
        row(", p99", "us", |sample| sample.p99_us),
        row(", server CPU", "us/call", |sample| cpu_us(*sample)),
    ]
}

fn cpu_us(sample: LoadSample) -> f64 {
    sample.server_cpu_us.unwrap_or_default()
}

/// Records a second of the bare writer, if a batch carries as many as the server's.
fn bare_records(round: &Round) -> f64 {
    round.bare.writes_per_second * round.set.counters.records_per_batch()
}
