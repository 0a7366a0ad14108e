//! What is subscribed to, and on which server. The servers' own tasks make it so (`subscriber.rs`).

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::channel::{Channel, Listener};
use crate::metrics::Metrics;

/// What a server's task is told: the channels to look at again.
#[derive(Default)]
pub(super) struct Post {
    dirty: Mutex<Vec<Arc<str>>>,
    delivered: Notify,
}

impl Post {
    fn put(&self, channel: Arc<str>) {
        self.dirty.lock().push(channel);
        self.delivered.notify_one();
    }

    /// Waits until something lies here.
    pub(super) async fn delivered(&self) {
        self.delivered.notified().await;
    }

    /// What was left after [`Post::take`] is to be taken too.
    pub(super) fn come_again(&self) {
        self.delivered.notify_one();
    }

    /// Takes at most so many channels; whether more lie here.
    pub(super) fn take(&self, channels_max: usize) -> (Vec<Arc<str>>, bool) {
        let mut dirty = self.dirty.lock();
        let taken = dirty.len().min(channels_max);
        let rest = dirty.split_off(taken);
        let has_more = !rest.is_empty();
        (std::mem::replace(&mut *dirty, rest), has_more)
    }
}

/// A channel that somebody wants to hear.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) channel: Channel,
    pub(super) listener: Arc<dyn Listener>,
    /// Differs for each call of `subscribe`, so that each hears its own `Ready`.
    pub(super) generation: u64,
    post: Arc<Post>,
}

/// All channels that somebody wants to hear.
pub(super) struct Subscriptions {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    wanted: HashMap<Arc<str>, Wanted>,
    generations: u64,
}

impl Subscriptions {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            metrics,
        }
    }

    /// Wants a channel at the server that `post` belongs to. Who wanted it before hears it no more.
    pub(super) fn add(&self, channel: Channel, listener: Arc<dyn Listener>, post: &Arc<Post>) {
        let name = channel.name.clone();
        let mut state = self.state.lock();
        state.generations += 1;
        let wanted = Wanted {
            channel,
            listener,
            generation: state.generations,
            post: post.clone(),
        };
        let before = state.wanted.insert(name.clone(), wanted);
        drop(state);
        match before {
            None => self.metrics.redis_subscriptions.inc(),
            Some(before) if !Arc::ptr_eq(&before.post, post) => before.post.put(name.clone()),
            Some(_) => {}
        }
        post.put(name);
    }

    /// Wants a channel no more.
    pub(super) fn remove(&self, name: &str) {
        let removed = self.state.lock().wanted.remove(name);
        if let Some(removed) = removed {
            self.metrics.redis_subscriptions.dec();
            removed.post.put(removed.channel.name);
        }
    }

    /// The channel, if it is wanted at the server that `post` belongs to.
    pub(super) fn wanted_at(&self, name: &str, post: &Arc<Post>) -> Option<Wanted> {
        let state = self.state.lock();
        let wanted = state.wanted.get(name)?;
        Arc::ptr_eq(&wanted.post, post).then(|| wanted.clone())
    }

    /// All channels of a server are to be looked at again, because its connection is new.
    pub(super) fn renew(&self, post: &Arc<Post>) {
        let state = self.state.lock();
        let mine = state
            .wanted
            .iter()
            .filter(|(_, wanted)| Arc::ptr_eq(&wanted.post, post));
        let names: Vec<_> = mine.map(|(name, _)| name.clone()).collect();
        drop(state);
        *post.dirty.lock() = names;
        post.delivered.notify_one();
    }
}
