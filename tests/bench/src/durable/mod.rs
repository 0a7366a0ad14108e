//! The durable store: what keeping changes on the disk costs, and what a start takes.
//!
//! Reading order: `rounds` (writes, beside memory, the bare disk and Redis), `appends` (large items that grow), `starts`
//! (a million items found again).

mod appends;
mod bare_disk;
mod counters;
mod items;
mod page_cache;
mod rounds;
mod rows;
mod starts;

use std::io;

use serde_json::json;

use crate::args::Args;
use crate::plan::Plan;
use crate::redis_process::{self, Keeps};
use crate::report::Report;
use crate::server_process::find_binary;

const QUICK_SECONDS: f64 = 0.2;
const QUICK_ITEMS: u64 = 10_000;

/// Runs all parts and reports.
pub(crate) fn measure(args: &Args, report: &mut Report) -> io::Result<()> {
    let binary = find_binary(args.server.as_deref())?;
    let (seconds, items) = if args.quick {
        report.note("a quick run: it shows that everything works, and no more");
        (QUICK_SECONDS, QUICK_ITEMS)
    } else {
        (args.seconds, args.items)
    };
    let plan = Plan::new(seconds);
    let redis = redis_process::version();
    match &redis {
        Some(version) => report.setting("redis", json!(version)),
        None => report.note("redis-server is missing: the row of Redis is skipped"),
    }
    let redis = redis
        .map(|_| redis_process::start(Keeps::Synced))
        .transpose()?;
    report.setting(
        "durable: files in",
        json!(std::env::temp_dir().display().to_string()),
    );
    report.setting(
        "durable: rounds",
        json!(format!(
            "{} interleaved, {:?} loaded, {:?} one at a time; all items read back in each, and after a SIGKILL",
            plan.rounds, plan.load.measured, plan.single.measured
        )),
    );

    let rounds = rounds::run(&binary, &plan, redis.as_ref())?;
    drop(redis);
    report.section("durable store: writes", rows::ratios(&rounds));
    report.section("durable store: this machine", rows::numbers(&rounds));
    let appends = appends::measure(&binary, args.quick)?;
    report.section("durable store: 20 bytes appended to 100 KB", appends);
    let starts = starts::measure(&binary, items, args.quick, report)?;
    report.section("durable store: starts", starts);
    Ok(())
}
