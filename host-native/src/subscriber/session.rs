//! One subscriber connection: admission, joins and leaves in order, and its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper_tungstenite::HyperWebsocket;
use iii_stream_core::GroupKey;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::protocol::{self, ClientMessage, Names, PathTarget};
use crate::clock;
use crate::hub::{ConnectionId, Hub, Joined, Subscribing};
use crate::socket::{CloseCode, Connection, Incoming, Limits, Outbox};
use crate::store::{Snapshot, Store, StoreError};

/// The bounds of the subscriber port.
#[derive(Clone, Copy, Debug)]
pub struct SubscriberLimits {
    /// The bounds of each connection.
    pub connection: Limits,
    /// How long a peer may take for its upgrade request.
    pub handshake_time_max: Duration,
    /// Connections at one time.
    pub connections_max: usize,
    /// Subscriptions of one connection; a join beyond it is answered `unauthorized`.
    pub subscriptions_max: usize,
    /// Bytes waiting to be sent to one connection; beyond it the connection is closed with 4008.
    pub queue_bytes_max: usize,
}

/// Everything that subscriber connections share.
pub struct Subscribers {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    /// The bounds of this port.
    pub limits: SubscriberLimits,
    next_connection: AtomicU64,
    connected: AtomicUsize,
    outboxes: Mutex<HashMap<ConnectionId, Arc<Outbox>>>,
}

/// With what a connection was let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// What its path subscribes to at once.
    pub path: Option<PathTarget>,
    /// When it must end.
    pub expires_at: Option<Instant>,
}

impl Subscribers {
    /// No connections yet.
    pub fn new(hub: Arc<Hub>, store: Arc<dyn Store>, limits: SubscriberLimits) -> Self {
        Self {
            hub,
            store,
            limits,
            next_connection: AtomicU64::new(1),
            connected: AtomicUsize::new(0),
            outboxes: Mutex::default(),
        }
    }

    /// What a request path subscribes to; the outer `None` is a path that there is not.
    pub fn read_path(path: &str) -> Option<Option<PathTarget>> {
        protocol::read_path(path)
    }

    /// Closes all connections.
    pub fn close_all(&self) {
        for outbox in self.outboxes.lock().values() {
            outbox.close(CloseCode::GoingAway);
        }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connected.load(Ordering::Acquire)
    }

    /// Whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Serves one connection until it ends.
pub async fn serve(socket: HyperWebsocket, subscribers: Arc<Subscribers>, admission: Admission) {
    let socket = match socket.await {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(%error, "subscriber went away during its upgrade");
            return;
        }
    };
    let limits = subscribers.limits;
    let outbox = Arc::new(Outbox::new(limits.queue_bytes_max));
    let id = subscribers.next_connection.fetch_add(1, Ordering::Relaxed);
    subscribers.connected.fetch_add(1, Ordering::AcqRel);
    subscribers.outboxes.lock().insert(id, outbox.clone());
    let mut connection = Connection::new(socket, limits.connection);
    let mut session = Session {
        id,
        subscribers: &subscribers,
        outbox: &outbox,
        joined: HashMap::new(),
    };
    if let Some(path) = admission.path {
        let names = Names {
            subscription_id: Uuid::new_v4().to_string().into(),
            stream: path.stream.into(),
            group: path.group.into(),
            item: path.item.map(Into::into),
        };
        session.join(&names).await;
    }
    let expiry = async {
        match admission.expires_at {
            Some(expires_at) => tokio::time::sleep_until(expires_at).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(expiry);
    let mut has_expired = false;
    let end = loop {
        tokio::select! {
            incoming = connection.next(&outbox) => match incoming {
                Ok(Incoming::Text(text)) => session.receive(text.as_str()).await,
                Ok(Incoming::Binary(bytes)) => match str::from_utf8(&bytes) {
                    Ok(text) => session.receive(text).await,
                    Err(_) => tracing::debug!(connection = id, "binary message is no JSON, ignored"),
                },
                Err(end) => break end,
            },
            () = &mut expiry, if !has_expired => {
                has_expired = true;
                outbox.close(CloseCode::AuthExpired);
            }
        }
    };
    session.end();
    subscribers.outboxes.lock().remove(&id);
    subscribers.connected.fetch_sub(1, Ordering::AcqRel);
    tracing::debug!(connection = id, ?end, "subscriber disconnected");
}

struct Session<'a> {
    id: ConnectionId,
    subscribers: &'a Subscribers,
    outbox: &'a Arc<Outbox>,
    /// Groups by subscription id.
    joined: HashMap<Arc<str>, GroupKey>,
}

impl Session<'_> {
    async fn receive(&mut self, text: &str) {
        match protocol::decode(text) {
            Some(ClientMessage::Join(names)) => self.join(&names).await,
            Some(ClientMessage::Leave(names)) => self.leave(&names),
            None if text.trim_ascii().is_empty() => {}
            None => tracing::debug!(
                connection = self.id,
                "message is no join and no leave, ignored"
            ),
        }
    }

    async fn join(&mut self, names: &Names<'_>) {
        let group = GroupKey {
            stream: names.stream.as_ref().into(),
            group: names.group.as_ref().into(),
        };
        let join = Subscribing {
            subscription_id: names.subscription_id.as_ref().into(),
            group,
            item: names.item.as_deref().map(Into::into),
        };
        let limit = self.subscribers.limits.subscriptions_max;
        if limit <= self.joined.len() && !self.joined.contains_key(&join.subscription_id) {
            tracing::warn!(
                connection = self.id,
                limit,
                "join refused: too many subscriptions"
            );
            self.refuse(&join);
            return;
        }
        // The same id again replaces the earlier subscription.
        if let Some(group) = self.joined.remove(&join.subscription_id)
            && group != join.group
        {
            self.subscribers
                .hub
                .leave(group.as_ref(), self.id, &join.subscription_id);
        }
        if self.activate(&join).await {
            self.joined.insert(join.subscription_id, join.group);
        }
    }

    /// Makes a subscription live. Whether it is.
    async fn activate(&self, join: &Subscribing) -> bool {
        let hub = &self.subscribers.hub;
        hub.begin_join(&join.group, self.id, self.outbox);
        loop {
            let snapshot = match self.snapshot(join).await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    tracing::error!(stream = %join.group.stream, group = %join.group.group, %error, "join failed");
                    hub.abandon_join(join.group.as_ref(), self.id);
                    // Without a snapshot there is nothing true to show; the client connects again.
                    self.outbox.close(CloseCode::SlowConsumer);
                    return false;
                }
            };
            match hub.finish_join(self.id, join, &snapshot) {
                Joined::Live => return true,
                Joined::SnapshotTooOld => {}
                Joined::Gone => return false,
            }
        }
    }

    async fn snapshot(&self, join: &Subscribing) -> Result<Snapshot, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |snapshot| {
            // The session may be gone.
            let _ = sender.send(snapshot);
        });
        let now_ms = clock::unix_ms();
        self.subscribers
            .store
            .snapshot(join.group.as_ref(), join.item.as_deref(), now_ms, done);
        let dropped = |_| StoreError {
            message: "the store dropped the request".into(),
        };
        receiver.await.map_err(dropped)?
    }

    fn refuse(&self, join: &Subscribing) {
        let frame = iii_stream_core::event::unauthorized_frame(
            join.group.as_ref(),
            join.item.as_deref(),
            clock::unix_ms(),
        );
        self.outbox.push(frame.into());
    }

    /// Ends a subscription that exists; the message's other names do not count.
    fn leave(&mut self, names: &Names<'_>) {
        if let Some((id, group)) = self.joined.remove_entry(names.subscription_id.as_ref()) {
            self.subscribers.hub.leave(group.as_ref(), self.id, &id);
        }
    }

    fn end(&mut self) {
        for (_, group) in self.joined.drain() {
            self.subscribers.hub.disconnect(group.as_ref(), self.id);
        }
    }
}
