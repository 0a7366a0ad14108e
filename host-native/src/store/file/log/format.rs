//! Bytes of the log: segment headers, batch headers, record frames, file names.
//!
//! All numbers are little-endian. Each version of the format keeps magic, checksum and version of the segment header
//! where they are.

use crc32fast::Hasher;

/// Names a store, at random. All checksums of batches begin with it.
pub type StoreId = [u8; 16];

/// The format that is written.
pub const VERSION: u32 = 1;

/// Where a segment's first batch begins: the header has sectors of its own.
pub(super) const FIRST_BATCH: u64 = 4096;
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const BATCH_HEADER_BYTES: usize = 56;
pub(super) const FRAME_BYTES: usize = 8;
/// Files are as long as whole blocks of this size.
pub(super) const BLOCK_BYTES: u64 = 4096;
pub(super) const BATCH_ALIGN: u64 = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"iii-slog";
/// Bytes that no UTF-8 text has.
pub(super) const BATCH_MAGIC: [u8; 4] = [0xFF, 0xB7, 0xFE, 0xC0];

pub(super) const FLAG_SEAL: u32 = 1;
pub(super) const FLAG_CLEAN: u32 = 2;
pub(super) const FLAG_OS: u32 = 4;
const FLAGS: u32 = FLAG_SEAL | FLAG_CLEAN | FLAG_OS;

pub(super) fn log_name(number: u64) -> String {
    format!("log-{number:010}")
}

pub(super) fn spare_name(number: u64) -> String {
    format!("spare-{number:010}")
}

/// What a file's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Log(u64),
    Spare(u64),
    /// Begins like one of ours, but is none.
    Odd,
    /// None of the log's business.
    Other,
}

pub(super) fn named(name: &str) -> Named {
    // Written as it would be here: not `log-1`, which is another file.
    let number = |digits: &str, write: fn(u64) -> String| {
        let number = digits.parse().ok()?;
        (write(number) == name).then_some(number)
    };
    if let Some(digits) = name.strip_prefix("log-") {
        number(digits, log_name).map_or(Named::Odd, Named::Log)
    } else if let Some(digits) = name.strip_prefix("spare-") {
        number(digits, spare_name).map_or(Named::Odd, Named::Spare)
    } else {
        Named::Other
    }
}

/// Rounds up to where a batch can begin.
pub(super) fn align(offset: u64) -> u64 {
    offset.next_multiple_of(BATCH_ALIGN)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// The first bytes of a segment:
/// magic 8, checksum of the rest 4, version 4, number 8, base lsn 8, store 16, floor 8, chain 4, blocks 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    /// The lsn of the first batch. All before it was durable when the header was written.
    pub(super) base_lsn: u64,
    pub(super) store_id: StoreId,
    /// As in [`BatchHeader`]: for a log whose last segment has no batch yet.
    pub(super) floor_ms: u64,
    /// The checksum of the last batch of the segment before.
    pub(super) chain: u32,
    /// The file's length in blocks.
    pub(super) blocks: u32,
}

/// Why the beginning of a file is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Magic,
    Checksum,
    Newer(u32),
}

impl SegmentHeader {
    pub(super) fn capacity(&self) -> u64 {
        u64::from(self.blocks) * BLOCK_BYTES
    }

    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        self.encode_as(VERSION)
    }

    pub(super) fn encode_as(&self, version: u32) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[12..16].copy_from_slice(&version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base_lsn.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.store_id);
        bytes[48..56].copy_from_slice(&self.floor_ms.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.chain.to_le_bytes());
        bytes[60..].copy_from_slice(&self.blocks.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, BadHeader> {
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(BadHeader::Magic);
        }
        if u32_at(bytes, 8) != crc32fast::hash(&bytes[12..]) {
            return Err(BadHeader::Checksum);
        }
        let version = u32_at(bytes, 12);
        if version > VERSION {
            return Err(BadHeader::Newer(version));
        }
        let mut store_id = StoreId::default();
        store_id.copy_from_slice(&bytes[32..48]);
        Ok(Self {
            number: u64_at(bytes, 16),
            base_lsn: u64_at(bytes, 24),
            store_id,
            floor_ms: u64_at(bytes, 48),
            chain: u32_at(bytes, 56),
            blocks: u32_at(bytes, 60),
        })
    }
}

/// The first bytes of a batch, in this order, after checksum 4 (of all that follows) and magic 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) payload_bytes: u32,
    pub(super) records: u32,
    pub(super) segment: u64,
    pub(super) lsn: u64,
    /// All before this lsn was durable when the batch was written.
    pub(super) durable: u64,
    /// The greatest timestamp that the store gave out.
    pub(super) floor_ms: u64,
    /// The checksum of the batch before.
    pub(super) previous: u32,
    pub(super) flags: u32,
}

impl BatchHeader {
    /// Fills the header's place at the front of `batch`, and gives the checksum.
    pub(super) fn seal_into(&self, batch: &mut [u8], seed: u32) -> u32 {
        batch[4..8].copy_from_slice(&BATCH_MAGIC);
        batch[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        batch[12..16].copy_from_slice(&self.records.to_le_bytes());
        batch[16..24].copy_from_slice(&self.segment.to_le_bytes());
        batch[24..32].copy_from_slice(&self.lsn.to_le_bytes());
        batch[32..40].copy_from_slice(&self.durable.to_le_bytes());
        batch[40..48].copy_from_slice(&self.floor_ms.to_le_bytes());
        batch[48..52].copy_from_slice(&self.previous.to_le_bytes());
        batch[52..56].copy_from_slice(&self.flags.to_le_bytes());
        let checksum = batch_checksum(seed, &batch[4..]);
        batch[..4].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// What the bytes say, checked or not. `None` without magic.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < BATCH_HEADER_BYTES || bytes[4..8] != BATCH_MAGIC {
            return None;
        }
        Some(Self {
            payload_bytes: u32_at(bytes, 8),
            records: u32_at(bytes, 12),
            segment: u64_at(bytes, 16),
            lsn: u64_at(bytes, 24),
            durable: u64_at(bytes, 32),
            floor_ms: u64_at(bytes, 40),
            previous: u32_at(bytes, 48),
            flags: u32_at(bytes, 52),
        })
    }

    pub(super) fn flags_known(&self) -> bool {
        self.flags & !FLAGS == 0
    }

    /// Header and payload.
    pub(super) fn batch_bytes(&self) -> u64 {
        BATCH_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    pub(super) fn end_lsn(&self) -> u64 {
        self.lsn + u64::from(self.payload_bytes)
    }
}

/// Where the checksums of a store's batches begin.
pub(super) fn seed(store_id: &StoreId) -> u32 {
    crc32fast::hash(store_id)
}

/// The checksum of a batch: of all bytes after the checksum's own.
pub(super) fn batch_checksum(seed: u32, rest: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(rest);
    hasher.finalize()
}

/// The checksum in a record's frame. With the lsn: whatever else is read at its place is not taken for it.
pub(super) fn record_checksum(lsn: u64, record: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&lsn.to_le_bytes());
    hasher.update(record);
    hasher.finalize()
}
