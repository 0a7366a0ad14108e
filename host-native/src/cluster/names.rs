//! What the keys and channels of the cluster are called in Redis. Source: the Redis layout, section 2.

use crate::redis_client::{Channel, Slot};

/// Names of keys and channels, all with the same prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// Hash: instance → its last heartbeat.
    pub(super) fn instances(&self) -> String {
        format!("{}instances", self.prefix)
    }

    /// String: the card of an instance.
    pub(super) fn card(&self, instance: &str) -> String {
        format!("{}instance:{instance}", self.prefix)
    }

    /// What all instances have to know at once.
    pub(super) fn news(&self) -> Channel {
        Channel {
            name: format!("{}cluster", self.prefix).into(),
            slot: None,
        }
    }

    /// What is for one instance. In its slot, so that a server knows whether the instance listens.
    pub(super) fn letters(&self, instance: &str) -> Channel {
        let name = format!("{}to:{instance}", self.prefix);
        let slot = Slot::of(name.as_bytes());
        Channel {
            name: name.into(),
            slot: Some(slot),
        }
    }
}
