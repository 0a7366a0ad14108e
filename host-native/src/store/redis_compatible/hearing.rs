//! What is heard in the engine's channel: gives it to subscribers in the order in which it comes, and says where in that
//! order a read took place.
//!
//! Redis sends one connection everything in the order in which it was published, whatever the channel. So a read that is
//! one transaction with a message to ourselves, a *fence*, has its exact place: what was heard before the fence was written
//! before the read. What an engine writes, it publishes a moment later, so that may come again behind the `sync` that tells
//! of it already.

use std::sync::Arc;

use hashbrown::HashMap;
use iii_stream_core::{Change, GroupKey, GroupRef, Position};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::frame::{EVENTS, Frame};
use super::stamps::Stamps;
use crate::metrics::Metrics;
use crate::redis_client::ChannelEvent;
use crate::store::{RelaySink, StoreError, StoreErrorCause};

/// Groups without subscribers whose timestamps are remembered. Beyond it all of them are forgotten, and what follows in any
/// group is later than what was said in them.
const GROUPS_MAX: usize = 65_536;

/// See the module.
pub(super) struct Hearing {
    state: Mutex<State>,
    /// Whether everything that is published comes.
    is_ready: watch::Sender<bool>,
    subscribers: Option<Arc<dyn RelaySink>>,
    /// Names this process's count of what it heard.
    epoch: Arc<str>,
    /// The channel of our fences.
    pub(super) fences: Arc<str>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    groups: HashMap<GroupKey, Heard>,
    watched: usize,
    /// No timestamp of a forgotten group was later.
    forgotten_ms: u64,
    /// No sequence of a forgotten group was higher.
    forgotten_seq: u64,
    fences: HashMap<u64, (GroupKey, oneshot::Sender<Fence>)>,
    fences_made: u64,
    hears_events: bool,
    hears_fences: bool,
    /// Something may have been missed.
    was_lost: bool,
}

/// What was heard of a group.
struct Heard {
    /// Counts what came, so that subscribers see which is later.
    seq: u64,
    stamps: Stamps,
    /// Those that our own frames were written with, on their way to Redis or back.
    planned: Stamps,
    is_watched: bool,
}

/// The place of a read among the changes of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fence {
    /// The last change before it.
    pub(super) seq: u64,
    /// The timestamp of a `sync` that tells of it.
    pub(super) timestamp: u64,
}

/// A fence that is to be published, and awaited.
pub(super) struct Awaited {
    pub(super) token: u64,
    place: oneshot::Receiver<Fence>,
}

impl Hearing {
    pub(super) fn new(
        subscribers: Option<Arc<dyn RelaySink>>,
        epoch: Arc<str>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            state: Mutex::default(),
            is_ready: watch::Sender::new(false),
            subscribers,
            fences: format!("iii:fence:{epoch}").into(),
            epoch,
            metrics,
        }
    }

    /// Takes what happened in one of the two channels. Called by one task.
    pub(super) fn hear(&self, channel: &str, event: &ChannelEvent, now_ms: u64) {
        let is_events = channel == EVENTS;
        match event {
            ChannelEvent::Message(payload) if is_events => self.take_frame(payload, now_ms),
            ChannelEvent::Message(payload) => self.take_fence(payload, now_ms),
            ChannelEvent::Ready => self.set_hearing(is_events, true),
            ChannelEvent::Lost => self.set_hearing(is_events, false),
        }
    }

    fn set_hearing(&self, is_events: bool, hears: bool) {
        let missed: Vec<GroupKey> = {
            let mut state = self.state.lock();
            if is_events {
                state.hears_events = hears;
            } else {
                state.hears_fences = hears;
            }
            let is_ready = state.hears_events && state.hears_fences;
            self.is_ready.send_replace(is_ready);
            if !hears {
                // Those that wait for them read again.
                state.fences.clear();
                state.was_lost = true;
            }
            if is_ready && std::mem::take(&mut state.was_lost) {
                let watched = state.groups.iter().filter(|(_, heard)| heard.is_watched);
                watched.map(|(group, _)| group.clone()).collect()
            } else {
                Vec::new()
            }
        };
        // Not while the state is held: subscribers that come hold the hub and ask for the state.
        if let Some(subscribers) = &self.subscribers {
            missed
                .iter()
                .for_each(|group| subscribers.missed(group, false));
        }
    }

    fn take_frame(&self, payload: &[u8], now_ms: u64) {
        let frame = match Frame::read(payload) {
            Ok(frame) => frame,
            Err(error) => return self.count_unreadable(&error),
        };
        let (seq, timestamp) = {
            let mut state = self.state.lock();
            let heard = state.heard(&frame.group);
            heard.seq += 1;
            let item = frame.item.as_deref();
            let timestamp = heard.stamps.event(frame.timestamp, item, now_ms);
            if !heard.is_watched {
                return;
            }
            (heard.seq, timestamp)
        };
        let (kind, value) = match frame.change() {
            Ok(change) => change,
            Err(error) => return self.count_unreadable(&error),
        };
        let change = Arc::new(Change {
            seq,
            timestamp,
            item: frame.item,
            kind,
            value: Some(value),
            ops: None,
            base: None,
            mutation: None,
        });
        if let Some(subscribers) = &self.subscribers {
            subscribers.publish(&frame.group, change, None);
        }
    }

    fn count_unreadable(&self, error: &dyn std::fmt::Display) {
        self.metrics.redis_frames_unreadable.inc();
        let count = self.metrics.redis_frames_unreadable.get();
        if count.is_power_of_two() {
            tracing::warn!(
                channel = EVENTS,
                count,
                "a message was left out that is no change: {error}"
            );
        }
    }

    fn take_fence(&self, payload: &[u8], now_ms: u64) {
        let text = std::str::from_utf8(payload).ok();
        let Some(token) = text.and_then(|text| text.parse::<u64>().ok()) else {
            return;
        };
        let mut state = self.state.lock();
        let Some((group, waiting)) = state.fences.remove(&token) else {
            return;
        };
        let heard = state.heard(&group);
        let fence = Fence {
            seq: heard.seq,
            timestamp: heard.stamps.sync(now_ms),
        };
        // Whoever waited may have given up.
        let _ = waiting.send(fence);
    }

    /// A group has its first subscriber. Called before anything of it is read.
    pub(super) fn came(&self, group: &GroupKey) {
        let mut state = self.state.lock();
        let heard = state.heard(group);
        if !std::mem::replace(&mut heard.is_watched, true) {
            state.watched += 1;
        }
    }

    /// A group has no subscribers any more.
    pub(super) fn went(&self, group: &GroupKey) {
        let mut state = self.state.lock();
        let heard = state.heard(group);
        if std::mem::replace(&mut heard.is_watched, false) {
            state.watched -= 1;
        }
    }

    /// Where a group is.
    pub(super) fn position(&self, group: GroupRef<'_>) -> Position {
        let mut state = self.state.lock();
        Position {
            epoch: self.epoch.clone(),
            seq: state.heard(&group.to_key()).seq,
        }
    }

    pub(super) fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// The timestamps of frames that are about to be written, by the items they are about.
    pub(super) fn plan<'i>(
        &self,
        group: &GroupKey,
        items: impl Iterator<Item = Option<&'i str>>,
        now_ms: u64,
    ) -> Vec<u64> {
        let mut state = self.state.lock();
        let Heard {
            stamps, planned, ..
        } = state.heard(group);
        planned.catch_up(stamps);
        items
            .map(|item| planned.event(now_ms, item, now_ms))
            .collect()
    }

    /// Waits until everything that is published comes.
    ///
    /// Errors: it does not by the `deadline`.
    pub(super) async fn ready(&self, deadline: Instant) -> Result<(), StoreError> {
        let mut is_ready = self.is_ready.subscribe();
        let ready = timeout_at(deadline, is_ready.wait_for(|&is_ready| is_ready)).await;
        match ready {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StoreError::new(
                StoreErrorCause::Unavailable,
                "Redis does not tell of changes now: the connection for its channels is lost",
            )),
        }
    }

    /// A fence that takes its place once its token is published.
    pub(super) fn fence(&self, group: GroupRef<'_>) -> Awaited {
        let (sender, place) = oneshot::channel();
        let mut state = self.state.lock();
        state.fences_made += 1;
        let token = state.fences_made;
        state.fences.insert(token, (group.to_key(), sender));
        Awaited { token, place }
    }

    /// Waits for a fence; `None` where it does not come.
    pub(super) async fn place(&self, fence: Awaited, deadline: Instant) -> Option<Fence> {
        let place = timeout_at(deadline, fence.place).await;
        if place.is_err() {
            self.state.lock().fences.remove(&fence.token);
        }
        place.ok()?.ok()
    }
}

impl State {
    fn heard(&mut self, group: &GroupKey) -> &mut Heard {
        if self.watched + GROUPS_MAX <= self.groups.len() && !self.groups.contains_key(group) {
            self.forget();
        }
        let (ms, seq) = (self.forgotten_ms, self.forgotten_seq);
        self.groups.entry_ref(group).or_insert_with(|| {
            let stamps = Stamps::above(ms);
            Heard {
                seq,
                planned: stamps.clone(),
                stamps,
                is_watched: false,
            }
        })
    }

    /// Forgets groups without subscribers.
    fn forget(&mut self) {
        let (mut ms, mut seq) = (self.forgotten_ms, self.forgotten_seq);
        self.groups.retain(|_, heard| {
            if !heard.is_watched {
                let planned_ms = heard.planned.latest_ms();
                ms = ms.max(heard.stamps.latest_ms()).max(planned_ms);
                seq = seq.max(heard.seq);
            }
            heard.is_watched
        });
        (self.forgotten_ms, self.forgotten_seq) = (ms, seq);
    }
}

#[cfg(test)]
mod tests;
