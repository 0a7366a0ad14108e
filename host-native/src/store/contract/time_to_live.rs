//! Items that go by themselves.

use iii_stream_core::{Json, Kind};

use super::subject::{GROUP, Open, roomy};

pub(super) fn an_item_goes_when_its_time_has_come(open: Open<'_>) {
    let subject = open(roomy());
    subject.follow();
    subject.set("stays", 1);
    subject.commit(GROUP, "set", r#"{"item_id":"goes","data":7,"ttl_ms":60}"#);
    subject.commit(
        GROUP,
        "set",
        r#"{"item_id":"later","data":8,"ttl_ms":600000}"#,
    );
    let told = subject.told.up_to(GROUP, 4);
    let change = &told[3];
    assert_eq!(
        (change.item.as_deref(), &change.kind),
        (Some("goes"), &Kind::Delete)
    );
    assert_eq!(change.value.as_ref().map(Json::as_str), Some("7"));
    assert!(
        told[1].timestamp + 60 <= change.timestamp,
        "not before its time"
    );
    let ids: Vec<_> = subject
        .list(GROUP)
        .iter()
        .map(|(id, _)| id.to_string())
        .collect();
    assert_eq!(ids, ["stays", "later"]);
}

pub(super) fn a_write_gives_time_anew(open: Open<'_>) {
    let subject = open(roomy());
    let run = |verb: &str, more: &str| {
        subject.commit(GROUP, verb, &format!(r#"{{"item_id":"a",{more}}}"#));
        let item = subject.get(GROUP, "a").expect("an item");
        let left = item
            .expires_ms
            .map(|expires| expires.saturating_sub(item.timestamp));
        (item.ttl_ms, left)
    };
    // The clock may have gone on a little between one thing and the next; a sequence of timestamps may run ahead of it.
    let is_about = |(ttl_ms, left): (Option<u64>, Option<u64>), wanted: u64| {
        let is_near = left.is_some_and(|left| (wanted - 1_000..=wanted + 1_000).contains(&left));
        assert!(
            ttl_ms == Some(wanted) && is_near,
            "{ttl_ms:?} {left:?} {wanted}"
        );
    };
    is_about(run("set", r#""data":1,"ttl_ms":60000"#), 60_000);
    is_about(run("update", r#""ops":[]"#), 60_000);
    is_about(run("update", r#""ops":[],"ttl_ms":90000"#), 90_000);
    is_about(run("set", r#""data":1,"ttl_ms":30000"#), 30_000);
    assert_eq!(run("set", r#""data":1"#), (None, None));
    assert_eq!(run("update", r#""ops":[]"#), (None, None));
}
