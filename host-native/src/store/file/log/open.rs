//! Makes a log, and opens one.

use std::sync::Arc;

use super::super::{Disk, read_exact_at, write_all_at};
use super::error::{LogError, damaged, io_at};
use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, FIRST_BATCH, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId,
    log_name, spare_name,
};
use super::recover::{list_names, scan_log};
use super::scan::read_front;
use super::segment::Segment;
use super::space::Shared;
use super::writer::{begin, blocks};
use super::{Log, LogOptions, OnRecord};

/// What was found at the opening.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// The torn tail that was cut off, if there was one.
    pub cut: Option<Cut>,
    /// The greatest timestamp that any batch tells of.
    pub floor_ms: u64,
    /// Whether the store was closed in order.
    pub was_clean: bool,
    /// How many records there are.
    pub records: u64,
    /// The bytes of these, without frames.
    pub bytes: u64,
    /// Files whose names begin as the log's but are none of it. They were left alone.
    pub strange: Vec<String>,
}

/// Something at the log's end that was never durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// In which file.
    pub file: String,
    /// Where the log ends now.
    pub offset: u64,
    /// How many bytes were cut off, as far as known.
    pub bytes: u64,
    /// What is wrong at this place.
    pub why: String,
}

/// Overwrites headers of batches with zeros. Not synced.
pub(super) fn wipe(disk: &dyn Disk, segment: &Segment, offsets: &[u64]) -> Result<(), LogError> {
    for offset in offsets {
        write_all_at(&*segment.file, &[0; BATCH_HEADER_BYTES], *offset)
            .map_err(io_at(disk, &segment.name))?;
    }
    Ok(())
}

/// Makes segment `number` with nothing in it, from a new file.
pub(super) fn make_segment(
    shared: &Shared,
    number: u64,
    base_lsn: u64,
    floor_ms: u64,
) -> Result<Arc<Segment>, LogError> {
    let disk = &*shared.disk;
    let spare = shared
        .take(shared.next_bytes())
        .map_err(|(name, error)| io_at(disk, &name)(error))?;
    let header = SegmentHeader {
        number,
        base_lsn,
        store_id: shared.store_id,
        floor_ms,
        chain: 0,
        blocks: blocks(spare.bytes),
    };
    begin(&spare, &header).map_err(io_at(disk, &spare.name))?;
    let name = log_name(number);
    disk.rename(&spare.name, &name)
        .map_err(io_at(disk, &spare.name))?;
    disk.sync_names().map_err(io_at(disk, &name))?;
    Ok(Arc::new(Segment::new(&header, spare.file)))
}

impl Log {
    /// The number of a new log's first segment.
    pub const FIRST_SEGMENT: u64 = 1;

    /// Makes a log with nothing in it: its first segment has number [`Log::FIRST_SEGMENT`] and begins at lsn 0.
    ///
    /// What an earlier try left is taken away.
    ///
    /// Errors: `AlreadyThere` if there is a log with records; what the system says.
    pub fn create(
        disk: Arc<dyn Disk>,
        store_id: StoreId,
        options: LogOptions,
    ) -> Result<Self, LogError> {
        let names = list_names(&*disk)?;
        for number in &names.logs {
            if *number != Self::FIRST_SEGMENT || holds_batches(&*disk, *number)? {
                return Err(LogError::AlreadyThere {
                    file: disk.path_of(&log_name(*number)),
                });
            }
        }
        for number in &names.logs {
            let name = log_name(*number);
            disk.remove(&name).map_err(io_at(&*disk, &name))?;
        }
        let next_spare = names.spares.last().map_or(1, |number| number + 1);
        for number in &names.spares {
            let name = spare_name(*number);
            disk.remove(&name).map_err(io_at(&*disk, &name))?;
        }
        let shared = Shared::new(disk, store_id, options, next_spare);
        let segment = make_segment(&shared, Self::FIRST_SEGMENT, 0, 0)?;
        shared.grow_after(shared.next_bytes());
        shared.segments.write().push_back(segment.clone());
        Ok(Self {
            shared: Arc::new(shared),
            offset: segment.end_offset(),
            end_lsn: 0,
            durable: 0,
            floor_ms: 0,
            previous: segment.chain,
            unsynced: false,
            sealed: Some(false),
            failed: None,
            segment,
        })
    }

    /// Opens the log from `start_segment` on, and hands over all records from `start_lsn` on, in order.
    ///
    /// Ends with everything durable that was handed over: what may not have been is written again and synced. Segments
    /// before `start_segment` become spares or go.
    ///
    /// Errors: see [`LogError`]. Nothing was changed if records are damaged or missing.
    pub fn open(
        disk: Arc<dyn Disk>,
        store_id: StoreId,
        start_lsn: u64,
        start_segment: u64,
        options: LogOptions,
        on_record: &mut OnRecord<'_>,
    ) -> Result<(Self, Opened), LogError> {
        let scanned = scan_log(&*disk, &store_id, start_lsn, start_segment, on_record)
            .map_err(|told| *told.error)?;
        let names = list_names(&*disk)?;
        let next_spare = names.spares.last().map_or(1, |number| number + 1);
        let shared = Shared::new(disk, store_id, options, next_spare);
        let disk = &*shared.disk;
        let end = scanned.end;
        let segment = scanned.segments.values().next_back().cloned();
        let Some(segment) = segment else {
            let name = log_name(start_segment);
            return Err(damaged(disk, &name, 0, "a segment was expected", 0));
        };
        shared.grow_after(segment.capacity);

        wipe(disk, &segment, &scanned.remains)?;
        write_again(disk, &segment, scanned.durable)?;
        segment.file.sync().map_err(io_at(disk, &segment.name))?;
        // A name that was given just before a restart may not be lasting yet.
        disk.sync_names().map_err(io_at(disk, &segment.name))?;

        for number in &names.logs {
            if *number < start_segment {
                keep_file(&shared, &log_name(*number))?;
            }
        }
        for number in &names.spares {
            keep_file(&shared, &spare_name(*number))?;
        }
        shared
            .segments
            .write()
            .extend(scanned.segments.into_values());
        let opened = scanned.opened;
        let log = Self {
            shared: Arc::new(shared),
            offset: end.offset,
            end_lsn: end.lsn,
            durable: end.lsn,
            floor_ms: opened.floor_ms,
            previous: end.previous,
            unsynced: false,
            sealed: None,
            failed: None,
            segment,
        };
        Ok((log, opened))
    }
}

/// Makes a spare of a file that no log needs, or takes it away.
fn keep_file(shared: &Shared, name: &str) -> Result<(), LogError> {
    let disk = &*shared.disk;
    let file = disk.open(name).map_err(io_at(disk, name))?;
    let bytes = file.size().map_err(io_at(disk, name))?;
    shared.recycle(name, file, bytes)
}

/// Writes again what no batch says was durable, so that the next sync is about it: a sync that failed before the restart
/// may have left it in the system's cache only.
fn write_again(disk: &dyn Disk, segment: &Segment, durable: u64) -> Result<(), LogError> {
    let from = segment.end_offset_up_to(durable);
    let to = segment.end_offset();
    let mut bytes = vec![0; usize::try_from((to - from).min(1 << 20)).unwrap_or(0)];
    let mut offset = from;
    while offset < to {
        let count = usize::try_from(to - offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let piece = &mut bytes[..count];
        read_exact_at(&*segment.file, piece, offset).map_err(io_at(disk, &segment.name))?;
        write_all_at(&*segment.file, piece, offset).map_err(io_at(disk, &segment.name))?;
        offset += count as u64;
    }
    Ok(())
}

/// Whether a file that no manifest tells of has anything of a log in it.
fn holds_batches(disk: &dyn Disk, number: u64) -> Result<bool, LogError> {
    let name = log_name(number);
    let file = disk.open(&name).map_err(io_at(disk, &name))?;
    let mut bytes = Vec::new();
    let looked_at = FIRST_BATCH as usize + BATCH_HEADER_BYTES;
    read_front(&*file, looked_at, &mut bytes).map_err(io_at(disk, &name))?;
    let (header, first) = bytes.split_at(FIRST_BATCH as usize);
    debug_assert!(
        header.len() >= SEGMENT_HEADER_BYTES,
        "the header is before the batches"
    );
    // A header that cannot be read is no leftover of `create`, which gives the name last.
    let mut header_bytes = [0; SEGMENT_HEADER_BYTES];
    header_bytes.copy_from_slice(&header[..SEGMENT_HEADER_BYTES]);
    match SegmentHeader::decode(&header_bytes) {
        Ok(header) => {
            Ok(BatchHeader::decode(first).is_some_and(|batch| batch.segment == header.number))
        }
        Err(_) => Ok(true),
    }
}
