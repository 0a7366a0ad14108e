//! What holds for every history of a group: the rules of sequence and timestamp (product design, section 4), the order
//! of lists, conditions, and mutations that take effect once.

use std::collections::HashMap;
use std::sync::Arc;

use iii_stream_core::command::{Action, Condition, Mutation};
use iii_stream_core::{
    Change, Command, Demand, Floor, Group, GroupLimits, Json, Kind, Ops, Outcome, Refusal,
    client_tag,
};
use proptest::prelude::*;

/// One thing that happens to a group.
#[derive(Clone, Debug)]
enum Step {
    Command(Command),
    Sync,
    Expire,
}

fn limits(client_records_max: usize) -> GroupLimits {
    GroupLimits {
        items_max: usize::MAX,
        bytes_max: usize::MAX,
        client_records_max,
        hot_items_max: 2,
        history_changes_max: 20,
        history_bytes_max: 4_000,
    }
}

fn item() -> impl Strategy<Value = Arc<str>> {
    "[abcd]".prop_map(Arc::from)
}

fn json(text: &str) -> Json {
    Json::from_text(text).expect("JSON text")
}

fn action() -> impl Strategy<Value = Action> {
    let ttl = || prop::option::of(1..50_u64);
    let ops = r#"[{"type":"increment","path":"n","by":1}]"#;
    let failing = r#"[{"type":"set","path":"a","value":1},{"type":"append","path":"a","value":1}]"#;
    prop_oneof![
        3 => (0..9_u8, ttl()).prop_map(|(n, ttl_ms)| Action::Set { value: json(&format!(r#"{{"n":{n}}}"#)), ttl_ms }),
        3 => (any::<bool>(), any::<bool>(), ttl()).prop_map(move |(fails, is_atomic, ttl_ms)| {
            let ops = Ops::from_text(if fails { failing } else { ops }).expect("operations");
            Action::Update { ops, is_atomic, ttl_ms }
        }),
        2 => Just(Action::Delete),
        1 => Just(Action::Send { label: json(r#""typing""#), data: json("1") }),
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
    let mutation =
        ("[xy]", 1..6_u64, any::<bool>()).prop_map(|(client, seq, is_resent)| Mutation {
            client: client.into(),
            seq,
            is_resent,
        });
    (
        item(),
        any::<bool>(),
        action(),
        prop::option::weighted(0.2, condition()),
        prop::option::weighted(0.4, mutation),
    )
        .prop_map(|(item, has_item, action, condition, mutation)| {
            let needs_item = !matches!(action, Action::Send { .. });
            Command {
                item: (has_item || needs_item).then_some(item),
                action,
                condition,
                mutation,
                returning: None,
            }
        })
}

fn steps() -> impl Strategy<Value = Vec<(Step, i64)>> {
    let step = prop_oneof![
        8 => command().prop_map(Step::Command),
        2 => Just(Step::Sync),
        1 => Just(Step::Expire),
    ];
    // How far the clock goes in between: mostly not at all, sometimes back.
    prop::collection::vec(
        (
            step,
            prop_oneof![4 => Just(0), 2 => 1..20_i64, 1 => -30..0_i64],
        ),
        1..60,
    )
}

/// What the rules say of the timestamps so far.
#[derive(Default)]
struct Watch {
    seq: u64,
    event_ms: u64,
    sync_ms: u64,
    items: HashMap<Arc<str>, u64>,
    changes: Vec<Change>,
}

impl Watch {
    /// The sequence of an item's last change, as far as `group` can know it.
    fn last_change(&self, group: &Group, id: &str, counts_events: bool) -> Option<u64> {
        let is_there = group.item_seq(id).is_some();
        let first = group.history_first_seq().unwrap_or(u64::MAX);
        let last = self.changes.iter().rev().find(|change| {
            change.item.as_deref() == Some(id)
                && (counts_events || !matches!(change.kind, Kind::Event { .. }))
        });
        let last = last.map(|change| change.seq);
        last.filter(|seq| is_there || first <= *seq)
    }

    fn event(&mut self, change: &Change, now_ms: u64) {
        assert_eq!(change.seq, self.seq + 1, "sequences have no gap");
        assert!(
            self.event_ms <= change.timestamp,
            "a group's timestamps never decrease"
        );
        assert!(
            self.sync_ms < change.timestamp,
            "an event is later than every sync before it"
        );
        assert!(
            now_ms <= change.timestamp,
            "timestamps are not behind the clock"
        );
        if let Some(item) = &change.item {
            let last = self.items.insert(item.clone(), change.timestamp);
            assert!(
                last.is_none_or(|last| last < change.timestamp),
                "an item's timestamps strictly increase"
            );
        }
        self.seq = change.seq;
        self.event_ms = change.timestamp;
        self.changes.push(change.clone());
    }

    fn sync(&mut self, timestamp: u64) {
        assert!(
            self.event_ms < timestamp,
            "a sync is later than every event before it"
        );
        assert!(self.sync_ms <= timestamp, "syncs never go back");
        self.sync_ms = timestamp;
    }
}

/// A group as a list of items: what it must look like from outside.
#[derive(Default)]
struct Model {
    items: Vec<(Arc<str>, Json)>,
    clients: HashMap<Arc<str>, u64>,
}

impl Model {
    fn change(&mut self, change: &Change) {
        let Some(id) = &change.item else { return };
        let value = change.value.clone().expect("values are demanded");
        let place = self.items.iter().position(|(other, _)| other == id);
        match (&change.kind, place) {
            (Kind::Create, None) => self.items.push((id.clone(), value)),
            (Kind::Update, Some(place)) => self.items[place].1 = value,
            (Kind::Delete, Some(place)) => {
                assert_eq!(
                    self.items[place].1, value,
                    "a delete tells the removed value"
                );
                self.items.remove(place);
            }
            (Kind::Event { .. }, _) => {}
            (kind, place) => panic!("{kind:?} of an item that stands at {place:?}"),
        }
    }

    /// Whether a command may be carried out, by its mutation alone.
    fn takes(&mut self, mutation: &Mutation, outcome: &Outcome, at: Option<u64>) -> bool {
        let last = self.clients.get(&mutation.client).copied();
        match last {
            Some(last) if mutation.seq <= last => {
                assert_eq!(*outcome, Outcome::Duplicate { seq: last, at });
                false
            }
            Some(last) if mutation.seq != last + 1 => {
                let refusal = Refusal::MutationGap {
                    expected: last + 1,
                    got: mutation.seq,
                };
                assert_eq!(*outcome, Outcome::Refused(refusal));
                false
            }
            None if mutation.seq != 1 => {
                assert_eq!(
                    *outcome,
                    Outcome::Refused(Refusal::MutationUnknown { got: mutation.seq })
                );
                false
            }
            _ => {
                self.clients.insert(mutation.client.clone(), mutation.seq);
                true
            }
        }
    }
}

fn check_command(
    group: &mut Group,
    model: &mut Model,
    watch: &mut Watch,
    command: &Command,
    now_ms: u64,
) {
    let seq_before = command.item.as_deref().and_then(|id| group.item_seq(id));
    let counts_events = matches!(command.action, Action::Send { .. });
    let at = command
        .item
        .as_ref()
        .and_then(|id| watch.last_change(group, id, counts_events));
    let committed = group.commit(command.clone(), now_ms, Demand::Values);
    let outcome = &committed.reply.outcome;
    let is_taken = command
        .mutation
        .as_ref()
        .is_none_or(|mutation| model.takes(mutation, outcome, at));
    let holds = match command.condition {
        None => true,
        Some(Condition::Seq(seq)) => seq_before == Some(seq),
        Some(Condition::Absent) => seq_before.is_none(),
        Some(Condition::Exists) => seq_before.is_some(),
    };
    if is_taken && !holds {
        assert_eq!(
            *outcome,
            Outcome::Refused(Refusal::PreconditionFailed { seq: seq_before })
        );
    }
    if !is_taken || !holds {
        assert_eq!(committed.change, None, "a refused command changes nothing");
    }
    if let Some(change) = &committed.change {
        assert_eq!(committed.reply.seq, Some(change.seq));
        assert_eq!(change.base, seq_before);
        assert_eq!(
            change.mutation.as_ref().map(|echo| echo.seq),
            command.mutation.as_ref().map(|mutation| mutation.seq)
        );
        watch.event(change, now_ms);
        model.change(change);
    }
}

proptest! {
    #[test]
    fn every_history_keeps_the_rules(steps in steps(), floor_ms in 0..2_000_u64) {
        let mut group = Group::new("e".into(), Floor::above(floor_ms), limits(100));
        let mut watch = Watch { event_ms: floor_ms, sync_ms: floor_ms, ..Watch::default() };
        let mut model = Model::default();
        let mut now_ms = 1_000_u64;
        for (step, passes) in steps {
            now_ms = now_ms.saturating_add_signed(passes);
            match step {
                Step::Command(command) => check_command(&mut group, &mut model, &mut watch, &command, now_ms),
                Step::Sync => watch.sync(group.sync_timestamp(now_ms)),
                Step::Expire => {
                    let deletes = group.expire(now_ms, usize::MAX);
                    for change in deletes.into_iter().filter_map(|deleted| deleted.change) {
                        watch.event(&change, now_ms);
                        prop_assert_eq!(&change.kind, &Kind::Delete);
                        model.change(&change);
                    }
                    prop_assert!(group.next_expiry_ms().is_none_or(|next_ms| now_ms < next_ms));
                }
            }
            let items: Vec<_> = group.iter().map(|(id, item)| (id, item.value)).collect();
            prop_assert_eq!(&items, &model.items, "lists are in order of creation");
            prop_assert_eq!(group.seq(), watch.seq);
        }
    }
}

#[test]
fn the_client_that_was_silent_for_longest_is_forgotten_first() {
    let mut group = Group::new("e".into(), Floor::default(), limits(2));
    let mut commit = |client: &str, seq| {
        let command = Command {
            item: Some("i".into()),
            action: Action::Set {
                value: json("1"),
                ttl_ms: None,
            },
            condition: None,
            mutation: Some(Mutation {
                client: client.into(),
                seq,
                is_resent: false,
            }),
            returning: None,
        };
        group.commit(command, 1, Demand::Values).reply.outcome
    };
    for (client, seq) in [("a", 1), ("b", 1), ("a", 2), ("c", 1)] {
        assert!(
            matches!(commit(client, seq), Outcome::Set { .. }),
            "{client} {seq}"
        );
    }
    let duplicate = Outcome::Duplicate {
        seq: 2,
        at: Some(4),
    };
    assert_eq!(commit("a", 2), duplicate);
    assert_eq!(
        commit("b", 2),
        Outcome::Refused(Refusal::MutationUnknown { got: 2 })
    );
}

/// A command with a mutation.
fn mutation(client: &str, seq: u64, is_resent: bool, action: Action) -> Command {
    Command {
        item: Some("i".into()),
        action,
        condition: None,
        mutation: Some(Mutation {
            client: client.into(),
            seq,
            is_resent,
        }),
        returning: None,
    }
}

#[test]
fn a_first_mutation_that_was_sent_before_is_refused_once_somebody_was_forgotten() {
    let set = || Action::Set {
        value: json("1"),
        ttl_ms: None,
    };
    let mut group = Group::new("e".into(), Floor::default(), limits(2));
    let mut commit = |client: &str, is_resent| {
        let command = mutation(client, 1, is_resent, set());
        group.commit(command, 1, Demand::Values).reply.outcome
    };
    let unknown = Outcome::Refused(Refusal::MutationUnknown { got: 1 });
    // Two may be known, so nobody is forgotten by them.
    assert!(matches!(commit("a", true), Outcome::Set { .. }));
    assert!(matches!(commit("b", true), Outcome::Set { .. }));
    assert!(matches!(commit("c", true), Outcome::Set { .. }));
    // That was one too many: `a` is forgotten.
    assert_eq!(commit("a", true), unknown);
    assert_eq!(commit("new", true), unknown);
    assert!(matches!(commit("new", false), Outcome::Set { .. }));
    assert!(matches!(
        commit("new", true),
        Outcome::Duplicate { seq: 1, .. }
    ));
}

#[test]
fn whether_somebody_was_forgotten_is_known_after_a_restart_with_more_room() {
    let set = || Action::Set {
        value: json("1"),
        ttl_ms: None,
    };
    let refused = |clients: &[&str]| {
        let mut group = Group::new("e".into(), Floor::default(), limits(2));
        for client in clients {
            group.commit(mutation(client, 1, false, set()), 1, Demand::Values);
        }
        let mut state = Vec::new();
        group.image().write_state(&mut state);
        let again = Group::from_image("e".into(), &state, limits(100));
        let outcome =
            again
                .expect("an image")
                .commit(mutation("other", 1, true, set()), 1, Demand::Values);
        outcome.reply.outcome == Outcome::Refused(Refusal::MutationUnknown { got: 1 })
    };
    assert!(!refused(&["a", "b"]));
    assert!(refused(&["a", "b", "c"]));
}

#[test]
fn a_duplicate_tells_the_last_change_of_its_item() {
    let mut group = Group::new("e".into(), Floor::default(), limits(2));
    let mut commit = |client: &str, seq, action| {
        let command = mutation(client, seq, true, action);
        group.commit(command, 1, Demand::Values).reply
    };
    let set = || Action::Set {
        value: json("1"),
        ttl_ms: None,
    };
    let send = || Action::Send {
        label: json("\"t\""),
        data: json("0"),
    };
    commit("a", 1, set());
    commit("b", 1, send());
    assert_eq!(
        commit("a", 1, set()).to_json().as_deref(),
        Ok(r#"{"duplicate":true,"seq":1,"at":1}"#)
    );
    // The event is the second change, and leaves the value.
    let at = |reply: iii_stream_core::Reply| match reply.outcome {
        Outcome::Duplicate { at, .. } => at,
        outcome => panic!("{outcome:?}"),
    };
    assert_eq!(at(commit("b", 1, send())), Some(2));
    commit("a", 2, Action::Delete);
    assert_eq!(at(commit("a", 2, Action::Delete)), Some(3));
    group.trim_history(0);
    let duplicate = group.commit(mutation("a", 2, true, Action::Delete), 1, Demand::Values);
    assert_eq!(
        duplicate.reply.to_json().as_deref(),
        Ok(r#"{"duplicate":true,"seq":2,"at":null}"#)
    );
}

#[test]
fn mutations_are_told_up_to_a_place_in_the_history() {
    let mut group = Group::new("e".into(), Floor::default(), limits(2));
    let set = || Action::Set {
        value: json("1"),
        ttl_ms: None,
    };
    for (client, seq) in [("a", 1), ("a", 2), ("b", 1), ("a", 3)] {
        group.commit(mutation(client, seq, false, set()), 1, Demand::Values);
    }
    let told = |group: &Group, seq| {
        let echoes = group.mutations_up_to(["a", "b", "stranger"], seq);
        let told = echoes.into_iter().map(|echo| {
            let client = if echo.tag == client_tag("a") {
                "a"
            } else {
                "b"
            };
            (client, echo.seq)
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(told(&group, 4), [("a", 3), ("b", 1)]);
    assert_eq!(told(&group, 3), [("a", 2), ("b", 1)]);
    assert_eq!(told(&group, 2), [("a", 2)]);
    assert_eq!(told(&group, 0), []);
    group.trim_history(0);
    assert_eq!(told(&group, 4), [("a", 3), ("b", 1)]);
    assert_eq!(told(&group, 3), []);
}

#[test]
fn a_time_to_live_starts_anew_with_each_write_and_ends_with_a_set_without() {
    let mut group = Group::new("e".into(), Floor::default(), limits(2));
    let mut commit = |action, now_ms| {
        let command = Command {
            item: Some("i".into()),
            action,
            condition: None,
            mutation: None,
            returning: None,
        };
        group.commit(command, now_ms, Demand::Values);
        group.next_expiry_ms()
    };
    let set = |ttl_ms| Action::Set {
        value: json("{}"),
        ttl_ms,
    };
    let update = |ttl_ms| Action::Update {
        ops: Ops::from_text("[]").expect("operations"),
        is_atomic: false,
        ttl_ms,
    };
    assert_eq!(commit(set(Some(50)), 100), Some(150));
    assert_eq!(commit(update(None), 120), Some(170));
    assert_eq!(commit(update(Some(10)), 130), Some(140));
    assert_eq!(commit(set(None), 135), None);
    assert_eq!(commit(set(Some(50)), 200), Some(250));
    assert_eq!(commit(Action::Delete, 210), None);
}

#[test]
fn a_group_that_is_full_refuses_to_grow_but_can_shrink() {
    let limits = GroupLimits {
        items_max: 2,
        bytes_max: 12,
        client_records_max: 1,
        ..limits(1)
    };
    let mut group = Group::new("e".into(), Floor::default(), limits);
    let mut set = |id: &str, value: &str| {
        let action = Action::Set {
            value: json(value),
            ttl_ms: None,
        };
        let command = Command {
            item: Some(id.into()),
            action,
            condition: None,
            mutation: None,
            returning: None,
        };
        group.commit(command, 1, Demand::Values).reply.outcome
    };
    assert!(matches!(set("a", "\"123\""), Outcome::Set { .. }));
    assert!(
        matches!(set("b", "\"123\""), Outcome::Set { .. }),
        "12 bytes, at the limit"
    );
    assert_eq!(
        set("a", "\"1234\""),
        Outcome::Refused(Refusal::TooManyBytes { bytes_max: 12 })
    );
    assert_eq!(
        set("c", "1"),
        Outcome::Refused(Refusal::TooManyItems { items_max: 2 })
    );
    assert!(matches!(set("a", "1"), Outcome::Set { .. }));
    assert!(
        matches!(set("b", "\"123456\""), Outcome::Set { .. }),
        "what was given back can be used"
    );
}
