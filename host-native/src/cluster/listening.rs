//! What comes from channels of Redis: handed on at once, since nobody may keep the connection waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::calls::Calls;
use super::roster::InstanceId;
use crate::redis_client::{ChannelEvent, Listener};

/// Most bytes of messages for this instance that wait to be read. Further ones are lost, which those who sent them find out.
const INBOX_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Most news that wait to be read. What is not heard is seen with the next heartbeat.
const NEWS_MAX: usize = 10_000;

/// What all instances have to know at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// An instance has another card, of this version. Shape: `changed <id> <version>`.
    Changed(InstanceId, u64),
    /// An instance is about to stop. Shape: `leaving <id>`.
    Leaving(InstanceId),
    /// An instance has ended. Shape: `gone <id>`.
    Gone(InstanceId),
    /// News may have been missed.
    Missed,
}

impl News {
    /// As it is told to the others.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Changed(id, version) => format!("changed {id} {version}"),
            Self::Leaving(id) => format!("leaving {id}"),
            Self::Gone(id) => format!("gone {id}"),
            Self::Missed => String::new(),
        }
    }

    /// `None` for what this version does not know.
    fn from_text(text: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(text).ok()?.split(' ');
        let kind = words.next()?;
        let id = InstanceId::from(words.next()?);
        match kind {
            "changed" => Some(Self::Changed(id, words.next()?.parse().ok()?)),
            "leaving" => Some(Self::Leaving(id)),
            "gone" => Some(Self::Gone(id)),
            _ => None,
        }
    }
}

/// Hears news.
pub(super) struct NewsListener {
    news: mpsc::Sender<News>,
    is_ready: watch::Sender<bool>,
}

impl NewsListener {
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<News>, watch::Receiver<bool>) {
        let (news, receiver) = mpsc::channel(NEWS_MAX);
        let (is_ready, ready) = watch::channel(false);
        (Arc::new(Self { news, is_ready }), receiver, ready)
    }
}

impl Listener for NewsListener {
    fn hear(&self, _: &str, event: ChannelEvent) {
        let news = match event {
            ChannelEvent::Message(text) => News::from_text(&text),
            ChannelEvent::Ready => {
                self.is_ready.send_replace(true);
                Some(News::Missed)
            }
            ChannelEvent::Lost => None,
        };
        if let Some(news) = news {
            // Those that find no room are seen with the next heartbeat.
            let _ = self.news.try_send(news);
        }
    }
}

/// Hears what is for this instance.
pub(super) struct LetterListener {
    messages: mpsc::UnboundedSender<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
    is_ready: watch::Sender<bool>,
}

/// What waits to be read.
pub(super) struct Inbox {
    messages: mpsc::UnboundedReceiver<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl LetterListener {
    pub(super) fn new() -> (Arc<Self>, Inbox, watch::Receiver<bool>) {
        let (messages, receiver) = mpsc::unbounded_channel();
        let (is_ready, ready) = watch::channel(false);
        let waiting_bytes = Arc::<AtomicUsize>::default();
        let listener = Self {
            messages,
            waiting_bytes: waiting_bytes.clone(),
            is_ready,
        };
        let inbox = Inbox {
            messages: receiver,
            waiting_bytes,
        };
        (Arc::new(listener), inbox, ready)
    }
}

impl Listener for LetterListener {
    fn hear(&self, _: &str, event: ChannelEvent) {
        match event {
            ChannelEvent::Message(message) => {
                let bytes = message.len();
                let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
                // Nobody reads any more when the server ends.
                if INBOX_BYTES_MAX < waiting + bytes || self.messages.send(message).is_err() {
                    self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
                    tracing::error!(
                        bytes,
                        "a message of another instance was dropped: too much waits to be read"
                    );
                }
            }
            ChannelEvent::Ready => {
                self.is_ready.send_replace(true);
            }
            ChannelEvent::Lost => {}
        }
    }
}

impl Inbox {
    /// Reads until nobody sends any more.
    pub(super) async fn read(mut self, calls: Arc<Calls>) {
        while let Some(message) = self.messages.recv().await {
            calls.receive(&message);
            self.waiting_bytes
                .fetch_sub(message.len(), Ordering::AcqRel);
            // Others have their turn too.
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_come_as_they_were_told() {
        for news in [
            News::Changed("a".into(), 7),
            News::Leaving("a".into()),
            News::Gone("b".into()),
        ] {
            assert_eq!(News::from_text(news.to_text().as_bytes()), Some(news));
        }
        for text in ["", "changed a", "changed a x", "new a"] {
            assert_eq!(News::from_text(text.as_bytes()), None, "{text}");
        }
    }
}
