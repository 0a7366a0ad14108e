//! Channels: a pipe of text and bytes between two workers, beside their calls. Knows no streams. Source: worker protocol,
//! section 13.

mod ends;
mod table;

pub use ends::serve;
pub use table::{Channels, Direction, End, register};
