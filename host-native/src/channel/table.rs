//! Which channels there are, and which of their ends are still to be taken. Knows no sockets.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::fields::Fields;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::engine::{Call, CallResult, Failure, Immediate, Output, Registry};

/// Messages between the ends where the maker does not say how many.
const BUFFER_DEFAULT: usize = 64;

/// Most messages between the ends.
const BUFFER_MAX: u64 = 1_024;

/// Most bytes between the ends. A single message is always let through.
const BUFFER_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Channels at one time; one more is refused.
const CHANNELS_MAX: usize = 10_000;

/// A channel with an end that nobody has taken by then is removed.
const UNTAKEN_TIME_MAX: Duration = Duration::from_secs(5 * 60);

/// All channels.
#[derive(Default)]
pub struct Channels {
    table: Mutex<HashMap<String, Channel>>,
}

struct Channel {
    key: String,
    since: Instant,
    writer: Option<WriteEnd>,
    reader: Option<ReadEnd>,
}

/// Which end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Where messages come out.
    Read,
    /// Where messages go in.
    Write,
}

/// One end of a channel.
pub enum End {
    /// Where messages go in.
    Write(WriteEnd),
    /// Where messages come out.
    Read(ReadEnd),
    /// Somebody else has it.
    Taken,
}

/// Where messages go in. Dropping it ends the channel after the last message.
pub struct WriteEnd {
    messages: mpsc::Sender<(Message, OwnedSemaphorePermit)>,
    bytes: Arc<Semaphore>,
}

/// Where messages come out.
pub struct ReadEnd {
    messages: mpsc::Receiver<(Message, OwnedSemaphorePermit)>,
}

impl WriteEnd {
    /// Waits for room and puts a message in. Whether there is anybody to take it out.
    pub(super) async fn put(&self, message: Message) -> bool {
        let bytes = u32::try_from(message.len().min(BUFFER_BYTES_MAX)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let Ok(permit) = self.bytes.clone().acquire_many_owned(bytes).await else {
            return false;
        };
        self.messages.send((message, permit)).await.is_ok()
    }
}

impl ReadEnd {
    /// The next message, with its place among the bytes between the ends; `None` after the last one.
    pub(super) async fn take(&mut self) -> Option<(Message, OwnedSemaphorePermit)> {
        self.messages.recv().await
    }
}

impl Channels {
    fn make(&self, buffer: usize) -> Option<(String, String)> {
        let mut table = self.table.lock();
        if CHANNELS_MAX <= table.len() {
            return None;
        }
        let (sender, receiver) = mpsc::channel(buffer);
        let bytes = Arc::new(Semaphore::new(BUFFER_BYTES_MAX));
        let (id, key) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let channel = Channel {
            key: key.clone(),
            since: Instant::now(),
            writer: Some(WriteEnd {
                messages: sender,
                bytes,
            }),
            reader: Some(ReadEnd { messages: receiver }),
        };
        table.insert(id.clone(), channel);
        Some((id, key))
    }

    /// Removes channels with an end that nobody has taken in time, for as long as the process lives. Whoever waits at the
    /// other end is told by its end.
    pub async fn run_sweep(&self) {
        loop {
            tokio::time::sleep(UNTAKEN_TIME_MAX / 10).await;
            self.table.lock().retain(|_, channel| channel.is_of_use());
        }
    }

    /// Gives an end to whoever has the key. `None`: there is no such channel, or the key is another.
    pub fn take(&self, id: &str, key: &str, direction: Direction) -> Option<End> {
        let mut table = self.table.lock();
        let channel = table
            .get_mut(id)
            .filter(|channel| channel.key == key && channel.is_of_use())?;
        let end = match direction {
            Direction::Write => channel.writer.take().map(End::Write),
            Direction::Read => channel.reader.take().map(End::Read),
        };
        Some(end.unwrap_or(End::Taken))
    }
}

impl Channel {
    /// Whether both ends are taken, or may still be. A channel stays in the table while its ends live, so that a second
    /// taker is told apart from a stranger; the ends hold all that is large.
    fn is_of_use(&self) -> bool {
        self.since.elapsed() < UNTAKEN_TIME_MAX
    }
}

/// Registers `engine::channels::create`.
pub fn register(registry: &Registry, channels: &Arc<Channels>) {
    let channels = channels.clone();
    let create = move |call: &Call<'_>| create(&channels, call);
    registry.register_builtin("engine::channels::create", Arc::new(Immediate(create)));
}

/// Shape: `{buffer_size?}` → `{"writer":{"channel_id","access_key","direction":"write"},"reader":{…}}`.
fn create(channels: &Channels, call: &Call<'_>) -> CallResult {
    let invalid = |what: String| {
        Failure::new(
            "deserialization_error",
            &format!("{}: {what}", call.function_id),
        )
    };
    let data = if call.data == "null" { "{}" } else { call.data };
    let fields =
        Fields::read(data, &["buffer_size"]).map_err(|error| invalid(error.to_string()))?;
    let buffer = match fields
        .optional_u64(0)
        .map_err(|error| invalid(error.to_string()))?
    {
        None => BUFFER_DEFAULT,
        // Proof: at most `BUFFER_MAX`, which fits.
        Some(size) => size.clamp(1, BUFFER_MAX) as usize,
    };
    let Some((id, key)) = channels.make(buffer) else {
        return Err(Failure::new(
            "too_many_channels",
            &format!("there are {CHANNELS_MAX} channels, which is the limit"),
        ));
    };
    let mut out = String::from("{");
    for (name, direction) in [("writer", "write"), ("reader", "read")] {
        let comma = if out.len() == 1 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            r#"{comma}"{name}":{{"channel_id":"{id}","access_key":"{key}","direction":"{direction}"}}"#
        );
    }
    out.push('}');
    Ok(Output::Json(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_taken_once_by_whoever_has_the_key() {
        let channels = Channels::default();
        let (id, key) = channels.make(1).expect("a channel");
        assert!(channels.take(&id, "other", Direction::Read).is_none());
        assert!(channels.take("other", &key, Direction::Read).is_none());
        assert!(matches!(
            channels.take(&id, &key, Direction::Read),
            Some(End::Read(_))
        ));
        assert!(matches!(
            channels.take(&id, &key, Direction::Read),
            Some(End::Taken)
        ));
        assert!(matches!(
            channels.take(&id, &key, Direction::Write),
            Some(End::Write(_))
        ));
    }
}
