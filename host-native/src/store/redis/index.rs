//! Which streams and groups there are: sorted sets of names by when they were last written. A group is in there before its first
//! commit; names of groups that hold nothing are taken out when they are come across and old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use iii_stream_core::GroupKey;
use redis::Value;

use super::answer::{Parts, store_error};
use super::history::scored;
use super::kept::Meta;
use super::lines::Line;
use super::scripts::COMPARE_AND_SCORE;
use super::{INDEX_TOUCH, Shared};
use crate::redis_client::Slot;
use crate::store::{StoreError, StreamGroups};

/// A name that was not touched for so long may be taken out where nothing is behind it.
const STALE_MS: f64 = 600_000.0;

/// Groups that are looked at together.
const LOOK_MAX: usize = 256;

/// Names that Redis gives at a time: it does nothing else meanwhile.
pub(super) const NAMES_AT_ONCE: usize = 1_000;

impl Shared {
    /// Sees to it that a group is in the index.
    pub(super) async fn touch_index(&self, line: &Line) -> Result<(), StoreError> {
        let is_fresh = |touched: Instant| touched.elapsed() < INDEX_TOUCH;
        if line.notes().indexed.is_some_and(is_fresh) {
            return Ok(());
        }
        let (streams, groups) = (self.keys.streams(), self.keys.groups(&line.key.stream));
        let now = Instant::now();
        let touch = |key: Vec<u8>, name: Arc<str>| async move {
            let slot = Slot::of(&key);
            let mut touch = redis::cmd("ZADD");
            touch
                .arg(key)
                .arg("GT")
                .arg(self.client.now_ms(slot))
                .arg(&*name);
            self.ask(slot, touch).await
        };
        tokio::try_join!(
            touch(streams, line.key.stream.clone()),
            touch(groups, line.key.group.clone()),
        )?;
        line.note(|notes| notes.indexed = Some(now));
        Ok(())
    }

    /// The ids of a stream's groups that have items, sorted.
    pub(super) async fn list_groups(&self, stream: &str) -> Result<Vec<Arc<str>>, StoreError> {
        let index = self.keys.groups(stream);
        let mut found = Vec::new();
        for names in self.names_since(&index, 0).await?.chunks(LOOK_MAX) {
            let looks = names.iter().map(|(name, score)| {
                let (index, stream) = (&index, Arc::<str>::from(stream));
                async move {
                    let group = GroupKey {
                        stream,
                        group: name.as_str().into(),
                    };
                    let items = self.items_len(&group).await?;
                    if items == 0 {
                        self.forget_name(index, name, *score).await?;
                    }
                    Ok::<_, StoreError>((0 < items).then_some(group.group))
                }
            });
            found.extend(futures_util::future::try_join_all(looks).await?);
        }
        let mut groups: Vec<_> = found.into_iter().flatten().collect();
        groups.sort_unstable();
        Ok(groups)
    }

    /// The names of all streams that have items, sorted, with their groups.
    pub(super) async fn list_all(&self) -> Result<Vec<StreamGroups>, StoreError> {
        let index = self.keys.streams();
        let mut streams = BTreeMap::new();
        for (name, score) in self.names_since(&index, 0).await? {
            let groups = self.list_groups(&name).await?;
            if groups.is_empty() {
                self.forget_name(&index, &name, score).await?;
            } else {
                streams.insert(Arc::from(name), groups);
            }
        }
        Ok(streams.into_iter().collect())
    }

    /// The names in an index that were written since a time of Redis, in Unix milliseconds, each with when it was.
    ///
    /// They are read in parts, by that time: a name that is written meanwhile moves to where it is still to be read.
    pub(super) async fn names_since(
        &self,
        index: &[u8],
        since_ms: u64,
    ) -> Result<Vec<(String, f64)>, StoreError> {
        let mut names = HashMap::new();
        let (mut from, mut at_once) = (since_ms as f64, NAMES_AT_ONCE);
        loop {
            let mut read = redis::cmd("ZRANGE");
            read.arg(index).arg(from.to_string()).arg("+inf");
            read.arg("BYSCORE").arg("LIMIT").arg(0).arg(at_once);
            read.arg("WITHSCORES");
            let part = scored(self.ask(Slot::of(index), read).await?)?;
            let is_last = part.len() < at_once;
            match part.last() {
                Some((_, last)) if from < *last => (from, at_once) = (*last, NAMES_AT_ONCE),
                // More were written in one millisecond than were asked for.
                _ => at_once *= 2,
            }
            names.extend(part);
            if is_last {
                let mut names: Vec<_> = names.into_iter().collect();
                names.sort_unstable_by(|(_, one), (_, other)| one.total_cmp(other));
                return Ok(names);
            }
        }
    }

    async fn items_len(&self, group: &GroupKey) -> Result<u64, StoreError> {
        let key = self.keys.group_hash(group);
        let mut read = redis::cmd("HGET");
        read.arg(&key).arg("m");
        let answer = self.ask(Slot::of(&key), read).await?;
        match Parts::of(Value::Array(vec![answer]))?.optional_bytes()? {
            Some(meta) => Ok(Meta::read(&meta)?.items),
            None => Ok(0),
        }
    }

    /// Takes a name out if nobody has written there for long.
    async fn forget_name(&self, index: &[u8], name: &str, score: f64) -> Result<(), StoreError> {
        let slot = Slot::of(index);
        if self.client.now_ms(slot) as f64 - score < STALE_MS {
            return Ok(());
        }
        let score = score.to_string();
        let arguments = [name.as_bytes(), score.as_bytes(), b"-"];
        let done = self
            .client
            .script_by(
                slot,
                &COMPARE_AND_SCORE,
                &[index],
                &arguments,
                self.deadline(),
            )
            .await;
        done.map(drop).map_err(|error| store_error(&error))
    }
}
