//! Sends a command to the server that it belongs to, again where it surely was not carried out, within a bounded time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::jittered;
use super::connection::{Connection, Unanswered};
use super::error::CallError;
use super::node::Link;
use super::options::{ANSWER_WAIT_MIN, LATE_ANSWER_WAIT, RETRY_PAUSE};
use super::slot::Slot;
use super::topology::{Member, Topology};
use super::work::{Again, Done, Work};

/// Redirections that one call follows without a pause; a cluster whose servers point at each other must not be flooded.
const REDIRECTIONS_MAX: usize = 5;

/// Limits of one call.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Until when it is tried to send it.
    send_by: Instant,
    /// Until when the answer is awaited.
    answer_by: Instant,
}

impl Limits {
    pub(super) fn from_now(wait_max: Duration) -> Self {
        let now = Instant::now();
        Self {
            send_by: now + wait_max,
            answer_by: now + wait_max.max(ANSWER_WAIT_MIN),
        }
    }

    pub(super) fn by(deadline: Instant) -> Self {
        Self {
            send_by: deadline,
            answer_by: deadline.max(Instant::now() + LATE_ANSWER_WAIT),
        }
    }
}

/// Sends commands of a slot until a server has taken them.
pub(super) async fn send(
    topology: &Topology,
    slot: Slot,
    mut work: Work,
    limits: Limits,
) -> Result<Done, CallError> {
    let mut ask = None;
    let mut redirections = 0;
    loop {
        let asking = ask.is_some();
        let reached = match ask.take() {
            Some(member) => reach(&member, limits).await,
            None => reach_owner(topology, slot, limits).await,
        };
        let (member, connection) = reached.map_err(|(node, why)| not_sent(&work, node, why))?;
        let (bytes, replies) = work.to_send(asking);
        let sent = connection.send(bytes, replies, limits.answer_by).await;
        let mut is_redirected = false;
        let why: Arc<str> = match sent {
            Ok(answers) => match work.take(answers, asking) {
                Ok(done) => return Ok(done),
                Err((reason, text)) => {
                    match reason {
                        Again::Later => topology.refresh_soon(),
                        Again::NotMaster => {
                            member.node.check_soon();
                            topology.refresh_soon();
                        }
                        Again::Moved { slot, to } => {
                            topology.moved(slot, &to, &member.node.address());
                            is_redirected = true;
                        }
                        Again::Ask { to } if work.can_ask() => {
                            ask = topology.redirected(&to, &member.node.address());
                            is_redirected = ask.is_some();
                        }
                        Again::Ask { .. } => {}
                    }
                    text.into()
                }
            },
            Err(Unanswered::NotSent(why)) => why,
            Err(Unanswered::Sent(why)) => {
                return Err(CallError::Unknown {
                    node: member.node.name(),
                    why,
                });
            }
        };
        if is_redirected && redirections < REDIRECTIONS_MAX {
            redirections += 1;
            continue;
        }
        redirections = 0;
        let pause = jittered(RETRY_PAUSE);
        if Instant::now() + pause >= limits.send_by {
            return Err(not_sent(&work, member.node.name(), why));
        }
        tokio::time::sleep(pause).await;
    }
}

type Reached = Result<(Arc<Member>, Arc<Connection>), (Arc<str>, Arc<str>)>;

/// The connection to a server, or its name and why there is none in time.
async fn reach(member: &Arc<Member>, limits: Limits) -> Reached {
    match member.node.connection(limits.send_by).await {
        Ok(connection) => Ok((member.clone(), connection)),
        Err(why) => Err((member.node.name(), why)),
    }
}

/// The connection to the server of a slot, which may become another one meanwhile.
async fn reach_owner(topology: &Topology, slot: Slot, limits: Limits) -> Reached {
    if let Some(owner) = topology.owner(slot)
        && let Link::Up(connection) = owner.node.link()
    {
        return Ok((owner, connection));
    }
    let mut changes = topology.changes();
    loop {
        changes.mark_unchanged();
        let Some(owner) = topology.owner(slot) else {
            topology.refresh_soon();
            let waited = tokio::time::timeout_at(limits.send_by.into(), changes.changed()).await;
            if waited.is_err() {
                let nobody = format!("no server has slot {}", slot.index());
                return Err(("the cluster".into(), nobody.into()));
            }
            continue;
        };
        tokio::select! {
            biased;
            reached = reach(&owner, limits) => return reached,
            _ = changes.changed() => {}
        }
    }
}

/// What is wrong with a call that is given up before it was sent, or sent again.
fn not_sent(work: &Work, node: Arc<str>, why: Arc<str>) -> CallError {
    if work.is_begun() {
        let why = format!("some commands of the pipeline were carried out, others not: {why}");
        return CallError::Unknown {
            node,
            why: why.into(),
        };
    }
    CallError::Unavailable { node, why }
}
