//! A data directory of this program as an end of a move, while no server uses it: read without changing a byte, or written
//! through the store itself, many items at a time.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use iii_stream_core::command::{Action, Returning};
use iii_stream_core::state::STATE_STREAM;
use iii_stream_core::{
    Change, Command, Committed, Demand, GroupKey, GroupLimits, GroupRef, Item, Json, Outcome,
};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::entry::{Entry, ItemSink, ItemSource, Origin, Place, Refused, SinkError, SourceError};
use crate::clock;
use crate::store::file::looking::{Look, LookError, is_store};
use crate::store::{
    ChangeSink, Done, FileOptions, FileStore, OpenError, STATE_DIR, Store, StoreError,
    StoreErrorCause,
};

/// Items that are on their way to the disk at a time.
const ITEMS_MAX: usize = 4_096;

/// The same in bytes of their values, about. One item may be more.
const ITEM_BYTES_MAX: usize = 32 << 20;

/// Where items may be read. See the module.
pub struct DataDirectory {
    path: PathBuf,
    streams: Rc<Look>,
    state: Option<Rc<Look>>,
    /// What there is to read, in bytes.
    pub bytes: u64,
}

/// Reads a data directory, group by group.
pub struct DataSource {
    streams: Rc<Look>,
    state: Option<Rc<Look>>,
    /// What is to be read, the last one first.
    asked: Vec<Asked>,
    listed: std::vec::IntoIter<(Arc<str>, Item)>,
    /// The group that is listed.
    present: Option<Asked>,
    origin: Origin,
    bytes_read: u64,
}

#[derive(Clone)]
enum Asked {
    Group(GroupKey),
    Scope(GroupKey),
    /// Something that concerns no group alone.
    Trouble(String),
}

impl DataDirectory {
    /// Whether a directory is one.
    pub fn is_one(path: &Path) -> bool {
        is_store(path)
    }

    /// Takes a directory to read it; no server may use it meanwhile.
    ///
    /// Errors: [`LookError`].
    pub fn open(path: &Path, limits: GroupLimits) -> Result<Self, LookError> {
        // Past changes are not moved.
        let limits = GroupLimits {
            history_changes_max: 0,
            ..limits
        };
        let streams = Look::open(path, limits)?;
        let state_path = path.join(STATE_DIR);
        let state = match is_store(&state_path) {
            true => Some(Look::open(&state_path, limits)?),
            false => None,
        };
        let bytes = streams.bytes() + state.as_ref().map_or(0, Look::bytes);
        Ok(Self {
            path: path.to_owned(),
            streams: Rc::new(streams),
            state: state.map(Rc::new),
            bytes,
        })
    }

    /// The names of the streams that have items.
    pub fn has_stream(&self, name: &str) -> bool {
        self.streams.groups().any(|key| &*key.stream == name)
    }

    /// Reads it from the beginning: these streams, or everything and the state if none is named.
    pub fn items(&self, streams: &[String]) -> DataSource {
        let is_asked = |key: &&GroupKey| {
            streams.is_empty() || streams.iter().any(|name| **name == *key.stream)
        };
        let groups = self.streams.groups().filter(is_asked).cloned();
        let mut asked = self.troubles(&self.streams);
        asked.extend(groups.map(Asked::Group));
        if let Some(state) = self.state.as_ref().filter(|_| streams.is_empty()) {
            asked.extend(self.troubles(state));
            asked.extend(state.groups().cloned().map(Asked::Scope));
        }
        asked.reverse();
        DataSource {
            streams: self.streams.clone(),
            state: self.state.clone(),
            asked,
            listed: Vec::new().into_iter(),
            present: None,
            origin: Origin::Named(self.path.display().to_string().into()),
            bytes_read: 0,
        }
    }

    fn troubles(&self, look: &Look) -> Vec<Asked> {
        let troubles = look.troubles().into_iter();
        troubles
            .map(|trouble| Asked::Trouble(trouble.to_string()))
            .collect()
    }
}

impl ItemSource for DataSource {
    fn next_item(&mut self) -> Result<Option<(Entry, Origin)>, SourceError> {
        loop {
            if let Some((id, item)) = self.listed.next() {
                let place = match &self.present {
                    Some(Asked::Group(key)) => Place::Stream {
                        stream: key.stream.clone(),
                        group: key.group.clone(),
                        item: id.to_string(),
                    },
                    Some(Asked::Scope(key)) => Place::State {
                        scope: key.group.clone(),
                        key: id.to_string(),
                    },
                    Some(Asked::Trouble(_)) | None => continue,
                };
                let entry = Entry {
                    place,
                    value: item.value,
                    ttl_ms: item.ttl_ms,
                    expires_ms: item.expires_ms,
                };
                return Ok(Some((entry, self.origin.clone())));
            }
            let Some(asked) = self.asked.pop() else {
                return Ok(None);
            };
            self.list(asked)?;
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}

impl DataSource {
    fn list(&mut self, asked: Asked) -> Result<(), SourceError> {
        let (look, key, name) = match &asked {
            Asked::Group(key) => {
                let name = format!("stream `{}`, group `{}`", key.stream, key.group);
                (Some(&self.streams), key, name)
            }
            Asked::Scope(key) => (
                self.state.as_ref(),
                key,
                format!("state, scope `{}`", key.group),
            ),
            Asked::Trouble(reason) => {
                return Err(SourceError::Damaged {
                    origin: self.origin.clone(),
                    reason: reason.clone(),
                });
            }
        };
        let Some(look) = look else { return Ok(()) };
        self.origin = Origin::Named(name.into());
        self.bytes_read += look.group_bytes(key);
        let items = look.items(key).map_err(|trouble| SourceError::Damaged {
            origin: self.origin.clone(),
            reason: trouble.to_string(),
        })?;
        self.listed = items.into_iter();
        self.present = Some(asked);
        Ok(())
    }
}

/// Writes items into a data directory, which is made if it is not there. What was taken is lasting once it is finished.
pub struct DataSink {
    streams: Arc<FileStore>,
    state: Arc<FileStore>,
    flight: Arc<Flight>,
    care: Vec<JoinHandle<()>>,
}

/// What is on its way to the disk.
#[derive(Default)]
struct Flight {
    present: Mutex<InFlight>,
    landed: Condvar,
}

#[derive(Default)]
struct InFlight {
    items: usize,
    bytes: usize,
    refused: Vec<Refused>,
    /// Why nothing more can be written.
    broken: Option<String>,
}

/// Nobody listens while no server runs.
struct Nobody;

impl ChangeSink for Nobody {
    fn demand(&self, _: &GroupKey) -> Demand {
        Demand::Ops
    }

    fn publish(&self, _: &GroupKey, _: Arc<Change>, _: Option<&Json>) {}
}

impl DataSink {
    /// Opens a directory, or makes it.
    ///
    /// Errors: [`OpenError`], for example as a server uses it.
    pub fn open(runtime: &Handle, path: &Path, options: FileOptions) -> Result<Self, OpenError> {
        // Groups are loaded on its threads.
        let _in_runtime = runtime.enter();
        let streams = Arc::new(FileStore::open(path, Arc::new(Nobody), options)?);
        let state_options = FileOptions {
            limits: GroupLimits {
                history_changes_max: 0,
                ..options.limits
            },
            history_bytes_max: 0,
            ..options
        };
        let state_path = path.join(STATE_DIR);
        let state = Arc::new(FileStore::open(
            &state_path,
            Arc::new(Nobody),
            state_options,
        )?);
        let care = [&streams, &state].map(|store| {
            let store = store.clone();
            runtime.spawn(async move { store.run_cache().await })
        });
        Ok(Self {
            streams,
            state,
            flight: Arc::default(),
            care: care.into(),
        })
    }

    fn send(&self, entry: &Entry, done: Done<Committed>) {
        let (store, group, item) = match &entry.place {
            Place::Stream {
                stream,
                group,
                item,
            } => (&self.streams, GroupRef { stream, group }, item),
            Place::State { scope, key } => {
                let group = GroupRef {
                    stream: STATE_STREAM,
                    group: scope,
                };
                (&self.state, group, key)
            }
        };
        let command = Command {
            item: Some(item.as_str().into()),
            action: Action::Set {
                value: entry.value.clone(),
                ttl_ms: entry.ttl_ms,
            },
            condition: None,
            mutation: None,
            returning: Some(Returning::None),
        };
        store.commit(group, command, written_ms(entry, clock::unix_ms()), done);
    }

    /// Writes what waits, and lets go of the directory.
    fn close(&mut self) {
        for care in self.care.drain(..) {
            care.abort();
        }
        self.streams.close();
        self.state.close();
    }

    fn take_refused(&self, refused: &mut Vec<Refused>) -> Result<(), SinkError> {
        let mut present = self.flight.present.lock();
        refused.append(&mut present.refused);
        match &present.broken {
            Some(reason) => Err(SinkError(format!(
                "{reason}. What was imported before stays; to import all of it again does no harm"
            ))),
            None => Ok(()),
        }
    }
}

/// When an item is to be written so that it goes at its time; never later than now.
fn written_ms(entry: &Entry, now_ms: u64) -> u64 {
    match (entry.ttl_ms, entry.expires_ms) {
        (Some(ttl_ms), Some(expires_ms)) => expires_ms.saturating_sub(ttl_ms).min(now_ms),
        _ => now_ms,
    }
}

impl Flight {
    fn begin(&self, bytes: usize) {
        let mut present = self.present.lock();
        while 0 < present.items
            && (ITEMS_MAX <= present.items || ITEM_BYTES_MAX < present.bytes + bytes)
        {
            self.landed.wait(&mut present);
        }
        present.items += 1;
        present.bytes += bytes;
    }

    fn wait_for_all(&self) {
        let mut present = self.present.lock();
        while 0 < present.items {
            self.landed.wait(&mut present);
        }
    }

    fn land(
        &self,
        outcome: Result<Committed, StoreError>,
        bytes: usize,
        place: Place,
        origin: Origin,
    ) {
        let mut present = self.present.lock();
        present.items -= 1;
        present.bytes -= bytes;
        match outcome {
            Ok(committed) => {
                if let Outcome::Refused(refusal) = &committed.reply.outcome {
                    present.refused.push(Refused {
                        place,
                        origin,
                        reason: refusal.to_string(),
                    });
                }
            }
            Err(error) => match error.cause {
                StoreErrorCause::Full
                | StoreErrorCause::ReadOnly
                | StoreErrorCause::Unavailable
                | StoreErrorCause::Unknown => {
                    present.broken.get_or_insert(error.message);
                }
                // Of one group.
                StoreErrorCause::Other
                | StoreErrorCause::Behind
                | StoreErrorCause::Damaged
                | StoreErrorCause::Contended => {
                    present.refused.push(Refused {
                        place,
                        origin,
                        reason: error.message,
                    });
                }
            },
        }
        drop(present);
        self.landed.notify_one();
    }
}

impl ItemSink for DataSink {
    fn put(
        &mut self,
        entry: &Entry,
        origin: &Origin,
        refused: &mut Vec<Refused>,
    ) -> Result<(), SinkError> {
        let bytes = entry.value.as_str().len();
        self.flight.begin(bytes);
        let (flight, place, origin) = (self.flight.clone(), entry.place.clone(), origin.clone());
        let done = move |outcome| flight.land(outcome, bytes, place, origin);
        self.send(entry, Box::new(done));
        self.take_refused(refused)
    }

    fn finish(&mut self, refused: &mut Vec<Refused>) -> Result<(), SinkError> {
        self.flight.wait_for_all();
        self.close();
        self.take_refused(refused)
    }
}

impl Drop for DataSink {
    fn drop(&mut self) {
        self.close();
    }
}
