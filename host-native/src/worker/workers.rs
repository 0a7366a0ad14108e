//! Who is connected to the worker port, and what a connection leaves behind when it ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::profile::Profile;
use crate::clock;
use crate::engine::{
    Call, CallResult, Details, Failure, Function, Notices, Output, OwnerId, Registry, ReplyTo,
    Triggers,
};
use crate::metrics::Metrics;
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
    /// How long a worker may take for a call; after that its caller is answered `invocation_timeout`.
    pub invocation_time_max: Duration,
}

/// A call that a worker executes.
struct Executing {
    reply: ReplyTo,
    since: Instant,
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
    executing: Mutex<Option<HashMap<u64, Executing>>>,
    next_invocation: AtomicU64,
    /// The part that all invocation ids for this worker share.
    invocation_prefix: u64,
    profile: Mutex<Profile>,
    /// Functions that this worker wants and another one has, by whom.
    claims: Mutex<HashMap<OwnerId, IndexMap<Box<str>, Claim>>>,
    connected_at_ms: u64,
    addr: IpAddr,
}

/// A function that a worker wants while its owner is asked for a sign of life.
pub(super) struct Claim {
    pub(super) function: Arc<dyn Function>,
    pub(super) details: Details,
}

/// What is to be done about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// The owner is to be asked.
    First,
    /// The owner is being asked.
    Waits,
    /// This worker has too many claims.
    TooMany,
}

/// Most claims of one worker at one time; one more is refused without asking.
const CLAIMS_MAX: usize = 50_000;

/// A connected worker as it is shown to whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its id.
    pub id: OwnerId,
    /// What it says of itself.
    pub profile: Profile,
    /// When it connected, in Unix milliseconds.
    pub connected_at_ms: u64,
    /// Where it connected from.
    pub addr: IpAddr,
    /// Calls that it executes now.
    pub active_invocations: usize,
}

impl Worker {
    fn new(outbox: Arc<Outbox>, addr: IpAddr) -> Self {
        let (invocation_prefix, _) = Uuid::new_v4().as_u64_pair();
        Self {
            id: Uuid::new_v4().to_string().into(),
            reattach_token: Uuid::new_v4().to_string(),
            outbox,
            calls_in_flight: Arc::default(),
            executing: Mutex::new(Some(HashMap::new())),
            next_invocation: AtomicU64::new(1),
            invocation_prefix,
            profile: Mutex::default(),
            claims: Mutex::default(),
            connected_at_ms: clock::unix_ms(),
            addr,
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
            calls.insert(
                count,
                Executing {
                    reply,
                    since: Instant::now(),
                },
            );
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
        self.executing
            .lock()
            .as_mut()?
            .remove(&count)
            .map(|call| call.reply)
    }

    /// Notes that this worker wants a function that another one has.
    pub(super) fn claim(&self, owner: &OwnerId, id: &str, claim: Claim) -> Claimed {
        let mut claims = self.claims.lock();
        if CLAIMS_MAX <= claims.values().map(IndexMap::len).sum() {
            return Claimed::TooMany;
        }
        match claims.get_mut(owner) {
            Some(wanted) => {
                wanted.insert(id.into(), claim);
                Claimed::Waits
            }
            None => {
                claims.insert(owner.clone(), IndexMap::from([(id.into(), claim)]));
                Claimed::First
            }
        }
    }

    /// Takes a claim back.
    pub(super) fn withdraw(&self, id: &str) {
        for wanted in self.claims.lock().values_mut() {
            wanted.swap_remove(id);
        }
    }

    /// Everything that this worker wants of another one.
    pub(super) fn take_claims(&self, owner: &OwnerId) -> IndexMap<Box<str>, Claim> {
        self.claims.lock().remove(owner).unwrap_or_default()
    }

    fn info(&self) -> WorkerInfo {
        WorkerInfo {
            id: self.id.clone(),
            profile: self.profile.lock().clone(),
            connected_at_ms: self.connected_at_ms,
            addr: self.addr,
            active_invocations: self.executing.lock().as_ref().map_or(0, HashMap::len),
        }
    }

    /// How many calls this worker executes that somebody waits for.
    fn executing_len(&self) -> usize {
        let executing = self.executing.lock();
        executing.as_ref().map_or(0, |calls| {
            calls.values().filter(|call| call.reply.is_wanted()).count()
        })
    }

    /// Forgets calls whose callers no longer wait, and answers those that take too long. How many those were.
    pub(super) fn sweep(&self, invocation_time_max: Duration) -> usize {
        let overdue: Vec<Executing> = match self.executing.lock().as_mut() {
            None => return 0,
            Some(calls) => {
                calls.retain(|_, call| call.reply.is_wanted());
                calls
                    .extract_if(|_, call| invocation_time_max <= call.since.elapsed())
                    .map(|(_, call)| call)
                    .collect()
            }
        };
        let count = overdue.len();
        // Not under the lock: an answer may go to this worker itself.
        for call in overdue {
            let seconds = invocation_time_max.as_secs_f64();
            call.reply.fail(
                "invocation_timeout",
                format!("the worker has not answered within {seconds} s"),
            );
        }
        count
    }
}

/// All connected workers.
pub struct Workers {
    registry: Arc<Registry>,
    triggers: Arc<Triggers>,
    /// The bounds of this port.
    pub limits: WorkerLimits,
    connected: Mutex<HashMap<OwnerId, Arc<Worker>>>,
    /// The trigger type `engine::workers-available`.
    availability: Arc<Notices>,
    changes: watch::Sender<()>,
    pub(super) metrics: Arc<Metrics>,
}

/// How long the owner of a function has to show life when another worker wants the function.
const SIGN_OF_LIFE_TIME_MAX: Duration = Duration::from_secs(2);

/// What is told of workers. Source: worker protocol, section 11.
#[derive(Clone, Copy, Debug)]
enum Event {
    Connected,
    Described,
    Disconnected,
}

impl Workers {
    /// No workers yet.
    pub fn new(
        registry: Arc<Registry>,
        triggers: Arc<Triggers>,
        availability: Arc<Notices>,
        limits: WorkerLimits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            registry,
            triggers,
            limits,
            connected: Mutex::default(),
            availability,
            changes: watch::Sender::new(()),
            metrics,
        }
    }

    /// Tells of each worker that came, described itself or went; several in quick succession may be told as one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(super) fn triggers(&self) -> &Arc<Triggers> {
        &self.triggers
    }

    pub(super) fn connect(&self, addr: IpAddr, outbox: Arc<Outbox>) -> Arc<Worker> {
        let worker = Arc::new(Worker::new(outbox, addr));
        self.connected
            .lock()
            .insert(worker.id.clone(), worker.clone());
        self.tell(Event::Connected, &worker.id);
        worker
    }

    /// Takes what a worker says of itself. Shape of the answer: `{"success":bool}`.
    ///
    /// Errors: `deserialization_error`.
    pub fn describe(&self, call: &Call<'_>) -> CallResult {
        let profile = Profile::read(call.data).map_err(|error| {
            Failure::new(
                "deserialization_error",
                &format!("{}: {error}", call.function_id),
            )
        })?;
        let worker = call.caller.and_then(|id| self.find(id));
        if let Some(worker) = &worker {
            *worker.profile.lock() = profile;
            self.tell(Event::Described, &worker.id);
        }
        Ok(Output::Json(format!(
            r#"{{"success":{}}}"#,
            worker.is_some()
        )))
    }

    fn tell(&self, event: Event, worker_id: &str) {
        self.changes.send_replace(());
        let event = match event {
            Event::Connected => "worker_connected",
            Event::Described => "worker_metadata_updated",
            Event::Disconnected => "worker_disconnected",
        };
        self.availability
            .tell(|| format!(r#"{{"event":"{event}","worker_id":"{worker_id}"}}"#));
    }

    fn find(&self, id: &str) -> Option<Arc<Worker>> {
        self.connected.lock().get(id).cloned()
    }

    pub(super) fn is_connected(&self, id: &str) -> bool {
        self.connected.lock().contains_key(id)
    }

    /// Whether the owner of something shows life. The server always does; a worker that does not is disconnected.
    pub(super) async fn is_alive(&self, owner: &OwnerId) -> bool {
        let Some(worker) = self.find(owner) else {
            return owner == self.registry.server();
        };
        if worker.outbox.shows_life(SIGN_OF_LIFE_TIME_MAX).await {
            return true;
        }
        self.disconnect(&worker);
        worker.outbox.close(CloseCode::Replaced);
        false
    }

    /// Sends a frame to a worker, if it is connected.
    pub(super) fn send_to(&self, id: &str, frame: String) {
        if let Some(worker) = self.find(id) {
            worker.outbox.push(frame.into());
        }
    }

    /// All connected workers, the first ones first.
    pub fn list(&self) -> Vec<WorkerInfo> {
        let mut workers: Vec<_> = self
            .connected
            .lock()
            .values()
            .map(|worker| worker.info())
            .collect();
        workers.sort_by(|a, b| (a.connected_at_ms, &a.id).cmp(&(b.connected_at_ms, &b.id)));
        workers
    }

    /// Ends the connection `previous` if the token proves that it was the same worker's.
    pub(super) fn reattach(&self, worker: &Worker, previous: &str, token: Option<&str>) {
        let old = self.find(previous);
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
        if self.connected.lock().remove(&worker.id).is_some() {
            self.tell(Event::Disconnected, &worker.id);
        }
        // Triggers first: none may call a function that is already gone, as if it were done with that.
        self.triggers.remove_owner(&worker.id);
        self.registry.remove_owner(&worker.id);
        let executing = worker.executing.lock().take();
        // Dropping a promise answers it; not under the lock, as the answer may go to this worker itself.
        drop(executing);
    }

    /// Closes all connections.
    pub fn close_all(&self) {
        for worker in self.connected.lock().values() {
            worker.outbox.close(CloseCode::Restart);
        }
    }

    /// How many calls workers execute that somebody waits for.
    pub fn executing_len(&self) -> usize {
        let workers: Vec<_> = self.connected.lock().values().cloned().collect();
        workers.iter().map(|worker| worker.executing_len()).sum()
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
