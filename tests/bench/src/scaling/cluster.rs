//! Three servers on one Redis, started by the bench.

use std::io;
use std::path::Path;
use std::time::Duration;

use iii_stream::bench::process_cost;
use iii_stream::bench::target::Target;

use crate::redis_process::{self, Keeps, RedisProcess};
use crate::server_process::{self, ServerProcess};

/// How many servers.
pub(super) const INSTANCES: usize = 3;

/// See the module.
pub(super) struct Cluster {
    pub(super) instances: Vec<ServerProcess>,
    pub(super) redis: RedisProcess,
}

impl Cluster {
    pub(super) fn start(binary: &Path) -> io::Result<Self> {
        let redis = redis_process::start(Keeps::Nothing)?;
        let url = format!("redis://{}", redis.address);
        let keys = [("redis_url", url.as_str())];
        let instances = (0..INSTANCES)
            .map(|_| server_process::start_on(binary, "redis", &keys))
            .collect::<io::Result<_>>()?;
        Ok(Self { instances, redis })
    }

    /// Writes go to one instance, subscribers are at another.
    pub(super) fn across(&self) -> Target {
        let [writing, reading, ..] = &self.instances[..] else {
            // Proof: `start` makes three.
            unreachable!("a cluster has three instances");
        };
        Target {
            worker_url: format!("ws://{}", writing.workers),
            ..reading.target()
        }
    }

    /// What all of them have taken so far, with Redis.
    pub(super) fn cpu(&self) -> io::Result<Duration> {
        let mut sum = process_cost::cpu(self.redis.child.pid())?;
        for instance in &self.instances {
            sum += process_cost::cpu(instance.child.pid())?;
        }
        Ok(sum)
    }
}
