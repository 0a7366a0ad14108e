//! The two published SDK versions behind one trait, so that one checklist covers both.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;

pub type Handler = Arc<dyn Fn(Value) -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;
pub type Unregister = Box<dyn Fn() + Send + Sync>;

/// Why a call failed: the code and message of an error answer, or what the SDK itself says.
#[derive(Debug, PartialEq)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

pub trait Sdk: Clone + Send + Sync + 'static {
    fn connect(url: &str) -> Self;
    fn call(
        &self,
        function_id: &str,
        payload: Value,
    ) -> impl Future<Output = Result<Value, Failure>> + Send;
    fn void(&self, function_id: &str, payload: Value) -> impl Future<Output = ()> + Send;
    fn serve(&self, id: &str, handler: Handler);
    fn bind(&self, kind: &str, function_id: &str, config: Value) -> Unregister;
    /// Ends the connection and waits for its thread.
    fn shutdown(&self);

    fn stream(&self, verb: &str, payload: Value) -> impl Future<Output = Value> + Send {
        let id = format!("stream::{verb}");
        async move {
            self.call(&id, payload)
                .await
                .unwrap_or_else(|failure| panic!("{id}: {failure:?}"))
        }
    }

    /// Returns when the server has read all that was sent before: one connection is read in order.
    fn settled(&self) -> impl Future<Output = ()> + Send {
        async move { drop(self.stream("list_all", json!({})).await) }
    }
}

impl Sdk for iii_011::III {
    fn connect(url: &str) -> Self {
        let mut options = iii_011::InitOptions {
            otel: Some(Default::default()),
            ..Default::default()
        };
        // Telemetry is one per process, the servers are many.
        options.otel.as_mut().expect("just set").enabled = Some(false);
        iii_011::register_worker(url, options)
    }

    async fn call(&self, function_id: &str, payload: Value) -> Result<Value, Failure> {
        let request = iii_011::TriggerRequest {
            function_id: function_id.to_owned(),
            payload,
            action: None,
            timeout_ms: Some(15_000),
        };
        self.trigger(request).await.map_err(|error| match error {
            iii_011::IIIError::Remote { code, message, .. } => Failure { code, message },
            other => Failure {
                code: "sdk".to_owned(),
                message: other.to_string(),
            },
        })
    }

    async fn void(&self, function_id: &str, payload: Value) {
        let action = Some(iii_011::TriggerAction::Void);
        let request = iii_011::TriggerRequest {
            function_id: function_id.to_owned(),
            payload,
            action,
            timeout_ms: None,
        };
        assert_eq!(
            self.trigger(request)
                .await
                .expect("a void call is only sent"),
            Value::Null
        );
    }

    fn serve(&self, id: &str, handler: Handler) {
        self.register_function(iii_011::RegisterFunction::new_async(
            id,
            move |input: Value| handler(input),
        ));
    }

    fn bind(&self, kind: &str, function_id: &str, config: Value) -> Unregister {
        let input = iii_011::RegisterTriggerInput {
            trigger_type: kind.to_owned(),
            function_id: function_id.to_owned(),
            config,
            metadata: None,
        };
        let trigger = self.register_trigger(input).expect("the trigger is sent");
        Box::new(move || trigger.unregister())
    }

    fn shutdown(&self) {
        iii_011::III::shutdown(self);
    }
}

impl Sdk for iii_025::IIIClient {
    fn connect(url: &str) -> Self {
        let mut options = iii_025::InitOptions {
            otel: Some(Default::default()),
            ..Default::default()
        };
        options.otel.as_mut().expect("just set").enabled = Some(false);
        iii_025::register_worker(url, options)
    }

    async fn call(&self, function_id: &str, payload: Value) -> Result<Value, Failure> {
        let request = iii_025::protocol::TriggerRequest {
            timeout_ms: Some(15_000),
            ..iii_025::protocol::TriggerRequest::new(function_id, payload)
        };
        self.trigger(request).await.map_err(|error| match error {
            iii_025::Error::Remote { code, message, .. } => Failure { code, message },
            other => Failure {
                code: "sdk".to_owned(),
                message: other.to_string(),
            },
        })
    }

    async fn void(&self, function_id: &str, payload: Value) {
        let action = Some(iii_025::TriggerAction::Void);
        let request = iii_025::protocol::TriggerRequest {
            action,
            ..iii_025::protocol::TriggerRequest::new(function_id, payload)
        };
        assert_eq!(
            self.trigger(request)
                .await
                .expect("a void call is only sent"),
            Value::Null
        );
    }

    fn serve(&self, id: &str, handler: Handler) {
        let registration = iii_025::RegisterFunction::new_async(move |input: Value| {
            let answer = handler(input);
            async move { answer.await.map_err(iii_025::Error::from) }
        });
        self.register_function(id, registration);
    }

    // Deprecated in 0.25 and gone in 0.26; workers in the field still use it.
    #[allow(deprecated)]
    fn bind(&self, kind: &str, function_id: &str, config: Value) -> Unregister {
        let trigger = self
            .register_trigger(iii_025::protocol::RegisterTriggerInput::new(
                kind,
                function_id,
                config,
            ))
            .expect("the trigger is sent");
        Box::new(move || trigger.unregister())
    }

    fn shutdown(&self) {
        iii_025::IIIClient::shutdown(self);
    }
}
