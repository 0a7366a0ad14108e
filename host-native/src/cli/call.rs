//! `iii-stream call`: calls one function as a worker would and prints its result.

use futures_util::{SinkExt, StreamExt};
use iii_stream_core::fields::{Fields, string_of};
use iii_stream_core::raw::Raw;
use iii_stream_core::text::push_string;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::{Failure, socket_client};

pub(super) async fn run(url: &str, function: &str, data: &str) -> Result<(), Failure> {
    let data: &RawValue = serde_json::from_str(data)
        .map_err(|error| format!("the input is not JSON: {error}: {data}"))?;
    let mut socket = socket_client::connect(url).await?;
    let id = Uuid::new_v4().to_string();
    let mut frame = format!(r#"{{"type":"invokefunction","invocation_id":"{id}","function_id":"#);
    push_string(&mut frame, function);
    frame.push_str(r#","data":"#);
    frame.push_str(data.get());
    frame.push('}');
    socket.send(Message::text(frame)).await?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else {
            continue;
        };
        let fields = Fields::read(&text, &["invocation_id", "result", "error"])?;
        if fields.optional_string(0)?.as_deref() != Some(&id) {
            continue;
        }
        // The answer is here; a server that closes badly changes nothing.
        let _ = socket.close(None).await;
        if let Some(error) = fields.optional(2) {
            return Err(error_text(error).into());
        }
        match fields.raw(1) {
            Some(result) => println!("{}", result.get()),
            None => println!("(no value)"),
        }
        return Ok(());
    }
    Err("the connection ended before the call was answered".into())
}

/// The code and the message of an error answer.
pub(super) fn error_text(error: Raw<'_>) -> String {
    let read = || {
        let fields = Fields::read(error.get(), &["code", "message"]).ok()?;
        Some(format!(
            "{}: {}",
            string_of(fields.raw(0)?)?,
            string_of(fields.raw(1)?)?
        ))
    };
    read().unwrap_or_else(|| error.get().to_owned())
}
