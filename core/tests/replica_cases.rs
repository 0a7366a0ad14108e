//! Single cases of a replica that histories at random seldom meet: servers of version 1, refusals, what is not known yet.

use iii_stream_core::{Replica, client_tag};

fn replica() -> Replica {
    let mut replica = Replica::new();
    replica.open("s1", "s", "g", None).expect("a new name");
    replica.join("s1", true).expect("it is open");
    replica
}

fn hear(replica: &mut Replica, id: &str, rest: &str) -> Option<String> {
    let head = r#"{"type":"stream","timestamp":1,"streamName":"s","groupId":"g""#;
    let text = format!(r#"{head},"id":{id},{rest}}}"#);
    replica.receive(&text).expect("a frame")
}

fn page(replica: &mut Replica, items: &str, more: bool) -> Option<String> {
    let event = format!(r#"{{"type":"sync","mode":"snapshot","items":[{items}],"more":{more}}}"#);
    let rest = format!(r#""subscriptionId":"s1","epoch":"e","seq":9,"event":{event}"#);
    hear(replica, "null", &rest)
}

fn mutate(replica: &mut Replica, seq: u64, function_id: &str, rest: &str) -> String {
    let data = format!(r#"{{"stream_name":"s","group_id":"g","item_id":"a",{rest}}}"#);
    let predicted = replica.mutate("secret", seq, function_id, &data);
    predicted.expect("a call")
}

fn shown(replica: &mut Replica) -> String {
    replica.changes("s1").expect("it is open")
}

const COUNT: &str = r#""ops":[{"type":"increment","path":"n","by":1}]"#;

#[test]
fn what_depends_on_an_unknown_item_is_shown_when_the_item_is_known() {
    let mut replica = replica();
    mutate(&mut replica, 1, "stream::update", COUNT);
    assert!(shown(&mut replica).contains(r#""items":[]"#));
    page(&mut replica, r#"{"id":"a","seq":3,"data":{"n":41}}"#, true);
    assert!(shown(&mut replica).contains(r#""value":{"n":42},"seq":3,"order":1,"pending":true"#));
    replica.disconnect();
    assert!(
        !replica
            .join("s1", true)
            .expect("it is open")
            .contains("since")
    );
    page(&mut replica, "", true);
    assert!(
        shown(&mut replica).contains(r#""value":{"n":42},"seq":3"#),
        "the old state stays"
    );
    page(&mut replica, "", false);
    assert!(
        shown(&mut replica).contains(
            r#""reset":true,"synced":true,"items":[{"id":"a","value":{"n":1},"seq":null"#
        )
    );
}

#[test]
fn a_condition_is_predicted_and_an_answer_waits_for_its_event() {
    let mut replica = replica();
    page(&mut replica, r#"{"id":"a","seq":3,"data":1}"#, false);
    let refused = mutate(
        &mut replica,
        1,
        "stream::set",
        r#""data":2,"if":{"absent":true}"#,
    );
    assert!(refused.contains(r#""refused":{"code":"precondition_failed","message":"#));
    mutate(&mut replica, 2, "stream::set", r#""data":3,"if":{"seq":3}"#);
    let failing = mutate(&mut replica, 3, "stream::update", COUNT);
    assert!(failing.contains(r#""op_index":0,"code":"increment.target_not_object""#));
    replica.withdraw("secret", 1);
    replica.acknowledge("secret", 2, Some(10));
    replica.acknowledge("secret", 3, None);
    assert!(shown(&mut replica).contains(r#""value":3,"seq":3,"order":1,"pending":true"#));
    assert!(
        replica
            .join("s1", true)
            .expect("it is open")
            .ends_with(r#""since":{"epoch":"e","seq":9}}}"#)
    );
}

#[test]
fn a_delta_that_does_not_fit_asks_for_everything() {
    let mut replica = replica();
    page(&mut replica, r#"{"id":"a","seq":3,"data":1}"#, false);
    let delta = r#""seq":12,"event":{"type":"update","base":11,"ops":[]}"#;
    let received = hear(&mut replica, r#""a""#, delta);
    assert_eq!(received.as_deref(), Some(r#"{"rejoin":["s1"]}"#));
    assert!(
        !replica
            .join("s1", true)
            .expect("it is open")
            .contains("since")
    );
}

#[test]
fn a_server_of_version_1_is_followed_by_the_ids_in_values() {
    let mut replica = replica();
    let sync = r#""event":{"type":"sync","data":[{"id":"a","n":1},{"n":2},{"id":"b"}]}"#;
    let received = hear(&mut replica, "null", sync);
    assert_eq!(
        received.as_deref(),
        Some(r#"{"synced":["s1"],"version1":true}"#)
    );
    mutate(&mut replica, 1, "stream::update", COUNT);
    let first = r#"{"id":"a","value":{"id":"a","n":2},"seq":null,"order":1,"pending":true}"#;
    assert!(shown(&mut replica).contains(first));
    replica.acknowledge("secret", 1, Some(7));
    hear(
        &mut replica,
        r#""a""#,
        r#""event":{"type":"update","data":{"id":"a","n":9}}"#,
    );
    hear(
        &mut replica,
        r#""b""#,
        r#""event":{"type":"delete","data":{"id":"b"}}"#,
    );
    let last = r#"{"reset":false,"synced":true,"items":[{"id":"a","value":{"id":"a","n":9},"seq":null,"order":1,"pending":false}],"removed":["b"]}"#;
    assert_eq!(shown(&mut replica), last);
}

#[test]
fn who_may_not_read_sees_nothing() {
    let mut replica = replica();
    page(&mut replica, r#"{"id":"a","seq":3,"data":1}"#, false);
    let denied = r#""subscriptionId":"s1","event":{"type":"unauthorized"}"#;
    let received = hear(&mut replica, "null", denied);
    assert_eq!(received.as_deref(), Some(r#"{"denied":["s1"]}"#));
    assert!(shown(&mut replica).contains(r#""reset":true,"synced":false,"items":[]"#));
}

#[test]
fn what_a_sync_says_is_taken_needs_no_answer() {
    let mut replica = replica();
    mutate(&mut replica, 1, "stream::set", r#""data":1"#);
    assert!(
        replica
            .join("s1", true)
            .expect("it is open")
            .contains(r#""clients":["secret"]"#)
    );
    let (tag, event) = (
        client_tag("secret"),
        r#"{"type":"sync","mode":"snapshot","items":[],"more":false}"#,
    );
    let rest = format!(
        r#""subscriptionId":"s1","epoch":"e","seq":9,"mutations":[{{"tag":"{tag}","seq":1}}],"event":{event}"#
    );
    let received = hear(&mut replica, "null", &rest);
    assert_eq!(
        received.as_deref(),
        Some(r#"{"synced":["s1"],"confirmed":[{"client":"secret","seq":1,"changeSeq":null}]}"#)
    );
    assert!(shown(&mut replica).contains(r#""items":[]"#));
}

#[test]
fn what_a_page_contains_is_not_shown_twice_while_more_pages_come() {
    let mut replica = replica();
    mutate(&mut replica, 1, "stream::update", COUNT);
    let other = r#"{"stream_name":"s","group_id":"g","item_id":"b","data":5}"#;
    let made = replica.mutate("secret", 2, "stream::set", other);
    made.expect("a call");
    mutate(&mut replica, 3, "stream::update", COUNT);
    replica.join("s1", true).expect("it is open");
    let tag = client_tag("secret");
    let mut page = |items: &str, more: bool| {
        let event =
            format!(r#"{{"type":"sync","mode":"snapshot","items":[{items}],"more":{more}}}"#);
        let rest = format!(
            r#""subscriptionId":"s1","epoch":"e","seq":9,"mutations":[{{"tag":"{tag}","seq":2}}],"event":{event}"#
        );
        let received = hear(&mut replica, "null", &rest);
        (received, shown(&mut replica))
    };
    let (received, seen) = page(r#"{"id":"a","seq":3,"data":{"n":1}}"#, true);
    let confirmed = r#""confirmed":[{"client":"secret","seq":1,"changeSeq":null},{"client":"secret","seq":2,"changeSeq":null}]"#;
    assert_eq!(received, Some(format!("{{{confirmed}}}")));
    // Of the two updates one is in the page.
    assert!(seen.contains(r#"{"id":"a","value":{"n":2},"seq":3,"order":1,"pending":true}"#));
    // Its page is still to come.
    assert!(seen.contains(r#"{"id":"b","value":5,"seq":null"#));
    let (received, seen) = page(r#"{"id":"b","seq":4,"data":5}"#, true);
    assert_eq!(received, None);
    assert!(seen.contains(r#"{"id":"b","value":5,"seq":4,"order":2,"pending":false}"#));
    let (received, seen) = page("", false);
    assert_eq!(received.as_deref(), Some(r#"{"synced":["s1"]}"#));
    assert_eq!(
        seen,
        r#"{"reset":false,"synced":true,"items":[{"id":"a","value":{"n":2},"seq":3,"order":1,"pending":true}],"removed":[]}"#
    );
}

#[test]
fn whole_values_are_asked_for_by_leaving_out_the_operations() {
    let mut replica = replica();
    let join = replica.join("s1", false).expect("it is open");
    assert_eq!(
        join,
        r#"{"type":"join","data":{"subscriptionId":"s1","streamName":"s","groupId":"g","version":2}}"#
    );
    let join = replica.join("s1", true).expect("it is open");
    assert!(join.contains(r#""version":2,"deltas":true,"core":1"#));
}
