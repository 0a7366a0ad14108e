//! Decides the commands that wait in a group one after another, on what is known of it, and writes them as one script call.
//! Pure: nothing is sent here.

use std::sync::Arc;

use hashbrown::HashMap;
use iii_stream_core::command::{Action, Condition};
use iii_stream_core::relay::write_body;
use iii_stream_core::{
    ClientRecord, Command, Current, Decision, Draft, Json, Kind, Outcome, Refusal, Reply, Ttl,
    decide,
};

use super::arguments::Arguments;
use super::known::{Known, KnownClient};
use super::work::{Pending, Task};

/// Most commands of one script call. The script holds all of Redis while it runs.
pub(super) const BATCH_COMMANDS_MAX: usize = 256;

/// A batch ends once its arguments take so many bytes; the last command may go beyond.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Commands that were decided, in order, with what the script needs to carry them out.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) decided: Vec<Decided>,
    /// Ids of the items that are touched; the script counts them from 1.
    pub(super) items: Vec<Arc<str>>,
    /// The mutation clients; the script counts them from 1.
    pub(super) clients: Vec<Arc<str>>,
    /// Arguments of the commands.
    pub(super) arguments: Arguments,
    /// The shortest time to live that is set, in milliseconds.
    pub(super) ttl_ms_min: Option<u64>,
}

/// What a command comes to, if things are as they were thought to be.
pub(super) struct Decided {
    pub(super) reply: Reply,
    pub(super) draft: Option<Draft>,
    pub(super) client: Option<(Arc<str>, ClientRecord)>,
    /// The item's value before.
    pub(super) old: Option<Json>,
    /// `Some` where the mutation was taken before.
    pub(super) duplicate: Option<DuplicateOf>,
}

/// What a mutation that was taken before was about.
pub(super) struct DuplicateOf {
    pub(super) item: Option<Arc<str>>,
    pub(super) counts_events: bool,
}

/// An item as the commands before leave it.
struct Standing {
    index: usize,
    current: Option<Current>,
    is_touched: bool,
}

/// A mutation client as the commands before leave it.
struct ClientStanding {
    index: usize,
    state: KnownClient,
}

/// Decides as many of `pending` as belong into one batch: at least one.
pub(super) fn decide_batch<'p>(pending: impl Iterator<Item = &'p Pending>, known: &Known) -> Batch {
    let mut deciding = Deciding {
        known,
        standings: HashMap::new(),
        clients: HashMap::new(),
        batch: Batch::default(),
    };
    for work in pending {
        let batch = &deciding.batch;
        let is_full = BATCH_COMMANDS_MAX <= batch.decided.len()
            || BATCH_BYTES_MAX <= batch.arguments.bytes_len();
        if is_full || !deciding.add(&work.task) {
            break;
        }
    }
    deciding.batch
}

struct Deciding<'k> {
    known: &'k Known,
    standings: HashMap<Arc<str>, Standing>,
    clients: HashMap<Arc<str>, ClientStanding>,
    batch: Batch,
}

/// How the script verifies a decision.
enum Expected {
    /// It holds whatever the item is.
    Anything,
    /// The item is as it was taken to be.
    AsDecided,
}

impl Deciding<'_> {
    /// Decides one command more; whether it may be in this batch.
    fn add(&mut self, task: &Task) -> bool {
        match task {
            Task::Commit { command, .. } => self.add_command(command, None),
            Task::Announce { draft, .. } => {
                self.add_announced(draft);
                true
            }
            Task::Expire { item } => {
                let command = Command {
                    item: Some(item.clone()),
                    action: Action::Delete,
                    condition: None,
                    mutation: None,
                    returning: None,
                };
                self.add_command(&command, Some("E"))
            }
        }
    }

    fn add_command(&mut self, command: &Command, op: Option<&'static str>) -> bool {
        let item = command.item.clone();
        let standing = item.as_ref().map(|id| &*self.standing(id));
        let is_touched = standing.is_some_and(|standing| standing.is_touched);
        if is_touched && (needs_seq(command.condition) || op.is_some()) {
            // Its sequence is not known before this batch is committed.
            return false;
        }
        let current = standing.and_then(|standing| standing.current.clone());
        let counts_events = matches!(command.action, Action::Send { .. });
        let client = command
            .mutation
            .as_ref()
            .map(|mutation| mutation.client.clone());
        let state = client
            .as_ref()
            .map(|client| self.client(client).state.clone());
        let expected_client = state.as_ref().map(expected_client);
        let Decision {
            reply,
            draft,
            client: taken,
        } = decide(
            current.clone(),
            command.clone(),
            state
                .as_ref()
                .map_or(iii_stream_core::ClientState::New, KnownClient::state),
        );
        let is_duplicate = matches!(reply.outcome, Outcome::Duplicate { .. });
        let expected = match &reply.outcome {
            Outcome::Duplicate { .. }
            | Outcome::Sent
            | Outcome::Refused(Refusal::MutationGap { .. } | Refusal::MutationUnknown { .. }) => {
                Expected::Anything
            }
            _ => Expected::AsDecided,
        };
        let op = match draft.as_ref().map(|draft| &draft.kind) {
            None if is_duplicate && counts_events => "Q",
            None if is_duplicate => "q",
            None => "n",
            Some(Kind::Create | Kind::Update) => "w",
            Some(Kind::Delete) => op.unwrap_or("d"),
            Some(Kind::Event { .. }) => "e",
        };
        self.push_head(
            op,
            item.as_ref(),
            &expected,
            client.as_ref().zip(expected_client),
        );
        let arguments = &mut self.batch.arguments;
        match &taken {
            Some((_, record)) => arguments.push_number(record.last),
            None => arguments.push(""),
        }
        self.push_draft(draft.as_ref());
        if let Some((client, record)) = &taken {
            self.client(client).state = KnownClient::Known(record.clone());
        }
        if let (Some(id), Some(draft)) = (&item, &draft) {
            self.follow(id, draft);
        }
        self.batch.decided.push(Decided {
            reply,
            draft,
            client: taken,
            old: current.map(|current| current.value),
            duplicate: is_duplicate.then_some(DuplicateOf {
                item,
                counts_events,
            }),
        });
        true
    }

    fn add_announced(&mut self, draft: &Draft) {
        let op = if draft.kind == Kind::Delete { "X" } else { "x" };
        self.push_head(op, draft.item.as_ref(), &Expected::Anything, None);
        let arguments = &mut self.batch.arguments;
        arguments.push("");
        arguments.push("");
        arguments.write(|out| write_body(draft, out));
        match draft.base {
            Some(base) => arguments.push_number(base),
            None => arguments.push("-"),
        }
        arguments.push("0");
        self.batch.decided.push(Decided {
            reply: Reply {
                outcome: Outcome::Sent,
                returning: None,
                seq: None,
            },
            draft: Some(draft.clone()),
            client: None,
            old: None,
            duplicate: None,
        });
    }

    /// The first arguments of a command: up to the expected client.
    fn push_head(
        &mut self,
        op: &str,
        item: Option<&Arc<str>>,
        expected: &Expected,
        client: Option<(&Arc<str>, String)>,
    ) {
        let (item_index, expected) = match (item, expected) {
            (Some(id), Expected::AsDecided) => {
                let standing = self.standing(id);
                let expected = match &standing.current {
                    _ if standing.is_touched => "t".to_owned(),
                    Some(current) => current.seq.to_string(),
                    None => "a".to_owned(),
                };
                (standing.index, expected)
            }
            (Some(id), Expected::Anything) if op != "n" => {
                (self.standing(id).index, "*".to_owned())
            }
            _ => (0, "*".to_owned()),
        };
        let (client_index, expected_client) = match client {
            Some((client, expected)) => (self.client(client).index, expected),
            None => (0, String::new()),
        };
        let arguments = &mut self.batch.arguments;
        arguments.push(op);
        arguments.push_number(item_index as u64);
        arguments.push_number(client_index as u64);
        arguments.push(expected);
        arguments.push(expected_client);
    }

    /// The last arguments of a command: time to live, body, where its value is.
    fn push_draft(&mut self, draft: Option<&Draft>) {
        let arguments = &mut self.batch.arguments;
        let Some(draft) = draft else {
            for _ in 0..4 {
                arguments.push("");
            }
            return;
        };
        match draft.ttl {
            Ttl::Keep => arguments.push(""),
            Ttl::Replace(None) => arguments.push("-"),
            Ttl::Replace(Some(ttl_ms)) => {
                arguments.push_number(ttl_ms);
                let least = self
                    .batch
                    .ttl_ms_min
                    .map_or(ttl_ms, |least| least.min(ttl_ms));
                self.batch.ttl_ms_min = Some(least);
            }
        }
        let start = arguments.bytes_len();
        let value_at = arguments.write(|out| write_body(draft, out));
        arguments.push_number(value_at.map_or(0, |at| at - start) as u64);
        let length = draft.value.as_ref().map_or(0, |value| value.as_str().len());
        arguments.push_number(length as u64);
    }

    /// Brings an item to where a draft leaves it.
    fn follow(&mut self, id: &Arc<str>, draft: &Draft) {
        let standing = self.standing(id);
        let value = match draft.kind {
            Kind::Create | Kind::Update => draft.value.clone(),
            Kind::Delete => None,
            Kind::Event { .. } => return,
        };
        // Commands that would tell a sequence that is not known yet go into the next batch.
        standing.current = value.map(|value| Current { value, seq: 0 });
        standing.is_touched = true;
    }

    fn standing(&mut self, id: &Arc<str>) -> &mut Standing {
        let Self {
            known,
            standings,
            batch,
            ..
        } = self;
        standings.entry(id.clone()).or_insert_with(|| {
            batch.items.push(id.clone());
            Standing {
                index: batch.items.len(),
                current: known.item(id).map(|item| Current {
                    value: item.value.clone(),
                    seq: item.seq,
                }),
                is_touched: false,
            }
        })
    }

    fn client(&mut self, client: &Arc<str>) -> &mut ClientStanding {
        let Self {
            known,
            clients,
            batch,
            ..
        } = self;
        clients.entry(client.clone()).or_insert_with(|| {
            batch.clients.push(client.clone());
            ClientStanding {
                index: batch.clients.len(),
                state: known.client(client),
            }
        })
    }
}

/// Whether the answer to a condition may tell or compare the item's sequence.
fn needs_seq(condition: Option<Condition>) -> bool {
    match condition {
        Some(Condition::Seq(_) | Condition::Absent) => true,
        Some(Condition::Exists) | None => false,
    }
}

fn expected_client(state: &KnownClient) -> String {
    match state {
        KnownClient::Known(record) => record.last.to_string(),
        KnownClient::New => "n".to_owned(),
        KnownClient::Unknown => "u".to_owned(),
    }
}
