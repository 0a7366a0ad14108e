//! Walks the batches in a segment's bytes, and looks for what is left behind a place where there is none.

use std::fmt;
use std::io;

use super::super::{Disk, DiskFile, read_exact_at};
use super::RecordAt;
use super::error::{LogError, damaged, io_at};
use super::format::{
    BATCH_ALIGN, BATCH_HEADER_BYTES, BATCH_MAGIC, BadHeader, BatchHeader, FIRST_BATCH, FRAME_BYTES,
    SEGMENT_HEADER_BYTES, SegmentHeader, StoreId, VERSION, align, batch_checksum, log_name, u32_at,
};

/// Bytes that are asked of the system at once.
const READ_BYTES: usize = 4 << 20;

/// Reads and checks the header of segment `number`.
///
/// Errors: damage, a newer format, another store.
pub(super) fn read_header(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    store_id: &StoreId,
    number: u64,
) -> Result<SegmentHeader, LogError> {
    let name = log_name(number);
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let size = file.size().map_err(io_at(disk, &name))?;
    if size < SEGMENT_HEADER_BYTES as u64 {
        let expected = format!("a segment's header was expected, but the file has {size} bytes");
        return Err(damaged(disk, &name, 0, expected, size));
    }
    read_exact_at(file, &mut bytes, 0).map_err(io_at(disk, &name))?;
    let header = match SegmentHeader::decode(&bytes) {
        Ok(header) => header,
        Err(BadHeader::Newer(version)) => {
            return Err(LogError::Newer {
                file: disk.path_of(&name),
                version,
                version_max: VERSION,
            });
        }
        Err(BadHeader::Magic) => {
            let expected = "a segment's header was expected, but its magic is not there";
            return Err(damaged(disk, &name, 0, expected, size));
        }
        Err(BadHeader::Checksum) => {
            let expected = "a segment's header was expected, but its checksum is wrong";
            return Err(damaged(disk, &name, 0, expected, size));
        }
    };
    if header.store_id != *store_id {
        return Err(LogError::Foreign {
            file: disk.path_of(&name),
        });
    }
    if header.number != number {
        let expected = format!(
            "the header of segment {number} was expected, but it is that of segment {}",
            header.number
        );
        return Err(damaged(disk, &name, 0, expected, size));
    }
    Ok(header)
}

/// Checks that a segment's file is as long as its header says.
pub(super) fn check_size(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    header: &SegmentHeader,
) -> Result<(), LogError> {
    let name = log_name(header.number);
    let size = file.size().map_err(io_at(disk, &name))?;
    if size < header.capacity() {
        let expected = format!(
            "{} bytes of a segment were expected, but the file ends here",
            header.capacity()
        );
        return Err(damaged(disk, &name, size, expected, 0));
    }
    Ok(())
}

/// Reads the first `bytes` of a file in large pieces. What the file lacks is zeros.
pub(super) fn read_front(
    file: &dyn DiskFile,
    bytes: usize,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    // Not cleared before: whatever a read does not fill is, below.
    buffer.resize(bytes, 0);
    let mut filled = 0;
    while filled < bytes {
        let end = bytes.min(filled + READ_BYTES);
        match file.read_at(&mut buffer[filled..end], filled as u64) {
            Ok(0) => {
                buffer[filled..].fill(0);
                break;
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Walks from batch to batch.
pub(super) struct Walk<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) seed: u32,
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) lsn: u64,
    /// The checksum of the last batch.
    pub(super) previous: u32,
}

/// Why there is no batch at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// No room for a header.
    Full,
    Magic,
    Segment(u64),
    Flags(u32),
    Lsn(u64),
    Previous,
    Length(u32),
    Checksum,
    /// The checksum is right, but the records do not fill the payload.
    Records,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "the segment is full"),
            Self::Magic => write!(f, "the magic of a batch is not there"),
            Self::Segment(number) => write!(f, "it is of segment {number}"),
            Self::Flags(flags) => write!(f, "its flags {flags:#x} are unknown"),
            Self::Lsn(lsn) => write!(f, "it has lsn {lsn}"),
            Self::Previous => write!(f, "it does not continue the batch before"),
            Self::Length(bytes) => write!(f, "its {bytes} bytes go beyond the segment"),
            Self::Checksum => write!(f, "its checksum is wrong"),
            Self::Records => write!(f, "its records do not fill it"),
        }
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8], seed: u32, segment: u64, lsn: u64, chain: u32) -> Self {
        Self {
            bytes,
            seed,
            segment,
            offset: FIRST_BATCH,
            lsn,
            previous: chain,
        }
    }

    /// The next batch, or why there is none. Stays where it is then.
    pub(super) fn next(&mut self) -> Result<(BatchHeader, Records<'a>), Stop> {
        let rest = usize::try_from(self.offset)
            .ok()
            .and_then(|offset| self.bytes.get(offset..))
            .filter(|rest| rest.len() >= BATCH_HEADER_BYTES)
            .ok_or(Stop::Full)?;
        let header = whole_batch(rest, self.seed, self.segment, |header| {
            if header.lsn != self.lsn {
                return Err(Stop::Lsn(header.lsn));
            }
            if header.previous != self.previous {
                return Err(Stop::Previous);
            }
            Ok(())
        })?;
        let records = Records {
            payload: &rest[BATCH_HEADER_BYTES..][..header.payload_bytes as usize],
            lsn: header.lsn,
        };
        if !records.fill(header.records) {
            return Err(Stop::Records);
        }
        self.offset = align(self.offset + header.batch_bytes());
        self.lsn = header.end_lsn();
        self.previous = u32_at(rest, 0);
        Ok((header, records))
    }
}

/// The header of the batch at the front, if that is whole in itself and `fits`.
fn whole_batch(
    bytes: &[u8],
    seed: u32,
    segment: u64,
    fits: impl FnOnce(&BatchHeader) -> Result<(), Stop>,
) -> Result<BatchHeader, Stop> {
    let header = BatchHeader::decode(bytes).ok_or(Stop::Magic)?;
    if header.segment != segment {
        return Err(Stop::Segment(header.segment));
    }
    if !header.flags_known() {
        return Err(Stop::Flags(header.flags));
    }
    fits(&header)?;
    let rest = usize::try_from(header.batch_bytes())
        .ok()
        .and_then(|end| bytes.get(4..end))
        .ok_or(Stop::Length(header.payload_bytes))?;
    if batch_checksum(seed, rest) != u32_at(bytes, 0) {
        return Err(Stop::Checksum);
    }
    Ok(header)
}

/// The records of a batch whose checksum is right.
#[derive(Clone)]
pub(super) struct Records<'a> {
    payload: &'a [u8],
    lsn: u64,
}

impl Records<'_> {
    fn fill(&self, count: u32) -> bool {
        let mut records = self.clone();
        for _ in 0..count {
            if records.next().is_none() {
                return false;
            }
        }
        records.payload.is_empty()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (RecordAt, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (frame, rest) = self.payload.split_at_checked(FRAME_BYTES)?;
        let len = u32_at(frame, 0);
        let (record, rest) = rest.split_at_checked(len as usize)?;
        let at = RecordAt { lsn: self.lsn, len };
        self.payload = rest;
        self.lsn = at.end_lsn();
        Some((at, record))
    }
}

/// A batch that is whole in itself, whatever it continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offset: u64,
    pub(super) header: BatchHeader,
    pub(super) checksum: u32,
}

/// The first batch of `segment` at or after `offset` that is whole in itself.
pub(super) fn find_batch(bytes: &[u8], seed: u32, segment: u64, offset: u64) -> Option<Found> {
    let mut at = usize::try_from(align(offset)).ok()?;
    while let Some(rest) = bytes.get(at..) {
        if rest.len() < BATCH_HEADER_BYTES {
            break;
        }
        if rest[4..8] == BATCH_MAGIC
            && let Ok(header) = whole_batch(rest, seed, segment, |_| Ok(()))
        {
            return Some(Found {
                offset: at as u64,
                header,
                checksum: u32_at(rest, 0),
            });
        }
        at += BATCH_ALIGN as usize + zero_bytes(&rest[BATCH_ALIGN as usize..]);
    }
    None
}

/// How many blocks of zeros are at the front, in bytes: most of a segment's rest.
fn zero_bytes(bytes: &[u8]) -> usize {
    // Short enough that the compiler compares it as a few wide words.
    const ZEROS: [u8; 128] = [0; 128];
    bytes
        .chunks_exact(ZEROS.len())
        .take_while(|chunk| **chunk == ZEROS)
        .count()
        * ZEROS.len()
}
