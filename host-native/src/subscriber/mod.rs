//! The subscriber port: clients join groups and items here and see every change. Knows no values.

mod protocol;
mod session;
mod subscribers;
mod subscriptions;

pub use protocol::PathTarget;
pub use session::serve;
pub use subscribers::{Admission, SubscriberLimits, Subscribers};
