//! The composition: the one place that knows every concrete part, puts them together, and listens.

mod drain;
mod group_store;
mod readings;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::GroupRef;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use drain::Peers;
use group_store::{GroupStore, Holding};
use readings::Sources;

use crate::admin;
use crate::auth::Auth;
use crate::channel::{self, Channels};
use crate::config::{AdminConfig, Config, StoreConfig};
use crate::door::{DoorContext, SubscriberDoor, WorkerDoor, accept_subscribers, accept_workers};
use crate::engine::{
    Call, Immediate, JoinTriggers, LaneContext, LeaveTriggers, Notices, Registry, StateTriggers,
    StreamTriggers, TriggerType, Triggers, Waiting,
};
use crate::feed::{Feed, Follower, Interest};
use crate::hub::Hub;
use crate::introspection::{self, Directory};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::state;
use crate::store::OpenError;
use crate::stream::{CustomStorage, StreamFunctions};
use crate::subscriber::Subscribers;
use crate::worker::Workers;

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
    /// The data directory cannot be used.
    #[error("{0}")]
    Store(#[from] OpenError),
    /// A store that this version does not have.
    #[error(
        "the adapter `{name}` is not built in yet: use `kv` with `store_method: file_based` or `in_memory`"
    )]
    StoreNotBuiltIn {
        /// Its name in the configuration.
        name: String,
    },
}

/// A server that listens on its ports and is ready to run.
pub struct Server {
    workers_listener: TcpListener,
    subscribers_listener: TcpListener,
    /// `None` where its port was taken and nobody had asked for that port.
    admin_listener: Option<TcpListener>,
    drain_window: Duration,
    parts: Parts,
}

struct Parts {
    state_store: GroupStore,
    registry: Arc<Registry>,
    directory: Arc<Directory>,
    functions_available: Arc<Notices>,
    worker_door: WorkerDoor,
    subscriber_door: SubscriberDoor,
    sources: Arc<Sources>,
}

impl Server {
    /// Puts the parts together and binds the ports; port 0 takes any free one.
    ///
    /// Errors: [`StartError`].
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        if let StoreConfig::NotBuiltIn { name } = &config.store {
            return Err(StartError::StoreNotBuiltIn { name: name.clone() });
        }
        let workers_listener = listen("workers", &config.workers.host, config.workers.port).await?;
        let subscribers_listener = listen(
            "subscribers",
            &config.subscribers.host,
            config.subscribers.port,
        )
        .await?;
        let admin_listener = listen_admin(&config.admin).await?;
        Ok(Self {
            workers_listener,
            subscribers_listener,
            admin_listener,
            drain_window: config.drain_window,
            parts: Parts::new(config)?,
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

    /// Where the admin listener is; `None` where there is none.
    ///
    /// Errors: what the system says of the socket.
    pub fn admin_addr(&self) -> std::io::Result<Option<SocketAddr>> {
        self.admin_listener
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()
    }

    /// Serves until `stop` is ready, then closes all connections.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            workers_listener,
            subscribers_listener,
            admin_listener,
            drain_window,
            parts,
        } = self;
        let Sources {
            lifecycle,
            metrics,
            workers,
            subscribers,
            hub,
            store,
            waiting,
            ..
        } = &*parts.sources;
        // What goes on until the end.
        let mut background = JoinSet::new();
        let hub = hub.clone();
        let is_watched = move |group: GroupRef<'_>| hub.interest(group) != Interest::None;
        store.spawn_care(&mut background, is_watched);
        // Scopes have no subscribers.
        parts.state_store.spawn_care(&mut background, |_| false);
        let channels = parts.worker_door.channels.clone();
        background.spawn(async move { channels.run_sweep().await });
        background.spawn(announce_functions(
            parts.registry,
            parts.directory,
            parts.functions_available,
        ));
        if let Some(listener) = admin_listener {
            let inspect = parts.sources.clone();
            background.spawn(admin::serve(listener, inspect, metrics.clone()));
        }
        let mut doors = JoinSet::new();
        doors.spawn(accept_workers(workers_listener, parts.worker_door));
        doors.spawn(accept_subscribers(
            subscribers_listener,
            parts.subscriber_door,
        ));
        stop.await;
        lifecycle.begin_draining();
        doors.shutdown().await;
        let peers = Peers {
            subscribers,
            workers,
            waiting,
        };
        drain::drain(peers, drain_window).await;
        // The admin listener is the last to end, so that a stop can be watched.
        background.shutdown().await;
        for store in [store, &parts.state_store] {
            store.clone().close().await;
        }
    }
}

impl Parts {
    fn new(config: &Config) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Handle::current();
        let bounds = config.bounds;
        let metrics = Arc::new(Metrics::default());
        let lifecycle = Arc::new(Lifecycle::default());
        let context = DoorContext {
            lifecycle: lifecycle.clone(),
            metrics: metrics.clone(),
        };
        let server_id = Uuid::new_v4().to_string();
        let registry = Arc::new(Registry::new(server_id.into(), metrics.clone()));
        let feed = Feed::new(runtime.clone(), bounds.feed_pending_max, metrics.clone());
        let store = GroupStore::open(&config.store, Holding::Streams, feed.clone(), &bounds)?;
        let shared_store = store.shared();
        let hub = Arc::new(Hub::new(bounds.join_held_max, None, metrics.clone()));
        let waiting = Waiting::default();
        let lanes = LaneContext {
            registry: registry.clone(),
            runtime,
            time_max: bounds.handler_time_max,
            open_max: bounds.trigger_open_max,
            queue_max: bounds.trigger_queue_max,
            waiting: waiting.clone(),
            metrics: metrics.clone(),
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
        let state_store = GroupStore::open(
            &config.store,
            Holding::State,
            state_triggers.clone(),
            &bounds,
        )?;
        let shared_state = state_store.shared();
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
        let functions = Arc::new(StreamFunctions::new(
            shared_store.clone(),
            custom.clone(),
            &metrics,
        ));
        functions.register(&registry);
        let workers = Arc::new(Workers::new(
            registry.clone(),
            triggers.clone(),
            workers_available,
            config.workers.limits,
            metrics.clone(),
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
            context: context.clone(),
        };
        let subscribers = Arc::new(Subscribers::new(
            hub.clone(),
            custom,
            functions,
            joins,
            leaves,
            metrics.clone(),
            config.subscribers.limits,
        ));
        let auth = Arc::new(Auth::new(
            registry.clone(),
            config.auth.function_id.clone(),
            config.auth.time_max,
            config.auth.require_context,
            &config.auth.allowed_origins,
            config.auth.default_grants.clone(),
        ));
        let subscriber_door = SubscriberDoor {
            subscribers: subscribers.clone(),
            auth,
            context,
        };
        let sources = Arc::new(Sources {
            lifecycle,
            metrics,
            workers,
            subscribers,
            hub,
            store,
            history_bytes_max: bounds.history_total_bytes_max,
            state_store: state_store.clone(),
            store_config: config.store.clone(),
            waiting,
        });
        Ok(Self {
            state_store,
            registry,
            directory,
            functions_available,
            worker_door,
            subscriber_door,
            sources,
        })
    }
}

/// Tells of new and gone functions, together for those that change in quick succession.
async fn announce_functions(
    registry: Arc<Registry>,
    directory: Arc<Directory>,
    notices: Arc<Notices>,
) {
    let mut changes = registry.changes();
    while changes.changed().await.is_ok() {
        tokio::time::sleep(FUNCTIONS_CHANGED_PAUSE).await;
        notices.tell(|| directory.functions_changed());
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

/// Listens where the configuration says, or on the port that is the admin listener's where it says nothing: then another
/// server on this machine may have it, which is no reason not to start.
async fn listen_admin(config: &AdminConfig) -> Result<Option<TcpListener>, StartError> {
    let port = config.port.unwrap_or(AdminConfig::PORT);
    match listen("the admin listener", &config.host, port).await {
        Ok(listener) => Ok(Some(listener)),
        Err(StartError::Listen { source, .. })
            if config.port.is_none() && source.kind() == ErrorKind::AddrInUse =>
        {
            tracing::warn!(
                "{}:{port} is taken, so there is no admin listener: set `admin_port`, 0 takes any free port",
                config.host
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
