//! iii-stream's native host: a server for workers and subscribers around the core.
//!
//! Reading order, which is the way of one update: [`worker`] reads a call, [`engine`] finds the function, [`stream`]
//! reads its input, [`store`] carries it out with the core, [`feed`] takes the change, [`hub`] sends it to
//! [`subscriber`]s, and [`engine`]'s triggers call functions again. [`server`] puts all of them together.

pub mod admin;
pub mod auth;
pub mod bench;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod door;
pub mod engine;
pub mod feed;
pub mod hub;
pub mod introspection;
pub mod lifecycle;
pub mod metrics;
pub mod redis_client;
pub mod server;
pub mod socket;
pub mod state;
pub mod store;
pub mod stream;
pub mod subscriber;
pub mod transfer;
pub mod worker;
