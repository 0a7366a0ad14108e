//! Coming back to a place in a group's history.

use iii_stream_core::{Demand, Echo, GroupLimits, Json, Position, client_tag};

use super::subject::{GROUP, Open, roomy};
use crate::store::ResumeWish;

pub(super) fn what_was_missed_is_told(open: Open<'_>) {
    let subject = open(roomy());
    let start = subject.position(GROUP);
    assert_eq!(start.seq, 0);
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    assert!(
        start.epoch.bytes().all(is_name) && !start.epoch.is_empty(),
        "{start}"
    );
    subject.set("a", 1);
    subject.set("b", 2);
    let middle = subject.position(GROUP);
    subject.commit(GROUP, "send", r#"{"type":"note","data":1}"#);
    subject.commit(GROUP, "send", r#"{"type":"note","id":"b","data":1}"#);
    subject.commit(GROUP, "delete", r#"{"item_id":"a"}"#);
    subject.commit(
        GROUP,
        "set",
        r#"{"item_id":"b","data":3,"mutation":{"client":"c","seq":1}}"#,
    );
    assert_eq!((&middle.epoch, middle.seq), (&start.epoch, 2));
    assert_eq!(subject.missed(&start, None), Some(vec![1, 2, 3, 4, 5, 6]));
    assert_eq!(subject.missed(&middle, None), Some(vec![3, 4, 5, 6]));
    assert_eq!(subject.missed(&subject.position(GROUP), None), Some(vec![]));
    // An event without an item is for the followers of the group; one with an item is for both.
    assert_eq!(subject.missed(&start, Some("a")), Some(vec![1, 5]));
    assert_eq!(subject.missed(&middle, Some("b")), Some(vec![4, 6]));
    let resumed = subject.resume(ResumeWish {
        item: None,
        since: middle,
        needs_values: true,
        clients: Some(["c".into()].into()),
    });
    let resumed = resumed.expect("a history");
    assert_eq!(resumed.seq, 6);
    let tag = client_tag("c");
    assert_eq!(resumed.mutations, [Echo { tag, seq: 1 }]);
    let last = resumed.changes.last().expect("a change");
    assert!(last.timestamp < resumed.timestamp);
    assert_eq!(last.base, Some(2));
    assert_eq!(last.mutation.as_ref().map(|echo| echo.seq), Some(1));
}

pub(super) fn a_resume_beyond_the_history_is_none(open: Open<'_>) {
    let subject = open(GroupLimits {
        history_changes_max: 4,
        ..roomy()
    });
    for n in 1..=6 {
        subject.set("a", n);
    }
    let Position { epoch, .. } = subject.position(GROUP);
    let missed = |epoch: &str, seq| {
        let epoch = epoch.into();
        subject.missed(&Position { epoch, seq }, None)
    };
    assert_eq!(missed(&epoch, 6), Some(vec![]));
    assert_eq!(missed(&epoch, 2), Some(vec![3, 4, 5, 6]));
    assert_eq!(missed(&epoch, 1), None, "four changes are kept");
    assert_eq!(missed(&epoch, 7), None, "never was");
    assert_eq!(missed("other", 5), None, "another history");
}

pub(super) fn an_item_that_did_not_change_has_no_age(open: Open<'_>) {
    let subject = open(GroupLimits {
        history_changes_max: 4,
        ..roomy()
    });
    subject.set("quiet", 1);
    let since = subject.position(GROUP);
    for n in 0..20 {
        subject.set("loud", n);
    }
    assert_eq!(subject.missed(&since, Some("quiet")), Some(vec![]));
    assert_eq!(subject.missed(&since, Some("loud")), None);
    subject.commit(GROUP, "send", r#"{"type":"note","id":"quiet","data":1}"#);
    assert_eq!(
        subject.missed(&since, Some("quiet")),
        None,
        "it was told of an event"
    );
}

pub(super) fn a_resume_gives_what_one_can_use(open: Open<'_>) {
    let subject = open(roomy());
    subject.told.set_demand(Demand::Values);
    subject.follow();
    let since = subject.position(GROUP);
    let input = r#"{"item_id":"a","ops":[{"type":"increment","path":"n","by":1}]}"#;
    subject.commit(GROUP, "update", input);
    subject.commit(GROUP, "update", input);
    let resumed = subject.resume(ResumeWish {
        item: None,
        since,
        needs_values: true,
        clients: None,
    });
    let changes = resumed.expect("values were told").changes;
    let values = changes
        .iter()
        .map(|change| change.value.as_ref().map(Json::as_str));
    assert_eq!(
        values.collect::<Vec<_>>(),
        [Some(r#"{"n":1}"#), Some(r#"{"n":2}"#)]
    );
    let ops = r#"[{"type":"increment","path":"n","by":1}]"#;
    assert_eq!(changes[1].ops.as_ref().map(Json::as_str), Some(ops));
    assert_eq!(changes[1].base, Some(1));
}
