//! Why a replica does not do what it is asked, with stable codes.

use alloc::string::String;

use crate::error::CallError;
use crate::limits::{MUTATION_CLIENT_BYTES_MAX, NAME_BYTES_MAX};
use crate::limits::{REPLICA_PENDING_MAX, SUBSCRIPTION_ID_BYTES_MAX};

/// Why a replica does not do what it is asked. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// A subscription of this name is open.
    #[error("a subscription `{name}` is open already")]
    SubscriptionExists {
        /// The name.
        name: String,
    },
    /// No subscription of this name is open.
    #[error("no subscription `{name}` is open")]
    SubscriptionUnknown {
        /// The name.
        name: String,
    },
    /// The name of a subscription is empty or too long.
    #[error(
        "the subscription's name has {bytes} bytes, it may have 1 to {SUBSCRIPTION_ID_BYTES_MAX}"
    )]
    SubscriptionName {
        /// Its length in bytes of UTF-8.
        bytes: usize,
    },
    /// The name of a stream, a group or an item is empty or too long.
    #[error("the {what}'s name has {bytes} bytes, a name has 1 to {NAME_BYTES_MAX}")]
    Name {
        /// Which of them.
        what: &'static str,
        /// Its length in bytes of UTF-8.
        bytes: usize,
    },
    /// A frame cannot be read.
    #[error("the frame cannot be read: {reason}")]
    Frame {
        /// What is wrong with it.
        reason: String,
    },
    /// The server would refuse the call.
    #[error("{0}")]
    Call(#[from] CallError),
    /// The function is none that can be a mutation.
    #[error("`{function_id}` is not stream::set, stream::update, stream::delete or stream::send")]
    Function {
        /// The function's id.
        function_id: String,
    },
    /// The name of a mutation's client is empty or too long.
    #[error("the client's name has {bytes} bytes, allowed are 1 to {MUTATION_CLIENT_BYTES_MAX}")]
    Client {
        /// Its length in bytes of UTF-8.
        bytes: usize,
    },
    /// A client makes mutations in one group only: it counts them there.
    #[error("this client's mutations are of another group")]
    ClientElsewhere,
    /// A mutation is numbered 0.
    #[error("the mutation's seq is 0, the first mutation of a client is 1")]
    MutationZero,
    /// The client's mutation of this number is pending.
    #[error("the client's mutation {seq} is pending already")]
    MutationExists {
        /// The number.
        seq: u64,
    },
    /// As many mutations are pending as may be.
    #[error("{REPLICA_PENDING_MAX} mutations are pending, which is the limit")]
    TooManyPending,
}

impl ReplicaError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SubscriptionExists { .. } => "subscription_exists",
            Self::SubscriptionUnknown { .. } => "subscription_unknown",
            Self::SubscriptionName { .. } | Self::Name { .. } => "invalid_name",
            Self::Frame { .. } => "frame_invalid",
            Self::Call(error) => error.code(),
            Self::Function { .. } => "function_not_found",
            Self::Client { .. } | Self::ClientElsewhere | Self::MutationZero => "mutation_invalid",
            Self::MutationExists { .. } => "mutation_exists",
            Self::TooManyPending => "too_many_pending",
        }
    }
}
