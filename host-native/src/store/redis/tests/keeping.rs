//! What is kept, for how long, and what is listed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use iii_stream_core::command::{read_delete, read_update};
use iii_stream_core::{Draft, GroupLimits, GroupRef, Json, Kind, Position, Ttl};

use super::{GROUP, ask, commit, done, options, set, store, store_with, wide};
use crate::redis_client::test_server::{TestServer, is_installed};
use crate::store::{ResumeWish, Store};

#[tokio::test]
async fn an_item_goes_when_its_time_has_come() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let (one, two) = (store(&client, wide()), store(&client, wide()));
    done(commit(&*one, GROUP, set("a", "1", r#","ttl_ms":60"#)))
        .await
        .expect("a change");
    done(commit(&*one, GROUP, set("b", "2", r#","ttl_ms":600000"#)))
        .await
        .expect("a change");
    done(commit(&*two, GROUP, set("c", "3", "")))
        .await
        .expect("a change");
    let gone = async {
        while ask(|done| two.get(GROUP, "a", done))
            .await
            .expect("an answer")
            .is_some()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .expect("it goes");
    let logged = two.changes_after(GROUP, 0).await.expect("an answer");
    let changes = logged.changes.expect("all changes");
    let deleted = changes.last().expect("a change");
    assert_eq!((deleted.seq, &deleted.kind), (4, &Kind::Delete));
    assert_eq!(deleted.item.as_deref(), Some("a"));
    assert_eq!(deleted.base, Some(1));
    let items = ask(|done| one.list(GROUP, done)).await.expect("items");
    assert_eq!(items.len(), 2);
    let (_, kept) = &items[0];
    assert_eq!(kept.ttl_ms, Some(600_000));
    client.close().await;
}

#[tokio::test]
async fn groups_with_items_are_listed_in_order() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let store = store(&client, wide());
    for (stream, group) in [("s", "z"), ("s", "a:b{}"), ("t", "g"), ("u", "gone")] {
        let group = GroupRef { stream, group };
        done(commit(&*store, group, set("a", "1", "")))
            .await
            .expect("a change");
    }
    let group = GroupRef {
        stream: "u",
        group: "gone",
    };
    let delete = r#"{"stream_name":"u","group_id":"gone","item_id":"a"}"#;
    let delete = read_delete(delete).expect("a command").command;
    done(commit(&*store, group, delete))
        .await
        .expect("a change");
    let groups = ask(|done| store.list_groups("s", done))
        .await
        .expect("groups");
    let groups: Vec<_> = groups.iter().map(|group| &**group).collect();
    assert_eq!(groups, ["a:b{}", "z"]);
    let all = ask(|done| store.list_all(done)).await.expect("streams");
    let all: Vec<_> = all
        .iter()
        .map(|(stream, groups)| (&**stream, groups.len()))
        .collect();
    assert_eq!(all, [("s", 2), ("t", 1)]);
    // A group that holds nothing goes by itself; one that holds something stays.
    assert!(server.ask(&["PTTL", "t:g:{u:gone}"]).starts_with(":3"));
    assert!(server.ask(&["PTTL", "t:h:{u:gone}"]).starts_with(":3"));
    assert!(server.ask(&["PTTL", "t:g:{t:g}"]).starts_with(":-1"));
    done(commit(&*store, group, set("a", "1", "")))
        .await
        .expect("a change");
    assert!(server.ask(&["PTTL", "t:g:{u:gone}"]).starts_with(":-1"));
    assert!(server.ask(&["PTTL", "t:h:{u:gone}"]).starts_with(":-1"));
    client.close().await;
}

#[tokio::test]
async fn a_history_has_at_least_what_it_must_and_an_eighth_more_at_most() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let limits = GroupLimits {
        history_changes_max: 40,
        history_bytes_max: 100_000,
        ..wide()
    };
    let store = store(&client, limits);
    let len = || {
        let told = server.ask(&["XLEN", "t:h:{s:g}"]);
        let told = told.lines().next().unwrap_or_default();
        told.trim_start_matches(':')
            .trim()
            .parse::<u64>()
            .expect("a number")
    };
    for number in 0..200 {
        done(commit(&*store, GROUP, set("a", &number.to_string(), "")))
            .await
            .expect("a change");
        let kept = len();
        assert!(
            kept <= 45 && (number + 1).min(40) <= kept,
            "{kept} after {number}"
        );
    }
    let logged = store.changes_after(GROUP, 160).await.expect("an answer");
    assert_eq!(logged.changes.map(|changes| changes.len()), Some(40));
    let logged = store.changes_after(GROUP, 100).await.expect("an answer");
    assert!(logged.changes.is_none());
    let large = format!("\"{}\"", "x".repeat(9_000));
    for number in 0..40 {
        done(commit(&*store, GROUP, set("b", &large, "")))
            .await
            .expect("a change");
        assert!(
            len() <= 45 && (number < 11 || len() <= 10),
            "{} after {number}",
            len()
        );
    }
    assert!(7 <= len());
    let too_large = format!("\"{}\"", "x".repeat(100_000));
    done(commit(&*store, GROUP, set("b", &too_large, "")))
        .await
        .expect("a change");
    assert_eq!(len(), 0);
    done(commit(&*store, GROUP, set("b", "1", "")))
        .await
        .expect("a change");
    let logged = store.changes_after(GROUP, 241).await.expect("an answer");
    assert_eq!(logged.changes.map(|changes| changes.len()), Some(1));
    client.close().await;
}

#[tokio::test]
async fn what_is_kept_elsewhere_is_announced_and_leaves_no_history() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let store = store(&client, wide());
    let first = done(commit(&*store, GROUP, set("a", "1", "")))
        .await
        .expect("a change");
    let draft = Draft {
        item: Some("elsewhere".into()),
        kind: Kind::Update,
        value: Some(Json::from_text("[1]").expect("JSON")),
        ops: None,
        base: None,
        ttl: Ttl::Keep,
        mutation: None,
    };
    let change = ask(|done| store.announce(GROUP, draft, 0, done))
        .await
        .expect("a change");
    assert_eq!((change.seq, change.item.as_deref()), (2, Some("elsewhere")));
    assert!(first.change.expect("a change").timestamp < change.timestamp);
    let logged = store.changes_after(GROUP, 1).await.expect("an answer");
    assert_eq!((logged.seq, logged.changes), (2, None));
    client.close().await;
}

#[tokio::test]
async fn a_store_without_history_says_so() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let mut options = options(wide());
    options.keeps_history = false;
    let store = store_with(&client, options);
    done(commit(&*store, GROUP, set("a", "1", "")))
        .await
        .expect("a change");
    let logged = store.changes_after(GROUP, 0).await.expect("an answer");
    assert_eq!((logged.seq, logged.changes), (1, None));
    client.close().await;
}

/// `stream::update` that appends a token to the text of an item.
fn append(item: &str, token: usize) -> iii_stream_core::Command {
    let text = format!(
        r#"{{"stream_name":"s","group_id":"g","item_id":"{item}","ops":[{{"type":"append","path":"text","value":"token-{token} "}}],"returning":"none"}}"#
    );
    read_update(&text).expect("a command").command
}

#[tokio::test]
async fn a_growing_text_does_not_fill_the_history() {
    if !is_installed() {
        return;
    }
    const TOKENS: usize = 5_000;
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let limits = GroupLimits {
        history_changes_max: 10_000,
        history_bytes_max: 1 << 20,
        ..wide()
    };
    let store = store(&client, limits);
    done(commit(&*store, GROUP, set("a", r#"{"text":""}"#, "")))
        .await
        .expect("a change");
    let mut text = String::new();
    let mut values = vec![text.clone()];
    for token in 0..TOKENS {
        text += &format!("token-{token} ");
        values.push(text.clone());
    }
    for first in (0..TOKENS).step_by(100) {
        let tokens = first..first + 100;
        let answers: Vec<_> = tokens
            .map(|token| commit(&*store, GROUP, append("a", token)))
            .collect();
        for answer in answers {
            done(answer).await.expect("a change");
        }
    }
    let at = store.position_now(GROUP).await.expect("a position");
    assert_eq!(at.seq, TOKENS as u64 + 1);
    let resume = async |back: u64, needs_values| {
        let wish = ResumeWish {
            item: None,
            since: Position {
                epoch: at.epoch.clone(),
                seq: at.seq - back,
            },
            needs_values,
            clients: None,
        };
        ask(|done| store.resume(GROUP, wish, 0, done))
            .await
            .expect("an answer")
    };
    for back in [1, 300, 999] {
        let deltas = resume(back, false).await.expect("it reaches back").changes;
        assert_eq!(deltas.len() as u64, back);
        assert!(deltas.iter().all(|change| change.ops.is_some()));
        // Whoever needs values gets each exactly.
        let whole = resume(back, true).await.expect("it reaches back").changes;
        assert_eq!(whole.len() as u64, back);
        for change in whole {
            let value = &values[change.seq as usize - 1];
            assert_eq!(
                change.value.as_ref().map(Json::as_str),
                Some(&*format!(r#"{{"text":"{value}"}}"#))
            );
        }
    }
    let logged = store.changes_after(GROUP, at.seq - 500).await;
    let changes = logged.expect("an answer").changes.expect("all changes");
    assert!(changes.len() == 500 && changes.iter().all(|change| change.value.is_some()));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_resumes_while_others_write_gets_values_that_began_before() {
    if !is_installed() {
        return;
    }
    const ITEMS: usize = 8;
    let server = TestServer::start_with(&[]);
    let client = server.client().await;
    let limits = GroupLimits {
        history_changes_max: 100_000,
        history_bytes_max: 64 << 20,
        ..wide()
    };
    let [writer, reader] = [(), ()].map(|()| store(&client, limits));
    // So large that the history has operations for long, and begins with the values.
    let mut texts = vec!["x".repeat(16_000); ITEMS];
    for (item, text) in texts.iter().enumerate() {
        let value = format!(r#"{{"text":"{text}"}}"#);
        done(commit(&*writer, GROUP, set(&item.to_string(), &value, "")))
            .await
            .expect("a change");
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let is_over = is_over.clone();
        async move {
            let mut values = HashMap::new();
            for token in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                // The next one's value is always older than those before.
                let item = ITEMS - 1 - token % ITEMS;
                let command = append(&item.to_string(), token);
                let committed = done(commit(&*writer, GROUP, command)).await;
                let change = committed.expect("a change").change.expect("a change");
                texts[item] += &format!("token-{token} ");
                values.insert(change.seq, format!(r#"{{"text":"{}"}}"#, texts[item]));
            }
            values
        }
    });
    let mut found = Vec::new();
    while found.len() < 200 {
        let mut since = reader.position_now(GROUP).await.expect("a position");
        since.seq = (since.seq - 2).max(ITEMS as u64);
        let wish = ResumeWish {
            item: None,
            since,
            needs_values: true,
            clients: None,
        };
        let resumed = ask(|done| reader.resume(GROUP, wish, 0, done)).await;
        let resumed = resumed.expect("an answer");
        found.extend(resumed.expect("it reaches back").changes);
    }
    is_over.store(true, Ordering::Relaxed);
    let values = writing.await.expect("a writer");
    for change in found {
        let value = change.value.as_ref().map(Json::as_str);
        assert_eq!(value, values.get(&change.seq).map(String::as_str));
    }
    client.close().await;
}
