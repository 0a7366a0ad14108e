//! `docs/configuration.md` is true: it names every key and no other, and its defaults are the defaults.

use std::collections::BTreeMap;
use std::path::Path;

use iii_stream::config::Config;

const PAGE: &str = include_str!("../../docs/configuration.md");

fn read(yaml: &str) -> Result<Config, String> {
    Config::from_text(yaml, Path::new("stream.yaml"), |_| None).map_err(|error| error.to_string())
}

/// The keys of an entry, as the message for a key that is like none of them lists them.
fn keys_in_code(entry: &str) -> Vec<String> {
    let message =
        read(&format!("- name: {entry}\n  config:\n    '#': 1\n")).expect_err("no such key");
    let (_, list) = message.split_once("there are ").expect("a list of keys");
    let mut keys: Vec<_> = list.split(", ").map(str::to_owned).collect();
    keys.sort();
    keys
}

/// A configuration with one key of an adapter.
fn of_adapter(name: &str, key: &str) -> String {
    format!(
        "- name: iii-stream\n  config:\n    adapter:\n      name: {name}\n      config:\n        {key}\n"
    )
}

#[test]
fn every_key_of_an_adapter_is_on_the_page_with_its_default() {
    let default_of = |adapter: &str, key: &str| {
        let config = read(&of_adapter(adapter, key)).unwrap_or_else(|error| panic!("{error}"));
        format!("{:?}", config.store)
    };
    for (adapter, given) in [("redis", "{}"), ("kv", "store_method: file_based")] {
        let message = read(&of_adapter(adapter, "'#': 1")).expect_err("no such key");
        let (_, list) = message.split_once("there are ").expect("a list of keys");
        let mut in_code: Vec<_> = list.split(", ").map(str::to_owned).collect();
        in_code.sort();
        let on_page = keys_on_page(adapter);
        let keys: Vec<_> = on_page.keys().cloned().collect();
        assert_eq!(keys, in_code, "{adapter}");
        let bare = default_of(adapter, given);
        for (key, default) in &on_page {
            let Some(default) = default else { continue };
            if key == "store_method" {
                continue;
            }
            let given = given.trim_start_matches("{}");
            let keys = format!("{key}: {default}\n        {given}");
            assert_eq!(default_of(adapter, &keys), bare, "{adapter}: {key}");
        }
    }
}

/// Keys and defaults of an entry, as the page says them. `none` stands without marks.
fn keys_on_page(entry: &str) -> BTreeMap<String, Option<String>> {
    let heading = format!("## `{entry}`");
    let (_, section) = PAGE.split_once(&heading).expect("a section for the entry");
    let section = section.split("\n## ").next().expect("a section");
    let unmarked = |cell: &str| Some(cell.trim().strip_prefix('`')?.strip_suffix('`')?.to_owned());
    section
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split('|').collect();
            Some((unmarked(cells.get(1)?)?, unmarked(cells.get(3)?)))
        })
        .collect()
}

#[test]
fn every_key_is_on_the_page_and_no_other() {
    for entry in ["iii-stream", "iii-worker-manager"] {
        let on_page: Vec<_> = keys_on_page(entry).into_keys().collect();
        assert_eq!(on_page, keys_in_code(entry), "{entry}");
    }
}

#[test]
fn the_defaults_on_the_page_are_the_defaults() {
    let bare = format!("{:?}", Config::bare());
    for entry in ["iii-stream", "iii-worker-manager"] {
        for (key, default) in keys_on_page(entry) {
            let Some(default) = default else { continue };
            let yaml = format!("- name: {entry}\n  config:\n    {key}: {default}\n");
            let config = read(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
            assert_eq!(format!("{config:?}"), bare, "{yaml}");
        }
    }
}

#[test]
fn the_sample_on_the_page_is_read() {
    let (_, sample) = PAGE.split_once("```yaml\n").expect("a sample");
    let (sample, _) = sample.split_once("```").expect("its end");
    let config = read(sample).expect("a configuration");
    assert_eq!(config.auth.function_id.as_deref(), Some("stream::auth"));
}
