//! Commands come to the same as in the store in memory, but for versions.

use super::*;

/// Small numbers in an order that is always the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn random_command(numbers: &mut Numbers) -> (String, &'static str) {
    let item = format!("i{}", numbers.below(6));
    let condition = [
        "",
        "",
        r#","if":{"absent":true}"#,
        r#","if":{"exists":true}"#,
    ];
    let condition = condition[numbers.below(4) as usize];
    let values = [
        "1",
        "null",
        r#"{"a":[1,{"b":"🦀"}]}"#,
        "[]",
        r#""x""#,
        "1.50",
    ];
    let value = values[numbers.below(6) as usize];
    let ops = [
        r#"[{"type":"increment","path":"n","by":1}]"#,
        r#"[{"type":"append","path":"list","value":{}},{"type":"set","path":"x","value":null}]"#,
        r#"[{"type":"remove","path":"a"}]"#,
        r#"[{"type":"merge","path":"","value":{"deep":{"er":[]}}}]"#,
        "[]",
    ];
    let ops = ops[numbers.below(5) as usize];
    match numbers.below(8) {
        0..=2 => (
            input(&item, &format!(r#","data":{value}{condition}"#)),
            "set",
        ),
        3 | 4 => (
            input(&item, &format!(r#","ops":{ops}{condition}"#)),
            "update",
        ),
        5 => (
            input(
                &item,
                &format!(r#","ops":{ops},"atomic":true,"returning":"new""#),
            ),
            "update",
        ),
        6 => (input(&item, condition), "delete"),
        _ => {
            let text = format!(
                r#"{{"stream_name":"s","group_id":"g","type":"t","id":"{item}","data":{value}}}"#
            );
            (text, "send")
        }
    }
}

fn read_command<'t>(text: &'t str, verb: &str) -> Write<'t> {
    let read = match verb {
        "set" => read_set(text),
        "update" => read_update(text),
        "delete" => read_delete(text),
        _ => read_send(text),
    };
    read.expect("a command")
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_come_to_the_same_as_in_memory() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let mut ours = instance(&server, Kept::Streams, "e1").await;
    ours.store.watch(&GROUP.to_key());
    // So that the subscription stands.
    answer(|done| ours.store.snapshot(GROUP, None, 1, done))
        .await
        .expect("a snapshot");
    let (sink, mut changes) = told();
    let memory = MemoryStore::new("m", sink, LIMITS, 1_000_000);
    let mut numbers = Numbers(7);
    let commands: Vec<_> = (0..2_000).map(|_| random_command(&mut numbers)).collect();
    for chunk in commands.chunks(50) {
        // Those of a chunk wait together, so that batches of all kinds come about.
        let answers = chunk.iter().map(|(text, verb)| {
            let write = read_command(text, verb);
            let (sender, receiver) = oneshot::channel();
            let done = Box::new(move |answer| drop(sender.send(answer)));
            ours.store
                .commit(write.target.as_ref(), write.command, 1, done);
            receiver
        });
        let answers: Vec<_> = answers.collect();
        for ((text, verb), answer) in chunk.iter().zip(answers) {
            let expected = run(&memory, read_command(text, verb)).await;
            let expected_change = expected.as_ref().ok().and_then(|done| done.change.clone());
            let expected = reply(expected);
            let got = tokio::time::timeout(PATIENCE, answer)
                .await
                .expect("in time")
                .expect("an answer");
            let got = reply(got);
            let (got, expected) = (without_seq(&got), without_seq(&expected));
            assert_eq!(got, expected, "{verb} {text}");
            let Some(expected) = expected_change else {
                continue;
            };
            next(&mut changes).await;
            for heard in [&mut ours.subscribers, &mut ours.triggers] {
                let change = next_change(heard).await;
                assert_eq!(
                    (&change.item, &change.kind),
                    (&expected.item, &expected.kind)
                );
                let value = change.value.as_ref().map(Json::as_str);
                assert_eq!(
                    value,
                    expected.value.as_ref().map(Json::as_str),
                    "{verb} {text}"
                );
            }
        }
    }
    let mut expected = answer(|done| memory.list(GROUP, done))
        .await
        .expect("items");
    expected.sort_by(|(one, _), (other, _)| one.cmp(other));
    let got = answer(|done| ours.store.list(GROUP, done))
        .await
        .expect("items");
    let plain = |items: Vec<(Arc<str>, Item)>| -> Vec<(Arc<str>, Json)> {
        items
            .into_iter()
            .map(|(id, item)| (id, item.value))
            .collect()
    };
    assert_eq!(plain(got), plain(expected));
}

/// A reply without what this layout does not have.
fn without_seq(reply: &str) -> String {
    if reply.starts_with("precondition_failed") {
        return "precondition_failed".to_owned();
    }
    match reply.rfind(r#","seq":"#) {
        Some(at) => reply[..at].to_owned(),
        None => reply.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_come_to_what_the_vectors_say() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let ours = instance(&server, Kept::Streams, "e1").await;
    let (sink, _changes) = told();
    let memory = MemoryStore::new("m", sink, LIMITS, 1_000_000);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    let mut tried = 0;
    for file in ["update-ops.jsonl", "update-ops-added.jsonl"] {
        let text = std::fs::read_to_string(folder.join(file)).expect("the vectors");
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let fields =
                iii_stream_core::fields::Fields::read(line, &["old", "ops"]).expect("a vector");
            let (old, ops) = (fields.raw(0), fields.required(1).expect("operations"));
            for store in [&*ours.store as &dyn Store, &memory] {
                match old {
                    Some(old) => set(store, "i", old.get()).await.expect("a set"),
                    None => run(store, read_delete(&input("i", "")).expect("a delete"))
                        .await
                        .expect("a delete"),
                };
            }
            let got = reply(update(&*ours.store, "i", ops.get()).await);
            assert_eq!(got, reply(update(&memory, "i", ops.get()).await), "{line}");
            tried += 1;
        }
    }
    assert!(1_000 < tried, "{tried} vectors");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_group_takes_no_more() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let ours = instance(&server, Kept::Streams, "e1").await;
    let mut engine = engine(&server);
    let fields: Vec<_> = (1..LIMITS.items_max)
        .map(|index| (format!("f{index}"), 1))
        .collect();
    let () = engine.hset_multiple("stream:s:g", &fields).expect("a hash");
    let (one, two) = tokio::join!(set(&*ours.store, "a", "1"), set(&*ours.store, "b", "1"));
    let mut replies = [reply(one), reply(two)];
    replies.sort();
    assert_eq!(
        replies[0],
        "group_full: the group has 1000 items, which is the limit"
    );
    assert_eq!(replies[1], r#"{"old_value":null,"new_value":1}"#);
    let free = run(
        &*ours.store,
        read_delete(&input("f1", "")).expect("a delete"),
    )
    .await;
    assert_eq!(reply(free), r#"{"old_value":1}"#);
    assert_eq!(
        reply(set(&*ours.store, "c", "1").await),
        r#"{"old_value":null,"new_value":1}"#
    );
}
