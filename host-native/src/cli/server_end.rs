//! A running server as an end of a move: asks its worker port for everything, or sets items through it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use iii_stream_core::Json;
use iii_stream_core::fields::Fields;
use iii_stream_core::raw::Raw;
use iii_stream_core::text::{push_number, push_string};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use super::Failure;
use super::call::error_text;
use super::socket_client::{self, Socket};
use crate::transfer::entry::{
    Entry, ITEM_BYTES_MAX, ItemSink, ItemSource, Origin, Place, Refused, SinkError, SourceError,
};

/// Calls that wait for their answer at a time.
const CALLS_MAX: usize = 256;

/// Once so many calls wait, answers are taken until so few do: calls go out in bunches, which costs less.
const CALLS_LOW: usize = 128;

/// Bytes of the calls that wait for their answer, about: what a server may have to hold for it.
const CALL_BYTES_MAX: usize = 32 << 20;

/// The address of a worker port, as `127.0.0.1:49134` or as `ws://…`.
pub(super) fn url(address: &str) -> String {
    if address.contains("://") {
        return address.to_owned();
    }
    format!("ws://{address}")
}

/// A connection as a worker.
struct Client {
    runtime: Handle,
    sender: SplitSink<Socket, Message>,
    /// Answers as they come, and at last why no more will. They are at most as many as the calls that wait.
    answers: mpsc::UnboundedReceiver<Result<Answer, String>>,
    url: String,
    next_id: u64,
}

/// What a server has, group by group. Each group is as it was at one moment, different ones at different moments.
pub(super) struct ServerSource {
    client: Client,
    asked: VecDeque<Asked>,
    listed: VecDeque<Entry>,
    origin: Origin,
    bytes_read: u64,
}

/// What is to be listed.
enum Asked {
    Group { stream: Arc<str>, group: Arc<str> },
    Scope(Arc<str>),
}

/// Sets items in a server, many at a time.
pub(super) struct ServerSink {
    client: Client,
    waiting: HashMap<u64, Waiting>,
    waiting_bytes: usize,
    /// How many items the server has confirmed.
    confirmed: u64,
}

struct Waiting {
    place: Place,
    origin: Origin,
    bytes: usize,
}

/// An answer to a call.
struct Answer {
    id: u64,
    /// The result as JSON text; `null` where there is none.
    result: Result<String, String>,
}

impl Client {
    fn connect(runtime: &Handle, url: &str) -> Result<Self, Failure> {
        let socket = runtime.block_on(socket_client::connect(url))?;
        let (sender, receiver) = socket.split();
        let (answered, answers) = mpsc::unbounded_channel();
        // Reads all the time, so that pings are answered while nobody waits for a call: a source may be slow.
        runtime.spawn(read_answers(receiver, answered, url.to_owned()));
        Ok(Self {
            runtime: runtime.clone(),
            sender,
            answers,
            url: url.to_owned(),
            next_id: 0,
        })
    }

    /// The frame of the next call, and its number. `data` is JSON text.
    fn frame(&mut self, function: &str, data: &str) -> (u64, String) {
        self.next_id += 1;
        let id = self.next_id;
        let mut frame = String::with_capacity(data.len() + 160);
        // A version 4 UUID whose end is the number of the call.
        frame.push_str(&format!(
            r#"{{"type":"invokefunction","invocation_id":"00000000-0000-4000-8000-{id:012x}","function_id":"{function}","data":"#
        ));
        frame.push_str(data);
        frame.push('}');
        (id, frame)
    }

    /// The next answer.
    async fn answer(&mut self) -> Result<Answer, String> {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => Err(closed(&self.url)),
        }
    }

    /// Calls and waits for the answer.
    fn call(&mut self, function: &str, data: &str) -> Result<Result<String, String>, String> {
        let (id, frame) = self.frame(function, data);
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            let sent = self.sender.send(Message::text(frame)).await;
            sent.map_err(|error| broke(&self.url, &error))?;
            loop {
                let answer = self.answer().await?;
                if answer.id == id {
                    return Ok(answer.result);
                }
            }
        })
    }

    /// The same for calls without which nothing can go on.
    fn must_call<T: for<'de> Deserialize<'de>>(&mut self, function: &str) -> Result<T, String> {
        let result = self.call(function, "{}")?;
        let text = result.map_err(|error| format!("{} refused {function}: {error}", self.url))?;
        serde_json::from_str(&text)
            .map_err(|error| format!("{} answers {function} otherwise: {error}", self.url))
    }
}

/// Passes answers on until the connection ends or nobody wants them.
async fn read_answers(
    mut receiver: SplitStream<Socket>,
    answered: mpsc::UnboundedSender<Result<Answer, String>>,
    url: String,
) {
    loop {
        let answer = read_answer(&mut receiver, &url).await;
        let is_over = answer.is_err();
        if answered.send(answer).is_err() || is_over {
            return;
        }
    }
}

/// Takes what the server says until it answers a call.
async fn read_answer(receiver: &mut SplitStream<Socket>, url: &str) -> Result<Answer, String> {
    loop {
        let message = match receiver.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(broke(url, &error)),
            None => return Err(closed(url)),
        };
        let text = match message {
            Message::Text(text) => text,
            Message::Close(Some(frame)) => {
                return Err(format!("{}: {} {}", closed(url), frame.code, frame.reason));
            }
            _ => continue,
        };
        let fields = Fields::read(&text, &["invocation_id", "result", "error"])
            .map_err(|error| format!("{url} does not answer as a worker port: {error}"))?;
        let id = fields
            .optional_string(0)
            .ok()
            .flatten()
            .and_then(|id| u64::from_str_radix(id.rsplit('-').next()?, 16).ok());
        let Some(id) = id else {
            continue;
        };
        let result = match fields.optional(2) {
            Some(error) => Err(error_text(error)),
            None => Ok(fields.raw(1).map_or("null", Raw::get).to_owned()),
        };
        return Ok(Answer { id, result });
    }
}

fn broke(url: &str, error: &WebSocketError) -> String {
    format!("the connection to {url} broke: {error}")
}

fn closed(url: &str) -> String {
    format!("{url} closed the connection")
}

#[derive(Deserialize)]
struct Streams {
    stream: Vec<StreamGroups>,
}

#[derive(Deserialize)]
struct StreamGroups {
    id: String,
    groups: Vec<String>,
}

#[derive(Deserialize)]
struct Scopes {
    groups: Vec<String>,
}

/// What a list with `meta` has of an item or of a key of the state.
#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(alias = "key")]
    id: String,
    #[serde(borrow)]
    value: &'a RawValue,
    // Asked for so that a list of mere values, which could look alike, is not taken for this.
    #[serde(rename = "seq")]
    _seq: u64,
    ttl_ms: Option<u64>,
    expires_ms: Option<u64>,
}

impl ServerSource {
    /// Connects and asks what there is: only these streams, or all and the state if none is named.
    pub(super) fn connect(
        runtime: &Handle,
        url: &str,
        streams: &[String],
    ) -> Result<Self, Failure> {
        let mut client = Client::connect(runtime, url)?;
        let all: Streams = client.must_call("stream::list_all")?;
        let mut asked = VecDeque::new();
        let is_asked = |id: &String| streams.is_empty() || streams.contains(id);
        for missing in streams {
            if !all.stream.iter().any(|stream| stream.id == *missing) {
                return Err(format!("there is no stream `{missing}` at {url}").into());
            }
        }
        for stream in all.stream.iter().filter(|stream| is_asked(&stream.id)) {
            let name: Arc<str> = stream.id.as_str().into();
            asked.extend(stream.groups.iter().map(|group| Asked::Group {
                stream: name.clone(),
                group: group.as_str().into(),
            }));
        }
        if streams.is_empty() {
            let scopes: Scopes = client.must_call("state::list_groups")?;
            let scopes = scopes.groups.iter();
            asked.extend(scopes.map(|scope| Asked::Scope(scope.as_str().into())));
        }
        Ok(Self {
            client,
            asked,
            listed: VecDeque::new(),
            origin: Origin::Named("".into()),
            bytes_read: 0,
        })
    }

    /// Asks for a group or a scope. A group that cannot be had is damage; the others can.
    fn list(&mut self, asked: &Asked) -> Result<(), SourceError> {
        let mut data = String::from("{");
        let function = match asked {
            Asked::Group { stream, group } => {
                data.push_str(r#""stream_name":"#);
                push_string(&mut data, stream);
                data.push_str(r#","group_id":"#);
                push_string(&mut data, group);
                self.origin = Origin::Named(format!("stream `{stream}`, group `{group}`").into());
                "stream::list"
            }
            Asked::Scope(scope) => {
                data.push_str(r#""scope":"#);
                push_string(&mut data, scope);
                self.origin = Origin::Named(format!("state, scope `{scope}`").into());
                "state::list"
            }
        };
        data.push_str(r#","meta":true}"#);
        let called = self.client.call(function, &data);
        let damaged = |reason| SourceError::Damaged {
            origin: self.origin.clone(),
            reason,
        };
        let text = called.map_err(SourceError::Server)?.map_err(damaged)?;
        let items: Vec<Listed<'_>> = serde_json::from_str(&text).map_err(|_| {
            damaged(
                "the server does not tell the ids of items: only iii-stream does, since version 0.1"
                    .to_owned(),
            )
        })?;
        for item in items {
            let value = Json::from_raw(item.value).map_err(|error| damaged(error.to_string()))?;
            let place = match asked {
                Asked::Group { stream, group } => Place::Stream {
                    stream: stream.clone(),
                    group: group.clone(),
                    item: item.id,
                },
                Asked::Scope(scope) => Place::State {
                    scope: scope.clone(),
                    key: item.id,
                },
            };
            self.listed.push_back(Entry {
                place,
                value,
                ttl_ms: item.ttl_ms,
                expires_ms: item.expires_ms,
            });
        }
        // A length in memory fits.
        self.bytes_read += text.len() as u64;
        Ok(())
    }
}

impl ItemSource for ServerSource {
    fn next_item(&mut self) -> Result<Option<(Entry, Origin)>, SourceError> {
        loop {
            if let Some(entry) = self.listed.pop_front() {
                return Ok(Some((entry, self.origin.clone())));
            }
            let Some(asked) = self.asked.pop_front() else {
                return Ok(None);
            };
            self.list(&asked)?;
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}

impl ServerSink {
    pub(super) fn connect(runtime: &Handle, url: &str) -> Result<Self, Failure> {
        Ok(Self {
            client: Client::connect(runtime, url)?,
            waiting: HashMap::new(),
            waiting_bytes: 0,
            confirmed: 0,
        })
    }

    /// Takes answers until at most so many calls, and so many of their bytes, wait.
    async fn settle(
        &mut self,
        calls: usize,
        bytes: usize,
        refused: &mut Vec<Refused>,
    ) -> Result<(), String> {
        while calls < self.waiting.len() || bytes < self.waiting_bytes {
            let answer = self.client.answer().await?;
            let Some(waiting) = self.waiting.remove(&answer.id) else {
                continue;
            };
            self.waiting_bytes -= waiting.bytes;
            match answer.result {
                Ok(_) => self.confirmed += 1,
                Err(reason) => refused.push(Refused {
                    place: waiting.place,
                    origin: waiting.origin,
                    reason,
                }),
            }
        }
        Ok(())
    }

    async fn send(
        &mut self,
        entry: &Entry,
        origin: &Origin,
        refused: &mut Vec<Refused>,
    ) -> Result<(), String> {
        let (function, data) = set_call(entry);
        let (id, frame) = self.client.frame(function, &data);
        let bytes = frame.len();
        if ITEM_BYTES_MAX < bytes {
            // The server would end the connection, and the calls on their way with it.
            refused.push(Refused {
                place: entry.place.clone(),
                origin: origin.clone(),
                reason: format!(
                    "takes {bytes} bytes as a call, and a server takes {ITEM_BYTES_MAX}"
                ),
            });
            return Ok(());
        }
        if CALLS_MAX <= self.waiting.len() || CALL_BYTES_MAX < self.waiting_bytes + bytes {
            self.flush().await?;
            let bytes_low = (CALL_BYTES_MAX / 2).min(CALL_BYTES_MAX.saturating_sub(bytes));
            self.settle(CALLS_LOW, bytes_low, refused).await?;
        }
        let fed = self.client.sender.feed(Message::text(frame)).await;
        fed.map_err(|error| broke(&self.client.url, &error))?;
        self.waiting_bytes += bytes;
        let waiting = Waiting {
            place: entry.place.clone(),
            origin: origin.clone(),
            bytes,
        };
        self.waiting.insert(id, waiting);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), String> {
        let flushed = self.client.sender.flush().await;
        flushed.map_err(|error| broke(&self.client.url, &error))
    }

    /// What to tell of a connection that is gone.
    fn broken(&self, reason: &str) -> SinkError {
        SinkError(format!(
            "{reason}. {} items were confirmed, {} more may have arrived. To import all of it again does no harm",
            self.confirmed,
            self.waiting.len()
        ))
    }
}

impl ItemSink for ServerSink {
    fn put(
        &mut self,
        entry: &Entry,
        origin: &Origin,
        refused: &mut Vec<Refused>,
    ) -> Result<(), SinkError> {
        let runtime = self.client.runtime.clone();
        let sent = runtime.block_on(self.send(entry, origin, refused));
        sent.map_err(|reason| self.broken(&reason))
    }

    fn finish(&mut self, refused: &mut Vec<Refused>) -> Result<(), SinkError> {
        let runtime = self.client.runtime.clone();
        let settled = runtime.block_on(async {
            self.flush().await?;
            self.settle(0, 0, refused).await
        });
        settled.map_err(|reason| self.broken(&reason))
    }
}

/// The function that sets an item, and its input. Its time to live starts anew, as with every write.
fn set_call(entry: &Entry) -> (&'static str, String) {
    let mut data = String::with_capacity(entry.value.as_str().len() + 256);
    let mut field = |before: &str, text: &str| {
        data.push_str(before);
        push_string(&mut data, text);
    };
    let function = match &entry.place {
        Place::Stream {
            stream,
            group,
            item,
        } => {
            field(r#"{"stream_name":"#, stream);
            field(r#","group_id":"#, group);
            field(r#","item_id":"#, item);
            data.push_str(r#","data":"#);
            "stream::set"
        }
        Place::State { scope, key } => {
            field(r#"{"scope":"#, scope);
            field(r#","key":"#, key);
            data.push_str(r#","value":"#);
            "state::set"
        }
    };
    data.push_str(entry.value.as_str());
    if let Some(ttl_ms) = entry.ttl_ms {
        data.push_str(r#","ttl_ms":"#);
        push_number(&mut data, ttl_ms);
    }
    data.push_str(r#","returning":"none"}"#);
    (function, data)
}
