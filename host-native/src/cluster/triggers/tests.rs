//! Triggers of several instances on a real Redis: each instance with its own connections, store and functions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::command::read_set;
use iii_stream_core::fields::Fields;
use iii_stream_core::{GroupLimits, GroupRef};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{SharedStreamTriggers, StreamTriggerOptions, TriggerKnowledge};
use crate::cluster::Places;
use crate::engine::{
    Binding, Call, Function, Immediate, LaneContext, Output, Registry, ReplyTo, TriggerType,
    Waiting,
};
use crate::metrics::Metrics;
use crate::redis_client::RedisClient;
use crate::redis_client::test_server::{TestServer, is_installed};
use crate::store::Store;
use crate::store::redis::{RedisStore, RedisStoreOptions, Sinks};

/// Longest time until what must happen happens.
const TIME_MAX: Duration = Duration::from_secs(30);

/// What handlers were called with, over all instances: group and number, in order.
#[derive(Default)]
struct Calls {
    all: Mutex<Vec<(String, u64, usize)>>,
    came: Notify,
}

impl Calls {
    fn note(&self, input: &str, instance: usize) {
        let fields = Fields::read(input, &["groupId", "event"]).expect("an input");
        let group = fields.string(0).expect("a group").into_owned();
        let number = input.rsplit(r#""data":"#).next().expect("data");
        let number = number.trim_end_matches('}').parse().expect("a number");
        self.all.lock().push((group, number, instance));
        self.came.notify_waiters();
    }

    /// Waits until so many different ones came.
    async fn wait_for(&self, count: usize) {
        let waiting = async {
            loop {
                let came = self.came.notified();
                let all = self.all.lock().clone();
                let different: HashMap<_, _> = all.iter().map(|(g, n, _)| ((g, n), ())).collect();
                if count <= different.len() {
                    return;
                }
                came.await;
            }
        };
        if tokio::time::timeout(TIME_MAX, waiting).await.is_err() {
            panic!("{count} were wanted: {:?}", self.all.lock());
        }
    }

    /// The numbers of each group, the first time each came. How many came again.
    fn by_group(&self) -> (HashMap<String, Vec<u64>>, usize) {
        let mut by_group: HashMap<String, Vec<u64>> = HashMap::new();
        let mut repeated = 0;
        for (group, number, _) in &*self.all.lock() {
            let numbers = by_group.entry(group.clone()).or_default();
            match numbers.contains(number) {
                true => repeated += 1,
                false => numbers.push(*number),
            }
        }
        (by_group, repeated)
    }

    fn last_instance(&self) -> usize {
        self.all.lock().last().expect("a call").2
    }
}

/// A handler that answers when the test says so.
#[derive(Default)]
struct Late {
    calls: Arc<Calls>,
    replies: Mutex<Vec<ReplyTo>>,
}

impl Function for Late {
    fn invoke(&self, call: &Call<'_>, reply: ReplyTo) {
        self.replies.lock().push(reply);
        self.calls.note(call.data, 0);
    }
}

struct Instance {
    registry: Arc<Registry>,
    triggers: Arc<SharedStreamTriggers>,
    store: Arc<RedisStore>,
    client: Arc<RedisClient>,
}

async fn instance(server: &TestServer, index: usize, calls: &Arc<Calls>) -> Instance {
    let client = server.client().await;
    let metrics = Arc::new(Metrics::default());
    let places = Arc::new(Places::default());
    let knowledge = Arc::new(TriggerKnowledge::new(places.clone()));
    let limits = GroupLimits {
        items_max: 1_000,
        bytes_max: 1 << 20,
        client_records_max: 10,
        hot_items_max: 4,
        history_changes_max: 1_000,
        history_bytes_max: 1 << 20,
    };
    let options = RedisStoreOptions {
        prefix: "t:".to_owned(),
        limits,
        keeps_history: true,
        wait_max: Duration::from_secs(5),
        queue_commands_max: 10_000,
        queue_bytes_max: 64 << 20,
        queue_total_bytes_max: 256 << 20,
        cache_bytes_max: 16 << 20,
    };
    let store = RedisStore::new(client.clone(), options, Sinks::Channel, knowledge.clone());
    let registry = Arc::new(Registry::new(
        format!("instance-{index}").into(),
        metrics.clone(),
    ));
    let calls = calls.clone();
    registry.register_builtin(
        "f",
        Arc::new(Immediate(move |call: &Call<'_>| {
            calls.note(call.data, index);
            Ok(Output::Nothing)
        })),
    );
    let lanes = LaneContext {
        registry: registry.clone(),
        runtime: tokio::runtime::Handle::current(),
        time_max: Duration::from_secs(5),
        open_max: 16,
        queue_max: 100,
        waiting: Waiting::default(),
        metrics,
    };
    let options = StreamTriggerOptions {
        prefix: "t:".to_owned(),
        heartbeat: Duration::from_millis(100),
        lease: Duration::from_millis(600),
        resume: Duration::from_secs(60),
    };
    let triggers = SharedStreamTriggers::new(
        lanes,
        client.clone(),
        store.clone(),
        options,
        knowledge,
        places,
    );
    Instance {
        registry,
        triggers,
        store,
        client,
    }
}

fn binding(id: &str) -> Arc<Binding> {
    Arc::new(Binding {
        id: id.into(),
        trigger_type: "stream".into(),
        function_id: "f".into(),
        config: r#"{"stream_name":"s"}"#.to_owned(),
        metadata: None,
        owner: "w".into(),
    })
}

impl Instance {
    fn bind(&self, id: &str) {
        self.triggers.bind(&binding(id)).expect("bound");
    }

    async fn set(&self, group: &str, number: u64) {
        let input =
            format!(r#"{{"stream_name":"s","group_id":"{group}","item_id":"i","data":{number}}}"#);
        let command = read_set(&input).expect("an input").command;
        let (send, receive) = oneshot::channel();
        let group = GroupRef { stream: "s", group };
        let done = Box::new(move |result: Result<_, _>| {
            let _ = send.send(result.map(drop));
        });
        self.store
            .commit(group, command, crate::clock::unix_ms(), done);
        receive.await.expect("an answer").expect("committed");
    }
}

async fn three(server: &TestServer, calls: &Arc<Calls>) -> Vec<Instance> {
    let mut instances = Vec::new();
    for index in 0..3 {
        instances.push(instance(server, index, calls).await);
    }
    instances
}

/// Writes 1 … `count` to each of three groups, by one instance after another.
async fn write(instances: &[Instance], from: u64, to: u64) {
    for number in from..to {
        let instance = &instances[number as usize % instances.len()];
        for group in ["a", "b", "c"] {
            instance.set(group, number).await;
        }
    }
}

fn assert_in_order(calls: &Calls, to: u64) -> usize {
    let (by_group, repeated) = calls.by_group();
    for group in ["a", "b", "c"] {
        let wanted: Vec<u64> = (0..to).collect();
        assert_eq!(by_group[group], wanted, "{group}");
    }
    repeated
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_bindings_of_three_instances_call_once() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start();
    let calls = Arc::<Calls>::default();
    let instances = three(&server, &calls).await;
    instances.iter().for_each(|instance| instance.bind("x"));
    write(&instances, 0, 50).await;
    calls.wait_for(150).await;
    assert_eq!(assert_in_order(&calls, 50), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_hands_over_exactly() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start();
    let calls = Arc::<Calls>::default();
    let mut instances = three(&server, &calls).await;
    instances.iter().for_each(|instance| instance.bind("x"));
    write(&instances, 0, 10).await;
    calls.wait_for(30).await;
    let leader = instances.remove(calls.last_instance());
    let leaving = tokio::spawn(async move {
        leader.triggers.leave(Duration::from_secs(5)).await;
        leader
    });
    write(&instances, 10, 60).await;
    calls.wait_for(180).await;
    let _leader = leaving.await.expect("left");
    assert_eq!(assert_in_order(&calls, 60), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_leaves_behind_that_is_cut_off_is_called() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start();
    let calls = Arc::<Calls>::default();
    let mut instances = three(&server, &calls).await;
    instances.iter().for_each(|instance| instance.bind("x"));
    write(&instances, 0, 10).await;
    calls.wait_for(30).await;
    let leader = instances.remove(calls.last_instance());
    leader.client.close().await;
    write(&instances, 10, 40).await;
    calls.wait_for(120).await;
    assert_in_order(&calls, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_trigger_begins_with_what_is_committed_after_it_was_bound() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start();
    let calls = Arc::<Calls>::default();
    let instances = three(&server, &calls).await;
    for number in 0..5 {
        instances[0].set("a", number).await;
    }
    instances[0].bind("x");
    instances[0].set("a", 5).await;
    instances[0].set("b", 6).await;
    calls.wait_for(2).await;
    let (by_group, repeated) = calls.by_group();
    assert_eq!((&by_group["a"], &by_group["b"]), (&vec![5], &vec![6]));
    assert_eq!(repeated, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_bindings_of_one_instance_call_each_and_go_on_where_they_stopped() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start();
    let calls = Arc::<Calls>::default();
    let instances = three(&server, &calls).await;
    let first = &instances[0];
    first.bind("x");
    first.bind("y");
    first.set("a", 0).await;
    calls.wait_for(1).await;
    // Their owner goes away, and comes to another instance.
    for id in ["x", "y"] {
        first.triggers.unbind_for_now(&binding(id));
    }
    first.set("a", 1).await;
    instances[1].bind("x");
    first.set("a", 2).await;
    calls.wait_for(3).await;
    let (by_group, repeated) = calls.by_group();
    assert_eq!(by_group["a"], [0, 1, 2]);
    assert_eq!(repeated, 1, "the first was called for both");
    // It is taken away by name: what comes before it is bound again is nobody's.
    instances[1].triggers.unbind(&binding("x"));
    first.set("a", 3).await;
    first.bind("x");
    first.set("a", 4).await;
    calls.wait_for(4).await;
    assert_eq!(calls.by_group().0["a"], [0, 1, 2, 4]);
}

// One thread: nobody sees the answers before the binding is gone.
#[tokio::test]
async fn what_a_handler_answered_before_it_went_away_is_not_called_again() {
    if !is_installed() {
        return;
    }
    let server = TestServer::start();
    let calls = Arc::<Calls>::default();
    let first = instance(&server, 0, &calls).await;
    let second = instance(&server, 1, &calls).await;
    let late = Arc::new(Late {
        calls: calls.clone(),
        ..Late::default()
    });
    first.registry.register_builtin("f", late.clone());
    first.bind("x");
    for number in 0..3 {
        first.set("a", number).await;
    }
    calls.wait_for(3).await;
    let mut replies = std::mem::take(&mut *late.replies.lock());
    let unanswered = replies.pop();
    for reply in replies {
        reply.send(Ok(Output::Nothing));
    }
    first.triggers.unbind_for_now(&binding("x"));
    drop(unanswered);
    second.bind("x");
    second.set("a", 3).await;
    calls.wait_for(4).await;
    let numbers: Vec<_> = calls.all.lock().iter().map(|call| call.1).collect();
    assert_eq!(
        numbers,
        [0, 1, 2, 2, 3],
        "only what was not answered is repeated"
    );
}
