//! One Redis with an engine: what it writes and publishes, and what it gets to see of us.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_beside_us_sees_and_is_seen() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let mut ours = instance(&server, Kept::Streams, "e1").await;
    ours.store.watch(&GROUP.to_key());
    let mut engine = engine(&server);
    let () = engine
        .hset("stream:s:g", "z", r#"{"by":"engine"}"#)
        .expect("a field");
    let () = engine.hset("stream:s:g", "a", "1").expect("a field");
    let snapshot = answer(|done| ours.store.snapshot(GROUP, None, 1, done))
        .await
        .expect("a snapshot");
    let ids: Vec<_> = snapshot.items.iter().map(|(id, _)| &**id).collect();
    assert_eq!(ids, ["a", "z"], "sorted by id");

    let frame = r#"{"type":"stream","timestamp":1760000000123,"streamName":"s","groupId":"g","id":"z","event":{"type":"update","data":{"by":"engine","n":2}}}"#;
    let () = engine
        .hset("stream:s:g", "z", r#"{"by":"engine","n":2}"#)
        .expect("a field");
    let () = engine.publish(EVENTS, "no frame").expect("a message");
    let () = engine.publish(EVENTS, frame).expect("a message");
    let change = next_change(&mut ours.subscribers).await;
    assert_eq!(change.kind, Kind::Update);
    assert_eq!(change.seq, snapshot.seq + 1);
    assert!(
        snapshot.timestamp < change.timestamp,
        "a sync is earlier than what follows it"
    );

    // What we write is in the engine's place and form, and so is what we publish.
    let client = Client::open(server.url()).expect("an address");
    let mut subscriber = client.get_connection().expect("a connection");
    let mut events = subscriber.as_pubsub();
    events.subscribe(EVENTS).expect("a subscription");
    update(
        &*ours.store,
        "z",
        r#"[{"type":"increment","path":"n","by":40}]"#,
    )
    .await
    .expect("an update");
    let text: String = engine.hget("stream:s:g", "z").expect("a text");
    assert_eq!(text, r#"{"by":"engine","n":42}"#);
    let payload: String = events
        .get_message()
        .and_then(|message| message.get_payload())
        .expect("a frame");
    let own = next_change(&mut ours.subscribers).await;
    let change = next_change(&mut ours.triggers).await;
    assert_eq!(trigger_input(GROUP, &change).as_deref(), Some(&*payload));
    assert_eq!(
        (own.timestamp, &own.value),
        (change.timestamp, &change.value)
    );
    assert!(
        ours.triggers.try_recv().is_err(),
        "what an engine writes fires its own triggers"
    );

    // An event is only told; the last delete takes the hash with it.
    let send = r#"{"stream_name":"s","group_id":"g","type":"typing","data":{"u":1}}"#;
    run(&*ours.store, read_send(send).expect("a send"))
        .await
        .expect("a send");
    let payload: String = events
        .get_message()
        .and_then(|message| message.get_payload())
        .expect("a frame");
    assert!(
        payload.ends_with(
            r#""id":null,"event":{"type":"event","event":{"type":"typing","data":{"u":1}}}}"#
        ),
        "{payload}"
    );
    for item in ["a", "z"] {
        run(
            &*ours.store,
            read_delete(&input(item, "")).expect("a delete"),
        )
        .await
        .expect("a delete");
    }
    let is_there: bool = engine.exists("stream:s:g").expect("an answer");
    assert!(!is_there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_no_json_hides_nothing_else() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let ours = instance(&server, Kept::Streams, "e1").await;
    let mut engine = engine(&server);
    for (field, text) in [
        ("bad", &b"{oops"[..]),
        ("worse", b"\xff"),
        ("good", b"[ 1 ]"),
    ] {
        let () = engine.hset("stream:s:g", field, text).expect("a field");
    }
    let list = answer(|done| ours.store.list(GROUP, done))
        .await
        .expect("a list");
    let values: Vec<_> = list
        .iter()
        .map(|(id, item)| (&**id, item.value.as_str()))
        .collect();
    assert_eq!(values, [("good", "[1]")]);
    assert_eq!(ours.store.shared.metrics.redis_items_unreadable.get(), 2);
    let error = answer(|done| ours.store.get(GROUP, "bad", done))
        .await
        .expect_err("an error");
    assert_eq!(error.cause, StoreErrorCause::Damaged);
    assert!(
        error.message.contains("key `stream:s:g`, field `bad`"),
        "{error}"
    );
    let (bad, good) = tokio::join!(
        set(&*ours.store, "bad", "1"),
        set(&*ours.store, "good", "2")
    );
    assert_eq!(bad.expect_err("an error").cause, StoreErrorCause::Damaged);
    assert_eq!(reply(good), r#"{"old_value":[1],"new_value":2}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_found_whatever_their_names() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let ours = instance(&server, Kept::Streams, "e1").await;
    let state = instance(&server, Kept::State, "e2").await;
    let mut engine = engine(&server);
    let keys = [
        "stream:a*:g[1]",
        "stream:a*:b:c",
        "stream:ab:x",
        "stream:a\\:y",
        "state:users",
        "state:a:b",
        "state:",
    ];
    for key in keys {
        let () = engine.hset(key, "i", "1").expect("a hash");
    }
    let () = engine.set("stream:a*:text", "no hash").expect("a text");
    for number in 0..3_000 {
        let () = engine
            .hset(format!("stream:many:{number:04}"), "i", "1")
            .expect("a hash");
    }
    let groups = |stream: &'static str| answer(|done| ours.store.list_groups(stream, done));
    let names = |groups: Vec<Arc<str>>| groups.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(groups("a*").await.expect("groups")), ["b:c", "g[1]"]);
    assert_eq!(
        names(groups("a*:b").await.expect("groups")),
        ["c"],
        "the same hash by another split"
    );
    assert_eq!(names(groups("a\\").await.expect("groups")), ["y"]);
    assert_eq!(
        names(groups("a").await.expect("groups")),
        Vec::<String>::new()
    );
    assert_eq!(groups("many").await.expect("groups").len(), 3_000);
    let all = answer(|done| ours.store.list_all(done))
        .await
        .expect("streams");
    let streams: Vec<_> = all
        .iter()
        .map(|(stream, groups)| (&**stream, groups.len()))
        .collect();
    assert_eq!(streams, [("a*", 2), ("a\\", 1), ("ab", 1), ("many", 3_000)]);
    let scopes = answer(|done| state.store.list_groups("state", done))
        .await
        .expect("scopes");
    assert_eq!(names(scopes), ["a:b", "users"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_written_and_told_to_its_triggers_only() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start_with(&[]);
    let mut streams = instance(&server, Kept::Streams, "e1").await;
    let mut state = instance(&server, Kept::State, "e2").await;
    let scope = GroupRef {
        stream: "state",
        group: "users",
    };
    streams.store.watch(&scope.to_key());
    answer(|done| streams.store.snapshot(scope, None, 1, done))
        .await
        .expect("a snapshot");
    let text = r#"{"stream_name":"state","group_id":"users","item_id":"u1","data":1}"#;
    run(&*state.store, read_set(text).expect("a set"))
        .await
        .expect("a set");
    run(&*state.store, read_set(text).expect("a set"))
        .await
        .expect("a set");
    let kinds = [
        next(&mut state.triggers).await,
        next(&mut state.triggers).await,
    ];
    match &kinds {
        [
            Heard::Change(_, one, None),
            Heard::Change(_, two, Some(old)),
        ] => {
            assert_eq!(
                (&one.kind, &two.kind, old.as_str()),
                (&Kind::Create, &Kind::Update, "1")
            );
        }
        other => panic!("{other:?}"),
    }
    let value: String = engine(&server).hget("state:users", "u1").expect("a text");
    assert_eq!(value, "1");
    let after = answer(|done| streams.store.snapshot(scope, None, 1, done))
        .await
        .expect("a snapshot");
    assert_eq!(after.seq, 0, "nothing was published");
    assert!(streams.subscribers.try_recv().is_err());
}
