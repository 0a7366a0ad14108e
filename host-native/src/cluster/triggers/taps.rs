//! The channels of streams that triggers are led for: one subscription for each stream, each message read once.

use std::collections::HashMap;
use std::sync::Arc;

use iii_stream_core::relay::{RelayedChange, read_message};
use parking_lot::{Mutex, RwLock};

use super::ground::Ground;
use super::heard::Heard;
use super::leader::Leader;
use crate::redis_client::{ChannelEvent, Listener};

/// See the module.
#[derive(Default)]
pub(super) struct Taps {
    by_stream: Mutex<HashMap<Arc<str>, Arc<Tap>>>,
}

/// One stream's channel.
struct Tap {
    state: RwLock<TapState>,
}

#[derive(Default)]
struct TapState {
    leaders: Vec<Arc<Leader>>,
    is_ready: bool,
}

impl Taps {
    /// Lets a leader hear its stream; it is told when it does.
    pub(super) fn add(&self, ground: &Ground, leader: &Arc<Leader>) {
        let stream = &leader.filter.stream;
        let mut by_stream = self.by_stream.lock();
        let tap = by_stream.get(stream).cloned();
        let is_new = tap.is_none();
        let tap = tap.unwrap_or_else(|| {
            Arc::new(Tap {
                state: RwLock::default(),
            })
        });
        let is_ready = {
            let mut state = tap.state.write();
            state.leaders.retain(|other| !Arc::ptr_eq(other, leader));
            state.leaders.push(leader.clone());
            state.is_ready
        };
        if is_new {
            by_stream.insert(stream.clone(), tap.clone());
            ground
                .client
                .subscribe(ground.store.stream_channel(stream), tap);
        } else if is_ready {
            leader.listens();
        }
    }

    pub(super) fn remove(&self, ground: &Ground, leader: &Arc<Leader>) {
        let stream = &leader.filter.stream;
        let mut by_stream = self.by_stream.lock();
        let Some(tap) = by_stream.get(stream) else {
            return;
        };
        let is_empty = {
            let mut state = tap.state.write();
            state.leaders.retain(|other| !Arc::ptr_eq(other, leader));
            state.leaders.is_empty()
        };
        if is_empty {
            by_stream.remove(stream);
            ground
                .client
                .unsubscribe(&ground.store.stream_channel(stream));
        }
    }
}

impl Listener for Tap {
    fn hear(&self, channel: &str, event: ChannelEvent) {
        match event {
            ChannelEvent::Ready => {
                let mut state = self.state.write();
                state.is_ready = true;
                state.leaders.iter().for_each(|leader| leader.listens());
            }
            ChannelEvent::Lost => self.state.write().is_ready = false,
            ChannelEvent::Message(message) => match read_message(&message) {
                Ok(relayed) => {
                    let changes: Vec<_> = relayed
                        .changes
                        .iter()
                        .map(|change| match change {
                            RelayedChange::Whole(change) => Some(Heard::new(change.clone())),
                            RelayedChange::LeftOut { .. } => None,
                        })
                        .collect();
                    for leader in &self.state.read().leaders {
                        leader.hear(&relayed, &changes);
                    }
                }
                // What it told is read from the history at the next look.
                Err(error) => {
                    tracing::warn!(channel, %error, "a message of another instance cannot be read");
                }
            },
        }
    }
}
