//! Many instances as one server: they know each other by heartbeats in Redis, tell each other what their workers have
//! registered, and call each other's functions. Knows no sockets; only
//! `triggers` knows the store.
//!
//! Reading order: `pulse.rs` tells and learns; `roster.rs` decides who is there; `card.rs` is what an instance tells;
//! `places.rs` is what all others have; `calls` asks them and answers them, over `redis_wire.rs`; `triggers` decides who of
//! them calls for a stream trigger.

mod calls;
mod card;
mod listening;
mod names;
mod places;
mod pulse;
mod redis_wire;
mod roster;
#[cfg(test)]
mod tests;
pub mod triggers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use calls::CallBounds;
pub use card::{Card, WorkerCard};
pub use places::Places;
pub use pulse::WorkersNow;
pub use roster::InstanceId;

use calls::{Calls, LOOK_INTERVAL};
use listening::{LetterListener, NewsListener};
use names::Names;
use pulse::{Order, Pulse, PulseState, Wakers};
use redis_wire::RedisWire;
use roster::Roster;

use crate::engine::{Registry, Triggers};
use crate::metrics::Metrics;
use crate::redis_client::{CallError, RedisClient};

/// How long a stop waits until others know, and until the last answers are sent.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// How this instance is one of many.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Begins the names of all keys and channels. Config: `key_prefix`.
    pub prefix: String,
    /// Where workers of this instance connect, for people.
    pub address: String,
    /// What all instances should have alike, by its key in the configuration: the others are told.
    pub settings: BTreeMap<String, String>,
    /// How often an instance shows that it is alive. Config: `heartbeat_ms`.
    pub heartbeat: Duration,
    /// An instance that was silent for so long is gone. Config: `instance_gone_ms`; at least three heartbeats.
    pub gone_after: Duration,
    /// How long channels may take to be listened to at the start. Config: `connect_timeout_ms`.
    pub ready_time_max: Duration,
    /// The bounds of calls between instances.
    pub calls: CallBounds,
}

/// What of this instance the others are told, and what they are called with.
pub struct Own {
    /// Its functions. Its server id is the instance's id.
    pub registry: Arc<Registry>,
    /// Its bindings.
    pub triggers: Arc<Triggers>,
    /// Its workers.
    pub workers: WorkersNow,
    /// Tells when they change.
    pub worker_changes: watch::Receiver<()>,
}

/// Why this instance cannot be one of many.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Redis does not do what is needed.
    #[error("this instance cannot make itself known to others: {0}")]
    Redis(#[from] CallError),
    /// Channels are not listened to in time.
    #[error(
        "Redis did not confirm a subscription of this instance's channels within {time_max_ms} ms: the user of `redis_url` needs SUBSCRIBE (on a Cluster SSUBSCRIBE, too) and the channels `{prefix}*` (ACL SETUSER USER &{prefix}* +@pubsub)"
    )]
    NotListening {
        /// How long was waited.
        time_max_ms: u128,
        /// What channels begin with.
        prefix: String,
    },
}

/// This instance among others.
pub struct Cluster {
    own: InstanceId,
    names: Names,
    client: Arc<RedisClient>,
    calls: Arc<Calls>,
    places: Arc<Places>,
    orders: mpsc::Sender<Order>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Cluster {
    /// Makes this instance one of many. When this is done, it knows what the others have and is known to them; what they have is
    /// in `places`, and `own.registry` calls it.
    ///
    /// Errors: [`JoinError`].
    pub async fn join(
        client: Arc<RedisClient>,
        options: ClusterOptions,
        own: Own,
        places: Arc<Places>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, JoinError> {
        let id = own.registry.server().clone();
        let names = Names::new(&options.prefix);
        let wire = Arc::new(RedisWire {
            client: client.clone(),
            names: names.clone(),
        });
        let calls = Calls::new(
            id.clone(),
            options.calls,
            &own.registry,
            places.clone(),
            wire,
            metrics.clone(),
        );
        let (letters, inbox, letters_ready) = LetterListener::new();
        let (news_listener, news, news_ready) = NewsListener::new();
        client.subscribe(names.letters(&id), letters);
        client.subscribe(names.news(), news_listener);
        for ready in [letters_ready, news_ready] {
            if !is_ready(ready, options.ready_time_max).await {
                return Err(JoinError::NotListening {
                    time_max_ms: options.ready_time_max.as_millis(),
                    prefix: options.prefix,
                });
            }
        }
        let changes = [
            own.registry.changes(),
            own.triggers.changes(),
            own.worker_changes,
        ];
        own.registry.look_elsewhere(calls.clone());
        let (heartbeat_ms, gone_ms) = (ms(options.heartbeat), ms(options.gone_after));
        let mut pulse = Pulse {
            own: id.clone(),
            address: options.address,
            settings: options.settings,
            heartbeat: options.heartbeat,
            gone_after: options.gone_after,
            client: client.clone(),
            names: names.clone(),
            registry: own.registry,
            triggers: own.triggers,
            workers: own.workers,
            places: places.clone(),
            calls: calls.clone(),
            metrics,
            roster: Roster::new(id.clone(), heartbeat_ms, gone_ms),
            state: PulseState::default(),
        };
        let reading = tokio::spawn(inbox.read(calls.clone()));
        if let Err(error) = pulse.begin().await {
            reading.abort();
            return Err(error.into());
        }
        let (orders, received) = mpsc::channel(4);
        let wakers = Wakers {
            news,
            orders: received,
            changes,
        };
        let tasks = vec![
            reading,
            tokio::spawn(pulse.run(wakers)),
            tokio::spawn(look(calls.clone())),
        ];
        Ok(Arc::new(Self {
            own: id,
            names,
            client,
            calls,
            places,
            orders,
            tasks: Mutex::new(tasks),
        }))
    }

    /// The id of this instance.
    pub fn own(&self) -> &InstanceId {
        &self.own
    }

    /// What the other instances have.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Begins to leave: others call functions of this instance only where no other one has them. To be told before anything else
    /// of a stop.
    pub async fn leave(&self) {
        self.order(Order::Leave).await;
    }

    /// Ends: sends the last answers, and takes this instance out.
    pub async fn close(&self) {
        self.calls.flush(END_TIME_MAX).await;
        self.order(Order::End).await;
        self.client.unsubscribe(&self.names.letters(&self.own));
        self.client.unsubscribe(&self.names.news());
        let tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.iter().for_each(JoinHandle::abort);
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, wait) = oneshot::channel();
        let carried_out = async {
            if self.orders.send(order(done)).await.is_ok() {
                // It has ended if it does not answer.
                let _ = wait.await;
            }
        };
        if tokio::time::timeout(END_TIME_MAX, carried_out)
            .await
            .is_err()
        {
            tracing::warn!("the other instances may not know yet that this one stops");
        }
    }
}

async fn look(calls: Arc<Calls>) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    loop {
        interval.tick().await;
        calls.look();
    }
}

/// Whether it gets ready in time.
async fn is_ready(mut ready: watch::Receiver<bool>, time_max: Duration) -> bool {
    let is_ready = ready.wait_for(|is_ready| *is_ready);
    matches!(tokio::time::timeout(time_max, is_ready).await, Ok(Ok(_)))
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
