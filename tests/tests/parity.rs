//! The core here and the core in wasm give the same bytes, for values, codes and messages, whatever they are asked.

use std::collections::BTreeMap;
use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use iii_stream_tests::guest::{Guest, GuestModule};
use iii_stream_tests::guest_module;
use iii_stream_tests::script::Script;

/// Scripts of one run.
const SCRIPTS: u64 = 100_000;

/// Scripts a worker takes at a time.
const BATCH: u64 = 500;

/// Names a seed for the run, to repeat one.
const SEED_VARIABLE: &str = "III_STREAM_PARITY_SEED";

/// What kinds of outcomes were seen, and how often.
type Seen = BTreeMap<String, u64>;

fn seed() -> u64 {
    match env::var(SEED_VARIABLE) {
        Ok(seed) => seed
            .parse()
            .unwrap_or_else(|error| panic!("{SEED_VARIABLE}={seed}: {error}")),
        // Each run looks somewhere else; a failure names its seed.
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("the clock is past 1970")
            .as_micros() as u64,
    }
}

/// What the guest must answer, put together from what the core gives here.
fn native(script: &Script, seen: &mut Seen) -> String {
    match iii_stream_core::apply_ops_json(script.old.as_deref(), &script.ops) {
        Ok(applied) => {
            for error in &applied.errors {
                *seen.entry(error.code().to_owned()).or_default() += 1;
            }
            *seen.entry("applied".to_owned()).or_default() += 1;
            let errors = serde_json::to_string(&applied.errors).expect("errors are plain data");
            format!(r#"{{"value":{},"errors":{errors}}}"#, applied.value)
        }
        Err(error) => {
            *seen.entry(error.code().to_owned()).or_default() += 1;
            let message = serde_json::to_string(&error.to_string()).expect("a string");
            format!(
                r#"{{"error":{{"code":"{}","message":{message}}}}}"#,
                error.code()
            )
        }
    }
}

fn compare(guest: &mut Guest, seed: u64, index: u64, seen: &mut Seen) {
    let script = Script::at(seed, index);
    let expected = native(&script, seen);
    let answer = guest.update(script.old.as_deref(), &script.ops);
    assert!(
        answer == expected,
        "script {index} of {SEED_VARIABLE}={seed} differs\nold: {:?}\nops: {}\nnative: {expected}\nwasm:   {answer}",
        script.old,
        script.ops,
    );
}

#[test]
fn native_and_wasm_agree_byte_for_byte() {
    let seed = seed();
    println!("{SEED_VARIABLE}={seed}");
    let module = GuestModule::compile(guest_module::path());
    let next = AtomicU64::new(0);
    let worker = || {
        let mut guest = module.instantiate();
        let mut seen = Seen::new();
        loop {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            if SCRIPTS <= first {
                return seen;
            }
            for index in first..SCRIPTS.min(first + BATCH) {
                compare(&mut guest, seed, index, &mut seen);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let seen = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut total = Seen::new();
        for worker in workers {
            for (outcome, count) in worker.join().expect("the worker's panic is shown above") {
                *total.entry(outcome).or_default() += count;
            }
        }
        total
    });
    println!("{seen:#?}");

    // A generator that no longer reaches the odd places would make this test worth nothing.
    let missing: Vec<_> = iii_stream_core::OP_ERROR_CODES
        .iter()
        .chain(&["applied", "deserialization_error", "too_many_ops"])
        .filter(|code| !seen.contains_key(**code))
        .collect();
    assert!(missing.is_empty(), "no script led to {missing:?}");
}

#[test]
fn a_script_is_fixed_by_its_seed_and_number() {
    assert_eq!(Script::at(7, 1_234), Script::at(7, 1_234));
    assert_ne!(Script::at(7, 1_234), Script::at(7, 1_235));
    assert_ne!(Script::at(7, 1_234), Script::at(8, 1_234));
}

#[test]
fn scripts_are_json() {
    for index in 0..5_000 {
        let script = Script::at(1, index);
        for text in script.old.iter().chain([&script.ops]) {
            let read: Result<&serde_json::value::RawValue, _> = serde_json::from_str(text);
            assert!(read.is_ok(), "script {index} holds {text}");
        }
    }
}
