//! The interleaved measurements: in every round each side once, so that a slow moment hits all of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::echo::EchoWire;
use crate::plan::Plan;
use crate::redis_wire::RedisWire;
use crate::single::{self, SingleSample};
use crate::worker_calls;
use crate::worker_client::WorkerClient;
use iii_stream::bench::load::{self, Load, LoadSample, Window};
use iii_stream::bench::wire::Wire;
use iii_stream::bench::worker_calls::Calls;
use iii_stream::bench::worker_wire::WorkerWire;

/// Who is measured, and the process whose CPU time counts.
pub(crate) struct Sides {
    pub(crate) set: Side<WorkerWire>,
    pub(crate) update: Side<WorkerWire>,
    pub(crate) redis: Option<Side<RedisWire>>,
    /// The bytes of a set, and of an update, sent back as they are.
    pub(crate) echo_set: Side<EchoWire>,
    pub(crate) echo_update: Side<EchoWire>,
}

/// A wire and the process at its other end.
pub(crate) struct Side<W> {
    pub(crate) wire: W,
    pub(crate) pid: u32,
}

/// What one round measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) set: LoadSample,
    pub(crate) redis: Option<LoadSample>,
    pub(crate) update: LoadSample,
    pub(crate) set_single: SingleSample,
    pub(crate) echo_set: SingleSample,
    pub(crate) redis_single: Option<SingleSample>,
    pub(crate) update_single: SingleSample,
    pub(crate) echo_update: SingleSample,
}

/// Connections of the load.
pub(crate) const CONNECTIONS: usize = 8;
/// Calls in flight on each.
pub(crate) const DEPTH: usize = 32;

/// One window of load without a fault.
pub(crate) fn loaded<W: Wire>(wire: &W, window: Window, server: u32) -> io::Result<LoadSample> {
    let load = Load {
        connections: CONNECTIONS,
        depth: DEPTH,
        rate: None,
        window,
    };
    let sample = load::run(wire, &load, Some(server))?;
    if sample.faults.is_clean() {
        return Ok(sample);
    }
    Err(io::Error::other(format!("{:?}", sample.faults)))
}

impl Sides {
    /// The worker port's two kinds of calls and the echo of the same frames.
    pub(crate) fn new(
        workers: (SocketAddr, u32),
        echo: (SocketAddr, u32),
        redis: Option<(SocketAddr, u32)>,
    ) -> Self {
        let worker = |calls: &Arc<Calls>| Side {
            wire: WorkerWire {
                address: workers.0,
                token: None,
                calls: Arc::clone(calls),
            },
            pid: workers.1,
        };
        let echoed = |calls: &Arc<Calls>| Side {
            wire: EchoWire {
                address: echo.0,
                bytes: calls.frame(0).to_vec(),
            },
            pid: echo.1,
        };
        let (set, update) = (
            Arc::new(worker_calls::set()),
            Arc::new(worker_calls::update()),
        );
        Self {
            set: worker(&set),
            update: worker(&update),
            echo_set: echoed(&set),
            echo_update: echoed(&update),
            redis: redis.map(|(address, pid)| Side {
                wire: RedisWire::new(address),
                pid,
            }),
        }
    }

    /// One round. The sets leave every counter at 0 behind them, so the updates must add up.
    pub(crate) fn round(&self, plan: &Plan) -> io::Result<Round> {
        let redis = self.redis.as_ref();
        let round = Round {
            set: loaded(&self.set.wire, plan.load, self.set.pid)?,
            redis: redis
                .map(|side| loaded(&side.wire, plan.load, side.pid))
                .transpose()?,
            set_single: single::run(&self.set.wire, plan.single, self.set.pid)?,
            echo_set: single::run(&self.echo_set.wire, plan.single, self.echo_set.pid)?,
            redis_single: redis
                .map(|side| single::run(&side.wire, plan.single, side.pid))
                .transpose()?,
            update: {
                self.check_counters(0)?;
                loaded(&self.update.wire, plan.load, self.update.pid)?
            },
            update_single: single::run(&self.update.wire, plan.single, self.update.pid)?,
            echo_update: single::run(&self.echo_update.wire, plan.single, self.echo_update.pid)?,
        };
        self.check_counters(round.update.acknowledged + round.update_single.acknowledged)?;
        if let Some(side) = redis {
            side.wire.verify()?;
        }
        Ok(round)
    }

    /// Reads every item back: its value, and the sum of all counters.
    fn check_counters(&self, expected: u64) -> io::Result<()> {
        let sum = WorkerClient::open(self.set.wire.address)?.verify()?;
        if sum == expected {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "{expected} increments were acknowledged, the counters say {sum}"
            )))
        }
    }
}
