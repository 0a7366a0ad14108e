//! A wire that does what a test wants, instances on it, and functions that they have.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::super::{CallBounds, Calls, Delivery, Wire};
use crate::cluster::card::Card;
use crate::cluster::places::Places;
use crate::cluster::roster::InstanceId;
use crate::engine::{
    Call, CallResult, Details, Function, FunctionInfo, Immediate, Output, Registry, ReplyTo,
};
use crate::metrics::Metrics;

/// A wire between all instances of a test.
#[derive(Default)]
pub(super) struct TestWire {
    pub(super) instances: Mutex<HashMap<InstanceId, Arc<Calls>>>,
    /// What becomes of the next messages to an instance; after those, and where nothing is said, they arrive.
    pub(super) fates: Mutex<HashMap<InstanceId, Vec<Fate>>>,
    pub(super) now_ms: Mutex<u64>,
    pub(super) messages: Mutex<usize>,
}

#[derive(Clone, Copy)]
pub(super) struct Fate {
    pub(super) delivery: Delivery,
    pub(super) arrives: bool,
}

impl Wire for TestWire {
    fn send<'a>(&'a self, to: &'a str, message: String) -> BoxFuture<'a, Delivery> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            *self.messages.lock() += 1;
            let fate = {
                let mut fates = self.fates.lock();
                let next = fates.get_mut(to).filter(|fates| !fates.is_empty());
                next.map_or(ARRIVES, |fates| fates.remove(0))
            };
            let receiver = self.instances.lock().get(to).cloned();
            match receiver {
                Some(calls) if fate.arrives => calls.receive(message.as_bytes()),
                Some(_) => {}
                None => return Delivery::Unheard,
            }
            fate.delivery
        })
    }

    fn now_ms(&self, _: &str) -> u64 {
        *self.now_ms.lock()
    }
}

pub(super) const ARRIVES: Fate = Fate {
    delivery: Delivery::Heard,
    arrives: true,
};

pub(super) const fn fails(delivery: Delivery) -> Fate {
    Fate {
        delivery,
        arrives: false,
    }
}

/// One instance of a test.
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) registry: Arc<Registry>,
    pub(super) places: Arc<Places>,
    pub(super) calls: Arc<Calls>,
}

pub(super) const BOUNDS: CallBounds = CallBounds {
    calls_max: 3,
    bytes_max: 1_000,
    time_max: Duration::from_secs(30),
};

pub(super) fn instance(wire: &Arc<TestWire>, id: &str) -> Instance {
    let id = InstanceId::from(id);
    let metrics = Arc::new(Metrics::default());
    let registry = Arc::new(Registry::new(id.clone(), metrics.clone()));
    let places = Arc::new(Places::default());
    let calls = Calls::new(
        id.clone(),
        BOUNDS,
        &registry,
        places.clone(),
        wire.clone(),
        metrics,
    );
    registry.look_elsewhere(calls.clone());
    wire.instances.lock().insert(id.clone(), calls.clone());
    Instance {
        id,
        registry,
        places,
        calls,
    }
}

impl Instance {
    pub(super) fn has(&self, id: &str, function: impl Function + 'static) {
        let worker = format!("worker of {}", self.id).into();
        self.registry
            .register(id, &worker, Arc::new(function), Details::default())
            .expect("nobody else has it");
    }

    /// Lets this instance know what another one has.
    pub(super) fn knows(&self, other: &Instance, functions: &[&str]) {
        let function = |id: &&str| FunctionInfo {
            id: (*id).into(),
            owner: "worker".into(),
            details: Details::default(),
        };
        let card = Card {
            functions: functions.iter().map(function).collect(),
            ..Card::default()
        };
        self.places.set(&other.id, card);
    }

    pub(super) fn ask(&self, id: &str, data: &str) -> impl Future<Output = CallResult> + use<> {
        let (reply, waiter) = ReplyTo::waiter();
        self.registry
            .invoke(&Call::from_server(id, data), "default", reply);
        waiter.answer()
    }
}

/// Answers with what it was called with, and who it is.
pub(super) fn echo(who: &'static str) -> impl Function {
    Immediate(move |call: &Call<'_>| {
        Ok(Output::Json(format!(
            r#"["{who}",{},{},"{}"]"#,
            call.data,
            call.metadata.unwrap_or("null"),
            call.caller.unwrap_or("-"),
        )))
    })
}

/// Answers nothing until it is told to.
#[derive(Clone, Default)]
pub(super) struct Holding(pub(super) Arc<Mutex<Vec<ReplyTo>>>);

impl Function for Holding {
    fn invoke(&self, _: &Call<'_>, reply: ReplyTo) {
        self.0.lock().push(reply);
    }
}

pub(super) fn code(result: &CallResult) -> String {
    match result {
        Ok(output) => panic!("{output:?} is no error"),
        Err(failure) => failure.code().into_owned(),
    }
}

pub(super) fn text(result: CallResult) -> String {
    match result {
        Ok(Output::Json(json)) => json,
        other => panic!("{other:?} is no value"),
    }
}

/// Lets everything happen that happens without a clock.
pub(super) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
