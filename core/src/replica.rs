//! What one client sees of the groups and items that it follows: what the server has confirmed, with the client's own pending
//! mutations on top, at every moment.
//!
//! The holder of a [`Replica`] has a connection and hands over every frame of it; it makes mutations, sends them, and says what
//! became of them. Texts are JSON, and exact: a value is what the server would write. Knows no socket and no clock.

mod confirmed;
mod error;
mod frame;
mod mutating;
mod overlay;
mod pending;
mod received;
mod receiving;
mod subscription;
mod view;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::OPS_VERSION;
use crate::command::Action;
use crate::limits::{JOIN_CLIENTS_MAX, SUBSCRIPTION_ID_BYTES_MAX};
use crate::name::{GroupKey, GroupRef, is_name};
use crate::text::{push_number, push_string};
pub use error::ReplicaError;
use overlay::Pending;
use pending::PendingMutations;
use subscription::Subscription;

/// See the module.
///
/// ```
/// use iii_stream_core::Replica;
///
/// let mut replica = Replica::new();
/// replica.open("s1", "todos", "list-1", None)?;
/// let join = replica.join("s1", true)?; // Send it.
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

    /// The text of the `join` message to send now. With it the subscription waits for its `sync`. `deltas` asks for operations
    /// where these are shorter than values; a replica takes both.
    ///
    /// Errors: `subscription_unknown`.
    pub fn join(&mut self, name: &str, deltas: bool) -> Result<String, ReplicaError> {
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
        out.push_str(r#","version":2"#);
        if deltas {
            out.push_str(r#","deltas":true,"core":"#);
            push_number(&mut out, OPS_VERSION);
        }
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
