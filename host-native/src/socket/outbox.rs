//! What waits to be sent on one connection. Anybody may put frames in; the connection's own task takes them out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::cork;

/// A frame's text, encoded once and shared by all who get it.
pub type Frame = Utf8Bytes;

/// Why the server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The server stops; connect again.
    GoingAway,
    /// The server stops, said so that published Python workers connect again: they take 1001 for their own doing.
    Restart,
    /// The peer broke the WebSocket protocol; a fault of the client.
    Protocol,
    /// A text message was no UTF-8; a fault of the client.
    InvalidText,
    /// A message was too large; do not send it again.
    TooLarge,
    /// The peer does what no client should; a fault of the client.
    Policy,
    /// The peer sends too much in too short a time; connect again later.
    RateLimit,
    /// The store could not be read; connect again.
    StoreFailed,
    /// The connection's permission has expired; connect again with a new one.
    AuthExpired,
    /// The peer reads too slowly; connect again, and get a fresh `sync`.
    SlowConsumer,
    /// Another connection of the same worker has taken over; do not connect again.
    Replaced,
}

impl CloseCode {
    /// The code and the reason on the wire.
    pub fn on_wire(self) -> (u16, &'static str) {
        match self {
            Self::GoingAway => (1001, "server stops"),
            Self::Restart => (1012, "server restarts"),
            Self::Protocol => (1002, "protocol error"),
            Self::InvalidText => (1007, "text is not UTF-8"),
            Self::TooLarge => (1009, "message too large"),
            Self::Policy => (1008, "too many messages about one subscription"),
            Self::RateLimit => (4029, "rate limit"),
            Self::StoreFailed => (1013, "the store cannot be read now"),
            Self::AuthExpired => (4001, "auth expired"),
            Self::SlowConsumer => (4008, "slow consumer"),
            Self::Replaced => (1000, "replaced by a newer connection"),
        }
    }
}

/// Frames on their way to one peer, bounded in bytes.
///
/// A single frame is always admitted to an empty outbox. When frames do not fit any more the peer reads too slowly:
/// everything waiting is dropped and the connection closes with [`CloseCode::SlowConsumer`], so that the peer knows
/// that it missed something.
pub struct Outbox {
    queue: Mutex<Queue>,
    bytes_max: usize,
    /// Whether the connection's task waits to be woken. Frames that its own work puts in need no waking.
    is_parked: AtomicBool,
    waker: AtomicWaker,
    /// Whether the peer is to be pinged now.
    is_ping_wanted: AtomicBool,
    /// Whether somebody waits for a sign of life.
    is_watched: AtomicBool,
    sign_of_life: Notify,
    uncounted_taken: Notify,
}

/// What a connection's task waits for beside its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// Frames to send, or a reason to close.
    Frames,
    /// The socket takes nothing; only being overrun matters.
    Room,
    /// It closes already.
    End,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Bytes of frames that do not count, because their number is bounded otherwise.
    uncounted_bytes: usize,
    close: Option<CloseCode>,
}

impl Outbox {
    /// An empty outbox that takes `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            bytes_max,
            is_parked: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            is_ping_wanted: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            sign_of_life: Notify::new(),
            uncounted_taken: Notify::new(),
        }
    }

    /// Puts a frame in. Frames for a connection that closes are dropped.
    pub fn push(&self, frame: Frame) {
        self.push_all([frame]);
    }

    /// Puts frames in, in order.
    pub fn push_all(&self, frames: impl IntoIterator<Item = Frame>) {
        let mut queue = self.queue.lock();
        for frame in frames {
            if queue.close.is_some() {
                return;
            }
            if !queue.frames.is_empty() && self.bytes_max < queue.bytes + frame.len() {
                queue.close = Some(CloseCode::SlowConsumer);
                queue.frames.clear();
                queue.bytes = 0;
                drop(queue);
                self.waker.wake();
                return;
            }
            queue.bytes += frame.len();
            queue.frames.push_back(frame);
        }
        drop(queue);
        self.wake();
    }

    /// Puts a frame in whatever its size, and does not count it. The caller must leave [`Outbox::has_room`] between two.
    pub fn push_uncounted(&self, frame: Frame) {
        let mut queue = self.queue.lock();
        if queue.close.is_some() {
            return;
        }
        queue.uncounted_bytes += frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.wake();
    }

    /// Whether another uncounted frame may be put in.
    pub fn has_room(&self) -> bool {
        self.queue.lock().uncounted_bytes < self.bytes_max
    }

    /// Waits until uncounted frames have left for the socket.
    pub async fn room(&self) {
        self.uncounted_taken.notified().await;
    }

    /// Closes the connection once everything waiting is sent. The first reason stays.
    pub fn close(&self, code: CloseCode) {
        self.queue.lock().close.get_or_insert(code);
        self.waker.wake();
    }

    /// Pings the peer and waits for anything it sends. Whether anything came in time, on a connection that stays open.
    pub async fn shows_life(&self, time_max: Duration) -> bool {
        let sign = self.sign_of_life.notified();
        tokio::pin!(sign);
        // From here on no sign is missed.
        sign.as_mut().enable();
        // One ping serves all who wait: some clients give up when too many pings come at once.
        if !self.is_watched.swap(true, Ordering::AcqRel) {
            self.is_ping_wanted.store(true, Ordering::Release);
            self.waker.wake();
        }
        tokio::time::timeout(time_max, sign).await.is_ok() && !self.is_closing()
    }

    /// Whether the peer is to be pinged now; asked once.
    pub(super) fn take_ping(&self) -> bool {
        self.is_ping_wanted.load(Ordering::Acquire)
            && self.is_ping_wanted.swap(false, Ordering::AcqRel)
    }

    /// Notes that the peer has sent something, or will never again.
    pub(super) fn note_life(&self) {
        if self.is_watched.load(Ordering::Acquire) && self.is_watched.swap(false, Ordering::AcqRel)
        {
            self.sign_of_life.notify_waiters();
        }
    }

    /// Whether the connection closes.
    pub fn is_closing(&self) -> bool {
        self.queue.lock().close.is_some()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    fn wake(&self) {
        if self.is_parked.swap(false, Ordering::AcqRel)
            && let Some(waker) = self.waker.take()
        {
            cork::wake(waker);
        }
    }

    /// Moves everything that waits to `frames`, which must be empty, and tells whether to close after it.
    pub(super) fn take(&self, frames: &mut VecDeque<Frame>) -> Option<CloseCode> {
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.frames, frames);
        queue.bytes = 0;
        if 0 < queue.uncounted_bytes {
            queue.uncounted_bytes = 0;
            self.uncounted_taken.notify_one();
        }
        queue.close
    }

    /// Whether the peer reads too slowly, so that nothing more is to be sent.
    pub(super) fn is_overrun(&self) -> bool {
        self.queue.lock().close == Some(CloseCode::SlowConsumer)
    }

    /// Says that the connection's task is about to wait; ready when something it waits for came in meanwhile.
    pub(super) fn poll_parked(&self, cx: &Context<'_>, waits_for: WaitsFor) -> Poll<()> {
        self.waker.register(cx.waker());
        self.is_parked
            .store(waits_for == WaitsFor::Frames, Ordering::Release);
        let queue = self.queue.lock();
        let is_ready = match waits_for {
            WaitsFor::Frames => !queue.frames.is_empty() || queue.close.is_some(),
            WaitsFor::Room => queue.close == Some(CloseCode::SlowConsumer),
            WaitsFor::End => false,
        };
        if is_ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Frame {
        "x".repeat(bytes).into()
    }

    #[test]
    fn one_frame_is_always_admitted_and_too_many_close() {
        let outbox = Outbox::new(10);
        outbox.push(frame(100));
        assert!(!outbox.is_closing());
        outbox.push(frame(1));
        assert!(outbox.is_closing());
        let mut taken = VecDeque::new();
        assert_eq!(outbox.take(&mut taken), Some(CloseCode::SlowConsumer));
        assert!(taken.is_empty());
    }

    #[test]
    fn uncounted_frames_leave_the_bound_to_the_others() {
        let outbox = Outbox::new(10);
        outbox.push_uncounted(frame(100));
        assert!(!outbox.has_room());
        outbox.push_all([frame(5), frame(5)]);
        assert!(!outbox.is_closing());
        assert_eq!(outbox.take(&mut VecDeque::new()), None);
        assert!(outbox.has_room());
    }

    #[test]
    fn taking_makes_room() {
        let outbox = Outbox::new(10);
        let mut taken = VecDeque::new();
        for _ in 0..5 {
            outbox.push_all([frame(5), frame(5)]);
            assert_eq!(outbox.bytes(), 10);
            assert_eq!(outbox.take(&mut taken), None);
            assert_eq!(taken.len(), 2);
            taken.clear();
        }
    }
}
