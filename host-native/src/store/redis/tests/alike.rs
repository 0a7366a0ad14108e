//! The Redis store does what the memory store does: random commands to both, answers and changes compared.

use std::sync::Arc;

use iii_stream_core::command::{read_delete, read_send, read_set, read_update};
use iii_stream_core::{
    Change, Command, Committed, Demand, GroupKey, GroupRef, Item, Json, Position,
};
use tokio::sync::oneshot;

use super::{ask, commit, limits, store};
use crate::redis_client::test_server::{TestServer, is_installed};
use crate::store::{ChangeSink, MemoryStore, PageWish, RedisStore, ResumeWish, Store};

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

struct NoSink;

impl ChangeSink for NoSink {
    fn demand(&self, _: &GroupKey) -> Demand {
        Demand::Values
    }

    fn publish(&self, _: &GroupKey, _: Arc<Change>, _: Option<&Json>) {}
}

/// A random command, as its caller writes it.
fn random_command(random: &mut Random, last_seq: u64) -> (String, Command) {
    let item = random.pick(&["a", "b", "c", "d", "e", "f", "g", "é:{x}"]);
    let mut fields = format!(r#""stream_name":"s","group_id":"g","item_id":"{item}""#);
    let verb = random.pick(&["set", "set", "update", "update", "update", "delete", "send"]);
    let value = random.pick(&[
        "1",
        "null",
        r#"{"n":1,"list":[]}"#,
        r#""a text of some length, so that the group gets full before long""#,
        r#"{"n":9007199254740993,"s":"é"}"#,
    ]);
    match verb {
        "set" => fields += &format!(r#","data":{value}"#),
        "update" => {
            let ops = random.pick(&[
                r#"[{"type":"increment","path":"n","by":2}]"#,
                r#"[{"type":"append","path":"list","value":"some text"}]"#,
                r#"[{"type":"set","path":"x","value":{"y":[1,2,3]}},{"type":"increment","path":"s","by":1}]"#,
                r#"[{"type":"merge","value":{"m":true}}]"#,
                r#"[{"type":"remove","path":"list"}]"#,
            ]);
            fields += &format!(r#","ops":{ops}"#);
            if random.below(4) == 0 {
                fields += r#","atomic":true"#;
            }
        }
        "send" => {
            fields = r#""stream_name":"s","group_id":"g","type":"typing","data":[1]"#.to_owned();
            if random.below(2) == 0 {
                fields += &format!(r#","id":"{item}""#);
            }
        }
        _ => {}
    }
    if verb != "send" {
        match random.below(8) {
            0 => fields += r#","if":{"absent":true}"#,
            1 => fields += r#","if":{"exists":true}"#,
            2 => {
                let seq = last_seq.saturating_sub(random.below(6));
                fields += &format!(r#","if":{{"seq":{seq}}}"#);
            }
            _ => {}
        }
        if random.below(3) == 0 {
            let returning = random.pick(&["both", "new", "none"]);
            fields += &format!(r#","returning":"{returning}""#);
        }
        if matches!(verb, "set" | "update") && random.below(6) == 0 {
            fields += r#","ttl_ms":1000000"#;
        }
    }
    if random.below(3) == 0 {
        let client = random.pick(&["one", "two", "three"]);
        let seq = 1 + random.below(4);
        let resent = random.pick(&["", r#","resent":true"#]);
        fields += &format!(r#","mutation":{{"client":"{client}","seq":{seq}{resent}}}"#);
    }
    let text = format!("{{{fields}}}");
    let write = match verb {
        "set" => read_set(&text),
        "update" => read_update(&text),
        "delete" => read_delete(&text),
        _ => read_send(&text),
    };
    let command = write.expect("a command").command;
    (format!("{verb} {text}"), command)
}

/// What both stores must agree on.
fn told(committed: &Committed) -> (Result<String, String>, Option<Change>) {
    let reply = committed.reply.to_json();
    let change = committed.change.as_deref().cloned();
    (
        reply.map_err(|refusal| refusal.to_string()),
        change.map(|change| Change {
            timestamp: 0,
            ..change
        }),
    )
}

fn told_of_items(items: &[(Arc<str>, Item)]) -> Vec<(Arc<str>, Item)> {
    let mut items = items.to_vec();
    for (_, item) in &mut items {
        item.timestamp = 0;
        item.expires_ms = item.expires_ms.map(|_| 0);
    }
    items
}

fn told_of_changes(changes: &[Arc<Change>]) -> Vec<Change> {
    let changes = changes.iter().map(|change| Change {
        timestamp: 0,
        ..Change::clone(change)
    });
    changes.collect()
}

/// Compares everything that can be read of a group.
async fn compare_reads(
    memory: &MemoryStore,
    redis: &RedisStore,
    group: GroupRef<'_>,
    context: &str,
) {
    let list = |store: &dyn Store| {
        let (send, receive) = oneshot::channel();
        store.list(
            group,
            Box::new(move |items| {
                let _ = send.send(items);
            }),
        );
        receive
    };
    let (in_memory, in_redis) = (list(memory).await, list(redis).await);
    let in_memory = in_memory.expect("an answer").expect("items");
    let in_redis = in_redis.expect("an answer").expect("items");
    assert_eq!(
        told_of_items(&in_redis),
        told_of_items(&in_memory),
        "{context}"
    );
    for (id, item) in &in_redis {
        let got = ask(|done| redis.get(group, id, done))
            .await
            .expect("an item");
        assert_eq!(got.as_ref(), Some(item));
    }
    let clients: crate::store::Clients = Some(["one".into(), "two".into(), "three".into()].into());
    let at_memory = ask(|done| memory.position(group, done))
        .await
        .expect("a position");
    let at_redis = ask(|done| redis.position(group, done))
        .await
        .expect("a position");
    assert_eq!(at_redis.seq, at_memory.seq, "{context}");
    let mut wish = PageWish {
        clients: clients.clone(),
        mutations_up_to: at_memory.seq.checked_sub(3),
        ..PageWish::default()
    };
    for after in [0, at_memory.seq / 2] {
        wish.after = after;
        let page = |store: &dyn Store| {
            let (send, receive) = oneshot::channel();
            let done = Box::new(move |page| {
                let _ = send.send(page);
            });
            store.page(group, wish.clone(), crate::clock::unix_ms(), done);
            receive
        };
        let in_memory = page(memory).await.expect("an answer").expect("a page");
        let in_redis = page(redis).await.expect("an answer").expect("a page");
        assert_eq!(
            told_of_items(&in_redis.items),
            told_of_items(&in_memory.items)
        );
        assert_eq!(in_redis.next_after, in_memory.next_after);
        assert_eq!(in_redis.mutations, in_memory.mutations, "{context}");
        assert_eq!(in_redis.seq, in_memory.seq);
    }
    for (item, back) in [
        (None, 0),
        (None, 7),
        (Some("a"), 3),
        (Some("b"), 30),
        (None, 30),
    ] {
        let Some(since) = at_memory.seq.checked_sub(back) else {
            continue;
        };
        let resume = |store: &dyn Store, epoch: &Arc<str>| {
            let (send, receive) = oneshot::channel();
            let wish = ResumeWish {
                item: item.map(Into::into),
                since: Position {
                    epoch: epoch.clone(),
                    seq: since,
                },
                needs_values: true,
                clients: clients.clone(),
            };
            let done = Box::new(move |resumed| {
                let _ = send.send(resumed);
            });
            store.resume(group, wish, crate::clock::unix_ms(), done);
            receive
        };
        let in_memory = resume(memory, &at_memory.epoch).await.expect("an answer");
        let in_redis = resume(redis, &at_redis.epoch).await.expect("an answer");
        let in_memory = in_memory.expect("a result").expect("it reaches back");
        let in_redis = in_redis.expect("a result").expect("it reaches back");
        assert_eq!(
            told_of_changes(&in_redis.changes),
            told_of_changes(&in_memory.changes),
            "{context}: {item:?} since {since}"
        );
        assert_eq!(in_redis.mutations, in_memory.mutations);
    }
}

/// Runs random commands, `together` at a time, each by a random one of `instances`.
async fn compare(server: &TestServer, seed: u64, rounds: usize, together: usize, instances: usize) {
    let client = server.client().await;
    let stores: Vec<_> = (0..instances).map(|_| store(&client, limits())).collect();
    let memory = MemoryStore::new("m", Arc::new(NoSink), limits(), 1 << 30);
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let name = format!("g{seed}-{together}-{instances}");
    let group = GroupRef {
        stream: "s",
        group: &name,
    };
    let mut last_seq = 0;
    let mut history = Vec::new();
    for round in 0..rounds {
        let redis = &stores[random.below(instances as u64) as usize];
        let mut answers = Vec::new();
        for _ in 0..=random.below(together as u64) {
            let (text, command) = random_command(&mut random, last_seq);
            let expected = commit(&memory, group, command.clone());
            answers.push((text, expected, commit(&**redis, group, command)));
        }
        for (text, expected, got) in answers {
            let expected = expected.await.expect("an answer").expect("memory works");
            let got = got.await.expect("an answer").expect("Redis works");
            if let Some(change) = &expected.change {
                last_seq = change.seq;
            }
            history.push(text);
            let recent = &history[history.len().saturating_sub(12)..];
            assert_eq!(
                told(&got),
                told(&expected),
                "seed {seed}, {together} together, {instances} instances, after {recent:#?}"
            );
        }
        if round % 10 == 9 {
            let context = format!("seed {seed}, round {round}");
            compare_reads(&memory, redis, group, &context).await;
        }
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_commands_do_what_they_do_in_memory() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    for seed in 1..=6 {
        compare(&server, seed, 200, 1, 1).await;
        compare(&server, seed, 60, 20, 1).await;
        compare(&server, seed, 200, 1, 3).await;
        compare(&server, seed, 60, 20, 3).await;
    }
}
