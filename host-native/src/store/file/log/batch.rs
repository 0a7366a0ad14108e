//! Records on their way into the log, laid out as they will be on the disk.

use super::RecordAt;
use super::format::{BATCH_HEADER_BYTES, FRAME_BYTES, record_checksum};

/// A buffer that is kept for the next batch, at most.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// Records that are written together. Its buffer is used again: see [`Batch::restart`].
#[derive(Debug)]
pub struct Batch {
    /// Room for the header, then the records.
    buffer: Vec<u8>,
    first_lsn: u64,
    records: u32,
}

impl Batch {
    /// An empty batch. Its first record will be at `first_lsn`.
    pub fn new(first_lsn: u64) -> Self {
        Self {
            buffer: vec![0; BATCH_HEADER_BYTES],
            first_lsn,
            records: 0,
        }
    }

    /// Adds a record of the bytes that `write` appends, and says where it will be.
    ///
    /// A batch of more than [`super::BATCH_BYTES_MAX`] bytes is refused when it is written.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> RecordAt {
        let lsn = self.end_lsn();
        let frame = self.buffer.len();
        self.buffer.extend_from_slice(&[0; FRAME_BYTES]);
        write(&mut self.buffer);
        let start = frame + FRAME_BYTES;
        debug_assert!(self.buffer.len() >= start, "a record is only appended");
        // A longer record cannot be written: the batch is too large by then.
        let len = u32::try_from(self.buffer.len() - start).unwrap_or(u32::MAX);
        let checksum = record_checksum(lsn, &self.buffer[start..]);
        self.buffer[frame..frame + 4].copy_from_slice(&len.to_le_bytes());
        self.buffer[frame + 4..start].copy_from_slice(&checksum.to_le_bytes());
        self.records += 1;
        RecordAt { lsn, len }
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// How many records there are.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// The bytes of records and their frames.
    pub fn bytes(&self) -> usize {
        self.buffer.len() - BATCH_HEADER_BYTES
    }

    /// The bytes that are given to the system, header included.
    pub fn written_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Where the first record is, or will be.
    pub fn first_lsn(&self) -> u64 {
        self.first_lsn
    }

    /// Where the next record will be.
    pub fn end_lsn(&self) -> u64 {
        self.first_lsn + self.bytes() as u64
    }

    /// Empties the batch and keeps its buffer, unless that has grown large.
    pub fn restart(&mut self, first_lsn: u64) {
        self.buffer.truncate(BATCH_HEADER_BYTES);
        self.buffer.shrink_to(KEPT_BYTES_MAX);
        self.first_lsn = first_lsn;
        self.records = 0;
    }

    /// Header's room and payload.
    pub(super) fn buffer_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}
