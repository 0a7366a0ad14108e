//! A directory as it is, for those who only read: export, import from it, verify, repair. Changes no byte, and takes damage as it
//! comes: each group is made as far as it can be.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use iii_stream_core::{Group, GroupKey, GroupLimits, Item};
use parking_lot::Mutex;

use super::cache::FloorMs;
use super::disk::{Disk, RealDisk};
use super::entry::Kept;
use super::extent::Extent;
use super::loading::{DELTA_STEPS, IMAGE_HISTORY, IMAGE_STATE};
use super::locking::{LockError, lock_to_read};
use super::log::{self, Log, RecordAt};
use super::manifest::{self, Manifest, ManifestError};
use super::opening::{Groups, Known};
use super::record::{read_record, steps};
use super::stream_file::{StreamFileError, StreamReader};

/// Why a directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Somebody writes to it, or it cannot be opened.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// There is no store in it.
    #[error("{path} is no data directory of iii-stream: it has no manifest")]
    NotOne {
        /// The directory.
        path: String,
    },
    /// Nothing can be known without it.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
}

/// A store that is only read. Nobody writes to it meanwhile.
pub struct Look {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) manifest: manifest::Looked,
    pub(super) log: log::Looked,
    pub(super) groups: BTreeMap<GroupKey, Known>,
    /// What is kept of histories that ended.
    pub(super) gone: Vec<(GroupKey, Kept)>,
    /// Records that belong to no group that is known, or cannot be read.
    pub(super) odd_records: Vec<(RecordAt, String)>,
    limits: GroupLimits,
    pub(super) floor: FloorMs,
    /// Groups are read stream by stream.
    last_file: Mutex<Option<(Arc<str>, StreamReader)>>,
    _lock: Option<File>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The file.
    pub file: String,
    /// Where in it, in bytes, where that is known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, offset, what } = self;
        match offset {
            _ if what.contains(file.as_str()) => write!(f, "{what}"),
            Some(offset) => write!(f, "{file}, byte {offset}: {what}"),
            None => write!(f, "{file}: {what}"),
        }
    }
}

/// A group, as far as it can be made.
pub(super) struct Made {
    /// The last state that can be had; `None` where there is none.
    pub(super) group: Option<Group>,
    pub(super) troubles: Vec<Trouble>,
    /// What of its extents is not in the group: the damaged one, and those after it.
    pub(super) lost: Vec<Extent>,
    /// The same of its records in the log.
    pub(super) lost_records: usize,
    /// Extents of which everything is in the group.
    pub(super) good: Vec<Extent>,
    /// Whether every change is in it, if not in its history.
    pub(super) is_whole: bool,
}

/// Whether a directory has what looks like a store.
pub fn is_store(dir: &Path) -> bool {
    RealDisk::read_only(dir)
        .list()
        .is_ok_and(|names| names.iter().any(|name| Manifest::is_name(name)))
}

impl Look {
    /// Looks at a directory of the system, and keeps others from writing to it.
    ///
    /// Errors: [`LookError`].
    pub fn open(dir: &Path, limits: GroupLimits) -> Result<Self, LookError> {
        if !is_store(dir) {
            let path = dir.display().to_string();
            return Err(LookError::NotOne { path });
        }
        let lock = lock_to_read(dir)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::read_only(dir));
        let mut look = Self::at(disk, limits)?;
        look._lock = lock;
        Ok(look)
    }

    /// Looks at what is on a disk. The caller sees to it that nobody writes.
    ///
    /// Errors: [`LookError`], but for locks.
    pub(super) fn at(disk: Arc<dyn Disk>, limits: GroupLimits) -> Result<Self, LookError> {
        let Some(manifest) = Manifest::look(&disk)? else {
            let path = disk.path_of("");
            return Err(LookError::NotOne { path });
        };
        let mut contents = manifest.contents.clone();
        let mut groups = Groups::of(&mut contents);
        let mut odd_records = Vec::new();
        let (start_lsn, start_segment) = contents
            .log
            .map_or((0, Log::FIRST_SEGMENT), |start| (start.lsn, start.segment));
        let mut on_record = |at: RecordAt, bytes: &[u8]| {
            if let Err(what) = groups.take(at, bytes) {
                odd_records.push((at, what));
            }
            Ok(())
        };
        let mut log = log::look(
            &disk,
            contents.store_id,
            start_lsn,
            start_segment,
            &mut on_record,
        );
        if contents.log.is_none() && contents.opened.is_none() {
            // The first start ended before there was a log.
            log.damage = None;
        }
        let mut sorted = BTreeMap::new();
        for (stream, groups) in groups.by_stream {
            for (group, known) in groups {
                let stream = stream.clone();
                sorted.insert(GroupKey { stream, group }, known);
            }
        }
        Ok(Self {
            disk,
            floor: FloorMs::new(contents.floor_ms.max(log.opened.floor_ms)),
            manifest,
            log,
            groups: sorted,
            gone: groups.gone,
            odd_records,
            limits,
            last_file: Mutex::default(),
            _lock: None,
        })
    }

    /// The groups that have items, sorted.
    pub fn groups(&self) -> impl Iterator<Item = &GroupKey> {
        let with_items = self.groups.iter().filter(|(_, known)| known.has_items);
        with_items.map(|(key, _)| key)
    }

    /// Everything that is wrong before a group is read: with the manifest and the log.
    pub fn troubles(&self) -> Vec<Trouble> {
        let manifest = self.manifest.damages.iter().map(|damage| Trouble {
            file: self.manifest.path.clone(),
            offset: Some(damage.offset),
            what: damage.what.to_owned(),
        });
        let log = self.log.damage.iter().map(|error| Trouble {
            file: self.disk.path_of("log"),
            offset: None,
            what: error.to_string(),
        });
        manifest.chain(log).chain(self.odd_troubles()).collect()
    }

    pub(super) fn odd_troubles(&self) -> impl Iterator<Item = Trouble> {
        self.odd_records.iter().map(|(at, what)| Trouble {
            file: self.disk.path_of("log"),
            offset: None,
            what: format!("the record at lsn {}: {what}", at.lsn),
        })
    }

    /// The items of a group, in order of creation. What is wrong if not all that was written can be had.
    ///
    /// Errors: the first trouble.
    pub fn items(&self, key: &GroupKey) -> Result<Vec<(Arc<str>, Item)>, Trouble> {
        let mut made = self.make(key);
        match (made.troubles.pop(), &mut made.group) {
            (None, Some(group)) => Ok(group.iter().collect()),
            (None, None) => Ok(Vec::new()),
            (Some(last), _) => Err(made.troubles.into_iter().next().unwrap_or(last)),
        }
    }

    /// What a group takes of the files, in bytes.
    pub fn group_bytes(&self, key: &GroupKey) -> u64 {
        self.groups.get(key).map_or(0, |known| {
            let kept = known.state.kept.extents();
            known.state.pending_bytes + kept.map(|extent| extent.bytes).sum::<u64>()
        })
    }

    /// What all groups take of the files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.groups.keys().map(|key| self.group_bytes(key)).sum()
    }

    /// Makes a group of all that there is, with its history.
    pub(super) fn make(&self, key: &GroupKey) -> Made {
        let mut made = Made {
            group: None,
            troubles: Vec::new(),
            lost: Vec::new(),
            lost_records: 0,
            good: Vec::new(),
            is_whole: false,
        };
        let Some(Known { state, .. }) = self.groups.get(key) else {
            return made;
        };
        let kept = &state.kept;
        let is_whole = self.make_kept(&key.stream, &state.epoch, kept, &mut made);
        let pending = state.pending.len();
        if !is_whole {
            made.lost_records = pending;
        } else if let Some(group) = &mut made.group {
            for (index, &at) in state.pending.iter().enumerate() {
                let what = match self.log.reader.read(at) {
                    Err(error) => Some(error.to_string()),
                    Ok(bytes) => match read_record(&bytes) {
                        None => Some("it is no record of this version".to_owned()),
                        Some(record) => group
                            .restore(record.step)
                            .err()
                            .map(|error| error.to_string()),
                    },
                };
                if let Some(what) = what {
                    made.troubles.push(Trouble {
                        file: self.disk.path_of("log"),
                        offset: None,
                        what: format!("{}: the record at lsn {}: {what}", named(key), at.lsn),
                    });
                    made.lost_records = pending - index;
                    break;
                }
            }
        }
        made.is_whole = is_whole && made.lost_records == 0;
        if let Some(group) = &mut made.group {
            group.raise_sync(self.floor.above(group.floor()));
        }
        made
    }

    /// The part of it that is in the stream's file. Whether that is whole, but for the history of an image.
    fn make_kept(&self, stream: &Arc<str>, epoch: &Arc<str>, kept: &Kept, made: &mut Made) -> bool {
        let new = || Group::new(epoch.clone(), self.floor.of_new_group(), self.limits);
        if kept.is_empty() {
            made.group = Some(new());
            return true;
        }
        let reader = match self.reader(stream) {
            Ok(reader) => reader,
            Err(error) => {
                made.troubles.push(Trouble::of(&error));
                made.lost.extend(kept.extents());
                return false;
            }
        };
        let mut group = match kept.image {
            None => new(),
            Some(image) => match self.read_image(&reader, epoch, image, made) {
                Some(group) => group,
                None => {
                    made.lost.extend(kept.extents());
                    return false;
                }
            },
        };
        for (index, &delta) in kept.deltas.iter().enumerate() {
            if let Err(trouble) = read_delta(&reader, delta, &mut group) {
                made.troubles.push(trouble);
                made.lost.extend(&kept.deltas[index..]);
                made.group = Some(group);
                return false;
            }
            made.good.push(delta);
        }
        made.group = Some(group);
        true
    }

    fn read_image(
        &self,
        reader: &StreamReader,
        epoch: &Arc<str>,
        image: Extent,
        made: &mut Made,
    ) -> Option<Group> {
        let state = reader.read_part(image, IMAGE_STATE);
        let group = state
            .map_err(|error| Trouble::of(&error))
            .and_then(|(_, bytes)| {
                Group::from_image(epoch.clone(), &bytes, self.limits)
                    .map_err(|error| Trouble::in_extent(reader, image, &error))
            });
        let mut group = match group {
            Ok(group) => group,
            Err(trouble) => {
                made.troubles.push(trouble);
                return None;
            }
        };
        let history = reader.read_part(image, IMAGE_HISTORY);
        let joined = history
            .map_err(|error| Trouble::of(&error))
            .and_then(|(_, bytes)| {
                group
                    .restore_history(&bytes)
                    .map_err(|error| Trouble::in_extent(reader, image, &error))
            });
        match joined {
            Ok(()) => made.good.push(image),
            Err(trouble) => {
                made.lost.push(image);
                made.troubles.push(Trouble {
                    what: format!(
                        "{} (only past changes are in there, no item is lost)",
                        trouble.what
                    ),
                    ..trouble
                });
            }
        }
        Some(group)
    }

    pub(super) fn reader(&self, stream: &Arc<str>) -> Result<StreamReader, StreamFileError> {
        let mut last = self.last_file.lock();
        if let Some((_, reader)) = last.as_ref().filter(|(name, _)| name == stream) {
            return Ok(reader.clone());
        }
        let reader = StreamReader::open(&*self.disk, stream)?;
        *last = Some((stream.clone(), reader.clone()));
        Ok(reader)
    }
}

fn read_delta(reader: &StreamReader, delta: Extent, group: &mut Group) -> Result<(), Trouble> {
    let (_, bytes) = reader
        .read_part(delta, DELTA_STEPS)
        .map_err(|error| Trouble::of(&error))?;
    for step in steps(&bytes) {
        let step = step.ok_or_else(|| Trouble::in_extent(reader, delta, &"a step is cut off"))?;
        group
            .restore(step)
            .map_err(|error| Trouble::in_extent(reader, delta, &error))?;
    }
    Ok(())
}

/// A group, for people.
pub(super) fn named(key: &GroupKey) -> String {
    format!("group `{}` of stream `{}`", key.group, key.stream)
}

impl Trouble {
    pub(super) fn of(error: &StreamFileError) -> Self {
        match error {
            StreamFileError::Damaged {
                path,
                offset,
                bytes,
                what,
            } => Self {
                file: path.clone(),
                offset: Some(*offset),
                what: format!("the {bytes} bytes here are damaged: {what}"),
            },
            error => Self {
                file: error.path().to_owned(),
                offset: error.offset(),
                what: error.to_string(),
            },
        }
    }

    fn in_extent(reader: &StreamReader, extent: Extent, error: &dyn std::fmt::Display) -> Self {
        Self {
            file: reader.path().to_owned(),
            offset: Some(extent.offset),
            what: error.to_string(),
        }
    }
}
