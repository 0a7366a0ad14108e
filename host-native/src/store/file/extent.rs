//! An extent: a piece of a stream's file that holds one image or delta, and how its head is written down.
//!
//! Shape: the head, then the parts, one right after the other. The head, little-endian: magic `iiiE`, the kind (u8), how
//! many parts (u8), 2 zero bytes, the offset in the file (u64), for each part its bytes (u64) and CRC-32 (u32), and the
//! CRC-32 of all that. Each part has a checksum of its own, so that it can be read alone.

use super::space::Range;

/// Extents begin at multiples of so many bytes.
pub(super) const ALIGNMENT_BYTES: u64 = 8;

/// Most parts of an extent.
pub const EXTENT_PARTS_MAX: usize = 16;

/// The longest head.
pub(super) const HEAD_BYTES_MAX: usize = head_bytes(EXTENT_PARTS_MAX);

const MAGIC: [u8; 4] = *b"iiiE";

const FIXED_BYTES: usize = 16;

const PART_BYTES: usize = 12;

/// Where an extent is, as the manifest keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// In bytes from the beginning of the file, a multiple of 8.
    pub offset: u64,
    /// Head and parts.
    pub bytes: u64,
    /// The checksum at the end of the head, which covers those of the parts. So what stood at the same place before, and
    /// is whole, is not taken for this.
    pub check: u32,
}

impl Extent {
    /// What it takes of the file. `None` where no file can be that long.
    pub(super) fn range(&self) -> Option<Range> {
        Some(Range {
            offset: self.offset,
            bytes: self.bytes.checked_next_multiple_of(ALIGNMENT_BYTES)?,
        })
    }
}

/// What the head of an extent says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    /// The bytes and the checksum of each part.
    pub(super) parts: Vec<(u64, u32)>,
}

impl Head {
    /// What a head for these parts says.
    pub(super) fn of(kind: u8, parts: &[&[u8]]) -> Self {
        let describe = |part: &&[u8]| (part.len() as u64, crc32fast::hash(part));
        Self {
            kind,
            parts: parts.iter().map(describe).collect(),
        }
    }

    /// Head and parts, in bytes. `None` where that cannot be counted.
    pub(super) fn extent_bytes(&self) -> Option<u64> {
        let mut bytes = head_bytes(self.parts.len()) as u64;
        for &(part, _) in &self.parts {
            bytes = bytes.checked_add(part)?;
        }
        Some(bytes)
    }

    /// Where a part begins, in bytes from the beginning of the extent. There is such a part.
    pub(super) fn part_begin(&self, index: usize) -> u64 {
        let before: u64 = self.parts[..index].iter().map(|(bytes, _)| bytes).sum();
        head_bytes(self.parts.len()) as u64 + before
    }

    /// The bytes of a head for an extent at `offset`, and its checksum.
    pub(super) fn encode(&self, offset: u64) -> (Vec<u8>, u32) {
        let mut bytes = Vec::with_capacity(head_bytes(self.parts.len()));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[self.kind, self.parts.len() as u8, 0, 0]);
        bytes.extend_from_slice(&offset.to_le_bytes());
        for (part_bytes, check) in &self.parts {
            bytes.extend_from_slice(&part_bytes.to_le_bytes());
            bytes.extend_from_slice(&check.to_le_bytes());
        }
        let check = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&check.to_le_bytes());
        (bytes, check)
    }

    /// Reads the head of `extent` from its first bytes. What is wrong otherwise.
    pub(super) fn decode(extent: Extent, bytes: &[u8]) -> Result<Self, &'static str> {
        let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
            return Err("it is shorter than a head");
        };
        if fixed[..4] != MAGIC {
            return Err("no extent begins here");
        }
        let count = usize::from(fixed[5]);
        let listed = rest.get(..count * PART_BYTES);
        let check = rest.get(count * PART_BYTES..count * PART_BYTES + 4);
        let (Some(listed), Some(check)) = (listed, check) else {
            return Err("its head is longer than it is itself");
        };
        let parts = listed.as_chunks::<PART_BYTES>().0.iter().map(|part| {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *part;
            let bytes = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            (bytes, u32::from_le_bytes([i, j, k, l]))
        });
        let head = Self {
            kind: fixed[4],
            parts: parts.collect(),
        };
        let (expected, _) = head.encode(extent.offset);
        if bytes[..expected.len()] != expected[..] {
            return Err("the checksum of its head is wrong");
        }
        if *check != extent.check.to_le_bytes() || head.extent_bytes() != Some(extent.bytes) {
            return Err("another extent is in its place");
        }
        Ok(head)
    }
}

const fn head_bytes(parts: usize) -> usize {
    FIXED_BYTES + parts * PART_BYTES + 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (Head, Extent, Vec<u8>) {
        let head = Head::of(7, &[b"state", b"", b"history"]);
        let bytes = head.extent_bytes().expect("small");
        let (encoded, check) = head.encode(4096);
        let extent = Extent {
            offset: 4096,
            bytes,
            check,
        };
        (head, extent, encoded)
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let (head, extent, encoded) = made();
        assert_eq!(extent.bytes, encoded.len() as u64 + 12);
        assert_eq!(head.part_begin(2), encoded.len() as u64 + 5);
        assert_eq!(Head::decode(extent, &encoded), Ok(head));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unseen() {
        let (_, extent, encoded) = made();
        for bit in 0..encoded.len() * 8 {
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode(extent, &flipped).is_err(), "{bit}");
        }
        for cut in 0..encoded.len() {
            assert!(Head::decode(extent, &encoded[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn an_extent_in_another_place_or_an_older_one_is_not_this_one() {
        let (_, extent, encoded) = made();
        let moved = Extent {
            offset: 8192,
            ..extent
        };
        assert!(Head::decode(moved, &encoded).is_err());
        let (older, _) = Head::of(7, &[b"stale", b"", b"history"]).encode(4096);
        assert_eq!(
            Head::decode(extent, &older),
            Err("another extent is in its place")
        );
    }
}
