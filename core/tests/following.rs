//! What a subscriber that comes and goes ends with, whatever happens meanwhile: the group as it stands. And that it makes
//! no difference which items are kept parsed and which texts are written.

use std::collections::HashMap;
use std::sync::Arc;

use iii_stream_core::command::{Action, Returning};
use iii_stream_core::{
    Change, Command, Demand, Floor, Group, GroupLimits, Json, Kind, Ops, Page, apply_ops_json,
};
use proptest::prelude::*;

const LIMITS: GroupLimits = GroupLimits {
    items_max: usize::MAX,
    bytes_max: usize::MAX,
    client_records_max: 10,
    hot_items_max: 2,
    history_changes_max: 12,
    history_bytes_max: 30_000,
};

fn group(limits: GroupLimits) -> Group {
    Group::new("e".into(), Floor::default(), limits)
}

fn json(text: &str) -> Json {
    Json::from_text(text).expect("JSON text")
}

/// Some are too large to be written with every update, and some are not as the core would write them.
fn value() -> impl Strategy<Value = Json> {
    let texts = [
        r#"{"n":1,"text":"a"}"#.to_owned(),
        r#"{"n":1e15,"list":[1E3,-0,0.10]}"#.to_owned(),
        format!(r#"{{"text":"{}","n":7}}"#, "é\\n".repeat(2_000)),
        format!("[{}null]", "1e15,".repeat(900)),
        "\"text\"".to_owned(),
    ];
    prop::sample::select(texts.to_vec()).prop_map(|text| json(&text))
}

fn ops() -> impl Strategy<Value = Ops> {
    let op = prop::sample::select(vec![
        r#"{"type":"append","path":"text","value":"tok\u0001"}"#,
        r#"{"type":"append","path":"","value":"tok"}"#,
        r#"{"type":"append","path":["list"],"value":1e15}"#,
        r#"{"type":"increment","path":"n","by":1}"#,
        r#"{"type":"set","path":"new","value":{"a":[1.50,{}]}}"#,
        r#"{"type":"merge","path":["a","b"],"value":{"c":"d"}}"#,
        r#"{"type":"remove","path":"text"}"#,
        r#"{"type":"set","path":"text","value":""}"#,
    ]);
    prop::collection::vec(op, 0..3)
        .prop_map(|ops| Ops::from_text(&format!("[{}]", ops.join(","))).expect("operations"))
}

fn command() -> impl Strategy<Value = Command> {
    let action = prop_oneof![
        2 => value().prop_map(|value| Action::Set { value, ttl_ms: None }),
        8 => (ops(), any::<bool>()).prop_map(|(ops, is_atomic)| Action::Update { ops, is_atomic, ttl_ms: None }),
        1 => Just(Action::Delete),
        1 => Just(Action::Send { label: json(r#""typing""#), data: json("1") }),
    ];
    let returning = prop::sample::select(vec![
        None,
        Some(Returning::Both),
        Some(Returning::New),
        Some(Returning::None),
        Some(Returning::None),
    ]);
    ("[abcd]", action, returning).prop_map(|(item, action, returning)| Command {
        item: Some(item.as_str().into()),
        action,
        condition: None,
        mutation: None,
        returning,
    })
}

/// A subscriber of the whole group.
#[derive(Default)]
struct Client {
    takes_ops: bool,
    items: HashMap<Arc<str>, (u64, String)>,
    /// Items that were deleted while pages come.
    gone: HashMap<Arc<str>, u64>,
    seq: u64,
    stage: Stage,
}

#[derive(Default)]
enum Stage {
    #[default]
    Away,
    /// Reads pages; one may be on its way.
    Paging {
        after: u64,
        coming: Option<(Page, u64)>,
    },
    Live,
}

impl Client {
    fn demand(&self) -> Demand {
        if matches!(self.stage, Stage::Away) || self.takes_ops {
            Demand::Ops
        } else {
            Demand::Values
        }
    }

    fn see(&mut self, change: &Change) {
        self.seq = self.seq.max(change.seq);
        let Some(id) = &change.item else { return };
        let is_paging = matches!(self.stage, Stage::Paging { .. });
        let value = change.value.as_ref().map(|value| value.as_str().to_owned());
        let value = match (&change.kind, change.base, &change.ops) {
            (Kind::Delete, ..) => {
                self.items.remove(id);
                if is_paging {
                    self.gone.insert(id.clone(), change.seq);
                }
                return;
            }
            (Kind::Event { .. }, ..) => return,
            (Kind::Update, Some(base), Some(ops)) if self.takes_ops => {
                match self.items.get(id) {
                    Some((seq, held)) => {
                        assert_eq!(*seq, base, "operations fit what is held");
                        let applied = apply_ops_json(Some(held), ops.as_str());
                        let applied = applied.expect("operations").value;
                        if let Some(value) = value {
                            assert_eq!(applied, value);
                        }
                        applied
                    }
                    // It comes with a later page.
                    None => return assert!(is_paging, "an update of an unknown item"),
                }
            }
            _ => value.expect("a value was demanded"),
        };
        self.items.insert(id.clone(), (change.seq, value));
    }

    fn take_page(&mut self, page: Page, seq: u64) {
        self.stage = Stage::Paging {
            after: page
                .items
                .last()
                .map_or(u64::MAX, |(_, item)| item.created_seq),
            coming: None,
        };
        for (id, item) in page.items {
            let known = self.items.get(&id).map(|(seq, _)| *seq);
            let latest = known.max(self.gone.get(&id).copied());
            if latest.is_none_or(|latest| latest < item.seq) {
                self.items
                    .insert(id, (item.seq, item.value.as_str().to_owned()));
            }
        }
        if !page.more {
            self.seq = self.seq.max(seq);
            self.gone.clear();
            self.stage = Stage::Live;
        }
    }

    /// Does the next thing that leads to being live. A page may be overtaken by changes, but not if these are operations.
    fn go_on(&mut self, group: &mut Group) {
        match &mut self.stage {
            Stage::Away => {
                let changes = group.changes_since(self.seq, None, !self.takes_ops);
                if let Some(changes) = changes {
                    changes.iter().for_each(|change| self.see(change));
                    self.stage = Stage::Live;
                    assert_eq!(self.seq, group.seq());
                } else {
                    self.items.clear();
                    self.seq = 0;
                    self.stage = Stage::Paging {
                        after: 0,
                        coming: None,
                    };
                }
            }
            Stage::Paging { after, coming } => match coming.take() {
                Some((page, seq)) => self.take_page(page, seq),
                None => {
                    let page = group.page(*after, 2, 6_000);
                    *coming = Some((page, group.seq()));
                    if self.takes_ops {
                        self.go_on(group);
                    }
                }
            },
            Stage::Live => {}
        }
    }

    fn hang_up(&mut self) {
        // What was read of pages is no state to come back to.
        if !matches!(self.stage, Stage::Live) {
            self.seq = u64::MAX;
        }
        self.gone.clear();
        self.stage = Stage::Away;
    }
}

fn all(group: &mut Group) -> HashMap<Arc<str>, (u64, String)> {
    let items = group.iter();
    let items = items.map(|(id, item)| (id, (item.seq, item.value.as_str().to_owned())));
    items.collect()
}

#[derive(Clone, Debug)]
enum Step {
    Command(Command),
    GoOn,
    HangUp,
    Wait,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whoever_comes_and_goes_ends_with_the_group(
        takes_ops: bool,
        steps in prop::collection::vec(prop_oneof![
            6 => command().prop_map(Step::Command),
            3 => Just(Step::GoOn),
            1 => Just(Step::HangUp),
            1 => Just(Step::Wait),
        ], 1..80),
    ) {
        let mut group = group(LIMITS);
        let mut client = Client { takes_ops, ..Client::default() };
        let mut now_ms = 0;
        for step in steps {
            match step {
                Step::Command(command) => {
                    let change = group.commit(command, now_ms, client.demand()).change;
                    if let Some(change) = change && !matches!(client.stage, Stage::Away) {
                        client.see(&change);
                    }
                }
                Step::GoOn => client.go_on(&mut group),
                Step::HangUp => client.hang_up(),
                Step::Wait => now_ms += 50_000,
            }
            if matches!(client.stage, Stage::Live) {
                prop_assert_eq!(&client.items, &all(&mut group));
            }
        }
        while !matches!(client.stage, Stage::Live) {
            client.go_on(&mut group);
        }
        prop_assert_eq!(&client.items, &all(&mut group));
        prop_assert_eq!(client.seq, group.seq());
    }

    #[test]
    fn it_makes_no_difference_what_is_parsed(
        commands in prop::collection::vec((command(), any::<bool>()), 1..60),
        bytes_max in prop::sample::select(vec![9_000, 14_500, usize::MAX]),
    ) {
        let limits = |hot_items_max| GroupLimits { hot_items_max, bytes_max, ..LIMITS };
        let mut cold = group(limits(0));
        let mut others = [group(limits(0)), group(limits(1)), group(limits(64)), group(limits(64))];
        for (index, (command, flag)) in commands.into_iter().enumerate() {
            let now_ms = index as u64 * 20_000;
            let expected = cold.commit(command.clone(), now_ms, Demand::Values);
            let mixed = if flag { Demand::Values } else { Demand::Ops };
            let demands = [Demand::Ops, Demand::Ops, Demand::Ops, mixed];
            for (other, demand) in others.iter_mut().zip(demands) {
                let committed = other.commit(command.clone(), now_ms, demand);
                prop_assert_eq!(committed.reply.to_json(), expected.reply.to_json());
                prop_assert_eq!(committed.change.is_some(), expected.change.is_some());
                if let (Some(change), Some(expected)) = (committed.change, &expected.change) {
                    let value = change.value.clone().or_else(|| expected.value.clone());
                    prop_assert_eq!(&Change { value, ..Change::clone(&change) }, &**expected);
                }
            }
        }
        let expected: Vec<_> = cold.iter().collect();
        for other in &mut others {
            prop_assert_eq!(&other.iter().collect::<Vec<_>>(), &expected);
        }
    }

    #[test]
    fn an_item_that_nothing_happened_to_is_resumed_however_long_ago(
        commands in prop::collection::vec(command(), 1..60),
        since: prop::sample::Index,
    ) {
        let mut group = group(LIMITS);
        let changes: Vec<_> = commands
            .into_iter()
            .filter_map(|command| group.commit(command, 0, Demand::Values).change)
            .collect();
        let since = since.index(changes.len() + 1) as u64;
        for item in ["a", "b", "c", "d"] {
            let heard = changes.iter().filter(|change| change.item.as_deref() == Some(item));
            let missed: Vec<_> = heard.filter(|change| since < change.seq).cloned().collect();
            match group.changes_since(since, Some(item), true) {
                Some(changes) => prop_assert_eq!(changes, missed),
                None => prop_assert!(!missed.is_empty() || group.item_seq(item).is_none()),
            }
        }
        prop_assert_eq!(group.changes_since(changes.len() as u64 + 1, None, false), None);
    }
}

#[test]
fn an_update_that_nobody_needs_written_is_not() {
    let mut group = group(LIMITS);
    let mut commit = |action, now_ms, demand| {
        let command = Command {
            item: Some("i".into()),
            action,
            condition: None,
            mutation: None,
            returning: Some(Returning::None),
        };
        let change = group.commit(command, now_ms, demand).change;
        change.expect("a change").value.is_some()
    };
    let append = || Action::Update {
        ops: Ops::from_text(r#"[{"type":"append","value":"tok"}]"#).expect("operations"),
        is_atomic: false,
        ttl_ms: None,
    };
    let set = |bytes| Action::Set {
        value: Json::from_str_value(&"x".repeat(bytes)),
        ttl_ms: None,
    };
    commit(set(5_000), 0, Demand::Ops);
    assert!(!commit(append(), 0, Demand::Ops));
    assert!(commit(append(), 0, Demand::Values));
    assert!(commit(append(), 59_999, Demand::Ops), "within a minute");
    assert!(!commit(append(), 60_000, Demand::Ops));
    commit(set(4_000), 60_000, Demand::Ops);
    assert!(commit(append(), 60_000, Demand::Ops), "small");
}

#[test]
fn a_history_keeps_within_its_bounds() {
    let limits = GroupLimits {
        history_bytes_max: 2_000,
        ..LIMITS
    };
    let mut group = group(limits);
    let mut set = |bytes: usize| {
        let command = Command {
            item: Some("i".into()),
            action: Action::Set {
                value: Json::from_str_value(&"x".repeat(bytes)),
                ttl_ms: None,
            },
            condition: None,
            mutation: None,
            returning: None,
        };
        group.commit(command, 0, Demand::Ops);
        let seq = group.seq();
        let reaches = (0..=seq).filter(|since| group.changes_since(*since, None, true).is_some());
        (reaches.count() - 1, group.history_bytes())
    };
    for count in 1..=10 {
        assert_eq!(set(10).0, count);
    }
    let (_, bytes) = set(10);
    assert!(bytes <= 2_000);
    assert_eq!(set(1_800).0, 1);
    assert_eq!(set(3_000), (0, 0), "one that is larger than the bound");
    assert_eq!(set(10).0, 1);
}
