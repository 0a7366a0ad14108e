//! The worker port: acknowledged calls in memory, beside Redis and beside a raw echo.

use std::io;

use iii_stream::bench::process_cost;
use serde_json::json;

use crate::args::Args;
use crate::plan::Plan;
use crate::redis_process::Keeps;
use crate::report::Report;
use crate::rounds::{CONNECTIONS, DEPTH, Round, Sides};
use crate::values::{ITEMS, VALUE_BYTES};
use crate::worker_client::WorkerClient;
use crate::{echo, redis_process, server_process, worker_rows};

/// Starts the server, Redis and the echo, runs the rounds, and reports.
pub(crate) fn measure(args: &Args, report: &mut Report) -> io::Result<()> {
    let server = server_process::start(&server_process::find_binary(args.server.as_deref())?)?;
    WorkerClient::open(server.workers)?.seed()?;
    let redis = start_redis(report)?;
    let (echo, echo_address) = echo::start()?;
    let sides = Sides::new(
        (server.workers, server.child.pid()),
        (echo_address, echo.pid()),
        redis
            .as_ref()
            .map(|redis| (redis.address, redis.child.pid())),
    );

    let plan = Plan::new(args.seconds);
    let rounds = (1..=plan.rounds)
        .map(|number| {
            eprintln!("worker port: round {number} of {}", plan.rounds);
            sides.round(&plan)
        })
        .collect::<io::Result<Vec<Round>>>()?;

    report.setting(
        "load",
        json!(format!(
            "{CONNECTIONS} connections x {DEPTH} in flight, {ITEMS} items in one group, {VALUE_BYTES}-byte values"
        )),
    );
    report.setting(
        "windows",
        json!(format!(
            "{} interleaved rounds, {:?} loaded, {:?} one at a time; every reply checked, all items read back",
            plan.rounds, plan.load.measured, plan.single.measured
        )),
    );
    report.section("worker port: ratios", worker_rows::ratios(&rounds));
    let rss = process_cost::rss_bytes(server.child.pid())?;
    report.section(
        "worker port: this machine",
        worker_rows::numbers(&rounds, rss),
    );
    Ok(())
}

fn start_redis(report: &mut Report) -> io::Result<Option<redis_process::RedisProcess>> {
    let Some(version) = redis_process::version() else {
        report.note("redis-server is missing: the ratio to Redis is skipped");
        return Ok(None);
    };
    report.setting("redis", json!(version));
    redis_process::start(Keeps::Nothing).map(Some)
}
