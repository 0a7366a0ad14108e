//! Items that go by themselves. One sorted set says when the next item of each group goes; whichever instance claims a group that is
//! due deletes its items by ordinary commits, and writes down when the next one goes.
//!
//! A score with a half is one of a group that seemed to have no such item any more: it is taken out only when that is still so
//! after every commit that was on its way is over. Whoever sets a time to live changes the score before, so that nobody takes the
//! group out meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use iii_stream_core::relay::read_group;

use super::Shared;
use super::answer::store_error;
use super::history::scored;
use super::lines::Line;
use super::scripts::{COMPARE_AND_SCORE, DUE_NOTE};
use super::work::{Pending, Task};
use crate::redis_client::Slot;
use crate::store::StoreError;

/// How often an instance asks what is due, at least.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a group belongs to whoever claimed it.
const CLAIM_MS: u64 = 2_000;

/// Groups that are claimed at a time.
const CLAIMS_MAX: usize = 64;

/// Items of a group that are deleted before others get their turn.
const EXPIRE_MAX: usize = 256;

/// How long it counts that a group was noted.
const NOTED: Duration = Duration::from_secs(1);

/// How long beyond twice the longest wait a group without such items stays, in milliseconds.
const GRACE_MS: u64 = 10_000;

impl Shared {
    /// Sees to it that a group is looked at when an item goes that is written now.
    pub(super) async fn note_due(&self, line: &Line, ttl_ms: u64) -> Result<(), StoreError> {
        let key = self.keys.due();
        let slot = Slot::of(&key);
        let due_ms = self.client.now_ms(slot) + ttl_ms;
        let is_noted = line
            .notes()
            .due
            .is_some_and(|(noted, noted_ms)| noted.elapsed() < NOTED && noted_ms <= due_ms);
        if !is_noted {
            let now = Instant::now();
            let (name, due) = (line.keys.name.as_bytes(), due_ms.to_string());
            let noted = self
                .client
                .script_by(
                    slot,
                    &DUE_NOTE,
                    &[&key],
                    &[name, due.as_bytes()],
                    self.deadline(),
                )
                .await;
            noted.map_err(|error| store_error(&error))?;
            line.note(|notes| notes.due = Some((now, due_ms)));
        }
        self.next_due.lock().note(due_ms);
        self.due_changed.notify_one();
        Ok(())
    }

    /// Deletes items whose time has come, until the store is dropped.
    pub(super) async fn run_expiry(self: Arc<Self>) {
        loop {
            let wait = self.until_due();
            tokio::select! {
                () = tokio::time::sleep(wait) => {
                    // Redis that is away is told of by the calls of others.
                    let _ = self.expire_due().await;
                }
                () = self.due_changed.notified() => {}
            }
        }
    }

    fn until_due(&self) -> Duration {
        let now_ms = self.client.now_ms(Slot::of(&self.keys.due()));
        let next = self.next_due.lock().at_ms;
        next.map_or(ASK_INTERVAL, |next_ms| {
            Duration::from_millis(next_ms.saturating_sub(now_ms)).min(ASK_INTERVAL)
        })
    }

    async fn expire_due(self: &Arc<Self>) -> Result<(), StoreError> {
        let key = self.keys.due();
        let slot = Slot::of(&key);
        self.next_due.lock().at_ms = None;
        let now_ms = self.client.now_ms(slot);
        let mut read = redis::cmd("ZRANGE");
        read.arg(&key).arg(0).arg(CLAIMS_MAX - 1).arg("WITHSCORES");
        let groups = scored(self.ask(slot, read).await?)?;
        let (due, later): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|(_, score)| *score <= now_ms as f64);
        if let Some((_, next)) = later.first() {
            // Scores are whole milliseconds, but for a half.
            self.next_due.lock().note(next.ceil() as u64);
        }
        let claims = due
            .iter()
            .map(|(name, score)| self.expire_group(&key, name, *score, now_ms));
        for claimed in futures_util::future::join_all(claims).await {
            claimed?;
        }
        Ok(())
    }

    async fn expire_group(
        self: &Arc<Self>,
        due: &[u8],
        name: &str,
        score: f64,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let claim = (now_ms + CLAIM_MS) as f64;
        if !self.rescore(due, name, score, Some(claim)).await? {
            return Ok(());
        }
        let Some(group) = read_group(name) else {
            self.rescore(due, name, claim, None).await?;
            return Ok(());
        };
        let keys = self.keys.group(group.as_ref());
        let mut read = redis::cmd("ZRANGE");
        read.arg(&*keys.expiries).arg("-inf");
        read.arg(self.client.now_ms(keys.slot)).arg("BYSCORE");
        read.arg("LIMIT").arg(0).arg(EXPIRE_MAX);
        let mut items = super::answer::Parts::of(self.ask(keys.slot, read).await?)?;
        while 0 < items.len() {
            let item = Arc::from(items.text()?);
            self.submit(group.as_ref(), Pending::new(Task::Expire { item }));
        }
        self.settled(group.as_ref()).await;
        let mut read = redis::cmd("ZRANGE");
        read.arg(&*keys.expiries).arg(0).arg(0).arg("WITHSCORES");
        let next = scored(self.ask(keys.slot, read).await?)?;
        let grace = 2 * self.options.wait_max.as_millis() as u64 + GRACE_MS;
        let next = match next.first() {
            Some((_, next)) => Some(*next),
            None if score.fract() == 0.0 => Some((now_ms + grace) as f64 + 0.5),
            None => None,
        };
        if self.rescore(due, name, claim, next).await?
            && let Some(next) = next
        {
            self.next_due.lock().note(next.ceil() as u64);
        }
        Ok(())
    }

    async fn rescore(
        &self,
        due: &[u8],
        name: &str,
        score: f64,
        new: Option<f64>,
    ) -> Result<bool, StoreError> {
        let score = score.to_string();
        let new = new.map_or_else(|| "-".to_owned(), |new| new.to_string());
        let arguments = [name.as_bytes(), score.as_bytes(), new.as_bytes()];
        let done = self
            .client
            .script(Slot::of(due), &COMPARE_AND_SCORE, &[due], &arguments)
            .await;
        let done = done.map_err(|error| store_error(&error))?;
        Ok(super::answer::number_of(&done)? == 1)
    }
}

/// When an instance next asks what is due.
#[derive(Debug, Default)]
pub(super) struct NextDue {
    at_ms: Option<u64>,
}

impl NextDue {
    fn note(&mut self, at_ms: u64) {
        self.at_ms = Some(self.at_ms.map_or(at_ms, |before| before.min(at_ms)));
    }
}
