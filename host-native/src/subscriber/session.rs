//! One subscriber connection: reads its messages, hands them to its subscriptions, and ends with it.

use std::sync::Arc;
use std::time::Duration;

use hyper_tungstenite::HyperWebsocket;
use iii_stream_core::GroupKey;
use tokio::time::Instant;
use uuid::Uuid;

use super::protocol::{self, ClientMessage, Join, PathTarget};
use super::subscribers::{Admission, Subscribers};
use super::subscriptions::Subscriptions;
use crate::hub::{Framing, Subscribing};
use crate::metrics::SlowConsumerEnd;
use crate::socket::{CloseCode, Connection, End, Incoming};

/// Serves one connection until it ends.
pub async fn serve(socket: HyperWebsocket, subscribers: Arc<Subscribers>, admission: Admission) {
    let Admission {
        path,
        query,
        context,
        expires_at,
    } = admission;
    let mut connection = match Connection::open(socket, subscribers.limits.connection).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%error, "subscriber went away during its upgrade");
            return;
        }
    };
    if let Some(expires_at) = expires_at {
        connection.close_at(expires_at, CloseCode::AuthExpired);
    }
    let outbox = connection.outbox().clone();
    let id = subscribers.connect(&outbox);
    // What the address says of how to speak is the first word, whether it names a group or not.
    let asks = (path.is_some() || query.asks.version_2.is_some()).then_some(query.asks);
    let mut subscriptions = Subscriptions::new(
        id,
        subscribers.clone(),
        outbox.clone(),
        context,
        Framing::WebSocket,
        asks,
    );
    if let Some(path) = path {
        subscriptions.join(of_path(path), query.since);
    }
    let mut rate = Rate::new(subscribers.limits.messages_per_second_max);
    let mut is_flood = false;
    let end = loop {
        tokio::select! {
            incoming = connection.next() => match incoming {
                Ok(Incoming::Room) => subscriptions.go_on(),
                // What still comes before the close has left.
                Ok(_) if is_flood => {}
                Ok(_) if !rate.admits(Instant::now()) => {
                    is_flood = true;
                    tracing::warn!(connection = id, "closed: too many messages in one second");
                    subscribers.metrics.rate_limited.inc();
                    outbox.close(CloseCode::RateLimit);
                }
                Ok(incoming) => {
                    subscribers.metrics.subscriber_messages.inc();
                    receive(&mut subscriptions, &incoming);
                }
                Err(end) => break end,
            },
            Some((subscription_id, step)) = subscriptions.next_step(), if subscriptions.has_steps() => {
                subscriptions.take_step(&subscription_id, step);
            }
        }
    };
    subscriptions.end();
    subscribers.disconnect(id);
    if let End::ByServer(code) = end {
        let metrics = &subscribers.metrics;
        metrics.closes.inc(code.on_wire().0);
        if code == CloseCode::Blocked {
            metrics
                .slow_consumer_ends
                .of(SlowConsumerEnd::Blocked)
                .inc();
        }
    }
    tracing::debug!(connection = id, ?end, "subscriber disconnected");
}

/// Does what a message says. Published clients throw on answers that they do not know, so what cannot be understood is answered
/// only where version 2 is spoken.
fn receive(subscriptions: &mut Subscriptions, incoming: &Incoming) {
    let text = match incoming {
        Incoming::Text(text) => text.as_str(),
        Incoming::Binary(bytes) => str::from_utf8(bytes).unwrap_or_default(),
        Incoming::Room => return,
    };
    match protocol::decode(text) {
        Ok(ClientMessage::Join(join)) => {
            let (asks, since) = (join.asks, join.since.clone());
            subscriptions.join_speaking(of_join(&join), asks, since);
        }
        Ok(ClientMessage::Leave { subscription_id }) => subscriptions.leave(&subscription_id),
        Err(invalid) if subscriptions.is_version_2() || invalid.is_version_2 => subscriptions
            .tell_error(
                invalid.subscription_id.as_deref(),
                invalid.code,
                &invalid.message,
            ),
        Err(invalid) => {
            tracing::debug!(error = %invalid.message, "message of a subscriber cannot be understood, ignored");
        }
    }
}

fn of_join(join: &Join<'_>) -> Subscribing {
    Subscribing {
        subscription_id: join.subscription_id.as_ref().into(),
        group: GroupKey {
            stream: join.stream.as_ref().into(),
            group: join.group.as_ref().into(),
        },
        item: join.item.as_deref().map(Into::into),
    }
}

/// A subscription to what a path names, under an id of the server's.
pub(super) fn of_path(path: PathTarget) -> Subscribing {
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
