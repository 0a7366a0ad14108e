//! What the disk is given to write, and what stays on it.

use std::sync::mpsc::channel;

use iii_stream_core::command::{Write, read_delete, read_set, read_update};

use super::super::FileOptions;
use super::super::disk::simulated::SimDisk;
use super::super::tests::options;
use super::life::Life;
use crate::store::Store;

const NOW_MS: u64 = 1_700_000_000_000;

/// Does one command, alone in its batch.
fn call(life: &mut Life, write: Write<'_>) {
    let (sender, receiver) = channel();
    let done = Box::new(move |answer| drop(sender.send(answer)));
    let store = &life.store;
    store.commit(write.target.as_ref(), write.command, NOW_MS, done);
    life.turn();
    let answer = receiver.try_recv().expect("an answer").expect("success");
    answer.reply.to_json().expect("not refused");
}

fn set(life: &mut Life, group: u64, bytes: usize) {
    let text = "x".repeat(bytes);
    let set = format!(
        r#"{{"stream_name":"documents","group_id":"document-{group}","item_id":"body","data":{{"text":"{text}"}}}}"#
    );
    call(life, read_set(&set).expect("a command"));
}

/// Appends 20 bytes to items of 100 KB in turn. Gives what was written to the log, and by folding.
fn append_in_turn(items: u64, calls: u64) -> (u64, u64) {
    let disk = SimDisk::new(1);
    let options = FileOptions {
        segment_bytes: 256 << 10,
        cache_bytes_max: 1 << 30,
        ..options()
    };
    let mut life = Life::open(&disk, options, 0, false).expect("a store");
    for item in 0..items {
        set(&mut life, item, 100_000);
    }
    life.fold();
    let (log_before, folds_before) = (
        disk.written_bytes("log-"),
        life.inner().folds.written_bytes.get(),
    );
    for number in 0..calls {
        let before = disk.written_bytes("log-");
        let group = number % items;
        let update = format!(
            r#"{{"stream_name":"documents","group_id":"document-{group}","item_id":"body","ops":[{{"type":"append","path":"text","value":"twenty bytes of text"}}],"returning":"none"}}"#
        );
        call(&mut life, read_update(&update).expect("a command"));
        let written = disk.written_bytes("log-") - before;
        assert!(written <= 300, "{written} bytes for 20");
        if number % 100 == 99 {
            life.fold();
        }
    }
    let log = disk.written_bytes("log-") - log_before;
    (log, life.inner().folds.written_bytes.get() - folds_before)
}

#[test]
fn a_small_change_of_a_large_item_costs_little() {
    for (items, calls) in [(1, 6_000), (200, 6_000)] {
        let (log, folds) = append_in_turn(items, calls);
        assert!(
            log + folds <= 3 * log,
            "{items} items: {log} bytes to the log, {folds} by folding"
        );
    }
}

#[test]
fn groups_that_come_and_go_leave_nothing() {
    let disk = SimDisk::new(1);
    let mut life = Life::open(&disk, options(), 0, false).expect("a store");
    let mut bytes_max = 0;
    for cycle in 0..120 {
        for group in cycle * 20..cycle * 20 + 20 {
            set(&mut life, group, 400);
        }
        life.fold();
        for group in cycle * 20..cycle * 20 + 20 {
            let delete = format!(
                r#"{{"stream_name":"documents","group_id":"document-{group}","item_id":"body"}}"#
            );
            call(&mut life, read_delete(&delete).expect("a command"));
        }
        life.inner().forget_idle(&|_| false);
        life.fold();
        // The manifest is bounded by its rewrites, at a size that is not reached here.
        let files = disk.files().into_iter();
        let files = files.filter(|(name, _)| !name.starts_with("manifest-"));
        let bytes: u64 = files.map(|(_, bytes)| bytes).sum();
        if cycle < 20 {
            bytes_max = bytes_max.max(bytes);
        } else {
            assert!(bytes <= 2 * bytes_max, "cycle {cycle}: {:?}", disk.files());
        }
    }
    assert_eq!(life.inner().table.len(), 0);
    assert!(
        life.inner().gone.lock().len() < 100,
        "they are told as gone"
    );
}

#[test]
fn a_forgotten_group_begins_anew_wherever_its_steps_are() {
    let mut disk = SimDisk::new(1);
    let mut life = Life::open(&disk, options(), 0, false).expect("a store");
    let key = iii_stream_core::GroupKey {
        stream: "documents".into(),
        group: "document-1".into(),
    };
    let mut epochs = Vec::new();
    for round in 0..40 {
        set(&mut life, 1, 300);
        let epoch = life.epoch(key.as_ref()).expect("it is there");
        assert!(!epochs.contains(&epoch), "{epoch} comes again");
        epochs.push(epoch);
        // Its steps are in the file, or in the log, or some here and some there.
        let fills = 100 + round % 7 * 10;
        for group in fills..fills + round % 3 * 20 {
            set(&mut life, group, 700);
        }
        if round % 2 == 0 {
            life.fold();
        }
        let delete = r#"{"stream_name":"documents","group_id":"document-1","item_id":"body"}"#;
        call(&mut life, read_delete(delete).expect("a command"));
        life.inner().forget_idle(&|_| false);
        if round % 5 == 0 {
            life.fold();
        }
        if round % 4 == 3 {
            set(&mut life, 1, 10);
            let before = life.epoch(key.as_ref());
            if !epochs.contains(before.as_ref().expect("it is there")) {
                epochs.extend(before.clone());
            }
            life.close();
            disk = disk.after_kill();
            life = Life::open(&disk, options(), 0, false).expect("a store");
            assert_eq!(life.epoch(key.as_ref()), before, "round {round}");
            return_to_nothing(&mut life);
        }
    }
}

fn return_to_nothing(life: &mut Life) {
    let delete = r#"{"stream_name":"documents","group_id":"document-1","item_id":"body"}"#;
    call(life, read_delete(delete).expect("a command"));
    life.inner().forget_idle(&|_| false);
}
