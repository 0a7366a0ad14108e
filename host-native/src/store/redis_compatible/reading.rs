//! Reads items and groups, and looks for groups, which the engine's layout keeps no list of.

use std::sync::Arc;

use iii_stream_core::state::STATE_STREAM;
use iii_stream_core::{GroupKey, GroupRef, Item, is_name};
use redis::{Pipeline, Value};
use tokio::time::Instant;

use super::Shared;
use super::answers::{Pair, bytes, pairs, scanned, unexpected, unread};
use super::deciding::read_value;
use super::hearing::Fence;
use super::keys::{Kept, pattern};
use crate::redis_client::Slot;
use crate::store::{Snapshot, StoreError, StoreErrorCause, StreamGroups};

/// How many keys Redis looks at for one answer, so that it is not held up.
const SCAN_KEYS: usize = 1_000;

/// Items with their ids.
pub(super) type Items = Vec<(Arc<str>, Item)>;

impl Shared {
    pub(super) async fn get(
        &self,
        group: GroupRef<'_>,
        item: &str,
    ) -> Result<Option<Item>, StoreError> {
        let key = self.kept.key(group);
        let mut get = redis::cmd("HGET");
        get.arg(&key).arg(item);
        let answer = self.client.call(Slot::of(key.as_bytes()), get).await;
        let text = bytes(answer.map_err(|error| unread(&error))?)?;
        let value = text.map(|text| read_value(&key, item, &text)).transpose()?;
        Ok(value.map(Item::unversioned))
    }

    pub(super) async fn list(&self, group: GroupRef<'_>) -> Result<Items, StoreError> {
        let key = self.kept.key(group);
        let mut list = redis::cmd("HGETALL");
        list.arg(&key);
        let answer = self.client.call(Slot::of(key.as_bytes()), list).await;
        let pairs = pairs(answer.map_err(|error| unread(&error))?)?;
        Ok(self.items_of(&key, pairs))
    }

    /// The items of a hash, sorted by id. What cannot be read is left out: an engine, or somebody else, has written it, and one
    /// such item must not hide the others.
    fn items_of(&self, key: &str, pairs: Vec<Pair>) -> Items {
        let mut items: Items = Vec::with_capacity(pairs.len());
        for (field, text) in pairs {
            let name = String::from_utf8_lossy(&field);
            match read_value(key, &name, &text) {
                Ok(value) if is_name(&name) => {
                    items.push((name.as_ref().into(), Item::unversioned(value)));
                }
                Ok(_) => self.count_unreadable("the field's name is empty or too long"),
                Err(error) => self.count_unreadable(&error.message),
            }
        }
        items.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        items
    }

    fn count_unreadable(&self, why: &str) {
        self.metrics.redis_items_unreadable.inc();
        let count = self.metrics.redis_items_unreadable.get();
        if count.is_power_of_two() {
            tracing::warn!(count, "an item was left out of a list: {why}");
        }
    }

    /// Reads a group, or one item of it, at a known place among the changes that are heard.
    pub(super) async fn snapshot(
        &self,
        group: GroupRef<'_>,
        item: Option<&str>,
    ) -> Result<Snapshot, StoreError> {
        let key = self.kept.key(group);
        let mut read = redis::pipe();
        match item {
            Some(item) => read.cmd("HGET").arg(&key).arg(item),
            None => read.cmd("HGETALL").arg(&key),
        };
        let slot = Slot::of(key.as_bytes());
        let (fence, answer) = self.fenced(group, slot, read).await?;
        let items = match item {
            None => self.items_of(&key, pairs(answer)?),
            Some(item) => {
                let pair = bytes(answer)?.map(|text| (item.as_bytes().to_vec(), text));
                self.items_of(&key, pair.into_iter().collect())
            }
        };
        Ok(Snapshot {
            epoch: self.hearing.epoch().clone(),
            seq: fence.seq,
            timestamp: fence.timestamp,
            items,
        })
    }

    /// Has something done at a known place among the changes that are heard: in one transaction with a fence. Gives the place
    /// and the first answer. It is done again where the fence gets lost, so doing it twice must do no harm.
    pub(super) async fn fenced(
        &self,
        group: GroupRef<'_>,
        slot: Slot,
        work: Pipeline,
    ) -> Result<(Fence, Value), StoreError> {
        let deadline = Instant::now() + self.time_max();
        loop {
            self.hearing.ready(deadline).await?;
            let fence = self.hearing.fence(group);
            let mut commands = work.clone();
            commands.atomic();
            commands
                .cmd("PUBLISH")
                .arg(&*self.hearing.fences)
                .arg(fence.token);
            let answers = self.client.pipeline(slot, commands).await;
            let answers = answers.map_err(|error| unread(&error))?;
            let answer = answers.into_iter().next();
            let answer = answer.ok_or_else(|| unexpected("EXEC"))?;
            if let Some(place) = self.hearing.place(fence, deadline).await {
                return Ok((place, answer));
            }
            if deadline <= Instant::now() {
                return Err(StoreError::new(
                    StoreErrorCause::Unavailable,
                    "Redis has read the group, and does not tell of changes in time",
                ));
            }
        }
    }

    pub(super) async fn list_groups(&self, stream: &str) -> Result<Vec<Arc<str>>, StoreError> {
        let prefix = self.kept.prefix(stream);
        let keys = self.scan(&prefix).await?;
        let groups = keys.iter().filter_map(|key| Kept::group_of(key, &prefix));
        let mut groups: Vec<Arc<str>> = groups.collect();
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }

    pub(super) async fn list_all(&self) -> Result<Vec<StreamGroups>, StoreError> {
        let keys = self.scan(self.kept.prefix_of_all()).await?;
        let split = |key: &Vec<u8>| self.kept.split(key, STATE_STREAM);
        let mut groups: Vec<GroupKey> = keys.iter().filter_map(split).collect();
        groups.sort_unstable_by(|one, other| {
            (&one.stream, &one.group).cmp(&(&other.stream, &other.group))
        });
        groups.dedup();
        let mut streams: Vec<StreamGroups> = Vec::new();
        for GroupKey { stream, group } in groups {
            match streams.last_mut() {
                Some((last, groups)) if *last == stream => groups.push(group),
                _ => streams.push((stream, vec![group])),
            }
        }
        Ok(streams)
    }

    /// All hashes whose keys begin with `prefix`: looks at every key of the database, step by step.
    async fn scan(&self, prefix: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let pattern = pattern(prefix);
        let slot = Slot::of(prefix.as_bytes());
        let (mut cursor, mut found) = (0_u64, Vec::new());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern);
            scan.arg("COUNT").arg(SCAN_KEYS).arg("TYPE").arg("hash");
            let answer = self.client.call(slot, scan).await;
            let (next, keys) = scanned(answer.map_err(|error| unread(&error))?)?;
            found.extend(keys);
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }
}
