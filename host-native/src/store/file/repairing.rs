//! Makes a damaged directory usable again, with as little lost as can be, and keeps what it drops.
//!
//! The log is cut at its first damage. A group whose extents are damaged goes back to the last change that can be read; one
//! whose image is, goes. Then all groups that have something in the log are written to their streams' files, and one new
//! manifest says where everything is: before that nothing was changed that a group is made of. All histories get new names, as
//! sequences that subscribers have seen may be given again.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use iii_stream_core::{Group, GroupKey, GroupLimits};

use super::disk::{Disk, RealDisk, read_exact_at, write_all_at};
use super::extent::Extent;
use super::folding::IMAGE;
use super::loading::{IMAGE_HISTORY, IMAGE_STATE};
use super::locking::{LockError, lock_to_write};
use super::log::{self, Log, LogError, LogOptions};
use super::looking::{Look, LookError, is_store, named};
use super::manifest::{Edit, GroupKept, LogStart, Manifest, ManifestError};
use super::names::stream_file_name;
use super::stream_file::{StreamFile, StreamFileError};
use super::verifying::{LOST_PREFIX, live_extents};

/// How much is copied at a time, in bytes.
const COPIED_BYTES: u64 = 1 << 20;

/// Why a directory could not be repaired. What had been done by then can be done again.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Nothing can be known of it.
    #[error("{0}")]
    Look(#[from] LookError),
    /// A stream's file that no repair helps, or that cannot be written.
    #[error("{0}")]
    Stream(#[from] StreamFileError),
    /// The log cannot be cut.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The manifest cannot be written.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// What is dropped cannot be kept.
    #[error("cannot keep a copy in {path}: {source}")]
    Keep {
        /// The copy.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl From<LockError> for RepairError {
    fn from(error: LockError) -> Self {
        Self::Look(error.into())
    }
}

/// Repairs a directory of the system. Tells `say` what it is about to do, line by line. `false` if there is nothing to do.
/// `now_ms` is in Unix milliseconds.
///
/// Errors: [`RepairError`].
pub fn repair(
    dir: &Path,
    limits: GroupLimits,
    now_ms: u64,
    say: &mut dyn FnMut(&str),
) -> Result<bool, RepairError> {
    let _lock = lock_store(dir)?;
    repair_on(&disk_at(dir), limits, now_ms, say)
}

/// Gives all histories of a store other names, so that nobody comes back to a change that is now another: for a directory that
/// was restored from a backup, or copied.
///
/// Errors: [`RepairError`].
pub fn begin_new_era(dir: &Path, now_ms: u64) -> Result<(), RepairError> {
    let _lock = lock_store(dir)?;
    begin_new_era_on(&disk_at(dir), now_ms)
}

pub(super) fn begin_new_era_on(disk: &Arc<dyn Disk>, now_ms: u64) -> Result<(), RepairError> {
    if let Some((mut manifest, contents, _)) = Manifest::open(disk)? {
        manifest.append([Edit::Era {
            n: later_era(contents.era, now_ms),
        }])?;
    }
    Ok(())
}

/// A copy of the directory may have counted on from the same number, so it follows the clock.
fn later_era(era: u64, now_ms: u64) -> u64 {
    now_ms.max(era + 1)
}

fn lock_store(dir: &Path) -> Result<std::fs::File, RepairError> {
    if !is_store(dir) {
        let path = dir.display().to_string();
        return Err(LookError::NotOne { path }.into());
    }
    Ok(lock_to_write(dir)?)
}

fn disk_at(dir: &Path) -> Arc<dyn Disk> {
    Arc::new(RealDisk::new(dir))
}

/// What is wrong with a group.
struct Harm {
    lost: Vec<Extent>,
    lost_records: usize,
    is_gone: bool,
}

pub(super) fn repair_on(
    disk: &Arc<dyn Disk>,
    limits: GroupLimits,
    now_ms: u64,
    say: &mut dyn FnMut(&str),
) -> Result<bool, RepairError> {
    let mut look = Look::at(disk.clone(), limits)?;
    let headers = bad_headers(&look)?;
    let mut harms = find_harms(&look);
    let log_is_harmed = look.log.damage.is_some();
    if headers.is_empty() && harms.is_empty() && look.troubles().is_empty() {
        return Ok(false);
    }
    let keeper = Keeper {
        disk: &**disk,
        prefix: format!("{LOST_PREFIX}{now_ms}-"),
    };
    keep_what_goes(&look, &keeper, &harms, say)?;
    if log_is_harmed {
        say("cutting the log at the first place that cannot be read");
        let start = look.manifest.contents.log;
        let (lsn, segment) =
            start.map_or((0, Log::FIRST_SEGMENT), |start| (start.lsn, start.segment));
        let store_id = &look.manifest.contents.store_id;
        let options = LogOptions::default();
        if let Some(repaired) = log::repair(disk, store_id, lsn, segment, options)? {
            say(&format!(
                "the log ends at byte {} of {} now",
                repaired.offset, repaired.file
            ));
        }
        look = Look::at(disk.clone(), limits)?;
        harms = find_harms(&look);
    }
    for stream in &headers {
        say(&format!(
            "writing the header of the file of stream `{stream}` anew"
        ));
        StreamFile::restore_header(&**disk, store_id_of(&look), stream)?;
    }
    rewrite(&look, &harms, now_ms, say)?;
    Ok(true)
}

fn store_id_of(look: &Look) -> [u8; 16] {
    look.manifest.contents.store_id
}

/// The streams whose files have a damaged header.
///
/// Errors: what only people can put right.
fn bad_headers(look: &Look) -> Result<Vec<Arc<str>>, StreamFileError> {
    let mut bad = Vec::new();
    for (stream, _) in live_extents(look) {
        let opened = StreamFile::open(&*look.disk, store_id_of(look), &stream, std::iter::empty());
        match opened {
            Ok(_) => {}
            Err(error) if error.is_missing() => {}
            Err(StreamFileError::DamagedHeader { .. } | StreamFileError::NotAStreamFile { .. }) => {
                bad.push(stream);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(bad)
}

fn find_harms(look: &Look) -> BTreeMap<GroupKey, Harm> {
    let mut harms = BTreeMap::new();
    for key in look.groups.keys() {
        let made = look.make(key);
        if !made.troubles.is_empty() {
            let harm = Harm {
                is_gone: made.group.is_none(),
                lost: made.lost,
                lost_records: made.lost_records,
            };
            harms.insert(key.clone(), harm);
        }
    }
    harms
}

/// Copies everything that nothing will refer to any more.
fn keep_what_goes(
    look: &Look,
    keeper: &Keeper<'_>,
    harms: &BTreeMap<GroupKey, Harm>,
    say: &mut dyn FnMut(&str),
) -> Result<(), RepairError> {
    let lists = |error| ManifestError::io(&look.disk.path_of(""), "list", error);
    let names = look.disk.list().map_err(lists)?;
    let is_manifest_harmed = !look.manifest.damages.is_empty() || look.manifest.cut.is_some();
    let is_log_harmed = look.log.damage.is_some()
        || !look.odd_records.is_empty()
        || harms.values().any(|harm| 0 < harm.lost_records);
    for name in names {
        let is_kept = (is_manifest_harmed && Manifest::is_name(&name))
            || (is_log_harmed && name.starts_with("log-"));
        if is_kept {
            say(&format!(
                "keeping a copy of {name} as {}{name}",
                keeper.prefix
            ));
            keeper.keep_file(&name)?;
        }
    }
    let mut by_stream: BTreeMap<&Arc<str>, Vec<Extent>> = BTreeMap::new();
    for (key, harm) in harms {
        by_stream.entry(&key.stream).or_default().extend(&harm.lost);
    }
    for (stream, extents) in by_stream {
        let name = stream_file_name(stream);
        if !extents.is_empty() && look.reader(stream).is_ok() {
            let count = extents.len();
            let prefix = &keeper.prefix;
            say(&format!(
                "keeping {count} places of {name} in {prefix}{name}, at the same offsets"
            ));
            keeper.keep_places(&name, &extents)?;
        }
    }
    look.disk.sync_names().map_err(lists)?;
    Ok(())
}

/// Writes the groups that have something in the log or have lost something, and then a manifest that tells of them.
fn rewrite(
    look: &Look,
    harms: &BTreeMap<GroupKey, Harm>,
    now_ms: u64,
    say: &mut dyn FnMut(&str),
) -> Result<(), RepairError> {
    let disk = &look.disk;
    let mut contents = look.manifest.contents.clone();
    contents.streams.clear();
    let mut open: Option<(Arc<str>, StreamFile)> = None;
    for (key, known) in &look.groups {
        let harm = harms.get(key);
        let kept = if harm.is_none() && known.state.pending.is_empty() {
            look.manifest.contents.kept(key).cloned()
        } else {
            match look.make(key).group {
                None => {
                    say(&format!("dropping {}", named(key)));
                    None
                }
                Some(mut group) => {
                    tell_of_harm(key, harm, &group, say);
                    if open
                        .as_ref()
                        .is_none_or(|(stream, _)| *stream != key.stream)
                    {
                        if let Some((_, file)) = open.take() {
                            file.sync()?;
                        }
                        open = Some((key.stream.clone(), open_file(look, harms, &key.stream)?));
                    }
                    match &mut open {
                        Some((_, file)) => Some(write_group(file, &mut group, &known.state.epoch)?),
                        None => None,
                    }
                }
            }
        };
        if let Some(kept) = kept {
            let groups = contents.streams.entry(key.stream.clone()).or_default();
            groups.insert(key.group.clone(), kept);
        }
    }
    if let Some((_, file)) = open {
        file.sync()?;
    }
    let synced = disk.sync_names();
    synced.map_err(|error| ManifestError::io(&disk.path_of(""), "sync", error))?;
    if contents.log.is_some() || contents.opened.is_some() {
        contents.log = Some(LogStart {
            lsn: look.log.end_lsn,
            segment: look.log.end_segment,
        });
    }
    contents.floor_ms = look.floor.get();
    contents.era = later_era(contents.era, now_ms);
    say("writing a new manifest: subscribers begin anew with a whole state");
    if let Some(mut manifest) = Manifest::to_replace(disk)? {
        manifest.rewrite(contents.edits())?;
    }
    Ok(())
}

fn tell_of_harm(key: &GroupKey, harm: Option<&Harm>, group: &Group, say: &mut dyn FnMut(&str)) {
    let Some(harm) = harm else { return };
    debug_assert!(!harm.is_gone, "it has been made");
    say(&format!(
        "writing {} anew as it was after change {}, with {} items",
        named(key),
        group.seq(),
        group.len()
    ));
}

/// Opens a stream's file with all that may still be needed as live.
fn open_file(
    look: &Look,
    harms: &BTreeMap<GroupKey, Harm>,
    stream: &Arc<str>,
) -> Result<StreamFile, StreamFileError> {
    let first = GroupKey {
        stream: stream.clone(),
        group: "".into(),
    };
    let mut live = Vec::new();
    for (key, known) in look.groups.range(first..) {
        if key.stream != *stream {
            break;
        }
        let lost = harms.get(key).map_or(&[][..], |harm| &harm.lost);
        let extents = known.state.kept.extents();
        live.extend(extents.filter(|extent| !lost.contains(extent)));
    }
    let disk = &*look.disk;
    match StreamFile::open(disk, store_id_of(look), stream, live.into_iter()) {
        Err(error) if error.is_missing() => StreamFile::create(disk, store_id_of(look), stream),
        opened => opened,
    }
}

fn write_group(
    file: &mut StreamFile,
    group: &mut Group,
    epoch: &Arc<str>,
) -> Result<GroupKept, StreamFileError> {
    let image = group.image();
    let (mut state, mut history) = (Vec::new(), Vec::new());
    image.write_state(&mut state);
    image.write_history(&mut history);
    let mut parts: [&[u8]; 2] = [&[]; 2];
    parts[IMAGE_STATE] = &state;
    parts[IMAGE_HISTORY] = &history;
    let extent = file.write(IMAGE, &parts)?;
    Ok(GroupKept {
        epoch: epoch.clone(),
        seq: group.seq(),
        has_items: !group.is_empty(),
        has_clients: group.has_clients(),
        has_image: true,
        next_expiry_ms: group.next_expiry_ms(),
        extents: vec![extent],
    })
}

/// Keeps copies under names that no store looks at.
struct Keeper<'a> {
    disk: &'a dyn Disk,
    prefix: String,
}

impl Keeper<'_> {
    fn keep_file(&self, name: &str) -> Result<(), RepairError> {
        let from = self.disk.open(name).and_then(|file| file.size());
        let bytes = from.map_err(|source| self.failed(name, source))?;
        self.copy(name, &[(0, bytes)])
    }

    fn keep_places(&self, name: &str, extents: &[Extent]) -> Result<(), RepairError> {
        let places: Vec<_> = extents
            .iter()
            .map(|extent| (extent.offset, extent.bytes))
            .collect();
        self.copy(name, &places)
    }

    /// Copies places, given by offset and length, as far as the file has them.
    fn copy(&self, name: &str, places: &[(u64, u64)]) -> Result<(), RepairError> {
        let copied = || -> std::io::Result<()> {
            let from = self.disk.open(name)?;
            let to = self.disk.create(&format!("{}{name}", self.prefix))?;
            let size = from.size()?;
            let mut buffer = Vec::new();
            for &(offset, bytes) in places {
                let end = offset.saturating_add(bytes).min(size);
                let mut at = offset;
                while at < end {
                    let count = (end - at).min(COPIED_BYTES);
                    buffer.resize(count as usize, 0);
                    read_exact_at(&*from, &mut buffer, at)?;
                    write_all_at(&*to, &buffer, at)?;
                    at += count;
                }
            }
            to.sync()
        };
        copied().map_err(|source| self.failed(name, source))
    }

    fn failed(&self, name: &str, source: std::io::Error) -> RepairError {
        RepairError::Keep {
            path: self.disk.path_of(&format!("{}{name}", self.prefix)),
            source,
        }
    }
}
