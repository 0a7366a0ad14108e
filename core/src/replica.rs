//! What one client sees of the groups and items that it follows: what the server has confirmed, with the client's own pending
//! mutations on top, at every moment.
//!
//! The holder of a [`Replica`] has a connection and hands over every frame of it; it makes mutations, sends them, and says what
//! became of them. Texts are JSON, and exact: a value is what the server would write. Knows no socket and no clock.

mod confirmed;
mod frame;
mod overlay;
mod pending;
mod received;
mod subscription;
mod view;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use hashbrown::HashMap;

use crate::OPS_VERSION;
use crate::command::{Action, Write, read_delete, read_send, read_set, read_update};
use crate::error::CallError;
use crate::limits::{JOIN_CLIENTS_MAX, MUTATION_CLIENT_BYTES_MAX, NAME_BYTES_MAX};
use crate::limits::{REPLICA_PENDING_MAX, SUBSCRIPTION_ID_BYTES_MAX};
use crate::name::{GroupKey, GroupRef, is_name};
use crate::text::{push_number, push_string};
use frame::{ErrorFrame, Event, Frame, StreamFrame};
use overlay::{Pending, Prediction};
use pending::{Maker, PendingMutations};
use received::{ConfirmedMutation, Received, ReceivedError};
use subscription::{Promise, Subscription};

/// Why a replica does not do what it is asked. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// A subscription of this name is open.
    #[error("a subscription `{name}` is open already")]
    SubscriptionExists {
        /// The name.
        name: String,
    },
    /// No subscription of this name is open.
    #[error("no subscription `{name}` is open")]
    SubscriptionUnknown {
        /// The name.
        name: String,
    },
    /// The name of a subscription is empty or too long.
    #[error(
        "the subscription's name has {bytes} bytes, it may have 1 to {SUBSCRIPTION_ID_BYTES_MAX}"
    )]
    SubscriptionName {
        /// Its length in bytes of UTF-8.
        bytes: usize,
    },
    /// The name of a stream, a group or an item is empty or too long.
    #[error("the {what}'s name has {bytes} bytes, a name has 1 to {NAME_BYTES_MAX}")]
    Name {
        /// Which of them.
        what: &'static str,
        /// Its length in bytes of UTF-8.
        bytes: usize,
    },
    /// A frame cannot be read.
    #[error("the frame cannot be read: {reason}")]
    Frame {
        /// What is wrong with it.
        reason: String,
    },
    /// The server would refuse the call.
    #[error("{0}")]
    Call(#[from] CallError),
    /// The function is none that can be a mutation.
    #[error("`{function_id}` is not stream::set, stream::update, stream::delete or stream::send")]
    Function {
        /// The function's id.
        function_id: String,
    },
    /// The name of a mutation's client is empty or too long.
    #[error("the client's name has {bytes} bytes, allowed are 1 to {MUTATION_CLIENT_BYTES_MAX}")]
    Client {
        /// Its length in bytes of UTF-8.
        bytes: usize,
    },
    /// A client makes mutations in one group only: it counts them there.
    #[error("this client's mutations are of another group")]
    ClientElsewhere,
    /// A mutation is numbered 0.
    #[error("the mutation's seq is 0, the first mutation of a client is 1")]
    MutationZero,
    /// The client's mutation of this number is pending.
    #[error("the client's mutation {seq} is pending already")]
    MutationExists {
        /// The number.
        seq: u64,
    },
    /// As many mutations are pending as may be.
    #[error("{REPLICA_PENDING_MAX} mutations are pending, which is the limit")]
    TooManyPending,
}

impl ReplicaError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SubscriptionExists { .. } => "subscription_exists",
            Self::SubscriptionUnknown { .. } => "subscription_unknown",
            Self::SubscriptionName { .. } | Self::Name { .. } => "invalid_name",
            Self::Frame { .. } => "frame_invalid",
            Self::Call(error) => error.code(),
            Self::Function { .. } => "function_not_found",
            Self::Client { .. } | Self::ClientElsewhere | Self::MutationZero => "mutation_invalid",
            Self::MutationExists { .. } => "mutation_exists",
            Self::TooManyPending => "too_many_pending",
        }
    }
}

/// See the module.
///
/// ```
/// use iii_stream_core::Replica;
///
/// let mut replica = Replica::new();
/// replica.open("s1", "todos", "list-1", None)?;
/// let join = replica.join("s1")?; // Send it.
/// assert!(join.starts_with(r#"{"type":"join","data":{"subscriptionId":"s1""#));
/// replica.receive(r#"{"type":"stream","timestamp":1,"streamName":"todos","groupId":"list-1","id":null,
///     "subscriptionId":"s1","epoch":"k3","seq":7,"event":{"type":"sync","mode":"snapshot","items":[],"more":false}}"#)?;
/// replica.mutate("secret", 1, "stream::set",
///     r#"{"stream_name":"todos","group_id":"list-1","item_id":"t1","data":{"done":false}}"#)?;
/// assert!(replica.changes("s1")?.contains(r#"{"id":"t1","value":{"done":false},"seq":null,"#));
/// # Ok::<(), iii_stream_core::ReplicaError>(())
/// ```
#[derive(Debug, Default)]
pub struct Replica {
    subscriptions: HashMap<Arc<str>, Entry>,
    /// The subscriptions of each group.
    groups: HashMap<GroupKey, Vec<Arc<str>>>,
    pendings: PendingMutations,
}

#[derive(Debug)]
struct Entry {
    group: GroupKey,
    subscription: Subscription,
}

impl Replica {
    /// One that follows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows a group, or one item of it. `name` is the subscription's id on the connection.
    ///
    /// Errors: `subscription_exists`, `invalid_name`.
    pub fn open(
        &mut self,
        name: &str,
        stream: &str,
        group: &str,
        item: Option<&str>,
    ) -> Result<(), ReplicaError> {
        let bytes = name.len();
        if !(1..=SUBSCRIPTION_ID_BYTES_MAX).contains(&bytes) {
            return Err(ReplicaError::SubscriptionName { bytes });
        }
        let names = [
            ("stream", Some(stream)),
            ("group", Some(group)),
            ("item", item),
        ];
        for (what, name) in names {
            if let Some(name) = name.filter(|name| !is_name(name)) {
                let bytes = name.len();
                return Err(ReplicaError::Name { what, bytes });
            }
        }
        if self.subscriptions.contains_key(name) {
            let name = name.into();
            return Err(ReplicaError::SubscriptionExists { name });
        }
        let group = GroupRef { stream, group };
        let name: Arc<str> = name.into();
        let mut subscription = Subscription::new(name.clone(), item.map(Into::into));
        for pending in self.pendings.of_group(group) {
            if let Some(id) = shown_item(&pending)
                && subscription.follows(Some(id))
            {
                subscription.show(id, pending.clone());
            }
        }
        let group = group.to_key();
        let of_group = self.groups.entry(group.clone()).or_default();
        of_group.push(name.clone());
        self.subscriptions.insert(
            name,
            Entry {
                group,
                subscription,
            },
        );
        Ok(())
    }

    /// Follows it no more. What is pending stays so.
    pub fn close(&mut self, name: &str) {
        let Some(Entry { group, .. }) = self.subscriptions.remove(name) else {
            return;
        };
        if let Some(of_group) = self.groups.get_mut(&group) {
            of_group.retain(|other| **other != *name);
            if of_group.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// The text of the `join` message to send now. With it the subscription waits for its `sync`.
    ///
    /// Errors: `subscription_unknown`.
    pub fn join(&mut self, name: &str) -> Result<String, ReplicaError> {
        let Entry {
            group,
            subscription,
        } = entry(&mut self.subscriptions, name)?;
        let mut out = String::from(r#"{"type":"join","data":{"subscriptionId":"#);
        push_string(&mut out, name);
        out.push_str(r#","streamName":"#);
        push_string(&mut out, &group.stream);
        out.push_str(r#","groupId":"#);
        push_string(&mut out, &group.group);
        if let Some(item) = subscription.item() {
            out.push_str(r#","id":"#);
            push_string(&mut out, item);
        }
        out.push_str(r#","version":2,"deltas":true,"core":"#);
        push_number(&mut out, OPS_VERSION);
        if let Some(since) = subscription.ask() {
            out.push_str(r#","since":{"epoch":"#);
            push_string(&mut out, &since.epoch);
            out.push_str(r#","seq":"#);
            push_number(&mut out, since.seq);
            out.push('}');
        }
        let clients = self.pendings.clients_of_group(group.as_ref());
        if !clients.is_empty() {
            out.push_str(r#","clients":["#);
            for (index, client) in clients.into_iter().take(JOIN_CLIENTS_MAX).enumerate() {
                if 0 < index {
                    out.push(',');
                }
                push_string(&mut out, client);
            }
            out.push(']');
        }
        out.push_str("}}");
        Ok(out)
    }

    /// The connection is gone. Snapshots that were half read are dropped; what is shown stays.
    pub fn disconnect(&mut self) {
        for entry in self.subscriptions.values_mut() {
            entry.subscription.hang_up();
        }
    }

    /// Takes a frame of the connection. Gives what must be heard of it beside what changed in items, as JSON text; `None` is
    /// nothing. Frames of other types than `stream` and `error`, and of what is not followed, are ignored.
    ///
    /// Shape: `{"rejoin":["s1"]?,"synced":["s1"]?,"denied":["s1"]?,"errors":[{"subscription"?,"code","message"}]?,
    /// "events":[{"subscription","id","seq","type","data"}]?,"confirmed":[{"client","seq","changeSeq"}]?,"version1":true?}`.
    /// Errors: `frame_invalid`.
    pub fn receive(&mut self, text: &str) -> Result<Option<String>, ReplicaError> {
        let frame = Frame::read(text).map_err(|reason| ReplicaError::Frame { reason })?;
        let mut received = Received::default();
        match frame {
            Frame::Stream(frame) => self.receive_stream(frame, &mut received),
            Frame::Error(error) => self.receive_error(&error, &mut received),
            Frame::Other => {}
        }
        Ok(received.into_json())
    }

    fn receive_error(&mut self, error: &ErrorFrame<'_>, received: &mut Received) {
        let subscription = error.subscription.as_deref();
        if let Some(entry) = subscription.and_then(|name| self.subscriptions.get_mut(name)) {
            entry.subscription.fail();
        }
        received.errors.push(ReceivedError {
            subscription: subscription.map(Into::into),
            code: error.code.as_ref().into(),
            message: error.message.as_ref().into(),
        });
    }

    fn receive_stream(&mut self, mut frame: StreamFrame<'_>, received: &mut Received) {
        let group = GroupRef {
            stream: &frame.stream,
            group: &frame.group,
        };
        let mut event = mem::replace(&mut frame.event, Event::Other);
        let echo = frame
            .mutation
            .as_ref()
            .and_then(|taken| self.pendings.take_echoed(group, &taken.tag, taken.seq));
        let of_group = self.groups.get(&group).map_or(&[][..], Vec::as_slice);
        let mut promises = Vec::new();
        for (index, name) in of_group.iter().enumerate() {
            let Some(Entry { subscription, .. }) = self.subscriptions.get_mut(name) else {
                continue;
            };
            let is_named = frame
                .subscription
                .as_ref()
                .is_none_or(|own| **own == **name);
            let is_sync = matches!(event, Event::Value(_) | Event::Values(_));
            let is_meant = if is_sync {
                subscription.item() == frame.item.as_deref()
            } else {
                subscription.follows(frame.item.as_deref())
            };
            if is_named && is_meant {
                let event = if index + 1 == of_group.len() {
                    mem::replace(&mut event, Event::Other)
                } else {
                    event.clone()
                };
                subscription.receive(&frame, event, received);
                if let Some(promise) = subscription.kept_promise() {
                    promises.push((name.clone(), promise));
                }
            }
            // Also where the frame was for others, or too early.
            if let (Some(pending), Some(seq)) = (&echo, frame.seq)
                && let Some(id) = shown_item(pending)
                && subscription.follows(Some(id))
            {
                subscription.acknowledge(id, pending, seq);
            }
        }
        if let Some(pending) = echo {
            received.confirmed.push(ConfirmedMutation {
                client: pending.client.clone(),
                seq: pending.seq,
                change_seq: frame.seq,
            });
        }
        for (name, promise) in promises {
            self.keep_promise(group, &name, &promise, received);
        }
    }

    /// A subscription is where a `sync` has said that mutations were taken.
    fn keep_promise(
        &mut self,
        group: GroupRef<'_>,
        teller: &str,
        promise: &Promise,
        received: &mut Received,
    ) {
        for (tag, seq) in &promise.taken {
            for pending in self.pendings.take_up_to(group, tag, *seq) {
                let of_group = self.groups.get(&group).map_or(&[][..], Vec::as_slice);
                for name in of_group {
                    if let Some(Entry { subscription, .. }) = self.subscriptions.get_mut(name)
                        && let Some(id) = shown_item(&pending)
                        && subscription.follows(Some(id))
                    {
                        if **name == *teller {
                            subscription.withdraw(id, &pending);
                        } else if subscription.item().is_some() {
                            subscription.acknowledge_by_sync(id, &pending);
                        } else {
                            subscription.acknowledge(id, &pending, promise.until);
                        }
                    }
                }
                received.confirmed.push(ConfirmedMutation {
                    client: pending.client.clone(),
                    seq: pending.seq,
                    change_seq: None,
                });
            }
        }
    }

    /// Shows a mutation at once. `data` is the input of the function without `mutation`. Gives what the server is expected to
    /// say, as JSON text.
    ///
    /// Shape: `{"opErrors":[{"op_index","code","message","doc_url"}],"refused":{"code","message"}|null}`. Errors: those of the
    /// call where it can never be accepted; `function_not_found`, `mutation_invalid`, `mutation_exists`, `too_many_pending`.
    pub fn mutate(
        &mut self,
        client: &str,
        seq: u64,
        function_id: &str,
        data: &str,
    ) -> Result<String, ReplicaError> {
        let read = match function_id {
            "stream::set" => read_set,
            "stream::update" => read_update,
            "stream::delete" => read_delete,
            "stream::send" => read_send,
            _ => {
                let function_id = function_id.into();
                return Err(ReplicaError::Function { function_id });
            }
        };
        let Write { target, command } = read(data)?;
        let group = target.as_ref();
        let Maker {
            client,
            tag,
            seq,
            number,
        } = self.pendings.admit(client, seq, group)?;
        let pending = Arc::new(Pending {
            client,
            tag,
            seq,
            number,
            item: command.item,
            action: command.action,
            condition: command.condition,
        });
        self.pendings.insert(pending.clone());
        let mut prediction = None;
        if let Some(id) = shown_item(&pending) {
            for name in self.groups.get(&group).map_or(&[][..], Vec::as_slice) {
                if let Some(Entry { subscription, .. }) = self.subscriptions.get_mut(name)
                    && subscription.follows(Some(id))
                {
                    let predicted = subscription.show(id, pending.clone());
                    prediction = prediction.or(predicted);
                }
            }
        }
        Ok(prediction_json(&prediction.unwrap_or_default()))
    }

    /// The server has taken a mutation; `change_seq` is the sequence of its change, `None` where nothing changed. It stays shown
    /// until what is confirmed has come to that.
    pub fn acknowledge(&mut self, client: &str, seq: u64, change_seq: Option<u64>) {
        self.settle(client, seq, |subscription, id, pending| match change_seq {
            Some(change_seq) => subscription.acknowledge(id, pending, change_seq),
            None => subscription.withdraw(id, pending),
        });
    }

    /// A mutation will never take effect, or nobody can know: it is not shown any more.
    pub fn withdraw(&mut self, client: &str, seq: u64) {
        self.settle(client, seq, Subscription::withdraw);
    }

    fn settle(
        &mut self,
        client: &str,
        seq: u64,
        settle: impl Fn(&mut Subscription, &Arc<str>, &Pending),
    ) {
        let Some((group, pending)) = self.pendings.take(client, seq) else {
            return;
        };
        let Some(id) = shown_item(&pending) else {
            return;
        };
        for name in self.groups.get(&group).map_or(&[][..], Vec::as_slice) {
            if let Some(Entry { subscription, .. }) = self.subscriptions.get_mut(name)
                && subscription.follows(Some(id))
            {
                settle(subscription, id, &pending);
            }
        }
    }

    /// The subscriptions for which [`Replica::changes`] has something to tell, in no order.
    pub fn dirty(&self) -> impl Iterator<Item = &Arc<str>> {
        let entries = self.subscriptions.iter();
        entries.filter_map(|(name, entry)| entry.subscription.is_dirty().then_some(name))
    }

    /// What changed in what a subscription shows since this was asked last, all of it at first; as JSON text.
    ///
    /// Shape: `{"reset","synced","items":[{"id","value","seq","order","pending"}],"removed":["id"]}`. With `reset` nothing else
    /// is there. Items stand in the order of their `order`; it may change, and then the item is told again. `seq` is `null`
    /// where only pending mutations made the item. Errors: `subscription_unknown`.
    pub fn changes(&mut self, name: &str) -> Result<String, ReplicaError> {
        let entry = entry(&mut self.subscriptions, name)?;
        Ok(entry.subscription.changes())
    }
}

fn entry<'e>(
    subscriptions: &'e mut HashMap<Arc<str>, Entry>,
    name: &str,
) -> Result<&'e mut Entry, ReplicaError> {
    let entry = subscriptions.get_mut(name);
    entry.ok_or_else(|| ReplicaError::SubscriptionUnknown { name: name.into() })
}

/// The item that a mutation changes; an event changes none.
fn shown_item(pending: &Pending) -> Option<&Arc<str>> {
    match pending.action {
        Action::Send { .. } => None,
        Action::Set { .. } | Action::Update { .. } | Action::Delete => pending.item.as_ref(),
    }
}

fn prediction_json(prediction: &Prediction) -> String {
    let mut out = String::from(r#"{"opErrors":"#);
    if prediction.errors.is_empty() {
        out.push_str("[]");
    } else {
        // Numbers and strings in a list always have a JSON form.
        out.push_str(&serde_json::to_string(&prediction.errors).unwrap_or_default());
    }
    match &prediction.refused {
        Some((code, message)) => {
            out.push_str(r#","refused":{"code":"#);
            push_string(&mut out, code);
            out.push_str(r#","message":"#);
            push_string(&mut out, message);
            out.push_str("}}");
        }
        None => out.push_str(r#","refused":null}"#),
    }
    out
}
