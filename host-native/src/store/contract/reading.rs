//! Reading groups: items, lists, snapshots, names.

use std::sync::Arc;

use iii_stream_core::GroupRef;

use super::subject::{GROUP, Open, roomy};

pub(super) fn a_group_is_listed_in_order_of_creation(open: Open<'_>) {
    let subject = open(roomy());
    for item in ["z", "a", "m", "a", "b"] {
        subject.set(item, 1);
    }
    let listed = || {
        let items = subject.list(GROUP);
        let all = items
            .iter()
            .map(|(id, item)| (id.to_string(), item.created_seq, item.seq));
        all.collect::<Vec<_>>()
    };
    let row = |id: &str, created: u64, seq: u64| (id.to_owned(), created, seq);
    assert_eq!(
        listed(),
        [
            row("z", 1, 1),
            row("a", 2, 4),
            row("m", 3, 3),
            row("b", 5, 5)
        ]
    );
    subject.commit(GROUP, "delete", r#"{"item_id":"a"}"#);
    subject.set("a", 2);
    assert_eq!(
        listed(),
        [
            row("z", 1, 1),
            row("m", 3, 3),
            row("b", 5, 5),
            row("a", 7, 7)
        ]
    );
    let a = subject.get(GROUP, "a").expect("an item");
    assert_eq!((a.value.as_str(), a.seq, a.created_seq), ("2", 7, 7));
    assert_eq!((a.ttl_ms, a.expires_ms), (None, None));
    assert_eq!(subject.get(GROUP, "nothing"), None);
    let nobody = GroupRef {
        stream: "s",
        group: "nobody",
    };
    assert_eq!(subject.get(nobody, "a"), None);
    assert!(subject.list(nobody).is_empty());
}

pub(super) fn a_snapshot_is_of_one_moment(open: Open<'_>) {
    let subject = Arc::new(open(roomy()));
    let writers: Vec<_> = (0..3)
        .map(|n| {
            let subject = subject.clone();
            std::thread::spawn(move || {
                for value in 0..100 {
                    subject.set(&format!("i{}", (value + n * 7) % 10), value);
                }
            })
        })
        .collect();
    let mut last = 0;
    while last < 300 {
        let snapshot = subject.snapshot(None);
        // Every change is a write of an item, so the latest is the group's.
        let latest = snapshot.items.iter().map(|(_, item)| item.seq).max();
        assert_eq!(latest.unwrap_or(0), snapshot.seq);
        assert!(
            last <= snapshot.seq,
            "a later one is not of an earlier moment"
        );
        last = snapshot.seq;
        let items = subject.list(GROUP);
        assert!(items.is_sorted_by_key(|(_, item)| item.created_seq));
        assert!(last <= items.iter().map(|(_, item)| item.seq).max().unwrap_or(0));
    }
    for writer in writers {
        writer.join().expect("a writer");
    }
    let one = subject.snapshot(Some("i3"));
    assert_eq!((one.seq, one.items.len()), (300, 1));
    assert_eq!(&*one.items[0].0, "i3");
    assert!(subject.snapshot(Some("nothing")).items.is_empty());
}

pub(super) fn groups_with_items_are_listed(open: Open<'_>) {
    let subject = open(roomy());
    let set = r#"{"item_id":"i","data":1}"#;
    let run = |stream, group, verb, input| {
        subject.commit(GroupRef { stream, group }, verb, input);
    };
    let all = || {
        let streams = subject.get_answer(|store, done| store.list_all(done));
        let told = streams
            .iter()
            .map(|(stream, groups)| format!("{stream}: {}", groups.join(" ")));
        told.collect::<Vec<_>>()
    };
    assert!(all().is_empty());
    for (stream, group) in [
        ("t", "z"),
        ("s", "b"),
        ("s", "a:{x}"),
        ("S", "ä"),
        ("s", "gone"),
    ] {
        run(stream, group, "set", set);
    }
    run("s", "gone", "delete", r#"{"item_id":"i"}"#);
    run("s", "told", "send", r#"{"type":"note","data":1}"#);
    assert_eq!(all(), ["S: ä", "s: a:{x} b", "t: z"]);
    let groups = |stream: &str| {
        let groups = subject.get_answer(|store, done| store.list_groups(stream, done));
        groups.join(" ")
    };
    assert_eq!(groups("s"), "a:{x} b");
    assert_eq!(groups("nobody"), "");
    run("t", "z", "delete", r#"{"item_id":"i"}"#);
    run("s", "gone", "set", set);
    assert_eq!(all(), ["S: ä", "s: a:{x} b gone"]);
}

pub(super) fn a_sync_is_between_what_was_and_what_comes(open: Open<'_>) {
    let subject = open(roomy());
    subject.follow();
    let mut before = 0;
    for n in 1..=30 {
        let seq = subject.set("a", n);
        let told = subject.told.up_to(GROUP, seq);
        let event = told[told.len() - 1].timestamp;
        assert!(before < event, "an event after a sync is later than that");
        let snapshot = subject.snapshot(None);
        assert!(
            event < snapshot.timestamp,
            "a sync is later than the events before"
        );
        let again = subject.snapshot(Some("a")).timestamp;
        assert!(snapshot.timestamp <= again);
        before = again;
    }
}
