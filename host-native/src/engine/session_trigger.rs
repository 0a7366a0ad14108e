//! The trigger types `stream:join` and `stream:leave`: functions that guard subscriptions, and functions that learn of
//! their end. Know no sockets. Source: stream functions, section 9.2; product design, section 8.

use std::sync::Arc;

use futures_util::future::join_all;
use iii_stream_core::fields::{FieldError, Fields};
use parking_lot::RwLock;

use super::bound_list::BoundList;
use super::call::Output;
use super::lane::{Lane, LaneContext, call_handler, passes};
use super::trigger::{BindError, Binding, TriggerType};

/// Which subscriptions a binding is about.
struct Filter {
    stream: Option<String>,
    condition: Option<Arc<str>>,
}

impl Filter {
    /// Reads a binding's config. Shape: `{"stream_name"?, "condition_function_id"?}` or `null`.
    fn read(config: &str) -> Result<Self, FieldError> {
        if config == "null" {
            return Ok(Self {
                stream: None,
                condition: None,
            });
        }
        let fields = Fields::read(config, &["stream_name", "condition_function_id"])?;
        let stream = fields.optional_string(0)?.filter(|name| !name.is_empty());
        Ok(Self {
            stream: stream.map(std::borrow::Cow::into_owned),
            condition: fields.optional_string(1)?.map(|id| id.as_ref().into()),
        })
    }

    fn matches(&self, stream: &str) -> bool {
        self.stream.as_deref().is_none_or(|name| name == stream)
    }
}

fn read_filter(binding: &Binding) -> Result<Filter, BindError> {
    Filter::read(&binding.config).map_err(|error| BindError {
        message: format!("config of a {} trigger: {error}", binding.trigger_type),
    })
}

/// Bindings of the type `stream:join`. Their functions say whether a subscription may begin.
pub struct JoinTriggers {
    context: LaneContext,
    /// Whether a guard that fails denies, instead of letting in.
    deny_on_error: bool,
    guards: RwLock<BoundList<Arc<Guard>>>,
}

struct Guard {
    binding: Arc<Binding>,
    filter: Filter,
}

impl JoinTriggers {
    /// No guards yet. Each has the time of `context` to answer.
    pub fn new(context: LaneContext, deny_on_error: bool) -> Self {
        Self {
            context,
            deny_on_error,
            guards: RwLock::default(),
        }
    }

    /// Whether any guard is about this stream.
    pub fn is_guarded(&self, stream: &str) -> bool {
        self.guards
            .read()
            .iter()
            .any(|guard| guard.filter.matches(stream))
    }

    /// Asks all guards of a stream at once; each is called even if another one denies. Only `unauthorized: true` denies.
    pub async fn admits(&self, stream: &str, input: &str) -> bool {
        let guards: Vec<_> = self
            .guards
            .read()
            .iter()
            .filter(|guard| guard.filter.matches(stream))
            .cloned()
            .collect();
        let verdicts = join_all(guards.iter().map(|guard| self.ask(guard, input))).await;
        verdicts.into_iter().all(|admits| admits)
    }

    async fn ask(&self, guard: &Guard, input: &str) -> bool {
        if let Some(condition) = &guard.filter.condition
            && !passes(&self.context, &guard.binding, condition, input).await
        {
            // A guard that is skipped denies nothing.
            return true;
        }
        match call_handler(&self.context, &guard.binding, input).await {
            Ok(Output::Json(json)) => !denies(&json),
            Ok(Output::Nothing) => true,
            Err(_) => !self.deny_on_error,
        }
    }
}

fn denies(result: &str) -> bool {
    let unauthorized =
        Fields::read(result, &["unauthorized"]).map(|fields| fields.optional_bool(0));
    matches!(unauthorized, Ok(Ok(Some(true))))
}

impl TriggerType for JoinTriggers {
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError> {
        let filter = read_filter(binding)?;
        let guard = Guard {
            binding: binding.clone(),
            filter,
        };
        self.guards.write().insert(&binding.id, Arc::new(guard));
        Ok(())
    }

    fn unbind(&self, binding: &Arc<Binding>) {
        self.guards.write().remove(&binding.id);
    }
}

/// Bindings of the type `stream:leave`. Their functions learn of subscriptions that ended.
pub struct LeaveTriggers {
    context: LaneContext,
    listeners: RwLock<BoundList<(Filter, Lane)>>,
}

impl LeaveTriggers {
    /// No bindings yet.
    pub fn new(context: LaneContext) -> Self {
        Self {
            context,
            listeners: RwLock::default(),
        }
    }

    /// Tells that a subscription of a stream has ended. `input` is written only if somebody listens.
    pub fn tell(&self, stream: &str, input: impl FnOnce() -> String) {
        let listeners = self.listeners.read();
        let mut matching = listeners
            .iter()
            .filter(|(filter, _)| filter.matches(stream))
            .peekable();
        if matching.peek().is_some() {
            let input: Arc<str> = input().into();
            matching.for_each(|(_, lane)| lane.push(input.clone()));
        }
    }
}

impl TriggerType for LeaveTriggers {
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError> {
        let filter = read_filter(binding)?;
        let lane = Lane::open(&self.context, binding, filter.condition.clone());
        self.listeners.write().insert(&binding.id, (filter, lane));
        Ok(())
    }

    fn unbind(&self, binding: &Arc<Binding>) {
        self.listeners.write().remove(&binding.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_boolean_true_denies() {
        assert!(denies(r#"{"unauthorized":true}"#));
        for result in [
            "null",
            "{}",
            "true",
            "[]",
            r#"{"unauthorized":false}"#,
            r#"{"unauthorized":"true"}"#,
            r#"{"unauthorized":1}"#,
        ] {
            assert!(!denies(result), "{result}");
        }
    }

    #[test]
    fn a_config_may_be_absent_but_not_nonsense() {
        assert!(Filter::read("null").is_ok_and(|filter| filter.matches("any")));
        assert!(
            Filter::read(r#"{"stream_name":"a"}"#)
                .is_ok_and(|filter| filter.matches("a") && !filter.matches("b"))
        );
        assert!(Filter::read("[]").is_err());
        assert!(Filter::read(r#"{"stream_name":1}"#).is_err());
    }
}
