//! Histories at random: what clients and the server do, one step after another.

use iii_stream_core::Demand;
use proptest::prelude::*;

use crate::client::{Client, Followed, view_of};
use crate::server::{Call, Server};

#[derive(Clone, Debug)]
pub(crate) enum Step {
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

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
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

pub(crate) const CLIENTS: [&[(&str, Option<&str>)]; 3] = [
    &[("all", None)],
    &[("one", Some("a"))],
    &[("all", None), ("one", Some("b"))],
];

pub(crate) fn run(step: Step, server: &mut Server, clients: &mut [Client], lags: bool) {
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
pub(crate) fn finish(server: &mut Server, clients: &mut [Client], lags: bool) {
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
