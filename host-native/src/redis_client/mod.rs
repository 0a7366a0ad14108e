//! The way to Redis. Knows no streams.
//!
//! Reading order: [`RedisClient`] takes a call; `calls.rs` sends it, again where that is safe; `topology.rs` knows the servers
//! and who has which slot; `node.rs` keeps one server connected; `connection.rs` shares one connection among all calls; `resp.rs` reads what comes. For pub/sub:
//! `subscriptions.rs` knows what is wanted, `subscriber.rs` keeps the connection that hears it.

mod address;
mod backoff;
mod calls;
mod channel;
mod cluster_slots;
mod connection;
mod dial;
mod ear;
mod error;
mod node;
mod options;
mod permissions;
mod refusals;
mod report;
mod resp;
mod safety;
mod script;
mod sentinel;
mod server_clock;
mod slot;
mod start;
mod subscriber;
mod subscriptions;
mod topology;
mod work;

#[cfg(test)]
pub(crate) mod test_cluster;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use redis::{Cmd, Pipeline, ServerErrorKind, Value};

pub use address::check_url;
pub use channel::{Channel, ChannelEvent, Listener};
pub use error::{CallError, RedisStartError};
pub use options::{RedisMode, RedisOptions};
pub use permissions::KeyUse;
pub use refusals::is_for_want_of_room;
pub use report::{Down, NodeReport, RedisReport};
pub use script::Script;
pub use slot::Slot;

use calls::Limits;
use refusals::Refusals;
use topology::Topology;
use work::Work;

use crate::clock;
use crate::metrics::{Metrics, RedisOutcome};

/// The way to Redis. Shared by all who use it.
pub struct RedisClient {
    options: RedisOptions,
    topology: Arc<Topology>,
    refusals: Refusals,
    metrics: Arc<Metrics>,
}

impl RedisClient {
    /// Connects. Fails where no server answers within `connect_time_max`, or where it cannot be used.
    pub async fn connect(
        options: RedisOptions,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, RedisStartError> {
        let topology = start::start(&options, metrics.clone()).await?;
        Ok(Arc::new(Self {
            options,
            topology,
            refusals: Refusals::default(),
            metrics,
        }))
    }

    /// Sends one command. An error that the server answers is [`CallError::Refused`].
    pub async fn call(&self, slot: Slot, command: Cmd) -> Result<Value, CallError> {
        let limits = Limits::from_now(self.options.wait_max);
        self.counted(self.call_within(slot, &command, limits)).await
    }

    /// The same for somebody who has waited already: sent until `deadline`, and answered soon after it at the latest.
    pub async fn call_by(
        &self,
        slot: Slot,
        command: Cmd,
        deadline: Instant,
    ) -> Result<Value, CallError> {
        let limits = Limits::by(deadline);
        self.counted(self.call_within(slot, &command, limits)).await
    }

    async fn call_within(
        &self,
        slot: Slot,
        command: &Cmd,
        limits: Limits,
    ) -> Result<Value, CallError> {
        let work = Work::command(command);
        calls::send(&self.topology, slot, work, limits).await?.one()
    }

    /// Sends several commands of one slot together. An error of one command stands in its place as `Value::ServerError`; of a
    /// transaction that was not carried out, it is [`CallError::Refused`].
    pub async fn pipeline(&self, slot: Slot, commands: Pipeline) -> Result<Vec<Value>, CallError> {
        let limits = Limits::from_now(self.options.wait_max);
        self.counted(async {
            let work = Work::pipeline(&commands);
            let done = calls::send(&self.topology, slot, work, limits).await?;
            done.all(commands.is_transaction())
        })
        .await
    }

    /// Runs a script. A server that does not have it gets it first.
    pub async fn script(
        &self,
        slot: Slot,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> Result<Value, CallError> {
        let limits = Limits::from_now(self.options.wait_max);
        self.script_within(slot, script, keys, args, limits).await
    }

    /// The same for somebody who has waited already: sent until `deadline`, and answered soon after it at the latest.
    pub async fn script_by(
        &self,
        slot: Slot,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
        deadline: Instant,
    ) -> Result<Value, CallError> {
        let limits = Limits::by(deadline);
        self.script_within(slot, script, keys, args, limits).await
    }

    async fn script_within(
        &self,
        slot: Slot,
        script: &Script,
        keys: &[&[u8]],
        args: &[&[u8]],
        limits: Limits,
    ) -> Result<Value, CallError> {
        self.counted(async {
            let digest = match script.digest() {
                Some(digest) => digest,
                None => self.load(slot, script, limits).await?,
            };
            let run = async |name: &str, what: &str| {
                let mut command = redis::cmd(name);
                command.arg(what).arg(keys.len()).arg(keys).arg(args);
                self.call_within(slot, &command, limits).await
            };
            match run("EVALSHA", &digest).await {
                // With its text, the script finds the server also while the slot is moving.
                Err(CallError::Refused(error)) if is_no_script(&error) => {
                    run("EVAL", script.text()).await
                }
                done => done,
            }
        })
        .await
    }

    /// Gives a script to a server, which says its digest.
    async fn load(
        &self,
        slot: Slot,
        script: &Script,
        limits: Limits,
    ) -> Result<Arc<str>, CallError> {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(script.text());
        let digest = self.call_within(slot, &load, limits).await?;
        let digest: String =
            redis::from_redis_value(digest).map_err(|error| CallError::Refused(error.into()))?;
        Ok(script.keep_digest(&digest))
    }

    /// Counts how a call ends and how long it takes.
    async fn counted<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let begin = Instant::now();
        let in_flight = InFlight::new(&self.metrics);
        let outcome = call.await;
        drop(in_flight);
        if let Err(error) = &outcome {
            self.refusals.note(error);
        }
        self.metrics
            .redis_call_seconds
            .observe_time(begin.elapsed());
        self.metrics
            .redis_calls
            .of(match &outcome {
                Ok(_) => RedisOutcome::Ok,
                Err(CallError::Refused(_)) => RedisOutcome::Refused,
                Err(CallError::Unavailable { .. }) => RedisOutcome::Unavailable,
                Err(CallError::Unknown { .. }) => RedisOutcome::Unknown,
            })
            .inc();
        outcome
    }

    /// Estimated Unix milliseconds of the clock of the slot's server.
    pub fn now_ms(&self, slot: Slot) -> u64 {
        let owner = self.topology.owner_or_any(slot);
        owner.map_or_else(clock::unix_ms, |owner| owner.node.now_ms())
    }

    /// The same, but surely not later than it is there.
    pub fn earliest_ms(&self, slot: Slot) -> u64 {
        let owner = self.topology.owner_or_any(slot);
        owner.map_or_else(clock::unix_ms, |owner| owner.node.earliest_ms())
    }

    /// The identity of the data at the slot's server (`master_replid`). Another one may have lost or never had what the one
    /// before acknowledged. Empty while it is not connected.
    pub fn replication_id(&self, slot: Slot) -> Arc<str> {
        let owner = self.topology.owner_or_any(slot);
        let is_up = |owner: &Arc<topology::Member>| matches!(owner.node.link(), node::Link::Up(_));
        let owner = owner.filter(is_up);
        owner.map_or_else(|| Arc::from(""), |owner| owner.node.replication_id())
    }

    /// Whether each slot has a server and all servers are connected.
    pub fn is_up(&self) -> bool {
        self.topology.is_whole()
    }

    /// Why a server refused a write a moment ago although it is there: no memory, no disk, too few replicas.
    pub fn refuses_writes(&self) -> Option<Arc<str>> {
        self.refusals.recent()
    }

    /// Whether the servers are a cluster.
    pub fn is_cluster(&self) -> bool {
        self.topology.is_cluster()
    }

    /// What can be said about Redis right now.
    pub fn report(&self) -> RedisReport {
        let members = self.topology.members();
        RedisReport {
            nodes: members.iter().map(|member| member.node.report()).collect(),
        }
    }

    /// Listens to a channel: at once, also while Redis is away. A channel has one listener; a further one takes its place and
    /// hears `Ready` itself.
    pub fn subscribe(&self, channel: Channel, listener: Arc<dyn Listener>) {
        let subscriptions = &self.topology.subscriptions;
        subscriptions.add(channel, listener, |channel| self.topology.post_of(channel));
    }

    /// Listens no more.
    pub fn unsubscribe(&self, channel: &Channel) {
        self.topology.subscriptions.remove(&channel.name);
    }

    /// Publishes a message; returns how many connections got it that the asked server knows of.
    pub async fn publish(&self, channel: &Channel, payload: &[u8]) -> Result<u64, CallError> {
        let command = if self.topology.is_sharded(channel) {
            "SPUBLISH"
        } else {
            "PUBLISH"
        };
        let slot = channel
            .slot
            .unwrap_or_else(|| Slot::of(channel.name.as_bytes()));
        let mut publish = redis::cmd(command);
        publish.arg(&*channel.name).arg(payload);
        let receivers = self.call(slot, publish).await?;
        redis::from_redis_value(receivers).map_err(|error| CallError::Refused(error.into()))
    }

    /// Closes all connections. Calls that wait get to know.
    pub async fn close(&self) {
        self.topology.close();
    }
}

fn is_no_script(error: &redis::RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript)
}

/// A call that is counted as under way until it is dropped.
struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.redis_calls_in_flight.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.redis_calls_in_flight.dec();
    }
}
