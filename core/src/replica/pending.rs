//! The mutations that the server has not dealt with, by client. Knows no items and no subscriptions.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::limits::{MUTATION_CLIENT_BYTES_MAX, REPLICA_PENDING_MAX};
use crate::mutation::client_tag;
use crate::name::{GroupKey, GroupRef};
use crate::replica::ReplicaError;
use crate::replica::overlay::Pending;
use crate::replica::view::in_order;

/// Clients without pending mutations that are remembered; beyond it all of these are forgotten.
const IDLE_CLIENTS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PendingMutations {
    clients: HashMap<Arc<str>, Client>,
    /// How many mutations are pending.
    len: usize,
    /// How many mutations there ever were.
    count: u64,
}

#[derive(Debug)]
struct Client {
    group: GroupKey,
    name: Arc<str>,
    tag: Arc<str>,
    /// In the order of their sequence.
    pendings: VecDeque<Arc<Pending>>,
}

/// Who makes a mutation, and the how-manieth it is of theirs and of all.
pub(super) struct Maker {
    pub(super) client: Arc<str>,
    pub(super) tag: Arc<str>,
    pub(super) seq: u64,
    pub(super) number: u64,
}

impl Client {
    /// Where a mutation is, or where it would be.
    fn place(&self, seq: u64) -> Result<usize, usize> {
        self.pendings
            .binary_search_by_key(&seq, |pending| pending.seq)
    }

    fn take(&mut self, seq: u64) -> Option<Arc<Pending>> {
        let place = self.place(seq).ok()?;
        self.pendings.remove(place)
    }
}

impl PendingMutations {
    /// Checks that a mutation can be taken in.
    ///
    /// Errors: [`ReplicaError`].
    pub(super) fn admit(
        &mut self,
        client: &str,
        seq: u64,
        group: GroupRef<'_>,
    ) -> Result<Maker, ReplicaError> {
        let bytes = client.len();
        if !(1..=MUTATION_CLIENT_BYTES_MAX).contains(&bytes) {
            return Err(ReplicaError::Client { bytes });
        }
        if seq == 0 {
            return Err(ReplicaError::MutationZero);
        }
        if REPLICA_PENDING_MAX <= self.len {
            return Err(ReplicaError::TooManyPending);
        }
        let known = match self.clients.get(client) {
            Some(known) => known,
            None => self.meet(client.into(), group),
        };
        if known.group.as_ref() != group {
            return Err(ReplicaError::ClientElsewhere);
        }
        if known.place(seq).is_ok() {
            return Err(ReplicaError::MutationExists { seq });
        }
        let (client, tag) = (known.name.clone(), known.tag.clone());
        self.count += 1;
        Ok(Maker {
            client,
            tag,
            seq,
            number: self.count,
        })
    }

    /// Takes note of a client that is not known.
    fn meet(&mut self, name: Arc<str>, group: GroupRef<'_>) -> &Client {
        let idle = self.clients.values();
        let idle = idle.filter(|client| client.pendings.is_empty()).count();
        if IDLE_CLIENTS_MAX < idle {
            self.clients.retain(|_, client| !client.pendings.is_empty());
        }
        self.clients.entry(name.clone()).or_insert_with(|| Client {
            group: group.to_key(),
            tag: client_tag(&name),
            name,
            pendings: VecDeque::new(),
        })
    }

    pub(super) fn insert(&mut self, pending: Arc<Pending>) {
        if let Some(client) = self.clients.get_mut(&pending.client)
            && let Err(place) = client.place(pending.seq)
        {
            client.pendings.insert(place, pending);
            self.len += 1;
        }
    }

    /// Takes a mutation out, with the group that it is for.
    pub(super) fn take(&mut self, client: &str, seq: u64) -> Option<(GroupKey, Arc<Pending>)> {
        let client = self.clients.get_mut(client)?;
        let pending = client.take(seq)?;
        self.len -= 1;
        Some((client.group.clone(), pending))
    }

    /// Takes out a mutation of the client with this tag.
    pub(super) fn take_echoed(
        &mut self,
        group: GroupRef<'_>,
        tag: &str,
        seq: u64,
    ) -> Option<Arc<Pending>> {
        let pending = self.client_of(group, tag)?.take(seq)?;
        self.len -= 1;
        Some(pending)
    }

    /// Takes out all mutations up to `seq` of the client with this tag, in order.
    pub(super) fn take_up_to(
        &mut self,
        group: GroupRef<'_>,
        tag: &str,
        seq: u64,
    ) -> Vec<Arc<Pending>> {
        let mut taken = Vec::new();
        if let Some(client) = self.client_of(group, tag) {
            let place = client
                .pendings
                .partition_point(|pending| pending.seq <= seq);
            taken = client.pendings.drain(..place).collect();
        }
        self.len -= taken.len();
        taken
    }

    fn client_of(&mut self, group: GroupRef<'_>, tag: &str) -> Option<&mut Client> {
        let mut clients = self.clients.values_mut();
        clients.find(|client| *client.tag == *tag && client.group.as_ref() == group)
    }

    /// What is pending in a group, in the order in which it was made.
    pub(super) fn of_group(&self, group: GroupRef<'_>) -> Vec<Arc<Pending>> {
        let clients = self.clients.values();
        let clients = clients.filter(|client| client.group.as_ref() == group);
        let pendings = clients.flat_map(|client| client.pendings.iter().cloned());
        let pendings: Vec<_> = pendings.collect();
        let numbers = pendings.iter().map(|pending| pending.number).collect();
        in_order(numbers)
            .map(|place| pendings[place].clone())
            .collect()
    }

    /// The clients with pending mutations in a group, those that made one first before the others.
    pub(super) fn clients_of_group(&self, group: GroupRef<'_>) -> Vec<&Arc<str>> {
        let clients = self.clients.values();
        let clients: Vec<_> = clients
            .filter(|client| client.group.as_ref() == group)
            .filter_map(|client| Some((client.pendings.front()?.number, &client.name)))
            .collect();
        let numbers = clients.iter().map(|(number, _)| *number).collect();
        in_order(numbers).map(|place| clients[place].1).collect()
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::command::Action;

    const GROUP: GroupRef<'_> = GroupRef {
        stream: "s",
        group: "g",
    };

    fn make(pendings: &mut PendingMutations, client: &str, seq: u64) -> Result<(), ReplicaError> {
        let made = pendings.admit(client, seq, GROUP)?;
        pendings.insert(Arc::new(Pending {
            client: made.client,
            tag: made.tag,
            seq: made.seq,
            number: made.number,
            item: None,
            action: Action::Delete,
            condition: None,
        }));
        Ok(())
    }

    #[test]
    fn clients_with_nothing_pending_are_forgotten_and_others_are_not() {
        let mut pendings = PendingMutations::default();
        assert_eq!(make(&mut pendings, "busy", 1), Ok(()));
        for n in 0..3 * IDLE_CLIENTS_MAX {
            let client = format!("idle-{n}");
            assert_eq!(make(&mut pendings, &client, 1), Ok(()));
            assert!(pendings.take(&client, 1).is_some());
            assert!(pendings.clients.len() <= IDLE_CLIENTS_MAX + 3, "{n}");
        }
        let again = Err(ReplicaError::MutationExists { seq: 1 });
        assert_eq!(make(&mut pendings, "busy", 1), again);
        assert_eq!(pendings.clients_of_group(GROUP).len(), 1);
    }

    #[test]
    fn no_more_are_pending_than_may_be_and_what_is_taken_makes_room() {
        let mut pendings = PendingMutations::default();
        for seq in 1..=REPLICA_PENDING_MAX as u64 {
            assert_eq!(make(&mut pendings, "c", seq), Ok(()));
        }
        let next = REPLICA_PENDING_MAX as u64 + 1;
        let full = make(&mut pendings, "d", 1);
        assert_eq!(full, Err(ReplicaError::TooManyPending));
        let taken = pendings.take_up_to(GROUP, &client_tag("c"), 3);
        let taken: Vec<_> = taken.iter().map(|pending| pending.seq).collect();
        assert_eq!(taken, [1, 2, 3]);
        assert_eq!(make(&mut pendings, "c", next), Ok(()));
        assert_eq!(pendings.len, REPLICA_PENDING_MAX - 2);
    }
}
