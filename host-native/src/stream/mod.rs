//! The stream service: one call from its input to its reply. Knows no sockets; the store and the feed do the rest.

mod access;
mod answer;
mod custom;
mod functions;
mod keeper;
mod turns;
mod unversioned;
mod verb;

pub use access::Access;
pub use answer::{answer, refused, unless_refused};
pub use custom::CustomStorage;
pub use functions::StreamFunctions;
pub use unversioned::{unless_meta_unsupported, unless_unsupported};
pub use verb::Verb;
