//! The way to Redis. Knows no streams.
//!
//! Reading order: [`RedisClient`] takes a call; `calls.rs` sends it, again where that is safe; `node.rs` keeps one server
//! connected; `connection.rs` shares one connection among all calls; `resp.rs` reads what comes. For pub/sub:
//! `subscriptions.rs` knows what is wanted, `subscriber.rs` keeps the connection that hears it.

mod address;
mod backoff;
mod calls;
mod channel;
mod connection;
mod dial;
mod error;
mod node;
mod options;
mod report;
mod resp;
mod script;
mod server_clock;
mod slot;
mod subscriber;
mod subscriptions;

#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use redis::{Cmd, Pipeline, ServerErrorKind, Value};
use tokio::task::JoinHandle;

pub use channel::{Channel, ChannelEvent, Listener};
pub use error::{CallError, RedisStartError};
pub use options::{RedisMode, RedisOptions};
pub use report::{Down, NodeReport, RedisReport};
pub use script::Script;
pub use slot::Slot;

use calls::Limits;
use node::{Link, Node};
use subscriber::Subscriber;
use subscriptions::{Post, Subscriptions};

use crate::metrics::{Metrics, RedisOutcome};

/// Oldest version that has what is used: RESP3, sharded pub/sub, errors of scripts with their code.
const MAJOR_VERSION_MIN: u32 = 7;

/// The way to Redis. Shared by all who use it.
pub struct RedisClient {
    options: RedisOptions,
    node: Arc<Node>,
    post: Arc<Post>,
    subscriptions: Arc<Subscriptions>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    metrics: Arc<Metrics>,
}

impl RedisClient {
    /// Connects. Fails where no server answers within `connect_time_max`, or where it cannot be used.
    pub async fn connect(
        options: RedisOptions,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, RedisStartError> {
        let deadline = Instant::now() + options.connect_time_max;
        let url = options.nodes.first().map_or("", |url| url.as_str());
        let (address, login) = address::read_url(url)?;
        let time_max = options.connect_time_max;
        let node = Node::new(address, login, time_max, metrics.clone());
        let post = Arc::<Post>::default();
        let subscriptions = Arc::new(Subscriptions::new(metrics.clone()));
        let subscriber = Subscriber {
            node: node.clone(),
            post: post.clone(),
            subscriptions: subscriptions.clone(),
            metrics: metrics.clone(),
            connect_time_max: time_max,
        };
        let keeper = tokio::spawn(node.clone().keep());
        let client = Arc::new(Self {
            options,
            node: node.clone(),
            post,
            subscriptions,
            tasks: Mutex::new(vec![keeper]),
            metrics,
        });
        let settled = node.settled(deadline).await;
        if let Err(error) = client.check_start(&settled) {
            client.close().await;
            return Err(error);
        }
        client.tasks.lock().push(tokio::spawn(subscriber.keep()));
        Ok(client)
    }

    fn check_start(&self, settled: &Link) -> Result<(), RedisStartError> {
        let node = self.node.name.clone();
        match settled {
            Link::Up(_) => {}
            Link::Down {
                why,
                is_refused: true,
                ..
            } => {
                let why = why.clone();
                return Err(RedisStartError::Refused { node, why });
            }
            Link::Down { why, .. } => {
                return Err(RedisStartError::Unreachable {
                    node,
                    time_max_ms: server_clock::whole_ms(self.options.connect_time_max),
                    why: why.clone(),
                });
            }
        }
        let facts = self.node.facts();
        let major = facts.version.split('.').next().unwrap_or_default();
        if major.parse().unwrap_or(0) < MAJOR_VERSION_MIN {
            return Err(RedisStartError::TooOld {
                node,
                version: facts.version,
            });
        }
        Ok(())
    }

    /// Sends one command. An error that the server answers is [`CallError::Refused`].
    pub async fn call(&self, slot: Slot, command: Cmd) -> Result<Value, CallError> {
        let limits = Limits::from_now(self.options.wait_max);
        self.counted(self.call_within(slot, &command, limits)).await
    }

    async fn call_within(
        &self,
        slot: Slot,
        command: &Cmd,
        limits: Limits,
    ) -> Result<Value, CallError> {
        let bytes = command.get_packed_command();
        let answers = calls::send(self.node_of(slot), &bytes, 1, limits).await?;
        calls::one(answers)
    }

    /// Sends several commands of one slot together. An error of one command stands in its place as `Value::ServerError`; of a
    /// transaction that was not carried out, it is [`CallError::Refused`].
    pub async fn pipeline(&self, slot: Slot, commands: Pipeline) -> Result<Vec<Value>, CallError> {
        let limits = Limits::from_now(self.options.wait_max);
        self.counted(async {
            let (bytes, replies) = (commands.get_packed_pipeline(), calls::replies(&commands));
            let answers = calls::send(self.node_of(slot), &bytes, replies, limits).await?;
            if commands.is_transaction() {
                calls::transacted(answers)
            } else {
                Ok(answers)
            }
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
        self.counted(async {
            let mut digest = match script.digest() {
                Some(digest) => digest,
                None => self.load(slot, script, limits).await?,
            };
            loop {
                let mut command = redis::cmd("EVALSHA");
                command.arg(&*digest).arg(keys.len()).arg(keys).arg(args);
                match self.call_within(slot, &command, limits).await {
                    Err(CallError::Refused(error)) if is_no_script(&error) => {
                        digest = self.load(slot, script, limits).await?;
                    }
                    done => return done,
                }
            }
        })
        .await
    }

    /// Gives a script to the server of a slot.
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
        self.node_of(slot).now_ms()
    }

    /// The identity of the data at the slot's server (`master_replid`). Another one may have lost or never had what the one
    /// before acknowledged.
    pub fn replication_id(&self, slot: Slot) -> Arc<str> {
        self.node_of(slot).replication_id()
    }

    /// Whether all servers that are needed are connected.
    pub fn is_up(&self) -> bool {
        matches!(self.node.link(), Link::Up(_))
    }

    /// What can be said about Redis right now.
    pub fn report(&self) -> RedisReport {
        let facts = self.node.facts();
        let down = match self.node.link() {
            Link::Up(_) => None,
            Link::Down { since_ms, why, .. } => Some(Down {
                since_ms,
                why: why.to_string(),
            }),
        };
        RedisReport {
            nodes: vec![NodeReport {
                address: self.node.name.to_string(),
                down,
                is_master: facts.is_master,
                replicas: facts.replicas,
                version: facts.version,
            }],
        }
    }

    /// Listens to a channel: at once, also while Redis is away. A channel has one listener; a further one takes its place and
    /// hears `Ready` itself.
    pub fn subscribe(&self, channel: Channel, listener: Arc<dyn Listener>) {
        self.subscriptions.add(channel, listener, &self.post);
    }

    /// Listens no more.
    pub fn unsubscribe(&self, channel: &Channel) {
        self.subscriptions.remove(&channel.name);
    }

    /// Publishes a message; returns how many connections got it that the asked server knows of.
    pub async fn publish(&self, channel: &Channel, payload: &[u8]) -> Result<u64, CallError> {
        let slot = channel
            .slot
            .unwrap_or_else(|| Slot::of(channel.name.as_bytes()));
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&*channel.name).arg(payload);
        let receivers = self.call(slot, publish).await?;
        redis::from_redis_value(receivers).map_err(|error| CallError::Refused(error.into()))
    }

    /// Closes all connections. Calls that wait get to know.
    pub async fn close(&self) {
        self.node.stop();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.abort();
            // An error only says that the task was stopped.
            let _ = task.await;
        }
        self.node.lost("the client is closed".into(), false);
    }

    fn node_of(&self, _slot: Slot) -> &Arc<Node> {
        &self.node
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
