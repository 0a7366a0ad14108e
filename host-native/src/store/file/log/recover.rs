//! Reads all that is in a log's files, and decides where it ends. Changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::Disk;
use super::error::{LogError, damaged, dir_of, io_at};
use super::format::{
    BatchHeader, FIRST_BATCH, FLAG_CLEAN, Named, SegmentHeader, StoreId, log_name, named, seed,
};
use super::scan::{Stop, Walk, check_size, find_batch, read_front, read_header};
use super::segment::Segment;
use super::{Cut, OnRecord, Opened};

/// The log's files by what they are.
pub(super) struct Names {
    pub(super) logs: Vec<u64>,
    pub(super) spares: Vec<u64>,
    pub(super) strange: Vec<String>,
}

pub(super) fn list_names(disk: &dyn Disk) -> Result<Names, LogError> {
    let mut names = Names {
        logs: Vec::new(),
        spares: Vec::new(),
        strange: Vec::new(),
    };
    for name in disk.list().map_err(io_at(disk, ""))? {
        match named(&name) {
            Named::Log(number) => names.logs.push(number),
            Named::Spare(number) => names.spares.push(number),
            Named::Odd => names.strange.push(disk.path_of(&name)),
            Named::Other => {}
        }
    }
    names.logs.sort_unstable();
    names.spares.sort_unstable();
    names.strange.sort_unstable();
    Ok(names)
}

/// How far a log is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Good {
    /// Not even its beginning.
    Nothing,
    UpTo(End),
}

/// A place after a batch, or after a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) lsn: u64,
    /// The checksum of the last batch.
    pub(super) previous: u32,
}

/// Why a log cannot be read to its end, and how far it can: nowhere told where repairing would be wrong.
pub(super) struct ScanError {
    pub(super) error: Box<LogError>,
    pub(super) good: Option<Good>,
}

impl ScanError {
    fn new(error: LogError, good: Option<Good>) -> Self {
        Self {
            error: Box::new(error),
            good,
        }
    }
}

impl From<LogError> for ScanError {
    fn from(error: LogError) -> Self {
        Self::new(error, None)
    }
}

/// A log that was read to its end.
pub(super) struct Scanned {
    pub(super) segments: BTreeMap<u64, Arc<Segment>>,
    pub(super) end: End,
    /// All before this was durable.
    pub(super) durable: u64,
    /// Where headers of batches must be wiped.
    pub(super) remains: Vec<u64>,
    pub(super) opened: Opened,
}

/// Reads the log from `start_segment` on, and changes nothing.
pub(super) fn scan_log(
    disk: &dyn Disk,
    store_id: &StoreId,
    start_lsn: u64,
    start_segment: u64,
    on_record: &mut OnRecord<'_>,
) -> Result<Scanned, ScanError> {
    let (scanned, error) = scan_as_far(disk, store_id, start_lsn, start_segment, on_record);
    match error {
        None => Ok(scanned),
        Some(error) => Err(error),
    }
}

/// The same, and gives what was read before an error.
pub(super) fn scan_as_far(
    disk: &dyn Disk,
    store_id: &StoreId,
    start_lsn: u64,
    start_segment: u64,
    on_record: &mut OnRecord<'_>,
) -> (Scanned, Option<ScanError>) {
    let mut scanned = Scanned {
        segments: BTreeMap::new(),
        end: End {
            segment: start_segment,
            offset: FIRST_BATCH,
            lsn: start_lsn,
            previous: 0,
        },
        durable: start_lsn,
        remains: Vec::new(),
        opened: Opened::default(),
    };
    let read = scanned.read(disk, store_id, start_lsn, start_segment, on_record);
    (scanned, read.err())
}

impl Scanned {
    fn read(
        &mut self,
        disk: &dyn Disk,
        store_id: &StoreId,
        start_lsn: u64,
        start_segment: u64,
        on_record: &mut OnRecord<'_>,
    ) -> Result<(), ScanError> {
        let scanned = self;
        let names = list_names(disk)?;
        let last = names
            .logs
            .last()
            .copied()
            .unwrap_or(start_segment)
            .max(start_segment);
        scanned.opened.strange = names.strange;
        let mut buffer = Vec::new();
        let mut good = Good::Nothing;
        let mut stopped = None;
        for number in start_segment..=last {
            let told = |error: LogError| {
                let good = matches!(error, LogError::Damaged { .. } | LogError::Missing { .. })
                    .then_some(good);
                ScanError::new(error, good)
            };
            let name = log_name(number);
            if names.logs.binary_search(&number).is_err() {
                return Err(told(LogError::Missing {
                    file: disk.path_of(&name),
                    dir: dir_of(disk, &name),
                    first: start_segment,
                    last,
                }));
            }
            let file = disk.open(&name).map_err(io_at(disk, &name))?;
            let header = read_header(disk, &*file, store_id, number).map_err(told)?;
            if let Some(stop) = stopped {
                check_continues(disk, &scanned.end, stop, &header).map_err(told)?;
            } else if header.base_lsn > start_lsn {
                let expected = format!(
                    "a segment from lsn {start_lsn} or before was expected, but it begins at {}",
                    header.base_lsn
                );
                return Err(told(damaged(disk, &name, 0, expected, 0)));
            }
            let bytes = usize::try_from(header.capacity()).unwrap_or(usize::MAX);
            read_front(&*file, bytes, &mut buffer).map_err(io_at(disk, &name))?;
            let segment = Arc::new(Segment::new(&header, file));
            let stop = scanned.take_segment(
                disk,
                seed(store_id),
                &header,
                &segment,
                &buffer,
                start_lsn,
                on_record,
            )?;
            if scanned.end.lsn >= start_lsn {
                good = Good::UpTo(scanned.end);
            }
            let told = |error| ScanError::new(error, Some(good));
            scanned.segments.insert(number, segment.clone());
            check_size(disk, &*segment.file, &header).map_err(told)?;
            if number == last {
                scanned
                    .end_log(disk, seed(store_id), &segment, &buffer, stop)
                    .map_err(told)?;
            }
            stopped = Some(stop);
        }
        if scanned.end.lsn < start_lsn {
            let expected = format!(
                "records up to lsn {start_lsn} were expected, but they end at {}",
                scanned.end.lsn
            );
            let error = damaged(disk, &log_name(last), scanned.end.offset, expected, 0);
            return Err(ScanError::new(error, Some(good)));
        }
        Ok(())
    }
}

/// Whether the next segment begins where the one before was found to end.
fn check_continues(
    disk: &dyn Disk,
    end: &End,
    stop: Stop,
    next: &SegmentHeader,
) -> Result<(), LogError> {
    if next.base_lsn == end.lsn && next.chain == end.previous {
        return Ok(());
    }
    let name = log_name(end.segment);
    let next_name = log_name(next.number);
    let expected = if next.base_lsn == end.lsn {
        format!(
            "{next_name} does not continue the last batch here, at lsn {}; a batch was expected, but {stop}",
            end.lsn
        )
    } else {
        format!(
            "a batch at lsn {} was expected, since {next_name} begins at lsn {}, but {stop}",
            end.lsn, next.base_lsn
        )
    };
    let follows = next.base_lsn.saturating_sub(end.lsn);
    Err(damaged(disk, &name, end.offset, expected, follows))
}

impl Scanned {
    #[expect(
        clippy::too_many_arguments,
        reason = "one loop's body, taken out to be read alone"
    )]
    fn take_segment(
        &mut self,
        disk: &dyn Disk,
        seed: u32,
        header: &SegmentHeader,
        segment: &Segment,
        bytes: &[u8],
        start_lsn: u64,
        on_record: &mut OnRecord<'_>,
    ) -> Result<Stop, LogError> {
        self.opened.was_clean = false;
        self.opened.floor_ms = self.opened.floor_ms.max(header.floor_ms);
        self.durable = self.durable.max(header.base_lsn);
        let mut walk = Walk::new(bytes, seed, header.number, header.base_lsn, header.chain);
        let stop = loop {
            match walk.next() {
                Ok((batch, records)) => {
                    for (at, record) in records {
                        if at.lsn < start_lsn {
                            continue;
                        }
                        self.opened.records += 1;
                        self.opened.bytes += u64::from(at.len);
                        on_record(at, record).map_err(|why| LogError::Unreadable {
                            file: disk.path_of(&segment.name),
                            lsn: at.lsn,
                            len: at.len,
                            why,
                        })?;
                    }
                    segment.push(u64::from(batch.payload_bytes));
                    self.take_batch(&batch);
                }
                Err(stop) => break stop,
            }
        };
        self.end = End {
            segment: header.number,
            offset: walk.offset,
            lsn: walk.lsn,
            previous: walk.previous,
        };
        Ok(stop)
    }

    fn take_batch(&mut self, batch: &BatchHeader) {
        self.opened.floor_ms = self.opened.floor_ms.max(batch.floor_ms);
        self.opened.was_clean = batch.flags & FLAG_CLEAN != 0;
        self.durable = self.durable.max(batch.durable);
    }

    /// Decides what the last segment's end is: see the rules of the log.
    fn end_log(
        &mut self,
        disk: &dyn Disk,
        seed: u32,
        segment: &Segment,
        bytes: &[u8],
        stop: Stop,
    ) -> Result<(), LogError> {
        let end = self.end;
        let mut from = end.offset;
        let mut follows_to = None;
        let mut missing = None;
        while let Some(found) = find_batch(bytes, seed, segment.number, from) {
            self.remains.push(found.offset);
            from = found.offset + found.header.batch_bytes();
            follows_to = Some(from);
            if found.header.durable > end.lsn {
                missing.get_or_insert(found);
            }
        }
        if let Some(found) = missing {
            let expected = format!(
                "a batch at lsn {} was expected, since the one at byte {} says that all up to lsn {} was durable, but {stop}",
                end.lsn, found.offset, found.header.durable
            );
            let follows = from - end.offset;
            return Err(damaged(disk, &segment.name, end.offset, expected, follows));
        }
        if stop == Stop::Records {
            // No power failure makes a right checksum.
            let expected = format!("a batch at lsn {} was expected, but {stop}", end.lsn);
            let follows = from - end.offset;
            return Err(damaged(disk, &segment.name, end.offset, expected, follows));
        }
        // A header of this segment that is not good was on its way when the power failed.
        let torn = usize::try_from(end.offset)
            .ok()
            .and_then(|offset| bytes.get(offset..))
            .and_then(BatchHeader::decode)
            .filter(|header| header.segment == segment.number);
        if let Some(header) = torn {
            self.remains.push(end.offset);
            let to = (end.offset + header.batch_bytes()).min(segment.capacity);
            follows_to = Some(follows_to.unwrap_or(to).max(to));
        }
        self.opened.cut = follows_to.map(|to| Cut {
            file: disk.path_of(&segment.name),
            offset: end.offset,
            bytes: to - end.offset,
            why: format!("a batch at lsn {} was expected, but {stop}", end.lsn),
        });
        Ok(())
    }
}
