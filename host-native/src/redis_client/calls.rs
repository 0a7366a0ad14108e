//! Sends a command to the server that it belongs to, again where it surely was not carried out, within a bounded time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{ErrorKind, Pipeline, ServerErrorKind, Value};

use super::backoff::jittered;
use super::connection::Unanswered;
use super::error::CallError;
use super::node::Node;
use super::options::{ANSWER_WAIT_MIN, RETRY_PAUSE};

/// Limits of one call.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Until when it is tried to send it.
    pub(super) send_by: Instant,
    /// Until when the answer is awaited.
    pub(super) answer_by: Instant,
}

impl Limits {
    pub(super) fn from_now(wait_max: Duration) -> Self {
        let now = Instant::now();
        Self {
            send_by: now + wait_max,
            answer_by: now + wait_max.max(ANSWER_WAIT_MIN),
        }
    }
}

/// What an error answer says about trying again. Each of these says that the command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The server cannot take it now.
    Later,
    /// The server is not the master any more.
    NotMaster,
}

/// Whether the command may be sent again although the server answered.
pub(super) fn again(value: &Value) -> Option<Again> {
    let Value::ServerError(error) = value else {
        return None;
    };
    match error.kind() {
        Some(ServerErrorKind::ReadOnly) => Some(Again::NotMaster),
        Some(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown,
        ) => Some(Again::Later),
        // A long script, or too few replicas: refused before anything is done.
        None if matches!(error.code(), "BUSY" | "NOREPLICAS") => Some(Again::Later),
        _ => None,
    }
}

/// Sends packed commands until their server has taken them, and returns what it answers to each.
pub(super) async fn send(
    node: &Arc<Node>,
    bytes: &[u8],
    replies: usize,
    limits: Limits,
) -> Result<Vec<Value>, CallError> {
    let unavailable = |why: Arc<str>| CallError::Unavailable {
        node: node.name.clone(),
        why,
    };
    loop {
        let connection = node.connection(limits.send_by).await;
        let connection = connection.map_err(unavailable)?;
        let sent = connection.send(bytes.to_vec(), replies, limits.answer_by);
        let why: Arc<str> = match sent.await {
            Ok(answers) => {
                // A pipeline in which only some commands were refused has been carried out in part.
                let Some(reason) = answers.first().and_then(again) else {
                    return Ok(answers);
                };
                if !answers.iter().all(|answer| again(answer).is_some()) {
                    return Ok(answers);
                }
                if reason == Again::NotMaster {
                    node.check_soon();
                }
                error_text(&answers[0])
            }
            Err(Unanswered::NotSent(why)) => why,
            Err(Unanswered::Sent(why)) => {
                return Err(CallError::Unknown {
                    node: node.name.clone(),
                    why,
                });
            }
        };
        let pause = jittered(RETRY_PAUSE);
        if Instant::now() + pause >= limits.send_by {
            return Err(unavailable(why));
        }
        tokio::time::sleep(pause).await;
    }
}

/// The answer of one command, its error as an error.
pub(super) fn one(mut answers: Vec<Value>) -> Result<Value, CallError> {
    match answers.pop() {
        Some(Value::ServerError(error)) => Err(CallError::Refused(error.into())),
        Some(value) => Ok(value),
        None => Ok(Value::Nil),
    }
}

/// How many answers a pipeline has on the wire.
pub(super) fn replies(commands: &Pipeline) -> usize {
    // MULTI and EXEC are answered too.
    commands.len() + if commands.is_transaction() { 2 } else { 0 }
}

/// The answers of a transaction are all in that of `EXEC`.
pub(super) fn transacted(mut answers: Vec<Value>) -> Result<Vec<Value>, CallError> {
    match answers.pop() {
        Some(Value::Array(values)) => Ok(values),
        Some(Value::ServerError(aborted)) => {
            // What stands before tells why.
            let why = answers.into_iter().find_map(|answer| match answer {
                Value::ServerError(error) => Some(error),
                _ => None,
            });
            Err(CallError::Refused(why.unwrap_or(aborted).into()))
        }
        _ => Err(CallError::Refused(
            (
                ErrorKind::UnexpectedReturnType,
                "EXEC answered no list of answers",
            )
                .into(),
        )),
    }
}

fn error_text(value: &Value) -> Arc<str> {
    match value {
        Value::ServerError(error) => error.to_string().into(),
        _ => "no error".into(),
    }
}
