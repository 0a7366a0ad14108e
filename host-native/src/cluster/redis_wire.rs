//! The way of letters between instances: channels of Redis, one for each instance.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::calls::{Delivery, Wire};
use super::names::Names;
use crate::redis_client::{CallError, RedisClient, Slot};

/// See the module.
pub(super) struct RedisWire {
    pub(super) client: Arc<RedisClient>,
    pub(super) names: Names,
}

impl Wire for RedisWire {
    fn send<'a>(&'a self, to: &'a str, message: String) -> BoxFuture<'a, Delivery> {
        Box::pin(async move {
            let channel = self.names.letters(to);
            match self.client.publish(&channel, message.as_bytes()).await {
                Ok(0) => Delivery::Unheard,
                Ok(_) => Delivery::Heard,
                Err(CallError::Unavailable { .. }) => Delivery::Unavailable,
                Err(CallError::Unknown { .. }) => Delivery::Unknown,
                Err(CallError::Refused(error)) => {
                    tracing::error!(%error, "Redis does not let this instance publish what is for another one");
                    Delivery::Unavailable
                }
            }
        })
    }

    fn now_ms(&self, instance: &str) -> u64 {
        let name = self.names.letters(instance).name;
        self.client.now_ms(Slot::of(name.as_bytes()))
    }
}
