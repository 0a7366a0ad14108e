//! What is said of several instances: each number beside what it must reach.

use super::Round;
use crate::report::{Bound, Report, Row};
use crate::spread::Spread;

const SET_TO_SCRIPT: f64 = 0.5;
const UPDATE_TO_SCRIPT: f64 = 0.3;
const COUNTER_PER_SECOND: f64 = 20_000.0;
const LATENCY_TO_BARE: f64 = 2.0;
const MANY_TO_FEW: f64 = 1.5;

pub(super) fn report(rounds: &[Round], report: &mut Report) {
    report.section("scaling: ratios", ratios(rounds));
    report.section("scaling: this machine", numbers(rounds));
}

fn ratios(rounds: &[Round]) -> Vec<Row> {
    let row = |what: &str, of: fn(&Round) -> f64| row(rounds, what, "x", of);
    let at_most = |row: Row, limit| {
        let bound = Bound::at_most(&row, limit);
        row.target(bound)
    };
    let at_least = |row: Row, limit| {
        let bound = Bound::at_least(&row, limit);
        row.target(bound)
    };
    let set = row(
        "set / commit script by redis-benchmark, calls per second",
        |round| round.writes.set.calls_per_second / round.writes.script_per_second,
    );
    let update = row(
        "update / commit script by redis-benchmark, calls per second",
        |round| round.writes.update.calls_per_second / round.writes.script_per_second,
    );
    let p50 = row("event to another instance / bare Redis, p50", |round| {
        round.latency.across.p50_us / round.latency.bare.p50_us
    });
    let p99 = row("event to another instance / bare Redis, p99", |round| {
        round.latency.across.p99_us / round.latency.bare.p99_us
    });
    let cpu = row(
        "a group that comes and goes, 10,000 / 10 groups, CPU",
        |round| round.subscribing.many.cpu_us / round.subscribing.few.cpu_us,
    );
    let wall = row(
        "a group that comes and goes, 10,000 / 10 groups, time",
        |round| round.subscribing.many.wall_us / round.subscribing.few.wall_us,
    );
    let relayed = row(
        "of which the way alone: through two bare relays / bare Redis, p50",
        |round| round.latency.relayed.p50_us / round.latency.bare.p50_us,
    );
    vec![
        at_least(set, SET_TO_SCRIPT),
        at_least(update, UPDATE_TO_SCRIPT),
        at_most(p50, LATENCY_TO_BARE),
        at_most(p99, LATENCY_TO_BARE),
        relayed,
        at_most(cpu, MANY_TO_FEW),
        at_most(wall, MANY_TO_FEW),
    ]
}

fn numbers(rounds: &[Round]) -> Vec<Row> {
    let row = |what: &str, unit, of: fn(&Round) -> f64| row(rounds, what, unit, of);
    let counter = row(
        "200 writers, one counter, three instances",
        "calls/s",
        |round| round.counter.load.calls_per_second,
    );
    let bound = Bound::at_least(&counter, COUNTER_PER_SECOND);
    vec![
        row("commit script by redis-benchmark", "calls/s", |round| {
            round.writes.script_per_second
        }),
        row("set", "calls/s", |round| round.writes.set.calls_per_second),
        row("set, p50", "us", |round| round.writes.set.p50_us),
        row("set, p99", "us", |round| round.writes.set.p99_us),
        row("set, CPU of the instance", "us/call", |round| {
            round.writes.set.server_cpu_us.unwrap_or(f64::NAN)
        }),
        row("update", "calls/s", |round| {
            round.writes.update.calls_per_second
        }),
        row("update, p99", "us", |round| round.writes.update.p99_us),
        row("update, CPU of the instance", "us/call", |round| {
            round.writes.update.server_cpu_us.unwrap_or(f64::NAN)
        }),
        counter.target(bound),
        row("the same, p50", "us", |round| round.counter.load.p50_us),
        row("the same, p99", "us", |round| round.counter.load.p99_us),
        row(
            "the same, CPU of all instances and Redis",
            "us/call",
            |round| round.counter.cpu_us,
        ),
        row("event to another instance, p50", "us", |round| {
            round.latency.across.p50_us
        }),
        row("event to another instance, p99", "us", |round| {
            round.latency.across.p99_us
        }),
        row("bare Redis publish to subscribe, p50", "us", |round| {
            round.latency.bare.p50_us
        }),
        row("bare Redis publish to subscribe, p99", "us", |round| {
            round.latency.bare.p99_us
        }),
        row("the same through two bare relays, p50", "us", |round| {
            round.latency.relayed.p50_us
        }),
        row("the same through two bare relays, p99", "us", |round| {
            round.latency.relayed.p99_us
        }),
        row("a group of 10 comes and goes, CPU", "us", |round| {
            round.subscribing.few.cpu_us
        }),
        row("a group of 10,000 comes and goes, CPU", "us", |round| {
            round.subscribing.many.cpu_us
        }),
        row("a group of 10 comes and goes, time", "us", |round| {
            round.subscribing.few.wall_us
        }),
        row("a group of 10,000 comes and goes, time", "us", |round| {
            round.subscribing.many.wall_us
        }),
    ]
}

fn row(rounds: &[Round], what: &str, unit: &'static str, of: impl Fn(&Round) -> f64) -> Row {
    Row::new(what, unit, Spread::of(rounds.iter().map(of)))
}
