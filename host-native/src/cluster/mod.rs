//! What makes several instances one.

pub mod triggers;
