//! Reads records back, while the log is written.

use std::sync::Arc;

use super::super::read_exact_at;
use super::error::{LogError, damaged, io_at};
use super::format::{FRAME_BYTES, record_checksum, u32_at};
use super::scan::{Walk, read_front};
use super::segment::Segment;
use super::space::Shared;
use super::{OnRecord, RecordAt};

/// Reads what was written and not released. For any thread.
#[derive(Clone)]
pub struct LogReader(pub(super) Arc<Shared>);

impl LogReader {
    /// Reads one record.
    ///
    /// Errors: `Gone` if it was released or never written; damage; what the system says.
    pub fn read(&self, at: RecordAt) -> Result<Vec<u8>, LogError> {
        let mut record = Vec::new();
        self.read_into(at, &mut record)?;
        Ok(record)
    }

    /// As [`LogReader::read`], into a buffer whose content is replaced.
    ///
    /// Errors: as there.
    pub fn read_into(&self, at: RecordAt, record: &mut Vec<u8>) -> Result<(), LogError> {
        let gone = LogError::Gone { lsn: at.lsn };
        let Some((segment, offset)) = self.find(at) else {
            return Err(gone);
        };
        let read = read_record(&self.0, &segment, offset, at, record);
        // A segment that was released meanwhile may have been used again.
        if read.is_err() && self.find(at).is_none() {
            return Err(gone);
        }
        read
    }

    fn find(&self, at: RecordAt) -> Option<(Arc<Segment>, u64)> {
        let segments = self.0.segments.read();
        let after = segments.partition_point(|segment| segment.base_lsn <= at.lsn);
        let segment = segments.get(after.checked_sub(1)?)?;
        let offset = segment.offset_of(at.lsn, at.end_lsn())?;
        Some((segment.clone(), offset))
    }

    /// Reads the records of one segment in order, as far as it was written when the call began. `buffer` is used for
    /// the whole segment and can be given again.
    ///
    /// Errors: `Gone` if the segment was released; damage; what the system says; `Unreadable` with what `on_record` says.
    pub fn read_segment(
        &self,
        number: u64,
        buffer: &mut Vec<u8>,
        on_record: &mut OnRecord<'_>,
    ) -> Result<(), LogError> {
        let disk = &*self.0.disk;
        let segment = {
            let segments = self.0.segments.read();
            let first = segments.front().map_or(0, |segment| segment.number);
            let index = number
                .checked_sub(first)
                .and_then(|index| usize::try_from(index).ok());
            match index.and_then(|index| segments.get(index)) {
                Some(segment) => segment.clone(),
                None => {
                    let lsn = segments.front().map_or(0, |segment| segment.base_lsn);
                    return Err(LogError::Gone { lsn });
                }
            }
        };
        let end = segment.end_offset();
        let bytes = usize::try_from(end.min(segment.capacity)).unwrap_or(usize::MAX);
        read_front(&*segment.file, bytes, buffer).map_err(io_at(disk, &segment.name))?;
        let mut walk = Walk::new(
            buffer,
            self.0.seed,
            segment.number,
            segment.base_lsn,
            segment.chain,
        );
        while walk.offset < end {
            let records = match walk.next() {
                Ok((_, records)) => records,
                Err(stop) => {
                    let expected = format!("a batch at lsn {} was expected, but {stop}", walk.lsn);
                    return Err(damaged(
                        disk,
                        &segment.name,
                        walk.offset,
                        expected,
                        end - walk.offset,
                    ));
                }
            };
            for (at, record) in records {
                on_record(at, record).map_err(|why| LogError::Unreadable {
                    file: disk.path_of(&segment.name),
                    lsn: at.lsn,
                    len: at.len,
                    why,
                })?;
            }
        }
        Ok(())
    }
}

fn read_record(
    shared: &Shared,
    segment: &Segment,
    offset: u64,
    at: RecordAt,
    record: &mut Vec<u8>,
) -> Result<(), LogError> {
    let disk = &*shared.disk;
    record.clear();
    record.resize(FRAME_BYTES + at.len as usize, 0);
    read_exact_at(&*segment.file, record, offset).map_err(io_at(disk, &segment.name))?;
    let len = u32_at(record, 0);
    let checksum = u32_at(record, 4);
    record.drain(..FRAME_BYTES);
    let what = if len != at.len {
        format!("but its length is {len}")
    } else if checksum != record_checksum(at.lsn, record) {
        "but its checksum is wrong".into()
    } else {
        return Ok(());
    };
    let expected = format!(
        "the record at lsn {}, of {} bytes, was expected, {what}",
        at.lsn, at.len
    );
    let follows = segment.end_offset().saturating_sub(offset);
    Err(damaged(disk, &segment.name, offset, expected, follows))
}
