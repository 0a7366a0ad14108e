//! Many callers at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc;

use iii_stream_core::command::{Write, read_set};
use iii_stream_core::{Demand, GroupRef, Outcome};

use super::subject::{GROUP, Open, Subject, roomy};
use crate::clock;

const CALLERS: u64 = 8;
const CALLS: u64 = 60;

/// Runs `work` for each caller on a thread of its own; what came of it.
fn at_once<T: Send>(work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let work = &work;
                scope.spawn(move || work(caller))
            })
            .collect();
        let results = callers
            .into_iter()
            .map(|caller| caller.join().expect("a caller"));
        results.collect()
    })
}

fn value_of(subject: &Subject, item: &str) -> u64 {
    let item = subject.get(GROUP, item).expect("an item");
    item.value.as_str().parse().expect("a number")
}

pub(super) fn no_update_is_lost(open: Open<'_>) {
    let subject = open(roomy());
    subject.told.set_demand(Demand::Values);
    subject.follow();
    let input = r#"{"item_id":"a","ops":[{"type":"increment","by":1}]}"#;
    let seqs = at_once(|_| {
        let mut seqs = Vec::new();
        for _ in 0..CALLS {
            seqs.extend(subject.commit(GROUP, "update", input).reply.seq);
        }
        assert!(seqs.is_sorted_by(|a, b| a < b), "answers in order");
        seqs
    });
    let all: BTreeSet<_> = seqs.into_iter().flatten().collect();
    assert_eq!(all, (1..=CALLERS * CALLS).collect());
    assert_eq!(value_of(&subject, "a"), CALLERS * CALLS);
    for change in subject.told.up_to(GROUP, CALLERS * CALLS) {
        let value = change.value.as_ref().map(|value| value.as_str().to_owned());
        assert_eq!(
            value,
            Some(change.seq.to_string()),
            "each is told with its value"
        );
    }
}

pub(super) fn a_condition_lets_one_of_many_through(open: Open<'_>) {
    let subject = open(roomy());
    for round in 0..10 {
        let through = at_once(|caller| {
            let input =
                format!(r#"{{"item_id":"i{round}","data":{caller},"if":{{"absent":true}}}}"#);
            let reply = subject.commit(GROUP, "set", &input).reply;
            reply.seq.map(|_| caller)
        });
        let through: Vec<_> = through.into_iter().flatten().collect();
        assert_eq!(through, [value_of(&subject, &format!("i{round}"))]);
    }
}

pub(super) fn compare_and_set_loses_nothing(open: Open<'_>) {
    let subject = open(roomy());
    subject.set("a", 0);
    at_once(|_| {
        for _ in 0..10 {
            loop {
                let item = subject.get(GROUP, "a").expect("an item");
                let next = item.value.as_str().parse::<u64>().expect("a number") + 1;
                let input = format!(
                    r#"{{"item_id":"a","data":{next},"if":{{"seq":{}}}}}"#,
                    item.seq
                );
                match subject.commit(GROUP, "set", &input).reply.outcome {
                    Outcome::Set { .. } => break,
                    Outcome::Refused(refusal) => assert_eq!(refusal.code(), "precondition_failed"),
                    other => panic!("{other:?}"),
                }
            }
        }
    });
    assert_eq!(value_of(&subject, "a"), CALLERS * 10);
}

pub(super) fn calls_of_one_caller_keep_their_order(open: Open<'_>) {
    let subject = open(roomy());
    let count = 300;
    let (sender, receiver) = mpsc::channel();
    let inside = subject.runtime.enter();
    for n in 0..count {
        let input = format!(
            r#"{{"stream_name":"s","group_id":"g","item_id":"i{}","data":{n}}}"#,
            n % 3
        );
        let Write { target, command } = read_set(&input).expect("a call");
        let sender = sender.clone();
        let done = Box::new(move |answer| drop(sender.send((n, answer))));
        subject
            .store
            .commit(target.as_ref(), command, clock::unix_ms(), done);
    }
    drop(inside);
    drop(sender);
    for (index, (n, answer)) in receiver.iter().enumerate() {
        let seq = answer.expect("the store works").reply.seq;
        assert_eq!((n, seq), (index, Some(index as u64 + 1)));
    }
    assert_eq!(value_of(&subject, "i2"), count as u64 - 1);
}

pub(super) fn groups_do_not_mix(open: Open<'_>) {
    let subject = open(roomy());
    let names: Vec<_> = (0..CALLERS).map(|n| format!("g{n}")).collect();
    let group = |caller: u64| GroupRef {
        stream: "many",
        group: &names[caller as usize],
    };
    for caller in 0..CALLERS {
        subject.follow_group(group(caller));
    }
    at_once(|caller| {
        for n in 1..=CALLS {
            let input = format!(r#"{{"item_id":"i","data":[{caller},{n}]}}"#);
            assert_eq!(
                subject.commit(group(caller), "set", &input).reply.seq,
                Some(n)
            );
        }
    });
    for caller in 0..CALLERS {
        for change in subject.told.up_to(group(caller), CALLS) {
            let value = change.value.as_ref().map(|value| value.as_str().to_owned());
            assert_eq!(value, Some(format!("[{caller},{}]", change.seq)));
        }
    }
}

pub(super) fn a_mutation_sent_by_many_takes_effect_once(open: Open<'_>) {
    let subject = Arc::new(open(roomy()));
    for seq in 1..=10_u64 {
        let input = format!(
            r#"{{"item_id":"a","ops":[{{"type":"increment","by":1}}],"mutation":{{"client":"c","seq":{seq}}}}}"#
        );
        let outcomes = at_once(|_| subject.commit(GROUP, "update", &input).reply.outcome);
        let is_duplicate = |outcome: &&Outcome| matches!(outcome, Outcome::Duplicate { seq: last, at } if *last == seq && *at == Some(seq));
        let duplicates = outcomes.iter().filter(is_duplicate).count();
        assert_eq!(duplicates as u64, CALLERS - 1, "{outcomes:?}");
        assert_eq!(value_of(&subject, "a"), seq);
    }
}
