//! Chance by a seed: splitmix64.

/// A row of numbers that a seed makes.
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to below the end; 0 where the end is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        if end == 0 {
            return 0;
        }
        (self.next() % end as u64) as usize
    }

    pub(super) fn chance(&mut self, percent: u8) -> bool {
        percent > 0 && self.below(100) < usize::from(percent)
    }

    /// With that chance a smaller count, but not 0.
    pub(super) fn shortened(&mut self, count: usize, percent: u8) -> usize {
        if count > 1 && self.chance(percent) {
            1 + self.below(count - 1)
        } else {
            count
        }
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
