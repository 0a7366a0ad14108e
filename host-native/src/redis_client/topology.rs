//! Which servers there are, which slot is where, and where each channel is heard.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::address::{Address, Login};
use super::channel::Channel;
use super::cluster_slots::{Range, ask_slots, read_slots, slots_question};
use super::dial::dial;
use super::node::{Link, Node};
use super::options::{
    OWNER_TRUST, TOPOLOGY_PAUSE, TOPOLOGY_PERIOD, TOPOLOGY_PERIOD_BROKEN, TOPOLOGY_TIME_MAX,
};
use super::sentinel::Sentinels;
use super::slot::{SLOTS, Slot};
use super::subscriber::Subscriber;
use super::subscriptions::{Post, Subscriptions};
use crate::metrics::Metrics;

/// A server that we are connected to.
pub(super) struct Member {
    pub(super) node: Arc<Node>,
    pub(super) post: Arc<Post>,
    tasks: [AbortHandle; 2],
}

impl Drop for Member {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.node.stop();
    }
}

/// All servers.
pub(super) struct Topology {
    me: Weak<Self>,
    login: Login,
    connect_time_max: Duration,
    /// Addresses to begin with; empty unless it is a cluster.
    seeds: Vec<Address>,
    pub(super) subscriptions: Arc<Subscriptions>,
    state: RwLock<State>,
    changes: watch::Sender<u64>,
    refresh: Arc<Notify>,
    keeper: Mutex<Option<AbortHandle>>,
    metrics: Arc<Metrics>,
}

struct State {
    members: HashMap<Address, Arc<Member>>,
    owners: Owners,
    /// Where plain channels are heard.
    plain: Option<Arc<Member>>,
}

enum Owners {
    /// One server has everything.
    One(Option<Arc<Member>>),
    /// The slots of a cluster.
    Each(Vec<Option<Owner>>),
}

/// The server of one slot.
#[derive(Clone)]
struct Owner {
    member: Arc<Member>,
    since: Instant,
}

impl Owner {
    fn new(member: &Arc<Member>) -> Self {
        Self {
            member: member.clone(),
            since: Instant::now(),
        }
    }

    /// Whether it stays although `from` says that the slot is elsewhere. Servers hear of a move one after another: who has just
    /// become the owner is not doubted by another one that may not know it yet.
    fn stays(&self, from: &Address) -> bool {
        self.since.elapsed() < OWNER_TRUST
            && matches!(self.member.node.link(), Link::Up(_))
            && self.member.node.address() != *from
    }
}

impl Topology {
    fn new(
        seeds: Vec<Address>,
        owners: Owners,
        login: Login,
        connect_time_max: Duration,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            login,
            connect_time_max,
            seeds,
            subscriptions: Arc::new(Subscriptions::new(metrics.clone())),
            state: RwLock::new(State {
                members: HashMap::new(),
                owners,
                plain: None,
            }),
            changes: watch::Sender::new(0),
            refresh: Arc::default(),
            keeper: Mutex::default(),
            metrics,
        })
    }

    /// One server, or one master wherever its sentinels say that it is.
    pub(super) fn one(
        address: &Address,
        sentinels: Option<Sentinels>,
        login: Login,
        connect_time_max: Duration,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let topology = Self::new(
            Vec::new(),
            Owners::One(None),
            login,
            connect_time_max,
            metrics,
        );
        let member = topology.join(address, sentinels);
        {
            let mut state = topology.state.write();
            state.members.insert(address.clone(), member.clone());
            state.plain = Some(member.clone());
            state.owners = Owners::One(Some(member));
        }
        topology
    }

    /// A cluster.
    pub(super) fn cluster(
        seeds: Vec<Address>,
        ranges: &[Range],
        from: &Address,
        login: Login,
        connect_time_max: Duration,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let owners = Owners::Each(vec![None; SLOTS]);
        let topology = Self::new(seeds, owners, login, connect_time_max, metrics);
        topology.apply(ranges, from);
        let keeper = tokio::spawn(keep(Arc::downgrade(&topology), topology.refresh.clone()));
        *topology.keeper.lock() = Some(keeper.abort_handle());
        topology
    }

    /// Whether it is a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        !self.seeds.is_empty()
    }

    /// Whether channels with a slot are sharded.
    pub(super) fn is_sharded(&self, channel: &Channel) -> bool {
        self.is_cluster() && channel.slot.is_some()
    }

    /// Begins to keep a server connected.
    fn join(&self, address: &Address, sentinels: Option<Sentinels>) -> Arc<Member> {
        let node = Node::new(
            address.clone(),
            sentinels,
            !self.is_cluster(),
            self.login.clone(),
            self.connect_time_max,
            self.refresh.clone(),
            self.metrics.clone(),
        );
        let post = Arc::new(Post::new());
        let subscriber = Subscriber {
            node: node.clone(),
            post: post.clone(),
            subscriptions: self.subscriptions.clone(),
            topology: self.me.clone(),
            is_cluster: self.is_cluster(),
            metrics: self.metrics.clone(),
            connect_time_max: self.connect_time_max,
        };
        let keeper = tokio::spawn(node.clone().keep()).abort_handle();
        let subscriber = tokio::spawn(subscriber.keep()).abort_handle();
        Arc::new(Member {
            node,
            post,
            tasks: [keeper, subscriber],
        })
    }

    /// The server of a slot, if one is known.
    pub(super) fn owner(&self, slot: Slot) -> Option<Arc<Member>> {
        self.state.read().owner(slot.index())
    }

    /// The server of a slot, or any other where none is known.
    pub(super) fn owner_or_any(&self, slot: Slot) -> Option<Arc<Member>> {
        let state = self.state.read();
        state
            .owner(slot.index())
            .or_else(|| state.plain.clone())
            .or_else(|| state.members.values().next().cloned())
    }

    /// The address of a slot's server as it is shown.
    pub(super) fn name_of(&self, slot: Slot) -> Arc<str> {
        let owner = self.owner_or_any(slot);
        owner.map_or_else(|| "the cluster".into(), |owner| owner.node.name())
    }

    /// The server where plain channels are heard.
    pub(super) fn plain(&self) -> Option<Arc<Member>> {
        self.state.read().plain.clone()
    }

    /// All servers, by address.
    pub(super) fn members(&self) -> Vec<Arc<Member>> {
        let state = self.state.read();
        let mut members: Vec<_> = state.members.iter().collect();
        members.sort_by_key(|(address, _)| *address);
        members
            .into_iter()
            .map(|(_, member)| member.clone())
            .collect()
    }

    /// Whether each slot has a server, and each server is connected.
    pub(super) fn is_whole(&self) -> bool {
        let state = self.state.read();
        let is_covered = match &state.owners {
            Owners::One(owner) => owner.is_some(),
            Owners::Each(owners) => owners.iter().all(Option::is_some),
        };
        is_covered
            && state
                .members
                .values()
                .all(|member| matches!(member.node.link(), Link::Up(_)))
    }

    /// The server that a redirection names: `host:port`, or `:port` for the host that answered.
    pub(super) fn redirected(&self, to: &str, from: &Address) -> Option<Arc<Member>> {
        if !self.is_cluster() {
            return None;
        }
        let (host, port) = to.rsplit_once(':')?;
        let host = if host.is_empty() { &from.host } else { host };
        let address = Address::new(host, port.parse().ok()?);
        let mut state = self.state.write();
        if let Some(member) = state.members.get(&address) {
            return Some(member.clone());
        }
        let member = self.join(&address, None);
        state.members.insert(address, member.clone());
        Some(member)
    }

    /// A server says that a slot is elsewhere.
    pub(super) fn moved(&self, slot: usize, to: &str, from: &Address) {
        let Some(member) = self.redirected(to, from) else {
            return;
        };
        member.node.check_soon();
        {
            let mut state = self.state.write();
            if let Owners::Each(owners) = &mut state.owners
                && let Some(owner) = owners.get_mut(slot)
            {
                *owner = Some(Owner::new(&member));
            }
        }
        self.rehome();
        self.refresh_soon();
    }

    /// Something does not fit: the cluster is asked soon.
    pub(super) fn refresh_soon(&self) {
        self.refresh.notify_one();
    }

    /// Hears of changes of servers and slots.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The task that hears a channel.
    pub(super) fn post_of(&self, channel: &Channel) -> Arc<Post> {
        let member = match channel.slot {
            Some(slot) => self.owner_or_any(slot),
            None => self.plain(),
        };
        // Without any server there is nobody to hear; the next change of servers moves the channel.
        member.map_or_else(|| Arc::new(Post::new()), |member| member.post.clone())
    }

    fn rehome(&self) {
        self.subscriptions.rehome(|channel| self.post_of(channel));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Takes over what the server `from` says about the slots.
    fn apply(&self, ranges: &[Range], from: &Address) {
        let gone = {
            let mut guard = self.state.write();
            let state = &mut *guard;
            let Owners::Each(owners) = &mut state.owners else {
                return;
            };
            let mut claims = vec![None; SLOTS];
            let mut members = HashMap::new();
            for (first, last, address) in ranges {
                let member = members.entry(address.clone()).or_insert_with(|| {
                    let known = state.members.get(address).cloned();
                    known.unwrap_or_else(|| self.join(address, None))
                });
                for claim in claims.iter_mut().take(last + 1).skip(*first) {
                    *claim = Some(member.clone());
                }
            }
            for (owner, claim) in owners.iter_mut().zip(claims) {
                match (&*owner, &claim) {
                    (Some(known), Some(claim)) if Arc::ptr_eq(&known.member, claim) => {}
                    (Some(known), _) if known.stays(from) => {
                        let address = known.member.node.address();
                        members.insert(address, known.member.clone());
                    }
                    _ => *owner = claim.as_ref().map(Owner::new),
                }
            }
            std::mem::replace(&mut state.members, members)
        };
        self.choose_plain();
        self.rehome();
        drop(gone);
    }

    /// Plain channels stay where they are heard, as long as that server is there.
    fn choose_plain(&self) {
        let mut state = self.state.write();
        let is_up = |member: &Member| matches!(member.node.link(), Link::Up(_));
        let stays = state.plain.as_ref().is_some_and(|plain| {
            let known = state.members.get(&plain.node.address());
            known.is_some_and(|known| Arc::ptr_eq(known, plain)) && is_up(plain)
        });
        if !stays {
            let mut members: Vec<_> = state.members.iter().collect();
            members.sort_by_key(|(address, member)| (!is_up(member), *address));
            state.plain = members.first().map(|(_, member)| (*member).clone());
        }
    }

    /// Asks a server for the slots. Servers that are connected are asked first, then the addresses to begin with.
    async fn read(&self) {
        for member in self.members() {
            let Link::Up(connection) = member.node.link() else {
                continue;
            };
            let deadline = Instant::now() + TOPOLOGY_TIME_MAX;
            let question = slots_question().get_packed_command().into();
            if let Ok(mut answers) = connection.send(question, 1, deadline).await
                && let Some(ranges) = answers
                    .pop()
                    .and_then(|answer| read_slots(answer, &member.node.address()))
            {
                return self.apply(&ranges, &member.node.address());
            }
        }
        for seed in &self.seeds {
            if let Ok(mut dialed) = dial(seed, &self.login, TOPOLOGY_TIME_MAX).await
                && let Some(ranges) = ask_slots(&mut dialed, seed).await
            {
                return self.apply(&ranges, seed);
            }
        }
        self.choose_plain();
        self.rehome();
    }

    /// Ends all connections.
    pub(super) fn close(&self) {
        if let Some(keeper) = self.keeper.lock().take() {
            keeper.abort();
        }
        for member in self.members() {
            member.node.close("the client is closed");
            for task in &member.tasks {
                task.abort();
            }
        }
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn owner(&self, slot: usize) -> Option<Arc<Member>> {
        match &self.owners {
            Owners::One(owner) => owner.clone(),
            Owners::Each(owners) => {
                let owner = owners.get(slot)?.as_ref()?;
                Some(owner.member.clone())
            }
        }
    }
}

/// Asks for the slots at each sign of a change, and now and then.
async fn keep(topology: Weak<Topology>, refresh: Arc<Notify>) {
    loop {
        let period = match topology.upgrade() {
            None => return,
            Some(topology) if topology.is_whole() => TOPOLOGY_PERIOD,
            Some(_) => TOPOLOGY_PERIOD_BROKEN,
        };
        // The time is up, or somebody has seen a change: both mean to ask.
        let _ = tokio::time::timeout(period, refresh.notified()).await;
        match topology.upgrade() {
            None => return,
            Some(topology) => topology.read().await,
        }
        tokio::time::sleep(TOPOLOGY_PAUSE).await;
    }
}
