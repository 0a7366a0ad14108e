//! Several instances over one Redis: what it costs beside Redis itself.
//!
//! Reading order: `cluster` (three servers on one Redis), `writes` and `script` (calls at one instance, beside the commit
//! script alone), `counter` (many writers, one item), `latency` and `relay` (an event from one
//! instance to a subscriber of another), `subscribing` (groups that come and go), `rows` (what is said).

mod cluster;
mod counter;
mod latency;
mod relay;
mod rows;
mod script;
mod subscribing;
mod writes;

use std::io;

use iii_stream::bench::target::check_open_files;
use serde_json::json;

use crate::args::Args;
use crate::plan::Plan;
use crate::redis_process;
use crate::report::Report;
use crate::server_process::find_binary;
use cluster::{Cluster, INSTANCES};
use counter::WRITERS;
use subscribing::{FEW, MANY};

/// What one round measured.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) writes: writes::Sample,
    pub(crate) counter: counter::Sample,
    pub(crate) latency: latency::Pair,
    pub(crate) subscribing: subscribing::Pair,
}

/// Runs all parts and reports.
pub(crate) fn measure(args: &Args, report: &mut Report) -> io::Result<()> {
    check_open_files(MANY)?;
    let binary = find_binary(args.server.as_deref())?;
    let Some(version) = redis_process::version() else {
        report.note(
            "redis-server is missing, so nothing of this was measured; install it with: apt-get install redis-server",
        );
        return Ok(());
    };
    report.setting("redis", json!(version));
    let plan = Plan::new(args.seconds);
    report.setting(
        "scaling",
        json!(format!(
            "{INSTANCES} instances on one Redis without persistence; {WRITERS} writers on one counter; {FEW} and {MANY} \
             groups; {} interleaved rounds, {:?} each",
            plan.rounds, plan.load.measured
        )),
    );
    let cluster = Cluster::start(&binary)?;
    let rounds = (1..=plan.rounds)
        .map(|number| {
            eprintln!("scaling: round {number} of {}", plan.rounds);
            round(&cluster, &plan)
        })
        .collect::<io::Result<Vec<Round>>>()?;
    rows::report(&rounds, report);
    Ok(())
}

fn round(cluster: &Cluster, plan: &Plan) -> io::Result<Round> {
    Ok(Round {
        writes: writes::measure(cluster, plan.load)?,
        counter: counter::measure(cluster, plan.load)?,
        latency: latency::measure(cluster, plan.single)?,
        subscribing: subscribing::measure(cluster)?,
    })
}
