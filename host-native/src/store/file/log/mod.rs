//! The commit log: records of bytes in segments, written in checksummed batches. No threads, no clock.
//!
//! **Positions.** An `lsn` counts the bytes of all batches' payloads since the store's beginning: records with their
//! frames of 8 bytes, without the headers of batches. No lsn is used twice. A record never spans batches, a batch never
//! spans segments.
//!
//! **What writing promises**, and reading relies on:
//!
//! 1. A segment gets its name `log-…` only after its header is synced, and after everything in the segment before is
//!    synced. So a segment that is there proves the whole of the one before, and has a good header.
//! 2. A batch says up to which lsn all was durable before it was written.
//! 3. No segment number is used for a second file. What is left in a recycled file has another number.
//! 4. Files are written to their full capacity before they are used, and are never shortened.
//! 5. A write that is cut off by a power failure spares the bytes beside it, also those in the same sector.
//!
//! **What is a batch.** Right magic, segment number, lsn that continues, checksum of the batch before, and checksum of
//! its own, which is seeded with the store's id: users' data cannot pose as a batch.
//!
//! **At the first place in a segment that holds no such batch:**
//!
//! 1. If there is a next segment that begins with this lsn and the checksum of the last batch: the segment's end.
//! 2. If there is a next segment that begins otherwise: damage.
//! 3. In the last segment, if any batch behind that is whole in itself says that more was durable: damage.
//! 4. Otherwise what is behind was never promised to anybody: a torn tail. Its headers are wiped, so that no batch in it
//!    can become valid again by a later write, and writing goes on at this place.
//!
//! Also damage: a bad segment header, a file shorter than its capacity, an end before the lsn that was asked for.
//! A missing file and a newer format are errors of their own. Files with names that this log would not give are left
//! alone and told.
//!
//! At the start, what no batch says was durable is written again and synced: it may only be in the system's
//! cache, left there by a sync that failed before the restart.
//!
//! A record has a checksum of its own, so that it can be read alone; scanning checks batches, not records again.

mod batch;
mod error;
mod format;
mod look;
mod open;
mod reader;
mod recover;
mod repair;
mod scan;
mod segment;
mod space;
mod writer;

#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use error::{LogError, WriteError};
pub use format::{StoreId, VERSION};
pub use look::{Looked, look};
pub use open::{Cut, Opened};
pub use reader::LogReader;
pub use repair::{Place, Repaired, Report, ReportedSegment, repair, scan_report};
pub use space::{LogSpace, SealedSegment};
pub use writer::Log;

/// Most bytes of one batch's payload.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordAt {
    /// Where its frame begins.
    pub lsn: u64,
    /// Its bytes, without the frame.
    pub len: u32,
}

impl RecordAt {
    /// The lsn after the record.
    pub fn end_lsn(self) -> u64 {
        self.lsn + (format::FRAME_BYTES as u64) + u64::from(self.len)
    }
}

/// Takes records in order. An error, in words for operators, stops the reading.
pub type OnRecord<'a> = dyn FnMut(RecordAt, &[u8]) -> Result<(), String> + 'a;

/// How a log is written.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Size of the first segment's file. Each next one is up to four times as large.
    pub first_segment_bytes: u64,
    /// Size of a segment's file, once the log has grown. A batch that does not fit gets a larger file of its own.
    pub segment_bytes: u64,
    /// Most files that are kept ready for segments to come.
    pub spares_max: usize,
    /// Marks batches as written by a store that leaves syncing to the system. Then `durable` is only what segment
    /// switches, seals at the end, and explicit calls of `sync` made so.
    pub os: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            first_segment_bytes: 1 << 20,
            segment_bytes: 16 << 20,
            spares_max: 2,
            os: false,
        }
    }
}
