//! What is to be sent for one call, and what of it has been answered for good.

use bytes::Bytes;
use redis::{Cmd, ErrorKind, Pipeline, ServerErrorKind, Value};

use super::error::CallError;

/// What an error answer says about trying again. Each of these says that the command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The server cannot take it now.
    Later,
    /// The server is not the master any more.
    NotMaster,
    /// The slot is at another server.
    Moved { slot: usize, to: String },
    /// This key is at another server already, others of the slot are not.
    Ask { to: String },
}

/// Whether the command may be sent again although the server answered.
fn again(value: &Value) -> Option<Again> {
    let Value::ServerError(error) = value else {
        return None;
    };
    let redirection = || {
        let mut words = error.details()?.split_ascii_whitespace();
        let slot = words.next()?.parse().ok()?;
        Some((slot, words.next()?.to_owned()))
    };
    match error.kind() {
        Some(ServerErrorKind::Moved) => redirection().map(|(slot, to)| Again::Moved { slot, to }),
        Some(ServerErrorKind::Ask) => redirection().map(|(_, to)| Again::Ask { to }),
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

/// The commands of one call.
pub(super) enum Work {
    /// Each is carried out or not by itself.
    Commands(Vec<Command>),
    /// All or none.
    Transaction { bytes: Bytes, commands: usize },
}

/// One command and its answer.
pub(super) struct Command {
    bytes: Bytes,
    answer: Option<Value>,
}

impl Work {
    pub(super) fn command(command: &Cmd) -> Self {
        Self::Commands(vec![Command::new(command)])
    }

    pub(super) fn pipeline(commands: &Pipeline) -> Self {
        if commands.is_transaction() {
            return Self::Transaction {
                bytes: commands.get_packed_pipeline().into(),
                commands: commands.len(),
            };
        }
        Self::Commands(commands.cmd_iter().map(Command::new).collect())
    }

    /// What has to be sent now, and how many answers it has. `asking`: the server is told that it does not own the slot yet.
    pub(super) fn to_send(&self, asking: bool) -> (Bytes, usize) {
        let commands = match self {
            // MULTI and EXEC are answered too.
            Self::Transaction { bytes, commands } => return (bytes.clone(), commands + 2),
            Self::Commands(commands) => commands,
        };
        let left = commands.iter().filter(|command| command.answer.is_none());
        let left: Vec<_> = left.map(|command| command.bytes.clone()).collect();
        match &left[..] {
            [one] if !asking => (one.clone(), 1),
            many if !asking => (many.concat().into(), many.len()),
            many => {
                let asking = redis::cmd("ASKING").get_packed_command();
                let mut bytes = Vec::new();
                for command in many {
                    bytes.extend_from_slice(&asking);
                    bytes.extend_from_slice(command);
                }
                (bytes.into(), 2 * many.len())
            }
        }
    }

    /// Takes answers to what was sent: done with all, or why something has to be sent again.
    pub(super) fn take(
        &mut self,
        answers: Vec<Value>,
        asking: bool,
    ) -> Result<Done, (Again, String)> {
        let commands = match self {
            Self::Transaction { .. } => {
                let refused = answers
                    .iter()
                    .find_map(|answer| Some((again(answer)?, answer)));
                return match refused {
                    Some((reason, answer)) => Err((reason, error_text(answer))),
                    None => Ok(Done(answers)),
                };
            }
            Self::Commands(commands) => commands,
        };
        let answers = answers.into_iter().skip(usize::from(asking));
        let answers = answers.step_by(if asking { 2 } else { 1 });
        let left = commands
            .iter_mut()
            .filter(|command| command.answer.is_none());
        let mut refused = None;
        for (command, answer) in left.zip(answers) {
            match again(&answer) {
                None => command.answer = Some(answer),
                Some(reason) => {
                    refused.get_or_insert_with(|| (reason, error_text(&answer)));
                }
            }
        }
        match refused {
            Some(refused) => Err(refused),
            None => Ok(Done(
                commands
                    .iter_mut()
                    .filter_map(|command| command.answer.take())
                    .collect(),
            )),
        }
    }

    /// Whether some of the commands have been carried out.
    pub(super) fn is_begun(&self) -> bool {
        match self {
            Self::Transaction { .. } => false,
            Self::Commands(commands) => commands.iter().any(|command| command.answer.is_some()),
        }
    }

    /// Whether it can be sent to a server that does not own the slot yet. A transaction waits until the slot has moved.
    pub(super) fn can_ask(&self) -> bool {
        matches!(self, Self::Commands(_))
    }
}

impl Command {
    fn new(command: &Cmd) -> Self {
        Self {
            bytes: command.get_packed_command().into(),
            answer: None,
        }
    }
}

/// All answers of a call.
pub(super) struct Done(Vec<Value>);

impl Done {
    /// The answer of one command, its error as an error.
    pub(super) fn one(mut self) -> Result<Value, CallError> {
        match self.0.pop() {
            Some(Value::ServerError(error)) => Err(CallError::Refused(error.into())),
            Some(value) => Ok(value),
            None => Ok(Value::Nil),
        }
    }

    /// The answers of a pipeline. Those of a transaction are all in that of `EXEC`.
    pub(super) fn all(mut self, is_transaction: bool) -> Result<Vec<Value>, CallError> {
        if !is_transaction {
            return Ok(self.0);
        }
        match self.0.pop() {
            Some(Value::Array(values)) => Ok(values),
            Some(Value::ServerError(aborted)) => {
                // What stands before tells why.
                let why = self.0.into_iter().find_map(|answer| match answer {
                    Value::ServerError(error) => Some(error),
                    _ => None,
                });
                Err(CallError::Refused(why.unwrap_or(aborted).into()))
            }
            _ => Err(CallError::Refused(redis::RedisError::from((
                ErrorKind::UnexpectedReturnType,
                "EXEC answered no list of answers",
            )))),
        }
    }
}

fn error_text(value: &Value) -> String {
    match value {
        Value::ServerError(error) => {
            format!("{} {}", error.code(), error.details().unwrap_or_default())
        }
        _ => String::new(),
    }
}
