//! The first 16 bytes of a file: what it is, and in which version of its format.
//!
//! No version of a format may move them, so that each version can name a later one instead of calling it damaged.

/// How long a mark is.
pub(super) const MARK_BYTES: usize = 16;

/// What stands at the beginning of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// This kind of file, in this version.
    Version(u32),
    /// Another kind of file, or damage.
    Unknown,
}

/// Shape: `kind`, the version as a little-endian u32, the CRC-32 of both.
pub(super) fn encode(kind: [u8; 8], version: u32) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..8].copy_from_slice(&kind);
    mark[8..12].copy_from_slice(&version.to_le_bytes());
    let check = crc32fast::hash(&mark[..12]);
    mark[12..].copy_from_slice(&check.to_le_bytes());
    mark
}

/// Reads what [`encode`] made.
pub(super) fn decode(kind: [u8; 8], bytes: &[u8]) -> Mark {
    let Some((mark, _)) = bytes.split_first_chunk::<MARK_BYTES>() else {
        return Mark::Unknown;
    };
    let version = u32::from_le_bytes([mark[8], mark[9], mark[10], mark[11]]);
    if encode(kind, version) == *mark {
        Mark::Version(version)
    } else {
        Mark::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_its_version_and_every_flipped_bit() {
        let mark = encode(*b"iii-test", 3);
        assert_eq!(decode(*b"iii-test", &mark), Mark::Version(3));
        assert_eq!(decode(*b"iii-less", &mark), Mark::Unknown);
        assert_eq!(decode(*b"iii-test", &mark[..15]), Mark::Unknown);
        for bit in 0..MARK_BYTES * 8 {
            let mut flipped = mark;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(*b"iii-test", &flipped), Mark::Unknown, "{bit}");
        }
    }
}
