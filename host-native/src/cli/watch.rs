//! `iii-stream watch`: subscribes to a group or an item and prints what happens.

use std::io::Write;

use futures_util::StreamExt;
use iii_stream_core::fields::Fields;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_tungstenite::tungstenite::Message;

use super::{Failure, socket_client};

pub(super) async fn run(
    url: &str,
    stream: &str,
    group: &str,
    item: Option<&str>,
    json: bool,
) -> Result<(), Failure> {
    let encoded = |name: &str| utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
    let mut address = format!(
        "{}/stream/{}/{}",
        url.trim_end_matches('/'),
        encoded(stream),
        encoded(group)
    );
    if let Some(item) = item {
        address.push('/');
        address.push_str(&encoded(item));
    }
    let mut socket = socket_client::connect(&address).await?;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) => {
                let line = if json {
                    text.to_string()
                } else {
                    describe(&text)
                };
                // Whoever reads may have gone, as with `| head`.
                if writeln!(std::io::stdout(), "{line}").is_err() {
                    return Ok(());
                }
            }
            Message::Close(Some(frame)) => {
                return Err(format!(
                    "the server closed the connection: {} {}",
                    frame.code, frame.reason
                )
                .into());
            }
            _ => {}
        }
    }
    Err("the connection ended".into())
}

/// One line for people: the sequence, what happened, to which item, and the value.
fn describe(frame: &str) -> String {
    let read = || {
        let fields = Fields::read(frame, &["id", "seq", "event"]).ok()?;
        let id = fields.optional_string(0).ok()?.unwrap_or("*".into());
        let seq = fields.raw(1).map_or("-", |raw| raw.get());
        let event = Fields::read(fields.raw(2)?.get(), &["type", "data", "event"]).ok()?;
        let value = event.raw(1).or(event.raw(2)).map_or("", |raw| raw.get());
        Some(format!(
            "{seq:>6}  {:<12}  {id}  {value}",
            event.string(0).ok()?
        ))
    };
    read().unwrap_or_else(|| frame.to_owned())
}
