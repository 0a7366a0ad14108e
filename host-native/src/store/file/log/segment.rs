//! One segment of the log while it is open: its file, and where its batches are.

use std::sync::Arc;

use parking_lot::RwLock;

use super::super::DiskFile;
use super::format::{BATCH_HEADER_BYTES, FIRST_BATCH, SegmentHeader, align, log_name};

pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) base_lsn: u64,
    /// The checksum that its first batch continues.
    pub(super) chain: u32,
    pub(super) capacity: u64,
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    written: RwLock<Written>,
}

struct Written {
    /// Batches that have records, in order.
    batches: Vec<BatchAt>,
    end_lsn: u64,
    end_offset: u64,
}

#[derive(Clone, Copy)]
struct BatchAt {
    lsn: u64,
    offset: u64,
}

impl Segment {
    pub(super) fn new(header: &SegmentHeader, file: Arc<dyn DiskFile>) -> Self {
        Self {
            number: header.number,
            base_lsn: header.base_lsn,
            chain: header.chain,
            capacity: header.capacity(),
            name: log_name(header.number),
            file,
            written: RwLock::new(Written {
                batches: Vec::new(),
                end_lsn: header.base_lsn,
                end_offset: FIRST_BATCH,
            }),
        }
    }

    /// Takes note of a batch at the end.
    pub(super) fn push(&self, payload_bytes: u64) {
        let mut written = self.written.write();
        if payload_bytes > 0 {
            let batch = BatchAt {
                lsn: written.end_lsn,
                offset: written.end_offset,
            };
            written.batches.push(batch);
        }
        written.end_lsn += payload_bytes;
        written.end_offset = align(written.end_offset + BATCH_HEADER_BYTES as u64 + payload_bytes);
    }

    pub(super) fn end_lsn(&self) -> u64 {
        self.written.read().end_lsn
    }

    /// Where the next batch begins in the file.
    pub(super) fn end_offset(&self) -> u64 {
        self.written.read().end_offset
    }

    /// Where the bytes from `lsn` to `end_lsn` are in the file, if a batch holds them all.
    pub(super) fn offset_of(&self, lsn: u64, end_lsn: u64) -> Option<u64> {
        let written = self.written.read();
        let next = written.batches.partition_point(|batch| batch.lsn <= lsn);
        let batch = written.batches.get(next.checked_sub(1)?)?;
        let batch_end = written
            .batches
            .get(next)
            .map_or(written.end_lsn, |batch| batch.lsn);
        (end_lsn <= batch_end).then(|| batch.offset + BATCH_HEADER_BYTES as u64 + (lsn - batch.lsn))
    }

    /// The end in the file of the last batch with records that ends at or before `lsn`.
    pub(super) fn end_offset_up_to(&self, lsn: u64) -> u64 {
        let written = self.written.read();
        let ends = |index: usize| {
            written
                .batches
                .get(index + 1)
                .map_or(written.end_lsn, |batch| batch.lsn)
        };
        let beyond = written.batches.partition_point(|batch| batch.lsn < lsn);
        // The last one that begins before `lsn` may end after it.
        let count = match beyond.checked_sub(1) {
            Some(last) if ends(last) > lsn => last,
            _ => beyond,
        };
        count.checked_sub(1).map_or(FIRST_BATCH, |last| {
            let batch = written.batches[last];
            align(batch.offset + BATCH_HEADER_BYTES as u64 + (ends(last) - batch.lsn))
        })
    }
}
