//! The composition: the one place that knows every concrete part, puts them together, and listens.

mod drain;
mod group_store;
mod joining;
mod parts;
mod readings;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::GroupRef;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use drain::Peers;
use parts::{Parts, announce_functions};
use readings::Sources;

use crate::admin;
use crate::cluster::{Cluster, JoinError};
use crate::config::{AdminConfig, Config, StoreConfig};
use crate::door::{accept_subscribers, accept_workers};
use crate::feed::{Follower, Interest};
use crate::redis_client::RedisStartError;
use crate::store::OpenError;

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
    /// Redis cannot be used.
    #[error("{0}")]
    Redis(#[from] RedisStartError),
    /// Other servers on the same Redis cannot be told of this one.
    #[error("{0}")]
    Cluster(#[from] JoinError),
    /// A store that this version does not have.
    #[error(
        "the adapter `{name}` is not built in: use `kv` with `store_method: file_based` or `in_memory`, or `redis`"
    )]
    StoreNotBuiltIn {
        /// Its name in the configuration.
        name: String,
    },
    /// An engine's layout on a Cluster.
    #[error(
        "`layout: compatible` of the adapter `redis` needs one Redis, with or without Sentinel, as iii engines do, and this is a Cluster: use `layout: native`"
    )]
    LayoutOnCluster,
}

/// A server that listens on its ports and is ready to run.
pub struct Server {
    workers_listener: TcpListener,
    subscribers_listener: TcpListener,
    /// `None` where its port was taken and nobody had asked for that port.
    admin_listener: Option<TcpListener>,
    drain_window: Duration,
    parts: Parts,
    /// `None` where the groups are not in Redis.
    cluster: Option<Arc<Cluster>>,
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
        let parts = Parts::new(config).await?;
        // Before anybody is let in: auth functions and guards may be those of other servers.
        let address = workers_listener.local_addr();
        let address = address.map_or_else(|_| config.workers.host.clone(), |it| it.to_string());
        let cluster = joining::join(config, &parts, address).await?;
        Ok(Self {
            workers_listener,
            subscribers_listener,
            admin_listener,
            drain_window: config.drain_window,
            parts,
            cluster,
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
            cluster,
        } = self;
        let Sources {
            lifecycle,
            metrics,
            workers,
            subscribers,
            hub,
            store,
            redis,
            waiting,
            ..
        } = &*parts.sources;
        // What goes on until the end.
        let mut background = JoinSet::new();
        let redis = redis.clone();
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
        if let Some(cluster) = &cluster {
            cluster.leave().await;
        }
        doors.shutdown().await;
        if let Some(triggers) = &parts.stream_triggers {
            triggers.leave(drain::ANSWERS_TIME_MAX).await;
        }
        let peers = Peers {
            subscribers,
            workers,
            waiting,
        };
        drain::drain(peers, drain_window).await;
        if let Some(cluster) = cluster {
            cluster.close().await;
        }
        // The admin listener is the last to end, so that a stop can be watched.
        background.shutdown().await;
        for store in [store, &parts.state_store] {
            store.clone().close().await;
        }
        if let Some(redis) = redis {
            redis.close().await;
        }
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
