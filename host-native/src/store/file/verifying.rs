//! Reads everything that is in a directory, and says what is not as it was written, where, and what to do. Changes nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use iii_stream_core::{Group, GroupLimits};

use super::extent::Extent;
use super::log::{self, LogError};
use super::looking::{Look, LookError, Trouble, named};
use super::names::{is_stream_file_name, stream_file_name};
use super::opening::LOCK;
use super::stream_file::{StreamFile, StreamFileError};

/// What begins the names of files that a repair has kept.
pub(super) const LOST_PREFIX: &str = "lost-";

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, and where.
    pub trouble: Trouble,
    /// What it comes to, and what to do.
    pub advice: String,
    /// Whether something is lost that was safe once. If not, the next start sees to it or it does no harm.
    pub is_damage: bool,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams with items.
    pub streams: u64,
    /// Groups with items.
    pub groups: u64,
    /// Items.
    pub items: u64,
    /// Records of the log that are not in the streams' files yet.
    pub records: u64,
    /// Bytes of images, deltas and records.
    pub bytes: u64,
}

/// What a directory came to.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// In the order manifest, log, streams' files, others.
    pub findings: Vec<Finding>,
    /// What could be read.
    pub counts: Counts,
}

impl Verified {
    /// Whether something is lost.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.is_damage)
    }

    fn damage(&mut self, trouble: Trouble, advice: impl Into<String>) {
        self.findings.push(Finding {
            trouble,
            advice: advice.into(),
            is_damage: true,
        });
    }

    fn harmless(&mut self, file: String, offset: Option<u64>, what: &str, advice: &str) {
        self.findings.push(Finding {
            trouble: Trouble {
                file,
                offset,
                what: what.to_owned(),
            },
            advice: advice.to_owned(),
            is_damage: false,
        });
    }
}

/// Reads a directory of the system. `on_group` is told after each group how many items it has, and how many bytes were read.
///
/// Errors: [`LookError`]: somebody uses it, or nothing can be known of it.
pub fn verify(
    dir: &Path,
    limits: GroupLimits,
    on_group: &mut dyn FnMut(u64, u64),
) -> Result<Verified, LookError> {
    Ok(verify_look(&Look::open(dir, limits)?, on_group))
}

/// Reads all of what is looked at.
pub(super) fn verify_look(look: &Look, on_group: &mut dyn FnMut(u64, u64)) -> Verified {
    let mut verified = Verified::default();
    verify_manifest(look, &mut verified);
    verify_log(look, &mut verified);
    verify_headers(look, &mut verified);
    verify_groups(look, &mut verified, on_group);
    verify_names(look, &mut verified);
    verified
}

fn verify_manifest(look: &Look, verified: &mut Verified) {
    for damage in &look.manifest.damages {
        let trouble = Trouble {
            file: look.manifest.path.clone(),
            offset: Some(damage.offset),
            what: format!(
                "the {} bytes here are damaged: {}",
                damage.bytes, damage.what
            ),
        };
        let advice = "groups that were last written to the streams' files then may go back to what they were before. \
                      Restore the directory from a backup, or use --repair";
        verified.damage(trouble, advice);
    }
    let Some(cut) = &look.manifest.cut else {
        return;
    };
    if let Some(LogError::Missing { .. }) = look.log.damage {
        let trouble = Trouble {
            file: cut.path.clone(),
            offset: Some(cut.offset),
            what: format!(
                "the last unit, of {} bytes, cannot be read, and the log no longer has what it was about",
                cut.bytes
            ),
        };
        let advice = "groups that were last written to the streams' files then go back to what they were before. \
                      Restore the directory from a backup, or use --repair";
        return verified.damage(trouble, advice);
    }
    let what = format!("a unit of {} bytes was not finished", cut.bytes);
    let advice = "the log still has what it was about; the next start cuts it off";
    verified.harmless(cut.path.clone(), Some(cut.offset), &what, advice);
}

fn verify_log(look: &Look, verified: &mut Verified) {
    let opened = &look.log.opened;
    verified.counts.records = opened.records;
    if let Some(cut) = &opened.cut {
        let what = format!(
            "a write of {} bytes was not finished: {}",
            cut.bytes, cut.why
        );
        let advice = "nobody was told that it was safe; the next start cuts it off";
        verified.harmless(cut.file.clone(), Some(cut.offset), &what, advice);
    }
    for file in &opened.strange {
        let advice = "it is left alone, and may be moved away";
        verified.harmless(file.clone(), None, "none of the log's files", advice);
    }
    if let Some(error) = &look.log.damage {
        let advice = "the changes from here on are lost, but for what the streams' files have. Restore the directory from \
                      a backup, or use --repair";
        let contents = &look.manifest.contents;
        let start_segment = contents
            .log
            .map_or(log::Log::FIRST_SEGMENT, |start| start.segment);
        let report = log::scan_report(&*look.disk, &contents.store_id, start_segment);
        let places = report.map(|report| report.places).unwrap_or_default();
        let first = first_trouble(look, error);
        verified.damage(first.clone(), advice);
        for place in places {
            let what = match place.lost_bytes {
                0 => place.what,
                bytes => format!("{}; {bytes} bytes cannot be read", place.what),
            };
            let trouble = Trouble {
                file: place.file,
                offset: Some(place.offset),
                what,
            };
            if (&trouble.file, trouble.offset) != (&first.file, first.offset) {
                verified.damage(trouble, advice);
            }
        }
    }
    for trouble in look.odd_troubles() {
        let advice = "the manifest and the log do not fit together. Restore the directory from a backup, or use --repair, \
                      which leaves the record out";
        verified.damage(trouble, advice);
    }
}

/// Where the log cannot be read on.
fn first_trouble(look: &Look, error: &LogError) -> Trouble {
    match error {
        LogError::Damaged {
            file,
            offset,
            expected,
            ..
        } => Trouble {
            file: file.clone(),
            offset: Some(*offset),
            what: expected.clone(),
        },
        LogError::Missing { file, .. } => Trouble {
            file: file.clone(),
            offset: None,
            what: "the file is missing".to_owned(),
        },
        error => Trouble {
            file: look.disk.path_of("log"),
            offset: None,
            what: error.to_string(),
        },
    }
}

/// What of each stream's file is referred to.
pub(super) fn live_extents(look: &Look) -> Vec<(Arc<str>, Vec<Extent>)> {
    let mut live: Vec<(Arc<str>, Vec<Extent>)> = Vec::new();
    // Sorted by stream.
    for (key, known) in &look.groups {
        if live.last().is_none_or(|(stream, _)| *stream != key.stream) {
            live.push((key.stream.clone(), Vec::new()));
        }
        if let Some((_, extents)) = live.last_mut() {
            extents.extend(known.state.kept.extents());
        }
    }
    for (key, kept) in &look.gone {
        let found = live.iter_mut().find(|(stream, _)| *stream == key.stream);
        if let Some((_, extents)) = found {
            extents.extend(kept.extents());
        }
    }
    live.retain(|(_, extents)| !extents.is_empty());
    live
}

fn verify_headers(look: &Look, verified: &mut Verified) {
    for (stream, extents) in live_extents(look) {
        let store_id = look.manifest.contents.store_id;
        let opened = StreamFile::open(&*look.disk, store_id, &stream, extents.into_iter());
        let Err(error) = opened else { continue };
        let advice = match &error {
            // Each extent that is not there is told with its group.
            StreamFileError::Outside { .. } => continue,
            error if error.is_missing() => continue,
            StreamFileError::DamagedHeader { .. } | StreamFileError::NotAStreamFile { .. } => {
                "what is behind the header is looked at for itself; --repair writes the header anew"
            }
            StreamFileError::OtherStream { .. }
            | StreamFileError::OtherStore { .. }
            | StreamFileError::OtherVersion { .. } => "no repair helps before that is done",
            _ => "restore the directory from a backup, or use --repair",
        };
        verified.damage(Trouble::of(&error), advice);
    }
}

fn verify_groups(look: &Look, verified: &mut Verified, on_group: &mut dyn FnMut(u64, u64)) {
    let mut streams = BTreeSet::new();
    for (key, known) in &look.groups {
        let made = look.make(key);
        let bytes = look.group_bytes(key);
        let items = made.group.as_ref().map_or(0, |group| group.len() as u64);
        verified.counts.bytes += bytes;
        verified.counts.items += items;
        if known.has_items {
            streams.insert(key.stream.clone());
            verified.counts.groups += 1;
        }
        let seq = made.group.as_ref().map_or(0, Group::seq);
        for trouble in made.troubles {
            let name = named(key);
            let advice = match &made.group {
                None => format!(
                    "{name} cannot be read. Restore the directory from a backup; --repair drops it"
                ),
                Some(_) if made.is_whole => {
                    format!(
                        "{name} has all of its items; --repair writes it anew without its history"
                    )
                }
                Some(_) => format!(
                    "of {name} the first {seq} changes can be read. Restore the directory from a backup; --repair takes it \
                     back to there"
                ),
            };
            verified.damage(trouble, advice);
        }
        on_group(items, bytes);
    }
    verified.counts.streams = streams.len() as u64;
}

/// Looks for files that nothing refers to.
fn verify_names(look: &Look, verified: &mut Verified) {
    let Ok(mut names) = look.disk.list() else {
        return;
    };
    names.sort();
    let files: BTreeSet<String> = look
        .groups
        .keys()
        .map(|key| stream_file_name(&key.stream))
        .collect();
    for name in names {
        let path = || look.disk.path_of(&name);
        if is_stream_file_name(&name) && !files.contains(&name) {
            let advice = "it may be moved away; a new stream of this name takes its place";
            verified.harmless(path(), None, "nothing refers to this stream's file", advice);
        } else if name.starts_with(LOST_PREFIX) {
            let advice = "it may be moved away once nobody needs it";
            verified.harmless(path(), None, "a repair has kept what it dropped", advice);
        } else if !is_stream_file_name(&name)
            && name != LOCK
            && !["manifest-", "log-", "spare-"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        {
            verified.harmless(path(), None, "not made by this program", "it is left alone");
        }
    }
}
