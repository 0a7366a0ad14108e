//! The life of one WebSocket connection: reads messages, sends what waits in its outbox, keeps the heartbeat, and ends with
//! a completed close handshake.
//!
//! Reading and writing go on in one task and never wait for each other: a peer that does not read still gets its messages
//! taken, and frames that were queued while messages were read leave in one write. Between messages a connection holds no
//! buffers.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper_tungstenite::HyperWebsocket;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::frame::Frame;
use super::outbox::{CloseCode, Outbox};
use super::reader::{Reader, Received};
use super::upgrade::{Upgraded, upgraded};

/// How long a closing connection waits for its peer to do its part.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// The same when the server stops, which should not take long for the sake of peers that are gone.
const STOP_CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest message the peer may send, in bytes.
    pub message_bytes_max: usize,
    /// Room for one read, in bytes.
    pub read_buffer_bytes: usize,
    /// Bytes that may wait for the peer.
    pub queue_bytes_max: usize,
    /// How often a peer is pinged.
    pub ping_interval: Duration,
    /// A peer that shows no life for so long is dropped.
    pub idle_time_max: Duration,
    /// A peer that takes nothing of what waits for so long is closed.
    pub blocked_time_max: Duration,
}

/// What a connection brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(Bytes),
    /// There is room in the outbox again, for which somebody had asked.
    Room,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed it.
    ByPeer,
    /// The server closed it.
    ByServer(CloseCode),
    /// The peer showed no life for too long.
    Silent,
    /// The TCP connection broke.
    Broken,
}

/// See the module.
pub struct Connection {
    socket: OwnedReadHalf,
    reader: Reader,
    outbox: Arc<Outbox>,
    limits: Limits,
    last_heard: Instant,
    last_pinged: Instant,
    /// When the connection must end, and why.
    expiry: Option<(Instant, CloseCode)>,
    timer: Pin<Box<Sleep>>,
    closing: Option<Closing>,
    /// The peer has said that nothing more comes.
    is_peer_done: bool,
    /// How it ended.
    end: Option<End>,
}

/// A close handshake that has begun.
struct Closing {
    end: End,
    deadline: Instant,
}

impl Connection {
    /// Takes over a connection once its upgrade is through.
    ///
    /// Errors: the peer went away before.
    pub async fn open(upgrading: HyperWebsocket, limits: Limits) -> io::Result<Self> {
        let Upgraded { socket, early } = upgraded(upgrading).await?;
        let (read, write) = socket.into_split();
        let now = Instant::now();
        Ok(Self {
            socket: read,
            reader: Reader::new(&early, limits.message_bytes_max),
            outbox: Arc::new(Outbox::to_socket(write, limits.queue_bytes_max)),
            limits,
            last_heard: now,
            last_pinged: now,
            expiry: None,
            timer: Box::pin(tokio::time::sleep(limits.ping_interval)),
            closing: None,
            is_peer_done: false,
            end: None,
        })
    }

    /// Where to put what the peer is to get.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Closes the connection at some moment.
    pub fn close_at(&mut self, at: Instant, code: CloseCode) {
        self.expiry = Some((at, code));
        self.wake_at(at);
    }

    /// The next message, or how the connection ended. Meanwhile sends what is put into the outbox. May be dropped and called
    /// again.
    pub async fn next(&mut self) -> Result<Incoming, End> {
        let end = match self.end {
            // Dropped while it lingered.
            Some(end) => end,
            None => match poll_fn(|cx| self.poll_next(cx)).await {
                Ok(incoming) => return Ok(incoming),
                Err(end) => end,
            },
        };
        self.end = Some(end);
        self.outbox.end();
        self.outbox.note_life();
        if matches!(
            end,
            End::ByServer(CloseCode::TooLarge | CloseCode::Protocol | CloseCode::InvalidText)
        ) {
            // On the heap: few connections come to this, and all would have to keep room for it.
            Box::pin(self.linger()).await;
        }
        Err(end)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, End>> {
        loop {
            if !self.is_peer_done {
                match self.poll_received(cx) {
                    Poll::Ready(Ok(received)) => {
                        if self.outbox.is_ripe() && self.send(cx)? {
                            // Told after what has been received.
                            self.outbox.want_room();
                        }
                        match self.take(received) {
                            Some(incoming) => return Poll::Ready(Ok(incoming)),
                            None => continue,
                        }
                    }
                    Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                    Poll::Pending => self.reader.rest(),
                }
            }
            // Nothing more to read: now everything that was put in meanwhile leaves in one write.
            if self.outbox.take_ping() {
                self.ping();
            }
            if self.send(cx)? {
                return Poll::Ready(Ok(Incoming::Room));
            }
            if let Some(end) = self.poll_time(cx) {
                return Poll::Ready(Err(end));
            }
            if self.outbox.poll_parked(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Does what a control frame asks for; gives anything else back.
    fn take(&mut self, received: Received) -> Option<Incoming> {
        match received {
            // Who closes is no longer listening.
            Received::Text(_) | Received::Binary(_) if self.closing.is_some() => None,
            Received::Text(text) => Some(Incoming::Text(text)),
            Received::Binary(bytes) => Some(Incoming::Binary(bytes)),
            Received::Ping(payload) => {
                self.outbox.put_control(Frame::pong(&payload));
                None
            }
            Received::Pong => None,
            Received::Close(payload) => {
                self.outbox.put_last(Frame::close_echo(&payload));
                self.begin_close(End::ByPeer);
                self.is_peer_done = true;
                None
            }
        }
    }

    /// What the peer has sent next.
    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, End>> {
        loop {
            match self.reader.next() {
                Ok(Some(received)) => return Poll::Ready(Ok(received)),
                Ok(None) => {}
                Err(code) => return Poll::Ready(Err(self.last_words(cx, code))),
            }
            let room = self.reader.room(self.limits.read_buffer_bytes);
            match ready!(pin!(self.socket.read_buf(room)).poll(cx)) {
                Ok(0) => return Poll::Ready(Err(self.ended(End::Broken))),
                Ok(_) => {
                    self.last_heard = Instant::now();
                    self.outbox.note_life();
                }
                Err(error) => {
                    tracing::debug!(%error, "connection broke");
                    return Poll::Ready(Err(self.ended(End::Broken)));
                }
            }
        }
    }

    /// Sends what waits, as far as the socket takes it. Whether there is room now for which somebody had asked.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let sending = match self.outbox.poll_send(cx) {
            Ok(sending) => sending,
            Err(error) => {
                tracing::debug!(%error, "connection broke");
                return Err(self.ended(End::Broken));
            }
        };
        if let Some(code) = sending.close {
            self.begin_close(End::ByServer(code));
        }
        if self.is_peer_done && sending.is_done {
            return Err(self.ended(End::ByPeer));
        }
        if let Some(since) = sending.blocked_since {
            self.wake_at(since + self.limits.blocked_time_max);
        }
        Ok(sending.has_room && self.closing.is_none())
    }

    fn begin_close(&mut self, end: End) {
        if self.closing.is_none() {
            let time_max = match end {
                End::ByServer(CloseCode::GoingAway | CloseCode::Restart) => STOP_CLOSE_TIME_MAX,
                _ => CLOSE_TIME_MAX,
            };
            let deadline = Instant::now() + time_max;
            self.closing = Some(Closing { end, deadline });
            self.wake_at(deadline);
        }
    }

    /// Says to a peer that did something wrong what it was, as far as the socket takes it now.
    fn last_words(&mut self, cx: &mut Context<'_>, code: CloseCode) -> End {
        self.outbox.close(code);
        // Whatever does not leave now is lost: the peer is at fault.
        let _ = self.outbox.poll_send(cx);
        End::ByServer(code)
    }

    /// Wakes the task no later than then.
    fn wake_at(&mut self, at: Instant) {
        if at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
        }
    }

    /// Pings a quiet peer, gives up on a silent one, on one that takes nothing, and on one that does not answer a close.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Option<End> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if let Some(closing) = &self.closing {
                if closing.deadline <= now {
                    return Some(closing.end);
                }
                self.timer.as_mut().reset(closing.deadline);
                continue;
            }
            let silent_at = self.last_heard + self.limits.idle_time_max;
            if silent_at <= now {
                return Some(End::Silent);
            }
            let ping_at = self.last_pinged + self.limits.ping_interval;
            if ping_at <= now {
                self.last_pinged = now;
                self.ping();
            }
            let mut next = silent_at.min(self.last_pinged + self.limits.ping_interval);
            if let Some(since) = self.outbox.blocked_since() {
                let blocked_at = since + self.limits.blocked_time_max;
                if blocked_at <= now {
                    self.outbox.close(CloseCode::Blocked);
                } else {
                    next = next.min(blocked_at);
                }
            }
            match self.expiry {
                Some((at, code)) if at <= now => {
                    self.expiry = None;
                    self.outbox.close(code);
                }
                Some((at, _)) => next = next.min(at),
                None => {}
            }
            self.timer.as_mut().reset(next);
        }
        None
    }

    fn ping(&mut self) {
        // Where something waits already, there is something else to show life with.
        self.outbox.put_control(Frame::ping());
    }

    /// How it ended, seen from who began it.
    fn ended(&self, end: End) -> End {
        match &self.closing {
            Some(closing) => closing.end,
            None => end,
        }
    }

    /// Reads and drops what the peer still sends, so that closing the TCP connection does not destroy the close frame on its
    /// way.
    async fn linger(&mut self) {
        let mut sink = vec![0; 16 * 1024];
        let drain = async {
            while let Ok(read) = self.socket.read(&mut sink).await
                && 0 < read
            {}
        };
        // A peer that never ends is cut off.
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, drain).await;
    }
}
