//! The subscription connection to one server: subscribes to what is wanted there, tells listeners what comes, and that the
//! connection was lost.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use redis::{Cmd, PushKind, Value};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::backoff::Backoff;
use super::channel::ChannelEvent;
use super::dial::{Dialed, as_text, dial};
use super::node::Node;
use super::options::{CHECK_PERIOD, SILENCE_MAX};
use super::resp::Replies;
use super::subscriptions::{Post, Subscriptions, Wanted};
use crate::metrics::Metrics;

/// Channels that one write subscribes to or leaves; what came meanwhile is read before the next.
const CHANNELS_PER_WRITE_MAX: usize = 512;

/// Keeps the subscriptions of one server.
pub(super) struct Subscriber {
    pub(super) node: Arc<Node>,
    pub(super) post: Arc<Post>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connect_time_max: std::time::Duration,
}

/// A channel that this connection has asked for.
struct OnWire {
    /// None: it is being left.
    wanted: Option<Wanted>,
    /// Commands that are not confirmed. The last one holds once all are.
    unconfirmed: usize,
    /// Whether the listener has been told that messages come.
    is_ready: bool,
}

impl OnWire {
    fn tell(&self, event: ChannelEvent) {
        if let Some(wanted) = &self.wanted {
            wanted.listener.hear(&wanted.channel.name, event);
        }
    }
}

/// An answer that is awaited, in the order of the commands.
enum Expected {
    /// Of a command that subscribes to channels or leaves them: one confirmation for each.
    Channels(VecDeque<Arc<str>>),
    Pong,
}

/// One connection.
struct Line<'a> {
    subscriber: &'a Subscriber,
    stream: TcpStream,
    replies: Replies,
    channels: HashMap<Arc<str>, OnWire>,
    expected: VecDeque<Expected>,
    heard: Instant,
}

impl Subscriber {
    /// Connects and connects again; ends only by being aborted.
    pub(super) async fn keep(self) {
        let mut backoff = Backoff::default();
        loop {
            let dialed = dial(&self.node.address, self.node.login(), self.connect_time_max);
            if let Ok(dialed) = dialed.await {
                backoff = Backoff::default();
                self.subscriptions.renew(&self.post);
                let mut line = Line::new(&self, dialed);
                let why = line.serve().await;
                line.lose_all();
                tracing::warn!(redis = %self.node.name, why, "subscription connection to Redis lost");
                self.metrics.redis_reconnects.inc();
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

impl<'a> Line<'a> {
    fn new(subscriber: &'a Subscriber, dialed: Dialed) -> Self {
        Self {
            subscriber,
            stream: dialed.stream,
            replies: dialed.replies,
            channels: HashMap::new(),
            expected: VecDeque::new(),
            heard: Instant::now(),
        }
    }

    /// Until the connection is lost; says why.
    async fn serve(&mut self) -> String {
        let mut check = tokio::time::interval(CHECK_PERIOD);
        loop {
            let done = tokio::select! {
                read = self.replies.read_more(&mut self.stream) => match read {
                    Ok(0) => Err("the server hung up".to_owned()),
                    Ok(_) => self.read_all(),
                    Err(error) => Err(error.to_string()),
                },
                () = self.subscriber.post.delivered() => self.follow_wishes().await,
                _ = check.tick() => self.check().await,
            };
            if let Err(why) = done {
                return why;
            }
        }
    }

    /// Asks for a sign of life, and gives up when the last one is too long ago.
    async fn check(&mut self) -> Result<(), String> {
        if self.heard.elapsed() >= SILENCE_MAX + CHECK_PERIOD / 2 {
            return Err(format!("no sign of life for {} s", SILENCE_MAX.as_secs()));
        }
        self.expected.push_back(Expected::Pong);
        self.write(&redis::cmd("PING").get_packed_command()).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        match tokio::time::timeout(SILENCE_MAX, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it took nothing for {} s", SILENCE_MAX.as_secs())),
        }
    }

    /// Subscribes to what is wanted and leaves what is not, of the channels that have changed.
    async fn follow_wishes(&mut self) -> Result<(), String> {
        let post = self.subscriber.post.clone();
        let (names, has_more) = post.take(CHANNELS_PER_WRITE_MAX);
        if has_more {
            post.come_again();
        }
        let (mut subscribe, mut unsubscribe) = (VecDeque::new(), VecDeque::new());
        for name in names {
            let wanted = self.subscriber.subscriptions.wanted_at(&name, &post);
            match (wanted, self.channels.get_mut(&name)) {
                (Some(wanted), None) => {
                    let on_wire = OnWire {
                        wanted: Some(wanted),
                        unconfirmed: 1,
                        is_ready: false,
                    };
                    self.channels.insert(name.clone(), on_wire);
                    subscribe.push_back(name);
                }
                (Some(wanted), Some(on_wire)) => match &on_wire.wanted {
                    Some(old) if old.generation == wanted.generation => {}
                    Some(_) => {
                        on_wire.wanted = Some(wanted);
                        on_wire.is_ready = on_wire.unconfirmed == 0;
                        if on_wire.is_ready {
                            on_wire.tell(ChannelEvent::Ready);
                        }
                    }
                    None => {
                        on_wire.wanted = Some(wanted);
                        on_wire.unconfirmed += 1;
                        subscribe.push_back(name);
                    }
                },
                (None, Some(on_wire)) => {
                    if on_wire.wanted.take().is_some() {
                        on_wire.is_ready = false;
                        on_wire.unconfirmed += 1;
                        unsubscribe.push_back(name);
                    }
                }
                (None, None) => {}
            }
        }
        let mut bytes = Vec::new();
        for (name, channels) in [("UNSUBSCRIBE", unsubscribe), ("SUBSCRIBE", subscribe)] {
            if !channels.is_empty() {
                bytes.extend(command(name, &channels).get_packed_command());
                self.expected.push_back(Expected::Channels(channels));
            }
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.write(&bytes).await
    }

    /// Handles everything that has come.
    fn read_all(&mut self) -> Result<(), String> {
        self.heard = Instant::now();
        while let Some(value) = self.replies.next().map_err(|error| error.to_string())? {
            match value {
                Value::Push { kind, data } => self.pushed(&kind, data)?,
                Value::ServerError(error) => self.refused(&error)?,
                _ => match self.expected.pop_front() {
                    Some(Expected::Pong) => {}
                    _ => return Err("the server answered out of order".to_owned()),
                },
            }
        }
        Ok(())
    }

    fn pushed(&mut self, kind: &PushKind, mut data: Vec<Value>) -> Result<(), String> {
        match kind {
            PushKind::Message => {
                let payload = data.pop();
                let name = data.first().and_then(as_text);
                let (Some(Value::BulkString(payload)), Some(name)) = (payload, name) else {
                    return Err("the server sent a message without channel or payload".to_owned());
                };
                self.subscriber.metrics.redis_messages.inc();
                if let Some(on_wire) = self.channels.get(name)
                    && on_wire.is_ready
                {
                    on_wire.tell(ChannelEvent::Message(Bytes::from(payload)));
                }
                Ok(())
            }
            PushKind::Subscribe | PushKind::Unsubscribe => {
                let name = data.first().and_then(as_text).unwrap_or_default();
                self.confirmed(name)
            }
            _ => Ok(()),
        }
    }

    /// The server has carried out the next command for a channel.
    fn confirmed(&mut self, name: &str) -> Result<(), String> {
        let Some(Expected::Channels(channels)) = self.expected.front_mut() else {
            return Err("the server answered out of order".to_owned());
        };
        if channels.pop_front().as_deref() != Some(name) {
            return Err("the server answered out of order".to_owned());
        }
        if channels.is_empty() {
            self.expected.pop_front();
        }
        let Some(on_wire) = self.channels.get_mut(name) else {
            return Ok(());
        };
        on_wire.unconfirmed -= 1;
        if on_wire.unconfirmed > 0 {
            return Ok(());
        }
        if on_wire.wanted.is_some() {
            on_wire.is_ready = true;
            on_wire.tell(ChannelEvent::Ready);
        } else {
            self.channels.remove(name);
        }
        Ok(())
    }

    /// The server did not carry out the oldest command. The connection is given up: after a pause, all is asked for again.
    fn refused(&mut self, error: &redis::ServerError) -> Result<(), String> {
        match self.expected.pop_front() {
            Some(Expected::Channels(channels)) => {
                let first = channels.front().map_or("", |name| &**name);
                Err(format!("the server refuses channel {first}: {error}"))
            }
            _ => Err(error.to_string()),
        }
    }

    /// Tells all listeners that the connection is gone.
    fn lose_all(&mut self) {
        for on_wire in self.channels.values().filter(|on_wire| on_wire.is_ready) {
            on_wire.tell(ChannelEvent::Lost);
        }
        self.channels.clear();
    }
}

fn command(name: &str, channels: &VecDeque<Arc<str>>) -> Cmd {
    let mut command = redis::cmd(name);
    for channel in channels {
        command.arg(&**channel);
    }
    command
}
