//! Finds out what became of a batch whose answer was lost: a connection broke, or Redis took too long. The history names the
//! batch of each change; and once it was looked up, the batch cannot be carried out any more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::answer::Parts;
use super::commit_answer::CommandResult;
use super::committing::Sent;
use super::deciding::Batch;
use super::history::Entry;
use super::kept::Meta;
use super::known::Known;
use super::lines::Line;
use super::scripts::RESOLVE;
use super::work::Pending;
use crate::store::{StoreError, StoreErrorCause};

/// Pause between two attempts to ask.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// How long beyond its deadline a batch stays marked, in milliseconds.
const MARK_SLACK_MS: u64 = 1_000;

/// What became of a batch.
pub(super) enum Resolved {
    /// Redis told, and will not carry it out later.
    Told {
        meta: Option<Meta>,
        /// The commands that were done, by their place in the batch.
        done: Vec<(usize, CommandResult)>,
        /// Whether the history has all that happened since the batch was sent.
        reaches: bool,
    },
    /// Redis could not be asked in time.
    Unknown,
}

impl Shared {
    /// Asks until there is an answer, at most as long as a command may wait that was asked for at `since`.
    pub(super) async fn resolve(
        self: &Arc<Self>,
        line: &Line,
        sent: &Sent,
        since: Instant,
        error: &StoreError,
    ) -> Resolved {
        tracing::warn!(stream = %line.key.stream, group = %line.key.group, %error, "an answer of Redis was lost");
        let after = sent.after_seq.to_string();
        let sent_ms = sent.not_before_ms.to_string();
        let until = (sent.deadline_ms + MARK_SLACK_MS).to_string();
        let deadline = self.answer_deadline_of(since);
        loop {
            let answer = self
                .client
                .script_by(
                    line.keys.slot,
                    &RESOLVE,
                    &[&line.keys.group, &line.keys.history],
                    &[
                        sent.name.as_bytes(),
                        after.as_bytes(),
                        sent_ms.as_bytes(),
                        until.as_bytes(),
                    ],
                    deadline,
                )
                .await;
            let told = answer.ok().and_then(|value| read(value).ok());
            if let Some(told) = told {
                return told;
            }
            if deadline <= Instant::now() {
                return Resolved::Unknown;
            }
            tokio::time::sleep(ASK_PAUSE).await;
        }
    }

    /// Tells the commands of a batch what became of them. Those that were surely not done stay in `pending`.
    pub(super) async fn settle(
        &self,
        line: &Line,
        known: &mut Known,
        batch: Batch,
        pending: &mut VecDeque<Pending>,
        resolved: Resolved,
        error: &StoreError,
    ) {
        let Resolved::Told {
            meta,
            done,
            reaches,
        } = resolved
        else {
            for _ in batch.decided {
                if let Some(command) = pending.pop_front() {
                    command.fail(&unknown(error));
                }
            }
            return;
        };
        if let Some(meta) = &meta {
            known.hear(&meta.epoch, meta.seq, meta.latest_ms());
        }
        let last_done = done.last().map(|(index, _)| *index);
        let mut done = done.into_iter().peekable();
        let mut again = VecDeque::new();
        for (index, decided) in batch.decided.into_iter().enumerate() {
            if last_done.is_none_or(|last_done| last_done < index) && reaches {
                break;
            }
            let Some(command) = pending.pop_front() else {
                break;
            };
            let result = done.next_if(|(place, _)| *place == index);
            let is_before = last_done.is_some_and(|last_done| index < last_done);
            match result {
                Some((_, result)) => self.finish(line, known, decided, result, command).await,
                None if is_before && decided.draft.is_none() => {
                    let nothing = CommandResult::Nothing;
                    self.finish(line, known, decided, nothing, command).await;
                }
                // It was refused for lack of room, and will be again.
                None if reaches || last_done.is_some_and(|last_done| last_done < index) => {
                    again.push_back(command);
                }
                None => command.fail(&unknown(error)),
            }
        }
        while let Some(command) = again.pop_back() {
            pending.push_front(command);
        }
    }
}

fn unknown(error: &StoreError) -> StoreError {
    StoreError::new(
        StoreErrorCause::Unknown,
        format!(
            "the command may or may not have been carried out: {}",
            error.message
        ),
    )
}

fn read(value: redis::Value) -> Result<Resolved, StoreError> {
    let mut parts = Parts::of(value)?;
    let meta = parts.optional_bytes()?;
    let meta = meta.map(|meta| Meta::read(&meta)).transpose()?;
    let reaches = parts.number()? == 1;
    let mut entries = parts.parts()?;
    let mut done = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = Entry::read(entry)?;
        let place = entry
            .batch
            .rsplit(':')
            .next()
            .and_then(|place| place.parse().ok());
        if let Some(place) = place {
            done.push((
                place,
                CommandResult::Changed {
                    seq: entry.seq,
                    timestamp: entry.timestamp,
                    base: entry.base,
                },
            ));
        }
    }
    Ok(Resolved::Told {
        meta,
        done,
        reaches,
    })
}
