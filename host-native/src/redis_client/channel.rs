//! Channels of pub/sub, and those who listen to them.

use std::sync::Arc;

use bytes::Bytes;

use super::slot::Slot;

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Channel {
    /// Its name.
    pub name: Arc<str>,
    /// Some: on a cluster the channel is sharded and belongs to this slot. None, and everywhere else: plain pub/sub.
    pub slot: Option<Slot>,
}

/// Hears what happens in a channel.
pub trait Listener: Send + Sync {
    /// Called in the order of the channel, on the task that reads the connection: must not block. A call may still come
    /// shortly after the channel was unsubscribed.
    fn hear(&self, channel: &str, event: ChannelEvent);
}

/// What happens in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// The subscription is confirmed, for the first time or again: from here on messages come.
    Ready,
    /// A message. Comes only after `Ready`.
    Message(Bytes),
    /// The subscription is gone: messages may be missing until the next `Ready`.
    Lost,
}
