//! What the admin listener shows: reads it where it is kept. Part of the composition, since it asks all concrete parts.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::{CONNECTIONS_MAX, Inspect, StoreHealth};
use crate::config::StoreConfig;
use crate::engine::Waiting;
use crate::hub::Hub;
use crate::lifecycle::Lifecycle;
use crate::metrics::{self, By, Info, Metrics, Port, ProcessReadings, Readings};
use crate::store::MemoryStore;
use crate::subscriber::Subscribers;
use crate::worker::Workers;

/// The parts that are asked.
pub(super) struct Sources {
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) workers: Arc<Workers>,
    pub(super) subscribers: Arc<Subscribers>,
    pub(super) hub: Arc<Hub>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) history_bytes_max: usize,
    pub(super) store_config: StoreConfig,
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
        Readings {
            info: Info(vec![
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("store", self.store().name.to_owned()),
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
        match &self.store_config {
            StoreConfig::Custom { name } => StoreHealth {
                name: "custom",
                durability: format!("that of the functions {name}::set and so on of your workers"),
            },
            StoreConfig::Memory | StoreConfig::NotBuiltIn { .. } => StoreHealth {
                name: "memory",
                durability: "none: everything is lost when this process ends".to_owned(),
            },
        }
    }

    fn metrics(&self) -> String {
        metrics::page(&self.metrics, &self.read(), &ProcessReadings::read())
    }
}
