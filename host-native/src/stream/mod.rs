//! The stream service: one call from its input to its reply. Knows no sockets; the store and the feed do the rest.

mod custom;
mod functions;
mod turns;

pub use custom::CustomStorage;
pub use functions::{Verb, answer, refused, register, unless_refused};
