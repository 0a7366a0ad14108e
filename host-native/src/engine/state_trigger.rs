//! The trigger type `state`: calls functions when state changes. Takes changes from the state's own store, in order.
//! Source: stream functions, appendix.

use std::borrow::Cow;
use std::sync::Arc;

use iii_stream_core::event::state_input;
use iii_stream_core::fields::{FieldError, Fields};
use iii_stream_core::{Change, Demand, GroupKey, Json, Kind};
use parking_lot::RwLock;

use super::bound_list::BoundList;
use super::lane::{Lane, LaneContext};
use super::trigger::{BindError, Binding, TriggerType};
use crate::store::ChangeSink;

/// Bindings of the type `state`.
pub struct StateTriggers {
    context: LaneContext,
    bindings: RwLock<BoundList<(Filter, Lane)>>,
}

/// Which keys a binding is about.
struct Filter {
    scope: Option<String>,
    key: Option<String>,
    condition: Option<Arc<str>>,
}

impl Filter {
    /// Reads a binding's config. Shape: `{"scope"?, "key"?, "condition_function_id"?}` or `null`.
    fn read(config: &str) -> Result<Self, FieldError> {
        let config = if config == "null" { "{}" } else { config };
        let fields = Fields::read(config, &["scope", "key", "condition_function_id"])?;
        let text = |index| Ok(fields.optional_string(index)?.map(Cow::into_owned));
        Ok(Self {
            scope: text(0)?,
            key: text(1)?,
            condition: fields.optional_string(2)?.map(|id| id.as_ref().into()),
        })
    }

    fn matches(&self, scope: &str, key: &str) -> bool {
        self.scope.as_deref().is_none_or(|wanted| wanted == scope)
            && self.key.as_deref().is_none_or(|wanted| wanted == key)
    }
}

impl StateTriggers {
    /// No bindings yet.
    pub fn new(context: LaneContext) -> Self {
        Self {
            context,
            bindings: RwLock::default(),
        }
    }

    /// Tells that a key was deleted that was not there: the store sees no change in that.
    pub fn tell_deleted_missing(&self, scope: &str, key: &str) {
        self.tell(&Kind::Delete, scope, key, None, None);
    }

    fn tell(&self, kind: &Kind, scope: &str, key: &str, old: Option<&Json>, new: Option<&Json>) {
        let bindings = self.bindings.read();
        let mut matching = bindings
            .iter()
            .filter(|(filter, _)| filter.matches(scope, key))
            .peekable();
        if matching.peek().is_some() {
            let input: Arc<str> = state_input(kind, scope, key, old, new).into();
            matching.for_each(|(_, lane)| lane.push(input.clone()));
        }
    }
}

impl TriggerType for StateTriggers {
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError> {
        let filter = Filter::read(&binding.config).map_err(|error| BindError {
            message: format!("config of a state trigger: {error}"),
        })?;
        let lane = Lane::open(&self.context, binding, filter.condition.clone());
        self.bindings.write().insert(&binding.id, (filter, lane));
        Ok(())
    }

    fn unbind(&self, binding: &Arc<Binding>) {
        self.bindings.write().remove(&binding.id);
    }
}

impl ChangeSink for StateTriggers {
    /// Handlers are told both values.
    fn demand(&self, _: &GroupKey) -> Demand {
        Demand::Values
    }

    fn publish(&self, group: &GroupKey, change: Arc<Change>, old: Option<&Json>) {
        let Some(key) = &change.item else { return };
        let new = change
            .value
            .as_ref()
            .filter(|_| change.kind != Kind::Delete);
        self.tell(&change.kind, &group.group, key, old, new);
    }
}
