//! What the core's operations cost natively, without a server around them.

use std::io;
use std::time::Duration;

use iii_stream_core::command::{Action, Command, Returning, Write, read_set, read_update};
use iii_stream_core::{
    CallError, Demand, Floor, Group, GroupLimits, Json, Ops, apply, apply_ops_json,
};
use serde_json::value::RawValue;

use crate::args::Args;
use crate::batches::{Cost, Kind, time};
use crate::report::{Bound, Report, Row};
use crate::values::{GROUP, ITEMS, document_text, item_id, value_text};

const ITEM_BYTES: usize = 1 << 10;
const LARGE_VALUE_BYTES: usize = 10 << 10;
const THREE_OPS_NS: f64 = 2000.0;
/// Share of `--seconds` for each kind.
const SHARE: f64 = 0.1;
const THREE_OPS: &str = concat!(
    r#"[{"type":"increment","path":"n","by":1},"#,
    r#"{"type":"set","path":"status","value":"answered"},"#,
    r#"{"type":"merge","path":["cursor"],"value":{"x":17,"y":4}}]"#
);
/// What the worker port's update load does to its items.
const ONE_OP: &str = r#"[{"type":"increment","path":"n","by":1}]"#;

/// What an answer that arrives token by token does.
const TOKEN: &str = r#"[{"type":"append","value":"tok, tok, tok, tok, "}]"#;
/// Time stands still, as far as the groups know.
const NOW_MS: u64 = 1_760_000_000_000;

/// Measures and reports.
pub(crate) fn measure(args: &Args, report: &mut Report) -> io::Result<()> {
    let item = document_text(ITEM_BYTES);
    let ops = Ops::from_text(THREE_OPS).map_err(io::Error::other)?;
    check(&item)?;
    let mut parsed = Json::from_text(&item).map_err(io::Error::other)?.to_value();
    let mut parsed_too = parsed.clone();
    let small = raw(value_text(0))?;
    let large = raw(document_text(LARGE_VALUE_BYTES))?;
    let mut sets = Calls::new(ITEMS, 64, read_set, |item| {
        format!(r#""data":{}"#, value_text(item))
    })?;
    let update = |_| format!(r#""ops":{ONE_OP}"#);
    let mut updates_of_one = Calls::new(1, 64, read_update, update)?;
    let mut updates_of_all = Calls::new(ITEMS, 1, read_update, update)?;
    let mut updates_all_parsed = Calls::new(ITEMS, 64, read_update, update)?;
    let token = Ops::from_text(TOKEN).map_err(io::Error::other)?;
    let mut answers = [1 << 10, 8 << 10, 1 << 20].map(Answer::of);
    let [small_answer, answer, large_answer] = &mut answers;

    let mut kinds = [
        Kind::new("three ops on a parsed 1 KB item", || {
            parsed = apply(Some(parsed.take()), &ops).value;
        }),
        Kind::new("the same, ops read from text", || {
            let ops = Ops::from_text(THREE_OPS);
            parsed_too = ops.map_or_else(
                |_| serde_json::Value::Null,
                |ops| apply(Some(parsed_too.take()), &ops).value,
            );
        }),
        Kind::new("three ops on a 1 KB item, text to text", || {
            apply_ops_json(Some(&item), THREE_OPS)
        }),
        Kind::new("one increment of a 256 B item, text to text", || {
            apply_ops_json(Some(small.get()), ONE_OP)
        }),
        Kind::new("set's check, 256 B, text already read", || {
            Json::from_raw(&small)
        }),
        Kind::new("set's check, 10 KB, text already read", || {
            Json::from_raw(&large)
        }),
        Kind::new("set's check, 256 B, any text", || {
            Json::from_text(small.get())
        }),
        Kind::new("set's check, 10 KB, any text", || {
            Json::from_text(large.get())
        }),
        Kind::new("set call on a group of 1,000 items, 256 B", || sets.next()),
        Kind::new("update call on one item, 256 B", || updates_of_one.next()),
        Kind::new("update call on 1,000 items, few parsed", || {
            updates_of_all.next()
        }),
        Kind::new("update call on 1,000 items, all parsed", || {
            updates_all_parsed.next()
        }),
        Kind::new("20 B appended to 1 KB, nobody needs the value", || {
            small_answer.append(&token);
        }),
        Kind::new("20 B appended to 8 KB, nobody needs the value", || {
            answer.append(&token);
        }),
        Kind::new("20 B appended to 1 MB, nobody needs the value", || {
            large_answer.append(&token);
        }),
    ];
    eprintln!("core: {} kinds", kinds.len());
    let costs = time(&mut kinds, Duration::from_secs_f64(args.seconds * SHARE));
    let rows = kinds
        .iter()
        .zip(&costs)
        .flat_map(|(kind, cost)| rows(kind.name, cost));
    report.section("core, native, with the server's allocator", rows.collect());
    Ok(())
}

/// Only the first kind has a target.
fn rows(name: &str, cost: &Cost) -> [Row; 2] {
    let mut best = Row::new(format!("{name}, best decile"), "ns/op", cost.best_decile);
    if name == "three ops on a parsed 1 KB item" {
        let target = Bound::at_most(&best, THREE_OPS_NS);
        best = best.target(target);
    }
    [
        best,
        Row::new(format!("{name}, median"), "ns/op", cost.median),
    ]
}

/// The operations must do something, or their cost means nothing.
fn check(item: &str) -> io::Result<()> {
    let applied = apply_ops_json(Some(item), THREE_OPS).map_err(io::Error::other)?;
    let expected = item
        .replace(r#""n":0"#, r#""n":1"#)
        .replace(r#""status":"open""#, r#""status":"answered""#)
        .replace(r#""cursor":{"x":0,"y":0}"#, r#""cursor":{"x":17,"y":4}"#);
    if applied.errors.is_empty() && applied.value == expected && expected != item {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the three ops gave {}",
            applied.value
        )))
    }
}

/// What the server does with a call between its frame and its reply's: reads it, carries it out, writes the result.
struct Calls {
    group: Group,
    read: fn(&str) -> Result<Write<'_>, CallError>,
    inputs: Vec<String>,
    next: usize,
}

impl Calls {
    fn new(
        items: usize,
        hot_items_max: usize,
        read: fn(&str) -> Result<Write<'_>, CallError>,
        rest: impl Fn(usize) -> String,
    ) -> io::Result<Self> {
        let input = |item, rest: String| {
            let id = item_id(item);
            format!(r#"{{"stream_name":"bench","group_id":"{GROUP}","item_id":"{id}",{rest}}}"#)
        };
        let mut calls = Self {
            group: group(hot_items_max),
            read: read_set,
            inputs: (0..items)
                .map(|item| input(item, format!(r#""data":{}"#, value_text(item))))
                .collect(),
            next: 0,
        };
        for _ in 0..items {
            let reply = calls.next();
            if !reply.is_some_and(|reply| reply.contains("new_value")) {
                return Err(io::Error::other("a set failed"));
            }
        }
        calls.read = read;
        calls.inputs = (0..items).map(|item| input(item, rest(item))).collect();
        Ok(calls)
    }

    fn next(&mut self) -> Option<String> {
        self.next = (self.next + 1) % self.inputs.len();
        let write = (self.read)(&self.inputs[self.next]).ok()?;
        let committed = self.group.commit(write.command, NOW_MS, Demand::Values);
        committed.reply.to_json().ok()
    }
}

/// A text that grows by tokens, and starts anew once it has doubled.
struct Answer {
    group: Group,
    start: Json,
    appends: usize,
}

impl Answer {
    fn of(bytes: usize) -> Self {
        let start = Json::from_str_value(&"x".repeat(bytes));
        let mut answer = Self {
            group: group(64),
            start,
            appends: 0,
        };
        answer.restart();
        answer
    }

    fn restart(&mut self) {
        self.appends = 0;
        self.commit(Action::Set {
            value: self.start.clone(),
            ttl_ms: None,
        });
    }

    fn append(&mut self, token: &Ops) {
        self.appends += 20;
        if self.start.as_str().len() < self.appends {
            self.restart();
        }
        self.commit(Action::Update {
            ops: token.clone(),
            is_atomic: false,
            ttl_ms: None,
        });
    }

    fn commit(&mut self, action: Action) {
        let command = Command {
            item: Some("answer".into()),
            action,
            condition: None,
            mutation: None,
            returning: Some(Returning::None),
        };
        std::hint::black_box(self.group.commit(command, NOW_MS, Demand::Ops));
    }
}

fn group(hot_items_max: usize) -> Group {
    let limits = GroupLimits {
        items_max: usize::MAX,
        bytes_max: usize::MAX,
        client_records_max: 1,
        hot_items_max,
        history_changes_max: 1_000,
        history_bytes_max: 1 << 20,
    };
    Group::new("e".into(), Floor::default(), limits)
}

fn raw(text: String) -> io::Result<Box<RawValue>> {
    RawValue::from_string(text).map_err(|error| io::Error::other(error.to_string()))
}
