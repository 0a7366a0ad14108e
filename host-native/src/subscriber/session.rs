//! One subscriber connection: joins with their guards, leaves, and its end.
//!
//! Guards run beside the reading of messages, so a slow one delays neither other joins nor pongs. What a client says of a
//! subscription whose guard is still out takes effect after it, in order. A subscription begins once the `sync` before its own
//! is on its way, so that many large ones do not pile up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hyper_tungstenite::HyperWebsocket;
use iii_stream_core::GroupKey;
use iii_stream_core::event::{session_input, unauthorized_frame};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::protocol::{self, ClientMessage, Names};
use super::subscribers::{Admission, Subscribers};
use crate::clock;
use crate::hub::{ConnectionId, Joined, Subscribing};
use crate::socket::{CloseCode, Connection, Incoming, Outbox};
use crate::store::{Snapshot, StoreError};

/// Messages about one subscription that wait for its guard; one more closes the connection.
const WAITING_MAX: usize = 64;

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
    let mut session = Session {
        id,
        subscribers: &subscribers,
        outbox: &outbox,
        context: admission.context,
        joined: HashMap::new(),
        guarded: HashMap::new(),
        guards: FuturesUnordered::new(),
        admitted: VecDeque::new(),
    };
    if let Some(path) = admission.path {
        let group = GroupKey {
            stream: path.stream.into(),
            group: path.group.into(),
        };
        let subscription_id = Uuid::new_v4().to_string().into();
        session
            .join(Subscribing {
                subscription_id,
                group,
                item: path.item.map(Into::into),
            })
            .await;
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
                Ok(Incoming::Text(text)) => session.receive(text.as_str()).await,
                Ok(Incoming::Binary(bytes)) => match str::from_utf8(&bytes) {
                    Ok(text) => session.receive(text).await,
                    Err(_) => tracing::debug!(connection = id, "binary message is no JSON, ignored"),
                },
                Err(end) => break end,
            },
            Some((subscription_id, admits)) = session.guards.next(), if !session.guards.is_empty() => {
                session.finish_guard(&subscription_id, admits).await;
            }
            () = outbox.room(), if !session.admitted.is_empty() => session.settle_admitted().await,
            () = &mut expiry, if !has_expired => {
                has_expired = true;
                outbox.close(CloseCode::AuthExpired);
            }
        }
    };
    session.end();
    subscribers.disconnect(id);
    tracing::debug!(connection = id, ?end, "subscriber disconnected");
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

struct Session<'a> {
    id: ConnectionId,
    subscribers: &'a Arc<Subscribers>,
    outbox: &'a Arc<Outbox>,
    /// What the auth function gave, as JSON text.
    context: Option<Arc<str>>,
    /// Live subscriptions by their id.
    joined: HashMap<Arc<str>, Subscribing>,
    /// Subscriptions whose guard is still out, or that wait for room.
    guarded: HashMap<Arc<str>, Guarded>,
    guards: FuturesUnordered<BoxFuture<'static, (Arc<str>, bool)>>,
    /// Subscriptions that may begin and wait for room.
    admitted: VecDeque<Arc<str>>,
}

/// A subscription that has not begun.
struct Guarded {
    join: Subscribing,
    /// What was said of it since.
    waiting: VecDeque<Said>,
}

/// What a client said of a subscription.
enum Said {
    Join(Subscribing),
    Leave,
}

impl Session<'_> {
    async fn receive(&mut self, text: &str) {
        match protocol::decode(text) {
            Some(ClientMessage::Join(names)) => self.join(subscribing(&names)).await,
            Some(ClientMessage::Leave(names)) => self.leave(&names.subscription_id),
            None if text.trim_ascii().is_empty() => {}
            None => tracing::debug!(
                connection = self.id,
                "message is no join and no leave, ignored"
            ),
        }
    }

    async fn join(&mut self, join: Subscribing) {
        if let Some(guarded) = self.guarded.get_mut(&join.subscription_id) {
            guarded.waiting.push_back(Said::Join(join));
            self.bound_waiting();
            return;
        }
        let limit = self.subscribers.limits.subscriptions_max;
        let is_new = !self.joined.contains_key(&join.subscription_id);
        if is_new && limit <= self.joined.len() + self.guarded.len() {
            tracing::warn!(
                connection = self.id,
                limit,
                "join refused: too many subscriptions"
            );
            self.refuse(&join);
            return;
        }
        let id = join.subscription_id.clone();
        let is_guarded = self.subscribers.joins.is_guarded(&join.group.stream);
        if is_guarded {
            let subscribers = self.subscribers.clone();
            let (guarded_id, stream, input) =
                (id.clone(), join.group.stream.clone(), self.input(&join));
            self.guards.push(Box::pin(async move {
                let admits = subscribers.joins.admits(&stream, &input).await;
                (guarded_id, admits)
            }));
        }
        self.guarded.insert(
            id.clone(),
            Guarded {
                join,
                waiting: VecDeque::new(),
            },
        );
        if !is_guarded {
            self.finish_guard(&id, true).await;
        }
    }

    /// Takes a guard's verdict. A subscription that may begin does so once there is room for its `sync`.
    async fn finish_guard(&mut self, subscription_id: &Arc<str>, admits: bool) {
        if admits && !self.outbox.has_room() {
            self.admitted.push_back(subscription_id.clone());
        } else {
            self.settle(subscription_id, admits).await;
        }
    }

    /// Begins subscriptions that wait for room.
    async fn settle_admitted(&mut self) {
        while self.outbox.has_room()
            && let Some(id) = self.admitted.pop_front()
        {
            self.settle(&id, true).await;
        }
    }

    /// Begins a subscription or refuses it, and then takes what was said of it meanwhile, up to the next guard.
    async fn settle(&mut self, subscription_id: &Arc<str>, admits: bool) {
        let Some(Guarded { join, mut waiting }) = self.guarded.remove(subscription_id) else {
            return;
        };
        if admits {
            self.activate(join).await;
        } else {
            self.refuse(&join);
        }
        while let Some(said) = waiting.pop_front() {
            match said {
                Said::Join(join) => Box::pin(self.join(join)).await,
                Said::Leave => self.leave(subscription_id),
            }
            if let Some(guarded) = self.guarded.get_mut(subscription_id) {
                guarded.waiting = waiting;
                return;
            }
        }
    }

    /// Makes a subscription live; one with the same id is replaced, and has left if it was to something else.
    async fn activate(&mut self, join: Subscribing) {
        let hub = &self.subscribers.hub;
        if let Some(old) = self.joined.remove(&join.subscription_id)
            && (&old.group, &old.item) != (&join.group, &join.item)
        {
            hub.leave(old.group.as_ref(), self.id, &join.subscription_id);
            self.tell_left(&old);
        }
        hub.begin_join(&join.group, self.id, self.outbox);
        loop {
            let snapshot = match snapshot(self.subscribers, &join).await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    tracing::error!(stream = %join.group.stream, group = %join.group.group, %error, "join failed");
                    hub.abandon_join(join.group.as_ref(), self.id);
                    // Without a snapshot there is nothing true to show; the client connects again.
                    self.outbox.close(CloseCode::StoreFailed);
                    self.tell_left(&join);
                    return;
                }
            };
            match hub.finish_join(self.id, &join, &snapshot) {
                Joined::Live => break,
                Joined::SnapshotTooOld => {}
                Joined::Gone => return,
            }
        }
        self.joined.insert(join.subscription_id.clone(), join);
    }

    fn refuse(&self, join: &Subscribing) {
        let frame = unauthorized_frame(join.group.as_ref(), join.item.as_deref(), clock::unix_ms());
        self.outbox.push(frame.into());
    }

    /// Ends a subscription that exists; triggers learn its own data, whatever else the message said.
    fn leave(&mut self, subscription_id: &str) {
        if let Some(guarded) = self.guarded.get_mut(subscription_id) {
            guarded.waiting.push_back(Said::Leave);
            self.bound_waiting();
        } else if let Some(join) = self.joined.remove(subscription_id) {
            self.subscribers
                .hub
                .leave(join.group.as_ref(), self.id, subscription_id);
            self.tell_left(&join);
        }
    }

    /// Closes the connection of a client that says too much of one subscription before its guard has answered.
    fn bound_waiting(&self) {
        if self
            .guarded
            .values()
            .any(|guarded| WAITING_MAX < guarded.waiting.len())
        {
            self.outbox.close(CloseCode::Policy);
        }
    }

    /// Ends everything. Whoever was let in by a guard is told to have left, also where the subscription had no time to begin.
    fn end(&mut self) {
        let joined = std::mem::take(&mut self.joined);
        for join in joined.values() {
            self.subscribers
                .hub
                .disconnect(join.group.as_ref(), self.id);
            self.tell_left(join);
        }
        let mut guarded = std::mem::take(&mut self.guarded);
        for id in std::mem::take(&mut self.admitted) {
            if let Some(Guarded { join, .. }) = guarded.remove(&id) {
                self.tell_left(&join);
            }
        }
        if guarded.is_empty() {
            return;
        }
        let (subscribers, context) = (self.subscribers.clone(), self.context.clone());
        let mut guards = std::mem::take(&mut self.guards);
        tokio::spawn(async move {
            while let Some((id, admits)) = guards.next().await {
                if let Some(Guarded { join, .. }) = guarded.remove(&id).filter(|_| admits) {
                    subscribers
                        .leaves
                        .tell(&join.group.stream, || input(&join, context.as_deref()));
                }
            }
        });
    }

    fn tell_left(&self, join: &Subscribing) {
        self.subscribers
            .leaves
            .tell(&join.group.stream, || self.input(join));
    }

    fn input(&self, join: &Subscribing) -> String {
        input(join, self.context.as_deref())
    }
}

fn input(join: &Subscribing, context: Option<&str>) -> String {
    let Subscribing {
        subscription_id,
        group,
        item,
    } = join;
    session_input(subscription_id, group.as_ref(), item.as_deref(), context)
}

fn subscribing(names: &Names<'_>) -> Subscribing {
    Subscribing {
        subscription_id: names.subscription_id.as_ref().into(),
        group: GroupKey {
            stream: names.stream.as_ref().into(),
            group: names.group.as_ref().into(),
        },
        item: names.item.as_deref().map(Into::into),
    }
}

async fn snapshot(subscribers: &Subscribers, join: &Subscribing) -> Result<Snapshot, StoreError> {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |snapshot| {
        // The session may be gone.
        let _ = sender.send(snapshot);
    });
    let now_ms = clock::unix_ms();
    subscribers
        .streams
        .snapshot(join.group.as_ref(), join.item.as_deref(), now_ms, done);
    let dropped = |_| StoreError {
        message: "the store dropped the request".into(),
    };
    receiver.await.map_err(dropped)?
}
