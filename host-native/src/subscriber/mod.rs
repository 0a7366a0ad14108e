//! The subscriber port: clients join groups and items here and see every change. Knows no values.

mod protocol;
mod session;

pub use session::{Admission, SubscriberLimits, Subscribers, serve};
