//! Writes batches at the log's end.

use std::io;
use std::sync::Arc;

use super::super::write_all_at;
use super::error::{WriteError, is_no_space};
use super::format::{
    BATCH_HEADER_BYTES, BLOCK_BYTES, BatchHeader, FLAG_CLEAN, FLAG_OS, FLAG_SEAL, SegmentHeader,
    align, log_name,
};
use super::segment::Segment;
use super::space::{LogSpace, Shared, Spare};
use super::{BATCH_BYTES_MAX, Batch, LogReader};

/// The end of the log that is written to. One thread has it.
pub struct Log {
    pub(super) shared: Arc<Shared>,
    pub(super) segment: Arc<Segment>,
    /// Where the next batch begins.
    pub(super) offset: u64,
    pub(super) end_lsn: u64,
    /// All before this is durable.
    pub(super) durable: u64,
    pub(super) floor_ms: u64,
    /// The checksum of the last batch.
    pub(super) previous: u32,
    /// Whether something was written since the last sync, seals included.
    pub(super) unsynced: bool,
    /// Whether the last batch is a seal that says all before it is durable, and whether that is a clean one.
    pub(super) sealed: Option<bool>,
    /// Why nothing more is taken.
    pub(super) failed: Option<String>,
}

impl Log {
    /// Where the next record will be.
    pub fn end_lsn(&self) -> u64 {
        self.end_lsn
    }

    /// All records before this lsn are durable.
    pub fn durable_lsn(&self) -> u64 {
        self.durable
    }

    /// Whether the last segment has no room for so many bytes of records.
    pub fn would_switch(&self, batch: &Batch) -> bool {
        !self.has_room(BATCH_HEADER_BYTES as u64 + batch.bytes() as u64)
    }

    /// Reads what was written.
    pub fn reader(&self) -> LogReader {
        LogReader(self.shared.clone())
    }

    /// The log's files.
    pub fn space(&self) -> LogSpace {
        LogSpace(self.shared.clone())
    }

    /// Writes a batch at the end, by one write. It is durable after [`Log::sync`]. `floor_ms` is the greatest timestamp
    /// that the store gave out. An empty batch is not written.
    ///
    /// Where the segment has no room the next one is begun; for that the present one is synced.
    ///
    /// Errors: after `NoSpace` and `TooLarge` nothing was written, and the batch's lsn is free again; after `Failed`
    /// whether anything was written is not known, and nothing more is taken.
    pub fn write(&mut self, batch: &mut Batch, floor_ms: u64) -> Result<(), WriteError> {
        self.refuse_if_failed()?;
        if batch.is_empty() {
            return Ok(());
        }
        if batch.bytes() > BATCH_BYTES_MAX {
            return Err(WriteError::TooLarge {
                bytes: batch.bytes(),
                bytes_max: BATCH_BYTES_MAX,
            });
        }
        if batch.first_lsn() != self.end_lsn {
            let why = format!(
                "a batch begins at lsn {}, but the log ends at {}",
                batch.first_lsn(),
                self.end_lsn
            );
            return Err(self.fail(why));
        }
        let bytes = BATCH_HEADER_BYTES as u64 + batch.bytes() as u64;
        if !self.has_room(bytes) {
            self.switch(bytes, floor_ms)?;
        }
        let records = batch.records();
        self.put(batch.buffer_mut(), records, floor_ms, 0)
    }

    /// Makes durable what was written.
    ///
    /// Errors: `Failed`; nothing more is taken then.
    pub fn sync(&mut self) -> Result<(), WriteError> {
        self.refuse_if_failed()?;
        if !self.unsynced {
            return Ok(());
        }
        if let Err(error) = self.segment.file.sync() {
            return Err(self.fail_at(&self.segment.name.clone(), "sync", &error));
        }
        self.unsynced = false;
        self.durable = self.end_lsn;
        Ok(())
    }

    /// Writes an empty batch that says what is durable: so damage of the batch before it is told from a torn tail. With
    /// `clean` everything is synced before and after it, and the next opening learns that the store was closed in
    /// order. Otherwise syncs before, except where syncing is left to the system. Does nothing if the last batch is
    /// such a seal.
    ///
    /// Errors: as [`Log::write`].
    pub fn seal(&mut self, floor_ms: u64, clean: bool) -> Result<(), WriteError> {
        self.refuse_if_failed()?;
        let done = self
            .sealed
            .is_some_and(|was_clean| was_clean == clean && floor_ms <= self.floor_ms);
        if done {
            return if clean { self.sync() } else { Ok(()) };
        }
        if clean || !self.shared.options.os {
            self.sync()?;
        }
        let mut buffer = [0; BATCH_HEADER_BYTES];
        let bytes = BATCH_HEADER_BYTES as u64;
        if self.offset + bytes > self.segment.capacity {
            self.switch(bytes, floor_ms)?;
        }
        let flags = if clean {
            FLAG_SEAL | FLAG_CLEAN
        } else {
            FLAG_SEAL
        };
        self.put(&mut buffer, 0, floor_ms, flags)?;
        if self.durable == self.end_lsn {
            self.sealed = Some(clean);
        }
        if clean { self.sync() } else { Ok(()) }
    }

    /// Room is left for a seal after each batch.
    fn has_room(&self, bytes: u64) -> bool {
        align(self.offset + bytes) + BATCH_HEADER_BYTES as u64 <= self.segment.capacity
    }

    /// Writes header and payload at the end.
    fn put(
        &mut self,
        buffer: &mut [u8],
        records: u32,
        floor_ms: u64,
        flags: u32,
    ) -> Result<(), WriteError> {
        self.floor_ms = self.floor_ms.max(floor_ms);
        let payload_bytes = buffer.len() - BATCH_HEADER_BYTES;
        let os = if self.shared.options.os { FLAG_OS } else { 0 };
        let header = BatchHeader {
            // Callers keep it below `BATCH_BYTES_MAX`.
            payload_bytes: payload_bytes as u32,
            records,
            segment: self.segment.number,
            lsn: self.end_lsn,
            durable: self.durable,
            floor_ms: self.floor_ms,
            previous: self.previous,
            flags: flags | os,
        };
        let checksum = header.seal_into(buffer, self.shared.seed);
        if let Err(error) = write_all_at(&*self.segment.file, buffer, self.offset) {
            return Err(self.fail_at(&self.segment.name.clone(), "write", &error));
        }
        self.segment.push(payload_bytes as u64);
        self.offset = self.segment.end_offset();
        self.end_lsn = header.end_lsn();
        self.previous = checksum;
        self.unsynced = true;
        self.sealed = None;
        Ok(())
    }

    /// Begins the next segment, with room for a batch of `batch_bytes`.
    ///
    /// The order is what opening relies on: all before is durable, then the header is, then the name is, and only then is
    /// a batch written. Until the name is given, the present segment can go on as if nothing had been tried.
    fn switch(&mut self, batch_bytes: u64, floor_ms: u64) -> Result<(), WriteError> {
        let shared = self.shared.clone();
        let wanted = shared.bytes_for(batch_bytes);
        let spare = match shared.take(wanted) {
            Ok(spare) => spare,
            Err((name, error)) => return Err(self.no_space_or_fail(&name, "make", &error)),
        };
        if let Err(error) = self.sync() {
            shared.put_back(spare);
            return Err(error);
        }
        let header = SegmentHeader {
            number: self.segment.number + 1,
            base_lsn: self.end_lsn,
            store_id: shared.store_id,
            floor_ms: self.floor_ms.max(floor_ms),
            chain: self.previous,
            blocks: blocks(spare.bytes),
        };
        let name = log_name(header.number);
        let readied = begin(&spare, &header).and_then(|()| shared.disk.rename(&spare.name, &name));
        if let Err(error) = readied {
            let spare_name = spare.name.clone();
            shared.put_back(spare);
            return Err(self.no_space_or_fail(&spare_name, "begin", &error));
        }
        if let Err(error) = shared.disk.sync_names() {
            // The name may stay or not, so neither segment can be written to.
            return Err(self.fail_at(&name, "sync the name of", &error));
        }
        let segment = Arc::new(Segment::new(&header, spare.file));
        shared.segments.write().push_back(segment.clone());
        shared.grow_after(shared.next_bytes());
        self.offset = segment.end_offset();
        self.segment = segment;
        self.floor_ms = header.floor_ms;
        // The new segment's header proves all before it, as a seal would.
        self.sealed = Some(false);
        Ok(())
    }

    fn refuse_if_failed(&self) -> Result<(), WriteError> {
        match &self.failed {
            Some(why) => Err(WriteError::Failed { why: why.clone() }),
            None => Ok(()),
        }
    }

    fn no_space_or_fail(&mut self, name: &str, what: &str, error: &io::Error) -> WriteError {
        if is_no_space(error) {
            return WriteError::NoSpace {
                file: self.shared.disk.path_of(name),
                error: error.to_string(),
            };
        }
        self.fail_at(name, what, error)
    }

    fn fail_at(&mut self, name: &str, what: &str, error: &io::Error) -> WriteError {
        let file = self.shared.disk.path_of(name);
        self.fail(format!("could not {what} {file}: {error}"))
    }

    fn fail(&mut self, why: String) -> WriteError {
        self.failed = Some(why.clone());
        WriteError::Failed { why }
    }
}

/// A file's length in blocks. The largest batch is far below what the number can hold.
pub(super) fn blocks(bytes: u64) -> u32 {
    u32::try_from(bytes / BLOCK_BYTES).unwrap_or(u32::MAX)
}

/// Makes a file ready to be named as a segment.
pub(super) fn begin(spare: &Spare, header: &SegmentHeader) -> io::Result<()> {
    write_all_at(&*spare.file, &header.encode(), 0)?;
    spare.file.sync()
}
