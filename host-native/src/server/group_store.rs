//! A store of the server, as the configuration says: in memory, in a directory or in Redis. The one place that asks which.

use std::sync::Arc;

use iii_stream_core::{GroupKey, GroupLimits, GroupRef};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::StartError;
use crate::config::{Bounds, RedisConfig, RedisLayout, StoreConfig};
use crate::engine::StateTriggers;
use crate::feed::Feed;
use crate::hub::Audience;
use crate::metrics::{Histogram, Metrics, TimeBuckets};
use crate::redis_client::RedisClient;
use crate::store::redis::{RedisStore, RedisStoreOptions, Sinks, Triggered};
use crate::store::redis_compatible::{CompatibleOptions, CompatibleStore, Kept};
use crate::store::{
    ChangeSink, Condition, FileReadings, FileStore, MemoryStore, RelaySink, STATE_DIR, Store,
};

/// Where stores are, and what they are made with.
pub(super) struct Place<'a> {
    pub(super) config: &'a StoreConfig,
    /// The way to Redis, where it keeps the groups.
    pub(super) redis: Option<&'a Arc<RedisClient>>,
    pub(super) bounds: &'a Bounds,
    pub(super) metrics: &'a Arc<Metrics>,
}

/// What a store is for, and who is told of its changes.
pub(super) enum Holding {
    /// The groups of streams.
    Streams {
        feed: Arc<Feed>,
        /// Takes what this instance commits, where `feed` takes what all instances do.
        commits: Arc<Feed>,
        triggers: Arc<dyn Triggered>,
    },
    /// The scopes of state, to whose history nobody comes back.
    State(Arc<StateTriggers>),
}

/// See the module.
#[derive(Clone)]
pub(super) enum GroupStore {
    Memory(Arc<MemoryStore>),
    File(Arc<FileStore>),
    Redis {
        store: Arc<RedisStore>,
        client: Arc<RedisClient>,
    },
    /// In Redis, as an iii engine keeps it.
    Compatible {
        store: Arc<CompatibleStore>,
        client: Arc<RedisClient>,
    },
}

impl GroupStore {
    /// Errors: the data directory cannot be used.
    pub(super) fn open(place: &Place<'_>, holding: Holding) -> Result<Self, StartError> {
        let bounds = place.bounds;
        let (limits, history_bytes_max) = match holding {
            Holding::Streams { .. } => (bounds.group, bounds.history_total_bytes_max),
            Holding::State(_) => {
                let limits = GroupLimits {
                    history_changes_max: 0,
                    ..bounds.group
                };
                (limits, 0)
            }
        };
        match (place.config, place.redis) {
            (StoreConfig::File(file), _) => {
                let dir = match &holding {
                    Holding::Streams { .. } => file.dir.clone(),
                    Holding::State(_) => file.dir.join(STATE_DIR),
                };
                let options = file.options(limits, history_bytes_max);
                let store = FileStore::open(&dir, holding.sink(), options)?;
                Ok(Self::File(Arc::new(store)))
            }
            (StoreConfig::Redis(redis), Some(client))
                if redis.layout == RedisLayout::Compatible =>
            {
                if client.is_cluster() {
                    return Err(StartError::LayoutOnCluster);
                }
                Ok(Self::Compatible {
                    store: compatible(redis, client, limits, holding, place.metrics),
                    client: client.clone(),
                })
            }
            (StoreConfig::Redis(redis), Some(client)) => Ok(Self::Redis {
                store: on_redis(redis, client, limits, holding, place.metrics),
                client: client.clone(),
            }),
            _ => {
                let sink = holding.sink();
                let store = MemoryStore::new(&new_epoch(), sink, limits, history_bytes_max);
                Ok(Self::Memory(Arc::new(store)))
            }
        }
    }

    /// Who has to know which groups have subscribers.
    pub(super) fn audience(&self) -> Option<Arc<dyn Audience>> {
        match self {
            Self::Memory(_) | Self::File(_) => None,
            Self::Redis { store, .. } => Some(store.clone()),
            Self::Compatible { store, .. } => Some(store.clone()),
        }
    }

    /// The store that is shared with other servers in the layout of this one, and the way to it.
    pub(super) fn redis(&self) -> Option<(Arc<RedisClient>, Arc<RedisStore>)> {
        match self {
            Self::Redis { store, client } => Some((client.clone(), store.clone())),
            _ => None,
        }
    }

    pub(super) fn shared(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => store.clone(),
            Self::File(store) => store.clone(),
            Self::Redis { store, .. } => store.clone(),
            Self::Compatible { store, .. } => store.clone(),
        }
    }

    /// Starts what goes on in the background until the server ends.
    pub(super) fn spawn_care(
        &self,
        background: &mut JoinSet<()>,
        is_watched: impl Fn(GroupRef<'_>) -> bool + Send + Sync + 'static,
    ) {
        match self.clone() {
            Self::Memory(store) => {
                let expiring = store.clone();
                background.spawn(async move { expiring.run_expiry().await });
                background.spawn(async move { store.run_forgetting(is_watched).await });
            }
            Self::File(store) => {
                let (expiring, caching) = (store.clone(), store.clone());
                background.spawn(async move { expiring.run_expiry().await });
                background.spawn(async move { caching.run_cache().await });
                background.spawn(async move { store.run_forgetting(is_watched).await });
            }
            // It is told everything, and forgets by itself.
            Self::Compatible { .. } => {}
            // It forgets by itself, and keeps what is watched.
            Self::Redis { store, .. } => {
                background.spawn(async move { store.run_watching().await });
            }
        }
    }

    /// Whether it can be written.
    pub(super) fn condition(&self) -> Condition {
        match self {
            Self::Memory(_) => Condition::Works,
            Self::File(store) => store.condition(),
            Self::Redis { client, .. } | Self::Compatible { client, .. } if client.is_up() => {
                let refuses = client.refuses_writes();
                refuses.map_or(Condition::Works, |why| Condition::Full(why.to_string()))
            }
            Self::Redis { client, .. } | Self::Compatible { client, .. } => {
                Condition::Unavailable(trouble(client))
            }
        }
    }

    pub(super) fn groups_len(&self) -> usize {
        match self {
            Self::Memory(store) => store.groups_len(),
            Self::File(store) => store.readings().groups as usize,
            // Others may have made some.
            Self::Redis { .. } | Self::Compatible { .. } => 0,
        }
    }

    pub(super) fn history_bytes(&self) -> usize {
        match self {
            Self::Memory(store) => store.history_bytes(),
            Self::File(store) => store.readings().history_bytes as usize,
            Self::Redis { .. } | Self::Compatible { .. } => 0,
        }
    }

    /// What a store in a directory can tell.
    pub(super) fn file_readings(&self) -> Option<FileReadings> {
        match self {
            Self::Memory(_) | Self::Redis { .. } | Self::Compatible { .. } => None,
            Self::File(store) => Some(store.readings()),
        }
    }

    /// Bytes of the calls that wait for Redis.
    pub(super) fn redis_queue_bytes(&self) -> Option<usize> {
        match self {
            Self::Memory(_) | Self::File(_) => None,
            Self::Redis { store, .. } => Some(store.queued_bytes()),
            Self::Compatible { store, .. } => Some(store.queued_bytes()),
        }
    }

    pub(super) fn sync_seconds(&self) -> Option<Arc<Histogram<TimeBuckets>>> {
        match self {
            Self::Memory(_) | Self::Redis { .. } | Self::Compatible { .. } => None,
            Self::File(store) => Some(store.sync_seconds()),
        }
    }

    /// Writes what waits, and lets go of the directory.
    pub(super) async fn close(self) {
        if let Self::File(store) = self {
            let closing = tokio::task::spawn_blocking(move || store.close());
            if let Err(error) = closing.await {
                tracing::error!("closing the store failed: {error}");
            }
        }
    }
}

impl Holding {
    fn sink(&self) -> Arc<dyn ChangeSink> {
        match self {
            Self::Streams { feed, .. } => feed.clone(),
            Self::State(triggers) => triggers.clone(),
        }
    }
}

impl Audience for RedisStore {
    fn came(&self, group: &GroupKey) {
        self.watch(group);
    }

    fn went(&self, group: &GroupKey) {
        self.unwatch(group);
    }
}

impl Audience for CompatibleStore {
    fn came(&self, group: &GroupKey) {
        self.watch(group);
    }

    fn went(&self, group: &GroupKey) {
        self.unwatch(group);
    }
}

/// Scopes of state have no stream triggers.
struct Untriggered;

impl Triggered for Untriggered {
    fn is_triggered(&self, _stream: &str) -> bool {
        false
    }
}

fn on_redis(
    config: &RedisConfig,
    client: &Arc<RedisClient>,
    limits: GroupLimits,
    holding: Holding,
    metrics: &Arc<Metrics>,
) -> Arc<RedisStore> {
    let state_prefix = match holding {
        Holding::Streams { .. } => "",
        Holding::State(_) => "state:",
    };
    let options = RedisStoreOptions {
        prefix: format!("{}{state_prefix}", config.key_prefix),
        limits,
        keeps_history: matches!(holding, Holding::Streams { .. }),
        wait_max: config.wait_max,
        queue_commands_max: config.queue_commands_max,
        queue_bytes_max: config.queue_bytes_max,
        queue_total_bytes_max: config.queue_total_bytes_max,
        cache_bytes_max: config.cache_bytes_max,
    };
    match holding {
        Holding::Streams { feed, triggers, .. } => {
            let store = RedisStore::new(client.clone(), options, Sinks::Channel, triggers);
            store.set_watching(feed, metrics.clone());
            store
        }
        Holding::State(triggers) => {
            let sinks = Sinks::AtOnce(triggers);
            RedisStore::new(client.clone(), options, sinks, Arc::new(Untriggered))
        }
    }
}

fn compatible(
    config: &RedisConfig,
    client: &Arc<RedisClient>,
    limits: GroupLimits,
    holding: Holding,
    metrics: &Arc<Metrics>,
) -> Arc<CompatibleStore> {
    let (kept, subscribers, triggers): (_, Option<Arc<dyn RelaySink>>, Arc<dyn ChangeSink>) =
        match holding {
            Holding::Streams { feed, commits, .. } => (Kept::Streams, Some(feed), commits),
            Holding::State(triggers) => (Kept::State, None, triggers),
        };
    let options = CompatibleOptions {
        kept,
        limits,
        epoch: new_epoch().into(),
        wait_max: config.wait_max,
        queue_commands_max: config.queue_commands_max,
        queue_bytes_max: config.queue_bytes_max,
        queue_total_bytes_max: config.queue_total_bytes_max,
    };
    Arc::new(CompatibleStore::new(
        client.clone(),
        options,
        subscribers,
        triggers,
        metrics.clone(),
        tokio::runtime::Handle::current(),
    ))
}

/// Which servers of Redis are not there, and why.
fn trouble(client: &RedisClient) -> String {
    let nodes = client.report().nodes;
    let down = nodes.iter().filter_map(|node| {
        let down = node.down.as_ref()?;
        Some(format!("Redis at {}: {}", node.address, down.why))
    });
    down.collect::<Vec<_>>().join("; ")
}

/// A name for the history of this process's groups that no other process has: `[a-z0-9]+`.
fn new_epoch() -> String {
    let random = Uuid::new_v4().simple().to_string();
    random[..12].to_owned()
}
