//! The worker port's rows: ratios first, then this machine's numbers, each beside what it must reach.

use crate::report::{Bound, Row};
use crate::rounds::Round;
use crate::single::SingleSample;
use crate::spread::Spread;
use iii_stream::bench::load::LoadSample;

const SET_PER_SECOND: f64 = 100_000.0;
const SET_TO_REDIS: f64 = 0.15;
const SET_TO_REDIS_GOAL: f64 = 0.3;
const SINGLE_TO_ECHO: f64 = 2.5;
const SINGLE_TO_ECHO_GOAL: f64 = 2.0;
const UPDATE_TO_SET_GOAL: f64 = 0.8;
const SERVER_CPU_US_GOAL: f64 = 4.0;

/// Each ratio is taken within a round, then told as the median of the rounds.
pub(crate) fn ratios(rounds: &[Round]) -> Vec<Row> {
    let set = Spread::of(rounds.iter().map(|round| round.set.calls_per_second));
    let rows = [
        ratio(rounds, "set / Redis HSET, calls per second", |round| {
            Some(round.set.calls_per_second / round.redis?.calls_per_second)
        })
        .map(|row| {
            let met = SET_PER_SECOND <= set.median || SET_TO_REDIS <= row.median();
            let target = Bound::new(format!(">= {SET_TO_REDIS} or {SET_PER_SECOND}/s"), met);
            let goal = Bound::at_least(&row, SET_TO_REDIS_GOAL);
            row.target(target).goal(goal)
        })
        .or_else(|| {
            let row = Row::new("set, Redis being missing", "calls/s", set);
            let target = Bound::at_least(&row, SET_PER_SECOND);
            Some(row.target(target))
        }),
        ratio(rounds, "set / raw echo, single p50", |round| {
            Some(round.set_single.p50_us / round.echo_set.p50_us)
        })
        .map(|row| {
            let target = Bound::at_most(&row, SINGLE_TO_ECHO);
            let goal = Bound::at_most(&row, SINGLE_TO_ECHO_GOAL);
            row.target(target).goal(goal)
        }),
        ratio(rounds, "update / set, calls per second", |round| {
            Some(round.update.calls_per_second / round.set.calls_per_second)
        })
        .map(|row| {
            let goal = Bound::at_least(&row, UPDATE_TO_SET_GOAL);
            row.goal(goal)
        }),
        ratio(rounds, "update / raw echo, single p50", |round| {
            Some(round.update_single.p50_us / round.echo_update.p50_us)
        }),
        ratio(rounds, "Redis HSET / raw echo, single p50", |round| {
            Some(round.redis_single?.p50_us / round.echo_set.p50_us)
        }),
        ratio(rounds, "set / Redis HSET, server CPU per call", |round| {
            Some(round.set.server_cpu_us? / round.redis?.server_cpu_us?)
        }),
    ];
    rows.into_iter().flatten().collect()
}

/// None when no round has both sides.
fn ratio(rounds: &[Round], what: &str, of: impl Fn(&Round) -> Option<f64>) -> Option<Row> {
    let values: Vec<f64> = rounds.iter().filter_map(of).collect();
    (!values.is_empty()).then(|| Row::new(what, "x", Spread::of(values)))
}

/// Rates, latencies and costs of every side, and the server's memory at the end.
pub(crate) fn numbers(rounds: &[Round], server_rss_bytes: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(loaded(
        "set",
        rounds,
        |round| Some(round.set),
        Some(SERVER_CPU_US_GOAL),
    ));
    rows.extend(loaded("update", rounds, |round| Some(round.update), None));
    rows.extend(loaded("Redis HSET", rounds, |round| round.redis, None));
    rows.extend(single("set", rounds, |round| Some(round.set_single)));
    rows.extend(single("update", rounds, |round| Some(round.update_single)));
    rows.extend(single("Redis HSET", rounds, |round| round.redis_single));
    rows.extend(single("echo of the set", rounds, |round| {
        Some(round.echo_set)
    }));
    rows.extend(single("echo of the update", rounds, |round| {
        Some(round.echo_update)
    }));
    let mib = server_rss_bytes as f64 / f64::from(1 << 20);
    rows.push(Row::new(
        "server's resident memory at the end",
        "MiB",
        Spread::of([mib]),
    ));
    rows
}

/// The rows of one loaded side; none when it was not measured.
fn loaded(
    name: &str,
    rounds: &[Round],
    of: fn(&Round) -> Option<LoadSample>,
    cpu_goal_us: Option<f64>,
) -> Vec<Row> {
    let samples: Vec<LoadSample> = rounds.iter().filter_map(of).collect();
    if samples.is_empty() {
        return Vec::new();
    }
    let row = |what: &str, unit, pick: fn(&LoadSample) -> f64| {
        let spread = Spread::of(samples.iter().map(pick));
        Row::new(format!("{name}, loaded{what}"), unit, spread)
    };
    let mut server_cpu = row(", server CPU", "us/call", |sample| {
        sample.server_cpu_us.unwrap_or_default()
    });
    if let Some(limit) = cpu_goal_us {
        let goal = Bound::at_most(&server_cpu, limit);
        server_cpu = server_cpu.goal(goal);
    }
    vec![
        row("", "calls/s", |sample| sample.calls_per_second),
        row(", p50", "us", |sample| sample.p50_us),
        row(", p99", "us", |sample| sample.p99_us),
        server_cpu,
        row(", the bench's own CPU", "us/call", |sample| {
            sample.client_cpu_us
        }),
    ]
}

/// The rows of one side called one at a time; none when it was not measured.
fn single(name: &str, rounds: &[Round], of: fn(&Round) -> Option<SingleSample>) -> Vec<Row> {
    let samples: Vec<SingleSample> = rounds.iter().filter_map(of).collect();
    if samples.is_empty() {
        return Vec::new();
    }
    let row = |what: &str, unit, pick: fn(&SingleSample) -> f64| {
        let spread = Spread::of(samples.iter().map(pick));
        Row::new(format!("{name}, single, {what}"), unit, spread)
    };
    vec![
        row("p50", "us", |sample| sample.p50_us),
        row("p99", "us", |sample| sample.p99_us),
        row("server CPU", "us/call", |sample| sample.server_cpu_us),
    ]
}
