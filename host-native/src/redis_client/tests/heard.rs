//! A listener that keeps what it hears, for tests that wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::redis_client::{ChannelEvent, Listener};

/// Whatever is waited for comes within this time.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(15);

/// What was heard, in order.
pub(super) struct Heard {
    sender: mpsc::UnboundedSender<ChannelEvent>,
}

impl Listener for Heard {
    fn hear(&self, _channel: &str, event: ChannelEvent) {
        // The test may have ended.
        let _ = self.sender.send(event);
    }
}

impl Heard {
    /// A listener and what it hears.
    pub(super) fn new() -> (Arc<Self>, Hearing) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { sender }), Hearing(receiver))
    }
}

/// The other end of [`Heard`].
pub(super) struct Hearing(mpsc::UnboundedReceiver<ChannelEvent>);

impl Hearing {
    /// The next event.
    pub(super) async fn next(&mut self) -> ChannelEvent {
        let next = tokio::time::timeout(WAIT_MAX, self.0.recv()).await;
        next.expect("an event in time").expect("a listener")
    }

    /// The next event is this one.
    pub(super) async fn expect(&mut self, event: ChannelEvent) {
        assert_eq!(self.next().await, event);
    }
}

/// A message.
pub(super) fn message(text: &'static str) -> ChannelEvent {
    ChannelEvent::Message(text.into())
}
