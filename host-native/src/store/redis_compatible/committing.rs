//! Carries out a batch: reads what it is about, decides, and has Redis write and tell it in one step if nothing has changed
//! meanwhile; else decides again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::event::trigger_input;
use iii_stream_core::{Change, Command, Committed, Draft, GroupKey, Json, Reply};
use redis::Value;
use tokio::time::Instant;

use super::Shared;
use super::answers::{integer, refused_by_redis, text, texts, unexpected, unread};
use super::deciding::{Decisions, Known, decide_all, items_of};
use super::frame::EVENTS;
use super::keys::Kept;
use super::queue::{Announcing, Waiting};
use crate::redis_client::{CallError, Script, Slot};
use crate::store::{StoreError, StoreErrorCause};

static COMMIT: Script = Script::new(include_str!("commit.lua"));

/// How often a batch is decided, before its callers are told that others are always faster.
const ATTEMPTS_MAX: u32 = 100;

/// The longest pause before another attempt.
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// A change, with the value before it where there was one.
type Told = (Arc<Change>, Option<Json>);

/// What came of an attempt to write.
enum Written {
    Done,
    /// Others were faster.
    Changed(Known),
}

impl Shared {
    /// Carries out commands of one group, one after another, and tells their callers.
    pub(super) async fn commit(&self, group: &GroupKey, batch: Vec<Waiting>) {
        let deadline = Instant::now() + self.time_max();
        let (commands, callers): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.command, (waiting.done, waiting.share)))
            .unzip();
        match self.commit_by(group, &commands, deadline).await {
            Ok(outcomes) => {
                for ((done, _share), outcome) in callers.into_iter().zip(outcomes) {
                    done(outcome);
                }
            }
            Err(error) => {
                for (done, _share) in callers {
                    done(Err(error.clone()));
                }
            }
        }
    }

    async fn commit_by(
        &self,
        group: &GroupKey,
        commands: &[Command],
        deadline: Instant,
    ) -> Result<Vec<Result<Committed, StoreError>>, StoreError> {
        let key = self.kept.key(group.as_ref());
        let slot = Slot::of(key.as_bytes());
        let items = items_of(commands);
        let mut known = None;
        for attempt in 0..ATTEMPTS_MAX {
            if 0 < attempt && deadline <= Instant::now() {
                break;
            }
            let known_now = match known.take() {
                Some(known) => known,
                None => self.read_fields(slot, &key, &items).await?,
            };
            let decisions = decide_all(&key, &items, known_now, commands, &self.limits);
            if !decisions.do_something() {
                return Ok(self.finish(group, decisions, Vec::new()));
            }
            let changes = self.stamp(group, slot, &decisions);
            match self.write(group, slot, &key, &decisions, &changes).await? {
                Written::Done => return Ok(self.finish(group, decisions, changes)),
                Written::Changed(now) => known = Some(now),
            }
            tokio::time::sleep(pause(attempt)).await;
        }
        Err(StoreError::new(
            StoreErrorCause::Contended,
            "others wrote the same items again and again before this command could: nothing was done",
        ))
    }

    /// The texts of the items that a batch is about, at one moment.
    async fn read_fields(
        &self,
        slot: Slot,
        key: &str,
        items: &[Arc<str>],
    ) -> Result<Known, StoreError> {
        if items.is_empty() {
            return Ok(Known {
                items: 0,
                texts: Vec::new(),
            });
        }
        let mut ask = redis::pipe();
        ask.cmd("HLEN").arg(key);
        let fields = ask.cmd("HMGET").arg(key);
        items.iter().for_each(|item| {
            fields.arg(&**item);
        });
        let answers = self.client.pipeline(slot, ask).await;
        let answers: [Value; 2] = answers
            .map_err(|error| unread(&error))?
            .try_into()
            .map_err(|_| unexpected("HMGET"))?;
        let [count, texts_now] = answers;
        Ok(Known {
            items: integer(count)?,
            texts: texts(texts_now)?,
        })
    }

    /// The changes of a batch, with the timestamps that they are told with.
    fn stamp(&self, group: &GroupKey, slot: Slot, decisions: &Decisions) -> Vec<Change> {
        let items = decisions.drafts().map(|draft| draft.item.as_deref());
        let now_ms = self.client.now_ms(slot);
        let timestamps = self.hearing.plan(group, items, now_ms);
        let drafts = decisions.drafts().cloned();
        drafts
            .zip(timestamps)
            .map(|(draft, timestamp)| change_of(draft, timestamp))
            .collect()
    }

    async fn write(
        &self,
        group: &GroupKey,
        slot: Slot,
        key: &str,
        decisions: &Decisions,
        changes: &[Change],
    ) -> Result<Written, StoreError> {
        let frames = self.frames(group, changes);
        let deadline_ms = self.client.now_ms(slot) + self.time_max().as_millis() as u64;
        let deadline_ms = deadline_ms.to_string();
        let count = decisions.fields.len().to_string();
        let mut args: Vec<&[u8]> =
            vec![deadline_ms.as_bytes(), EVENTS.as_bytes(), count.as_bytes()];
        for field in &decisions.fields {
            args.push(field.name.as_bytes());
            args.push(if field.before.is_some() { b"1" } else { b"0" });
            args.push(field.before.as_deref().unwrap_or_default());
            let (verb, text) = match field.write() {
                None => ("", ""),
                Some(None) => ("del", ""),
                Some(Some(text)) => ("set", text),
            };
            args.extend([verb.as_bytes(), text.as_bytes()]);
        }
        args.extend(frames.iter().map(String::as_bytes));
        let keys = [key.as_bytes()];
        let answer = self.client.script(slot, &COMMIT, &keys, &args).await;
        let Value::Array(parts) = answer.map_err(|error| unwritten(&error))? else {
            return Err(unexpected("the commit script"));
        };
        let mut parts = parts.into_iter();
        let outcome = parts.next().map(text).transpose()?.unwrap_or_default();
        match (&*outcome, parts.next(), parts.next()) {
            ("done", ..) => Ok(Written::Done),
            ("late", ..) => Err(StoreError::new(
                StoreErrorCause::Unavailable,
                "Redis took the command only after its time was over (wait_max_ms): nothing was done",
            )),
            ("changed", Some(items), Some(texts_now)) => Ok(Written::Changed(Known {
                items: integer(items)?,
                texts: texts(texts_now)?,
            })),
            _ => Err(unexpected("the commit script")),
        }
    }

    /// What is published of changes; nobody listens to those of the state.
    fn frames(&self, group: &GroupKey, changes: &[Change]) -> Vec<String> {
        match self.kept {
            Kept::State => Vec::new(),
            Kept::Streams => changes
                .iter()
                .filter_map(|change| trigger_input(group.as_ref(), change))
                .collect(),
        }
    }

    /// Hands what was written to this instance's triggers, as an engine does, and says what the callers are told.
    fn finish(
        &self,
        group: &GroupKey,
        decisions: Decisions,
        changes: Vec<Change>,
    ) -> Vec<Result<Committed, StoreError>> {
        let mut changes = changes.into_iter();
        let outcomes = decisions.commands.into_iter().map(|decided| {
            let (reply, draft) = decided?;
            let change = draft.and_then(|_| changes.next()).map(Arc::new);
            if let Some(change) = &change {
                self.tell((change.clone(), old_of(&reply)), group);
            }
            Ok(Committed {
                reply,
                change,
                step: None,
            })
        });
        outcomes.collect()
    }

    fn tell(&self, (change, old): Told, group: &GroupKey) {
        self.triggers.publish(group, change, old.as_ref());
    }

    /// Tells of a change of an item that is kept elsewhere. Its sequence is known once it is heard.
    pub(super) async fn announce(&self, group: &GroupKey, announcing: Announcing) {
        let Announcing { draft, done } = announcing;
        let slot = Slot::of(self.kept.key(group.as_ref()).as_bytes());
        let items = [draft.item.as_deref()];
        let timestamps = self
            .hearing
            .plan(group, items.into_iter(), self.client.now_ms(slot));
        let timestamp = timestamps.first().copied().unwrap_or_default();
        let mut change = change_of(draft, timestamp);
        let mut tell = redis::pipe();
        for frame in self.frames(group, std::slice::from_ref(&change)) {
            tell.cmd("PUBLISH").arg(EVENTS).arg(frame);
        }
        let told = self.fenced(group.as_ref(), slot, tell).await;
        done(told.map(|(fence, _)| {
            change.seq = fence.seq;
            let change = Arc::new(change);
            self.tell((change.clone(), None), group);
            change
        }));
    }
}

fn old_of(reply: &Reply) -> Option<Json> {
    reply.outcome.old().cloned()
}

fn change_of(draft: Draft, timestamp: u64) -> Change {
    let Draft {
        item, kind, value, ..
    } = draft;
    Change {
        // It gets its place where it is heard.
        seq: 0,
        timestamp,
        item,
        kind,
        value,
        ops: None,
        base: None,
        mutation: None,
    }
}

/// Why a script that writes has no answer.
fn unwritten(error: &CallError) -> StoreError {
    match error {
        CallError::Unavailable { .. } => {
            StoreError::new(StoreErrorCause::Unavailable, error.to_string())
        }
        CallError::Unknown { .. } => StoreError::new(StoreErrorCause::Unknown, error.to_string()),
        CallError::Refused(error) => refused_by_redis(error),
    }
}

/// Grows with the attempts, and differs among instances that want the same.
fn pause(attempt: u32) -> Duration {
    let longest = Duration::from_millis(1 << attempt.min(16)).min(PAUSE_MAX);
    // Each state has keys of its own: random enough.
    let random = RandomState::new().hash_one(attempt) as u32;
    longest.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
