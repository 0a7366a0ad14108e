//! One subscriber connection: reads its messages, hands them to its subscriptions, and ends with it.

use std::sync::Arc;
use std::time::Duration;

use hyper_tungstenite::HyperWebsocket;
use iii_stream_core::GroupKey;
use tokio::time::Instant;
use uuid::Uuid;

use super::protocol::{self, ClientMessage, Names, PathTarget};
use super::subscribers::{Admission, Subscribers};
use super::subscriptions::Subscriptions;
use crate::hub::Subscribing;
use crate::socket::{CloseCode, Connection, Incoming};

/// Serves one connection until it ends.
pub async fn serve(socket: HyperWebsocket, subscribers: Arc<Subscribers>, admission: Admission) {
    let socket = match socket.await {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(%error, "subscriber went away during its upgrade");
            return;
        }
    };
    let mut connection = Connection::new(socket, subscribers.limits.connection);
    let (id, outbox) = subscribers.connect();
    let mut subscriptions =
        Subscriptions::new(id, subscribers.clone(), outbox.clone(), admission.context);
    if let Some(path) = admission.path {
        subscriptions.join(of_path(path));
    }
    let expiry = async {
        match admission.expires_at {
            Some(expires_at) => tokio::time::sleep_until(expires_at).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(expiry);
    let mut has_expired = false;
    let mut rate = Rate::new(subscribers.limits.messages_per_second_max);
    let end = loop {
        tokio::select! {
            incoming = connection.next(&outbox) => match incoming {
                Ok(_) if !rate.admits(Instant::now()) => {
                    tracing::warn!(connection = id, "closed: too many messages in one second");
                    outbox.close(CloseCode::RateLimit);
                }
                Ok(incoming) => receive(&mut subscriptions, &incoming),
                Err(end) => break end,
            },
            Some((subscription_id, step)) = subscriptions.next_step(), if subscriptions.has_steps() => {
                subscriptions.take_step(&subscription_id, step);
            }
            () = outbox.room(), if subscriptions.has_queued() => subscriptions.begin_queued(),
            () = &mut expiry, if !has_expired => {
                has_expired = true;
                outbox.close(CloseCode::AuthExpired);
            }
        }
    };
    subscriptions.end();
    subscribers.disconnect(id);
    tracing::debug!(connection = id, ?end, "subscriber disconnected");
}

/// Does what a message says. What is no join and no leave is ignored: published clients throw on answers that they do not
/// know.
fn receive(subscriptions: &mut Subscriptions, incoming: &Incoming) {
    let text = match incoming {
        Incoming::Text(text) => Ok(text.as_str()),
        Incoming::Binary(bytes) => str::from_utf8(bytes),
    };
    match text.ok().and_then(protocol::decode) {
        Some(ClientMessage::Join(names)) => subscriptions.join(of_names(&names)),
        Some(ClientMessage::Leave(names)) => subscriptions.leave(&names.subscription_id),
        None => tracing::debug!("message of a subscriber is no join and no leave, ignored"),
    }
}

fn of_names(names: &Names<'_>) -> Subscribing {
    Subscribing {
        subscription_id: names.subscription_id.as_ref().into(),
        group: GroupKey {
            stream: names.stream.as_ref().into(),
            group: names.group.as_ref().into(),
        },
        item: names.item.as_deref().map(Into::into),
    }
}

fn of_path(path: PathTarget) -> Subscribing {
    Subscribing {
        subscription_id: Uuid::new_v4().to_string().into(),
        group: GroupKey {
            stream: path.stream.into(),
            group: path.group.into(),
        },
        item: path.item.map(Into::into),
    }
}

/// How much a client has said in the present second.
struct Rate {
    messages_max: usize,
    messages: usize,
    second: Instant,
}

impl Rate {
    fn new(messages_max: usize) -> Self {
        Self {
            messages_max,
            messages: 0,
            second: Instant::now(),
        }
    }

    /// Counts a message. Whether it is within the bound.
    fn admits(&mut self, now: Instant) -> bool {
        if Duration::from_secs(1) <= now.duration_since(self.second) {
            self.second = now;
            self.messages = 0;
        }
        self.messages += 1;
        self.messages <= self.messages_max
    }
}
