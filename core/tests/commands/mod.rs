//! Random things that happen to a group.

use std::sync::Arc;

use iii_stream_core::command::{Action, Condition, Mutation, Returning};
use iii_stream_core::{Command, Demand, Draft, GroupLimits, Json, Kind, Ops, Ttl};
use proptest::prelude::*;

/// One thing that happens to a group.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Command(Command, Demand),
    Announce(Draft),
    Sync,
    Expire,
}

pub(crate) fn json(text: &str) -> Json {
    Json::from_text(text).expect("JSON text")
}

/// Some that are reached, and some that are not.
pub(crate) fn limits() -> impl Strategy<Value = GroupLimits> {
    let sample = |values: [usize; 3]| prop::sample::select(values.to_vec());
    (
        sample([2, 4, usize::MAX]),
        sample([9_000, 15_000, usize::MAX]),
        sample([1, 2, 100]),
        sample([0, 1, 64]),
        sample([0, 8, 100]),
        sample([2_000, 30_000, usize::MAX]),
    )
        .prop_map(
            |(
                items_max,
                bytes_max,
                client_records_max,
                hot_items_max,
                history_changes_max,
                history_bytes_max,
            )| {
                GroupLimits {
                    items_max,
                    bytes_max,
                    client_records_max,
                    hot_items_max,
                    history_changes_max,
                    history_bytes_max,
                }
            },
        )
}

/// Things that happen, with the clock then: mostly it stands, sometimes it goes back, sometimes for long.
pub(crate) fn deeds(count_max: usize) -> impl Strategy<Value = Vec<(Deed, u64)>> {
    let demand = prop_oneof![3 => Just(Demand::Ops), 1 => Just(Demand::Values)];
    let deed = prop_oneof![
        12 => (command(), demand).prop_map(|(command, demand)| Deed::Command(command, demand)),
        1 => draft().prop_map(Deed::Announce),
        2 => Just(Deed::Sync),
        2 => Just(Deed::Expire),
    ];
    let passes = prop_oneof![8 => Just(0), 4 => 1..20_i64, 1 => -30..0_i64, 1 => Just(50_000)];
    prop::collection::vec((deed, passes), 0..count_max).prop_map(|deeds| {
        let mut now_ms = 1_000_u64;
        let timed = deeds.into_iter().map(|(deed, passes)| {
            now_ms = now_ms.saturating_add_signed(passes);
            (deed, now_ms)
        });
        timed.collect()
    })
}

fn item() -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(vec!["a", "b", "c", "é"]).prop_map(Arc::from)
}

/// Some are too large to be written with every update, and some are not as the core would write them.
fn value() -> impl Strategy<Value = Json> {
    let texts = [
        r#"{"n":1,"text":"a"}"#.to_owned(),
        r#"{"n":1e15,"list":[1E3,-0,-0.0,0.10]}"#.to_owned(),
        format!(r#"{{"text":"{}","n":7}}"#, "é\\n".repeat(2_000)),
        format!("[{}null]", "1e15,".repeat(900)),
        "\"text\"".to_owned(),
        r#"{"n":1,"n":{"\/":2}}"#.to_owned(),
    ];
    prop::sample::select(texts.to_vec()).prop_map(|text| json(&text))
}

fn ops() -> impl Strategy<Value = Ops> {
    let op = prop::sample::select(vec![
        r#"{"type":"append","path":"text","value":"tok\u0001"}"#,
        r#"{"type":"append","path":"","value":"tok"}"#,
        r#"{"type":"append","path":["list"],"value":1e15}"#,
        r#"{"type":"increment","path":"n","by":1}"#,
        r#"{"type":"decrement","path":"text","by":-1}"#,
        r#"{"type":"set","path":"new","value":{"a":[1.50,{}]}}"#,
        r#"{"type":"merge","path":["a","b"],"value":{"c":"d"}}"#,
        r#"{"type":"merge","path":"__proto__","value":{"c":"d"}}"#,
        r#"{"type":"remove","path":"te\u0078t"}"#,
        r#"{"type":"set","path":"text","value":""}"#,
    ]);
    prop::collection::vec(op, 0..3)
        .prop_map(|ops| Ops::from_text(&format!("[{}]", ops.join(","))).expect("operations"))
}

fn action() -> impl Strategy<Value = Action> {
    let ttl = || prop::option::weighted(0.3, 1..50_u64);
    prop_oneof![
        3 => (value(), ttl()).prop_map(|(value, ttl_ms)| Action::Set { value, ttl_ms }),
        8 => (ops(), any::<bool>(), ttl())
            .prop_map(|(ops, is_atomic, ttl_ms)| Action::Update { ops, is_atomic, ttl_ms }),
        2 => Just(Action::Delete),
        1 => Just(Action::Send { label: json(r#""typing""#), data: json("[1]") }),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        (0..30_u64).prop_map(Condition::Seq),
        Just(Condition::Absent),
        Just(Condition::Exists)
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let mutation = ("[xyz]", 1..6_u64).prop_map(|(client, seq)| Mutation {
        client: client.into(),
        seq,
        is_resent: false,
    });
    let returning = prop::sample::select(vec![
        None,
        Some(Returning::Both),
        Some(Returning::New),
        Some(Returning::None),
        Some(Returning::None),
    ]);
    (
        item(),
        any::<bool>(),
        action(),
        prop::option::weighted(0.2, condition()),
        prop::option::weighted(0.4, mutation),
        returning,
    )
        .prop_map(|(item, has_item, action, condition, mutation, returning)| {
            let needs_item = !matches!(action, Action::Send { .. });
            Command {
                item: (has_item || needs_item).then_some(item),
                action,
                condition,
                mutation,
                returning,
            }
        })
}

fn draft() -> impl Strategy<Value = Draft> {
    let event = Kind::Event {
        label: json(r#""typing""#),
    };
    let kind = prop::sample::select(vec![Kind::Create, Kind::Update, Kind::Delete, event]);
    (item(), any::<bool>(), kind).prop_map(|(item, has_item, kind)| {
        let needs_item = !matches!(kind, Kind::Event { .. });
        Draft {
            item: (has_item || needs_item).then_some(item),
            kind,
            value: Some(json("1")),
            ops: None,
            base: None,
            ttl: Ttl::Replace(Some(5)),
            mutation: None,
        }
    })
}
