//! What a trigger has to do next: questions to Redis, changes that can be handed over, and when to look again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::super::heard::Heard;
use super::super::pursuit::{HandOver, Read};
use super::{Came, Leader};
use crate::engine::{Gate, Lane};

/// How often it is looked at whether there are changes of which no message came.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Most changes that go into lanes before others get their turn.
const HAND_OVERS_AT_ONCE: usize = 64;

/// What is to be done next.
pub(super) struct Due {
    pub(super) questions: Vec<BoxFuture<'static, Came>>,
    pub(super) hand_overs: Vec<HandOver<Arc<Heard>>>,
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) gate: Arc<Gate>,
    pub(super) generation: u64,
    pub(super) at: Instant,
    /// A lane has no room although something is due.
    pub(super) room: Option<BoxFuture<'static, ()>>,
}

impl Leader {
    pub(super) fn due(self: &Arc<Self>) -> Due {
        let now = Instant::now();
        let now_ms = self.now();
        let redis_ms = self.shared.ground.redis_ms(&self.identity);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut questions: Vec<BoxFuture<'static, Came>> = Vec::new();
        if let Some(hold) = state.tenure.ask(now_ms, redis_ms) {
            let leader = self.clone();
            questions.push(Box::pin(async move {
                let answer = leader.shared.ground.hold(&leader.identity, &hold).await;
                Came::Held(hold, now_ms, answer)
            }));
        }
        let generation = state.generation;
        let mut hand_overs = Vec::new();
        let mut room = None;
        let mut at = state
            .tenure
            .ask_at()
            .map_or(now + LOOK_INTERVAL, |ms| self.instant(ms));
        let may_hand_over = state.tenure.holds(now_ms);
        if let Some(pursuit) = &mut state.tenure.pursuit {
            if state.look_at <= now {
                state.look_at = now + LOOK_INTERVAL;
                match std::mem::take(&mut state.is_first_look) {
                    // Messages of one instance say nothing of another that told nobody yet.
                    true => pursuit.may_have_missed(),
                    false => pursuit.look_again(),
                }
            }
            at = at.min(state.look_at);
            if state.is_listening && state.read_from <= now {
                while let Some(read) = pursuit.next_read() {
                    questions.push(self.clone().read(read, generation, redis_ms));
                }
            } else if state.is_listening {
                at = at.min(state.read_from);
            }
            while may_hand_over && pursuit.has_ready() {
                // Lanes are filled after this, so each has to have room for all of them.
                if let Some(full) = state.lanes.iter().find(|lane| !lane.has_room()) {
                    room = Some(Box::pin(full.room()) as BoxFuture<'static, ()>);
                    break;
                }
                let left = state.lanes.iter().map(|lane| lane.room_left()).min();
                if left.unwrap_or(0).min(HAND_OVERS_AT_ONCE) <= hand_overs.len() {
                    // The rest in the next turn.
                    at = now;
                    break;
                }
                hand_overs.extend(pursuit.next_hand_over());
            }
            let lost = pursuit.take_lost();
            if 0 < lost {
                self.tell_lost(lost);
            }
        }
        Due {
            questions,
            hand_overs,
            lanes: state.lanes.iter().cloned().collect(),
            gate: state.gate.clone(),
            generation,
            at,
            room,
        }
    }

    pub(super) fn tell_lost(&self, lost: u64) {
        self.shared.metrics.stream_trigger_changes_lost.inc_by(lost);
        tracing::error!(
            function = self.identity.as_ref(),
            stream = %self.filter.stream,
            lost,
            "a stream trigger missed changes: the history of their group does not reach back to them (history_changes_max, history_bytes_max)"
        );
    }

    fn read(
        self: Arc<Self>,
        read: Read,
        generation: u64,
        redis_ms: u64,
    ) -> BoxFuture<'static, Came> {
        Box::pin(async move {
            let (ground, stream) = (&self.shared.ground, &*self.filter.stream);
            match &read {
                Read::Touched { since_ms } => {
                    let touched = ground.touched(stream, *since_ms).await;
                    Came::Touched(generation, read, redis_ms, touched)
                }
                Read::History { group, from } => {
                    let found = ground.history(stream, group, from).await;
                    Came::Found(generation, read, found)
                }
            }
        })
    }
}
