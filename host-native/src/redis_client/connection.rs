//! One connection for commands, shared by all calls to a server: what waits is written together, answers come in order.
//!
//! A call that gets no answer is told whether its bytes had been given to the system: only then it may have been carried out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;

use super::dial::Dialed;
use super::options::{WAITING_BYTES_MAX, WAITING_CALLS_MAX};
use super::resp::Replies;
use super::server_clock::whole_ms;

/// What waits is copied together into one write until it is so long.
const WRITE_BYTES: usize = 256 * 1024;

/// Why a call got no answer from a connection.
#[derive(Debug, Clone)]
pub(super) enum Unanswered {
    /// Nothing of it was written: surely not carried out.
    NotSent(Arc<str>),
    /// It was written, at least in part.
    Sent(Arc<str>),
}

/// A connection for commands. Ends when it is dropped.
pub(super) struct Connection {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

struct Shared {
    queues: Mutex<Queues>,
    written: Notify,
    born: Instant,
    /// When bytes came last, in milliseconds after `born`.
    heard_ms: AtomicU64,
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Queues {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    sent: VecDeque<Sent>,
    next_number: u64,
    closed: Option<Arc<str>>,
}

struct Waiting {
    number: u64,
    bytes: Bytes,
    sent: Sent,
}

/// A command, or a pipeline, whose answers are awaited.
struct Sent {
    values: Vec<Value>,
    replies: usize,
    answer: oneshot::Sender<Result<Vec<Value>, Unanswered>>,
}

impl Connection {
    /// Takes over a greeted connection.
    pub(super) fn new(dialed: Dialed) -> Self {
        let (read, write) = dialed.stream.into_split();
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            written: Notify::new(),
            born: Instant::now(),
            heard_ms: AtomicU64::new(0),
            closed: watch::Sender::new(false),
        });
        let reader = tokio::spawn(read_answers(shared.clone(), read, dialed.replies));
        let writer = tokio::spawn(write_commands(shared.clone(), write));
        Self {
            shared,
            tasks: [reader.abort_handle(), writer.abort_handle()],
        }
    }

    /// Sends commands, already packed, and waits until `deadline` for as many answers as they have.
    pub(super) async fn send(
        &self,
        bytes: Bytes,
        replies: usize,
        deadline: Instant,
    ) -> Result<Vec<Value>, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let sent = Sent {
            values: Vec::with_capacity(replies),
            replies,
            answer,
        };
        let number = self.shared.enqueue(bytes, sent)?;
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Unanswered::Sent("the connection was closed".into())),
            Err(_) => Err(self.shared.withdraw(number)),
        }
    }

    /// How long nothing has come.
    pub(super) fn silence_ms(&self) -> u64 {
        let heard_ms = self.shared.heard_ms.load(Ordering::Relaxed);
        whole_ms(self.shared.born.elapsed()).saturating_sub(heard_ms)
    }

    /// Ends it: all calls in it get to know why.
    pub(super) fn close(&self, why: &str) {
        self.shared.close(why);
    }

    /// Why it is closed, if it is.
    pub(super) fn closed(&self) -> Option<Arc<str>> {
        self.shared.queues.lock().closed.clone()
    }

    /// Waits until it is closed.
    pub(super) async fn until_closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        // An error says that nobody can close it any more, and we hold the other end.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close("the connection is not needed any more");
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn enqueue(&self, bytes: Bytes, sent: Sent) -> Result<u64, Unanswered> {
        let mut queues = self.queues.lock();
        if let Some(why) = &queues.closed {
            return Err(Unanswered::NotSent(why.clone()));
        }
        if queues.waiting.len() >= WAITING_CALLS_MAX
            || (queues.waiting_bytes + bytes.len() > WAITING_BYTES_MAX
                && !queues.waiting.is_empty())
        {
            let (calls, bytes) = (queues.waiting.len(), queues.waiting_bytes);
            let why = format!("{calls} commands of {bytes} bytes wait to be sent already");
            return Err(Unanswered::NotSent(why.into()));
        }
        let number = queues.next_number;
        queues.next_number += 1;
        queues.waiting_bytes += bytes.len();
        queues.waiting.push_back(Waiting {
            number,
            bytes,
            sent,
        });
        drop(queues);
        self.written.notify_one();
        Ok(number)
    }

    /// A call waits no longer: says whether it had been sent. An answer that comes later is dropped.
    fn withdraw(&self, number: u64) -> Unanswered {
        let queues = self.queues.lock();
        let waits = queues
            .waiting
            .front()
            .is_some_and(|first| first.number <= number);
        if waits {
            // It stays in the queue, but the writer passes over calls that nobody waits for.
            Unanswered::NotSent("the server took nothing in time".into())
        } else {
            Unanswered::Sent("no answer in time".into())
        }
    }

    /// Moves what waits to what is sent, as far as it fits into one write.
    fn take_waiting(&self) -> Result<Vec<Bytes>, Arc<str>> {
        let mut queues = self.queues.lock();
        if let Some(why) = &queues.closed {
            return Err(why.clone());
        }
        let (mut taken, mut length) = (Vec::new(), 0);
        while length < WRITE_BYTES {
            let Some(waiting) = queues.waiting.pop_front() else {
                break;
            };
            queues.waiting_bytes -= waiting.bytes.len();
            if waiting.sent.answer.is_closed() {
                continue;
            }
            length += waiting.bytes.len();
            taken.push(waiting.bytes);
            queues.sent.push_back(waiting.sent);
        }
        Ok(taken)
    }

    /// Hands an answer to the call that waits for it.
    fn answered(&self, value: Value) -> Result<(), &'static str> {
        let mut queues = self.queues.lock();
        let first = queues.sent.front_mut();
        let first = first.ok_or("the server answered what nobody asked")?;
        first.values.push(value);
        if first.values.len() < first.replies {
            return Ok(());
        }
        if let Some(done) = queues.sent.pop_front() {
            drop(queues);
            // The caller may have left.
            let _ = done.answer.send(Ok(done.values));
        }
        Ok(())
    }

    fn close(&self, why: &str) {
        let why: Arc<str> = why.into();
        let (waiting, sent) = {
            let mut queues = self.queues.lock();
            if queues.closed.is_some() {
                return;
            }
            queues.closed = Some(why.clone());
            queues.waiting_bytes = 0;
            (
                std::mem::take(&mut queues.waiting),
                std::mem::take(&mut queues.sent),
            )
        };
        for waiting in waiting {
            let _ = waiting
                .sent
                .answer
                .send(Err(Unanswered::NotSent(why.clone())));
        }
        for sent in sent {
            let _ = sent.answer.send(Err(Unanswered::Sent(why.clone())));
        }
        self.closed.send_replace(true);
        self.written.notify_one();
    }
}

async fn write_commands(shared: Arc<Shared>, mut write: OwnedWriteHalf) {
    while let Ok(taken) = shared.take_waiting() {
        let written = match &taken[..] {
            [] => {
                shared.written.notified().await;
                continue;
            }
            [one] => write.write_all(one).await,
            many => write.write_all(&many.concat()).await,
        };
        if let Err(error) = written {
            return shared.close(&error.to_string());
        }
    }
}

async fn read_answers(shared: Arc<Shared>, mut read: OwnedReadHalf, mut replies: Replies) {
    loop {
        let read = replies.read_more(&mut read).await;
        match read {
            Ok(0) => return shared.close("the server hung up"),
            Ok(_) => {}
            Err(error) => return shared.close(&error.to_string()),
        }
        shared
            .heard_ms
            .store(whole_ms(shared.born.elapsed()), Ordering::Relaxed);
        loop {
            match replies.next() {
                // Nothing is subscribed here; what the server pushes by itself is no answer.
                Ok(Some(Value::Push { .. })) => {}
                Ok(Some(value)) => {
                    if let Err(problem) = shared.answered(value) {
                        return shared.close(problem);
                    }
                }
                Ok(None) => break,
                Err(error) => return shared.close(&error.to_string()),
            }
        }
    }
}
