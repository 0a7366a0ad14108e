//! The worker port: back-end processes register functions and triggers here, and call functions. Knows no stores
//! and no subscribers.

mod profile;
mod protocol;
mod remote;
mod session;
mod telemetry;
mod workers;

pub use profile::Profile;
pub use session::serve;
pub use telemetry::discard_telemetry;
pub use workers::{WorkerInfo, WorkerLimits, Workers};
