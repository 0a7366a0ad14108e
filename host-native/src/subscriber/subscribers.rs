//! What all subscriber connections share, and who is connected.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use iii_stream_core::Grants;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::address::{self, PathTarget, Query};
use crate::engine::{JoinTriggers, LeaveTriggers};
use crate::hub::{ConnectionId, Hub};
use crate::metrics::Metrics;
use crate::socket::{CloseCode, Limits, Outbox};
use crate::stream::{CustomStorage, StreamFunctions};

/// The bounds of the subscriber port.
#[derive(Clone, Copy, Debug)]
pub struct SubscriberLimits {
    /// The bounds of each connection.
    pub connection: Limits,
    /// How long a peer may take for its upgrade request.
    pub handshake_time_max: Duration,
    /// Connections at one time.
    pub connections_max: usize,
    /// Connections of one address at one time.
    pub connections_per_address_max: usize,
    /// Messages of one connection in one second; more closes it with 4029.
    pub messages_per_second_max: usize,
    /// Calls of one connection that are not answered yet; one more is answered `too_many_calls`.
    pub calls_in_flight_max: usize,
    /// Subscriptions of one connection; a join beyond it is answered `unauthorized`.
    pub subscriptions_max: usize,
}

/// With what a connection was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// What its path subscribes to at once.
    pub path: Option<PathTarget>,
    /// What its query says of how it wants to be spoken to.
    pub query: Query,
    /// What the auth function gave, as JSON text.
    pub context: Option<Arc<str>>,
    /// When it must end.
    pub expires_at: Option<Instant>,
    /// What it may do.
    pub grants: Arc<Grants>,
}

/// Everything that subscriber connections share.
pub struct Subscribers {
    pub(super) hub: Arc<Hub>,
    pub(super) streams: Arc<CustomStorage>,
    pub(super) functions: Arc<StreamFunctions>,
    pub(super) joins: Arc<JoinTriggers>,
    pub(super) leaves: Arc<LeaveTriggers>,
    pub(super) metrics: Arc<Metrics>,
    /// The bounds of this port.
    pub limits: SubscriberLimits,
    next_connection: AtomicU64,
    connected: Mutex<HashMap<ConnectionId, Arc<Outbox>>>,
}

impl Subscribers {
    /// No connections yet.
    pub fn new(
        hub: Arc<Hub>,
        streams: Arc<CustomStorage>,
        functions: Arc<StreamFunctions>,
        joins: Arc<JoinTriggers>,
        leaves: Arc<LeaveTriggers>,
        metrics: Arc<Metrics>,
        limits: SubscriberLimits,
    ) -> Self {
        let next_connection = AtomicU64::new(1);
        Self {
            hub,
            streams,
            functions,
            joins,
            leaves,
            metrics,
            limits,
            next_connection,
            connected: Mutex::default(),
        }
    }

    /// What a request path subscribes to; the outer `None` is a path that there is not.
    pub fn read_path(path: &str) -> Option<Option<PathTarget>> {
        address::read_path(path)
    }

    /// What a request's query says.
    ///
    /// Errors: what is wrong with it, in words.
    pub fn read_query(query: &str, is_http: bool) -> Result<Query, &'static str> {
        address::read_query(query, is_http)
    }

    pub(super) fn connect(&self, outbox: &Arc<Outbox>) -> ConnectionId {
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        self.connected.lock().insert(id, outbox.clone());
        id
    }

    pub(super) fn disconnect(&self, id: ConnectionId) {
        self.connected.lock().remove(&id);
    }

    /// What waits to be sent on each connection, which is also the way to close it.
    pub fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.connected.lock().values().cloned().collect()
    }

    /// How many bytes wait to be sent, on all connections together.
    pub fn queue_bytes(&self) -> usize {
        self.outboxes().iter().map(|outbox| outbox.bytes()).sum()
    }

    /// Closes all connections.
    pub fn close_all(&self) {
        for outbox in self.connected.lock().values() {
            outbox.close(CloseCode::GoingAway);
        }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connected.lock().len()
    }

    /// Whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
