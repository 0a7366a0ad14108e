//! Functions and triggers by name: who can be called, and what calls them. Knows no sockets and no stores.

mod bound_list;
mod call;
mod elsewhere;
mod gate;
mod lane;
mod notice;
mod registry;
mod session_trigger;
mod stand_ins;
mod state_trigger;
mod stream_trigger;
mod trigger;

pub(crate) use bound_list::BoundList;
pub use call::{
    Answer, Call, CallResult, Failure, Function, Immediate, OnAnswer, Output, ReplyTo, Waiter,
};
pub use elsewhere::Elsewhere;
pub(crate) use gate::{Gate, Ticket};
pub(crate) use lane::Lane;
pub use lane::{LaneContext, Waiting};
pub use notice::Notices;
pub(crate) use registry::is_custom_storage;
pub use registry::{Conflict, Details, FunctionInfo, OwnerId, Registry};
pub use session_trigger::{JoinTriggers, LeaveTriggers};
pub use stand_ins::Identity;
pub use state_trigger::StateTriggers;
pub(crate) use stream_trigger::StreamFilter;
pub use stream_trigger::StreamTriggers;
pub use trigger::{BindError, Binding, TriggerType, Triggers, TypeInfo};
