//! What one listener has been told of its channel, so that it hears everything once and in order, wherever it comes from.

use parking_lot::Mutex;
use std::sync::Arc;

use super::channel::{ChannelEvent, Listener};

/// A listener of a channel, and the connection that may speak to it.
pub(super) struct Ear {
    channel: Arc<str>,
    listener: Arc<dyn Listener>,
    state: Mutex<State>,
}

struct State {
    home: u64,
    is_ready: bool,
}

impl Ear {
    pub(super) fn new(channel: Arc<str>, listener: Arc<dyn Listener>, home: u64) -> Self {
        Self {
            channel,
            listener,
            state: Mutex::new(State {
                home,
                is_ready: false,
            }),
        }
    }

    /// Says what came from a server, unless the channel has moved to another one. Messages count only once it is ready.
    pub(super) fn tell(&self, home: u64, event: ChannelEvent) {
        let mut state = self.state.lock();
        if state.home != home {
            return;
        }
        let was_ready = state.is_ready;
        let is_news = match event {
            ChannelEvent::Ready => !std::mem::replace(&mut state.is_ready, true),
            ChannelEvent::Lost => std::mem::replace(&mut state.is_ready, false),
            ChannelEvent::Message(_) => was_ready,
        };
        if is_news {
            // Under the lock: this is what keeps the order.
            self.listener.hear(&self.channel, event);
        }
    }

    /// From now on another server speaks; what the one before said may have a gap behind it.
    pub(super) fn move_to(&self, home: u64) {
        let mut state = self.state.lock();
        state.home = home;
        if std::mem::replace(&mut state.is_ready, false) {
            self.listener.hear(&self.channel, ChannelEvent::Lost);
        }
    }
}
