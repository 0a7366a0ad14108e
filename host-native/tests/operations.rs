//! `docs/operations.md` is true: its table has every metric and no other, each with its type.

use std::collections::BTreeMap;

use iii_stream::metrics::{self, Metrics, ProcessReadings, Readings};

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const CONFIGURATION: &str = include_str!("../../docs/configuration.md");

/// The cells of each row of a page's tables, without the marks of code.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = page.lines().filter(|line| line.starts_with('|'));
    lines.map(|line| {
        line.split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect()
    })
}

fn is_metric(name: &str) -> bool {
    name.starts_with("iii_stream_") || name.starts_with("process_")
}

/// Name and type of each metric, as the server shows them.
fn shown() -> BTreeMap<String, String> {
    let page = metrics::page(
        &Metrics::default(),
        &Readings::default(),
        &ProcessReadings::default(),
    );
    let types = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

#[test]
fn the_table_has_every_metric_and_no_other() {
    let told: BTreeMap<_, _> = rows(OPERATIONS)
        .filter(|cells| is_metric(cells[1]) && !cells[1].contains(' '))
        .map(|cells| (cells[1].to_owned(), cells[2].to_owned()))
        .collect();
    assert_eq!(told, shown());
}

#[test]
fn names_tell_type_and_unit() {
    for (name, kind) in shown() {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        let unit = rows(OPERATIONS)
            .find(|cells| cells[1] == name)
            .map(|cells| cells[3].to_owned());
        for word in ["seconds", "bytes"] {
            let is_told = unit.as_deref() == Some(word);
            assert_eq!(name.contains(&format!("_{word}")), is_told, "{name}");
        }
    }
}

#[test]
fn every_metric_that_the_pages_speak_of_exists() {
    let shown = shown();
    for page in [OPERATIONS, CONFIGURATION] {
        let words = page.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        for name in words.filter(|word| is_metric(word)) {
            assert!(shown.contains_key(name), "{name}");
        }
    }
}
