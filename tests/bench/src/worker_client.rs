//! One call at a time with every reply parsed: seeds the items and verifies them afterwards.

use std::io;
use std::net::SocketAddr;

use iii_stream::bench::caller::Caller;
use iii_stream::bench::stream_medium::STREAM;
use serde_json::{Value, json};

use crate::values::{GROUP, ITEMS, item_id, value};

/// A worker connection for plain calls.
pub(crate) struct WorkerClient(Caller);

impl WorkerClient {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Caller::at(address, None).map(Self)
    }

    /// Writes every item's value once, its counter at 0.
    pub(crate) fn seed(&mut self) -> io::Result<()> {
        for item in 0..ITEMS {
            let reply = self.on_item("stream::set", item, json!({ "data": value(item) }))?;
            if reply["new_value"] != value(item) {
                return Err(io::Error::other(format!("set of item {item} gave {reply}")));
            }
        }
        Ok(())
    }

    /// Checks that every item is as seeded but for its counter; answers the sum of the counters.
    pub(crate) fn verify(&mut self) -> io::Result<u64> {
        let mut sum = 0;
        for item in 0..ITEMS {
            let mut found = self.on_item("stream::get", item, json!({}))?;
            sum += found["n"].as_u64().unwrap_or_default();
            found["n"] = json!(0);
            if found != value(item) {
                return Err(io::Error::other(format!("item {item} holds {found}")));
            }
        }
        Ok(sum)
    }

    fn on_item(&mut self, function: &str, item: usize, mut data: Value) -> io::Result<Value> {
        data["stream_name"] = json!(STREAM);
        data["group_id"] = json!(GROUP);
        data["item_id"] = json!(item_id(item));
        self.0.call(function, &data.to_string())
    }
}
