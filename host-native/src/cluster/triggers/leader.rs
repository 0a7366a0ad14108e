//! One trigger as this instance has it: its equal bindings here, and the task that leads it while this instance may.
//!
//! The decisions are those of [`Tenure`] and its pursuit; here they are carried out: questions to Redis, messages that come, changes
//! into the lanes of the bindings.

mod due;
mod leaving;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use iii_stream_core::GroupRef;
use iii_stream_core::relay::{Relayed, RelayedChange};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ground::Ground;
use super::handed::Handed;
use super::heard::Heard;
use super::pursuit::{Cursor, Found, HandOver, Pursuit, Read};
use super::taps::Taps;
use super::tenure::{Answer, Hold, LeaseTimes, Tenure, Turn};
use crate::engine::{BoundList, Gate, Lane, StreamFilter};
use crate::metrics::Metrics;

/// When it is looked the first time: other instances that did not know of the trigger yet know of it then.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// How long after a failed read the next one is begun.
const READ_PAUSE: Duration = Duration::from_millis(200);

/// What all triggers share.
pub(super) struct Shared {
    pub(super) ground: Ground,
    pub(super) taps: Taps,
    pub(super) metrics: Arc<Metrics>,
    pub(super) times: LeaseTimes,
    /// The monotonic clock of leases begins here.
    pub(super) begin: Instant,
}

/// See the module.
pub(super) struct Leader {
    pub(super) identity: Arc<str>,
    pub(super) filter: StreamFilter,
    shared: Arc<Shared>,
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    lanes: BoundList<Arc<Lane>>,
    tenure: Tenure<Arc<Heard>>,
    gate: Arc<Gate>,
    /// Counts the terms, so that answers to an earlier one are known.
    generation: u64,
    /// The stream's channel is heard.
    is_listening: bool,
    look_at: Instant,
    /// Nobody has looked in this term yet.
    is_first_look: bool,
    read_from: Instant,
    /// Nobody else has the trigger: it is to be forgotten when it is given up.
    forgets: bool,
    is_leaving: bool,
    has_ended: bool,
}

/// What came of a question to Redis.
enum Came {
    Held(Hold, u64, Option<Answer>),
    Touched(u64, Read, u64, Option<Vec<Arc<str>>>),
    Found(u64, Read, Option<Found<Arc<Heard>>>),
}

impl Leader {
    /// A trigger that begins at `fresh`, if nobody knows it. Its task is [`Leader::run`].
    pub(super) fn new(
        shared: &Arc<Shared>,
        identity: Arc<str>,
        filter: StreamFilter,
        fresh: Cursor,
    ) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            identity,
            filter,
            shared: shared.clone(),
            state: Mutex::new(State {
                lanes: BoundList::default(),
                tenure: Tenure::new(shared.times, fresh),
                gate: Arc::new(Gate::open_until(now)),
                generation: 0,
                is_listening: false,
                look_at: now,
                is_first_look: false,
                read_from: now,
                forgets: false,
                is_leaving: false,
                has_ended: false,
            }),
            wake: Notify::new(),
        })
    }

    /// Adds a binding.
    pub(super) fn add(&self, lane: Arc<Lane>) {
        let id = lane.binding.id.clone();
        self.state.lock().lanes.insert(&id, lane);
    }

    /// Takes a binding away. With the last one the trigger is given up, and forgotten if nobody else has it. Whether it was the
    /// last.
    pub(super) fn remove(&self, binding_id: &str, forgets: bool) -> bool {
        let mut state = self.state.lock();
        let lane = state.lanes.remove(binding_id);
        if state.lanes.is_empty() {
            // What has no answer by now is done again, by whoever leads next.
            state.gate.close();
            state.has_ended = true;
            state.forgets = forgets;
        }
        let has_ended = state.has_ended;
        drop(state);
        drop(lane);
        self.wake.notify_one();
        has_ended
    }

    /// Gives the trigger up without waiting for what was called.
    pub(super) fn give_up_now(&self) {
        let mut state = self.state.lock();
        state.gate.close();
        state.has_ended = true;
        drop(state);
        self.wake.notify_one();
    }

    /// Takes and hands over nothing more. The task ends once all that was handed over is done.
    pub(super) fn leave(&self) {
        self.state.lock().is_leaving = true;
        self.wake.notify_one();
    }

    /// The lease may be free.
    pub(super) fn may_be_free(&self) {
        let now = self.now();
        self.state.lock().tenure.may_be_free(now);
        self.wake.notify_one();
    }

    /// Redis cannot be heard, or can be again.
    pub(super) fn set_cut_off(&self, is_cut_off: bool) {
        let now = self.now();
        self.state.lock().tenure.set_cut_off(is_cut_off, now);
        self.wake.notify_one();
    }

    /// The stream's channel is heard from now on.
    pub(super) fn listens(&self) {
        let mut state = self.state.lock();
        state.is_listening = true;
        if let Some(pursuit) = &mut state.tenure.pursuit {
            pursuit.may_have_missed();
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Takes a message of the stream's channel.
    pub(super) fn hear(&self, relayed: &Relayed, changes: &[Option<Arc<Heard>>]) {
        let mut state = self.state.lock();
        let Some(pursuit) = &mut state.tenure.pursuit else {
            return;
        };
        let (group, epoch) = (&relayed.group.group, &relayed.epoch);
        for (change, heard) in relayed.changes.iter().zip(changes) {
            pursuit.heard(group, epoch, RelayedChange::seq(change), heard.clone());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A change that was handed over is done.
    pub(super) fn done(&self, generation: u64, group: &Arc<str>, era: u32, seq: u64) {
        self.settle(generation, |pursuit| pursuit.done(group, era, seq));
    }

    /// A change that was handed over is not done, and will not be in this term.
    pub(super) fn given_up(&self, generation: u64) {
        self.settle(generation, Pursuit::given_up);
    }

    fn settle(&self, generation: u64, settle: impl FnOnce(&mut Pursuit<Arc<Heard>>)) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.generation == generation
            && let Some(pursuit) = &mut state.tenure.pursuit
        {
            settle(pursuit);
            let is_last = (state.is_leaving || state.has_ended) && pursuit.open() == 0;
            drop(guard);
            if is_last {
                self.wake.notify_one();
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.shared.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn instant(&self, ms: u64) -> Instant {
        self.shared.begin + Duration::from_millis(ms)
    }

    /// Leads the trigger when it may, until it is given up. Then the lease is let go.
    pub(super) async fn run(self: Arc<Self>) {
        let mut questions = FuturesUnordered::new();
        loop {
            if self.is_over() {
                break;
            }
            let due = self.due();
            questions.extend(due.questions);
            self.hand_over(due.hand_overs, &due.lanes, &due.gate, due.generation);
            let has_room = due.room.is_some();
            let room = due.room.unwrap_or_else(|| Box::pin(std::future::pending()));
            tokio::select! {
                Some(came) = questions.next(), if !questions.is_empty() => self.take(came),
                () = self.wake.notified() => {}
                () = room, if has_room => {}
                () = tokio::time::sleep_until(due.at) => {}
            }
        }
        // The lease is asked for by one question at a time, and that one may be about to take it.
        while self.state.lock().tenure.ask_at().is_none() {
            match questions.next().await {
                Some(came) => self.take(came),
                None => break,
            }
        }
        self.give_up().await;
    }

    /// Whether the trigger is to be given up now.
    fn is_over(&self) -> bool {
        let mut state = self.state.lock();
        if state.has_ended {
            return true;
        }
        if !state.is_leaving {
            return false;
        }
        let is_over = state.tenure.pursuit.as_mut().is_none_or(|pursuit| {
            pursuit.halt();
            pursuit.open() == 0
        });
        state.has_ended = is_over;
        is_over
    }

    /// Hands changes to the bindings that want them; what nobody wants is done.
    fn hand_over(
        self: &Arc<Self>,
        hand_overs: Vec<HandOver<Arc<Heard>>>,
        lanes: &[Arc<Lane>],
        gate: &Arc<Gate>,
        generation: u64,
    ) {
        for HandOver { group, change, era } in hand_overs {
            let of = GroupRef {
                stream: &self.filter.stream,
                group: &group,
            };
            let is_wanted = self.filter.matches(&group, &change.change);
            let input = is_wanted.then(|| change.input(of));
            if let Some(None) = input {
                self.tell_lost(1);
            }
            let handed = Arc::new(Handed {
                leader: self.clone(),
                gate: gate.clone(),
                generation,
                group,
                era,
                seq: change.change.seq,
                is_given_up: AtomicBool::new(false),
            });
            if let Some(Some(input)) = input {
                for lane in lanes {
                    lane.push_with(input.clone(), Some(handed.clone()));
                }
            }
        }
    }

    fn take(self: &Arc<Self>, came: Came) {
        let now = self.now();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        match came {
            Came::Held(hold, _, None) => state.tenure.failed(hold, now),
            Came::Held(hold, asked_at, Some(answer)) => {
                let turn = state.tenure.answered(&hold, asked_at, now, answer);
                let until = self.instant(state.tenure.until());
                match turn {
                    Turn::None => state.gate.extend(until),
                    Turn::Began => {
                        state.gate.close();
                        state.gate = Arc::new(Gate::open_until(until));
                        state.generation += 1;
                        state.look_at = Instant::now() + FIRST_LOOK;
                        state.is_first_look = true;
                        state.read_from = Instant::now();
                        let is_over = state.has_ended;
                        state.is_listening = false;
                        drop(guard);
                        if !is_over {
                            self.shared.taps.add(&self.shared.ground, self);
                        }
                    }
                    Turn::Lost => {
                        state.gate.close();
                        state.generation += 1;
                        state.is_listening = false;
                        drop(guard);
                        self.shared.taps.remove(&self.shared.ground, self);
                        tracing::debug!(trigger = %self.identity, "another instance leads a stream trigger");
                    }
                }
            }
            Came::Touched(generation, read, begun_ms, touched) => {
                let Some(pursuit) = state.pursuit_of(generation) else {
                    return;
                };
                match touched {
                    Some(groups) => pursuit.touched(begun_ms, groups),
                    None => {
                        pursuit.failed(&read);
                        state.read_from = Instant::now() + READ_PAUSE;
                    }
                }
            }
            Came::Found(generation, read, found) => {
                let Some(pursuit) = state.pursuit_of(generation) else {
                    return;
                };
                match (&read, found) {
                    (Read::History { group, from }, Some(found)) => {
                        pursuit.found(group, from, found);
                    }
                    _ => {
                        pursuit.failed(&read);
                        state.read_from = Instant::now() + READ_PAUSE;
                    }
                }
            }
        }
    }
}

impl State {
    fn pursuit_of(&mut self, generation: u64) -> Option<&mut Pursuit<Arc<Heard>>> {
        let is_now = self.generation == generation;
        self.tenure.pursuit.as_mut().filter(|_| is_now)
    }
}
