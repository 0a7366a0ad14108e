//! The replica for JavaScript: JSON text in, JSON text out. What each call does is told in the core.

use iii_stream_core::ReplicaError;
use wasm_bindgen::prelude::*;

use crate::error::coded_error;

/// What one client sees of what it follows, with its own pending mutations on top.
#[wasm_bindgen]
#[derive(Debug, Default)]
pub struct Replica {
    core: iii_stream_core::Replica,
}

/// The first number that a JavaScript number cannot tell from the next.
const INEXACT: f64 = 9_007_199_254_740_992.0;

#[wasm_bindgen]
impl Replica {
    /// One that follows nothing.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows a group, or one item of it. `subscription` is the subscription's id on the connection.
    ///
    /// # Errors
    /// `subscription_exists`, `invalid_name`.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "an optional string can cross the border by value only"
    )]
    pub fn open(
        &mut self,
        subscription: &str,
        stream: &str,
        group: &str,
        item: Option<String>,
    ) -> Result<(), JsValue> {
        let opened = self.core.open(subscription, stream, group, item.as_deref());
        opened.map_err(|error| thrown(&error))
    }

    /// Follows it no more.
    pub fn close(&mut self, subscription: &str) {
        self.core.close(subscription);
    }

    /// The text of the `join` message to send now; it asks for operations where these are shorter, unless `deltas` is false.
    ///
    /// # Errors
    /// `subscription_unknown`.
    pub fn join(&mut self, subscription: &str, deltas: Option<bool>) -> Result<String, JsValue> {
        self.core
            .join(subscription, deltas.unwrap_or(true))
            .map_err(|error| thrown(&error))
    }

    /// The connection is gone.
    pub fn disconnect(&mut self) {
        self.core.disconnect();
    }

    /// Takes a frame of the connection. Gives what must be heard of it beside what changed in items; `undefined` is nothing.
    ///
    /// # Errors
    /// `frame_invalid`.
    pub fn receive(&mut self, text: &str) -> Result<Option<String>, JsValue> {
        self.core.receive(text).map_err(|error| thrown(&error))
    }

    /// Shows a mutation at once. Gives what the server is expected to say.
    ///
    /// # Errors
    /// Those of the call where it can never be accepted; `function_not_found`, `mutation_invalid`, `mutation_exists`,
    /// `too_many_pending`.
    pub fn mutate(
        &mut self,
        client: &str,
        seq: f64,
        function_id: &str,
        data: &str,
    ) -> Result<String, JsValue> {
        let seq = integer(seq, "seq")?;
        let predicted = self.core.mutate(client, seq, function_id, data);
        predicted.map_err(|error| thrown(&error))
    }

    /// The server has taken a mutation. It stays shown until what is confirmed has come to `change_seq`.
    ///
    /// # Errors
    /// `mutation_invalid`, where a number is no sequence.
    pub fn acknowledge(
        &mut self,
        client: &str,
        seq: f64,
        change_seq: Option<f64>,
    ) -> Result<(), JsValue> {
        let seq = integer(seq, "seq")?;
        let change_seq = change_seq.map(|seq| integer(seq, "changeSeq"));
        self.core.acknowledge(client, seq, change_seq.transpose()?);
        Ok(())
    }

    /// A mutation will never take effect, or nobody can know: it is not shown any more.
    ///
    /// # Errors
    /// `mutation_invalid`, where `seq` is no sequence.
    pub fn withdraw(&mut self, client: &str, seq: f64) -> Result<(), JsValue> {
        self.core.withdraw(client, integer(seq, "seq")?);
        Ok(())
    }

    /// The subscriptions for which `changes` has something to tell.
    pub fn dirty(&self) -> Vec<String> {
        self.core.dirty().map(|name| name.as_ref().into()).collect()
    }

    /// What changed in what a subscription shows since this was asked last; all of it at first.
    ///
    /// # Errors
    /// `subscription_unknown`.
    pub fn changes(&mut self, subscription: &str) -> Result<String, JsValue> {
        let changes = self.core.changes(subscription);
        changes.map_err(|error| thrown(&error))
    }
}

fn thrown(error: &ReplicaError) -> JsValue {
    coded_error(error.code(), &error.to_string())
}

fn integer(number: f64, what: &str) -> Result<u64, JsValue> {
    if (0.0..INEXACT).contains(&number) && number.fract() == 0.0 {
        // It is a non-negative integer within the range.
        return Ok(number as u64);
    }
    // Without the number itself: its formatting would make the module larger than all of this file.
    let message = format!("`{what}` must be an integer from 0 to 2^53 - 1");
    Err(coded_error("mutation_invalid", &message))
}
