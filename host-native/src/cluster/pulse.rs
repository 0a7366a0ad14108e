//! The heartbeat: tells in Redis that this instance is alive and what it has, learns which others are and what they have, and
//! makes that known here. One task does all of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::calls::Calls;
use super::card::{Card, WorkerCard};
use super::listening::News;
use super::names::Names;
use super::places::Places;
use super::roster::{InstanceId, Roster, Row};
use crate::engine::{Binding, Registry, Triggers};
use crate::metrics::Metrics;
use crate::redis_client::{CallError, RedisClient, Script, Slot};

static BEAT: Script = Script::new(include_str!("beat.lua"));
static FORGET: Script = Script::new(include_str!("forget.lua"));

/// How long changes of what this instance has are gathered before the others are told.
const GATHER_TIME: Duration = Duration::from_millis(20);

/// How long the card of an instance that no longer renews it stays in Redis.
const CARD_LIVES: Duration = Duration::from_secs(600);

/// After an instance has said that it ends, its last answers may still be on their way.
const LAST_ANSWERS_TIME: Duration = Duration::from_millis(500);

/// The trigger types whose bindings must be known wherever something happens. Those of streams have a leader instead.
const SHARED_TYPES: [&str; 3] = ["stream:join", "stream:leave", "state"];

/// What is told of this instance's own workers.
pub type WorkersNow = Arc<dyn Fn() -> Vec<WorkerCard> + Send + Sync>;

/// What the pulse is asked to do.
pub(super) enum Order {
    /// Tell the others that this instance is about to stop.
    Leave(oneshot::Sender<()>),
    /// Take this instance out.
    End(oneshot::Sender<()>),
}

/// See the module.
pub(super) struct Pulse {
    pub(super) own: InstanceId,
    pub(super) address: String,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) heartbeat: Duration,
    pub(super) gone_after: Duration,
    pub(super) client: Arc<RedisClient>,
    pub(super) names: Names,
    pub(super) registry: Arc<Registry>,
    pub(super) triggers: Arc<Triggers>,
    pub(super) workers: WorkersNow,
    pub(super) places: Arc<Places>,
    pub(super) calls: Arc<Calls>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) roster: Roster,
    pub(super) state: PulseState,
}

/// What changes with time.
#[derive(Default)]
pub(super) struct PulseState {
    /// What the others were told last.
    told: Card,
    /// Its version; 0 while nothing was told.
    version: u64,
    is_leaving: bool,
    /// Whether the last heartbeat failed.
    is_failing: bool,
}

/// What wakes the pulse.
pub(super) struct Wakers {
    pub(super) news: mpsc::Receiver<News>,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Of functions, of bindings, of workers.
    pub(super) changes: [watch::Receiver<()>; 3],
}

impl Pulse {
    /// Tells the others of this instance and learns of them, for the first time.
    ///
    /// Errors: [`CallError`], when Redis cannot be asked.
    pub(super) async fn begin(&mut self) -> Result<(), CallError> {
        self.tell().await
    }

    /// Runs until it is told to end.
    pub(super) async fn run(mut self, mut wakers: Wakers) {
        let mut next_beat = Instant::now() + self.heartbeat;
        let mut tell_at: Option<Instant> = None;
        let [functions, bindings, workers] = &mut wakers.changes;
        loop {
            let told = tell_at.unwrap_or(next_beat);
            tokio::select! {
                order = wakers.orders.recv() => match order {
                    Some(Order::Leave(done)) => {
                        self.leave().await;
                        // Whoever waits may have given up.
                        let _ = done.send(());
                    }
                    Some(Order::End(done)) => {
                        self.end().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                Some(news) = wakers.news.recv() => match self.learn(news).await {
                    Ok(()) => {}
                    // The next heartbeat will see it.
                    Err(error) => tracing::debug!(%error, "news of another instance could not be followed up"),
                },
                Ok(()) = functions.changed() => { tell_at.get_or_insert_with(soon); }
                Ok(()) = bindings.changed() => { tell_at.get_or_insert_with(soon); }
                Ok(()) = workers.changed() => { tell_at.get_or_insert_with(soon); }
                () = tokio::time::sleep_until(told), if tell_at.is_some() => {
                    tell_at = match self.tell().await {
                        Ok(()) => None,
                        Err(error) => {
                            self.note(Err(error));
                            Some(Instant::now() + self.heartbeat)
                        }
                    };
                }
                () = tokio::time::sleep_until(next_beat) => {
                    let outcome = self.beat().await;
                    next_beat = Instant::now() + self.until_next(&outcome);
                    if matches!(outcome, Ok(Beat { is_card_lost: true, .. })) {
                        // What the others were told is not there any more.
                        self.state.version += 1;
                        self.state.told = Card::default();
                        tell_at = Some(Instant::now());
                    }
                    self.note(outcome.map(|_| ()));
                }
            }
        }
    }

    /// How long to wait for the next heartbeat: shorter where another instance would be gone before.
    fn until_next(&self, outcome: &Result<Beat, CallError>) -> Duration {
        let Ok(Beat { now_ms, .. }) = outcome else {
            return self.heartbeat;
        };
        let silent_at = self.roster.next_silent_at();
        let left_ms = silent_at.map_or(u64::MAX, |at| at.saturating_sub(*now_ms) + 1);
        self.heartbeat.min(Duration::from_millis(left_ms))
    }

    /// Logs when Redis goes away and when it is back.
    fn note(&mut self, outcome: Result<(), CallError>) {
        match outcome {
            Ok(()) if self.state.is_failing => {
                self.state.is_failing = false;
                tracing::info!("this instance is in touch with the others again");
            }
            Err(error) if !self.state.is_failing => {
                self.state.is_failing = true;
                tracing::warn!(%error, "this instance is out of touch with the others: nobody is taken for gone until it is back");
            }
            _ => {}
        }
    }

    /// Tells the others what this instance has, if that is something else than before, and takes a look at them.
    async fn tell(&mut self) -> Result<(), CallError> {
        let card = Card {
            address: self.address.clone(),
            settings: self.settings.clone(),
            functions: self.registry.list_of_workers(),
            bindings: self.triggers.bindings(),
            workers: (self.workers)(),
        };
        if 0 < self.state.version && card == self.state.told {
            return Ok(());
        }
        let version = self.state.version + 1;
        let (key, text) = (self.names.card(&self.own), card.to_text(version));
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(text).arg("PX").arg(ms(CARD_LIVES));
        self.client.call(Slot::of(key.as_bytes()), set).await?;
        self.state.version = version;
        self.state.told = card;
        self.beat().await?;
        self.publish(&News::Changed(self.own.clone(), version))
            .await
    }

    async fn publish(&self, news: &News) -> Result<(), CallError> {
        let (channel, text) = (self.names.news(), news.to_text());
        let publish = self.client.publish(&channel, text.as_bytes());
        publish.await.map(|_| ())
    }

    /// Shows that this instance is alive, and takes a look at the others.
    async fn beat(&mut self) -> Result<Beat, CallError> {
        let key = self.names.instances();
        let slot = Slot::of(key.as_bytes());
        let says = serde_json::json!({
            "version": self.state.version,
            "leaving": self.state.is_leaving,
            "address": self.address,
        });
        let says = says.to_string();
        let args: [&[u8]; 2] = [self.own.as_bytes(), &says.as_bytes()[1..]];
        let answer = self
            .client
            .script(slot, &BEAT, &[key.as_bytes()], &args)
            .await?;
        let (now_ms, before, rows): (u64, Option<String>, Vec<String>) = read(answer)?;
        self.note_absence(now_ms, before.as_deref());
        let rows: HashMap<InstanceId, String> = rows
            .chunks_exact(2)
            .map(|row| (row[0].as_str().into(), row[1].clone()))
            .collect();
        let readable = rows
            .iter()
            .filter_map(|(id, text)| Some((id.clone(), read_row(text)?)));
        let seen = self.roster.look(now_ms, readable.collect());
        for id in &seen.gone {
            tracing::warn!(instance = %id, silent_ms = ms(self.gone_after), "another instance is gone: it has not shown life");
            self.remove(id);
            self.calls.gone(id);
        }
        for (id, _) in &seen.forgotten {
            if let Some(row) = rows.get(id) {
                let args: [&[u8]; 2] = [id.as_bytes(), row.as_bytes()];
                self.client
                    .script(slot, &FORGET, &[key.as_bytes()], &args)
                    .await?;
            }
        }
        for id in &seen.stale {
            self.read_card(id).await?;
        }
        for id in &seen.leaving {
            self.places.set_leaving(id);
        }
        self.note_count();
        let is_card_lost = !self.renew_card().await?;
        Ok(Beat {
            now_ms,
            is_card_lost,
        })
    }

    /// Keeps the card in Redis. Whether it is there.
    async fn renew_card(&self) -> Result<bool, CallError> {
        if self.state.version == 0 {
            return Ok(true);
        }
        let key = self.names.card(&self.own);
        let mut renew = redis::cmd("PEXPIRE");
        renew.arg(&key).arg(ms(CARD_LIVES));
        let answer = self.client.call(Slot::of(key.as_bytes()), renew).await?;
        read(answer)
    }

    /// Says so when the others must have taken this instance for gone. They learn that it is back as they would of a new one.
    fn note_absence(&self, now_ms: u64, before: Option<&str>) {
        if self.state.version < 2 {
            return;
        }
        let beat_ms = before.and_then(read_row).map_or(0, |row| row.beat_ms);
        if beat_ms + ms(self.gone_after) <= now_ms {
            tracing::warn!(
                "this instance was silent for so long that others may have taken it for gone: calls of its functions were answered invocation_stopped"
            );
        }
    }

    async fn learn(&mut self, news: News) -> Result<(), CallError> {
        match news {
            News::Changed(id, version) if id != self.own => {
                if self.roster.is_stale(&id, version) {
                    self.read_card(&id).await?;
                } else if !self.roster.knows(&id) {
                    self.beat().await?;
                }
            }
            News::Leaving(id) => self.places.set_leaving(&id),
            News::Gone(id) if id != self.own && self.roster.remove(&id) => {
                tracing::info!(instance = %id, "another instance has ended");
                self.remove(&id);
                self.note_count();
                let calls = self.calls.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(LAST_ANSWERS_TIME).await;
                    calls.gone(&id);
                });
            }
            News::Missed => {
                self.beat().await?;
            }
            News::Changed(..) | News::Gone(_) => {}
        }
        Ok(())
    }

    /// Learns what another instance has.
    async fn read_card(&mut self, id: &InstanceId) -> Result<(), CallError> {
        let key = self.names.card(id);
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let answer = self.client.call(Slot::of(key.as_bytes()), get).await?;
        let text: Option<Vec<u8>> = read(answer)?;
        // Redis may have lost it; then the instance writes it again.
        let Some(text) = text else { return Ok(()) };
        let (version, card) = match Card::from_text(&text) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(instance = %id, %error, "what another instance tells of itself cannot be read");
                return Ok(());
            }
        };
        if !self.places.knows(id) {
            tracing::info!(instance = %id, address = card.address, functions = card.functions.len(), "another instance is there");
            for difference in self.state.told.differences(&card) {
                tracing::warn!(instance = %id, address = card.address, "another instance on the same Redis and `key_prefix` has other settings: {difference}; all need the same");
            }
        }
        self.roster.read(id, version);
        let is_shared = |binding: &&Arc<Binding>| SHARED_TYPES.contains(&&*binding.trigger_type);
        let shared = card.bindings.iter().filter(is_shared).cloned().collect();
        self.places.set(id, card);
        if self.roster.is_leaving(id) {
            self.places.set_leaving(id);
        }
        self.triggers.stand_in_for(id, shared);
        self.registry.note_change_elsewhere();
        Ok(())
    }

    /// Forgets what an instance had.
    fn remove(&self, id: &InstanceId) {
        if self.places.remove(id) {
            self.triggers.stand_in_for(id, Vec::new());
            self.registry.note_change_elsewhere();
        }
    }

    fn note_count(&self) {
        self.metrics.cluster_instances.set(self.places.len() + 1);
    }

    async fn leave(&mut self) {
        self.state.is_leaving = true;
        let told = async {
            self.beat().await?;
            self.publish(&News::Leaving(self.own.clone())).await
        };
        if let Err(error) = told.await {
            tracing::warn!(%error, "the other instances could not be told that this one stops");
        }
    }

    async fn end(&mut self) {
        let (instances, card) = (self.names.instances(), self.names.card(&self.own));
        let taken_out = async {
            let mut remove = redis::cmd("HDEL");
            remove.arg(&instances).arg(&*self.own);
            self.client
                .call(Slot::of(instances.as_bytes()), remove)
                .await?;
            self.publish(&News::Gone(self.own.clone())).await?;
            let mut remove = redis::cmd("DEL");
            remove.arg(&card);
            self.client.call(Slot::of(card.as_bytes()), remove).await
        };
        if let Err(error) = taken_out.await {
            tracing::warn!(%error, "this instance could not be taken out: the others will find it silent");
        }
    }
}

/// What a heartbeat showed.
struct Beat {
    now_ms: u64,
    /// Whether Redis has lost what the others were told.
    is_card_lost: bool,
}

/// A row as it is in Redis.
#[derive(Deserialize)]
struct RowText {
    beat_ms: u64,
    version: u64,
    #[serde(default)]
    leaving: bool,
}

/// `None` for the row of a version that this one does not know.
fn read_row(text: &str) -> Option<Row> {
    let row: RowText = serde_json::from_str(text).ok()?;
    Some(Row {
        beat_ms: row.beat_ms,
        version: row.version,
        is_leaving: row.leaving,
    })
}

fn read<T: redis::FromRedisValue>(answer: redis::Value) -> Result<T, CallError> {
    redis::from_redis_value(answer).map_err(|error| CallError::Refused(error.into()))
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn soon() -> Instant {
    Instant::now() + GATHER_TIME
}
