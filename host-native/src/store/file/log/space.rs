//! The log's files: segments that are in use, and spare ones that wait with zeros in them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::super::{Disk, DiskFile, write_all_at};
use super::LogOptions;
use super::error::{LogError, io_at};
use super::format::{BATCH_HEADER_BYTES, BLOCK_BYTES, FIRST_BATCH, StoreId, seed, spare_name};
use super::segment::Segment;

/// Bytes that a new file is lengthened by at once.
const ZEROS_BYTES: usize = 1 << 20;

/// What log, readers and the making of spares share.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) store_id: StoreId,
    pub(super) seed: u32,
    pub(super) options: LogOptions,
    /// In order, without gaps. The last one is written to. Never empty while a log is open.
    pub(super) segments: RwLock<VecDeque<Arc<Segment>>>,
    spares: Mutex<Spares>,
}

struct Spares {
    ready: Vec<Spare>,
    /// The size that the next segment should have.
    next_bytes: u64,
    next_number: u64,
}

/// A file to make a segment of.
pub(super) struct Spare {
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) bytes: u64,
}

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        store_id: StoreId,
        options: LogOptions,
        next_spare: u64,
    ) -> Self {
        let segment_bytes_min = FIRST_BATCH + BLOCK_BYTES;
        let sized = |bytes: u64| bytes.max(segment_bytes_min).next_multiple_of(BLOCK_BYTES);
        let segment_bytes = sized(options.segment_bytes);
        let first_segment_bytes = sized(options.first_segment_bytes).min(segment_bytes);
        Self {
            disk,
            store_id,
            seed: seed(&store_id),
            options: LogOptions {
                segment_bytes,
                first_segment_bytes,
                ..options
            },
            segments: RwLock::default(),
            spares: Mutex::new(Spares {
                ready: Vec::new(),
                next_bytes: first_segment_bytes,
                next_number: next_spare,
            }),
        }
    }

    /// The segments after one of `bytes` are larger.
    pub(super) fn grow_after(&self, bytes: u64) {
        self.spares.lock().next_bytes = bytes.saturating_mul(4).min(self.options.segment_bytes);
    }

    pub(super) fn next_bytes(&self) -> u64 {
        self.spares.lock().next_bytes
    }

    /// The size of a file that takes a batch of `batch_bytes` with its header, and a seal.
    pub(super) fn bytes_for(&self, batch_bytes: u64) -> u64 {
        let least = FIRST_BATCH + batch_bytes + 2 * BATCH_HEADER_BYTES as u64;
        least.next_multiple_of(BLOCK_BYTES).max(self.next_bytes())
    }

    /// A spare of at least `bytes`: one that is ready, or a new one.
    ///
    /// Errors: what the system says, with the name of the file.
    pub(super) fn take(&self, bytes: u64) -> Result<Spare, (String, io::Error)> {
        {
            let mut spares = self.spares.lock();
            if let Some(index) = spares.ready.iter().position(|spare| spare.bytes >= bytes) {
                return Ok(spares.ready.swap_remove(index));
            }
        }
        self.make(bytes)
    }

    /// Puts a spare back that was not used.
    pub(super) fn put_back(&self, spare: Spare) {
        self.spares.lock().ready.push(spare);
    }

    fn new_name(&self) -> String {
        let mut spares = self.spares.lock();
        let name = spare_name(spares.next_number);
        spares.next_number += 1;
        name
    }

    fn make(&self, bytes: u64) -> Result<Spare, (String, io::Error)> {
        let name = self.new_name();
        let made = self.disk.create(&name).and_then(|file| {
            fill_with_zeros(&*file, 0, bytes).inspect_err(|_| {
                // What is left is too short, and goes at the next start.
                let _ = self.disk.remove(&name);
            })?;
            Ok(file)
        });
        match made {
            Ok(file) => Ok(Spare { name, file, bytes }),
            Err(error) => Err((name, error)),
        }
    }

    fn is_enough(&self) -> bool {
        let spares = self.spares.lock();
        let right = |spare: &&Spare| spare.bytes == spares.next_bytes;
        spares.ready.iter().filter(right).count() >= self.options.spares_max.min(1)
    }

    /// Keeps a file that is not needed any more, if it is of use.
    pub(super) fn recycle(
        &self,
        name: &str,
        file: Arc<dyn DiskFile>,
        bytes: u64,
    ) -> Result<(), LogError> {
        let of_use = {
            let spares = self.spares.lock();
            bytes == spares.next_bytes && spares.ready.len() < self.options.spares_max
        };
        if !of_use {
            return self.disk.remove(name).map_err(io_at(&*self.disk, name));
        }
        let spare = self.new_name();
        self.disk
            .rename(name, &spare)
            .map_err(io_at(&*self.disk, name))?;
        self.put_back(Spare {
            name: spare,
            file,
            bytes,
        });
        Ok(())
    }

    /// Takes away spares of sizes that are not used any more.
    fn drop_odd_spares(&self) -> Result<(), LogError> {
        let odd: Vec<_> = {
            let mut spares = self.spares.lock();
            let next_bytes = spares.next_bytes;
            spares
                .ready
                .extract_if(.., |spare| spare.bytes != next_bytes)
                .collect()
        };
        for spare in odd {
            self.disk
                .remove(&spare.name)
                .map_err(io_at(&*self.disk, &spare.name))?;
        }
        Ok(())
    }
}

/// Lengthens a file with written zeros, so that later writes change neither its length nor where its blocks are.
pub(super) fn fill_with_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut offset = from;
    while offset < to {
        let count = (to - offset).min(ZEROS_BYTES as u64);
        // Not more than the length of `zeros`.
        write_all_at(file, &zeros[..count as usize], offset)?;
        file.sync()?;
        offset += count;
    }
    Ok(())
}

/// A segment that is not written to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its number.
    pub number: u64,
    /// Where its first record is.
    pub base_lsn: u64,
    /// Where its last record ends.
    pub end_lsn: u64,
    /// The size of its file.
    pub file_bytes: u64,
}

/// The log's files, for another thread than the one that writes: none of these waits for a write, or keeps one waiting.
#[derive(Clone)]
pub struct LogSpace(pub(super) Arc<Shared>);

impl LogSpace {
    /// Whether the next change of segments would have to make a file itself.
    pub fn needs_spare(&self) -> bool {
        !self.0.is_enough()
    }

    /// Makes a spare file, if one is needed: writes and syncs as many bytes as a segment has.
    ///
    /// Errors: what the system says. The log can go on: it tries again when it needs the file.
    pub fn make_spare(&self) -> Result<(), LogError> {
        self.0.drop_odd_spares()?;
        if !self.needs_spare() {
            return Ok(());
        }
        match self.0.make(self.0.next_bytes()) {
            Ok(spare) => self.0.put_back(spare),
            Err((name, error)) => return Err(io_at(&*self.0.disk, &name)(error)),
        }
        Ok(())
    }

    /// The segments that are not written to any more, in order.
    pub fn sealed_segments(&self) -> Vec<SealedSegment> {
        let segments = self.0.segments.read();
        let sealed = segments.len().saturating_sub(1);
        segments
            .iter()
            .take(sealed)
            .map(|segment| SealedSegment {
                number: segment.number,
                base_lsn: segment.base_lsn,
                end_lsn: segment.end_lsn(),
                file_bytes: segment.capacity,
            })
            .collect()
    }

    /// The number and base lsn of the first segment that holds or will hold what is at `lsn` or after: what to open the
    /// log with once all before `lsn` is released.
    pub fn start_for(&self, lsn: u64) -> (u64, u64) {
        let segments = self.0.segments.read();
        let needed = segments
            .iter()
            .find(|segment| segment.end_lsn() > lsn)
            .or(segments.back());
        needed.map_or((0, 0), |segment| (segment.number, segment.base_lsn))
    }

    /// Gives up the segments that end at or before `lsn`; the present one stays. Their records cannot be read any more.
    /// To be called only once it is durable that the log is next opened with a later segment: see
    /// [`LogSpace::start_for`].
    ///
    /// Errors: what the system says. Files that are left over are taken care of at the next opening.
    pub fn release_up_to(&self, lsn: u64) -> Result<(), LogError> {
        loop {
            let released = {
                let mut segments = self.0.segments.write();
                if segments.len() < 2 || segments[0].end_lsn() > lsn {
                    return Ok(());
                }
                segments.pop_front()
            };
            if let Some(segment) = released {
                self.0
                    .recycle(&segment.name, segment.file.clone(), segment.capacity)?;
            }
        }
    }

    /// Bytes of records that are not released.
    pub fn live_bytes(&self) -> u64 {
        let segments = self.0.segments.read();
        match (segments.front(), segments.back()) {
            (Some(first), Some(last)) => last.end_lsn() - first.base_lsn,
            _ => 0,
        }
    }

    /// Bytes of all files, spares included.
    pub fn file_bytes(&self) -> u64 {
        let segments = self.0.segments.read();
        let live: u64 = segments.iter().map(|segment| segment.capacity).sum();
        let spares: u64 = self
            .0
            .spares
            .lock()
            .ready
            .iter()
            .map(|spare| spare.bytes)
            .sum();
        live + spares
    }
}
