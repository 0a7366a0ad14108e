//! Instances on a real Redis: they come, call each other, guard each other's joins, and go in all ways there are.

mod cable;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use cable::Cable;

use super::{CallBounds, Cluster, ClusterOptions, InstanceId, Own, Places, WorkerCard};
use crate::engine::{
    BindError, Binding, Call, CallResult, Details, Function, Immediate, Output, Registry, ReplyTo,
    TriggerType, Triggers,
};
use crate::metrics::Metrics;
use crate::redis_client::test_server::{TestServer, is_installed};
use crate::redis_client::{RedisClient, RedisOptions};

const HEARTBEAT: Duration = Duration::from_millis(100);
const GONE_AFTER: Duration = Duration::from_millis(800);

/// Longer than anything here may take.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// One instance with one worker.
struct Instance {
    id: InstanceId,
    worker: InstanceId,
    registry: Arc<Registry>,
    triggers: Arc<Triggers>,
    guards: Arc<Bound>,
    places: Arc<Places>,
    metrics: Arc<Metrics>,
    client: Arc<RedisClient>,
    cluster: Arc<Cluster>,
}

/// A trigger type that knows its bindings.
#[derive(Default)]
struct Bound(Mutex<Vec<Arc<Binding>>>);

impl TriggerType for Bound {
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError> {
        self.0.lock().push(binding.clone());
        Ok(())
    }

    fn unbind(&self, binding: &Arc<Binding>) {
        self.0.lock().retain(|bound| bound.id != binding.id);
    }
}

impl Bound {
    fn functions(&self) -> Vec<String> {
        let bindings = self.0.lock();
        bindings
            .iter()
            .map(|it| it.function_id.to_string())
            .collect()
    }
}

async fn instance(url: &str, name: &str) -> Instance {
    let metrics = Arc::new(Metrics::default());
    let options = RedisOptions {
        nodes: vec![url.to_owned()],
        wait_max: Duration::from_secs(2),
        ..RedisOptions::default()
    };
    let client = RedisClient::connect(options, metrics.clone())
        .await
        .expect("Redis is there");
    let id = InstanceId::from(name);
    let registry = Arc::new(Registry::new(id.clone(), metrics.clone()));
    let triggers = Arc::new(Triggers::new(id.clone()));
    let guards = Arc::<Bound>::default();
    triggers.register_builtin_type("stream:join", "", guards.clone());
    triggers.register_builtin_type("stream", "", Arc::<Bound>::default());
    let worker = InstanceId::from(format!("worker of {name}"));
    let card = WorkerCard {
        id: worker.clone(),
        name: Some(format!("w-{name}")),
        namespace: None,
        shown: "{}".to_owned(),
    };
    let own = Own {
        registry: registry.clone(),
        triggers: triggers.clone(),
        workers: Arc::new(move || vec![card.clone()]),
        worker_changes: tokio::sync::watch::channel(()).1,
    };
    let options = ClusterOptions {
        prefix: "t:".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        settings: BTreeMap::new(),
        heartbeat: HEARTBEAT,
        gone_after: GONE_AFTER,
        ready_time_max: Duration::from_secs(5),
        calls: CallBounds {
            calls_max: 1_000,
            bytes_max: 1_000_000,
            time_max: Duration::from_secs(30),
        },
    };
    let places = Arc::<Places>::default();
    let cluster = Cluster::join(
        client.clone(),
        options,
        own,
        places.clone(),
        metrics.clone(),
    )
    .await
    .expect("it joins");
    Instance {
        id,
        worker,
        registry,
        triggers,
        guards,
        places,
        metrics,
        client,
        cluster,
    }
}

impl Instance {
    fn has(&self, id: &str, function: impl Function + 'static) {
        self.registry
            .register(id, &self.worker, Arc::new(function), Details::default())
            .expect("nobody else has it");
    }

    fn binds(&self, id: &str, trigger_type: &str, function_id: &str) {
        let binding = Binding {
            id: id.into(),
            trigger_type: trigger_type.into(),
            function_id: function_id.into(),
            config: r#"{"stream_name":"s"}"#.to_owned(),
            metadata: None,
            owner: self.worker.clone(),
        };
        self.triggers.bind(binding).expect("it can be bound");
    }

    fn ask(&self, id: &str, data: &str) -> impl Future<Output = CallResult> + use<> {
        let (reply, waiter) = ReplyTo::waiter();
        self.registry
            .invoke(&Call::from_server(id, data), "default", reply);
        waiter.answer()
    }

    /// Ends it as a crash would.
    async fn dies(self) {
        let tasks = std::mem::take(&mut *self.cluster.tasks.lock());
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.client.close().await;
    }

    /// Waits until this instance sees that.
    async fn sees(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        let mut changes = self.places.changes();
        while !is_so(self) {
            assert!(begun.elapsed() < WAIT_MAX, "{}: {what}", self.id);
            // Bindings are made known a little after the change.
            let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
        }
    }

    async fn sees_function(&self, id: &str) {
        self.sees(id, |it| it.registry.find(id).is_some()).await;
    }
}

fn echo() -> impl Function {
    Immediate(|call: &Call<'_>| Ok(Output::Json(call.data.to_owned())))
}

/// Answers nothing until it is told to.
#[derive(Clone, Default)]
struct Holding(Arc<Mutex<Vec<ReplyTo>>>);

impl Function for Holding {
    fn invoke(&self, _: &Call<'_>, reply: ReplyTo) {
        self.0.lock().push(reply);
    }
}

impl Holding {
    async fn holds(&self, count: usize) {
        let begun = Instant::now();
        while self.0.lock().len() < count {
            assert!(begun.elapsed() < WAIT_MAX, "the call does not come");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn code(result: &CallResult) -> String {
    match result {
        Ok(output) => panic!("{output:?} is no error"),
        Err(failure) => failure.code().into_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_call_each_other_and_guard_each_others_joins() {
    if !is_installed() {
        return;
    }
    let redis = TestServer::start();
    let a = instance(&redis.url(), "a").await;
    a.has("echo", echo());
    a.has("stream::get(kept)", echo());
    a.binds("1", "stream:join", "guard");
    a.binds("2", "stream", "handler");
    let b = instance(&redis.url(), "b").await;
    b.sees_function("echo").await;
    assert_eq!(
        b.ask("echo", "[1.0]").await,
        Ok(Output::Json("[1.0]".to_owned()))
    );
    assert!(b.registry.has_custom_storage() && b.places.is_triggered("s"));
    assert_eq!(b.places.workers()[0].name.as_deref(), Some("w-a"));
    assert_eq!(b.metrics.cluster_instances.get(), 2);
    b.sees("the guard of a", |b| b.guards.functions() == ["guard"])
        .await;
    b.binds("mine", "stream:join", "guard");
    assert_eq!(b.guards.functions(), ["guard"], "an equal one counts once");
    a.sees("both are homes", |a| {
        let bindings = a.places.bindings();
        bindings
            .iter()
            .any(|it| a.places.homes(it) == std::slice::from_ref(&b.id))
    })
    .await;
    a.triggers.remove_owner(&a.worker);
    a.registry.unregister("echo", &a.worker);
    b.sees("echo is gone", |b| b.registry.find("echo").is_none())
        .await;
    assert_eq!(code(&b.ask("echo", "1").await), "function_not_found");
    // One that comes later learns everything before it is ready.
    let c = instance(&redis.url(), "c").await;
    assert_eq!(c.guards.functions(), ["guard"]);
    assert!(c.registry.has_custom_storage());
    let large = format!("\"{}\"", "x".repeat(500_000));
    a.has("echo", echo());
    c.sees_function("echo").await;
    assert_eq!(c.ask("echo", &large).await, Ok(Output::Json(large)));
    a.cluster.leave().await;
    assert_eq!(
        c.ask("echo", "1").await,
        Ok(Output::Json("1".to_owned())),
        "nobody else has it"
    );
    a.cluster.close().await;
    c.sees("a is gone", |c| {
        c.places.instances() == std::slice::from_ref(&b.id)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_when_the_instance_that_runs_it_dies() {
    if !is_installed() {
        return;
    }
    let redis = TestServer::start();
    let (a, b) = (
        instance(&redis.url(), "a").await,
        instance(&redis.url(), "b").await,
    );
    let holding = Holding::default();
    a.has("f", holding.clone());
    b.sees_function("f").await;
    let answer = b.ask("f", "1");
    holding.holds(1).await;
    let begun = Instant::now();
    a.dies().await;
    assert_eq!(code(&answer.await), "invocation_stopped");
    assert!(
        begun.elapsed() < GONE_AFTER + Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    b.sees("a is gone", |b| b.places.instances().is_empty())
        .await;
    assert_eq!(code(&b.ask("f", "1").await), "function_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_gone_because_redis_was_away() {
    if !is_installed() {
        return;
    }
    let mut redis = TestServer::start();
    let (a, b) = (
        instance(&redis.url(), "a").await,
        instance(&redis.url(), "b").await,
    );
    let holding = Holding::default();
    a.has("f", holding.clone());
    a.has("echo", echo());
    b.sees_function("echo").await;
    let held = b.ask("f", "1");
    holding.holds(1).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (noting, places) = (seen.clone(), b.places.clone());
    let watching = tokio::spawn(async move {
        let mut changes = places.changes();
        while changes.changed().await.is_ok() {
            noting.lock().push(places.instances().len());
        }
    });
    for is_killed in [false, true] {
        if is_killed {
            redis.kill();
        } else {
            redis.pause();
        }
        let meanwhile = b.ask("echo", "1");
        tokio::time::sleep(3 * GONE_AFTER).await;
        if is_killed {
            redis.restart();
        } else {
            redis.resume();
        }
        // It was carried out late, or surely not, or the instance does not know of it.
        let meanwhile = meanwhile.await;
        assert!(
            meanwhile.is_ok()
                || ["cluster_unavailable", "invocation_stopped"].contains(&&*code(&meanwhile)),
            "{meanwhile:?}"
        );
        let begun = Instant::now();
        while b.ask("echo", "1").await.is_err() {
            assert!(begun.elapsed() < WAIT_MAX, "it does not come back");
        }
    }
    let reply = holding.0.lock().pop().expect("the call");
    reply.send(Ok(Output::Nothing));
    assert_eq!(
        held.await,
        Ok(Output::Nothing),
        "it was executed all the time"
    );
    // Long enough for somebody to be taken for gone late.
    tokio::time::sleep(2 * GONE_AFTER).await;
    assert!(
        seen.lock().iter().all(|count| *count == 1),
        "{:?}",
        seen.lock()
    );
    watching.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_cut_off_comes_back_with_all_it_has() {
    if !is_installed() {
        return;
    }
    let redis = TestServer::start();
    let cable = Cable::to(redis.port).await;
    let (a, b) = (
        instance(&cable.url(), "a").await,
        instance(&redis.url(), "b").await,
    );
    a.has("echo", echo());
    let holding = Holding::default();
    b.has("f", holding.clone());
    b.sees_function("echo").await;
    a.sees_function("f").await;
    let asked = a.ask("f", "1");
    holding.holds(1).await;
    cable.cut();
    b.sees("a is gone", |b| b.places.instances().is_empty())
        .await;
    b.sees("nobody waits for what a asked", |_| {
        !holding.0.lock()[0].is_wanted()
    })
    .await;
    assert_eq!(
        a.places.instances(),
        std::slice::from_ref(&b.id),
        "it cannot know"
    );
    a.has("later", echo());
    cable.mend();
    b.sees_function("later").await;
    assert_eq!(b.ask("echo", "1").await, Ok(Output::Json("1".to_owned())));
    assert_eq!(code(&asked.await), "invocation_stopped");
    let begun = Instant::now();
    let answer = loop {
        let answer = a.ask("f", "1");
        let held = holding.clone();
        let answering = async {
            held.holds(2).await;
            let reply = held.0.lock().pop().expect("the call");
            reply.send(Ok(Output::Nothing));
        };
        let (answer, ()) = tokio::join!(answer, answering);
        if answer.is_ok() || WAIT_MAX < begun.elapsed() {
            break answer;
        }
    };
    assert_eq!(answer, Ok(Output::Nothing));
}
