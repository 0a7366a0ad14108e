//! What callers are told, byte by byte, as tables: a call, then its answer.

use iii_stream_core::{GroupLimits, GroupRef, Json};

use super::subject::{GROUP, Open, Subject, roomy};

/// A verb, its input, what is answered.
type Step = (&'static str, &'static str, &'static str);

/// Runs a table on a group of its own.
pub(super) fn run(subject: &Subject, name: &str, steps: &[Step]) {
    let group = GroupRef {
        stream: "table",
        group: name,
    };
    for (index, (verb, input, answer)) in steps.iter().enumerate() {
        let said = subject.said(group, verb, input);
        assert_eq!(&said, answer, "{name}, step {index}: {verb} {input}");
    }
}

const TABLES: &[(&str, &[Step])] = &[
    (
        "set",
        &[
            ("get", r#"{"item_id":"a"}"#, "null"),
            (
                "set",
                r#"{"item_id":"a","data":1}"#,
                r#"{"old_value":null,"new_value":1}"#,
            ),
            (
                "set",
                r#"{"item_id":"a","data":{"n":2}}"#,
                r#"{"old_value":1,"new_value":{"n":2}}"#,
            ),
            ("get", r#"{"item_id":"a"}"#, r#"{"n":2}"#),
            (
                "set",
                r#"{"item_id":"a","data":null}"#,
                r#"{"old_value":{"n":2},"new_value":null}"#,
            ),
            (
                "set",
                r#"{"item_id":"b","data":[],"returning":"new"}"#,
                r#"{"new_value":[],"seq":4}"#,
            ),
            (
                "set",
                r#"{"item_id":"a","data":3,"returning":"both"}"#,
                r#"{"old_value":null,"new_value":3,"seq":5}"#,
            ),
            (
                "set",
                r#"{"item_id":"a","data":3,"returning":"none"}"#,
                r#"{"seq":6}"#,
            ),
            ("list", "{}", "[3,[]]"),
        ],
    ),
    (
        "update",
        &[
            (
                "update",
                r#"{"item_id":"a","ops":[{"type":"increment","path":"n","by":2}]}"#,
                r#"{"old_value":null,"new_value":{"n":2}}"#,
            ),
            (
                "update",
                r#"{"item_id":"a","ops":[{"type":"increment","path":"n","by":-5},{"type":"append","path":"t","value":"x"}]}"#,
                r#"{"old_value":{"n":2},"new_value":{"n":-3,"t":"x"}}"#,
            ),
            (
                "update",
                r#"{"item_id":"a","ops":[{"type":"remove","path":"t"}],"returning":"new"}"#,
                r#"{"new_value":{"n":-3},"seq":3}"#,
            ),
            (
                "update",
                r#"{"item_id":"a","ops":[],"returning":"none"}"#,
                r#"{"seq":4}"#,
            ),
            (
                "update",
                r#"{"item_id":"a","ops":[{"type":"set","path":"s","value":"t"}],"returning":"none"}"#,
                r#"{"seq":5}"#,
            ),
            (
                "update",
                r#"{"item_id":"a","ops":[{"type":"merge","value":{"m":[1.0,null]}}],"returning":"both"}"#,
                r#"{"old_value":{"n":-3,"s":"t"},"new_value":{"n":-3,"s":"t","m":[1.0,null]},"seq":6}"#,
            ),
            (
                "get",
                r#"{"item_id":"a"}"#,
                r#"{"n":-3,"s":"t","m":[1.0,null]}"#,
            ),
        ],
    ),
    (
        "delete",
        &[
            ("delete", r#"{"item_id":"a"}"#, r#"{"old_value":null}"#),
            (
                "set",
                r#"{"item_id":"a","data":1}"#,
                r#"{"old_value":null,"new_value":1}"#,
            ),
            (
                "delete",
                r#"{"item_id":"a","returning":"both"}"#,
                r#"{"old_value":1,"seq":2}"#,
            ),
            (
                "delete",
                r#"{"item_id":"a","returning":"none"}"#,
                r#"{"seq":null}"#,
            ),
            ("get", r#"{"item_id":"a"}"#, "null"),
            ("list", "{}", "[]"),
            (
                "set",
                r#"{"item_id":"a","data":2,"returning":"both"}"#,
                r#"{"old_value":null,"new_value":2,"seq":3}"#,
            ),
        ],
    ),
    (
        "send",
        &[
            ("send", r#"{"type":"note","data":{"x":1}}"#, "null"),
            ("send", r#"{"type":"note","id":"a","data":null}"#, "null"),
            (
                "set",
                r#"{"item_id":"a","data":1,"returning":"none"}"#,
                r#"{"seq":3}"#,
            ),
            ("list", "{}", "[1]"),
        ],
    ),
    (
        "conditions",
        &[
            (
                "set",
                r#"{"item_id":"a","data":1,"if":{"exists":true}}"#,
                "precondition_failed: precondition failed: the item does not exist",
            ),
            (
                "update",
                r#"{"item_id":"a","ops":[],"if":{"seq":0}}"#,
                "precondition_failed: precondition failed: the item does not exist",
            ),
            (
                "set",
                r#"{"item_id":"a","data":1,"if":{"absent":true},"returning":"none"}"#,
                r#"{"seq":1}"#,
            ),
            (
                "set",
                r#"{"item_id":"a","data":2,"if":{"absent":true}}"#,
                "precondition_failed: precondition failed: the item's seq is 1",
            ),
            ("send", r#"{"type":"note","data":1}"#, "null"),
            (
                "set",
                r#"{"item_id":"a","data":2,"if":{"seq":1},"returning":"none"}"#,
                r#"{"seq":3}"#,
            ),
            (
                "delete",
                r#"{"item_id":"a","if":{"seq":1}}"#,
                "precondition_failed: precondition failed: the item's seq is 3",
            ),
            (
                "delete",
                r#"{"item_id":"a","if":{"seq":3}}"#,
                r#"{"old_value":2}"#,
            ),
            (
                "delete",
                r#"{"item_id":"a","if":{"exists":true}}"#,
                "precondition_failed: precondition failed: the item does not exist",
            ),
            (
                "delete",
                r#"{"item_id":"a","if":{"absent":true}}"#,
                r#"{"old_value":null}"#,
            ),
        ],
    ),
    (
        "errors of operations",
        &[
            (
                "set",
                r#"{"item_id":"a","data":{"s":"x","n":1}}"#,
                r#"{"old_value":null,"new_value":{"s":"x","n":1}}"#,
            ),
            (
                "update",
                r#"{"item_id":"a","ops":[{"type":"increment","path":"n","by":1},{"type":"increment","path":"s","by":1}],"atomic":true,"returning":"none"}"#,
                ATOMIC,
            ),
            ("get", r#"{"item_id":"a"}"#, r#"{"s":"x","n":1}"#),
            (
                "update",
                r#"{"item_id":"a","ops":[{"type":"increment","path":"n","by":1},{"type":"increment","path":"s","by":1}],"returning":"none"}"#,
                PARTLY,
            ),
            ("get", r#"{"item_id":"a"}"#, r#"{"s":"x","n":2}"#),
        ],
    ),
];

const ATOMIC: &str = r#"{"errors":[{"op_index":1,"code":"increment.not_number","message":"cannot increment at path 's': target is string, expected number","doc_url":"https://iii.dev/docs/workers/iii-state#error-codes"}],"seq":null}"#;
const PARTLY: &str = r#"{"errors":[{"op_index":1,"code":"increment.not_number","message":"cannot increment at path 's': target is string, expected number","doc_url":"https://iii.dev/docs/workers/iii-state#error-codes"}],"seq":2}"#;

pub(super) fn replies_are_exact(open: Open<'_>) {
    let subject = open(roomy());
    for (name, steps) in TABLES {
        run(&subject, name, steps);
    }
}

pub(super) fn values_come_back_as_they_were(open: Open<'_>) {
    let subject = open(roomy());
    let large = format!(r#""{}""#, "0123456789abcdef".repeat(1 << 16));
    let values = [
        "1.0",
        "-0.0",
        "18446744073709551615",
        "-9223372036854775808",
        "1e300",
        r#""\u0000\n\"\\ €😀""#,
        r#"{"__proto__":1,"":{},"z":0,"a":[[],null,true]}"#,
        &large,
    ];
    for (index, value) in values.iter().enumerate() {
        let item = format!(r#"{{"item_id":"{index}""#);
        subject.said(GROUP, "set", &format!(r#"{item},"data":{value}}}"#));
        assert_eq!(subject.said(GROUP, "get", &format!("{item}}}")), *value);
    }
    assert_eq!(
        subject.said(GROUP, "list", "{}"),
        format!("[{}]", values.join(","))
    );
}

pub(super) fn names_are_any_text(open: Open<'_>) {
    let subject = open(roomy());
    let long = "ü".repeat(512);
    let names = [
        "a",
        "a:b",
        "b",
        ":",
        "{",
        "}",
        "{x}",
        "%",
        "%3A",
        " ",
        "\n",
        "\0",
        "h",
        "m",
        "*",
        "?",
        "€😀",
        "__proto__",
        &long,
    ];
    // Two names next to each other must not become one.
    for (stream, group) in names
        .iter()
        .flat_map(|stream| names.map(|group| (stream, group)))
    {
        let (stream, group) = (*stream, group);
        let place = GroupRef { stream, group };
        let answer = subject.said(place, "set", r#"{"item_id":"i","data":1}"#);
        assert_eq!(
            answer, r#"{"old_value":null,"new_value":1}"#,
            "{stream:?} {group:?}"
        );
    }
    for item in names {
        let name = Json::from_str_value(item);
        let input = format!(r#"{{"item_id":{0},"data":{0}}}"#, name.as_str());
        let answer = format!(r#"{{"old_value":null,"new_value":{}}}"#, name.as_str());
        assert_eq!(subject.said(GROUP, "set", &input), answer);
    }
    for (id, item) in subject.list(GROUP) {
        assert_eq!(item.value, Json::from_str_value(&id));
    }
}

pub(super) fn a_full_group_refuses_to_grow(open: Open<'_>) {
    let subject = open(GroupLimits {
        items_max: 2,
        bytes_max: 40,
        ..roomy()
    });
    run(&subject, "full", FULL);
}

const FULL: &[Step] = &[
    (
        "set",
        r#"{"item_id":"a","data":1,"returning":"none"}"#,
        r#"{"seq":1}"#,
    ),
    (
        "set",
        r#"{"item_id":"b","data":"0123456789","returning":"none"}"#,
        r#"{"seq":2}"#,
    ),
    (
        "set",
        r#"{"item_id":"c","data":1}"#,
        "group_full: the group has 2 items, which is the limit",
    ),
    (
        "update",
        r#"{"item_id":"c","ops":[]}"#,
        "group_full: the group has 2 items, which is the limit",
    ),
    (
        "set",
        r#"{"item_id":"a","data":"0123456789012345678901234567890123456789"}"#,
        "group_full: the group's items would take more than 40 bytes, which is the limit",
    ),
    (
        "update",
        r#"{"item_id":"a","ops":[{"type":"set","value":"0123456789012345678901234567890123456789"}]}"#,
        "group_full: the group's items would take more than 40 bytes, which is the limit",
    ),
    (
        "send",
        r#"{"type":"0123456789012345678901234567890123456789","id":"d","data":null}"#,
        "null",
    ),
    (
        "set",
        r#"{"item_id":"a","data":2,"returning":"none"}"#,
        r#"{"seq":4}"#,
    ),
    (
        "delete",
        r#"{"item_id":"b","returning":"none"}"#,
        r#"{"seq":5}"#,
    ),
    (
        "set",
        r#"{"item_id":"c","data":1,"returning":"none"}"#,
        r#"{"seq":6}"#,
    ),
    ("list", "{}", "[2,1]"),
];
