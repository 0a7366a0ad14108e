//! Triggers of the type `stream` where several instances share one truth: of the instances where an equal binding is bound one
//! leads, and calls the function once for each change.
//!
//! Reading order: `pursuit.rs` follows the changes (`course.rs` one group's), `tenure.rs` decides who leads; both are pure, and
//! `model_test/` tries them. `leader.rs` carries it out for one trigger, with what `ground.rs` asks of Redis and `taps.rs` hears
//! from it; `handed.rs` goes with a change through the lanes. `knowledge.rs` is what this instance knows without asking.

mod course;
mod ground;
mod handed;
mod heard;
mod knowledge;
mod leader;
#[cfg(test)]
mod model_test;
mod pursuit;
mod taps;
mod tenure;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use ground::StreamTriggerOptions;
pub use knowledge::TriggerKnowledge;

use ground::Ground;
use leader::{Leader, Shared};
use pursuit::Cursor;
use taps::Taps;
use tenure::LeaseTimes;

use super::Places;
use crate::engine::{BindError, Binding, Lane, LaneContext, StreamFilter, TriggerType};
use crate::redis_client::{ChannelEvent, Listener, RedisClient};
use crate::store::redis::RedisStore;

/// How far a new trigger looks back, so that what is committed right after it was bound is seen although the clock of Redis is
/// only guessed here. What this instance committed before is known, and not seen.
const LOOK_BACK_MS: u64 = 50;

/// How much of a digest is a trigger's identity.
const IDENTITY_BYTES: usize = 16;

/// Bindings of the type `stream` on this instance.
pub struct SharedStreamTriggers {
    lanes: LaneContext,
    shared: Arc<Shared>,
    knowledge: Arc<TriggerKnowledge>,
    places: Arc<Places>,
    tables: Arc<Mutex<Tables>>,
}

#[derive(Default)]
struct Tables {
    leaders: HashMap<Arc<str>, Running>,
    /// Triggers that are being given up; equal ones begin after that.
    ending: HashMap<Arc<str>, JoinHandle<()>>,
    is_leaving: bool,
}

struct Running {
    leader: Arc<Leader>,
    task: JoinHandle<()>,
}

impl SharedStreamTriggers {
    /// No bindings yet. `lanes` is what their lanes share, and its registry's server id is that of this instance.
    pub fn new(
        lanes: LaneContext,
        client: Arc<RedisClient>,
        store: Arc<RedisStore>,
        options: StreamTriggerOptions,
        knowledge: Arc<TriggerKnowledge>,
        places: Arc<Places>,
    ) -> Arc<Self> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let times = LeaseTimes {
            lease_ms: ms(options.lease),
            renew_ms: ms(options.heartbeat),
        };
        let ground = Ground {
            own: lanes.registry.server().clone(),
            client,
            store,
            options,
        };
        let tables = Arc::<Mutex<Tables>>::default();
        let free = Arc::new(FreeListener(tables.clone()));
        ground.client.subscribe(ground.free_channel(), free);
        Arc::new(Self {
            shared: Arc::new(Shared {
                ground,
                taps: Taps::default(),
                metrics: lanes.metrics.clone(),
                times,
                begin: Instant::now(),
            }),
            lanes,
            knowledge,
            places,
            tables,
        })
    }

    /// Hands all triggers over to other instances: takes nothing more, waits until what was called is answered, writes where they
    /// have to go on, and lets the leases go. What is not answered within `time_max` is called again elsewhere.
    pub async fn leave(&self, time_max: Duration) {
        let (leaders, ending) = {
            let mut tables = self.tables.lock();
            tables.is_leaving = true;
            let leaders: Vec<_> = tables.leaders.drain().map(|(_, it)| it).collect();
            (leaders, std::mem::take(&mut tables.ending))
        };
        leaders.iter().for_each(|running| running.leader.leave());
        let deadline = Instant::now() + time_max;
        let tasks = leaders
            .into_iter()
            .map(|Running { leader, mut task }| async move {
                if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                    leader.give_up_now();
                    // The lease is let go in this time, or ends by itself.
                    let _ = tokio::time::timeout(GIVE_UP_TIME_MAX, task).await;
                }
            });
        let ending = join_all(ending.into_values());
        // What takes longer is what waits for Redis.
        let ((), _) = tokio::join!(
            async { drop(join_all(tasks).await) },
            tokio::time::timeout_at(deadline, ending)
        );
        let channel = self.shared.ground.free_channel();
        self.shared.ground.client.unsubscribe(&channel);
    }

    fn go(&self, binding: &Arc<Binding>, forgets: bool) {
        // A config that could be read once can be read again.
        let Ok(filter) = StreamFilter::read(&binding.config) else {
            return;
        };
        self.knowledge.remove(&filter.stream);
        let mut tables = self.tables.lock();
        let identity = identity(binding);
        if let Some(running) = tables.leaders.get(&identity)
            && running.leader.remove(&binding.id, forgets)
            && let Some(running) = tables.leaders.remove(&identity)
        {
            tables.ending.retain(|_, task| !task.is_finished());
            tables.ending.insert(identity, running.task);
        }
    }
}

/// How long letting a lease go may take at a stop.
const GIVE_UP_TIME_MAX: Duration = Duration::from_secs(1);

impl TriggerType for SharedStreamTriggers {
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError> {
        let filter = StreamFilter::read(&binding.config)?;
        let lane = Arc::new(Lane::open(&self.lanes, binding, filter.condition.clone()));
        self.knowledge.add(&filter.stream);
        let mut tables = self.tables.lock();
        if tables.is_leaving {
            // Whoever is bound to a server that stops is bound again elsewhere.
            return Ok(());
        }
        let identity = identity(binding);
        if let Some(running) = tables.leaders.get(&identity) {
            running.leader.add(lane);
            return Ok(());
        }
        // Whatever comes from now on is to be told, also where the time by Redis is only roughly known.
        let redis_ms = self.shared.ground.earliest_redis_ms(&identity);
        let fresh = Cursor {
            since_ms: redis_ms.saturating_sub(LOOK_BACK_MS),
            places: self.knowledge.committed_lately(&filter.stream),
        };
        let leader = Leader::new(&self.shared, identity.clone(), filter, fresh);
        leader.add(lane);
        let before = tables.ending.remove(&identity);
        let running = leader.clone();
        let task = self.lanes.runtime.spawn(async move {
            if let Some(before) = before {
                // An error says that it failed, which ends it as well.
                let _ = before.await;
            }
            running.run().await;
        });
        tables.leaders.insert(identity, Running { leader, task });
        Ok(())
    }

    fn unbind(&self, binding: &Arc<Binding>) {
        self.go(binding, self.places.homes(binding).is_empty());
    }

    fn unbind_for_now(&self, binding: &Arc<Binding>) {
        self.go(binding, false);
    }
}

/// Hears which leases are free, and whether Redis can be heard at all.
struct FreeListener(Arc<Mutex<Tables>>);

impl Listener for FreeListener {
    fn hear(&self, _: &str, event: ChannelEvent) {
        let tables = self.0.lock();
        let leaders = tables.leaders.values().map(|running| &running.leader);
        match event {
            ChannelEvent::Ready => leaders.for_each(|leader| leader.set_cut_off(false)),
            ChannelEvent::Lost => leaders.for_each(|leader| leader.set_cut_off(true)),
            ChannelEvent::Message(message) => {
                let identity = std::str::from_utf8(&message).unwrap_or_default();
                if let Some(running) = tables.leaders.get(identity) {
                    running.leader.may_be_free();
                }
            }
        }
    }
}

/// What equal bindings have in common, on whatever instance.
fn identity(binding: &Binding) -> Arc<str> {
    let mut digest = Sha256::new();
    let parts: [&str; 4] = [
        &binding.trigger_type,
        &binding.function_id,
        &binding.config,
        binding.metadata.as_deref().unwrap_or_default(),
    ];
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    digest.update([u8::from(binding.metadata.is_some())]);
    let digest = digest.finalize();
    let bytes = digest.iter().take(IDENTITY_BYTES);
    let text: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    text.into()
}
