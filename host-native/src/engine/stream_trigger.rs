//! The trigger type `stream`: calls functions when items change. Follows the feed; knows no sockets and no stores.
//! Source: stream functions, section 9.1.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use iii_stream_core::event::{trigger_input, wants};
use iii_stream_core::fields::{FieldError, Fields};
use iii_stream_core::{Change, GroupKey, GroupRef, Kind, Position};
use parking_lot::RwLock;

use super::bound_list::BoundList;
use super::lane::{Lane, LaneContext};
use super::trigger::{BindError, Binding, TriggerType};
use crate::feed::{Follower, Interest};

/// Bindings of the type `stream`, by the stream they are about.
pub struct StreamTriggers {
    context: LaneContext,
    by_stream: RwLock<HashMap<Arc<str>, BoundList<Filtered>>>,
}

/// One binding: what it is about, and the way to its function.
struct Filtered {
    filter: StreamFilter,
    lane: Lane,
}

/// Which changes a binding is about.
pub(crate) struct StreamFilter {
    pub(crate) stream: Arc<str>,
    group: Option<String>,
    item: Option<String>,
    pub(crate) condition: Option<Arc<str>>,
    /// Whether `stream::send` counts too.
    include_events: bool,
}

impl StreamFilter {
    /// Reads a binding's config. Shape: `{"stream_name", "group_id"?, "item_id"?, "condition_function_id"?,
    /// "include_events"?}`; an empty group or item is any.
    ///
    /// Errors: [`BindError`].
    pub(crate) fn read(config: &str) -> Result<Self, BindError> {
        Self::read_fields(config).map_err(|error| BindError {
            message: format!("config of a stream trigger: {error}"),
        })
    }

    fn read_fields(config: &str) -> Result<Self, FieldError> {
        let fields = Fields::read(
            config,
            &[
                "stream_name",
                "group_id",
                "item_id",
                "condition_function_id",
                "include_events",
            ],
        )?;
        let stream = fields
            .optional_string(0)?
            .filter(|name| !name.is_empty())
            .ok_or(FieldError::Missing {
                field: "stream_name",
            })?;
        let any_if_empty =
            |text: Option<Cow<'_, str>>| text.filter(|text| !text.is_empty()).map(Cow::into_owned);
        Ok(Self {
            stream: stream.as_ref().into(),
            group: any_if_empty(fields.optional_string(1)?),
            item: any_if_empty(fields.optional_string(2)?),
            condition: fields.optional_string(3)?.map(|id| id.as_ref().into()),
            include_events: fields.optional_bool(4)?.unwrap_or(false),
        })
    }

    /// Whether a change of a group of the stream is among them.
    pub(crate) fn matches(&self, group: &str, change: &Change) -> bool {
        let is_event = matches!(change.kind, Kind::Event { .. });
        (self.include_events || !is_event)
            && self.group.as_deref().is_none_or(|id| id == group)
            && (self.item.is_none() || wants(self.item.as_deref(), change))
    }
}

impl StreamTriggers {
    /// No bindings yet.
    pub fn new(context: LaneContext) -> Self {
        Self {
            context,
            by_stream: RwLock::default(),
        }
    }
}

impl TriggerType for StreamTriggers {
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError> {
        let filter = StreamFilter::read(&binding.config)?;
        let stream = filter.stream.clone();
        let lane = Lane::open(&self.context, binding, filter.condition.clone());
        let bound = Filtered { filter, lane };
        self.by_stream
            .write()
            .entry(stream)
            .or_default()
            .insert(&binding.id, bound);
        Ok(())
    }

    fn unbind(&self, binding: &Arc<Binding>) {
        // A config that could be read once can be read again.
        let Ok(StreamFilter { stream, .. }) = StreamFilter::read(&binding.config) else {
            return;
        };
        let mut by_stream = self.by_stream.write();
        if let Some(bindings) = by_stream.get_mut(&stream) {
            bindings.remove(&binding.id);
            if bindings.is_empty() {
                by_stream.remove(&stream);
            }
        }
    }
}

impl Follower for StreamTriggers {
    fn interest(&self, group: GroupRef<'_>) -> Interest {
        if self.has(group.stream) {
            Interest::Values
        } else {
            Interest::None
        }
    }

    fn deliver<'a>(&'a self, group: &'a GroupKey, changes: &'a [Arc<Change>]) -> BoxFuture<'a, ()> {
        self.call(group, changes);
        Box::pin(std::future::ready(()))
    }

    fn missed(&self, group: &GroupKey, _events: bool) {
        tracing::error!(stream = %group.stream, group = %group.group, "stream triggers missed changes: the group's feed was full (feed_pending_max)");
    }

    fn restarted(&self, _group: &GroupKey, _at: &Position) {
        // They are called for changes alone, and keep no state that could be of another history.
    }
}

impl StreamTriggers {
    fn has(&self, stream: &str) -> bool {
        self.by_stream.read().contains_key(stream)
    }

    /// Calls the functions whose triggers match, in order.
    fn call(&self, group: &GroupKey, changes: &[Arc<Change>]) {
        let bindings = self.by_stream.read();
        let Some(bindings) = bindings.get(&group.stream) else {
            return;
        };
        for change in changes {
            // The input is written once for all bindings that match.
            let mut input: Option<Arc<str>> = None;
            for bound in bindings
                .iter()
                .filter(|bound| bound.filter.matches(&group.group, change))
            {
                if input.is_none() {
                    input = trigger_input(group.as_ref(), change).map(Arc::from);
                }
                match &input {
                    Some(input) => bound.lane.push(input.clone()),
                    // The change was made just before the trigger was bound.
                    None => break,
                }
            }
        }
    }
}
