//! What the admin listener shows: reads it where it is kept. Part of the composition, since it asks all concrete parts.

use std::sync::Arc;
use std::time::Duration;

use super::group_store::GroupStore;
use crate::admin::{CONNECTIONS_MAX, Inspect, StoreHealth};
use crate::config::StoreConfig;
use crate::engine::Waiting;
use crate::hub::Hub;
use crate::lifecycle::Lifecycle;
use crate::metrics::{self, By, Info, Metrics, Port, ProcessReadings, Readings, Total};
use crate::redis_client::RedisClient;
use crate::store::{Condition, FileReadings};
use crate::subscriber::Subscribers;
use crate::worker::Workers;

/// The parts that are asked.
pub(super) struct Sources {
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) workers: Arc<Workers>,
    pub(super) subscribers: Arc<Subscribers>,
    pub(super) hub: Arc<Hub>,
    pub(super) store: GroupStore,
    pub(super) state_store: GroupStore,
    pub(super) history_bytes_max: usize,
    pub(super) store_config: StoreConfig,
    /// The way to Redis, where it keeps the groups.
    pub(super) redis: Option<Arc<RedisClient>>,
    pub(super) waiting: Waiting,
}

impl Sources {
    fn read(&self) -> Readings {
        let subscribers = self.subscribers.len();
        let limits = &self.subscribers.limits;
        let mut connections_max = By::default();
        for (port, bound) in [
            (Port::Workers, self.workers.limits.connections_max),
            (Port::Subscribers, limits.connections_max),
            (Port::Admin, CONNECTIONS_MAX),
        ] {
            *connections_max.of_mut(port) = bound as u64;
        }
        let file = self.store.file_readings();
        let of_file = |read: fn(&FileReadings) -> u64| file.as_ref().map(read);
        let redis_queue_bytes = self.store.redis_queue_bytes().map(|bytes| bytes as u64);
        let redis_queue_bytes_max = match &self.store_config {
            StoreConfig::Redis(redis) => Some(redis.queue_total_bytes_max as u64),
            _ => None,
        };
        let total_of_file =
            |read: fn(&FileReadings) -> u64| file.as_ref().map(|file| Total(read(file) as f64));
        Readings {
            info: Info(vec![
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("store", Inspect::store(self).name.to_owned()),
            ]),
            uptime_seconds: self.lifecycle.uptime().as_secs_f64(),
            draining: u64::from(self.lifecycle.is_draining()),
            connections_max,
            workers: self.workers.len() as u64,
            subscribers: subscribers as u64,
            subscribed_groups: self.hub.groups_len() as u64,
            subscriber_queue_bytes: self.subscribers.queue_bytes() as u64,
            subscriber_queue_bytes_max: (subscribers * limits.connection.queue_bytes_max) as u64,
            invocations: self.workers.executing_len() as u64,
            trigger_calls_waiting: self.waiting.count() as u64,
            store_groups: self.store.groups_len() as u64,
            history_bytes: self.store.history_bytes() as u64,
            history_bytes_max: self.history_bytes_max as u64,
            store_writable: u64::from(Inspect::store(self).condition == Condition::Works),
            store_cache_bytes: of_file(|file| file.cache_bytes),
            store_cache_bytes_max: of_file(|file| file.cache_bytes_max),
            store_queue_bytes: of_file(|file| file.queue_bytes).or(redis_queue_bytes),
            store_queue_bytes_max: of_file(|file| file.queue_bytes_max).or(redis_queue_bytes_max),
            store_log_bytes: of_file(|file| file.log_bytes),
            store_log_bytes_max: of_file(|file| file.log_bytes_max),
            store_batches: total_of_file(|file| file.batches),
            store_records: total_of_file(|file| file.records),
            store_log_written: total_of_file(|file| file.log_written_bytes),
            store_fold_written: total_of_file(|file| file.fold_written_bytes),
            store_folds: total_of_file(|file| file.folds),
            store_loads: total_of_file(|file| file.loads),
            store_evictions: total_of_file(|file| file.evictions),
            redis_up: self.redis.as_ref().map(|redis| u64::from(redis.is_up())),
            store_sync_seconds: self.store.sync_seconds(),
        }
    }
}

impl Inspect for Sources {
    fn uptime(&self) -> Duration {
        self.lifecycle.uptime()
    }

    fn is_draining(&self) -> bool {
        self.lifecycle.is_draining()
    }

    fn store(&self) -> StoreHealth {
        let (name, durability) = match &self.store_config {
            StoreConfig::Custom { name } => (
                "custom",
                format!("that of the functions {name}::set and so on of your workers"),
            ),
            StoreConfig::File(file) => ("file", file.durability.in_words().to_owned()),
            StoreConfig::Redis(redis) => (
                "redis",
                format!(
                    "that of Redis at {}: what it keeps when it ends is up to its settings",
                    redis.nodes
                ),
            ),
            StoreConfig::Memory | StoreConfig::NotBuiltIn { .. } => (
                "memory",
                "none: everything is lost when this process ends".to_owned(),
            ),
        };
        // The state is on the same disk: what troubles one will trouble the other.
        let condition = match self.store.condition() {
            Condition::Works => self.state_store.condition(),
            trouble => trouble,
        };
        let nodes = self.redis.as_ref().map(|redis| redis.report().nodes);
        let unsafe_settings = nodes.unwrap_or_default().into_iter().flat_map(|node| {
            let address = node.address;
            let settings = node.unsafe_settings.into_iter();
            settings.map(move |setting| format!("Redis at {address}: {setting}"))
        });
        StoreHealth {
            name,
            durability,
            unsafe_settings: unsafe_settings.collect(),
            condition,
        }
    }

    fn metrics(&self) -> String {
        metrics::page(&self.metrics, &self.read(), &ProcessReadings::read())
    }
}
