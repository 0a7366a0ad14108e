//! The interleaved writes: in every round each side once, so that a slow moment hits all of them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use iii_stream::bench::load::{LoadSample, Window};
use iii_stream::bench::wire::Wire;
use iii_stream::bench::worker_calls::Calls;
use iii_stream::bench::worker_wire::WorkerWire;

use super::bare_disk::{BareDisk, BareSample};
use super::counters::Counters;
use crate::echo::{self, EchoWire};
use crate::plan::Plan;
use crate::redis_process::RedisProcess;
use crate::redis_wire::RedisWire;
use crate::rounds::loaded;
use crate::server_process::{self, ServerProcess, StoreKeys};
use crate::single::{self, SingleSample};
use crate::worker_calls;
use crate::worker_client::WorkerClient;

/// Streams that are written at once where there are many.
pub(crate) const STREAMS: usize = 100;

pub(crate) const FSYNC: StoreKeys<'static> =
    &[("store_method", "file_based"), ("file_path", "store")];
const OS: StoreKeys<'static> = &[
    ("store_method", "file_based"),
    ("file_path", "store"),
    ("durability", "os"),
];

/// What one round measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) set: Written,
    /// Batches of the size that `set` reached.
    pub(crate) bare: BareSample,
    pub(crate) memory_set: LoadSample,
    pub(crate) os_set: LoadSample,
    pub(crate) redis: Option<LoadSample>,
    /// The same items, spread over [`STREAMS`].
    pub(crate) streams: LoadSample,
    pub(crate) update: LoadSample,
    pub(crate) memory_update: LoadSample,
    pub(crate) set_single: SingleSample,
    /// Bytes of the log for each call.
    pub(crate) single_bytes: f64,
    /// Records of that size.
    pub(crate) bare_single: BareSample,
    pub(crate) memory_single: SingleSample,
    pub(crate) echo: SingleSample,
}

/// A load, and what the store wrote for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) sample: LoadSample,
    pub(crate) counters: Counters,
}

/// All that takes part.
struct Sides {
    file: ServerProcess,
    memory: ServerProcess,
    os: ServerProcess,
    echo: (EchoWire, crate::child::OwnChild),
    redis: Option<(RedisWire, u32)>,
    set: Arc<Calls>,
    update: Arc<Calls>,
    streams: Arc<Calls>,
}

/// Starts everything, runs the rounds, and sees that a server that was killed finds all again.
pub(crate) fn run(
    binary: &Path,
    plan: &Plan,
    redis: Option<&RedisProcess>,
) -> io::Result<Vec<Round>> {
    let folder = tempfile::tempdir()?;
    let file = server_process::start_in(binary, folder.path(), FSYNC)?;
    let sides = Sides::new(binary, file, redis)?;
    let mut disk = BareDisk::new()?;
    let mut rounds = Vec::new();
    let mut increments = 0;
    for number in 1..=plan.rounds {
        eprintln!("durable: round {number} of {}", plan.rounds);
        let round = sides.round(plan, &mut disk)?;
        increments = round.update.acknowledged;
        rounds.push(round);
    }
    // Dropping it kills it.
    drop(sides);
    let again = server_process::start_in(binary, folder.path(), FSYNC)?;
    expect_increments(&again, increments)?;
    Ok(rounds)
}

impl Sides {
    fn new(binary: &Path, file: ServerProcess, redis: Option<&RedisProcess>) -> io::Result<Self> {
        let memory = server_process::start(binary)?;
        let os = server_process::start_with(binary, OS)?;
        for server in [&file, &memory, &os] {
            WorkerClient::open(server.workers)?.seed()?;
        }
        let set = Arc::new(worker_calls::set());
        let (child, address) = echo::start()?;
        let bytes = set.frame(0).to_vec();
        Ok(Self {
            file,
            memory,
            os,
            echo: (EchoWire { address, bytes }, child),
            redis: redis.map(|redis| (RedisWire::new(redis.address), redis.child.pid())),
            set,
            update: Arc::new(worker_calls::update()),
            streams: Arc::new(worker_calls::set_in_streams(STREAMS)),
        })
    }

    /// One round. The sets leave every counter at 0 behind them, so the updates must add up.
    fn round(&self, plan: &Plan, disk: &mut BareDisk) -> io::Result<Round> {
        let set = self.written(&self.set, plan.load)?;
        let bare = disk.run(
            set.counters.bytes_per_batch() as usize,
            plan.single.measured,
        )?;
        let memory_set = on(&self.memory, &self.set, plan.load)?;
        let os_set = on(&self.os, &self.set, plan.load)?;
        let redis = self.redis.as_ref();
        let redis = redis
            .map(|(wire, pid)| loaded(wire, plan.load, *pid))
            .transpose()?;
        let streams = on(&self.file, &self.streams, plan.load)?;

        let before = Counters::read(self.file.admin)?;
        let set_single = alone(&wire(&self.file, &self.set), plan.single, &self.file)?;
        let written = Counters::read(self.file.admin)?.since(before);
        let single_bytes = written.log_written / set_single.acknowledged as f64;
        let bare_single = disk.run(single_bytes as usize, plan.single.measured)?;
        let memory_single = alone(&wire(&self.memory, &self.set), plan.single, &self.memory)?;
        let (echo_wire, echo_child) = &self.echo;
        let echo = single::run(echo_wire, plan.single, echo_child.pid())?;

        let updated = |server: &ServerProcess| {
            expect_increments(server, 0)?;
            let sample = on(server, &self.update, plan.load)?;
            expect_increments(server, sample.acknowledged)?;
            Ok::<_, io::Error>(sample)
        };
        let round = Round {
            set,
            bare,
            memory_set,
            os_set,
            redis,
            streams,
            update: updated(&self.file)?,
            memory_update: updated(&self.memory)?,
            set_single,
            single_bytes,
            bare_single,
            memory_single,
            echo,
        };
        if let Some((wire, _)) = &self.redis {
            wire.verify()?;
        }
        Ok(round)
    }

    fn written(&self, calls: &Arc<Calls>, window: Window) -> io::Result<Written> {
        let before = Counters::read(self.file.admin)?;
        let sample = on(&self.file, calls, window)?;
        let counters = Counters::read(self.file.admin)?.since(before);
        Ok(Written { sample, counters })
    }
}

fn wire(server: &ServerProcess, calls: &Arc<Calls>) -> WorkerWire {
    WorkerWire {
        address: server.workers,
        token: None,
        calls: Arc::clone(calls),
    }
}

fn on(server: &ServerProcess, calls: &Arc<Calls>, window: Window) -> io::Result<LoadSample> {
    loaded(&wire(server, calls), window, server.child.pid())
}

fn alone<W: Wire>(wire: &W, window: Window, server: &ServerProcess) -> io::Result<SingleSample> {
    single::run(wire, window, server.child.pid())
}

/// Reads every item back: its value, and the sum of all counters.
fn expect_increments(server: &ServerProcess, expected: u64) -> io::Result<()> {
    let sum = WorkerClient::open(server.workers)?.verify()?;
    if sum == expected {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "{expected} increments were acknowledged, the counters say {sum}"
        )))
    }
}
