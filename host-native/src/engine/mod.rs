//! Functions and triggers by name: who can be called, and what calls them. Knows no sockets and no stores.

mod call;
mod lane;
mod registry;
mod stream_trigger;
mod trigger;

pub use call::{Answer, Call, CallResult, Failure, Function, Output, ReplyTo, Waiter};
pub use lane::LaneContext;
pub use registry::{Conflict, Details, OwnerId, Registry};
pub use stream_trigger::StreamTriggers;
pub use trigger::{BindError, Binding, TriggerType, Triggers};
