//! Which of a cluster's 16,384 slots a key belongs to: CRC16 (XMODEM) of the key, or of its hash tag.

/// How many slots a cluster has.
pub(super) const SLOTS: usize = 16_384;

/// The slot of a key. A single server ignores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a key: where there is a `{tag}` that is not empty, only the first tag counts, so that keys can share a slot.
    pub fn of(key: &[u8]) -> Self {
        Self(crc16(tag(key)) % SLOTS as u16)
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else {
        return key;
    };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        Some(length) if length > 0 => &rest[..length],
        _ => key,
    }
}

/// CRC16 of each byte alone.
const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // `redis-cli cluster keyslot` says the same.
        assert_eq!(Slot::of(b"foo").index(), 12_182);
        assert_eq!(Slot::of(b"").index(), 0);
    }

    #[test]
    fn only_the_first_tag_counts_and_an_empty_one_not() {
        assert_eq!(Slot::of(b"a{foo}b{bar}"), Slot::of(b"foo"));
        assert_eq!(tag(b"{}foo"), b"{}foo");
        assert_eq!(tag(b"a{foo"), b"a{foo");
        assert_eq!(tag(b"{{foo}}"), b"{foo");
    }
}
