//! Makes a server on Redis one of many: tells the cluster who it is and what it has.

use std::sync::Arc;

use super::StartError;
use super::parts::Parts;
use crate::cluster::{CallBounds, Cluster, ClusterOptions, Own};
use crate::config::{Config, StoreConfig};

/// Joins the other servers on the same Redis: from then on what they have can be called, and what workers of this one have too.
/// `address` is where its workers connect. `None` where the groups are not in Redis.
///
/// Errors: [`StartError`].
pub(super) async fn join(
    config: &Config,
    parts: &Parts,
    address: String,
) -> Result<Option<Arc<Cluster>>, StartError> {
    let (StoreConfig::Redis(redis), Some(client)) = (&config.store, &parts.sources.redis) else {
        return Ok(None);
    };
    let options = ClusterOptions {
        prefix: redis.key_prefix.clone(),
        address,
        heartbeat: redis.heartbeat,
        gone_after: redis.instance_gone_time,
        ready_time_max: redis.connect_time_max,
        calls: CallBounds {
            calls_max: redis.forwarded_calls_max,
            bytes_max: redis.forwarded_bytes_max,
            time_max: config.workers.limits.invocation_time_max,
        },
    };
    let directory = &parts.directory;
    let telling = directory.clone();
    let own = Own {
        registry: directory.registry().clone(),
        triggers: directory.triggers().clone(),
        workers: Arc::new(move || telling.worker_cards()),
        worker_changes: directory.workers().changes(),
    };
    let places = directory.places().clone();
    let metrics = parts.sources.metrics.clone();
    let cluster = Cluster::join(client.clone(), options, own, places, metrics).await?;
    Ok(Some(cluster))
}
