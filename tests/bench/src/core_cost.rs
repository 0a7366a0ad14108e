//! What the core's operations cost natively, without a server around them.

use std::io;
use std::time::Duration;

use iii_stream_core::{Json, Ops, apply, apply_ops_json};
use serde_json::value::RawValue;

use crate::args::Args;
use crate::batches::{Cost, Kind, time};
use crate::report::{Bound, Report, Row};
use crate::values::{document_text, value_text};

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

/// Measures and reports.
pub(crate) fn measure(args: &Args, report: &mut Report) -> io::Result<()> {
    let item = document_text(ITEM_BYTES);
    let ops = Ops::from_text(THREE_OPS).map_err(io::Error::other)?;
    check(&item)?;
    let mut parsed = Json::from_text(&item).map_err(io::Error::other)?.to_value();
    let mut parsed_too = parsed.clone();
    let small = raw(value_text(0))?;
    let large = raw(document_text(LARGE_VALUE_BYTES))?;

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

fn raw(text: String) -> io::Result<Box<RawValue>> {
    RawValue::from_string(text).map_err(|error| io::Error::other(error.to_string()))
}
