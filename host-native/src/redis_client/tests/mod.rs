//! The client against real servers.

mod cluster;
mod faults;
mod heard;
mod sentinel;
mod single;
