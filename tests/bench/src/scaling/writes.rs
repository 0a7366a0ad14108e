//! Calls at one instance, 8 connections with 32 in flight each, beside the commit script alone on the same Redis.

use std::io;
use std::sync::Arc;

use iii_stream::bench::load::{LoadSample, Window};
use iii_stream::bench::worker_calls::Calls;
use iii_stream::bench::worker_wire::WorkerWire;

use super::cluster::Cluster;
use super::script;
use crate::rounds::loaded;
use crate::worker_calls;
use crate::worker_client::WorkerClient;

/// What one round measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) set: LoadSample,
    pub(crate) update: LoadSample,
    /// Commits a second of the script, one set each, by `redis-benchmark`.
    pub(crate) script_per_second: f64,
}

pub(super) fn measure(cluster: &Cluster, window: Window) -> io::Result<Sample> {
    let instance = &cluster.instances[0];
    let run = |calls: Calls| {
        let wire = WorkerWire {
            address: instance.workers,
            token: None,
            calls: Arc::new(calls),
        };
        loaded(&wire, window, instance.child.pid())
    };
    let mut client = WorkerClient::open(instance.workers)?;
    client.seed()?;
    let script_per_second = script::measure(cluster.redis.address, window.measured)?;
    let set = run(worker_calls::set())?;
    let update = run(worker_calls::update())?;
    let sum = client.verify()?;
    if sum != update.acknowledged {
        return Err(io::Error::other(format!(
            "{} increments were acknowledged, the counters say {sum}",
            update.acknowledged
        )));
    }
    Ok(Sample {
        set,
        update,
        script_per_second,
    })
}
