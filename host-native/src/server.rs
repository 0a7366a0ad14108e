//! The composition: the one place that knows every concrete part, puts them together, and listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response, StatusCode, Uri};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::auth::{Auth, AuthRequest};
use crate::channel::{self, Channels, Direction};
use crate::config::{Config, StoreConfig};
use crate::engine::{
    Call, Immediate, JoinTriggers, LaneContext, LeaveTriggers, Notices, Registry, StateTriggers,
    StreamTriggers, TriggerType, Triggers, Waiting,
};
use crate::feed::Feed;
use crate::hub::Hub;
use crate::introspection::{self, Directory};
use crate::socket::{self, Refused};
use crate::state;
use crate::store::{MemoryStore, Store};
use crate::stream::{self, CustomStorage};
use crate::subscriber::{self, Admission, Subscribers};
use crate::worker::{self, Workers};

/// How long each step of a stop may take.
const STOP_TIME_MAX: Duration = Duration::from_secs(6);

/// How long accepting pauses when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    auth: Arc<Auth>,
    hub: Arc<Hub>,
    store: Arc<MemoryStore>,
    waiting: Waiting,
    registry: Arc<Registry>,
    directory: Arc<Directory>,
    functions_available: Arc<Notices>,
    door: WorkerDoor,
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
        tasks.spawn(announce_functions(
            parts.registry,
            parts.directory,
            parts.functions_available,
        ));
        tasks.spawn(accept_workers(workers_listener, parts.door.clone()));
        tasks.spawn(accept_subscribers(
            subscribers_listener,
            parts.subscribers.clone(),
            parts.auth.clone(),
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
        let registry = Arc::new(Registry::new(Uuid::new_v4().to_string().into()));
        let feed = Feed::new(runtime.clone());
        let store = Arc::new(MemoryStore::new(&new_epoch(), feed.clone()));
        let shared_store: Arc<dyn Store> = store.clone();
        let hub = Arc::new(Hub::default());
        let waiting = Waiting::default();
        let lanes = LaneContext {
            registry: registry.clone(),
            runtime,
            time_max: config.handler_time_max,
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
        let state_store: Arc<dyn Store> =
            Arc::new(MemoryStore::new(&new_epoch(), state_triggers.clone()));
        state::register(&registry, &state_store, &state_triggers);
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
        let door = WorkerDoor {
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
        Self {
            workers,
            subscribers,
            auth,
            hub,
            store,
            waiting,
            registry,
            directory,
            functions_available,
            door,
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

/// Accepts connections and gives each a task, as long as there is room for one.
async fn accept<F, R>(listener: TcpListener, connections_max: usize, serve: F)
where
    F: Fn(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(connections_max));
    loop {
        match listener.accept().await {
            Ok((stream, addr)) => match room.clone().try_acquire_owned() {
                Ok(permit) => drop(tokio::spawn(serve(stream, addr, permit))),
                Err(_) => {
                    tracing::warn!(%addr, connections_max, "connection refused: there are too many");
                }
            },
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What connections to the worker port need.
#[derive(Clone)]
struct WorkerDoor {
    workers: Arc<Workers>,
    channels: Arc<Channels>,
    token: Option<Arc<str>>,
}

async fn accept_workers(listener: TcpListener, door: WorkerDoor) {
    let limits = door.workers.limits;
    accept(listener, limits.connections_max, |stream, addr, permit| {
        let door = door.clone();
        async move {
            let permit = Arc::new(permit);
            socket::serve_http(stream, limits.handshake_time_max, |request| {
                let answer = answer_worker(request, addr, &door, &permit);
                async { answer }
            })
            .await;
        }
    })
    .await;
}

type HttpResponse = Response<Full<Bytes>>;

/// What a connection holds for as long as it lives.
type Permit = Arc<tokio::sync::OwnedSemaphorePermit>;

fn answer_worker(
    mut request: Request<Incoming>,
    addr: SocketAddr,
    door: &WorkerDoor,
    permit: &Permit,
) -> HttpResponse {
    let Some(purpose) = Purpose::of(request.uri()) else {
        return socket::refuse(&not_found(
            "workers connect to /, telemetry to /otel, channels to /ws/channels/{id}",
        ));
    };
    if let Some(token) = door.token.as_deref()
        // A channel has a key of its own.
        && !matches!(purpose, Purpose::Channel { .. })
        && !has_bearer(&request, token)
    {
        return socket::refuse(&Refused {
            status: StatusCode::UNAUTHORIZED,
            message: "this server asks workers for a token: Authorization: Bearer …",
            retry_after_s: None,
        });
    }
    let limits = door.workers.limits.connection;
    let (response, websocket) = match socket::upgrade(&mut request, limits) {
        Ok(upgraded) => upgraded,
        Err(refused) => return socket::refuse(&refused),
    };
    let end = match &purpose {
        Purpose::Channel { id, key, direction } => {
            match door.take_channel(id, key.as_deref(), *direction) {
                Ok(end) => Some(end),
                Err(refused) => return socket::refuse(&refused),
            }
        }
        Purpose::Worker | Purpose::Telemetry => None,
    };
    let workers = door.workers.clone();
    let permit = permit.clone();
    tokio::spawn(async move {
        match (purpose, end) {
            (_, Some(end)) => channel::serve(websocket, end, limits).await,
            (Purpose::Telemetry, None) => worker::discard_telemetry(websocket, &workers).await,
            (_, None) => worker::serve(websocket, workers, addr.ip().to_canonical()).await,
        }
        drop(permit);
    });
    response
}

/// What a connection to the worker port is for.
enum Purpose {
    Worker,
    Telemetry,
    Channel {
        id: String,
        key: Option<String>,
        direction: Option<Direction>,
    },
}

impl Purpose {
    fn of(uri: &Uri) -> Option<Self> {
        match uri.path() {
            "/" => return Some(Self::Worker),
            "/otel" => return Some(Self::Telemetry),
            _ => {}
        }
        let id = uri
            .path()
            .strip_prefix("/ws/channels/")
            .filter(|id| !id.is_empty() && !id.contains('/'))?;
        let query = uri.query().unwrap_or_default();
        let param = |wanted: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.into_owned())
        };
        let direction = match param("dir").as_deref() {
            Some("read") => Some(Direction::Read),
            Some("write") => Some(Direction::Write),
            _ => None,
        };
        Some(Self::Channel {
            id: id.to_owned(),
            key: param("key"),
            direction,
        })
    }
}

impl WorkerDoor {
    fn take_channel(
        &self,
        id: &str,
        key: Option<&str>,
        direction: Option<Direction>,
    ) -> Result<channel::End, Refused> {
        let (Some(key), Some(direction)) = (key, direction) else {
            let message = "a channel needs ?key=…&dir=read or dir=write";
            return Err(Refused {
                status: StatusCode::BAD_REQUEST,
                message,
                retry_after_s: None,
            });
        };
        let not_there = || not_found("there is no such channel, or the key is another");
        self.channels.take(id, key, direction).ok_or_else(not_there)
    }
}

fn has_bearer(request: &Request<Incoming>, token: &str) -> bool {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    given.is_some_and(|(scheme, given)| {
        // Compared without an early end, so that time tells nothing of the token.
        let differs = given
            .bytes()
            .zip(token.bytes())
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        scheme.eq_ignore_ascii_case("bearer") && given.len() == token.len() && differs == 0
    })
}

async fn accept_subscribers(listener: TcpListener, subscribers: Arc<Subscribers>, auth: Arc<Auth>) {
    let limits = subscribers.limits;
    accept(listener, limits.connections_max, |stream, addr, permit| {
        let subscribers = subscribers.clone();
        let auth = auth.clone();
        async move {
            let permit = Arc::new(permit);
            socket::serve_http(stream, limits.handshake_time_max, |request| {
                answer_subscriber(
                    request,
                    addr,
                    subscribers.clone(),
                    auth.clone(),
                    permit.clone(),
                )
            })
            .await;
        }
    })
    .await;
}

async fn answer_subscriber(
    mut request: Request<Incoming>,
    addr: SocketAddr,
    subscribers: Arc<Subscribers>,
    auth: Arc<Auth>,
    permit: Permit,
) -> HttpResponse {
    let Some(path) = Subscribers::read_path(request.uri().path()) else {
        let message = "subscribers connect to / or to /stream/{stream}/{group}[/{item}]";
        return socket::refuse(&not_found(message));
    };
    // Asked before the auth function is: what cannot be upgraded need not be admitted.
    let (response, websocket) = match socket::upgrade(&mut request, subscribers.limits.connection) {
        Ok(upgraded) => upgraded,
        Err(refused) => return socket::refuse(&refused),
    };
    let asked = AuthRequest {
        headers: request.headers(),
        uri: request.uri(),
        addr: addr.ip(),
    };
    match auth.admit(asked).await {
        Ok(grant) => {
            let admission = Admission {
                path,
                context: grant.context,
                expires_at: grant.expires_at,
            };
            tokio::spawn(async move {
                subscriber::serve(websocket, subscribers, admission).await;
                drop(permit);
            });
            response
        }
        Err(refused) => socket::refuse(&refused),
    }
}

fn not_found(message: &'static str) -> Refused {
    Refused {
        status: StatusCode::NOT_FOUND,
        message,
        retry_after_s: None,
    }
}
