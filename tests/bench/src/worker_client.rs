//! One call at a time with every reply parsed: seeds the items and verifies them afterwards.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::frame::{self, TEXT};
use crate::values::{GROUP, ITEMS, item_id, value};
use crate::wire::unexpected;
use crate::worker_calls::STREAM;
use crate::worker_wire::upgrade;

/// A worker connection for plain calls.
pub(crate) struct WorkerClient {
    stream: TcpStream,
    input: Vec<u8>,
    calls: u64,
}

impl WorkerClient {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            stream: upgrade(address)?,
            input: Vec::new(),
            calls: 0,
        })
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
        self.call(function, &data)
    }

    /// Makes one call; answers its result, null when there is none.
    fn call(&mut self, function: &str, data: &Value) -> io::Result<Value> {
        self.calls += 1;
        let id = format!("00000000-0000-4000-9000-{:012x}", self.calls);
        let message = json!({
            "type": "invokefunction", "invocation_id": id, "function_id": function, "data": data,
        });
        let mut out = Vec::new();
        frame::encode(TEXT, message.to_string().as_bytes(), &mut out);
        self.stream.write_all(&out)?;
        loop {
            let text = self.message()?;
            let mut reply: Value = serde_json::from_slice(&text)
                .map_err(|error| unexpected(&error.to_string(), &text))?;
            if reply["invocation_id"] != *id {
                continue;
            }
            if !reply["error"].is_null() {
                return Err(unexpected("the call failed", &text));
            }
            return Ok(reply["result"].take());
        }
    }

    /// The payload of the next text message.
    fn message(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(frame) = frame::decode(&self.input) {
                let (opcode, payload, bytes) = (frame.opcode, frame.payload.to_vec(), frame.bytes);
                self.input.drain(..bytes);
                if opcode == TEXT {
                    return Ok(payload);
                }
                continue;
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::Error::other("the server ended the connection")),
                read => self.input.extend_from_slice(&chunk[..read]),
            }
        }
    }
}
