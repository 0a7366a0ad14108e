//! What stream triggers ask of Redis: the lease with its cursor, the index, histories.

use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::{Change, GroupRef};
use redis::{FromRedisValue, Value};

use super::course::Place;
use super::heard::Heard;
use super::pursuit::{Cursor, Delta, Found, From};
use super::tenure::{Answer, Hold};
use crate::redis_client::{Channel, RedisClient, Script, Slot};
use crate::store::StoreError;
use crate::store::redis::RedisStore;

static HOLD: Script = Script::new(include_str!("scripts/hold.lua"));
static RELEASE: Script = Script::new(include_str!("scripts/release.lua"));

/// What places of groups begin with among the fields.
const PLACE_FIELD: char = 'g';

/// How stream triggers are shared.
#[derive(Clone, Debug)]
pub struct StreamTriggerOptions {
    /// Begins the names of all keys and channels. Config: `key_prefix`.
    pub prefix: String,
    /// How often a lease is renewed and its cursor written. Config: `heartbeat_ms`.
    pub heartbeat: Duration,
    /// How long a lease lasts after it was renewed. Config: `instance_gone_ms`.
    pub lease: Duration,
    /// How long a trigger that nobody leads is remembered, so that an equal binding goes on where it stopped.
    pub resume: Duration,
}

/// See the module.
pub(super) struct Ground {
    pub(super) client: Arc<RedisClient>,
    pub(super) store: Arc<RedisStore>,
    pub(super) options: StreamTriggerOptions,
    /// The id of this instance.
    pub(super) own: Arc<str>,
}

impl Ground {
    fn key(&self, identity: &str) -> Vec<u8> {
        format!("{}trigger:{identity}", self.options.prefix).into_bytes()
    }

    /// The channel in which it is told that a lease is free.
    pub(super) fn free_channel(&self) -> Channel {
        Channel {
            name: format!("{}triggers", self.options.prefix).into(),
            slot: None,
        }
    }

    /// The time by Redis, in Unix milliseconds.
    pub(super) fn redis_ms(&self, identity: &str) -> u64 {
        self.client.now_ms(Slot::of(&self.key(identity)))
    }

    /// The same, but surely not later than it is there.
    pub(super) fn earliest_redis_ms(&self, identity: &str) -> u64 {
        self.client.earliest_ms(Slot::of(&self.key(identity)))
    }

    /// Asks for the lease. `None`: no answer, or none that can be understood.
    pub(super) async fn hold(&self, identity: &str, hold: &Hold) -> Option<Answer> {
        let key = self.key(identity);
        let options = &self.options;
        let mut arguments: Vec<Vec<u8>> = vec![
            self.own.as_bytes().to_vec(),
            number(hold.term),
            number(ms(options.lease)),
            number(ms(options.lease + options.resume)),
            number(hold.fresh_ms),
            number(hold.seize_until_ms),
            number(hold.delta.since_ms),
        ];
        push_delta(&mut arguments, &hold.delta);
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let answer = self
            .client
            .script(Slot::of(&key), &HOLD, &[&key], &arguments)
            .await;
        match answer {
            Ok(value) => {
                let answer = read_answer(value);
                if answer.is_none() {
                    tracing::error!(
                        trigger = identity,
                        "what Redis holds of a stream trigger cannot be read"
                    );
                }
                answer
            }
            Err(error) => {
                tracing::debug!(trigger = identity, %error, "the lease of a stream trigger was not renewed");
                None
            }
        }
    }

    /// Lets a lease go, and tells whoever waits for it. Whether that is sure.
    pub(super) async fn release(&self, identity: &str, term: u64, forgets: bool) -> bool {
        let key = self.key(identity);
        let (term, resume) = (number(term), number(ms(self.options.resume)));
        let forgets: &[u8] = if forgets { b"1" } else { b"0" };
        let arguments: [&[u8]; 4] = [self.own.as_bytes(), &term, forgets, &resume];
        let released = self
            .client
            .script(Slot::of(&key), &RELEASE, &[&key], &arguments)
            .await;
        if released.is_ok() {
            // Whoever does not hear it asks when the lease would have ended.
            let _ = self
                .client
                .publish(&self.free_channel(), identity.as_bytes())
                .await;
        }
        released.is_ok()
    }

    /// The groups of a stream that were touched since then.
    pub(super) async fn touched(&self, stream: &str, since_ms: u64) -> Option<Vec<Arc<str>>> {
        let groups = self.store.groups_touched_since(stream, since_ms).await;
        groups.map_err(|error| tell(stream, &error)).ok()
    }

    /// What the history of a group holds.
    pub(super) async fn history(
        &self,
        stream: &str,
        group: &str,
        from: &From,
    ) -> Option<Found<Arc<Heard>>> {
        let group = GroupRef { stream, group };
        let found = match from {
            From::After(seq) => self.after(group, *seq).await,
            From::Since(ms) => self.kept(group, *ms).await,
        };
        found.map_err(|error| tell(stream, &error)).ok()
    }

    async fn after(&self, group: GroupRef<'_>, seq: u64) -> Result<Found<Arc<Heard>>, StoreError> {
        let logged = self.store.changes_after(group, seq).await?;
        match logged.changes {
            Some(changes) => Ok(Found {
                epoch: logged.epoch,
                seq: logged.seq,
                changes: heard(changes),
                is_whole: true,
                first: seq + 1,
            }),
            None => self.kept(group, 0).await,
        }
    }

    /// What there is of what happened since a time.
    async fn kept(&self, group: GroupRef<'_>, ms: u64) -> Result<Found<Arc<Heard>>, StoreError> {
        let kept = self.store.changes_kept_since_ms(group, ms).await?;
        Ok(Found {
            epoch: kept.epoch,
            seq: kept.seq,
            changes: heard(kept.changes),
            is_whole: kept.is_whole,
            first: kept.first,
        })
    }
}

fn heard(changes: Vec<Arc<Change>>) -> Vec<Arc<Heard>> {
    changes.into_iter().map(Heard::new).collect()
}

fn tell(stream: &str, error: &StoreError) {
    tracing::debug!(stream, %error, "a stream trigger could not read what it may have missed; it tries again");
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn field(group: &str) -> Vec<u8> {
    format!("{PLACE_FIELD}{group}").into_bytes()
}

fn push_delta(arguments: &mut Vec<Vec<u8>>, delta: &Delta) {
    arguments.push(number(delta.forgotten.len() as u64));
    arguments.extend(delta.forgotten.iter().map(|group| field(group)));
    for (group, place) in &delta.places {
        arguments.push(field(group));
        arguments.push(format!("{} {}", place.seq, place.epoch).into_bytes());
    }
}

/// Shape: see `scripts/hold.lua`.
fn read_answer(value: Value) -> Option<Answer> {
    let Value::Array(parts) = value else {
        return None;
    };
    let mut parts = parts.into_iter();
    let kind: String = read(parts.next()?)?;
    let mut next_number = || read::<u64>(parts.next()?);
    match kind.as_str() {
        "taken" => Some(Answer::Taken {
            left_ms: next_number()?,
        }),
        "renewed" => Some(Answer::Renewed),
        "recreated" => Some(Answer::Recreated {
            term: next_number()?,
        }),
        "begun" => {
            let (term, redis_ms) = (next_number()?, next_number()?);
            let cursor = match parts.next() {
                Some(fields) => Some(read_cursor(fields)?),
                None => None,
            };
            Some(Answer::Begun {
                term,
                cursor,
                redis_ms,
            })
        }
        _ => None,
    }
}

fn read_cursor(fields: Value) -> Option<Cursor> {
    let fields: Vec<(String, String)> = read(fields)?;
    let mut cursor = Cursor::default();
    for (field, value) in fields {
        if field == "since" {
            cursor.since_ms = value.parse().ok()?;
        } else if let Some(group) = field.strip_prefix(PLACE_FIELD) {
            let (seq, epoch) = value.split_once(' ')?;
            let place = Place {
                epoch: epoch.into(),
                seq: seq.parse().ok()?,
            };
            cursor.places.push((group.into(), place));
        }
    }
    Some(cursor)
}

fn read<T: FromRedisValue>(value: Value) -> Option<T> {
    T::from_redis_value(value).ok()
}
