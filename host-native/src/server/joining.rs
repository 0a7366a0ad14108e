//! Makes a server on Redis one of many: tells the cluster who it is and what it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StartError;
use super::parts::Parts;
use crate::cluster::{CallBounds, Cluster, ClusterOptions, Own};
use crate::config::{Config, RedisConfig, RedisLayout, StoreConfig};

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
        settings: shared_settings(config, redis),
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

/// What servers that differ in it would do differently to the same groups.
fn shared_settings(config: &Config, redis: &RedisConfig) -> BTreeMap<String, String> {
    let layout = match redis.layout {
        RedisLayout::Native => "native",
        RedisLayout::Compatible => "compatible",
    };
    let group = &config.bounds.group;
    let numbers = [
        ("group_items_max", group.items_max),
        ("group_bytes_max", group.bytes_max),
        ("mutation_clients_max", group.client_records_max),
        ("history_changes_max", group.history_changes_max),
        ("history_bytes_max", group.history_bytes_max),
    ];
    let times = [
        ("heartbeat_ms", redis.heartbeat),
        ("instance_gone_ms", redis.instance_gone_time),
        ("trigger_resume_ms", redis.trigger_resume_time),
    ];
    let numbers = numbers.map(|(key, number)| (key.to_owned(), number.to_string()));
    let times = times.map(|(key, time)| (key.to_owned(), time.as_millis().to_string()));
    let mut settings: BTreeMap<_, _> = numbers.into_iter().chain(times).collect();
    settings.insert("layout".to_owned(), layout.to_owned());
    settings
}
