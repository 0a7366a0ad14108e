//! Fan-out beside the raw limit and other products: interleaved rounds, every event checked at every subscriber.

use std::io;
use std::path::Path;

use iii_stream::bench::connect;
use iii_stream::bench::fanout::{self, Pace, Plan as FanoutPlan, Sample};
use iii_stream::bench::growth;
use iii_stream::bench::load::Window;
use iii_stream::bench::medium::Medium;
use iii_stream::bench::slow;
use iii_stream::bench::stream_medium::{Spread, StreamMedium};
use iii_stream::bench::target::check_open_files;
use serde_json::json;

use crate::args::Args;
use crate::fanout_rows as rows;
use crate::nats::{self, Nats};
use crate::nchan::{self, Nchan};
use crate::node_ws::{self, NodeWs};
use crate::plan::Plan;
use crate::raw::{self, Writes};
use crate::redis_medium::RedisMedium;
use crate::redis_process::{self, Keeps, RedisProcess};
use crate::report::Report;
use crate::server_process;

/// Bytes of an event's frame.
const FRAME_BYTES: usize = 393;
/// Subscribers of one group.
pub(crate) const CROWDS: [usize; 3] = [100, 1000, 5000];
/// The crowd that all products are measured with.
pub(crate) const COMMON_CROWD: usize = 1000;
/// Events that are published together where there are several.
const WINDOW: u64 = 8;
/// Idle subscribers beside the one that gets events.
const IDLE: usize = 10_000;
/// Subscribers that join.
const JOINING: usize = 5000;

/// The other products, where they are installed.
struct Peers {
    redis: Option<(RedisProcess, RedisMedium)>,
    nats: Option<Nats>,
    nchan: Option<Nchan>,
    node: Option<NodeWs>,
}

/// One load on all who take part; the raw server only as a limit.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) sample: Sample,
}

/// What one round measured.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// By crowd: several events in flight, and one at a time. The first of each is the raw server, the second we.
    pub(crate) windows: Vec<(usize, Vec<Row>)>,
    pub(crate) singles: Vec<(usize, Vec<Row>)>,
    /// 1,000 events a second to 10, 10 to 1,000.
    pub(crate) many_to_few: Vec<Row>,
    pub(crate) few_to_many: Vec<Row>,
    /// One subscriber alone, and beside idle ones.
    pub(crate) alone: Sample,
    pub(crate) beside_idle: Sample,
    pub(crate) joins: connect::Sample,
    pub(crate) joins_redis: Option<connect::Sample>,
    /// The same, each in a group of its own.
    pub(crate) joins_own: connect::Sample,
    pub(crate) slow: slow::Pair,
    pub(crate) slow_elsewhere: slow::Pair,
}

/// Starts everything, runs the rounds, and reports.
pub(crate) fn measure(args: &Args, report: &mut Report) -> io::Result<()> {
    check_open_files(IDLE)?;
    let binary = server_process::find_binary(args.server.as_deref())?;
    let peers = Peers::start(report)?;
    let plan = Plan::new(args.seconds);
    report.setting(
        "fan-out",
        json!(format!(
            "{FRAME_BYTES}-byte frames, {WINDOW} events in flight or one; {} interleaved rounds, {:?} each; every event \
             checked at every subscriber",
            plan.rounds, plan.load.measured
        )),
    );
    let rounds = (1..=plan.rounds)
        .map(|number| {
            eprintln!("fan-out: round {number} of {}", plan.rounds);
            round(&binary, &peers, &plan)
        })
        .collect::<io::Result<Vec<Round>>>()?;
    eprintln!("fan-out: growth");
    let server = server_process::start(&binary)?;
    let is_short = args.seconds < 5.0;
    let growth = growth::run(&growth::Options::standard(is_short), &server.target())?;
    if growth.appends.is_empty() {
        report.note("the server does not speak version 2 of subscriptions: appends with deltas were left out");
    }
    rows::report(&rounds, &growth, report);
    Ok(())
}

impl Peers {
    fn start(report: &mut Report) -> io::Result<Self> {
        let mut found = |name: &'static str, version: Option<String>, package: &str| {
            let is_there = version.is_some();
            match version {
                Some(version) => report.setting(name, json!(version)),
                None => report.note(format!(
                    "{name} is missing and was left out; install it with: {package}"
                )),
            }
            is_there
        };
        let has_redis = found(
            "redis",
            redis_process::version(),
            "apt-get install redis-server",
        );
        let has_nats = found("nats", nats::version(), "apt-get install nats-server");
        let has_nchan = found(
            "nchan",
            nchan::version(),
            "apt-get install nginx-light libnginx-mod-nchan",
        );
        let has_node = found(
            "node ws",
            node_ws::version(),
            "npm ci --prefix tests/clients",
        );
        let redis = || {
            let process = redis_process::start(Keeps::Nothing)?;
            let medium = RedisMedium {
                subscribers: process.address,
                publishers: process.address,
                frame_bytes: FRAME_BYTES,
            };
            io::Result::Ok((process, medium))
        };
        Ok(Self {
            redis: has_redis.then(redis).transpose()?,
            nats: has_nats.then(|| nats::start(FRAME_BYTES)).transpose()?,
            nchan: has_nchan.then(|| nchan::start(FRAME_BYTES)).transpose()?,
            node: has_node.then(|| node_ws::start(FRAME_BYTES)).transpose()?,
        })
    }
}

fn round(binary: &Path, peers: &Peers, plan: &Plan) -> io::Result<Round> {
    let server = server_process::start(binary)?;
    let target = server.target();
    let pid = server.child.pid();
    let ours = |subscribers: usize, idle: usize, pace: Pace| {
        let medium = StreamMedium::new(&target, FRAME_BYTES, Spread::Alone(subscribers))?;
        one(
            "iii-stream",
            &medium,
            pid,
            &load(subscribers, idle, pace, plan.load),
        )
    };
    let pair = |writes: Writes, subscribers: usize, pace: Pace| {
        let raw = raw::start(writes, FRAME_BYTES)?;
        let load = load(subscribers, 0, pace, plan.load);
        Ok::<_, io::Error>(vec![
            one("raw", &raw, raw.child.pid(), &load)?,
            ours(subscribers, 0, pace)?,
        ])
    };
    let crowds = |writes, width| {
        CROWDS
            .iter()
            .map(|subscribers| {
                let pace = Pace::Window(width);
                let mut rows = pair(writes, *subscribers, pace)?;
                rows.extend(peers.run(&load(*subscribers, 0, pace, plan.load))?);
                Ok((*subscribers, rows))
            })
            .collect::<io::Result<Vec<_>>>()
    };
    let windows = crowds(Writes::Queued, WINDOW)?;
    let singles = crowds(Writes::Each, 1)?;
    let many_to_few = pair(Writes::Each, 10, Pace::Rate(1000.0))?;
    let few_to_many = pair(Writes::Each, 1000, Pace::Rate(10.0))?;
    let alone = ours(1, 0, Pace::Window(1))?.sample;
    let beside_idle = ours(1, IDLE, Pace::Window(1))?.sample;
    let seconds = plan.load.measured.as_secs_f64();
    let slow = slow::run(&slow::Options::standard(seconds, false), &target)?;
    let slow_elsewhere = slow::run(&slow::Options::standard(seconds, true), &target)?;
    for pair in [&slow, &slow_elsewhere] {
        check("slow", &pair.without)?;
        check("slow", &pair.with)?;
    }
    let joins_redis = match &peers.redis {
        Some((process, medium)) => {
            Some(connect::join(medium, JOINING, Some(process.child.pid()))?.1)
        }
        None => None,
    };
    Ok(Round {
        windows,
        singles,
        many_to_few,
        few_to_many,
        alone,
        beside_idle,
        joins: joins(binary, Spread::One)?,
        joins_redis,
        joins_own: joins(binary, Spread::Alone(0))?,
        slow,
        slow_elsewhere,
    })
}

/// Subscribers coming in to a server that has done nothing yet.
fn joins(binary: &Path, spread: Spread) -> io::Result<connect::Sample> {
    let server = server_process::start(binary)?;
    let medium = StreamMedium::new(&server.target(), FRAME_BYTES, spread)?;
    let (_, sample) = connect::join(&medium, JOINING, Some(server.child.pid()))?;
    Ok(sample)
}

impl Peers {
    /// Redis with every crowd, the others with the common one.
    fn run(&self, load: &FanoutPlan) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        if let Some((process, medium)) = &self.redis {
            rows.push(one("Redis pub/sub", medium, process.child.pid(), load)?);
        }
        if load.subscribers != COMMON_CROWD {
            return Ok(rows);
        }
        if let Some(nats) = &self.nats {
            rows.push(one("NATS", nats, nats.child.pid(), load)?);
        }
        if let Some(nchan) = &self.nchan {
            rows.push(one("nginx nchan", nchan, nchan.child.pid(), load)?);
        }
        if let Some(node) = &self.node {
            rows.push(one("Node ws", node, node.child.pid(), load)?);
        }
        Ok(rows)
    }
}

fn load(subscribers: usize, idle: usize, pace: Pace, window: Window) -> FanoutPlan {
    FanoutPlan {
        subscribers,
        stuck: 0,
        idle,
        pace,
        window,
        fill: 0,
    }
}

fn one<M: Medium>(name: &'static str, medium: &M, pid: u32, load: &FanoutPlan) -> io::Result<Row> {
    let said = |error: io::Error| {
        io::Error::other(format!("{name}, {} subscribers: {error}", load.subscribers))
    };
    let sample = fanout::run(medium, load, Some(pid)).map_err(said)?;
    check(name, &sample).map_err(said)?;
    Ok(Row { name, sample })
}

/// Numbers of a run that lost something are worth nothing.
fn check(name: &str, sample: &Sample) -> io::Result<()> {
    if sample.faults.is_clean() && sample.ended.is_empty() {
        return Ok(());
    }
    let ended = sample.ended.first().map_or("", String::as_str);
    Err(io::Error::other(format!(
        "{name}: {:?} {ended}",
        sample.faults
    )))
}
