//! How a manifest's file is laid out: its header, and the heads of its units.
//!
//! Shape of the header, 64 bytes, little-endian: a mark (`iiimanif` and the version), the store's id (16 bytes), the
//! manifest's number (u64), where the units end that were written with it (u64), how many they are (u64), the checksum
//! of the last of them (u32), the CRC-32 of all before. Units follow at multiples of 8: a head of 32 bytes, and the
//! edits. The head: magic `iiiU`, the bytes of the edits (u32), the number of the unit from 0 (u64), the checksum of the
//! unit before (u32), the CRC-32 of the edits (u32), 4 zero bytes, and the CRC-32 of that all, the store's id and the
//! manifest's number. So a head shows by itself that it belongs here, also where the one before it is not readable.

use super::super::format_mark::{self, MARK_BYTES, Mark};

pub(super) const HEADER_BYTES: u64 = 64;

pub(super) const UNIT_HEAD_BYTES: u64 = 32;

/// Units begin at multiples of so many bytes.
pub(super) const ALIGNMENT_BYTES: u64 = 8;

/// The version of the format that is written.
pub(super) const VERSION: u32 = 1;

const KIND: [u8; 8] = *b"iiimanif";

const UNIT_MAGIC: [u8; 4] = *b"iiiU";

/// Where a manifest ends, or some part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// In bytes from the beginning of the file.
    pub(super) offset: u64,
    /// How many units there are before.
    pub(super) units: u64,
    /// The checksum of the last of them.
    pub(super) check: u32,
}

/// The end of a manifest without units.
pub(super) const BEGIN: End = End {
    offset: HEADER_BYTES,
    units: 0,
    check: 0,
};

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store_id: [u8; 16],
    pub(super) number: u64,
    /// The end of what was written, and safe, before the manifest had its name.
    pub(super) base: End,
}

/// Why there is no header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// The bytes are not what was written.
    Damaged,
    /// It is of this version.
    Version(u32),
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..MARK_BYTES].copy_from_slice(&format_mark::encode(KIND, VERSION));
        bytes[16..32].copy_from_slice(&self.store_id);
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.base.offset.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.base.units.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.base.check.to_le_bytes());
        let check = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES as usize]) -> Result<Self, BadHeader> {
        match format_mark::decode(KIND, bytes) {
            Mark::Version(VERSION) => {}
            Mark::Version(other) => return Err(BadHeader::Version(other)),
            Mark::Unknown => return Err(BadHeader::Damaged),
        }
        let mut store_id = [0; 16];
        store_id.copy_from_slice(&bytes[16..32]);
        let header = Self {
            store_id,
            number: u64_at(bytes, 32),
            base: End {
                offset: u64_at(bytes, 40),
                units: u64_at(bytes, 48),
                check: u32_at(bytes, 56),
            },
        };
        if header.encode() == *bytes {
            Ok(header)
        } else {
            Err(BadHeader::Damaged)
        }
    }

    /// What the checksums of units begin with: that of the store and the manifest they belong to.
    pub(super) fn seed(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.store_id);
        hasher.update(&self.number.to_le_bytes());
        hasher.finalize()
    }
}

/// The head of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnitHead {
    pub(super) body_bytes: u32,
    pub(super) index: u64,
    pub(super) before: u32,
    pub(super) body_check: u32,
}

impl UnitHead {
    /// The bytes, and the checksum that is in them.
    pub(super) fn encode(&self, seed: u32) -> ([u8; UNIT_HEAD_BYTES as usize], u32) {
        let mut bytes = [0; UNIT_HEAD_BYTES as usize];
        bytes[..4].copy_from_slice(&UNIT_MAGIC);
        bytes[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.index.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.before.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.body_check.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        hasher.update(&bytes[..28]);
        let check = hasher.finalize();
        bytes[28..].copy_from_slice(&check.to_le_bytes());
        (bytes, check)
    }

    /// The head that begins here, and its checksum. `None` where there is none.
    pub(super) fn decode(bytes: &[u8], seed: u32) -> Option<(Self, u32)> {
        let bytes = bytes.first_chunk::<{ UNIT_HEAD_BYTES as usize }>()?;
        if bytes[..4] != UNIT_MAGIC {
            return None;
        }
        let head = Self {
            body_bytes: u32_at(bytes, 4),
            index: u64_at(bytes, 8),
            before: u32_at(bytes, 16),
            body_check: u32_at(bytes, 20),
        };
        let (expected, check) = head.encode(seed);
        (expected == *bytes).then_some((head, check))
    }

    /// How much the unit takes of the file.
    pub(super) fn unit_bytes(&self) -> u64 {
        (UNIT_HEAD_BYTES + u64::from(self.body_bytes)).next_multiple_of(ALIGNMENT_BYTES)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
