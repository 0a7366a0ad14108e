//! One subscriber connection: reads its messages, hands them to its subscriptions, and ends with it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_tungstenite::HyperWebsocket;
use iii_stream_core::GroupKey;
use tokio::time::Instant;
use uuid::Uuid;

use super::address::PathTarget;
use super::calls::Calls;
use super::protocol::{self, ClientMessage, Invalid, Join};
use super::subscribers::{Admission, Subscribers};
use super::subscriptions::{Admitted, Subscriptions};
use crate::engine::Failure;
use crate::hub::{ConnectionId, Framing, Subscribing};
use crate::metrics::SlowConsumerEnd;
use crate::socket::{CloseCode, Connection, End, Incoming};

/// Begins one connection and has it served until it ends. It holds `permit` for as long.
pub async fn serve(
    socket: HyperWebsocket,
    subscribers: Arc<Subscribers>,
    admission: Admission,
    permit: impl Send + 'static,
) {
    match Session::begin(socket, subscribers, admission).await {
        // In a task of its own: what beginning takes must not stay with every connection for its life.
        Ok(session) => drop(tokio::spawn(Box::new(session).run(permit))),
        Err(error) => tracing::debug!(%error, "subscriber went away during its upgrade"),
    }
}

/// One connection that has begun. Small, because there are many.
struct Session {
    id: ConnectionId,
    connection: Connection,
    subscriptions: Subscriptions,
    calls: Calls,
    subscribers: Arc<Subscribers>,
    rate: Rate,
    /// It said too much and is being closed.
    is_flood: bool,
}

impl Session {
    async fn begin(
        socket: HyperWebsocket,
        subscribers: Arc<Subscribers>,
        admission: Admission,
    ) -> io::Result<Self> {
        let Admission {
            path,
            query,
            context,
            expires_at,
            grants,
        } = admission;
        let mut connection = Connection::open(socket, subscribers.limits.connection).await?;
        if let Some(expires_at) = expires_at {
            connection.close_at(expires_at, CloseCode::AuthExpired);
        }
        let outbox = connection.outbox().clone();
        let id = subscribers.connect(&outbox);
        let calls = Calls::new(grants.clone());
        // What the address says of how to speak is the first word, whether it names a group or not.
        let asks = (path.is_some() || query.asks.version_2.is_some()).then_some(query.asks);
        let mut subscriptions = Subscriptions::new(
            id,
            subscribers.clone(),
            outbox,
            Admitted { context, grants },
            Framing::WebSocket,
            asks,
        );
        if let Some(path) = path {
            subscriptions.join(of_path(path), query.since);
        }
        Ok(Self {
            id,
            connection,
            subscriptions,
            calls,
            rate: Rate::new(subscribers.limits.messages_per_second_max),
            is_flood: false,
            subscribers,
        })
    }

    /// Boxed, because a future keeps room for what it is given twice.
    async fn run(mut self: Box<Self>, _permit: impl Send) {
        let end = loop {
            tokio::select! {
                incoming = self.connection.next() => match incoming {
                    Ok(incoming) => self.take(&incoming),
                    Err(end) => break end,
                },
                Some((subscription_id, step)) = self.subscriptions.next_step(), if self.subscriptions.has_steps() => {
                    self.subscriptions.take_step(&subscription_id, step);
                }
            }
        };
        self.end(end);
    }

    fn take(&mut self, incoming: &Incoming) {
        if *incoming == Incoming::Room {
            self.subscriptions.go_on();
            return;
        }
        if self.is_flood {
            // What still comes before the close has left.
            return;
        }
        let metrics = &self.subscribers.metrics;
        if self.rate.admits(Instant::now()) {
            metrics.subscriber_messages.inc();
            self.receive(incoming);
        } else {
            self.is_flood = true;
            tracing::warn!(
                connection = self.id,
                "closed: too many messages in one second"
            );
            metrics.rate_limited.inc();
            self.connection.outbox().close(CloseCode::RateLimit);
        }
    }

    /// Does what a message says. Published clients throw on answers that they do not know, so what cannot be understood is
    /// answered only where version 2 is spoken, and where it is a call.
    fn receive(&mut self, incoming: &Incoming) {
        let text = match incoming {
            Incoming::Text(text) => text.as_str(),
            Incoming::Binary(bytes) => str::from_utf8(bytes).unwrap_or_default(),
            Incoming::Room => return,
        };
        let subscriptions = &mut self.subscriptions;
        match protocol::decode(text) {
            Ok(ClientMessage::Join(join)) => {
                let (asks, since) = (join.asks, join.since.clone());
                subscriptions.join_speaking(of_join(&join), asks, since);
            }
            Ok(ClientMessage::Leave { subscription_id }) => subscriptions.leave(&subscription_id),
            Ok(ClientMessage::Call(call)) => {
                let outbox = self.connection.outbox();
                self.calls.begin(&call, &self.subscribers, outbox);
            }
            Err(Invalid {
                call_id: Some(id),
                message,
                ..
            }) => {
                let failure = Failure::new("deserialization_error", &message);
                let frame = protocol::result_frame(&id, &Err(failure));
                self.connection.outbox().answer(frame.into());
            }
            Err(invalid) if subscriptions.is_version_2() || invalid.asks_version => subscriptions
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

    fn end(self: Box<Self>, end: End) {
        self.subscriptions.end();
        self.subscribers.disconnect(self.id);
        if let End::ByServer(code) = end {
            let metrics = &self.subscribers.metrics;
            metrics.closes.inc(code.on_wire().0);
            if code == CloseCode::Blocked {
                metrics
                    .slow_consumer_ends
                    .of(SlowConsumerEnd::Blocked)
                    .inc();
            }
        }
        tracing::debug!(connection = self.id, ?end, "subscriber disconnected");
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
        clients: join.clients.clone(),
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
        clients: None,
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
