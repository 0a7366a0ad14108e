//! For operators: lists every damaged place of a log, and drops what is behind the first.

use std::sync::Arc;

use super::super::{Disk, write_all_at};
use super::LogOptions;
use super::error::{LogError, io_at};
use super::format::{
    BATCH_ALIGN, BATCH_HEADER_BYTES, BatchHeader, FIRST_BATCH, FLAG_SEAL, StoreId, log_name, seed,
};
use super::open::{make_segment, wipe};
use super::recover::{End, Good, list_names, scan_log};
use super::scan::{Stop, Walk, find_batch, read_front, read_header};
use super::segment::Segment;
use super::space::{Shared, fill_with_zeros};

/// Everything in a log that can be found, whatever is damaged.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The segments, in order.
    pub segments: Vec<ReportedSegment>,
    /// The damaged places, in order. A torn tail is none.
    pub places: Vec<Place>,
    /// Files whose names begin as the log's but are none of it.
    pub strange: Vec<String>,
    /// The greatest timestamp that any batch or segment tells of.
    pub floor_ms: u64,
}

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedSegment {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub file: String,
    /// The lsn of its first good batch.
    pub base_lsn: u64,
    /// The lsn after its last good batch.
    pub end_lsn: u64,
    /// Good batches.
    pub batches: u64,
    /// Records in these.
    pub records: u64,
    /// Bytes from the end of the last good batch that belong to a torn one: of no account.
    pub torn_bytes: u64,
}

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// In which file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// Bytes until the next good batch of the file; 0 where no such is known.
    pub lost_bytes: u64,
}

/// What was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The damage, in the words of an opening.
    pub damage: String,
    /// The log ends here now.
    pub end_lsn: u64,
    /// In this file.
    pub file: String,
    /// At this place.
    pub offset: u64,
    /// Whole files that were taken away.
    pub removed: Vec<String>,
}

/// Reads the log from `start_segment` on, also behind damage. Changes nothing.
///
/// Errors: what the system says, a newer format, another store's file.
pub fn scan_report(
    disk: &dyn Disk,
    store_id: &StoreId,
    start_segment: u64,
) -> Result<Report, LogError> {
    let names = list_names(disk)?;
    let mut report = Report {
        strange: names.strange,
        ..Report::default()
    };
    let mut end = None;
    let mut buffer = Vec::new();
    let mut expected = start_segment;
    let numbers: Vec<_> = names
        .logs
        .into_iter()
        .filter(|number| *number >= start_segment)
        .collect();
    for number in &numbers {
        if *number != expected {
            report.missing(disk, expected, number - 1);
            end = None;
        }
        let is_last = numbers.last() == Some(number);
        end = report.take_segment(disk, store_id, *number, is_last, end, &mut buffer)?;
        expected = number.saturating_add(1);
    }
    if numbers.is_empty() {
        report.missing(disk, start_segment, start_segment);
    }
    Ok(report)
}

impl Report {
    /// Reports one segment, and gives lsn and checksum at its end.
    fn take_segment(
        &mut self,
        disk: &dyn Disk,
        store_id: &StoreId,
        number: u64,
        is_last: bool,
        before: Option<(u64, u32)>,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<(u64, u32)>, LogError> {
        let name = log_name(number);
        let file = disk.open(&name).map_err(io_at(disk, &name))?;
        let size = file.size().map_err(io_at(disk, &name))?;
        let header = match read_header(disk, &*file, store_id, number) {
            Ok(header) => Some(header),
            Err(LogError::Damaged { expected, .. }) => {
                self.place(disk, &name, 0, expected, 0);
                None
            }
            Err(error) => return Err(error),
        };
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        read_front(&*file, bytes, buffer).map_err(io_at(disk, &name))?;
        let seed = seed(store_id);
        let mut walk = Walk::new(buffer, seed, number, 0, 0);
        if let Some(header) = header {
            self.floor_ms = self.floor_ms.max(header.floor_ms);
            (walk.lsn, walk.previous) = (header.base_lsn, header.chain);
            if before.is_some_and(|end| end != (header.base_lsn, header.chain)) {
                let what = format!(
                    "the segment begins at lsn {}, but the one before ends otherwise, at lsn {}",
                    header.base_lsn,
                    before.map_or(0, |(lsn, _)| lsn)
                );
                self.place(disk, &name, 0, what, 0);
            }
            if size < header.capacity() {
                let what = format!("the file should have {} bytes", header.capacity());
                self.place(disk, &name, size, what, 0);
            }
        } else if let Some(found) = find_batch(buffer, seed, number, FIRST_BATCH) {
            (walk.lsn, walk.previous) = (found.header.lsn, found.header.previous);
            walk.offset = found.offset;
        }
        let mut reported = ReportedSegment {
            number,
            file: disk.path_of(&name),
            base_lsn: walk.lsn,
            end_lsn: walk.lsn,
            batches: 0,
            records: 0,
            torn_bytes: 0,
        };
        loop {
            let stop = match walk.next() {
                Ok((batch, _)) => {
                    self.floor_ms = self.floor_ms.max(batch.floor_ms);
                    reported.batches += 1;
                    reported.records += u64::from(batch.records);
                    continue;
                }
                Err(stop) => stop,
            };
            // A batch that is whole but has wrong records would be found again.
            let from = walk.offset + u64::from(stop == Stop::Records) * BATCH_ALIGN;
            let Some(found) = find_batch(buffer, seed, number, from) else {
                break;
            };
            let lost = found.offset - walk.offset;
            if is_last && found.header.durable <= walk.lsn {
                reported.torn_bytes = found.offset + found.header.batch_bytes() - walk.offset;
                break;
            }
            let what = format!("a batch at lsn {} was expected, but {stop}", walk.lsn);
            self.place(disk, &name, walk.offset, what, lost);
            (walk.lsn, walk.previous) = (found.header.lsn, found.header.previous);
            walk.offset = found.offset;
        }
        reported.end_lsn = walk.lsn;
        let end = (walk.lsn, walk.previous);
        self.segments.push(reported);
        Ok(Some(end))
    }

    fn missing(&mut self, disk: &dyn Disk, first: u64, last: u64) {
        let what = if first == last {
            "the file is missing".into()
        } else {
            format!("the file is missing, and all up to {}", log_name(last))
        };
        self.place(disk, &log_name(first), 0, what, 0);
    }

    fn place(&mut self, disk: &dyn Disk, name: &str, offset: u64, what: String, lost_bytes: u64) {
        self.places.push(Place {
            file: disk.path_of(name),
            offset,
            what,
            lost_bytes,
        });
    }
}

/// Drops everything behind the first damaged place, so that the log can be opened again. `None` if there is no damage:
/// a torn tail is left to the opening.
///
/// Where not even the records up to `start_lsn` are there, the log becomes an empty one that begins at `start_lsn`. The
/// floor of timestamps is kept from all that can be found, also from what is dropped. A repair that is interrupted can
/// be repeated.
///
/// Errors: what the system says, a newer format, another store's file.
pub fn repair(
    disk: &Arc<dyn Disk>,
    store_id: &StoreId,
    start_lsn: u64,
    start_segment: u64,
    options: LogOptions,
) -> Result<Option<Repaired>, LogError> {
    let scanned = scan_log(&**disk, store_id, start_lsn, start_segment, &mut |_, _| {
        Ok(())
    });
    let (damage, good) = match scanned {
        Ok(_) => return Ok(None),
        Err(told) => match told.good {
            Some(good) => (told.error.to_string(), good),
            None => return Err(*told.error),
        },
    };
    let floor_ms = scan_report(&**disk, store_id, start_segment)?.floor_ms;
    let names = list_names(&**disk)?;
    let first_removed = match good {
        Good::Nothing => start_segment,
        Good::UpTo(end) => end.segment + 1,
    };
    if let Good::UpTo(end) = good {
        end_at(&**disk, store_id, &end, floor_ms)?;
    }
    let mut removed = Vec::new();
    for number in names
        .logs
        .iter()
        .rev()
        .filter(|number| **number >= first_removed)
    {
        let name = log_name(*number);
        disk.remove(&name).map_err(io_at(&**disk, &name))?;
        removed.push(disk.path_of(&name));
    }
    disk.sync_names().map_err(io_at(&**disk, ""))?;
    let end = match good {
        Good::UpTo(end) => end,
        Good::Nothing => {
            let next_spare = names.spares.last().map_or(1, |number| number + 1);
            let shared = Shared::new(disk.clone(), *store_id, options, next_spare);
            make_segment(&shared, start_segment, start_lsn, floor_ms)?;
            End {
                segment: start_segment,
                offset: FIRST_BATCH,
                lsn: start_lsn,
                previous: 0,
            }
        }
    };
    Ok(Some(Repaired {
        damage,
        end_lsn: end.lsn,
        file: disk.path_of(&log_name(end.segment)),
        offset: end.offset,
        removed,
    }))
}

/// Makes a segment end here: nothing behind can be taken for a batch or a proof of one any more.
fn end_at(disk: &dyn Disk, store_id: &StoreId, end: &End, floor_ms: u64) -> Result<(), LogError> {
    let name = log_name(end.segment);
    let file = disk.open(&name).map_err(io_at(disk, &name))?;
    let header = read_header(disk, &*file, store_id, end.segment)?;
    let size = file.size().map_err(io_at(disk, &name))?;
    if size < header.capacity() {
        fill_with_zeros(&*file, size, header.capacity()).map_err(io_at(disk, &name))?;
    }
    let mut bytes = Vec::new();
    let capacity = usize::try_from(header.capacity()).unwrap_or(usize::MAX);
    read_front(&*file, capacity, &mut bytes).map_err(io_at(disk, &name))?;
    let seed = seed(store_id);
    let mut remains = Vec::new();
    let mut from = end.offset;
    while let Some(found) = find_batch(&bytes, seed, end.segment, from) {
        remains.push(found.offset);
        from = found.offset + found.header.batch_bytes();
    }
    let segment = Segment::new(&header, file);
    wipe(disk, &segment, &remains)?;
    if end.offset + BATCH_HEADER_BYTES as u64 <= header.capacity() {
        let mut seal = [0; BATCH_HEADER_BYTES];
        BatchHeader {
            payload_bytes: 0,
            records: 0,
            segment: end.segment,
            lsn: end.lsn,
            durable: end.lsn,
            floor_ms,
            previous: end.previous,
            flags: FLAG_SEAL,
        }
        .seal_into(&mut seal, seed);
        write_all_at(&*segment.file, &seal, end.offset).map_err(io_at(disk, &name))?;
    }
    segment.file.sync().map_err(io_at(disk, &name))
}
