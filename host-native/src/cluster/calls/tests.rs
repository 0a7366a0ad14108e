//! Calls between instances on a wire that does what a test wants.

mod scene;

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Delivery, LOOK_INTERVAL};
use crate::engine::{Call, Failure, Immediate, Output, ReplyTo};
use scene::{ARRIVES, BOUNDS, Fate, Holding, TestWire, code, echo, fails, instance, settle, text};

#[tokio::test]
async fn a_call_comes_with_all_it_has_and_its_answer_unchanged() {
    let wire = Arc::<TestWire>::default();
    let (a, b) = (instance(&wire, "a"), instance(&wire, "b"));
    a.has("echo", echo("a"));
    a.has("nothing", Immediate(|_: &Call<'_>| Ok(Output::Nothing)));
    let body = r#"{"code": "MINE", "message":"m", "more":[1.0]}"#;
    a.has(
        "throws",
        Immediate(move |_: &Call<'_>| Err(Failure::from_worker(body.to_owned()))),
    );
    b.knows(&a, &["echo", "nothing", "throws"]);
    let (reply, waiter) = ReplyTo::waiter();
    let call = Call {
        metadata: Some("[7]"),
        caller: Some("caller"),
        ..Call::from_server("echo", "{\"x\" : 1.0}")
    };
    b.registry.invoke(&call, "default", reply);
    assert_eq!(
        text(waiter.answer().await),
        r#"["a",{"x" : 1.0},[7],"caller"]"#
    );
    assert_eq!(b.ask("nothing", "null").await, Ok(Output::Nothing));
    let failure = b.ask("throws", "null").await.expect_err("an error");
    assert_eq!((failure.body(), failure.is_of_server()), (body, false));
    assert!(b.registry.find("echo").is_some() && b.registry.find("none").is_none());
}

#[tokio::test]
async fn own_functions_come_first_and_others_in_turn() {
    let wire = Arc::<TestWire>::default();
    let (a, b, c) = (
        instance(&wire, "a"),
        instance(&wire, "b"),
        instance(&wire, "c"),
    );
    for (it, name) in [(&a, "a"), (&b, "b")] {
        it.has("f", echo(name));
        c.knows(it, &["f"]);
    }
    a.knows(&b, &["f"]);
    let mut who = Vec::new();
    for _ in 0..4 {
        who.push(text(c.ask("f", "1").await).chars().nth(2).expect("a name"));
    }
    assert_eq!(who, ['a', 'b', 'a', 'b']);
    assert!(text(a.ask("f", "1").await).contains('a'));
}

#[tokio::test]
async fn a_forwarded_call_is_never_forwarded_again() {
    let wire = Arc::<TestWire>::default();
    let (a, b) = (instance(&wire, "a"), instance(&wire, "b"));
    // Each believes that the other has it.
    a.knows(&b, &["f", "engine::own"]);
    b.knows(&a, &["f"]);
    assert_eq!(code(&a.ask("f", "null").await), "function_not_found");
    b.registry
        .register_builtin("engine::own", Arc::new(echo("b")));
    assert_eq!(
        code(&a.ask("engine::own", "null").await),
        "function_not_found",
        "only functions of workers are called for others"
    );
}

#[tokio::test]
async fn a_function_that_moves_is_found() {
    let wire = Arc::<TestWire>::default();
    let (a, b, c) = (
        instance(&wire, "a"),
        instance(&wire, "b"),
        instance(&wire, "c"),
    );
    c.knows(&a, &["f"]);
    b.has("f", echo("b"));
    let answer = c.ask("f", "1");
    settle().await;
    c.knows(&b, &["f"]);
    assert!(text(answer.await).contains('b'));
    // To the very instance that asks.
    c.knows(&a, &["g"]);
    c.knows(&b, &[]);
    let answer = c.ask("g", "1");
    c.has("g", echo("c"));
    assert!(text(answer.await).contains('c'));
}

#[tokio::test]
async fn who_does_not_listen_is_passed_over_or_waited_for() {
    let wire = Arc::<TestWire>::default();
    let (a, b, c) = (
        instance(&wire, "a"),
        instance(&wire, "b"),
        instance(&wire, "c"),
    );
    for (it, name) in [(&a, "a"), (&b, "b")] {
        it.has("f", echo(name));
    }
    c.knows(&a, &["f"]);
    let unheard = fails(Delivery::Unheard);
    wire.fates.lock().insert("a".into(), vec![unheard; 3]);
    assert!(
        text(c.ask("f", "1").await).contains('a'),
        "it listens again soon"
    );
    c.knows(&b, &["f"]);
    wire.fates.lock().insert("a".into(), vec![unheard]);
    for _ in 0..2 {
        assert!(text(c.ask("f", "1").await).contains('b') || wire.fates.lock()["a"].is_empty());
    }
    c.places.remove("b");
    wire.instances.lock().remove("a");
    assert_eq!(code(&c.ask("f", "1").await), "invocation_stopped");
}

#[tokio::test]
async fn without_a_way_calls_fail_and_answers_wait() {
    let wire = Arc::<TestWire>::default();
    let (a, b) = (instance(&wire, "a"), instance(&wire, "b"));
    let holding = Holding::default();
    a.has("f", holding.clone());
    b.knows(&a, &["f"]);
    let answer = b.ask("f", "1");
    settle().await;
    let unavailable = fails(Delivery::Unavailable);
    for id in ["a", "b"] {
        wire.fates.lock().insert(id.into(), vec![unavailable; 3]);
    }
    let reply = holding.0.lock().pop().expect("the call");
    reply.send(Ok(Output::Json("1".to_owned())));
    let failure = b.ask("f", "1").await;
    assert_eq!(code(&failure), "cluster_unavailable");
    assert!(failure.is_err_and(|failure| failure.is_of_server()));
    assert_eq!(text(answer.await), "1");
}

#[tokio::test]
async fn there_are_bounds_of_calls_and_of_bytes() {
    let wire = Arc::<TestWire>::default();
    let (a, b) = (instance(&wire, "a"), instance(&wire, "b"));
    let holding = Holding::default();
    a.has("f", holding.clone());
    a.has(
        "big",
        Immediate(|_: &Call<'_>| Ok(Output::Json("1".repeat(1_001)))),
    );
    b.knows(&a, &["f", "big"]);
    let failure = b.ask("f", &"1".repeat(1_000)).await.expect_err("too large");
    assert_eq!(failure.code(), "payload_too_large");
    assert!(
        failure
            .message()
            .contains("1001 bytes; the limit is 1000 (forwarded_bytes_max)")
    );
    let failure = b.ask("big", "null").await.expect_err("too large");
    assert_eq!(failure.code(), "payload_too_large");
    let open: Vec<_> = (0..BOUNDS.calls_max).map(|_| b.ask("f", "1")).collect();
    let failure = b.ask("f", "1").await.expect_err("too many");
    assert_eq!(failure.code(), "too_many_calls");
    assert!(
        failure.message().contains("forwarded_calls_max"),
        "{}",
        failure.message()
    );
    // Another instance comes to the receiver's own bound.
    let c = instance(&wire, "c");
    c.knows(&a, &["f"]);
    settle().await;
    assert_eq!(code(&c.ask("f", "1").await), "too_many_calls");
    for reply in holding.0.lock().drain(..) {
        reply.send(Ok(Output::Nothing));
    }
    for answer in open {
        assert_eq!(answer.await, Ok(Output::Nothing));
    }
}

#[tokio::test]
async fn a_call_that_comes_too_late_is_not_begun() {
    let wire = Arc::<TestWire>::default();
    let (a, b) = (instance(&wire, "a"), instance(&wire, "b"));
    let holding = Holding::default();
    a.has("f", holding.clone());
    b.knows(&a, &["f"]);
    let answer = b.ask("f", "1");
    // It is written with a deadline, and then the clock goes on.
    tokio::task::yield_now().await;
    *wire.now_ms.lock() = 10_001;
    assert_eq!(code(&answer.await), "invocation_timeout");
    assert!(holding.0.lock().is_empty());
}

#[tokio::test]
async fn the_end_of_an_instance_ends_its_calls_both_ways() {
    let wire = Arc::<TestWire>::default();
    let (a, b) = (instance(&wire, "a"), instance(&wire, "b"));
    let holding = Holding::default();
    a.has("f", holding.clone());
    b.knows(&a, &["f"]);
    let answer = b.ask("f", "1");
    settle().await;
    assert!(holding.0.lock()[0].is_wanted());
    a.calls.gone("b");
    assert!(!holding.0.lock()[0].is_wanted(), "nobody waits for it");
    b.places.remove("a");
    b.calls.gone("a");
    assert_eq!(code(&answer.await), "invocation_stopped");
    holding.0.lock().clear();
    settle().await;
    assert_eq!(*wire.messages.lock(), 1, "nothing is said to the dead");
}

#[tokio::test]
async fn what_the_wire_loses_is_found_out() {
    let wire = Arc::<TestWire>::default();
    let (a, b) = (instance(&wire, "a"), instance(&wire, "b"));
    let holding = Holding::default();
    a.has("f", holding.clone());
    a.has("echo", echo("a"));
    b.knows(&a, &["f", "echo"]);
    let kept = b.ask("f", "1");
    settle().await;
    let lost = Fate {
        arrives: false,
        ..ARRIVES
    };
    wire.fates
        .lock()
        .insert("a".into(), vec![fails(Delivery::Unknown)]);
    let lost_call = b.ask("f", "1");
    settle().await;
    wire.fates.lock().insert("b".into(), vec![lost]);
    let lost_answer = b.ask("echo", "1");
    let looking = async {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            b.calls.look();
        }
    };
    tokio::select! {
        () = looking => {}
        (call, answer) = async { (lost_call.await, lost_answer.await) } => {
            assert_eq!((code(&call), code(&answer)), ("invocation_stopped".to_owned(), "invocation_stopped".to_owned()));
        }
    }
    let reply = holding.0.lock().pop().expect("the call that arrived");
    assert!(
        holding.0.lock().is_empty(),
        "what was lost is not sent again"
    );
    reply.send(Ok(Output::Nothing));
    assert_eq!(kept.await, Ok(Output::Nothing));
}

#[tokio::test]
async fn calls_that_nobody_waits_for_are_forgotten_and_void_ones_are_made() {
    let wire = Arc::<TestWire>::default();
    let (a, b) = (instance(&wire, "a"), instance(&wire, "b"));
    let holding = Holding::default();
    a.has("f", holding.clone());
    b.knows(&a, &["f"]);
    drop(b.ask("f", "1"));
    settle().await;
    b.calls.look();
    settle().await;
    assert!(!holding.0.lock().pop().expect("the call").is_wanted());
    b.registry
        .invoke(&Call::from_server("f", "1"), "default", ReplyTo::nobody());
    settle().await;
    assert!(!holding.0.lock().pop().expect("the call").is_wanted());
    assert_eq!(b.calls.open.lock().len(), 0, "it was begun, which is all");
}

#[tokio::test]
async fn calls_to_one_instance_keep_their_order_and_share_messages() {
    let wire = Arc::<TestWire>::default();
    let (a, b) = (instance(&wire, "a"), instance(&wire, "b"));
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    a.has(
        "f",
        Immediate(move |call: &Call<'_>| {
            seen.lock().push(call.data.to_owned());
            Ok(Output::Nothing)
        }),
    );
    b.knows(&a, &["f"]);
    wire.fates
        .lock()
        .insert("a".into(), vec![fails(Delivery::Unheard)]);
    let answers: Vec<_> = (0..3)
        .map(|number| b.ask("f", &number.to_string()))
        .collect();
    for answer in answers {
        assert_eq!(answer.await, Ok(Output::Nothing));
    }
    assert_eq!(*order.lock(), ["0", "1", "2"]);
    assert!(*wire.messages.lock() <= 3 + 3, "{}", *wire.messages.lock());
}
