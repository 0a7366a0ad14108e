//! What leaves on one connection: sent at once where the socket takes it, else queued within a bound.
//!
//! Whoever has something to say may write to the socket: an event reaches a peer that keeps up without waking the
//! connection's own task. That task takes over where the socket takes no more, and where gathering is better than haste.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cork;
use super::frame::Frame;

/// Frames gathered into one write, in bytes. A larger frame is written by itself, without being copied.
const GATHER_BYTES_MAX: usize = 64 * 1_024;

/// Places kept in an empty queue.
const RUNS_KEPT_MAX: usize = 64;

/// How many times the bound may wait for a peer before an answer is one too many. An answer is taken as long as less waits.
const ANSWER_QUEUES_MAX: usize = 8;

thread_local! {
    /// Where frames are gathered before a write. One for each thread, so that connections hold no buffers.
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

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
    /// The peer has taken nothing for too long; connect again, and get a fresh `sync`.
    Blocked,
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
            Self::Blocked => (4008, "slow consumer: took nothing for too long"),
            Self::Replaced => (1000, "replaced by a newer connection"),
        }
    }
}

/// What waits for one peer, bounded in bytes. See the module.
///
/// A frame is always admitted to an empty outbox. What is owed to a peer anyway, like a `sync`, is not counted; its number
/// is bounded by [`Outbox::asks_room`].
pub struct Outbox {
    state: Mutex<State>,
    bytes_max: usize,
    /// Whether the connection's task waits to be woken. Frames that its own work puts in need no waking.
    is_parked: AtomicBool,
    waker: AtomicWaker,
    /// Whether the peer is to be pinged now.
    is_ping_wanted: AtomicBool,
    /// Whether somebody waits for a sign of life.
    is_watched: AtomicBool,
    sign_of_life: Notify,
}

/// The outbox has no room: the peer reads too slowly, and what was to be sent was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Who takes the bytes.
enum Sink {
    Socket(OwnedWriteHalf),
    /// Somebody who asks for them: [`Outbox::poll_take`].
    Taker,
    Gone,
}

struct Run {
    frame: Frame,
    kind: RunKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunKind {
    /// Counts towards the bound.
    Counted,
    /// Owed anyway.
    Uncounted,
    /// The answer to a call.
    Answer,
    /// A ping or pong.
    Control,
}

struct State {
    sink: Sink,
    runs: VecDeque<Run>,
    /// Bytes of the first run that have left.
    sent_bytes: usize,
    bytes: usize,
    uncounted_bytes: usize,
    answer_bytes: usize,
    /// A ping or pong, which goes before the next run.
    control: Option<Frame>,
    /// Since when the socket has taken nothing of what waits.
    blocked_since: Option<Instant>,
    /// Whether the connection's task is to be told once there is room.
    is_room_wanted: bool,
    close: Option<CloseCode>,
    /// The close frame is among the runs, or gone.
    is_close_queued: bool,
}

/// How far sending has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    /// Somebody waited for room, and now there is.
    pub(super) has_room: bool,
    /// Nothing waits.
    pub(super) is_done: bool,
    /// Since when the socket has taken nothing.
    pub(super) blocked_since: Option<Instant>,
    pub(super) close: Option<CloseCode>,
}

impl Outbox {
    /// An outbox before a socket, which lets `bytes_max` bytes wait.
    pub(super) fn to_socket(socket: OwnedWriteHalf, bytes_max: usize) -> Self {
        Self::new(Sink::Socket(socket), bytes_max)
    }

    /// An outbox whose frames are taken with [`Outbox::poll_take`].
    pub fn to_taker(bytes_max: usize) -> Self {
        Self::new(Sink::Taker, bytes_max)
    }

    fn new(sink: Sink, bytes_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                sink,
                runs: VecDeque::new(),
                sent_bytes: 0,
                bytes: 0,
                uncounted_bytes: 0,
                answer_bytes: 0,
                control: None,
                blocked_since: None,
                is_room_wanted: false,
                close: None,
                is_close_queued: false,
            }),
            bytes_max,
            is_parked: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            is_ping_wanted: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            sign_of_life: Notify::new(),
        }
    }

    /// Queues a frame, to leave together with what else its turn brings. A peer that lets too much wait is closed as a slow
    /// one. Frames for a connection that closes are dropped.
    pub fn push(&self, frame: Frame) {
        let mut state = self.state.lock();
        if state.close.is_some() {
            return;
        }
        if !state.admits(frame.len(), self.bytes_max) {
            state.close = Some(CloseCode::SlowConsumer);
            drop(state);
            self.waker.wake();
            return;
        }
        state.put(frame, RunKind::Counted);
        drop(state);
        self.wake();
    }

    /// Queues an answer, to leave together with what else its turn brings. Answers are owed and do not count towards the bound,
    /// so that they cost their peer no events. One for whom `ANSWER_QUEUES_MAX` times the bound waits is closed as a slow one.
    pub fn answer(&self, frame: Frame) {
        let mut state = self.state.lock();
        if state.close.is_some() {
            return;
        }
        if self.bytes_max.saturating_mul(ANSWER_QUEUES_MAX) < state.waiting_bytes() {
            state.close = Some(CloseCode::SlowConsumer);
            drop(state);
            self.waker.wake();
            return;
        }
        state.put(frame, RunKind::Answer);
        drop(state);
        self.wake();
    }

    /// Whether more waits than may, so that no call should add to it.
    pub fn is_overfull(&self) -> bool {
        self.bytes_max < self.state.lock().waiting_bytes()
    }

    /// Sends a run of whole frames now, as far as the socket takes them; the rest is queued.
    ///
    /// Errors: [`Full`] when the run does not fit beside what waits. Nothing of it was taken then, and the connection's task
    /// is told once there is room.
    pub fn deliver(&self, run: &Frame) -> Result<(), Full> {
        let mut state = self.state.lock();
        if state.close.is_some() {
            return Ok(());
        }
        if !state.admits(run.len(), self.bytes_max) {
            state.is_room_wanted = true;
            return Err(Full);
        }
        self.send(state, run, RunKind::Counted);
        Ok(())
    }

    /// Sends a frame that does not count, whatever its size. The caller must see [`Outbox::asks_room`] between two.
    pub fn deliver_uncounted(&self, frame: &Frame) {
        let state = self.state.lock();
        if state.close.is_none() {
            self.send(state, frame, RunKind::Uncounted);
        }
    }

    fn send(&self, mut state: parking_lot::MutexGuard<'_, State>, run: &Frame, kind: RunKind) {
        let mut taken = 0;
        if state.runs.is_empty()
            && state.control.is_none()
            && let Sink::Socket(socket) = &state.sink
        {
            match socket.try_write(run.as_bytes()) {
                Ok(bytes) if bytes == run.len() => return,
                Ok(bytes) => taken = bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    // The connection's task finds out when it reads.
                    state.sink = Sink::Gone;
                    drop(state);
                    self.waker.wake();
                    return;
                }
            }
        }
        if state.runs.is_empty() {
            state.sent_bytes = taken;
            state.blocked_since = Some(Instant::now());
        }
        state.put(run.clone(), kind);
        drop(state);
        // Only that task can wait until the socket takes more.
        self.waker.wake();
    }

    /// Whether another uncounted frame may be sent. If not, the connection's task is told once it may.
    pub fn asks_room(&self) -> bool {
        let mut state = self.state.lock();
        let has_room = state.uncounted_bytes < self.bytes_max;
        state.is_room_wanted |= !has_room;
        has_room
    }

    /// Has the connection's task told that there is room, as soon as there is.
    pub fn want_room(&self) {
        self.state.lock().is_room_wanted = true;
        self.waker.wake();
    }

    /// Closes the connection once everything waiting is sent; a slow peer's at once. The first reason stays.
    pub fn close(&self, code: CloseCode) {
        self.state.lock().close.get_or_insert(code);
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
        self.state.lock().close.is_some()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.state.lock().waiting_bytes()
    }

    /// How many bytes may wait.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn wake(&self) {
        if self.is_parked.swap(false, Ordering::AcqRel)
            && let Some(waker) = self.waker.take()
        {
            cork::at_end_of_turn(waker);
        }
    }

    /// Sends a ping or pong before anything that waits but has not begun to leave. A later one takes an earlier one's place.
    pub(super) fn put_control(&self, frame: Frame) {
        self.state.lock().control = Some(frame);
    }

    /// Answers the peer's close. Nothing else is sent any more.
    pub(super) fn put_last(&self, frame: Frame) {
        let mut state = self.state.lock();
        state.close.get_or_insert(CloseCode::GoingAway);
        if !state.is_close_queued {
            state.drop_waiting();
            state.is_close_queued = true;
            state.put(frame, RunKind::Uncounted);
        }
    }

    /// Lets nothing more through, and ends the sending half of the connection.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.close.get_or_insert(CloseCode::GoingAway);
        state.is_close_queued = true;
        state.drop_waiting();
        state.runs = VecDeque::new();
        state.sent_bytes = 0;
        state.forget_bytes();
        state.sink = Sink::Gone;
    }

    /// Whether as much waits as one write gathers.
    pub(super) fn is_ripe(&self) -> bool {
        let state = self.state.lock();
        GATHER_BYTES_MAX <= state.bytes + state.answer_bytes && state.blocked_since.is_none()
    }

    /// Sends what waits, as far as the socket takes it.
    ///
    /// Errors: the connection is broken.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> io::Result<Sending> {
        let mut state = self.state.lock();
        if let Some(code) = state.close
            && !state.is_close_queued
        {
            if matches!(code, CloseCode::SlowConsumer | CloseCode::Blocked) {
                // The rest would only make the peer later.
                state.drop_waiting();
            }
            state.is_close_queued = true;
            state.put(Frame::close(code), RunKind::Uncounted);
        }
        while !state.write()? {
            let Sink::Socket(socket) = &state.sink else {
                break;
            };
            match socket.as_ref().poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => break,
            }
        }
        let has_room = state.is_room_wanted && state.has_room(self.bytes_max);
        if has_room {
            state.is_room_wanted = false;
        }
        Ok(Sending {
            has_room,
            is_done: state.runs.is_empty(),
            blocked_since: state.blocked_since,
            close: state.close,
        })
    }

    /// Says that the connection's task is about to wait; ready when something came in meanwhile that it must see to.
    pub(super) fn poll_parked(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        let state = self.state.lock();
        let is_blocked = state.blocked_since.is_some();
        // Before it is looked whether there is something to do, so that what comes after is not missed.
        self.is_parked.store(!is_blocked, Ordering::Release);
        let has_work = ((!state.runs.is_empty() || state.control.is_some()) && !is_blocked)
            || (state.close.is_some() && !state.is_close_queued)
            || (state.is_room_wanted && state.has_room(self.bytes_max))
            || matches!(state.sink, Sink::Gone);
        if has_work || self.is_ping_wanted.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// The next bytes, for whoever writes them; `None` when the connection closes. Also says whether there is room now that
    /// somebody waited for.
    pub fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        self.waker.register(cx.waker());
        let mut state = self.state.lock();
        let Some(run) = state.pop() else {
            return if state.close.is_some() {
                Poll::Ready(None)
            } else {
                // Events that come now must wake whoever waits, not only those of the connection's own work.
                self.is_parked.store(true, Ordering::Release);
                Poll::Pending
            };
        };
        state.blocked_since = (!state.runs.is_empty()).then(Instant::now);
        Poll::Ready(Some(run.frame.into_bytes()))
    }

    /// Whether somebody waited for room that there is now; asked once.
    pub fn take_room(&self) -> bool {
        let mut state = self.state.lock();
        let has_room = state.is_room_wanted && state.has_room(self.bytes_max);
        if has_room {
            state.is_room_wanted = false;
        }
        has_room
    }

    /// Why the connection closes.
    pub fn closing(&self) -> Option<CloseCode> {
        self.state.lock().close
    }

    /// Since when nothing of what waits has left.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.state.lock().blocked_since
    }
}

impl State {
    fn admits(&self, bytes: usize, bytes_max: usize) -> bool {
        self.runs.is_empty() || self.bytes + bytes <= bytes_max
    }

    fn waiting_bytes(&self) -> usize {
        self.bytes + self.uncounted_bytes + self.answer_bytes - self.sent_bytes
    }

    fn forget_bytes(&mut self) {
        (self.bytes, self.uncounted_bytes, self.answer_bytes) = (0, 0, 0);
    }

    fn has_room(&self, bytes_max: usize) -> bool {
        self.uncounted_bytes == 0 && self.bytes <= bytes_max / 2
    }

    fn put(&mut self, frame: Frame, kind: RunKind) {
        match kind {
            RunKind::Counted => self.bytes += frame.len(),
            RunKind::Uncounted | RunKind::Control => self.uncounted_bytes += frame.len(),
            RunKind::Answer => self.answer_bytes += frame.len(),
        }
        self.runs.push_back(Run { frame, kind });
    }

    fn pop(&mut self) -> Option<Run> {
        let run = self.runs.pop_front()?;
        match run.kind {
            RunKind::Counted => self.bytes -= run.frame.len(),
            RunKind::Uncounted | RunKind::Control => self.uncounted_bytes -= run.frame.len(),
            RunKind::Answer => self.answer_bytes -= run.frame.len(),
        }
        if self.runs.is_empty() && RUNS_KEPT_MAX < self.runs.capacity() {
            self.runs = VecDeque::new();
        }
        Some(run)
    }

    /// Drops what has not begun to leave.
    fn drop_waiting(&mut self) {
        let begun = (0 < self.sent_bytes).then(|| self.pop()).flatten();
        self.runs.clear();
        self.forget_bytes();
        if let Some(run) = begun {
            self.put(run.frame, run.kind);
        }
    }

    /// Writes until nothing waits, which is `true`, or the socket takes no more.
    fn write(&mut self) -> io::Result<bool> {
        loop {
            if matches!(self.sink, Sink::Gone) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if self.sent_bytes == 0
                && let Some(frame) = self.control.take()
            {
                // In place of one that could not leave: a peer that pings and reads nothing would pile them up.
                if let Some(first) = self.runs.front()
                    && first.kind == RunKind::Control
                {
                    self.pop();
                }
                self.uncounted_bytes += frame.len();
                let kind = RunKind::Control;
                self.runs.push_front(Run { frame, kind });
            }
            if self.runs.is_empty() {
                self.blocked_since = None;
                return Ok(true);
            }
            let Sink::Socket(socket) = &self.sink else {
                return Ok(false);
            };
            match write_runs(socket, &self.runs, self.sent_bytes) {
                Ok(bytes) => self.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked_since.get_or_insert_with(Instant::now);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes note that so many bytes have left.
    fn advance(&mut self, bytes: usize) {
        self.sent_bytes += bytes;
        while let Some(run) = self.runs.front()
            && run.frame.len() <= self.sent_bytes
        {
            self.sent_bytes -= run.frame.len();
            self.pop();
        }
        if self.blocked_since.is_some() {
            self.blocked_since = Some(Instant::now());
        }
    }
}

/// Writes the first runs at once: one large one as it is, small ones gathered.
fn write_runs(
    socket: &OwnedWriteHalf,
    runs: &VecDeque<Run>,
    sent_bytes: usize,
) -> io::Result<usize> {
    let first = runs
        .front()
        .map_or(&[][..], |run| &run.frame.as_bytes()[sent_bytes..]);
    if runs.len() == 1 || GATHER_BYTES_MAX <= first.len() {
        return socket.try_write(first);
    }
    GATHERED.with_borrow_mut(|gathered| {
        gathered.clear();
        gathered.extend_from_slice(first);
        for run in runs.iter().skip(1) {
            if GATHER_BYTES_MAX < gathered.len() + run.frame.len() {
                break;
            }
            gathered.extend_from_slice(run.frame.as_bytes());
        }
        socket.try_write(gathered)
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::frame::CONTROL_BYTES_MAX;
    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::encoded("x".repeat(bytes).into())
    }

    /// An outbox and its peer's socket.
    async fn pair(bytes_max: usize) -> (Outbox, OwnedWriteHalf, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let peer = TcpStream::connect(addr).await.expect("a connection");
        let (socket, _) = listener.accept().await.expect("a connection");
        socket.writable().await.expect("a socket that takes bytes");
        let (read, write) = socket.into_split();
        let unused = TcpStream::connect(addr)
            .await
            .expect("a connection")
            .into_split()
            .1;
        drop(read);
        (Outbox::to_socket(write, bytes_max), unused, peer)
    }

    #[tokio::test]
    async fn what_the_socket_takes_never_waits() {
        let (outbox, _unused, mut peer) = pair(10).await;
        outbox.deliver(&frame(100)).expect("room");
        outbox.deliver(&frame(5)).expect("room");
        assert_eq!(outbox.bytes(), 0);
        let mut got = [0; 105];
        peer.read_exact(&mut got).await.expect("what was sent");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_not_taken_and_told_once_there_is_room() {
        let (outbox, _unused, mut peer) = pair(1_000).await;
        let mut admitted = 0;
        while outbox.deliver(&frame(100)).is_ok() {
            admitted += 1;
        }
        assert!(outbox.bytes() <= 1_100);
        assert!(outbox.deliver(&frame(100)).is_err());
        let mut got = vec![0; admitted * 100];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let reads = async {
            peer.read_exact(&mut got).await.expect("what was sent");
        };
        tokio::pin!(reads);
        let mut has_room = false;
        while !has_room {
            tokio::select! {
                () = &mut reads => {}
                () = tokio::task::yield_now() => {}
            }
            has_room = outbox.poll_send(&mut cx).expect("a connection").has_room;
        }
        assert!(outbox.deliver(&frame(100)).is_ok());
    }

    #[tokio::test]
    async fn pongs_that_cannot_leave_take_each_others_place() {
        let (outbox, _unused, mut peer) = pair(10).await;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut ping = |outbox: &Outbox, payload: &str| {
            outbox.put_control(Frame::pong(payload.as_bytes()));
            outbox.poll_send(&mut cx).expect("a connection").is_done
        };
        let payload = "x".repeat(CONTROL_BYTES_MAX);
        while ping(&outbox, &payload) {}
        let waiting = outbox.bytes();
        for _ in 0..1_000 {
            ping(&outbox, &payload);
        }
        assert!(outbox.bytes() <= 2 * (CONTROL_BYTES_MAX + 2), "{waiting}");
        assert!(!ping(&outbox, "last"));
        let mut got = vec![0; 1 << 20];
        let mut tail = Vec::new();
        while !tail.ends_with(b"last") {
            tokio::select! {
                read = peer.read(&mut got) => {
                    tail = got[..read.expect("what was sent")].to_vec();
                }
                () = tokio::task::yield_now() => {}
            }
            outbox.poll_send(&mut cx).expect("a connection");
        }
    }

    #[test]
    fn a_queue_that_is_full_closes_the_connection() {
        let outbox = Outbox::to_taker(10);
        outbox.push(frame(100));
        assert!(!outbox.is_closing());
        outbox.push(frame(1));
        assert_eq!(outbox.closing(), Some(CloseCode::SlowConsumer));
    }

    #[test]
    fn answers_leave_the_bounds_to_the_others_and_have_one_of_their_own() {
        let outbox = Outbox::to_taker(10);
        outbox.answer(frame(11));
        assert!(outbox.is_overfull() && outbox.asks_room());
        outbox.deliver(&frame(10)).expect("room");
        outbox.answer(frame(59));
        outbox.answer(frame(100));
        assert_eq!(outbox.closing(), None, "80 bytes may wait");
        outbox.answer(frame(1));
        assert_eq!(outbox.closing(), Some(CloseCode::SlowConsumer));
    }

    #[test]
    fn uncounted_frames_leave_the_bound_to_the_others() {
        let outbox = Outbox::to_taker(10);
        outbox.deliver_uncounted(&frame(100));
        assert!(!outbox.asks_room());
        outbox.deliver(&frame(5)).expect("room");
        outbox.deliver(&frame(5)).expect("room");
        assert_eq!(outbox.deliver(&frame(1)), Err(Full));
        let cx = Context::from_waker(std::task::Waker::noop());
        assert!(!outbox.take_room());
        for bytes in [100, 5, 5] {
            let Poll::Ready(Some(run)) = outbox.poll_take(&cx) else {
                panic!("frames wait");
            };
            assert_eq!(run.len(), bytes);
        }
        assert!(outbox.take_room());
        assert!(!outbox.take_room());
    }
}
