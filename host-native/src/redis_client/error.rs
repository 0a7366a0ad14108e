//! How a call to Redis, and the start with it, can fail.

use std::sync::Arc;

use thiserror::Error;

use super::refusals::in_words;

/// Why a call has no answer. The three cases are apart because a caller may send again only what was not carried out.
#[derive(Clone, Debug, Error)]
pub enum CallError {
    /// Surely not carried out: nothing was sent, or the server could not take it in time.
    #[error("Redis at {node} is not available: {why}")]
    Unavailable {
        /// The server that was asked for, as `host:port`.
        node: Arc<str>,
        /// What is wrong there.
        why: Arc<str>,
    },
    /// Sent, but no answer came: it may have been carried out or not.
    #[error(
        "Redis at {node} did not answer ({why}): the command may or may not have been carried out"
    )]
    Unknown {
        /// The server that it was sent to, as `host:port`.
        node: Arc<str>,
        /// What happened to the answer.
        why: Arc<str>,
    },
    /// The server answered with an error.
    #[error("Redis refused the command: {}", in_words(.0))]
    Refused(redis::RedisError),
}

/// Why Redis cannot be used at start. One line that names the server and what to do.
#[derive(Clone, Debug, Error)]
pub enum RedisStartError {
    /// The address is not one.
    #[error("`redis_url` is `{url}`, which cannot be used: {problem}")]
    Url {
        /// The address without user and password.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No server answers there.
    #[error("Redis at {node} cannot be reached within {time_max_ms} ms: {why}")]
    Unreachable {
        /// As `host:port`.
        node: Arc<str>,
        /// How long was tried.
        time_max_ms: u64,
        /// What happened last.
        why: Arc<str>,
    },
    /// A server answers, but not to us.
    #[error("Redis at {node} refuses us: {why}")]
    Refused {
        /// As `host:port`.
        node: Arc<str>,
        /// What it says, and what to do.
        why: Arc<str>,
    },
    /// Our user may not do what is needed.
    #[error(
        "Redis at {node} does not allow our user what is needed: {what}; allow the user of `redis_url` the keys and channels of `{prefix}` and these commands: ACL SETUSER USER ~{prefix}* &{prefix}* +@all -@admin -@dangerous +info"
    )]
    Forbidden {
        /// As `host:port`.
        node: Arc<str>,
        /// What the keys and channels begin with.
        prefix: String,
        /// Which commands, with what the server says.
        what: String,
    },
    /// The server lacks what is needed.
    #[error("Redis at {node} is version {version}; version 7.0 or newer is needed")]
    TooOld {
        /// As `host:port`.
        node: Arc<str>,
        /// What it runs.
        version: String,
    },
}
