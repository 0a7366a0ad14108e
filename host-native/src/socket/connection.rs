//! The life of one WebSocket connection: reads messages, writes what waits in the outbox, keeps the heartbeat, and
//! ends with a completed close handshake.
//!
//! Reading and writing go on in one task and never wait for each other: a peer that does not read still gets its
//! messages taken, and frames that were put in while messages were read leave in one write.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use hyper_tungstenite::HyperWebsocketStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as WireFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{
    CloseCode as WireCloseCode, Data, OpCode,
};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::outbox::{CloseCode, Frame, Outbox, WaitsFor};

/// How long a closing connection waits for its peer to do its part.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// Largest frame that is sent, in bytes. Published Rust clients read frames of up to 16 MiB.
const FRAME_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest message the peer may send, in bytes.
    pub message_bytes_max: usize,
    /// Buffer for reading, in bytes.
    pub read_buffer_bytes: usize,
    /// How often a peer is pinged.
    pub ping_interval: Duration,
    /// A peer that shows no life for so long is dropped.
    pub idle_time_max: Duration,
}

/// A message of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary(Bytes),
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
    socket: HyperWebsocketStream,
    /// Taken out of the outbox, not yet handed to the socket.
    sending: VecDeque<Frame>,
    limits: Limits,
    last_heard: Instant,
    heartbeat: Pin<Box<Sleep>>,
    closing: Option<Closing>,
}

/// A close handshake that the server has begun.
struct Closing {
    code: CloseCode,
    deadline: Pin<Box<Sleep>>,
    is_sent: bool,
}

impl Connection {
    /// Takes over a connection that has been upgraded.
    pub fn new(socket: HyperWebsocketStream, limits: Limits) -> Self {
        Self {
            socket,
            sending: VecDeque::new(),
            limits,
            last_heard: Instant::now(),
            heartbeat: Box::pin(tokio::time::sleep(limits.ping_interval)),
            closing: None,
        }
    }

    /// The next message, or how the connection ended. Meanwhile sends what is put into `outbox`. May be dropped and
    /// called again.
    pub async fn next(&mut self, outbox: &Outbox) -> Result<Incoming, End> {
        let end = match poll_fn(|cx| self.poll_next(cx, outbox)).await {
            Ok(incoming) => return Ok(incoming),
            Err(end) => end,
        };
        outbox.close(CloseCode::GoingAway);
        outbox.note_life();
        if matches!(
            end,
            End::ByServer(CloseCode::TooLarge | CloseCode::Protocol | CloseCode::InvalidText)
        ) {
            self.linger().await;
        }
        Err(end)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Poll<Result<Incoming, End>> {
        loop {
            // What waits is handed to the socket before more is read, so that answers keep their order.
            if let Err(end) = self.hand_over(cx, outbox) {
                return Poll::Ready(Err(end));
            }
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    self.last_heard = Instant::now();
                    outbox.note_life();
                    match message {
                        Message::Text(text) if self.closing.is_none() => {
                            return Poll::Ready(Ok(Incoming::Text(text)));
                        }
                        Message::Binary(bytes) if self.closing.is_none() => {
                            return Poll::Ready(Ok(Incoming::Binary(bytes)));
                        }
                        // Pings and closes are answered by the socket with its next write.
                        _ => continue,
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Err(self.ended(End::ByPeer))),
                Poll::Ready(Some(Err(error))) => {
                    let Some(code) = fault_of_peer(&error) else {
                        tracing::debug!(%error, "connection broke");
                        return Poll::Ready(Err(self.ended(End::Broken)));
                    };
                    // The socket reads no more; it can still say why.
                    self.begin_close(code);
                    return self.poll_last_words(cx, code);
                }
                Poll::Pending => {}
            }
            // Nothing to read: now everything handed over leaves in one write.
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(Err(self.ended(End::Broken))),
                // Room for what did not fit before.
                Poll::Ready(Ok(())) if !self.sending.is_empty() => continue,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            if outbox.take_ping() {
                self.ping(cx);
            }
            if let Some(end) = self.poll_time(cx) {
                return Poll::Ready(Err(end));
            }
            let waits_for = match (&self.closing, self.sending.is_empty()) {
                (Some(_), _) => WaitsFor::End,
                (None, true) => WaitsFor::Frames,
                (None, false) => WaitsFor::Room,
            };
            if outbox.poll_parked(cx, waits_for).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Hands frames to the socket while it takes them, and the close frame after the last one.
    fn hand_over(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> Result<(), End> {
        if self.closing.is_none() && !self.sending.is_empty() && outbox.is_overrun() {
            // What the socket has taken is finished; the rest would only make the peer later.
            self.sending.clear();
        }
        if self.sending.is_empty()
            && self.closing.is_none()
            && let Some(code) = outbox.take(&mut self.sending)
        {
            self.begin_close(code);
        }
        while !self.sending.is_empty() {
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(self.ended(End::Broken)),
                Poll::Pending => return Ok(()),
            }
            if let Some(frame) = self.sending.pop_front()
                && self.start_text(frame).is_err()
            {
                return Err(self.ended(End::Broken));
            }
        }
        if let Some(closing) = self.closing.as_mut().filter(|closing| !closing.is_sent) {
            closing.is_sent = true;
            let frame = close_frame(closing.code);
            if self.start_send(Message::Close(Some(frame))).is_err() {
                return Err(self.ended(End::Broken));
            }
        }
        Ok(())
    }

    /// Hands a text over; a large one in pieces, which readers with a limit per frame need.
    fn start_text(&mut self, text: Frame) -> Result<(), Error> {
        if text.len() <= FRAME_BYTES_MAX {
            return self.start_send(Message::Text(text));
        }
        let mut rest = Bytes::from(text);
        let mut kind = Data::Text;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(FRAME_BYTES_MAX));
            let frame = WireFrame::message(piece, OpCode::Data(kind), rest.is_empty());
            self.start_send(Message::Frame(frame))?;
            kind = Data::Continue;
        }
        Ok(())
    }

    fn start_send(&mut self, message: Message) -> Result<(), Error> {
        match Pin::new(&mut self.socket).start_send(message) {
            // The peer has closed; what was meant for it is of no use any more.
            Err(Error::Protocol(_) | Error::ConnectionClosed | Error::AlreadyClosed) => Ok(()),
            other => other,
        }
    }

    fn begin_close(&mut self, code: CloseCode) {
        self.closing.get_or_insert_with(|| Closing {
            code,
            deadline: Box::pin(tokio::time::sleep(CLOSE_TIME_MAX)),
            is_sent: false,
        });
    }

    /// Sends the close frame of a socket that reads no more.
    fn poll_last_words(
        &mut self,
        cx: &mut Context<'_>,
        code: CloseCode,
    ) -> Poll<Result<Incoming, End>> {
        if self
            .start_send(Message::Close(Some(close_frame(code))))
            .is_ok()
        {
            // Whatever does not leave now is lost: the peer is at fault.
            let _ = Pin::new(&mut self.socket).poll_flush(cx);
        }
        Poll::Ready(Err(End::ByServer(code)))
    }

    /// Pings a quiet peer, gives up on a silent one, and on one that does not answer a close.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if let Some(closing) = &mut self.closing {
            return closing
                .deadline
                .as_mut()
                .poll(cx)
                .is_ready()
                .then_some(End::ByServer(closing.code));
        }
        while self.heartbeat.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let silent_at = self.last_heard + self.limits.idle_time_max;
            if silent_at <= now {
                return Some(End::Silent);
            }
            let next = (now + self.limits.ping_interval).min(silent_at);
            self.heartbeat.as_mut().reset(next);
            self.ping(cx);
        }
        None
    }

    /// Pings the peer, unless the socket takes nothing now: then there is something else to show life with.
    fn ping(&mut self, cx: &mut Context<'_>) {
        if Pin::new(&mut self.socket).poll_ready(cx).is_ready() {
            // A broken connection shows with the next read.
            let _ = self.start_send(Message::Ping(Bytes::new()));
            let _ = Pin::new(&mut self.socket).poll_flush(cx);
        }
    }

    /// How it ended, seen from who began it.
    fn ended(&self, end: End) -> End {
        match &self.closing {
            Some(closing) => End::ByServer(closing.code),
            None => end,
        }
    }

    /// Reads and drops what the peer still sends, so that closing the TCP connection does not destroy the close frame
    /// on its way.
    async fn linger(&mut self) {
        let stream = self.socket.get_mut();
        // The peer learns that nothing more comes; if it is gone already, so be it.
        let _ = stream.shutdown().await;
        let mut sink = vec![0; 16 * 1024];
        let drain = async {
            while let Ok(read) = stream.read(&mut sink).await
                && 0 < read
            {}
        };
        // A peer that never ends is cut off.
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, drain).await;
    }
}

fn close_frame(code: CloseCode) -> CloseFrame {
    let (code, reason) = code.on_wire();
    CloseFrame {
        code: WireCloseCode::from(code),
        reason: reason.into(),
    }
}

/// The close code for what the peer did wrong; `None` when the connection broke.
fn fault_of_peer(error: &Error) -> Option<CloseCode> {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match error {
        Error::Capacity(_) => Some(CloseCode::TooLarge),
        Error::Utf8(_) => Some(CloseCode::InvalidText),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::Protocol),
        _ => None,
    }
}
