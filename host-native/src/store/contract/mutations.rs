//! Mutations: each takes effect once, however often it is sent.

use iii_stream_core::{Echo, GroupLimits, client_tag};

use super::replies::run;
use super::subject::{GROUP, Open, roomy};
use crate::store::PageWish;

pub(super) fn mutations_take_effect_once(open: Open<'_>) {
    let subject = open(roomy());
    run(
        &subject,
        "mutations",
        &[
            (
                "set",
                r#"{"item_id":"a","data":1,"returning":"none","mutation":{"client":"c","seq":2}}"#,
                "mutation_unknown: mutation 2 of a client that this group does not know, or not any more: a client starts at 1, and is forgotten after long silence",
            ),
            (
                "set",
                r#"{"item_id":"a","data":1,"returning":"none","mutation":{"client":"c","seq":1}}"#,
                r#"{"seq":1}"#,
            ),
            (
                "set",
                r#"{"item_id":"a","data":9,"mutation":{"client":"c","seq":1}}"#,
                r#"{"duplicate":true,"seq":1,"at":1}"#,
            ),
            (
                "update",
                r#"{"item_id":"a","ops":[{"type":"increment","by":1}],"returning":"none","mutation":{"client":"c","seq":2}}"#,
                r#"{"seq":2}"#,
            ),
            (
                "set",
                r#"{"item_id":"a","data":9,"mutation":{"client":"c","seq":4}}"#,
                "mutation_gap: mutation 4 came before mutation 3",
            ),
            (
                "send",
                r#"{"type":"note","data":1,"mutation":{"client":"c","seq":3}}"#,
                "null",
            ),
            (
                "send",
                r#"{"type":"note","data":1,"mutation":{"client":"c","seq":3}}"#,
                r#"{"duplicate":true,"seq":3,"at":null}"#,
            ),
            // A refusal is an answer too: the mutation was taken, and did nothing.
            (
                "set",
                r#"{"item_id":"a","data":9,"if":{"absent":true},"mutation":{"client":"c","seq":4}}"#,
                "precondition_failed: precondition failed: the item's seq is 2",
            ),
            (
                "set",
                r#"{"item_id":"a","data":9,"if":{"absent":true},"mutation":{"client":"c","seq":4}}"#,
                r#"{"duplicate":true,"seq":4,"at":2}"#,
            ),
            (
                "delete",
                r#"{"item_id":"b","returning":"none","mutation":{"client":"c","seq":5}}"#,
                r#"{"seq":null}"#,
            ),
            (
                "delete",
                r#"{"item_id":"a","returning":"none","mutation":{"client":"c","seq":6}}"#,
                r#"{"seq":4}"#,
            ),
            (
                "delete",
                r#"{"item_id":"a","returning":"none","mutation":{"client":"c","seq":6}}"#,
                r#"{"duplicate":true,"seq":6,"at":4}"#,
            ),
            (
                "set",
                r#"{"item_id":"a","data":1,"returning":"none","mutation":{"client":"d","seq":1,"resent":true}}"#,
                r#"{"seq":5}"#,
            ),
            ("get", r#"{"item_id":"a"}"#, "1"),
        ],
    );
}

pub(super) fn a_client_that_was_silent_for_longest_is_forgotten(open: Open<'_>) {
    let subject = open(GroupLimits {
        client_records_max: 2,
        ..roomy()
    });
    let unknown = |seq| {
        format!(
            "mutation_unknown: mutation {seq} of a client that this group does not know, or not any more: a client starts at 1, and is forgotten after long silence"
        )
    };
    let set = |client: &str, seq: u64, more: &str| {
        let mutation = format!(r#"{{"client":"{client}","seq":{seq}{more}}}"#);
        let input =
            format!(r#"{{"item_id":"a","data":1,"returning":"none","mutation":{mutation}}}"#);
        subject.said(GROUP, "set", &input)
    };
    assert_eq!(set("a", 1, ""), r#"{"seq":1}"#);
    assert_eq!(set("b", 1, ""), r#"{"seq":2}"#);
    assert_eq!(set("a", 2, ""), r#"{"seq":3}"#);
    // The third makes the group forget `b`.
    assert_eq!(set("c", 1, ""), r#"{"seq":4}"#);
    assert_eq!(set("a", 3, ""), r#"{"seq":5}"#);
    assert_eq!(set("b", 2, ""), unknown(2));
    // Nobody knows whether one that may have been sent before was.
    assert_eq!(set("b", 1, r#","resent":true"#), unknown(1));
    assert_eq!(set("b", 1, ""), r#"{"seq":6}"#);
    assert_eq!(set("c", 2, ""), unknown(2));
}

pub(super) fn clients_are_told_what_was_taken(open: Open<'_>) {
    let subject = open(roomy());
    let set = |client: &str, seq: u64| {
        let mutation = format!(r#"{{"client":"{client}","seq":{seq}}}"#);
        let input = format!(r#"{{"item_id":"a","data":1,"mutation":{mutation}}}"#);
        subject.commit(GROUP, "set", &input).reply.seq
    };
    assert_eq!(set("mine", 1), Some(1));
    assert_eq!(set("other", 1), Some(2));
    assert_eq!(set("mine", 2), Some(3));
    let asked = |up_to| {
        let wish = PageWish {
            clients: Some(["mine".into(), "nobody".into()].into()),
            mutations_up_to: up_to,
            ..PageWish::default()
        };
        subject.page(wish).mutations
    };
    let echo = |seq| {
        vec![Echo {
            tag: client_tag("mine"),
            seq,
        }]
    };
    assert_eq!(asked(None), echo(2));
    assert_eq!(asked(Some(2)), echo(1));
    assert_eq!(asked(Some(0)), vec![]);
}
