//! The subscriber port: clients join groups and items here and see every change, over WebSocket, server-sent events or plain
//! HTTP. Knows no values.

mod address;
mod calls;
mod event_stream;
mod http;
mod opening;
mod protocol;
mod session;
mod subscribers;
mod subscriptions;

pub use address::{PathTarget, Query};
pub use event_stream::{event_stream, wants_event_stream};
pub use http::{ResponseBody, snapshot};
pub use protocol::Asks;
pub use session::serve;
pub use subscribers::{Admission, SubscriberLimits, Subscribers};
