//! What is subscribed to, and on which server. The servers' own tasks make it so (`subscriber.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::channel::{Channel, Listener};
use super::ear::Ear;
use crate::metrics::Metrics;

/// What a server's task is told: the channels to look at again.
pub(super) struct Post {
    number: u64,
    /// None while there is no connection: a new one looks at all channels.
    dirty: Mutex<Option<Vec<Arc<str>>>>,
    delivered: Notify,
}

impl Post {
    pub(super) fn new() -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            dirty: Mutex::default(),
            delivered: Notify::new(),
        }
    }

    /// Tells the servers apart.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A channel has to be looked at again.
    pub(super) fn put(&self, channel: Arc<str>) {
        if let Some(dirty) = &mut *self.dirty.lock() {
            dirty.push(channel);
            self.delivered.notify_one();
        }
    }

    /// Waits until something lies here.
    pub(super) async fn delivered(&self) {
        self.delivered.notified().await;
    }

    /// Takes at most so many channels. The rest is delivered again.
    pub(super) fn take(&self, channels_max: usize) -> Vec<Arc<str>> {
        let mut guard = self.dirty.lock();
        let Some(dirty) = &mut *guard else {
            return Vec::new();
        };
        let taken = dirty.len().min(channels_max);
        let rest = dirty.split_off(taken);
        if !rest.is_empty() {
            self.delivered.notify_one();
        }
        std::mem::replace(dirty, rest)
    }

    /// The connection is lost: nothing has to be looked at before the next one.
    pub(super) fn rest(&self) {
        *self.dirty.lock() = None;
    }
}

/// A channel that somebody wants to hear.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) channel: Channel,
    pub(super) ear: Arc<Ear>,
    post: Arc<Post>,
}

/// All channels that somebody wants to hear.
pub(super) struct Subscriptions {
    wanted: Mutex<HashMap<Arc<str>, Wanted>>,
    metrics: Arc<Metrics>,
}

impl Subscriptions {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            wanted: Mutex::default(),
            metrics,
        }
    }

    /// Wants a channel at the server that `post_of` says. Who wanted it before hears it no more.
    pub(super) fn add(
        &self,
        channel: Channel,
        listener: Arc<dyn Listener>,
        post_of: impl FnOnce(&Channel) -> Arc<Post>,
    ) {
        let name = channel.name.clone();
        // Under the lock, so that no server can come or go between.
        let mut all = self.wanted.lock();
        let post = post_of(&channel);
        let ear = Ear::new(name.clone(), listener, post.number);
        let wanted = Wanted {
            channel,
            ear: ear.into(),
            post: post.clone(),
        };
        let before = all.insert(name.clone(), wanted);
        drop(all);
        match before {
            None => self.metrics.redis_subscriptions.inc(),
            Some(before) if before.post.number != post.number => before.post.put(name.clone()),
            Some(_) => {}
        }
        post.put(name);
    }

    /// Wants a channel no more.
    pub(super) fn remove(&self, name: &str) {
        let removed = self.wanted.lock().remove(name);
        if let Some(removed) = removed {
            self.metrics.redis_subscriptions.dec();
            removed.post.put(removed.channel.name);
        }
    }

    /// The channel, if it is wanted at the server that `post` belongs to.
    pub(super) fn wanted_at(&self, name: &str, post: &Post) -> Option<Wanted> {
        let all = self.wanted.lock();
        let wanted = all.get(name)?;
        (wanted.post.number == post.number).then(|| wanted.clone())
    }

    /// All channels of a server are to be looked at again, because its connection is new.
    pub(super) fn renew(&self, post: &Post) {
        // What changes from here on is put there too.
        *post.dirty.lock() = Some(Vec::new());
        let all = self.wanted.lock();
        let mine = all
            .iter()
            .filter(|(_, wanted)| wanted.post.number == post.number);
        let names: Vec<_> = mine.map(|(name, _)| name.clone()).collect();
        drop(all);
        if let Some(dirty) = &mut *post.dirty.lock() {
            dirty.extend(names);
        }
        post.delivered.notify_one();
    }

    /// Moves each channel to the server that it belongs to now.
    pub(super) fn rehome(&self, post_of: impl Fn(&Channel) -> Arc<Post>) {
        let mut moved = Vec::new();
        {
            let mut all = self.wanted.lock();
            for wanted in all.values_mut() {
                let post = post_of(&wanted.channel);
                if post.number != wanted.post.number {
                    let before = std::mem::replace(&mut wanted.post, post);
                    moved.push((before, wanted.clone()));
                }
            }
        }
        // Not under the lock: a listener may subscribe and unsubscribe.
        for (before, wanted) in moved {
            wanted.ear.move_to(wanted.post.number);
            before.put(wanted.channel.name.clone());
            wanted.post.put(wanted.channel.name);
        }
    }
}
