//! The last changes of a group as Redis keeps them, read as changes.

use std::sync::Arc;

use hashbrown::HashMap;
use iii_stream_core::relay::{read_body, read_body_without_value};
use iii_stream_core::{Change, GroupRef, Json, Kind, apply_ops_json};
use redis::Value;

use super::answer::{Parts, score_of, store_error};
use super::deciding::DuplicateOf;
use super::kept::{Meta, damaged};
use super::keys::GroupKeys;
use super::lines::Line;
use super::reading::{Look, Reading};
use super::{INDEX_TOUCH, RedisStore, Shared};
use crate::store::StoreError;

/// Entries that are read at a time where it is not known how many are needed.
const ENTRIES_AT_ONCE: usize = 100;

/// Where the history of a group is, with changes out of it.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Names the group's history.
    pub epoch: Arc<str>,
    /// The last change of the group.
    pub seq: u64,
    /// The changes that were asked for, in order; `None`: the history does not reach back so far.
    pub changes: Option<Vec<Arc<Change>>>,
}

/// What a history still holds of what happened since a time.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Names the group's history; empty for a group that is not there.
    pub epoch: Arc<str>,
    /// The last change of the group.
    pub seq: u64,
    /// The changes, in order.
    pub changes: Vec<Arc<Change>>,
    /// Whether the history reaches back to that time.
    pub is_whole: bool,
    /// Where the history of this name begins. Changes before it are of one that Redis had before it was restarted.
    pub first: u64,
}

/// One entry of a history.
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) timestamp: u64,
    pub(super) base: Option<u64>,
    /// The batch that it was committed with, a colon, and its place in there.
    pub(super) batch: String,
    body: Option<Vec<u8>>,
    /// The change that has the value which this one lacks, and what stands around the value in the body.
    without_value: Option<(u64, Vec<u8>, Vec<u8>)>,
}

impl Entry {
    pub(super) fn read(entry: Value) -> Result<Self, StoreError> {
        let mut entry = Parts::of(entry)?;
        let seq = entry.text()?;
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| damaged("an entry of a history"))
        };
        let seq = number(seq.split('-').next().unwrap_or_default())?;
        let mut read = Self {
            seq,
            timestamp: 0,
            base: None,
            batch: String::new(),
            body: None,
            without_value: None,
        };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut fields = entry.parts()?;
        while 0 < fields.len() {
            match fields.text()?.as_str() {
                "h" => {
                    let about = fields.text()?;
                    let mut about = about.split(' ');
                    let mut next = || about.next().ok_or_else(|| damaged("an entry of a history"));
                    read.timestamp = number(next()?)?;
                    read.base = match next()? {
                        "-" => None,
                        base => Some(number(base)?),
                    };
                    read.batch = next()?.to_owned();
                }
                "d" => read.body = Some(fields.bytes()?),
                "f" => {
                    let valued = number(&fields.text()?)?;
                    read.without_value = Some((valued, Vec::new(), Vec::new()));
                }
                "b" => before = fields.bytes()?,
                "a" => after = fields.bytes()?,
                _ => drop(fields.bytes()?),
            }
        }
        if let Some(parts) = &mut read.without_value {
            (parts.1, parts.2) = (before, after);
        }
        Ok(read)
    }

    pub(super) fn change(&self) -> Result<Arc<Change>, StoreError> {
        let (seq, timestamp, base) = (self.seq, self.timestamp, self.base);
        let change = match &self.without_value {
            Some((_, before, after)) => {
                read_body_without_value(before, after, seq, timestamp, base)
            }
            None => {
                let body = self.body.as_deref().unwrap_or_default();
                read_body(body, seq, timestamp, base)
            }
        };
        change
            .map(Arc::new)
            .map_err(|_| damaged("a change in a history"))
    }
}

/// The changes of an array of entries, in its order. Values are missing where operations lead to them.
pub(super) fn changes_of(entries: Parts) -> Result<Vec<Arc<Change>>, StoreError> {
    Ok(changes_with_origin(entries)?.0)
}

/// The same, with the first change that must be read too where all values are needed.
pub(super) fn changes_with_origin(
    mut entries: Parts,
) -> Result<(Vec<Arc<Change>>, Option<u64>), StoreError> {
    let mut changes = Vec::with_capacity(entries.len());
    let mut origin: Option<u64> = None;
    while let Some(entry) = entries.next() {
        let entry = Entry::read(entry)?;
        if let Some((valued, ..)) = entry.without_value {
            origin = Some(origin.map_or(valued, |origin| origin.min(valued)));
        }
        changes.push(entry.change()?);
    }
    Ok((changes, origin))
}

/// Fills in values that operations lead to, as far as the values before are known.
pub(super) fn fill_values(changes: &mut [Arc<Change>]) -> Result<(), StoreError> {
    let mut values: HashMap<Arc<str>, (u64, Json)> = HashMap::new();
    for change in changes {
        let Some(item) = change.item.clone() else {
            continue;
        };
        if let (Kind::Update, None, Some(ops)) = (&change.kind, &change.value, &change.ops)
            && let Some((seq, value)) = values.get(&item)
            && change.base == Some(*seq)
        {
            let applied = apply_ops_json(Some(value.as_str()), ops.as_str());
            let value = applied.map(|applied| Json::from_text(&applied.value));
            let Ok(Ok(value)) = value else {
                return Err(damaged("a change in a history"));
            };
            Arc::make_mut(change).value = Some(value);
        }
        match (&change.kind, &change.value) {
            (Kind::Create | Kind::Update, Some(value)) => {
                values.insert(item, (change.seq, value.clone()));
            }
            (Kind::Event { .. }, _) => {}
            _ => drop(values.remove(&item)),
        }
    }
    Ok(())
}

/// Whether a change has a value that is to be told and is not known.
pub(super) fn lacks_value(change: &Change) -> bool {
    change.value.is_none() && !matches!(change.kind, Kind::Event { .. })
}

impl Shared {
    /// The sequence of the last change up to `seq` of an item that is gone.
    pub(super) async fn last_change_of(
        &self,
        line: &Line,
        of: &DuplicateOf,
        seq: u64,
    ) -> Result<Option<u64>, StoreError> {
        let Some(item) = of.item.as_ref().filter(|_| self.options.keeps_history) else {
            return Ok(None);
        };
        let keys = &line.keys;
        let mut before = format!("{seq}-0");
        loop {
            let mut read = redis::cmd("XREVRANGE");
            read.arg(&*keys.history).arg(&before).arg("-");
            read.arg("COUNT").arg(ENTRIES_AT_ONCE);
            let changes = changes_of(Parts::of(self.ask(keys.slot, read).await?)?)?;
            let Some(oldest) = changes.last() else {
                return Ok(None);
            };
            before = format!("({}-0", oldest.seq);
            let found = changes.iter().find(|change| {
                change.item.as_deref() == Some(&**item)
                    && (of.counts_events || !matches!(change.kind, Kind::Event { .. }))
            });
            if let Some(found) = found {
                return Ok(Some(found.seq));
            }
        }
    }

    /// Where the history of a group is, with all changes after a sequence if they and their values are known.
    pub(super) async fn logged(
        &self,
        group: GroupRef<'_>,
        after_seq: u64,
    ) -> Result<Logged, StoreError> {
        let look = Look {
            changes_after: Some(after_seq),
            needs_values: true,
            ..Look::of(Reading::Nothing)
        };
        let looked = self.look(&self.keys.group(group), look).await?;
        let is_whole =
            |changes: &Vec<Arc<Change>>| !changes.iter().any(|change| lacks_value(change));
        Ok(Logged {
            epoch: looked.meta.epoch,
            seq: looked.meta.seq,
            changes: looked.changes.filter(is_whole),
        })
    }

    async fn changes_kept(&self, keys: &GroupKeys, ms: u64) -> Result<Kept, StoreError> {
        let mut commands = redis::Pipeline::with_capacity(2);
        commands.atomic();
        commands.cmd("HGET").arg(&*keys.group).arg("m");
        commands.cmd("XRANGE").arg(&*keys.history).arg("-").arg("+");
        let answers = self.client.pipeline(keys.slot, commands).await;
        let mut answers = Parts::of(Value::Array(answers.map_err(|error| store_error(&error))?))?;
        let Some(meta) = answers.optional_bytes()? else {
            return Ok(Kept {
                epoch: "".into(),
                seq: 0,
                changes: Vec::new(),
                is_whole: true,
                first: 1,
            });
        };
        let meta = Meta::read(&meta)?;
        let mut changes = changes_of(answers.parts()?)?;
        // Timestamps may run ahead of the clock, but none is behind it.
        let reaches = meta.first <= 1 || changes.first().is_some_and(|first| first.timestamp < ms);
        fill_values(&mut changes)?;
        changes.retain(|change| ms <= change.timestamp);
        let len = changes.len();
        changes.retain(|change| !lacks_value(change));
        let reaches = reaches && changes.len() == len;
        let is_quiet = meta.event_ms < ms;
        Ok(Kept {
            epoch: meta.epoch,
            seq: meta.seq,
            changes,
            is_whole: reaches || is_quiet,
            first: meta.first,
        })
    }
}

impl RedisStore {
    /// The changes of a group after a sequence. It makes no difference to the group, but that it is made where it is missing.
    pub async fn changes_after(
        &self,
        group: GroupRef<'_>,
        after_seq: u64,
    ) -> Result<Logged, StoreError> {
        self.shared.logged(group, after_seq).await
    }

    /// The changes of a group since a time by the clock of Redis, and perhaps some before: timestamps may run ahead of it. A
    /// group that is not there has none, and an empty epoch.
    pub async fn changes_since_ms(
        &self,
        group: GroupRef<'_>,
        redis_ms: u64,
    ) -> Result<Logged, StoreError> {
        let kept = self.changes_kept_since_ms(group, redis_ms).await?;
        Ok(Logged {
            epoch: kept.epoch,
            seq: kept.seq,
            changes: kept.is_whole.then_some(kept.changes),
        })
    }

    /// The same where what is left is wanted also if it is not all.
    pub async fn changes_kept_since_ms(
        &self,
        group: GroupRef<'_>,
        redis_ms: u64,
    ) -> Result<Kept, StoreError> {
        let keys = self.shared.keys.group(group);
        self.shared.changes_kept(&keys, redis_ms).await
    }

    /// The groups of a stream that may have been written since a time by the clock of Redis.
    pub async fn groups_touched_since(
        &self,
        stream: &str,
        redis_ms: u64,
    ) -> Result<Vec<Arc<str>>, StoreError> {
        let shared = &self.shared;
        let key = shared.keys.groups(stream);
        // Whoever writes a group says so only so often; and clocks of two servers are not quite the same.
        let slack = 2 * INDEX_TOUCH.as_millis() as u64;
        let names = shared.names_since(&key, redis_ms.saturating_sub(slack));
        let groups = names.await?.into_iter();
        Ok(groups.map(|(group, _)| group.into()).collect())
    }
}

/// Members of a sorted set with their scores. RESP3 gives pairs, RESP2 a flat list.
pub(super) fn scored(value: Value) -> Result<Vec<(String, f64)>, StoreError> {
    let mut parts = Parts::of(value)?;
    let mut scored = Vec::with_capacity(parts.len());
    while let Some(part) = parts.next() {
        match part {
            Value::Array(pair) => {
                let mut pair = Parts::of(Value::Array(pair))?;
                let member = pair.text()?;
                scored.push((member, score_of(&pair.next().unwrap_or(Value::Nil))?));
            }
            member => {
                let member = super::answer::optional_bytes_of(member)?.unwrap_or_default();
                let member = String::from_utf8(member).map_err(|_| damaged("an index"))?;
                scored.push((member, score_of(&parts.next().unwrap_or(Value::Nil))?));
            }
        }
    }
    Ok(scored)
}
