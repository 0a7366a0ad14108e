//! The composition: the one place that knows every concrete part, puts them together, and listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::GroupLimits;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::auth::Auth;
use crate::channel::{self, Channels};
use crate::config::{Config, StoreConfig};
use crate::door::{SubscriberDoor, WorkerDoor, accept_subscribers, accept_workers};
use crate::engine::{
    Call, Immediate, JoinTriggers, LaneContext, LeaveTriggers, Notices, Registry, StateTriggers,
    StreamTriggers, TriggerType, Triggers, Waiting,
};
use crate::feed::Feed;
use crate::hub::Hub;
use crate::introspection::{self, Directory};
use crate::state;
use crate::store::{MemoryStore, Store};
use crate::stream::{self, CustomStorage};
use crate::subscriber::Subscribers;
use crate::worker::Workers;

/// How long each step of a stop may take.
const STOP_TIME_MAX: Duration = Duration::from_secs(6);

/// How long changes of the set of functions are gathered before they are told.
const FUNCTIONS_CHANGED_PAUSE: Duration = Duration::from_millis(100);

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A port cannot be listened on.
    #[error("cannot listen on {host}:{port} for {purpose}: {source}")]
    Listen {
        /// What the port is for.
        purpose: &'static str,
        /// The host of the configuration.
        host: String,
        /// The port of the configuration.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// A store that this version does not have.
    #[error("the adapter `{name}` is not built in yet: use `kv` with `store_method: in_memory`")]
    StoreNotBuiltIn {
        /// Its name in the configuration.
        name: String,
    },
}

/// A server that listens on its ports and is ready to run.
pub struct Server {
    workers_listener: TcpListener,
    subscribers_listener: TcpListener,
    parts: Parts,
}

struct Parts {
    workers: Arc<Workers>,
    subscribers: Arc<Subscribers>,
    hub: Arc<Hub>,
    store: Arc<MemoryStore>,
    state_store: Arc<MemoryStore>,
    waiting: Waiting,
    registry: Arc<Registry>,
    directory: Arc<Directory>,
    functions_available: Arc<Notices>,
    worker_door: WorkerDoor,
    subscriber_door: SubscriberDoor,
}

impl Server {
    /// Puts the parts together and binds the ports; port 0 takes any free one.
    ///
    /// Errors: [`StartError`].
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        match &config.store {
            StoreConfig::Memory | StoreConfig::Custom { .. } => {}
            StoreConfig::NotBuiltIn { name } => {
                return Err(StartError::StoreNotBuiltIn { name: name.clone() });
            }
        }
        let workers_listener = listen("workers", &config.workers.host, config.workers.port).await?;
        let subscribers_listener = listen(
            "subscribers",
            &config.subscribers.host,
            config.subscribers.port,
        )
        .await?;
        Ok(Self {
            workers_listener,
            subscribers_listener,
            parts: Parts::new(config),
        })
    }

    /// Where workers connect.
    ///
    /// Errors: what the system says of the socket.
    pub fn workers_addr(&self) -> std::io::Result<SocketAddr> {
        self.workers_listener.local_addr()
    }

    /// Where subscribers connect.
    ///
    /// Errors: what the system says of the socket.
    pub fn subscribers_addr(&self) -> std::io::Result<SocketAddr> {
        self.subscribers_listener.local_addr()
    }

    /// Serves until `stop` is ready, then closes all connections.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            workers_listener,
            subscribers_listener,
            parts,
        } = self;
        let hub = parts.hub.clone();
        let store = parts.store.clone();
        let mut tasks = JoinSet::new();
        let expiring = store.clone();
        tasks.spawn(async move { expiring.run_expiry().await });
        tasks.spawn(async move {
            store
                .run_forgetting(|group| crate::feed::Follower::follows(&*hub, group))
                .await;
        });
        let state_store = parts.state_store.clone();
        tasks.spawn(async move {
            // Scopes have no subscribers.
            state_store.run_forgetting(|_| false).await;
        });
        let channels = parts.worker_door.channels.clone();
        tasks.spawn(async move { channels.run_sweep().await });
        tasks.spawn(announce_functions(
            parts.registry,
            parts.directory,
            parts.functions_available,
        ));
        tasks.spawn(accept_workers(workers_listener, parts.worker_door.clone()));
        tasks.spawn(accept_subscribers(
            subscribers_listener,
            parts.subscriber_door.clone(),
        ));
        stop.await;
        tasks.shutdown().await;
        // Subscribers first: the ends of their subscriptions are told to workers, which must still be there then.
        parts.subscribers.close_all();
        until("subscribers complete their close handshakes", || {
            parts.subscribers.is_empty()
        })
        .await;
        until("triggers are handed to workers", || {
            parts.waiting.count() == 0
        })
        .await;
        parts.workers.close_all();
        until("workers complete their close handshakes", || {
            parts.workers.is_empty()
        })
        .await;
    }
}

impl Parts {
    fn new(config: &Config) -> Self {
        let runtime = tokio::runtime::Handle::current();
        let bounds = config.bounds;
        let registry = Arc::new(Registry::new(Uuid::new_v4().to_string().into()));
        let feed = Feed::new(runtime.clone(), bounds.feed_pending_max);
        let store = Arc::new(MemoryStore::new(
            &new_epoch(),
            feed.clone(),
            bounds.group,
            bounds.history_total_bytes_max,
        ));
        let shared_store: Arc<dyn Store> = store.clone();
        let hub = Arc::new(Hub::new(bounds.join_held_max));
        let waiting = Waiting::default();
        let lanes = LaneContext {
            registry: registry.clone(),
            runtime,
            time_max: bounds.handler_time_max,
            open_max: bounds.trigger_open_max,
            queue_max: bounds.trigger_queue_max,
            waiting: waiting.clone(),
        };
        let stream_triggers = Arc::new(StreamTriggers::new(lanes.clone()));
        feed.start(vec![hub.clone(), stream_triggers.clone()]);
        let guards = LaneContext {
            time_max: config.join_guards.time_max,
            ..lanes.clone()
        };
        let joins = Arc::new(JoinTriggers::new(guards, config.join_guards.deny_on_error));
        let leaves = Arc::new(LeaveTriggers::new(lanes.clone()));
        let state_triggers = Arc::new(StateTriggers::new(lanes.clone()));
        let state_store = Arc::new(MemoryStore::new(
            &new_epoch(),
            state_triggers.clone(),
            // Nobody comes back to the history of a scope.
            GroupLimits {
                history_changes_max: 0,
                ..bounds.group
            },
            0,
        ));
        let shared_state: Arc<dyn Store> = state_store.clone();
        state::register(&registry, &shared_state, &state_triggers);
        let triggers = Arc::new(Triggers::new(registry.server().clone()));
        let workers_available = Arc::new(Notices::new(lanes.clone()));
        let functions_available = Arc::new(Notices::new(lanes));
        let types: [(&str, &str, Arc<dyn TriggerType>); 6] = [
            (
                "stream",
                "an item was created, updated or deleted",
                stream_triggers,
            ),
            (
                "stream:join",
                "a subscription begins; may refuse it",
                joins.clone(),
            ),
            ("stream:leave", "a subscription has ended", leaves.clone()),
            (
                "state",
                "a key of a scope was created, updated or deleted",
                state_triggers,
            ),
            (
                "engine::workers-available",
                "a worker came, described itself, or went",
                workers_available.clone(),
            ),
            (
                "engine::functions-available",
                "the set of functions changed",
                functions_available.clone(),
            ),
        ];
        for (id, description, provider) in types {
            triggers.register_builtin_type(id, description, provider);
        }
        let adapter = match &config.store {
            StoreConfig::Custom { name } => Some(name.clone()),
            _ => None,
        };
        let custom = Arc::new(CustomStorage::new(
            registry.clone(),
            shared_store.clone(),
            adapter,
            tokio::runtime::Handle::current(),
        ));
        stream::register(&registry, &shared_store, &custom);
        let workers = Arc::new(Workers::new(
            registry.clone(),
            triggers.clone(),
            workers_available,
            config.workers.limits,
        ));
        let describing = workers.clone();
        registry.register_builtin(
            "engine::workers::register",
            Arc::new(Immediate(move |call: &Call<'_>| describing.describe(call))),
        );
        let directory = Arc::new(Directory::new(registry.clone(), triggers, workers.clone()));
        introspection::register(&registry, &directory);
        let channels = Arc::new(Channels::default());
        channel::register(&registry, &channels);
        let token = config.workers.token.as_deref().map(Into::into);
        let worker_door = WorkerDoor {
            workers: workers.clone(),
            channels,
            token,
        };
        let subscribers = Arc::new(Subscribers::new(
            hub.clone(),
            custom,
            joins,
            leaves,
            config.subscribers.limits,
        ));
        let auth = Arc::new(Auth::new(
            registry.clone(),
            config.auth.function_id.clone(),
            config.auth.time_max,
            config.auth.require_context,
            config.auth.allowed_origins.clone(),
        ));
        let subscriber_door = SubscriberDoor {
            subscribers: subscribers.clone(),
            auth,
        };
        Self {
            workers,
            subscribers,
            hub,
            store,
            state_store,
            waiting,
            registry,
            directory,
            functions_available,
            worker_door,
            subscriber_door,
        }
    }
}

/// A name for the history of this process's groups that no other process has: `[a-z0-9]+`.
fn new_epoch() -> String {
    let random = Uuid::new_v4().simple().to_string();
    random[..12].to_owned()
}

/// Tells of new and gone functions, together for those that change in quick succession.
async fn announce_functions(
    registry: Arc<Registry>,
    directory: Arc<Directory>,
    notices: Arc<Notices>,
) {
    loop {
        registry.changed().await;
        tokio::time::sleep(FUNCTIONS_CHANGED_PAUSE).await;
        notices.tell(|| directory.functions_changed());
    }
}

/// Waits until something is done, but not for ever.
async fn until(what: &str, is_done: impl Fn() -> bool) {
    let done = async {
        while !is_done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(STOP_TIME_MAX, done).await.is_err() {
        tracing::warn!("stopping without waiting longer until {what}");
    }
}

async fn listen(purpose: &'static str, host: &str, port: u16) -> Result<TcpListener, StartError> {
    TcpListener::bind((host, port))
        .await
        .map_err(|source| StartError::Listen {
            purpose,
            host: host.to_owned(),
            port,
            source,
        })
}
