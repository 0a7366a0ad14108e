//! What a replica shows, whatever happens: what the server has confirmed, with the pending mutations carried out on top by a
//! real group; and in the end the group as it stands.

mod session;

use std::collections::HashMap;

use iii_stream_core::command::Condition;
use iii_stream_core::fields::Fields;
use iii_stream_core::{Demand, Group, Json, Replica};
use proptest::prelude::*;
use serde_json::Value;

use session::{Answer, Call, Out, Request, Server, Session};

/// What is shown: id and value, in order.
type View = Vec<(String, String)>;

/// A client with its connection.
struct Client {
    index: usize,
    replica: Replica,
    follows: Vec<Followed>,
    session: Option<Session>,
    /// How often it had to begin anew with another secret.
    lives: usize,
    mutations: Vec<Made>,
    /// Event frames of this connection.
    heard: Vec<String>,
    /// Whether a subscription may show less than it must, because another one was told that mutations are settled.
    is_ahead: bool,
}

/// A mutation that was made.
struct Made {
    call: Call,
    item: Option<String>,
    answer: Option<Answer>,
    /// Whether a `sync` or an echo said that it was taken.
    is_told: bool,
    /// The epoch in which that, or an answer, was heard.
    epoch: Option<usize>,
}

struct Followed {
    name: &'static str,
    item: Option<&'static str>,
    /// Where it is: epoch and sequence.
    at: Option<(usize, u64)>,
    is_live: bool,
    /// By id: order, value, sequence, whether it is pending.
    items: HashMap<String, (u64, String, Option<u64>, bool)>,
    customs: Vec<u64>,
}

impl Client {
    fn new(index: usize, follows: &[(&'static str, Option<&'static str>)]) -> Self {
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
            is_ahead: false,
        }
    }

    fn connect(&mut self) {
        if self.session.is_some() {
            return;
        }
        let mut session = Session::default();
        for followed in &self.follows {
            let join = self.replica.join(followed.name).expect("a subscription");
            session.requests.push_back(Request::Join(join));
        }
        let unanswered = self.mutations.iter().filter(|made| made.answer.is_none());
        let unanswered = unanswered.filter(|made| !made.is_told);
        session
            .requests
            .extend(unanswered.map(|made| Request::Call(made.call.clone())));
        self.session = Some(session);
    }

    fn disconnect(&mut self) {
        self.session = None;
        self.heard.clear();
        self.replica.disconnect();
        for followed in &mut self.follows {
            followed.is_live = false;
        }
    }

    fn mutate(&mut self, function_id: &'static str, body: &str, condition: u8) {
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

    fn hear(&mut self, out: Out, epoch: usize) {
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

    fn receive(&mut self, text: &str, epoch: usize) {
        let received = self.replica.receive(text).expect("a frame");
        let received: Value = received.map_or(Value::Null, |text| {
            serde_json::from_str(&text).expect("JSON text")
        });
        assert!(
            received.get("rejoin").is_none(),
            "what is told fits: {text}"
        );
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
    fn look(&mut self) {
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
    fn check(&self, server: &Server) {
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
    fn view(&self) -> View {
        let mut items: Vec<_> = self.items.iter().collect();
        items.sort_by_key(|(_, (order, ..))| *order);
        let items = items.into_iter();
        items
            .map(|(id, (_, value, ..))| (id.clone(), value.clone()))
            .collect()
    }
}

fn view_of(group: &mut Group, item: Option<&str>) -> View {
    let items = group.iter();
    let items = items.filter(|(id, _)| item.is_none_or(|item| item == &**id));
    items
        .map(|(id, item)| (id.to_string(), item.value.as_str().to_owned()))
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Mutate {
        client: usize,
        function_id: &'static str,
        body: String,
        condition: u8,
    },
    Remote {
        function_id: &'static str,
        body: String,
    },
    Serve(usize),
    Pump(usize),
    Hear(usize),
    HearAll(usize),
    HearAgain(usize, prop::sample::Index),
    Look(usize),
    NextPage(usize),
    Remedy(usize, bool),
    Connect(usize),
    Disconnect(usize),
    Restart,
}

fn body() -> impl Strategy<Value = (&'static str, String)> {
    let item = prop::sample::select(vec!["a", "b", "c", "d", "é"]);
    let set = prop::sample::select(vec![
        r#""data":{"n":1,"text":"a","id":"x"}"#.to_owned(),
        r#""data":{"n":18446744073709551615,"list":[1E3,-0,0.10]}"#.to_owned(),
        r#""data":"text""#.to_owned(),
        r#""data":null"#.to_owned(),
        format!(r#""data":{{"text":"{}","n":7}}"#, "é\\n".repeat(100)),
    ]);
    let ops = prop::collection::vec(
        prop::sample::select(vec![
            r#"{"type":"append","path":"text","value":"tok\u0001"}"#,
            r#"{"type":"append","path":["list"],"value":1e15}"#,
            r#"{"type":"increment","path":"n","by":1}"#,
            r#"{"type":"decrement","path":"n","by":3}"#,
            r#"{"type":"merge","path":["a","b"],"value":{"c":"d"}}"#,
            r#"{"type":"remove","path":"text"}"#,
            r#"{"type":"set","path":"text","value":""}"#,
        ]),
        0..3,
    );
    (item, set, ops, any::<bool>(), 0..10_u8).prop_map(|(item, set, ops, atomic, kind)| {
        let id = format!(r#""item_id":"{item}","#);
        match kind {
            0..=2 => ("stream::set", id + &set),
            3..=7 => {
                let ops = ops.join(",");
                (
                    "stream::update",
                    format!(r#"{id}"ops":[{ops}],"atomic":{atomic}"#),
                )
            }
            8 => ("stream::delete", id + r#""other":0"#),
            _ => (
                "stream::send",
                format!(r#""id":"{item}","type":"t","data":[1]"#),
            ),
        }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = || 0..CLIENTS.len();
    let step = prop_oneof![
        12 => (client(), body(), 0..9_u8).prop_map(|(client, (function_id, body), condition)| {
            Step::Mutate { client, function_id, body, condition }
        }),
        5 => body().prop_map(|(function_id, body)| Step::Remote { function_id, body }),
        12 => client().prop_map(Step::Serve),
        8 => client().prop_map(Step::Pump),
        12 => client().prop_map(Step::Hear),
        4 => client().prop_map(Step::HearAll),
        2 => (client(), any::<prop::sample::Index>()).prop_map(|(client, at)| Step::HearAgain(client, at)),
        8 => client().prop_map(Step::Look),
        3 => client().prop_map(Step::NextPage),
        1 => (client(), any::<bool>()).prop_map(|(client, resumes)| Step::Remedy(client, resumes)),
        5 => client().prop_map(Step::Connect),
        2 => client().prop_map(Step::Disconnect),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..120)
}

const CLIENTS: [&[(&str, Option<&str>)]; 3] = [
    &[("all", None)],
    &[("one", Some("a"))],
    &[("all", None), ("one", Some("b"))],
];

/// How many histories are tried; more by the environment.
fn cases() -> u32 {
    let cases = std::env::var("PROPTEST_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(96)
}

fn run(step: Step, server: &mut Server, clients: &mut [Client], lags: bool) {
    let epoch = server.epoch;
    match step {
        Step::Mutate {
            client,
            function_id,
            body,
            condition,
        } => {
            clients[client].look();
            clients[client].mutate(function_id, &body, condition);
        }
        Step::Remote { function_id, body } => {
            let data = format!(r#"{{"stream_name":"s","group_id":"g",{body}}}"#);
            let client = String::new();
            let call = Call {
                client,
                seq: 0,
                function_id,
                data,
            };
            server.commit(call.command(), Demand::Values);
        }
        Step::Look(client) => clients[client].look(),
        Step::Connect(client) => clients[client].connect(),
        Step::Disconnect(client) => clients[client].disconnect(),
        Step::Restart => {
            clients.iter_mut().for_each(Client::disconnect);
            server.restart();
        }
        Step::Serve(client) => {
            if let Some(session) = &mut clients[client].session {
                server.serve(session, lags);
            }
        }
        Step::Pump(client) => {
            if let Some(session) = &mut clients[client].session {
                server.pump(session);
            }
        }
        Step::NextPage(client) => {
            if let Some(session) = &mut clients[client].session {
                server.next_page(session, lags);
            }
        }
        Step::Remedy(client, resumes) => {
            if let Some(session) = &mut clients[client].session {
                server.remedy(session, resumes, lags);
            }
        }
        Step::Hear(client) => {
            let client = &mut clients[client];
            let out = client
                .session
                .as_mut()
                .and_then(|session| session.out.pop_front());
            if let Some(out) = out {
                client.hear(out, epoch);
            }
        }
        Step::HearAll(client) => {
            let client = &mut clients[client];
            while let Some(out) = client
                .session
                .as_mut()
                .and_then(|session| session.out.pop_front())
            {
                client.hear(out, epoch);
            }
        }
        Step::HearAgain(client, at) => {
            let client = &mut clients[client];
            let events = client
                .heard
                .iter()
                .filter(|frame| !frame.contains(r#"{"type":"sync""#));
            let events: Vec<_> = events.cloned().collect();
            if !events.is_empty() {
                client.look();
                let before: Vec<_> = client.follows.iter().map(Followed::view).collect();
                client.receive(at.get::<String>(&events), epoch);
                client.look();
                let after: Vec<_> = client.follows.iter().map(Followed::view).collect();
                if client.follows.iter().all(|followed| followed.is_live) {
                    assert_eq!(before, after, "a frame that came before changes nothing");
                }
            }
        }
    }
}

/// Until everything is answered and told.
fn finish(server: &mut Server, clients: &mut [Client], lags: bool) {
    for client in clients {
        for _ in 0..100 {
            client.connect();
            let Some(session) = &mut client.session else {
                continue;
            };
            let is_busy = !session.requests.is_empty() || server.is_paging(session);
            server.serve(session, lags);
            server.next_page(session, lags);
            server.pump(session);
            let is_quiet = session.out.is_empty() && !is_busy;
            while let Some(out) = client
                .session
                .as_mut()
                .and_then(|session| session.out.pop_front())
            {
                client.hear(out, server.epoch);
            }
            let mut unanswered = client.mutations.iter();
            if is_quiet && unanswered.any(|made| made.answer.is_none() && !made.is_told) {
                client.disconnect();
            } else if is_quiet {
                break;
            }
        }
        client.look();
        for followed in &client.follows {
            assert!(followed.is_live);
            let group = &mut server.group;
            assert_eq!(followed.view(), view_of(group, followed.item));
            for (id, (_, _, seq, is_pending)) in &followed.items {
                assert_eq!((*seq, *is_pending), (group.item_seq(id), false));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn what_is_shown_is_what_is_confirmed_and_what_is_pending(steps in steps(), lags in prop::bool::weighted(0.3)) {
        let mut server = Server::new();
        let mut clients: Vec<_> = CLIENTS.iter().enumerate().map(|(index, follows)| Client::new(index, follows)).collect();
        for step in steps {
            run(step, &mut server, &mut clients, lags);
            for client in &mut clients {
                if !lags {
                    client.look();
                    client.check(&server);
                }
            }
        }
        finish(&mut server, &mut clients, lags);
    }

    #[test]
    fn no_text_makes_it_stumble(text in "[\\PC\\x00]{0,60}", cut: prop::sample::Index, put in "[\\[\\]{}\",:0-9a-z]{0,3}") {
        let mut replica = Replica::new();
        replica.open("s1", "s", "g", None).expect("a new subscription");
        replica.join("s1").expect("a subscription");
        let frames = [
            r#"{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":null,"subscriptionId":"s1","epoch":"e","seq":1,"mutations":[{"tag":"t","seq":1}],"event":{"type":"sync","mode":"snapshot","items":[{"id":"a","seq":1,"data":{"n":[1]}}],"more":false}}"#,
            r#"{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":"a","seq":2,"mutation":{"tag":"t","seq":1},"event":{"type":"update","base":1,"ops":[{"type":"increment","path":"n","by":1}]}}"#,
            r#"{"type":"error","subscriptionId":"s1","code":"c","message":"m"}"#,
        ];
        replica.receive(&text).ok();
        for frame in frames {
            let at = frame.floor_char_boundary(cut.index(frame.len()));
            let hostile = format!("{}{put}{}", &frame[..at], &frame[at..]);
            let before = format!("{replica:?}");
            if replica.receive(&hostile).is_err() {
                prop_assert_eq!(&before, &format!("{replica:?}"), "nothing changed");
            }
            prop_assert!(replica.receive(&frame[..at]).is_err());
            replica.receive(frame).ok();
        }
        Json::from_text(&replica.changes("s1").expect("a subscription")).expect("JSON text");
    }
}
