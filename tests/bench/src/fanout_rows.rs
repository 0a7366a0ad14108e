//! The rows of the fan-out: ratios beside what they must reach, then this machine's numbers.

use iii_stream::bench::connect;
use iii_stream::bench::fanout::Sample;
use iii_stream::bench::growth::{self, COLUMNS};

use crate::fanout::{COMMON_CROWD, CROWDS, Round, Row as Measured};
use crate::report::{Bound, Report, Row};
use crate::spread::Spread;

const COALESCED_TO_RAW: f64 = 0.6;
const COALESCED_TO_REDIS: f64 = 1.0;
const SINGLE_TO_RAW: f64 = 0.85;
const CPU_US_AT_COMMON: f64 = 1.5;
const IDLE_TO_ALONE: f64 = 1.3;
const JOIN_TO_REDIS: f64 = 0.5;
const IDLE_BYTES: f64 = 4096.0;
const SLOW_CPU: f64 = 1.3;
const GROWTH: f64 = 1.5;
const FIRST_PAGE_US: f64 = 5000.0;
const TOKEN_OVERHEAD_BYTES: f64 = 220.0;
const VALUES_TO_DELTAS: f64 = 20.0;

/// Says everything.
pub(crate) fn report(rounds: &[Round], growth: &growth::Sample, report: &mut Report) {
    report.section("fan-out: ratios", ratios(rounds));
    report.section("fan-out: latency", latencies(rounds));
    report.section("subscribers: joins, idle and slow ones", others(rounds));
    report.section("growth", growth_rows(growth));
    report.section("fan-out: this machine", numbers(rounds));
}

type Pick = fn(&Round) -> &Vec<(usize, Vec<Measured>)>;

fn find<'r>(round: &'r Round, of: Pick, crowd: usize, name: &str) -> Option<&'r Sample> {
    let (_, rows) = of(round)
        .iter()
        .find(|(subscribers, _)| *subscribers == crowd)?;
    rows.iter()
        .find(|row| row.name == name)
        .map(|row| &row.sample)
}

fn windows(round: &Round) -> &Vec<(usize, Vec<Measured>)> {
    &round.windows
}

fn singles(round: &Round) -> &Vec<(usize, Vec<Measured>)> {
    &round.singles
}

/// Every ratio is taken within a round.
fn ratio(
    rounds: &[Round],
    what: String,
    unit: &'static str,
    of: impl Fn(&Round) -> Option<f64>,
) -> Option<Row> {
    let values: Vec<f64> = rounds.iter().filter_map(of).collect();
    (!values.is_empty()).then(|| Row::new(what, unit, Spread::of(values)))
}

fn at_least(row: Option<Row>, limit: f64) -> Option<Row> {
    row.map(|row| {
        let bound = Bound::at_least(&row, limit);
        row.target(bound)
    })
}

fn at_most(row: Option<Row>, limit: f64) -> Option<Row> {
    row.map(|row| {
        let bound = Bound::at_most(&row, limit);
        row.target(bound)
    })
}

fn ratios(rounds: &[Round]) -> Vec<Row> {
    let rate = |of: Pick, crowd: usize, other: &'static str| {
        move |round: &Round| {
            let ours = find(round, of, crowd, "iii-stream")?.delivered_per_second;
            Some(ours / find(round, of, crowd, other)?.delivered_per_second)
        }
    };
    let mut rows = Vec::new();
    for crowd in CROWDS {
        let row = ratio(
            rounds,
            format!("{crowd}, 8 in flight: iii-stream / raw, queued"),
            "x",
            rate(windows, crowd, "raw"),
        );
        rows.extend(at_least(row, COALESCED_TO_RAW));
        let row = ratio(
            rounds,
            format!("{crowd}, 8 in flight: iii-stream / Redis"),
            "x",
            rate(windows, crowd, "Redis pub/sub"),
        );
        rows.extend(at_least(row, COALESCED_TO_REDIS));
        let row = ratio(
            rounds,
            format!("{crowd}, one at a time: iii-stream / raw"),
            "x",
            rate(singles, crowd, "raw"),
        );
        rows.extend(at_least(row, SINGLE_TO_RAW));
        let row = ratio(
            rounds,
            format!("{crowd}, one at a time: iii-stream / Redis"),
            "x",
            rate(singles, crowd, "Redis pub/sub"),
        );
        rows.extend(row);
    }
    for other in ["NATS", "nginx nchan", "Node ws"] {
        let row = format!("{COMMON_CROWD}, 8 in flight: iii-stream / {other}");
        rows.extend(ratio(rounds, row, "x", rate(windows, COMMON_CROWD, other)));
        let row = format!("{COMMON_CROWD}, one at a time: iii-stream / {other}");
        rows.extend(ratio(rounds, row, "x", rate(singles, COMMON_CROWD, other)));
    }
    let cpu = |round: &Round| find(round, windows, COMMON_CROWD, "iii-stream")?.server_cpu_us;
    let row = ratio(
        rounds,
        format!("{COMMON_CROWD}, 8 in flight: server CPU for each delivered"),
        "us",
        cpu,
    );
    rows.extend(at_most(row, CPU_US_AT_COMMON));
    rows
}

/// At a rate, from when an event was due: ours beside the raw server's, with so much on top.
fn latencies(rounds: &[Round]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut side = |what: &str, of: fn(&Round) -> &Vec<Measured>, factor: f64, more_us: f64| {
        let p99 = |name: &'static str| {
            move |round: &Round| {
                let row = of(round).iter().find(|row| row.name == name)?;
                Some(row.sample.p99_us)
            }
        };
        let p50 = |name: &'static str| {
            move |round: &Round| {
                let row = of(round).iter().find(|row| row.name == name)?;
                Some(row.sample.p50_us)
            }
        };
        rows.extend(ratio(rounds, format!("{what}: raw, p50"), "us", p50("raw")));
        rows.extend(ratio(
            rounds,
            format!("{what}: iii-stream, p50"),
            "us",
            p50("iii-stream"),
        ));
        rows.extend(ratio(rounds, format!("{what}: raw, p99"), "us", p99("raw")));
        rows.extend(ratio(
            rounds,
            format!("{what}: iii-stream, p99"),
            "us",
            p99("iii-stream"),
        ));
        let row = ratio(
            rounds,
            format!("{what}: p99 / ({factor} x raw + {more_us} us)"),
            "x",
            |round| Some(p99("iii-stream")(round)? / (factor * p99("raw")(round)? + more_us)),
        );
        rows.extend(at_most(row, 1.0));
    };
    side(
        "1,000 events/s to 10",
        |round| &round.many_to_few,
        2.0,
        1000.0,
    );
    side(
        "10 events/s to 1,000",
        |round| &round.few_to_many,
        1.5,
        2000.0,
    );
    rows
}

fn others(rounds: &[Round]) -> Vec<Row> {
    let mut rows = Vec::new();
    let row = ratio(
        rounds,
        "5,000 joins: iii-stream / Redis, a second".into(),
        "x",
        |round| Some(round.joins.per_second / round.joins_redis.as_ref()?.per_second),
    );
    rows.extend(at_least(row, JOIN_TO_REDIS));
    let mut join = |what: &str, unit, of: fn(&connect::Sample) -> Option<f64>| {
        rows.extend(ratio(
            rounds,
            format!("iii-stream: {what}"),
            unit,
            |round| of(&round.joins),
        ));
        rows.extend(ratio(rounds, format!("Redis: {what}"), unit, |round| {
            of(round.joins_redis.as_ref()?)
        }));
    };
    join("joins", "/s", |sample| Some(sample.per_second));
    join("join, p50", "us", |sample| Some(sample.p50_us));
    join("join, p99", "us", |sample| Some(sample.p99_us));
    join("server CPU for each join", "us", |sample| {
        sample.server_cpu_us
    });
    let row = ratio(
        rounds,
        "iii-stream: memory of an idle subscriber".into(),
        "B",
        |round| round.joins.server_bytes,
    );
    rows.extend(at_most(row, IDLE_BYTES));
    rows.extend(ratio(
        rounds,
        "iii-stream: memory of an idle subscriber and its group".into(),
        "B",
        |round| round.joins_own.server_bytes,
    ));
    rows.extend(ratio(
        rounds,
        "iii-stream: joins, each its own group".into(),
        "/s",
        |round| Some(round.joins_own.per_second),
    ));
    let row = ratio(
        rounds,
        "one event to one: CPU beside 10,000 idle / alone".into(),
        "x",
        |round| Some(round.beside_idle.server_cpu_us? / round.alone.server_cpu_us?),
    );
    rows.extend(at_most(row, IDLE_TO_ALONE));
    rows.extend(ratio(
        rounds,
        "one event to one: server CPU alone".into(),
        "us",
        |round| round.alone.server_cpu_us,
    ));
    for (what, of) in [
        (
            "3 of 50 stuck",
            (|round| &round.slow) as fn(&Round) -> &iii_stream::bench::slow::Pair,
        ),
        ("3 stuck elsewhere", |round| &round.slow_elsewhere),
    ] {
        let row = ratio(
            rounds,
            format!("{what}: server CPU for each event, with / without"),
            "x",
            |round| {
                let pair = of(round);
                Some(pair.with.server_cpu_us_per_event? / pair.without.server_cpu_us_per_event?)
            },
        );
        rows.extend(at_most(row, SLOW_CPU));
        let row = ratio(
            rounds,
            format!("{what}: p99 of the others / (2 x without + 5 ms)"),
            "x",
            |round| {
                let pair = of(round);
                Some(pair.with.p99_us / (2.0 * pair.without.p99_us + 5000.0))
            },
        );
        rows.extend(at_most(row, 1.0));
        rows.extend(ratio(
            rounds,
            format!("{what}: longest silence of the others"),
            "ms",
            |round| Some(of(round).with.silence.as_secs_f64() * 1e3),
        ));
        rows.extend(ratio(
            rounds,
            format!("{what}: memory grew by at most"),
            "MiB",
            |round| {
                let sample = &of(round).with;
                let grown = sample
                    .server_rss_peak?
                    .saturating_sub(sample.server_rss_before?);
                Some(grown as f64 / f64::from(1 << 20))
            },
        ));
    }
    rows
}

fn growth_rows(sample: &growth::Sample) -> Vec<Row> {
    let once = |what: String, unit, value: f64| Row::new(what, unit, Spread::of([value]));
    let mut rows = Vec::new();
    for (what, sizes) in [
        ("items in a group", &sample.items),
        ("groups", &sample.groups),
    ] {
        let medians = sizes.rows();
        let (first, last) = (
            medians.first().map_or(0, |row| row.size),
            medians.last().map_or(0, |row| row.size),
        );
        for (name, of) in COLUMNS {
            let row = once(
                format!("{first} to {last} {what}: {name}, dearest / smallest"),
                "x",
                sizes.growth(of),
            );
            rows.extend(at_most(Some(row), GROWTH));
        }
        let longest = medians.iter().map(|row| row.join_us).fold(0.0, f64::max);
        let row = once(
            format!("{first} to {last} {what}: join to first page, longest p50"),
            "us",
            longest,
        );
        rows.extend(at_most(Some(row), FIRST_PAGE_US));
    }
    if let [small, large] = sample.appends.as_slice() {
        rows.extend(at_most(
            Some(once(
                "append of 20 B to 1 MiB / to 1 KiB: p50".into(),
                "x",
                large.p50_us / small.p50_us,
            )),
            GROWTH,
        ));
        rows.extend(at_most(
            Some(once(
                "append of 20 B to 1 MiB / to 1 KiB: bytes".into(),
                "x",
                large.bytes / small.bytes,
            )),
            GROWTH,
        ));
        if let (Some(small), Some(large)) = (small.server_cpu_us, large.server_cpu_us) {
            rows.extend(at_most(
                Some(once(
                    "append of 20 B to 1 MiB / to 1 KiB: CPU".into(),
                    "x",
                    large / small,
                )),
                GROWTH,
            ));
            rows.push(once(
                "append of 20 B to 1 MiB: server CPU".into(),
                "us",
                large,
            ));
        }
    }
    if let Some((deltas, values)) = sample.tokens {
        let row = once(
            "append of a token of 20 B: bytes with deltas".into(),
            "B",
            deltas.bytes,
        );
        rows.extend(at_most(Some(row), 20.0 + TOKEN_OVERHEAD_BYTES));
        let row = once(
            "append of a token of 20 B: values / deltas".into(),
            "x",
            values.bytes / deltas.bytes,
        );
        rows.extend(at_least(Some(row), VALUES_TO_DELTAS));
    }
    rows
}

/// Rates and costs of everybody.
fn numbers(rounds: &[Round]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, of) in [("8 in flight", windows as Pick), ("one at a time", singles)] {
        for crowd in CROWDS {
            for name in [
                "raw",
                "iii-stream",
                "Redis pub/sub",
                "NATS",
                "nginx nchan",
                "Node ws",
            ] {
                let mut row = |what: String, unit, number: fn(&Sample) -> Option<f64>| {
                    let of = |round: &Round| number(find(round, of, crowd, name)?);
                    rows.extend(ratio(rounds, what, unit, of));
                };
                row(format!("{crowd}, {what}: {name}"), "/s", |sample| {
                    Some(sample.delivered_per_second)
                });
                row(format!("{crowd}, {what}: {name}, p99"), "us", |sample| {
                    Some(sample.p99_us)
                });
                row(
                    format!("{crowd}, {what}: {name}, server CPU"),
                    "us",
                    |sample| sample.server_cpu_us,
                );
                row(
                    format!("{crowd}, {what}: {name}, bench's CPU"),
                    "us",
                    |sample| Some(sample.client_cpu_us),
                );
            }
        }
    }
    rows
}
