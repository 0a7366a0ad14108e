//! What a store tells those who follow a group.

use iii_stream_core::{Change, Demand, Draft, Json, Kind, Ttl, client_tag};

use super::subject::{GROUP, Open, roomy};

fn text(json: Option<&Json>) -> Option<&str> {
    json.map(Json::as_str)
}

/// A change in short: `seq kind item value ops base mutation`.
fn short(change: &Change) -> String {
    let kind = match &change.kind {
        Kind::Create => "create",
        Kind::Update => "update",
        Kind::Delete => "delete",
        Kind::Event { label } => label.as_str(),
    };
    let mutation = change.mutation.as_ref().map(|echo| {
        assert_eq!(echo.tag, client_tag("c"));
        echo.seq
    });
    format!(
        "{} {kind} {} {} {} {:?} {mutation:?}",
        change.seq,
        change.item.as_deref().unwrap_or("-"),
        text(change.value.as_ref()).unwrap_or("-"),
        text(change.ops.as_ref()).unwrap_or("-"),
        change.base,
    )
}

pub(super) fn each_change_is_told_once_and_in_order(open: Open<'_>) {
    let subject = open(roomy());
    subject.told.set_demand(Demand::Values);
    subject.follow();
    for (verb, input) in [
        ("set", r#"{"item_id":"a","data":{"n":1}}"#),
        (
            "update",
            r#"{"item_id":"a","ops":[{"type":"increment","path":"n","by":2}]}"#,
        ),
        (
            "update",
            r#"{"item_id":"b","ops":[{"type":"set","path":"t","value":"x"}],"mutation":{"client":"c","seq":1}}"#,
        ),
        ("send", r#"{"type":"note","data":{"k":1}}"#),
        (
            "send",
            r#"{"type":"to one","id":"a","data":null,"mutation":{"client":"c","seq":2}}"#,
        ),
        ("set", r#"{"item_id":"a","data":5}"#),
        (
            "delete",
            r#"{"item_id":"a","mutation":{"client":"c","seq":3}}"#,
        ),
        ("set", r#"{"item_id":"a","data":6}"#),
    ] {
        subject.commit(GROUP, verb, input);
    }
    let told = subject.told.up_to(GROUP, 8);
    let told: Vec<_> = told.iter().map(|change| short(change)).collect();
    assert_eq!(
        told,
        [
            r#"1 create a {"n":1} - None None"#,
            r#"2 update a {"n":3} [{"type":"increment","path":"n","by":2}] Some(1) None"#,
            r#"3 create b {"t":"x"} [{"type":"set","path":"t","value":"x"}] None Some(1)"#,
            r#"4 "note" - {"k":1} - None None"#,
            r#"5 "to one" a null - Some(2) Some(2)"#,
            "6 update a 5 - Some(2) None",
            "7 delete a 5 - Some(6) Some(3)",
            "8 create a 6 - None None",
        ]
    );
}

pub(super) fn what_changes_nothing_is_not_told(open: Open<'_>) {
    let subject = open(roomy());
    subject.follow();
    subject.set("a", 1);
    for (verb, input) in [
        ("set", r#"{"item_id":"a","data":2,"if":{"absent":true}}"#),
        ("delete", r#"{"item_id":"nothing"}"#),
        (
            "set",
            r#"{"item_id":"a","data":2,"mutation":{"client":"c","seq":7}}"#,
        ),
        (
            "update",
            r#"{"item_id":"a","ops":[{"type":"increment","path":"n","by":1}],"atomic":true}"#,
        ),
    ] {
        assert_eq!(
            subject.commit(GROUP, verb, input).reply.seq,
            None,
            "{input}"
        );
    }
    assert_eq!(subject.set("a", 3), 2);
    assert_eq!(subject.told.up_to(GROUP, 2).len(), 2);
    assert_eq!(subject.position(GROUP).seq, 2);
}

pub(super) fn values_are_told_where_they_are_wanted(open: Open<'_>) {
    let subject = open(roomy());
    subject.told.set_demand(Demand::Values);
    subject.follow();
    for n in 1..=50_u64 {
        let input =
            r#"{"item_id":"a","ops":[{"type":"increment","path":"n","by":1}],"returning":"none"}"#;
        assert_eq!(subject.commit(GROUP, "update", input).reply.seq, Some(n));
    }
    for change in subject.told.up_to(GROUP, 50) {
        let value = format!(r#"{{"n":{}}}"#, change.seq);
        assert_eq!(text(change.value.as_ref()), Some(&*value));
    }
}

pub(super) fn an_announced_change_is_told_and_ends_the_history(open: Open<'_>) {
    let subject = open(roomy());
    subject.follow();
    subject.set("a", 1);
    let before = subject.position(GROUP);
    let draft = Draft {
        item: Some("elsewhere".into()),
        kind: Kind::Create,
        value: Some(Json::from_text("7").expect("JSON")),
        ops: None,
        base: None,
        ttl: Ttl::Keep,
        mutation: None,
    };
    let change = subject.announce(draft);
    assert_eq!(short(&change), "2 create elsewhere 7 - None None");
    let told = subject.told.up_to(GROUP, 2);
    assert_eq!(told[1], change);
    assert!(told[0].timestamp <= change.timestamp);
    assert_eq!(subject.list(GROUP).len(), 1, "its item is not here");
    assert_eq!(subject.missed(&before, None), None);
    let after = subject.position(GROUP);
    subject.set("a", 2);
    assert_eq!(subject.missed(&after, None), Some(vec![3]));
}

pub(super) fn timestamps_never_go_back(open: Open<'_>) {
    let subject = open(roomy());
    subject.follow();
    for n in 0..40 {
        subject.set(["a", "b", "c"][n % 3], 1);
        if n % 7 == 0 {
            subject.commit(GROUP, "delete", r#"{"item_id":"a"}"#);
            subject.commit(GROUP, "send", r#"{"type":"note","id":"b","data":1}"#);
        }
    }
    let seq = subject.position(GROUP).seq;
    let told = subject.told.up_to(GROUP, seq);
    for (before, after) in told.iter().zip(&told[1..]) {
        assert!(before.timestamp <= after.timestamp, "{before:?} {after:?}");
    }
    for item in ["a", "b", "c"] {
        let of_item = told
            .iter()
            .filter(|change| change.item.as_deref() == Some(item));
        let times: Vec<_> = of_item.map(|change| change.timestamp).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{item}: {times:?}");
    }
    for (id, item) in subject.list(GROUP) {
        let last = told.iter().rfind(|change| {
            change.item.as_deref() == Some(&*id) && !matches!(change.kind, Kind::Event { .. })
        });
        let last = last.expect("its change");
        assert_eq!(
            (item.seq, item.timestamp),
            (last.seq, last.timestamp),
            "{id}"
        );
    }
}
