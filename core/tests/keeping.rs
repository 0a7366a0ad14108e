//! That a group can be had again from what was kept of it: from its steps, from an image, and from an image with the steps
//! after it. And that damaged bytes are refused, or make another group, but never a panic.

mod commands;

use std::collections::BTreeSet;

use commands::{Deed, deeds, json, limits};
use iii_stream_core::command::{Action, Mutation, Returning};
use iii_stream_core::{
    Change, Command, Committed, Demand, Floor, Group, GroupLimits, Kind, Ops, Outcome,
    RestoreError, Restored,
};
use proptest::prelude::*;

const FLOOR_MS: u64 = 700;

fn empty(limits: GroupLimits) -> Group {
    Group::new("e".into(), Floor::above(FLOOR_MS), limits)
}

/// What was kept of a group.
#[derive(Default)]
struct Kept {
    steps: Vec<Vec<u8>>,
    replies: Vec<String>,
}

impl Kept {
    fn commit(&mut self, committed: &Committed) {
        let reply = match committed.reply.to_json() {
            Ok(json) => json.to_string(),
            Err(refusal) => refusal.to_string(),
        };
        self.replies.push(reply);
        match &committed.step {
            Some(step) => {
                assert_eq!(step.change, committed.change);
                self.push(step);
            }
            None => assert_eq!(committed.change, None, "every change is kept"),
        }
    }

    fn push(&mut self, step: &iii_stream_core::Step) {
        let mut out = Vec::new();
        step.write(&mut out);
        self.steps.push(out);
    }
}

fn run(group: &mut Group, deed: &Deed, now_ms: u64, kept: &mut Kept) {
    match deed {
        Deed::Command(command, demand) => {
            kept.commit(&group.commit(command.clone(), now_ms, *demand));
        }
        Deed::Sync => {
            let sync_ms = group.sync_timestamp(now_ms);
            kept.replies.push(sync_ms.to_string());
        }
        Deed::Expire => {
            for deleted in group.expire(now_ms, 2) {
                kept.commit(&deleted);
            }
        }
        Deed::Announce(draft) => {
            let (change, step) = group.announce(draft.clone(), now_ms);
            assert_eq!(step.change, Some(change.clone()));
            kept.replies
                .push(format!("{} {}", change.seq, change.timestamp));
            kept.push(&step);
        }
    }
}

fn run_all(group: &mut Group, deeds: &[(Deed, u64)]) -> Kept {
    let mut kept = Kept::default();
    for (deed, now_ms) in deeds {
        run(group, deed, *now_ms, &mut kept);
    }
    kept
}

fn restore(group: &mut Group, steps: &[Vec<u8>]) {
    for step in steps {
        assert_eq!(group.restore(step), Ok(Restored::Done));
    }
}

fn state(group: &mut Group) -> Vec<u8> {
    let mut out = Vec::new();
    group.image().write_state(&mut out);
    out
}

fn history(group: &mut Group) -> Vec<u8> {
    let mut out = Vec::new();
    group.image().write_history(&mut out);
    out
}

/// Compares everything that can be seen. `b` may know older changes, as its values may be missing and take no room.
fn assert_same(a: &mut Group, b: &mut Group, has_history: bool) {
    b.raise_sync(a.floor().sync_ms);
    assert_eq!(a.seq(), b.seq());
    assert_eq!(a.floor().event_ms, b.floor().event_ms);
    assert_eq!(a.next_expiry_ms(), b.next_expiry_ms());
    assert_eq!(a.has_clients(), b.has_clients());
    let items: Vec<_> = a.iter().collect();
    assert_eq!(items, b.iter().collect::<Vec<_>>());
    for (id, item) in items {
        assert_eq!(b.get(&id), Some(item));
        if has_history {
            let since = a.seq().saturating_sub(1);
            let of = |group: &Group| {
                group
                    .changes_since(since, Some(&id), false)
                    .map(|changes| changes.len())
            };
            assert!(of(a).is_none_or(|count| of(b) == Some(count)));
        }
    }
    if !has_history {
        return;
    }
    assert!(b.history_first_seq().unwrap_or(u64::MAX) <= a.history_first_seq().unwrap_or(u64::MAX));
    for since in 0..=a.seq() {
        let Some(expected) = a.changes_since(since, None, false) else {
            continue;
        };
        let changes = b
            .changes_since(since, None, false)
            .expect("b knows them too");
        assert_eq!(expected.len(), changes.len());
        for (expected, change) in expected.iter().zip(changes) {
            assert_alike(expected, &change);
        }
    }
}

/// The same change, but for values that were not written, and operations where the value was kept.
fn assert_alike(a: &Change, b: &Change) {
    let value = |own: &Change, other: &Change| own.value.clone().and(other.value.clone());
    let mut a_seen = a.clone();
    let mut b_seen = b.clone();
    if a.kind == Kind::Update && a.ops.is_some() {
        a_seen.value = value(a, b);
        b_seen.value = value(b, a);
        assert!(b.value.is_some() || b.ops.is_some());
    }
    if b.ops.is_none() {
        assert!(a.ops.is_none() || b.value.is_some());
        a_seen.ops = None;
    }
    assert_eq!(a_seen, b_seen);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_group_is_had_again_from_its_steps(first in deeds(50), second in deeds(25), limits in limits()) {
        let mut a = empty(limits);
        let steps = run_all(&mut a, &first).steps;
        // The bounds of items and bytes may have become smaller since.
        let mut b = empty(GroupLimits { items_max: 0, bytes_max: 0, ..limits });
        restore(&mut b, &steps);
        assert_same(&mut a, &mut b, true);
        prop_assert_eq!(state(&mut a), state(&mut b));
        for step in &steps {
            prop_assert_eq!(b.restore(step), Ok(Restored::Skipped));
        }

        let mut b = empty(limits);
        restore(&mut b, &steps);
        b.raise_sync(a.floor().sync_ms);
        let after = run_all(&mut a, &second);
        prop_assert_eq!(after.replies, run_all(&mut b, &second).replies);
        assert_same(&mut a, &mut b, true);
        prop_assert_eq!(state(&mut a), state(&mut b));
    }

    #[test]
    fn a_group_is_had_again_from_an_image_and_the_steps_after(
        first in deeds(40), second in deeds(40), third in deeds(20), limits in limits(),
    ) {
        let mut a = empty(limits);
        let before = run_all(&mut a, &first).steps;
        let (kept, past) = (state(&mut a), history(&mut a));
        let mut b = Group::from_image("e".into(), &kept, limits).expect("an image");
        assert_same(&mut a, &mut b, false);
        prop_assert_eq!(b.floor(), a.floor());
        prop_assert_eq!(state(&mut b), kept.clone());
        let mut c = b.clone();
        prop_assert_eq!(c.restore_history(&past), Ok(()));
        assert_same(&mut a, &mut c, true);
        prop_assert_eq!(history(&mut c), past.clone());
        prop_assert_eq!(c.history_bytes(), a.history_bytes());

        let steps = run_all(&mut a, &second).steps;
        for step in &before {
            prop_assert_eq!(b.restore(step), Ok(Restored::Skipped));
        }
        restore(&mut b, &steps);
        prop_assert_eq!(b.restore_history(&past), Ok(()));
        let reach = b.history_first_seq();
        prop_assert_eq!(b.restore_history(&past), Ok(()));
        prop_assert_eq!(b.history_first_seq(), reach, "twice is once");
        prop_assert!(b.history_bytes() <= limits.history_bytes_max);
        assert_same(&mut a, &mut b, true);
        prop_assert_eq!(state(&mut a), state(&mut b));

        let after = run_all(&mut a, &third);
        // Where an item that is gone stood is known as long as the history reaches, which differs.
        prop_assert_eq!(without_at(after.replies), without_at(run_all(&mut b, &third).replies));
        assert_same(&mut a, &mut b, true);
        prop_assert_eq!(state(&mut a), state(&mut b));
    }

    #[test]
    fn a_step_that_is_missing_is_missed(deeds in deeds(30), limits in limits(), place: prop::sample::Index) {
        let steps = run_all(&mut empty(limits), &deeds).steps;
        prop_assume!(!steps.is_empty());
        let (before, rest) = steps.split_at(place.index(steps.len()));
        let mut group = empty(limits);
        restore(&mut group, before);
        // Changes are counted, and mutations that came to nothing are counted with all others.
        let is_taken = |step: &[u8]| step[0] & 7 == 5;
        let next = rest[1..].iter().find(|step| is_taken(step) == is_taken(&rest[0]));
        if let Some(next) = next {
            let is_gap = matches!(group.restore(next), Err(RestoreError::Gap { .. }));
            prop_assert!(is_gap);
        }
    }

    #[test]
    fn damaged_bytes_do_no_harm(
        deeds in deeds(25),
        limits in limits(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
        cut: prop::sample::Index,
    ) {
        let mut a = empty(limits);
        let steps = run_all(&mut a, &deeds).steps;
        let damaged = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            for (place, mask) in &flips {
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] ^= mask;
                }
            }
            bytes
        };
        let mut b = empty(limits);
        for step in &steps {
            let before = state(&mut b);
            let bytes = damaged(step);
            if b.clone().restore(&bytes).is_err() {
                prop_assert!(b.restore(&bytes).is_err());
                prop_assert_eq!(state(&mut b), before, "an error leaves the group as it was");
            }
            let mut harmed = b.clone();
            let _ = harmed.restore(&bytes);
            for step in &steps {
                let _ = harmed.restore(step);
            }
            let cuts = (0..step.len()).filter(|cut| *cut < 40 || step.len() < cut + 40);
            for cut in cuts {
                prop_assert!(b.restore(&step[..cut]).is_err(), "cut off after {} bytes", cut);
            }
            prop_assert_eq!(b.restore(step), Ok(Restored::Done));
        }
        let (kept, past) = (state(&mut a), history(&mut a));
        for bytes in [damaged(&kept), kept[..cut.index(kept.len())].to_vec()] {
            if let Ok(mut group) = Group::from_image("e".into(), &bytes, limits) {
                let _ = group.restore_history(&damaged(&past));
                for step in &steps {
                    let _ = group.restore(step);
                }
            }
        }
        let mut group = Group::from_image("e".into(), &kept, limits).expect("an image");
        let _ = group.restore_history(&damaged(&past));
        let mut group = Group::from_image("e".into(), &kept, limits).expect("an image");
        prop_assert!(group.restore_history(&past[..cut.index(past.len())]).is_err());
    }
}

/// The replies without the place that a duplicate tells of.
fn without_at(replies: Vec<String>) -> Vec<String> {
    let cut = |reply: String| match reply.split_once(r#","at":"#) {
        Some((duplicate, _)) if reply.starts_with(r#"{"duplicate":"#) => duplicate.to_owned(),
        _ => reply,
    };
    replies.into_iter().map(cut).collect()
}

fn set(id: &str, value: &str) -> Command {
    let value = json(value);
    let action = Action::Set {
        value,
        ttl_ms: None,
    };
    command(id, action)
}

fn append(id: &str, path: &str, text: &str) -> Command {
    let ops = format!(r#"[{{"type":"append","path":"{path}","value":"{text}"}}]"#);
    let ops = Ops::from_text(&ops).expect("operations");
    command(
        id,
        Action::Update {
            ops,
            is_atomic: false,
            ttl_ms: None,
        },
    )
}

fn command(id: &str, action: Action) -> Command {
    Command {
        item: Some(id.into()),
        action,
        condition: None,
        mutation: None,
        returning: Some(Returning::None),
    }
}

fn roomy() -> GroupLimits {
    GroupLimits {
        items_max: 1_000,
        bytes_max: 10_000_000,
        client_records_max: 100,
        hot_items_max: 64,
        history_changes_max: 100,
        history_bytes_max: 1_000_000,
    }
}

const NOW_MS: u64 = 1_790_000_000_000;

fn step_bytes(group: &mut Group, command: Command) -> Vec<u8> {
    let mut out = Vec::new();
    let step = group.commit(command, NOW_MS, Demand::Ops).step;
    step.expect("a step").write(&mut out);
    out
}

#[test]
fn a_step_takes_little_more_than_what_happened() {
    let mut group = empty(roomy());
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(100_000));
    let create = step_bytes(&mut group, set("doc", &large));
    assert_eq!(create.len(), large.len() + 16, "create");
    for count in 0..200 {
        step_bytes(&mut group, set(&format!("i{count}"), "1"));
    }
    step_bytes(&mut group, set("other", "1"));
    let update = append("doc", "text", "twenty bytes of text");
    let ops_bytes = match &update.action {
        Action::Update { ops, .. } => ops.text().as_str().len(),
        _ => 0,
    };
    let bytes = step_bytes(&mut group, update);
    assert_eq!(bytes.len(), ops_bytes + "doc".len() + 12, "append");
    let bytes = step_bytes(&mut group, append("other", "a", &"y".repeat(50)));
    assert_eq!(
        bytes.len(),
        "1".len() + "other".len() + 12,
        "a value that is shorter than the operations"
    );
    let delete = step_bytes(&mut group, command("doc", Action::Delete));
    assert_eq!(delete.len(), "doc".len() + 10, "delete");
    let with_client = Command {
        mutation: Some(Mutation {
            client: "client".into(),
            seq: 1,
            is_resent: false,
        }),
        ..set("doc", "1")
    };
    let bytes = step_bytes(&mut group, with_client);
    assert_eq!(
        bytes.len(),
        "1".len() + "doc".len() + "client".len() + 14,
        "with a client"
    );
}

#[test]
fn a_mutation_that_was_refused_is_kept() {
    let mut group = empty(roomy());
    let refused = Command {
        condition: Some(iii_stream_core::command::Condition::Exists),
        mutation: Some(Mutation {
            client: "c".into(),
            seq: 1,
            is_resent: false,
        }),
        ..set("i", "1")
    };
    let committed = group.commit(refused.clone(), NOW_MS, Demand::Ops);
    let step = committed.step.expect("a step");
    assert_eq!((step.seq(), &step.change), (None, &None));
    let mut bytes = Vec::new();
    step.write(&mut bytes);
    let mut again = empty(roomy());
    assert_eq!(again.restore(&bytes), Ok(Restored::Done));
    assert_eq!(again.restore(&bytes), Ok(Restored::Skipped));
    let duplicate = again.commit(refused, NOW_MS, Demand::Ops);
    assert_eq!(
        duplicate.reply.outcome,
        Outcome::Duplicate { seq: 1, at: None }
    );
    assert_eq!(duplicate.step, None);
}

#[test]
fn a_gap_says_what_was_expected() {
    let mut group = empty(roomy());
    step_bytes(&mut group, set("a", "1"));
    let second = step_bytes(&mut group, set("b", "1"));
    assert_eq!(
        empty(roomy()).restore(&second),
        Err(RestoreError::Gap {
            expected: 1,
            got: 2
        })
    );
    let update = step_bytes(&mut group, set("b", "2"));
    let mut other = empty(roomy());
    for id in ["x", "y"] {
        step_bytes(&mut other, set(id, "1"));
    }
    let error = other.restore(&update).expect_err("another group");
    assert!(
        matches!(error, RestoreError::Malformed { at, .. } if at == update.len()),
        "{error}"
    );
}

#[test]
fn fewer_clients_are_remembered_when_fewer_may_be() {
    let mut group = empty(roomy());
    for client in ["a", "b", "c"] {
        let mutation = Some(Mutation {
            client: client.into(),
            seq: 1,
            is_resent: false,
        });
        group.commit(
            Command {
                mutation,
                ..set("i", "1")
            },
            NOW_MS,
            Demand::Ops,
        );
    }
    let limits = GroupLimits {
        client_records_max: 2,
        ..roomy()
    };
    let mut again = Group::from_image("e".into(), &state(&mut group), limits).expect("an image");
    let known: BTreeSet<&str> = ["a", "b", "c"]
        .into_iter()
        .filter(|client| {
            let mutation = Some(Mutation {
                client: (*client).into(),
                seq: 1,
                is_resent: false,
            });
            let committed = again.clone().commit(
                Command {
                    mutation,
                    ..set("i", "1")
                },
                NOW_MS,
                Demand::Ops,
            );
            matches!(committed.reply.outcome, Outcome::Duplicate { .. })
        })
        .collect();
    assert_eq!(known, BTreeSet::from(["b", "c"]));
    assert!(again.has_clients());
    assert_eq!(
        again.restore(&step_bytes(&mut group, set("i", "2"))),
        Ok(Restored::Done)
    );
}

#[test]
fn a_history_that_does_not_join_is_left() {
    let mut group = empty(roomy());
    for value in ["1", "2", "3"] {
        step_bytes(&mut group, set("i", value));
    }
    let (kept, past) = (state(&mut group), history(&mut group));
    step_bytes(&mut group, set("i", "4"));
    let later = state(&mut group);
    let mut again = Group::from_image("e".into(), &later, roomy()).expect("an image");
    assert_eq!(again.restore_history(&past), Ok(()));
    assert_eq!(again.history_first_seq(), None, "4 is missing");
    let limits = GroupLimits {
        history_changes_max: 2,
        ..roomy()
    };
    let mut again = Group::from_image("e".into(), &kept, limits).expect("an image");
    assert_eq!(again.restore_history(&past), Ok(()));
    assert_eq!(again.history_first_seq(), Some(2), "the oldest falls away");
    let mut nothing = Vec::new();
    empty(roomy()).image().write_history(&mut nothing);
    assert_eq!(again.restore_history(&nothing), Ok(()));
}

#[test]
fn a_raised_floor_is_as_a_sync() {
    let mut group = empty(roomy());
    group.raise_sync(NOW_MS + 50);
    group.raise_sync(NOW_MS);
    assert_eq!(group.sync_timestamp(NOW_MS), NOW_MS + 50);
    let change = group.commit(set("i", "1"), NOW_MS, Demand::Ops).change;
    assert_eq!(change.map(|change| change.timestamp), Some(NOW_MS + 51));
}

#[test]
fn what_a_group_takes_grows_and_shrinks_with_it() {
    let mut group = empty(roomy());
    let nothing = group.memory_bytes();
    let value = format!("\"{}\"", "x".repeat(10_000));
    step_bytes(&mut group, set("i", &value));
    let one = group.memory_bytes();
    assert!(
        (20_000..22_000).contains(&(one - nothing)),
        "item and history: {one}"
    );
    group.trim_history(0);
    assert!((10_000..11_000).contains(&(group.memory_bytes() - nothing)));
    step_bytes(&mut group, command("i", Action::Delete));
    group.trim_history(0);
    assert_eq!(group.memory_bytes(), nothing);
}
