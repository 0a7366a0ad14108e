//! A server of one group for tests of replicas: a real [`Group`], and connections with the real frames.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use iii_stream_core::command::{Mutation, read_delete, read_send, read_set, read_update};
use iii_stream_core::event::{delta_frame, wants};
use iii_stream_core::fields::Fields;
use iii_stream_core::version2::{Sync, page_sync_frame, resume_sync_frame};
use iii_stream_core::{
    Change, Command, Demand, Echo, Floor, Group, GroupLimits, GroupRef, Item, Outcome, Position,
    Refusal, client_tag,
};

pub(crate) const GROUP: GroupRef<'_> = GroupRef {
    stream: "s",
    group: "g",
};

const LIMITS: GroupLimits = GroupLimits {
    items_max: usize::MAX,
    bytes_max: usize::MAX,
    client_records_max: 100,
    hot_items_max: 2,
    history_changes_max: 6,
    history_bytes_max: 30_000,
};

/// A mutation as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) client: String,
    pub(crate) seq: u64,
    pub(crate) function_id: &'static str,
    pub(crate) data: String,
}

impl Call {
    pub(crate) fn command(&self) -> Command {
        let read = match self.function_id {
            "stream::set" => read_set,
            "stream::update" => read_update,
            "stream::delete" => read_delete,
            _ => read_send,
        };
        read(&self.data).expect("a call").command
    }
}

/// What comes of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Taken { change_seq: Option<u64> },
    Duplicate { at: Option<u64> },
    Refused,
    Unknown,
}

/// What goes out to a client. Frames that are written at once stay together.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    Frames(Vec<String>),
    Answer(String, u64, Answer),
}

#[derive(Clone, Debug)]
pub(crate) enum Request {
    Join(String),
    Call(Call),
}

/// See the module.
pub(crate) struct Server {
    pub(crate) epoch: usize,
    pub(crate) group: Group,
    /// The group after each change, by epoch.
    pub(crate) states: Vec<Vec<Group>>,
    changes: Vec<Arc<Change>>,
    /// The last change of each item.
    last: HashMap<String, u64>,
    /// The mutations taken from each client, with the group's sequence then.
    taken: HashMap<String, Vec<(u64, u64)>>,
    /// The changes of mutations, by epoch.
    pub(crate) effects: HashMap<(usize, String, u64), Option<u64>>,
}

/// A connection as the server sees it.
#[derive(Default)]
pub(crate) struct Session {
    subscriptions: Vec<Subscribed>,
    /// The last change that was written out.
    cursor: u64,
    pub(crate) requests: VecDeque<Request>,
    pub(crate) out: VecDeque<Out>,
}

struct Subscribed {
    name: String,
    item: Option<String>,
    clients: Vec<String>,
    /// The item after which the next page begins.
    paging: Option<u64>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let group = Group::new("e0".into(), Floor::default(), LIMITS);
        Self {
            epoch: 0,
            states: vec![vec![group.clone()]],
            group,
            changes: Vec::new(),
            last: HashMap::new(),
            taken: HashMap::new(),
            effects: HashMap::new(),
        }
    }

    /// Loses everything.
    pub(crate) fn restart(&mut self) {
        self.epoch += 1;
        let epoch = format!("e{}", self.epoch);
        self.group = Group::new(epoch.as_str().into(), Floor::default(), LIMITS);
        self.states.push(vec![self.group.clone()]);
        self.changes.clear();
        self.last.clear();
        self.taken.clear();
    }

    pub(crate) fn commit(&mut self, command: Command, demand: Demand) -> (Outcome, Option<u64>) {
        let committed = self.group.commit(command, 0, demand);
        if let Some(change) = committed.change {
            if let Some(id) = &change.item {
                self.last.insert(id.to_string(), change.seq);
            }
            self.changes.push(change);
            self.states[self.epoch].push(self.group.clone());
        }
        (committed.reply.outcome, committed.reply.seq)
    }

    /// Carries out the next request of a connection.
    pub(crate) fn serve(&mut self, session: &mut Session, lags: bool) {
        match session.requests.pop_front() {
            Some(Request::Join(text)) => self.join(session, &text, lags),
            Some(Request::Call(call)) => {
                let answer = self.call(&call);
                session
                    .out
                    .push_back(Out::Answer(call.client, call.seq, answer));
            }
            None => {}
        }
    }

    fn call(&mut self, call: &Call) -> Answer {
        let mut command = call.command();
        let (client, seq) = (call.client.as_str().into(), call.seq);
        let id = command.item.clone();
        let mutation = format!(r#"{{"client":"{client}","seq":{seq}}}"#);
        let with = call
            .data
            .replacen('{', &format!(r#"{{"mutation":{mutation},"#), 1);
        let sent = Call {
            data: with,
            ..call.clone()
        };
        command.mutation = sent.command().mutation;
        assert!(matches!(&command.mutation, Some(Mutation { client: own, .. }) if *own == client));
        let (outcome, change_seq) = self.commit(command, Demand::Ops);
        let answer = match outcome {
            Outcome::Duplicate { .. } => {
                let at = id.and_then(|id| self.last.get(&*id).copied());
                return Answer::Duplicate { at };
            }
            Outcome::Refused(Refusal::MutationUnknown { .. }) => return Answer::Unknown,
            Outcome::Refused(Refusal::MutationGap { .. }) => panic!("calls are sent in order"),
            Outcome::Refused(_) => Answer::Refused,
            _ => Answer::Taken { change_seq },
        };
        let taken = self.taken.entry(call.client.clone()).or_default();
        taken.push((seq, self.group.seq()));
        let key = (self.epoch, call.client.clone(), seq);
        assert!(self.effects.insert(key, change_seq).is_none(), "taken once");
        answer
    }

    fn join(&mut self, session: &mut Session, text: &str, lags: bool) {
        let message = Fields::read(text, &["data"]).expect("a message");
        let data = message.required(0).expect("data").get();
        let fields = ["subscriptionId", "id", "since", "clients"];
        let fields: &'static [_; 4] = Box::leak(Box::new(fields));
        let data = Fields::read(data, fields).expect("data");
        let name = data.string(0).expect("a name").into_owned();
        let since = data.optional(2).map(|since| {
            let since = Fields::read(since.get(), &["epoch", "seq"]).expect("a position");
            Position {
                epoch: since.string(0).expect("an epoch").as_ref().into(),
                seq: since.optional_u64(1).expect("a number").expect("a number"),
            }
        });
        let clients = data.optional(3).map(|clients| clients.get().to_owned());
        session.subscriptions.retain(|other| other.name != name);
        session.subscriptions.push(Subscribed {
            name,
            item: data.optional_string(1).expect("an item").map(Into::into),
            clients: clients.map_or_else(Vec::new, |clients| {
                serde_json::from_str(&clients).expect("clients")
            }),
            paging: None,
        });
        let index = session.subscriptions.len() - 1;
        if lags && index == 0 {
            // What was before is not told as events.
            session.cursor = self.group.seq();
        }
        if let Some(since) = &since
            && *since.epoch == **self.group.epoch()
            && self.resume(session, index, since.seq)
        {
            return;
        }
        self.page(session, index, 0, since.is_some(), lags);
    }

    /// Writes out the changes that were not yet.
    pub(crate) fn pump(&self, session: &mut Session) {
        for change in &self.changes {
            let mut subscriptions = session.subscriptions.iter();
            let is_wanted =
                subscriptions.any(|subscribed| wants(subscribed.item.as_deref(), change));
            if session.cursor < change.seq && is_wanted {
                let frame = delta_frame(GROUP, change, None).expect("a frame");
                session.out.push_back(Out::Frames(vec![frame]));
            }
        }
        session.cursor = self.group.seq();
    }

    fn resume(&self, session: &mut Session, index: usize, from: u64) -> bool {
        let subscribed = &session.subscriptions[index];
        let item = subscribed.item.clone();
        let Some(changes) = self.group.changes_since(from, item.as_deref(), false) else {
            return false;
        };
        self.pump(session);
        let subscribed = &mut session.subscriptions[index];
        subscribed.paging = None;
        let mutations = self.mutations(subscribed, session.cursor);
        let sync = self.sync(subscribed, session.cursor, Some(&mutations));
        let mut frames = vec![resume_sync_frame(&sync, from)];
        frames.extend(
            changes
                .iter()
                .map(|change| delta_frame(GROUP, change, Some(&subscribed.name)).expect("a frame")),
        );
        session.out.push_back(Out::Frames(frames));
        true
    }

    fn page(&mut self, session: &mut Session, index: usize, after: u64, reset: bool, lags: bool) {
        if !lags {
            self.pump(session);
        }
        let subscribed = &mut session.subscriptions[index];
        let (items, more): (Vec<(Arc<str>, Item)>, _) = match &subscribed.item {
            Some(id) => {
                let item = self.group.get(id).map(|item| (id.as_str().into(), item));
                (item.into_iter().collect(), false)
            }
            None => {
                let page = self.group.page(after, 2, usize::MAX);
                (page.items, page.more)
            }
        };
        let last = items.last().map(|(_, item)| item.created_seq);
        subscribed.paging = last.filter(|_| more);
        let mutations = self.mutations(subscribed, session.cursor);
        let sync = self.sync(subscribed, session.cursor, Some(&mutations));
        let frame = page_sync_frame(&sync, &items, more, reset);
        session.out.push_back(Out::Frames(vec![frame]));
    }

    /// Writes out the next page of a snapshot.
    pub(crate) fn next_page(&mut self, session: &mut Session, lags: bool) {
        let mut subscriptions = session.subscriptions.iter();
        if let Some(index) = subscriptions.position(|subscribed| subscribed.paging.is_some()) {
            let after = session.subscriptions[index].paging.unwrap_or(0);
            self.page(session, index, after, false, lags);
        }
    }

    pub(crate) fn is_paging(&self, session: &Session) -> bool {
        let mut subscriptions = session.subscriptions.iter();
        subscriptions.any(|subscribed| subscribed.paging.is_some())
    }

    /// Changes pass the client by; it is told what it missed.
    pub(crate) fn remedy(&mut self, session: &mut Session, resumes: bool, lags: bool) {
        let missed_from = session.cursor;
        session.cursor = self.group.seq();
        for index in 0..session.subscriptions.len() {
            let is_live = session.subscriptions[index].paging.is_none();
            if !(resumes && is_live && self.resume(session, index, missed_from)) {
                self.page(session, index, 0, true, lags);
            }
        }
    }

    fn sync<'a>(
        &'a self,
        subscribed: &'a Subscribed,
        seq: u64,
        mutations: Option<&'a [Echo]>,
    ) -> Sync<'a> {
        Sync {
            group: GROUP,
            item: subscribed.item.as_deref(),
            subscription_id: &subscribed.name,
            epoch: self.group.epoch(),
            seq,
            timestamp: 0,
            mutations,
        }
    }

    /// The last mutations of the clients asked about that were taken up to `seq`.
    fn mutations(&self, subscribed: &Subscribed, seq: u64) -> Vec<Echo> {
        let taken = subscribed.clients.iter().filter_map(|client| {
            let mut taken = self.taken.get(client)?.iter().rev();
            let (last, _) = taken.find(|(_, group_seq)| *group_seq <= seq)?;
            let tag = client_tag(client);
            Some(Echo { tag, seq: *last })
        });
        taken.collect()
    }
}
