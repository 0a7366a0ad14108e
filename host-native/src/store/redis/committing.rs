//! Commits what waits in a group: decides it, sends it as one script call, and tells what became of it. Where things were not as
//! they were thought to be, the rest is decided again on what the script found.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iii_stream_core::{Change, Committed, Kind, Outcome, Refusal, client_tag};

use super::answer::store_error;
use super::arguments::Arguments;
use super::commit_answer::{Answer, CommandResult, Conflict};
use super::deciding::{Batch, Decided, decide_batch};
use super::known::{Known, KnownClient, KnownItem};
use super::lines::Line;
use super::scripts::{COMMIT, COMMIT_GROUP_ARGS};
use super::time_limit::within;
use super::work::{Pending, Task};
use super::{Shared, Sinks};
use crate::redis_client::CallError;
use crate::store::{StoreError, StoreErrorCause};

/// Longest body of a change in a message; what is longer is read from the history.
const MESSAGE_BODY_BYTES_MAX: u64 = 4 << 20;

/// Values that a script gives back end once they take so many bytes; the last may go beyond.
const REPLY_BYTES_MAX: u64 = 8 << 20;

/// How long a group that holds nothing is kept, for those who come back.
pub(super) const EMPTY_MS: u64 = 3_600_000;

/// How far the clock of Redis may be from what is thought of it, in milliseconds.
const CLOCK_SLACK_MS: u64 = 2_000;

/// How often a command loses against others before its group is asked to let this instance in.
const LOSSES_BEFORE_TURN: u32 = 3;

/// What a turn takes beside two calls, in milliseconds.
const TURN_SLACK_MS: u64 = 20;

/// Longest turn, in milliseconds; an instance that dies holds it so long.
const TURN_MAX_MS: u64 = 1_000;

/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// A batch that was sent.
pub(super) struct Sent {
    /// Names the batch; nobody else uses the name.
    pub(super) name: String,
    /// Redis refuses to begin with it later than this, in Unix milliseconds.
    pub(super) deadline_ms: u64,
    /// It was sent later than this, in Unix milliseconds.
    pub(super) not_before_ms: u64,
    /// The group's last sequence that was known before.
    pub(super) after_seq: u64,
}

impl Shared {
    /// Carries out commands in their order, and tells each what became of it.
    pub(super) async fn commit_all(
        self: &Arc<Self>,
        line: &Line,
        known: &mut Known,
        mut pending: VecDeque<Pending>,
    ) {
        let mut losses = 0;
        let mut call_ms = 0;
        loop {
            self.fail_overdue(&mut pending, losses);
            let Some(first) = pending.front() else { return };
            let since = first.since;
            let deadline = self.deadline_of(since);
            let batch = decide_batch(pending.iter(), known);
            if let Err(mut error) = within(deadline, self.prepare(line, &batch)).await {
                if error.cause == StoreErrorCause::Unknown {
                    // Of the commands nothing was sent.
                    error.cause = StoreErrorCause::Unavailable;
                }
                losses = 0;
                self.fail_of_batch(&mut pending, batch.decided.len(), &error);
                continue;
            }
            let turn_ms = match losses {
                ..LOSSES_BEFORE_TURN => 0,
                _ => (2 * call_ms + TURN_SLACK_MS).min(TURN_MAX_MS),
            };
            let (sent, arguments) = self.arguments(line, known, &batch, deadline, turn_ms);
            let begin = Instant::now();
            let answer = self
                .client
                .script_by(
                    line.keys.slot,
                    &COMMIT,
                    &[
                        &line.keys.group,
                        &line.keys.order,
                        &line.keys.history,
                        &line.keys.clients,
                        &line.keys.expiries,
                    ],
                    &arguments.as_slices(),
                    deadline,
                )
                .await;
            call_ms = begin.elapsed().as_millis() as u64;
            let answer = match answer {
                Ok(value) => self.read_answer(value),
                Err(CallError::Unknown { node, why }) => {
                    let error = store_error(&CallError::Unknown { node, why });
                    known.forget();
                    // What goes on to fail does so because Redis is slow or away, whoever won before.
                    losses = 0;
                    let resolved = self.resolve(line, &sent, since, &error).await;
                    self.settle(line, known, batch, &mut pending, resolved, &error)
                        .await;
                    continue;
                }
                Err(error) => {
                    let error = store_error(&error);
                    losses = 0;
                    self.fail_of_batch(&mut pending, batch.decided.len(), &error);
                    continue;
                }
            };
            let (meta, results, conflict) = match answer {
                Ok(Answer::Done {
                    meta,
                    results,
                    conflict,
                }) => (meta, results, conflict),
                Ok(Answer::Late) => continue,
                Ok(Answer::Waits) => {
                    self.pause(PAUSE_MAX).await;
                    continue;
                }
                Err(error) => {
                    known.forget();
                    fail_all(pending, &error);
                    return;
                }
            };
            match &meta {
                Some(meta) => {
                    known.hear(&meta.epoch, meta.seq, meta.latest_ms());
                    self.triggered.committed(&line.key, &meta.epoch, meta.seq);
                }
                None => known.forget(),
            }
            losses = if results.is_empty() { losses + 1 } else { 0 };
            let Batch {
                decided,
                items,
                clients,
                ..
            } = batch;
            for (decided, result) in decided.into_iter().zip(results) {
                // Proof of the order: results are those of the first commands of the batch.
                if let Some(pending) = pending.pop_front() {
                    let finish = self.finish(line, known, decided, result, pending);
                    within(deadline, finish).await;
                }
            }
            if let Some(conflict) = conflict {
                take_note(known, &items, &clients, conflict);
                if 1 < losses {
                    self.pause(Duration::from_micros(200) * losses).await;
                }
            }
        }
    }

    async fn pause(&self, longest: Duration) {
        tokio::time::sleep(longest.min(PAUSE_MAX).mul_f64(self.jitter())).await;
    }

    /// Fails the commands that have waited as long as they may.
    fn fail_overdue(&self, pending: &mut VecDeque<Pending>, losses: u32) {
        while let Some(first) = pending.pop_front_if(|first| self.is_overdue(first.since)) {
            let error = match losses {
                0 => self.overdue(),
                _ => StoreError::new(
                    StoreErrorCause::Contended,
                    format!("others changed the item each time, {losses} times: nothing was done"),
                ),
            };
            first.fail(&error);
        }
    }

    /// Tells the commands of a batch that it failed. Where Redis was not there in time for the first, those that came later still
    /// wait.
    fn fail_of_batch(&self, pending: &mut VecDeque<Pending>, len: usize, error: &StoreError) {
        let waits = error.cause == StoreErrorCause::Unavailable && !self.options.wait_max.is_zero();
        let mut index = 0;
        while let Some(command) = pending.pop_front_if(|command| {
            index < len
                && (index == 0 || !waits || self.deadline_of(command.since) <= Instant::now())
        }) {
            index += 1;
            command.fail(error);
        }
    }

    /// What must be in Redis before the batch is committed, in other slots than the group's.
    async fn prepare(&self, line: &Line, batch: &Batch) -> Result<(), StoreError> {
        if batch.decided.iter().any(|decided| decided.draft.is_some()) {
            self.touch_index(line).await?;
        }
        if let Some(ttl_ms) = batch.ttl_ms_min {
            self.note_due(line, ttl_ms).await?;
        }
        Ok(())
    }

    fn arguments(
        &self,
        line: &Line,
        known: &Known,
        batch: &Batch,
        deadline: Instant,
        turn_ms: u64,
    ) -> (Sent, Arguments) {
        let slot = line.keys.slot;
        let sent = Sent {
            name: self.new_name(),
            deadline_ms: self.deadline_ms(slot, deadline),
            not_before_ms: self.client.now_ms(slot).saturating_sub(CLOCK_SLACK_MS),
            after_seq: known.seq,
        };
        let limits = &self.options.limits;
        let (changes_max, history_bytes_max) = self.history_bounds();
        let mut arguments = Arguments::default();
        arguments.push_packed(&[
            sent.deadline_ms,
            self.floor_ms().max(known.latest_ms),
            limits.items_max as u64,
            limits.bytes_max as u64,
            limits.client_records_max as u64,
            changes_max as u64,
            history_bytes_max as u64,
            MESSAGE_BODY_BYTES_MAX,
            REPLY_BYTES_MAX,
            EMPTY_MS,
            batch.items.len() as u64,
            batch.clients.len() as u64,
            turn_ms,
        ]);
        arguments.push(&sent.name);
        arguments.push(self.replication_id(slot).as_bytes());
        arguments.push(known.epoch.as_deref().unwrap_or("*"));
        let publishing = match self.sinks {
            Sinks::AtOnce(_) => '-',
            Sinks::Channel if self.client.is_cluster() => 'S',
            Sinks::Channel => 'P',
        };
        let keeps_bodies = u8::from(self.options.keeps_history);
        arguments.push(format!("{keeps_bodies}{publishing}"));
        arguments.push(&*line.keys.channel);
        if self.triggered.is_triggered(&line.key.stream) {
            arguments.push(self.keys.stream_channel(&line.key.stream));
        } else {
            arguments.push("");
        }
        arguments.push(&line.keys.name);
        debug_assert_eq!(arguments.len(), COMMIT_GROUP_ARGS);
        for item in &batch.items {
            arguments.push_field(b'h', item);
        }
        for client in &batch.clients {
            arguments.push_field(b'c', client);
        }
        arguments.extend(&batch.arguments);
        (sent, arguments)
    }

    /// Takes note of what a command came to, and tells whoever asked for it.
    pub(super) async fn finish(
        &self,
        line: &Line,
        known: &mut Known,
        decided: Decided,
        result: CommandResult,
        pending: Pending,
    ) {
        let Decided {
            mut reply,
            draft,
            client,
            old,
            duplicate,
        } = decided;
        if let Some((client, record)) = client {
            known.set_client(client, KnownClient::Known(record));
        }
        let limits = &self.options.limits;
        let mut change = None;
        match result {
            CommandResult::Nothing => {}
            CommandResult::Told { item_seq, seq } => {
                if let Outcome::Duplicate { at, .. } = &mut reply.outcome {
                    let last = match (item_seq, &duplicate) {
                        (None, Some(duplicate)) => self.last_change_of(line, duplicate, seq).await,
                        _ => Ok(item_seq),
                    };
                    match last {
                        Ok(last) => *at = last,
                        Err(error) => return pending.fail(&error),
                    }
                }
            }
            CommandResult::TooManyItems => {
                let items_max = limits.items_max;
                reply.outcome = Outcome::Refused(Refusal::TooManyItems { items_max });
            }
            CommandResult::TooManyBytes => {
                let bytes_max = limits.bytes_max;
                reply.outcome = Outcome::Refused(Refusal::TooManyBytes { bytes_max });
            }
            CommandResult::Changed {
                seq,
                timestamp,
                base,
            } => {
                reply.seq = Some(seq);
                change = draft.map(|draft| {
                    Arc::new(Change {
                        seq,
                        timestamp,
                        item: draft.item,
                        kind: draft.kind,
                        value: draft.value,
                        ops: draft.ops,
                        base,
                        mutation: draft.mutation,
                    })
                });
            }
        }
        if let (Some(change), false) = (&change, matches!(pending.task, Task::Announce { .. })) {
            known.follow(change);
        }
        if let (Sinks::AtOnce(sink), Some(change)) = (&self.sinks, &change) {
            sink.publish(&line.key, change.clone(), old.as_ref());
        }
        match pending.task {
            Task::Commit { done, .. } => {
                done(Ok(Committed {
                    reply,
                    change,
                    step: None,
                }));
            }
            Task::Announce { done, .. } => done(change.ok_or_else(|| {
                StoreError::other("Redis answered with no change for one that was announced")
            })),
            Task::Expire { .. } => {}
        }
    }
}

fn take_note(known: &mut Known, items: &[Arc<str>], clients: &[Arc<str>], conflict: Conflict) {
    for (index, item) in conflict.items {
        if let Some(id) = items.get(index) {
            known.set_item(id.clone(), item);
        }
    }
    for (index, last) in conflict.clients {
        let Some(client) = clients.get(index) else {
            continue;
        };
        let state = match last.as_str() {
            "n" => KnownClient::New,
            "u" => KnownClient::Unknown,
            last => match last.parse() {
                Ok(last) => KnownClient::Known(iii_stream_core::ClientRecord {
                    last,
                    tag: client_tag(client),
                }),
                Err(_) => continue,
            },
        };
        known.set_client(client.clone(), state);
    }
}

impl Known {
    /// Takes note of a change of the group.
    fn follow(&mut self, change: &Change) {
        let Some(id) = &change.item else {
            return;
        };
        let item = match (&change.kind, &change.value) {
            (Kind::Create | Kind::Update, Some(value)) => Some(KnownItem {
                value: value.clone(),
                seq: change.seq,
            }),
            (Kind::Delete, _) => None,
            _ => return,
        };
        self.set_item(id.clone(), item);
    }
}

fn fail_all(pending: VecDeque<Pending>, error: &StoreError) {
    for pending in pending {
        pending.fail(error);
    }
}
