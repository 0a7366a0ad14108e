//! The subscription connection to one server: subscribes to what is wanted there, tells listeners what comes, and that the
//! connection was lost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{PushKind, Value};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::address::Address;
use super::backoff::Backoff;
use super::channel::{Channel, ChannelEvent};
use super::dial::{Dialed, as_text, dial};
use super::ear::Ear;
use super::node::Node;
use super::options::{CHECK_PERIOD, SILENCE_MAX};
use super::resp::Replies;
use super::subscriptions::{Post, Subscriptions};
use super::topology::Topology;
use crate::metrics::Metrics;

/// Channels that one write subscribes to or leaves; what came meanwhile is read before the next.
const CHANNELS_PER_WRITE_MAX: usize = 512;
/// How long the server is waited for at a time, before it is looked at again.
const SERVER_WAIT: Duration = Duration::from_secs(60);

/// Keeps the subscriptions of one server.
pub(super) struct Subscriber {
    pub(super) node: Arc<Node>,
    pub(super) post: Arc<Post>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) topology: Weak<Topology>,
    pub(super) is_cluster: bool,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connect_time_max: Duration,
}

/// A channel that this connection has asked for.
struct OnWire {
    /// None: it is being left.
    ear: Option<Arc<Ear>>,
    is_sharded: bool,
    /// Commands that are not confirmed. The last one holds once all are.
    unconfirmed: usize,
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
    address: Address,
    stream: TcpStream,
    replies: Replies,
    channels: HashMap<Arc<str>, OnWire>,
    expected: VecDeque<Expected>,
    /// Channels that the server did not take. Asked for again with the next sign of life.
    refused: Vec<Arc<str>>,
    has_warned: bool,
    heard: Instant,
}

impl Subscriber {
    /// Connects and connects again; ends only by being aborted.
    pub(super) async fn keep(self) {
        let mut backoff = Backoff::default();
        loop {
            // Where commands cannot go, messages do not come from.
            if self
                .node
                .connection(Instant::now() + SERVER_WAIT)
                .await
                .is_err()
            {
                continue;
            }
            let address = self.node.address();
            let dialed = dial(&address, self.node.login(), self.connect_time_max);
            if let Ok(dialed) = dialed.await {
                backoff = Backoff::default();
                self.subscriptions.renew(&self.post);
                let mut line = Line::new(&self, address, dialed);
                let why = line.serve().await;
                line.lose_all();
                self.post.rest();
                tracing::warn!(redis = %self.node.name(), why, "subscription connection to Redis lost");
                self.metrics.redis_reconnects.inc();
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    fn is_sharded(&self, channel: &Channel) -> bool {
        self.is_cluster && channel.slot.is_some()
    }
}

impl<'a> Line<'a> {
    fn new(subscriber: &'a Subscriber, address: Address, dialed: Dialed) -> Self {
        Self {
            subscriber,
            address,
            stream: dialed.stream,
            replies: dialed.replies,
            channels: HashMap::new(),
            expected: VecDeque::new(),
            refused: Vec::new(),
            has_warned: false,
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
        if self.subscriber.node.address() != self.address {
            return Err("another server is the master".to_owned());
        }
        for name in self.refused.drain(..) {
            self.subscriber.post.put(name);
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
        let subscriber = self.subscriber;
        let mut commands = Commands::default();
        for name in subscriber.post.take(CHANNELS_PER_WRITE_MAX) {
            let wanted = subscriber.subscriptions.wanted_at(&name, &subscriber.post);
            match (wanted, self.channels.get_mut(&name)) {
                (Some(wanted), None) => {
                    let on_wire = OnWire {
                        ear: Some(wanted.ear),
                        is_sharded: subscriber.is_sharded(&wanted.channel),
                        unconfirmed: 1,
                    };
                    commands.add(true, on_wire.is_sharded, &name);
                    self.channels.insert(name, on_wire);
                }
                (Some(wanted), Some(on_wire)) => {
                    if on_wire.ear.replace(wanted.ear).is_none() {
                        on_wire.unconfirmed += 1;
                        commands.add(true, on_wire.is_sharded, &name);
                    } else if on_wire.unconfirmed == 0 {
                        self.tell(&name, ChannelEvent::Ready);
                    }
                }
                (None, Some(on_wire)) => {
                    if on_wire.ear.take().is_some() {
                        on_wire.unconfirmed += 1;
                        commands.add(false, on_wire.is_sharded, &name);
                    }
                }
                (None, None) => {}
            }
        }
        let bytes = commands.pack(&mut self.expected);
        if bytes.is_empty() {
            return Ok(());
        }
        self.write(&bytes).await
    }

    fn tell(&self, name: &str, event: ChannelEvent) {
        let on_wire = self.channels.get(name);
        if let Some(ear) = on_wire.and_then(|on_wire| on_wire.ear.as_ref()) {
            ear.tell(self.subscriber.post.number(), event);
        }
    }

    /// Handles everything that has come.
    fn read_all(&mut self) -> Result<(), String> {
        self.heard = Instant::now();
        while let Some(value) = self.replies.next().map_err(|error| error.to_string())? {
            match value {
                Value::Push { kind, data } => self.pushed(&kind, data)?,
                Value::ServerError(error) => self.refused(error)?,
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
            PushKind::Message | PushKind::SMessage => {
                let payload = data.pop();
                let name = data.first().and_then(as_text);
                let (Some(Value::BulkString(payload)), Some(name)) = (payload, name) else {
                    return Err("the server sent a message without channel or payload".to_owned());
                };
                self.subscriber.metrics.redis_messages.inc();
                self.tell(name, ChannelEvent::Message(Bytes::from(payload)));
                Ok(())
            }
            PushKind::Subscribe | PushKind::SSubscribe | PushKind::Unsubscribe => {
                let name = data.first().and_then(as_text).unwrap_or_default();
                self.confirmed(name)
            }
            PushKind::SUnsubscribe => {
                let name = data.first().and_then(as_text).unwrap_or_default();
                let is_left = self
                    .channels
                    .get(name)
                    .is_some_and(|on_wire| on_wire.ear.is_none());
                if is_left && self.is_next(name) {
                    self.confirmed(name)
                } else {
                    self.taken_away(name);
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether the next answer that is awaited is about this channel.
    fn is_next(&self, name: &str) -> bool {
        let Some(Expected::Channels(channels)) = self.expected.front() else {
            return false;
        };
        channels.front().is_some_and(|next| **next == *name)
    }

    /// The server has carried out the next command for a channel.
    fn confirmed(&mut self, name: &str) -> Result<(), String> {
        if !self.is_next(name) {
            return Err("the server answered out of order".to_owned());
        }
        if let Some(Expected::Channels(channels)) = self.expected.front_mut() {
            channels.pop_front();
            if channels.is_empty() {
                self.expected.pop_front();
            }
        }
        if let Some(on_wire) = self.channels.get_mut(name) {
            on_wire.unconfirmed = on_wire.unconfirmed.saturating_sub(1);
            match (on_wire.unconfirmed, &on_wire.ear) {
                (0, Some(_)) => self.tell(name, ChannelEvent::Ready),
                (0, None) => {
                    self.channels.remove(name);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The server has ended a subscription by itself: its slot has moved.
    fn taken_away(&mut self, name: &str) {
        self.tell(name, ChannelEvent::Lost);
        let Some(on_wire) = self.channels.get(name) else {
            return;
        };
        if let Some(topology) = self.subscriber.topology.upgrade() {
            topology.refresh_soon();
        }
        if on_wire.unconfirmed == 0
            && let Some((name, _)) = self.channels.remove_entry(name)
        {
            // Asked for again here, the server says where the slot is now.
            self.subscriber.post.put(name);
        }
    }

    /// The server did not carry out the oldest command.
    fn refused(&mut self, error: redis::ServerError) -> Result<(), String> {
        let Some(Expected::Channels(names)) = self.expected.pop_front() else {
            return Err(error.to_string());
        };
        let text = error.to_string();
        let error = redis::RedisError::from(error);
        if let Some((to, slot)) = error.redirect_node()
            && let Some(topology) = self.subscriber.topology.upgrade()
        {
            topology.moved(usize::from(slot), to, &self.address);
        } else if !std::mem::replace(&mut self.has_warned, true) {
            let channel = names.front().map_or("", |name| &**name);
            tracing::warn!(redis = %self.subscriber.node.name(), channel, error = text, "Redis refused a subscription; it is asked for again");
        }
        for name in names {
            let Some(on_wire) = self.channels.get_mut(&name) else {
                continue;
            };
            on_wire.unconfirmed = on_wire.unconfirmed.saturating_sub(1);
            if on_wire.unconfirmed == 0 {
                self.channels.remove(&name);
                self.refused.push(name);
            }
        }
        Ok(())
    }

    /// Tells all listeners that the connection is gone.
    fn lose_all(&mut self) {
        for on_wire in self.channels.values() {
            if let Some(ear) = &on_wire.ear {
                ear.tell(self.subscriber.post.number(), ChannelEvent::Lost);
            }
        }
        self.channels.clear();
    }
}

/// Commands of one write, by kind.
#[derive(Default)]
struct Commands {
    subscribe: VecDeque<Arc<str>>,
    unsubscribe: VecDeque<Arc<str>>,
    sharded: Vec<(&'static str, Arc<str>)>,
}

impl Commands {
    fn add(&mut self, wants: bool, is_sharded: bool, name: &Arc<str>) {
        match (wants, is_sharded) {
            (true, false) => self.subscribe.push_back(name.clone()),
            (false, false) => self.unsubscribe.push_back(name.clone()),
            (true, true) => self.sharded.push(("SSUBSCRIBE", name.clone())),
            (false, true) => self.sharded.push(("SUNSUBSCRIBE", name.clone())),
        }
    }

    fn pack(self, expected: &mut VecDeque<Expected>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut add = |command: &str, channels: VecDeque<Arc<str>>| {
            let mut packed = redis::cmd(command);
            for channel in &channels {
                packed.arg(&**channel);
            }
            bytes.extend(packed.get_packed_command());
            expected.push_back(Expected::Channels(channels));
        };
        for (command, channels) in [
            ("UNSUBSCRIBE", self.unsubscribe),
            ("SUBSCRIBE", self.subscribe),
        ] {
            if !channels.is_empty() {
                add(command, channels);
            }
        }
        for (command, channel) in self.sharded {
            // One each: channels of one command must share a slot.
            add(command, VecDeque::from([channel]));
        }
        bytes
    }
}
