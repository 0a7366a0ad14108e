//! A client of the test server: a replica, what it shows, and what it has to show.

use std::collections::HashMap;

use iii_stream_core::command::Condition;
use iii_stream_core::fields::Fields;
use iii_stream_core::{Demand, Group, Replica};
use serde_json::Value;

use crate::server::{Answer, Call, Out, Request, Server, Session};

/// What is shown: id and value, in order.
pub(crate) type View = Vec<(String, String)>;

/// A client with its connection.
pub(crate) struct Client {
    index: usize,
    pub(crate) replica: Replica,
    pub(crate) follows: Vec<Followed>,
    pub(crate) session: Option<Session>,
    /// How often it had to begin anew with another secret.
    lives: usize,
    pub(crate) mutations: Vec<Made>,
    /// Event frames of this connection.
    pub(crate) heard: Vec<String>,
    /// Whether the server's events come later than its pages.
    lags: bool,
    /// Whether a subscription may show less than it must, because another one was told that mutations are settled.
    is_ahead: bool,
}

/// A mutation that was made.
pub(crate) struct Made {
    call: Call,
    item: Option<String>,
    pub(crate) answer: Option<Answer>,
    /// Whether a `sync` or an echo said that it was taken.
    pub(crate) is_told: bool,
    /// The epoch in which that, or an answer, was heard.
    epoch: Option<usize>,
}

pub(crate) struct Followed {
    name: &'static str,
    pub(crate) item: Option<&'static str>,
    /// Where it is: epoch and sequence.
    at: Option<(usize, u64)>,
    pub(crate) is_live: bool,
    /// By id: order, value, sequence, whether it is pending.
    pub(crate) items: HashMap<String, (u64, String, Option<u64>, bool)>,
    customs: Vec<u64>,
}

impl Client {
    pub(crate) fn new(
        index: usize,
        follows: &[(&'static str, Option<&'static str>)],
        lags: bool,
    ) -> Self {
        let mut replica = Replica::new();
        let follows = follows.iter().map(|&(name, item)| {
            replica
                .open(name, "s", "g", item)
                .expect("a new subscription");
            Followed {
                name,
                item,
                at: None,
                is_live: false,
                items: HashMap::new(),
                customs: Vec::new(),
            }
        });
        let follows = follows.collect();
        Self {
            index,
            replica,
            follows,
            session: None,
            lives: 0,
            mutations: Vec::new(),
            heard: Vec::new(),
            lags,
            is_ahead: false,
        }
    }

    pub(crate) fn connect(&mut self) {
        if self.session.is_some() {
            return;
        }
        let mut session = Session::default();
        for followed in &self.follows {
            let join = self
                .replica
                .join(followed.name, true)
                .expect("a subscription");
            session.requests.push_back(Request::Join(join));
        }
        let unanswered = self.mutations.iter().filter(|made| made.answer.is_none());
        let unanswered = unanswered.filter(|made| !made.is_told);
        session
            .requests
            .extend(unanswered.map(|made| Request::Call(made.call.clone())));
        self.session = Some(session);
    }

    pub(crate) fn disconnect(&mut self) {
        self.session = None;
        self.heard.clear();
        self.replica.disconnect();
        for followed in &mut self.follows {
            followed.is_live = false;
        }
    }

    pub(crate) fn mutate(&mut self, function_id: &'static str, body: &str, condition: u8) {
        let client = format!("secret-{}-{}", self.index, self.lives);
        let own = self
            .mutations
            .iter()
            .filter(|made| made.call.client == client);
        let seq = own.count() as u64 + 1;
        let item = body.split('"').nth(3).map(str::to_owned);
        let seen = self.follows[0].items.get(item.as_deref().unwrap_or(""));
        let condition = match (function_id, condition) {
            ("stream::send", _) | (_, 0..=5) => String::new(),
            (_, 6) => r#","if":{"absent":true}"#.into(),
            (_, 7) => r#","if":{"exists":true}"#.into(),
            // What a program would do: the sequence that it sees.
            _ => match seen.and_then(|(_, _, seq, _)| *seq) {
                Some(seq) => format!(r#","if":{{"seq":{seq}}}"#),
                None => String::new(),
            },
        };
        let data = format!(r#"{{"stream_name":"s","group_id":"g",{body}{condition}}}"#);
        let mutated = self.replica.mutate(&client, seq, function_id, &data);
        mutated.expect("a call that can be accepted");
        let call = Call {
            client,
            seq,
            function_id,
            data,
        };
        if let Some(session) = &mut self.session {
            session.requests.push_back(Request::Call(call.clone()));
        }
        self.mutations.push(Made {
            item: item.filter(|_| function_id != "stream::send"),
            call,
            answer: None,
            is_told: false,
            epoch: None,
        });
    }

    pub(crate) fn hear(&mut self, out: Out, epoch: usize) {
        match out {
            Out::Frames(frames) => {
                for frame in frames {
                    self.receive(&frame, epoch);
                    self.heard.push(frame);
                }
            }
            Out::Answer(client, seq, answer) => self.answer(&client, seq, answer, epoch),
        }
    }

    fn answer(&mut self, client: &str, seq: u64, answer: Answer, epoch: usize) {
        let mut mutations = self.mutations.iter_mut();
        let made = mutations.find(|made| made.call.client == client && made.call.seq == seq);
        let made = made.expect("a mutation that was made");
        if made.answer.is_some() {
            return;
        }
        made.answer = Some(answer);
        made.epoch = made.epoch.or(Some(epoch));
        match answer {
            Answer::Taken { change_seq } => self.replica.acknowledge(client, seq, change_seq),
            Answer::Duplicate { at } => self.replica.acknowledge(client, seq, at),
            Answer::Refused => self.replica.withdraw(client, seq),
            Answer::Unknown => {
                for made in &mut self.mutations {
                    if made.answer.is_none() || made.call.seq == seq {
                        made.answer = Some(Answer::Unknown);
                        self.replica.withdraw(&made.call.client, made.call.seq);
                    }
                }
                self.lives += 1;
            }
        }
    }

    pub(crate) fn receive(&mut self, text: &str, epoch: usize) {
        let received = self.replica.receive(text).expect("a frame");
        let received: Value = received.map_or(Value::Null, |text| {
            serde_json::from_str(&text).expect("JSON text")
        });
        for name in received["rejoin"].as_array().into_iter().flatten() {
            // The last page may be of a later moment than its position: an item was deleted that is told of only now.
            let is_late = self.lags && text.contains(r#""base":"#);
            assert!(is_late, "what is told fits: {text}");
            let mut follows = self.follows.iter_mut();
            let followed = follows.find(|followed| name == followed.name);
            let followed = followed.expect("a subscription");
            followed.is_live = false;
            followed.at = None;
            let join = self
                .replica
                .join(followed.name, true)
                .expect("a subscription");
            if let Some(session) = &mut self.session {
                session.requests.push_back(Request::Join(join));
            }
        }
        for confirmed in received["confirmed"].as_array().into_iter().flatten() {
            let mut mutations = self.mutations.iter_mut();
            let made = mutations.find(|made| {
                confirmed["client"] == made.call.client && confirmed["seq"] == made.call.seq
            });
            let made = made.expect("a mutation that was made");
            assert!(!made.is_told, "told once");
            made.is_told = true;
            made.epoch = Some(epoch);
            let is_echo = confirmed["changeSeq"].is_u64();
            self.is_ahead |= !is_echo && 1 < self.follows.len();
        }
        let frame: Value = serde_json::from_str(text).expect("JSON text");
        let seq = frame["seq"].as_u64().expect("a sequence");
        let event = &frame["event"];
        for followed in &mut self.follows {
            let is_meant = frame
                .get("subscriptionId")
                .is_none_or(|name| name == followed.name);
            if !is_meant {
                continue;
            }
            match (event["type"].as_str(), event["mode"].as_str()) {
                (Some("sync"), Some("resume")) => followed.is_live = true,
                (Some("sync"), _) => {
                    followed.is_live = event["more"] == false;
                    if followed.is_live {
                        followed.at = Some((epoch, seq));
                    }
                }
                _ if followed.is_live => {
                    let is_wanted = followed.item.is_none_or(|item| frame["id"] == item);
                    if let Some((_, at)) = &mut followed.at
                        && is_wanted
                    {
                        *at = seq.max(*at);
                    }
                }
                _ => {}
            }
        }
        for event in received["events"].as_array().into_iter().flatten() {
            let mut follows = self.follows.iter_mut();
            let followed = follows.find(|followed| event["subscription"] == followed.name);
            let customs = &mut followed.expect("a subscription").customs;
            let seq = event["seq"].as_u64().expect("a sequence");
            assert!(!customs.contains(&(seq + 1_000_000 * epoch as u64)), "once");
            customs.push(seq + 1_000_000 * epoch as u64);
        }
    }

    /// Takes in what changed in what is shown.
    pub(crate) fn look(&mut self) {
        let dirty: Vec<_> = self.replica.dirty().cloned().collect();
        for followed in &mut self.follows {
            let is_dirty = dirty.iter().any(|name| **name == *followed.name);
            let text = self.replica.changes(followed.name).expect("a subscription");
            let fields = &["reset", "items", "removed", "synced"];
            let changes = Fields::read(&text, fields).expect("an object");
            let items: Vec<&serde_json::value::RawValue> =
                serde_json::from_str(changes.required(1).expect("items").get()).expect("a list");
            let removed: Vec<String> =
                serde_json::from_str(changes.required(2).expect("ids").get()).expect("a list");
            let is_reset = changes.optional_bool(0).expect("a flag") == Some(true);
            assert!(is_dirty || (!is_reset && items.is_empty() && removed.is_empty()));
            let is_synced = changes.optional_bool(3).expect("a flag") == Some(true);
            assert_eq!(is_synced, followed.is_live);
            if is_reset {
                followed.items.clear();
            }
            for id in removed {
                followed.items.remove(&id);
            }
            for item in items {
                let item = Fields::read(item.get(), &["id", "order", "value", "seq", "pending"]);
                let item = item.expect("an item");
                followed.items.insert(
                    item.string(0).expect("an id").into_owned(),
                    (
                        item.optional_u64(1).expect("a number").expect("an order"),
                        item.required(2).expect("a value").get().to_owned(),
                        item.optional_u64(3).expect("a number"),
                        item.optional_bool(4).expect("a flag") == Some(true),
                    ),
                );
            }
        }
    }

    /// Checks what is shown against a real group that carries out what is pending.
    pub(crate) fn check(&self, server: &Server) {
        if self.is_ahead {
            return;
        }
        for followed in &self.follows {
            let Some((epoch, seq)) = followed.at else {
                continue;
            };
            let pending: Vec<_> = self.pending(server, followed, epoch, seq);
            let has_seq = pending
                .iter()
                .any(|made| matches!(made.call.command().condition, Some(Condition::Seq(_))));
            if has_seq && 0 < epoch {
                // Sequences of another epoch may mean anything.
                continue;
            }
            let mut group = server.states[epoch][seq as usize].clone();
            for made in &pending {
                group.commit(made.call.command(), 0, Demand::Values);
            }
            assert_eq!(
                followed.view(),
                view_of(&mut group, followed.item),
                "{}",
                followed.name
            );
        }
    }

    /// The mutations that are to be shown above the state at `seq`.
    fn pending(&self, server: &Server, followed: &Followed, epoch: usize, seq: u64) -> Vec<&Made> {
        let effect = |made: &Made| {
            let key = (epoch, made.call.client.clone(), made.call.seq);
            server.effects.get(&key).copied().flatten()
        };
        let is_in = |made: &Made| effect(made).is_some_and(|effect| effect <= seq);
        let mutations = self.mutations.iter();
        let shown = mutations.filter(|made| {
            let is_followed = made
                .item
                .as_deref()
                .is_some_and(|id| followed.item.is_none_or(|item| item == id));
            let is_void = match made.answer {
                Some(Answer::Taken { change_seq: None } | Answer::Refused | Answer::Unknown) => {
                    true
                }
                Some(Answer::Duplicate { at }) => at.is_none_or(|at| at <= seq),
                Some(Answer::Taken { .. }) | None => made.is_told && effect(made).is_none(),
            };
            // The echo of a later one on the item settles those before.
            let is_overtaken = self.mutations.iter().any(|later| {
                later.call.client == made.call.client
                    && later.item == made.item
                    && made.call.seq < later.call.seq
                    && is_in(later)
            });
            // What was taken in another epoch is lost.
            let is_lost = made.epoch.is_some_and(|taken| taken < epoch);
            is_followed && !is_void && !is_lost && !is_overtaken && !is_in(made)
        });
        shown.collect()
    }
}

impl Followed {
    pub(crate) fn view(&self) -> View {
        let mut items: Vec<_> = self.items.iter().collect();
        items.sort_by_key(|(_, (order, ..))| *order);
        let items = items.into_iter();
        items
            .map(|(id, (_, value, ..))| (id.clone(), value.clone()))
            .collect()
    }
}

pub(crate) fn view_of(group: &mut Group, item: Option<&str>) -> View {
    let items = group.iter();
    let items = items.filter(|(id, _)| item.is_none_or(|item| item == &**id));
    items
        .map(|(id, item)| (id.to_string(), item.value.as_str().to_owned()))
        .collect()
}
