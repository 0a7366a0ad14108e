//! Who is connected to the worker port, and what a connection leaves behind when it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::engine::{OwnerId, Registry, ReplyTo, Triggers};
use crate::socket::{CloseCode, Limits, Outbox};

/// The bounds of the worker port.
#[derive(Clone, Copy, Debug)]
pub struct WorkerLimits {
    /// The bounds of each connection.
    pub connection: Limits,
    /// How long a peer may take for its upgrade request.
    pub handshake_time_max: Duration,
    /// Connections at one time.
    pub connections_max: usize,
    /// Calls of one connection that are not answered yet; one more is answered `too_many_calls`.
    pub calls_in_flight_max: usize,
    /// Bytes waiting to be sent to one connection; beyond it the connection is closed with 4008.
    pub queue_bytes_max: usize,
}

/// One connected worker.
pub(super) struct Worker {
    /// The id that the worker was told.
    pub(super) id: OwnerId,
    pub(super) reattach_token: String,
    pub(super) outbox: Arc<Outbox>,
    /// Calls that this worker has made and that are not answered yet.
    pub(super) calls_in_flight: Arc<AtomicUsize>,
    /// Calls that this worker executes, by the number in their invocation id.
    executing: Mutex<Option<HashMap<u64, ReplyTo>>>,
    next_invocation: AtomicU64,
    /// The part that all invocation ids for this worker share.
    invocation_prefix: u64,
}

impl Worker {
    fn new(limits: &WorkerLimits) -> Self {
        let (invocation_prefix, _) = Uuid::new_v4().as_u64_pair();
        Self {
            id: Uuid::new_v4().to_string().into(),
            reattach_token: Uuid::new_v4().to_string(),
            outbox: Arc::new(Outbox::new(limits.queue_bytes_max)),
            calls_in_flight: Arc::default(),
            executing: Mutex::new(Some(HashMap::new())),
            next_invocation: AtomicU64::new(1),
            invocation_prefix,
        }
    }

    /// Notes that a call is on its way to this worker and makes its id. Gives the reply back when the worker is gone.
    ///
    /// The id is a version 4 UUID, because the published Rust clients read no other; its lower half counts.
    pub(super) fn begin(&self, reply: ReplyTo) -> Result<Uuid, ReplyTo> {
        /// The variant bits of a UUID, which the count must leave alone.
        const VARIANT: u64 = 0x8000_0000_0000_0000;
        let count = self.next_invocation.fetch_add(1, Ordering::Relaxed);
        let mut executing = self.executing.lock();
        let Some(calls) = executing.as_mut() else {
            return Err(reply);
        };
        // A call that nobody waits for is not kept: its answer would go nowhere.
        if reply.is_wanted() {
            calls.insert(count, reply);
        }
        Ok(Uuid::from_u64_pair(self.invocation_prefix, VARIANT | count))
    }

    /// Takes the call that an answer belongs to. `None` for ids that this worker was not asked, or has answered.
    pub(super) fn finish(&self, invocation_id: &str) -> Option<ReplyTo> {
        let (prefix, low) = Uuid::try_parse(invocation_id).ok()?.as_u64_pair();
        if prefix != self.invocation_prefix {
            return None;
        }
        let count = low & (u64::MAX >> 2);
        self.executing.lock().as_mut()?.remove(&count)
    }

    /// Forgets calls whose callers no longer wait.
    pub(super) fn forget_abandoned(&self) {
        if let Some(calls) = self.executing.lock().as_mut() {
            calls.retain(|_, reply| reply.is_wanted());
        }
    }
}

/// All connected workers.
pub struct Workers {
    registry: Arc<Registry>,
    triggers: Arc<Triggers>,
    /// The bounds of this port.
    pub limits: WorkerLimits,
    connected: Mutex<HashMap<OwnerId, Arc<Worker>>>,
}

impl Workers {
    /// No workers yet.
    pub fn new(registry: Arc<Registry>, triggers: Arc<Triggers>, limits: WorkerLimits) -> Self {
        Self {
            registry,
            triggers,
            limits,
            connected: Mutex::default(),
        }
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(super) fn triggers(&self) -> &Arc<Triggers> {
        &self.triggers
    }

    pub(super) fn connect(&self) -> Arc<Worker> {
        let worker = Arc::new(Worker::new(&self.limits));
        self.connected
            .lock()
            .insert(worker.id.clone(), worker.clone());
        worker
    }

    /// Ends the connection `previous` if the token proves that it was the same worker's.
    pub(super) fn reattach(&self, worker: &Worker, previous: &str, token: Option<&str>) {
        let old = self.connected.lock().get(previous).cloned();
        if let Some(old) =
            old.filter(|old| token == Some(&old.reattach_token) && old.id != worker.id)
        {
            self.disconnect(&old);
            old.outbox.close(CloseCode::Replaced);
        }
    }

    /// Takes everything away that a connection has registered, and answers the calls it was executing with
    /// `invocation_stopped`. May be called twice.
    pub(super) fn disconnect(&self, worker: &Worker) {
        self.connected.lock().remove(&worker.id);
        self.registry.remove_owner(&worker.id);
        self.triggers.remove_owner(&worker.id);
        let executing = worker.executing.lock().take();
        // Dropping a promise answers it; not under the lock, as the answer may go to this worker itself.
        drop(executing);
    }

    /// Closes all connections.
    pub fn close_all(&self) {
        for worker in self.connected.lock().values() {
            worker.outbox.close(CloseCode::GoingAway);
        }
    }

    /// How many workers are connected.
    pub fn len(&self) -> usize {
        self.connected.lock().len()
    }

    /// Whether no worker is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
