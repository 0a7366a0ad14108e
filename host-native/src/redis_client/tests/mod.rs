//! The client against real servers.

mod faults;
mod heard;
mod single;
