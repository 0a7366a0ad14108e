//! Which bytes of a file are free: gives out ranges and takes them back. Knows no files.

use std::collections::{BTreeMap, BTreeSet};

/// A part of a file: where it begins, and how many bytes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    /// In bytes from the beginning of the file.
    pub(super) offset: u64,
    /// More than none.
    pub(super) bytes: u64,
}

/// Why a file cannot be divided as told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadRange {
    /// Both hold the same bytes.
    Overlap(Range, Range),
    /// It is empty, or not between the beginning and the end.
    Outside(Range),
}

/// The free space of a file. Free ranges never touch each other, and nothing but free and live ranges is between the
/// beginning and the end.
#[derive(Debug)]
pub(super) struct Space {
    /// Offset to bytes.
    free: BTreeMap<u64, u64>,
    /// The same as bytes and offset: the smallest first.
    by_size: BTreeSet<(u64, u64)>,
    begin: u64,
    end: u64,
    free_bytes: u64,
}

impl Space {
    /// The space of a file from `begin` to `end` where all is free but `live`.
    ///
    /// Errors: a range overlaps another, is empty, or reaches out of the file.
    pub(super) fn new(begin: u64, end: u64, mut live: Vec<Range>) -> Result<Self, BadRange> {
        live.sort_unstable();
        let mut space = Self {
            free: BTreeMap::new(),
            by_size: BTreeSet::new(),
            begin,
            end: begin,
            free_bytes: 0,
        };
        let mut before = None;
        for range in live {
            let range_end = range.offset.checked_add(range.bytes);
            let Some(range_end) = range_end.filter(|&it| it <= end && range.bytes > 0) else {
                return Err(BadRange::Outside(range));
            };
            if range.offset < space.end {
                return Err(match before {
                    Some(before) => BadRange::Overlap(before, range),
                    None => BadRange::Outside(range),
                });
            }
            space.put(space.end, range.offset - space.end);
            space.end = range_end;
            before = Some(range);
        }
        space.put(space.end, end.saturating_sub(space.end));
        space.end = end.max(begin);
        Ok(space)
    }

    /// Takes `bytes` out of the smallest free range that has them, or else at the end, and says where they begin.
    /// `None` where the end would be out of reach.
    pub(super) fn take(&mut self, bytes: u64) -> Option<u64> {
        if let Some(&(size, offset)) = self.by_size.range((bytes, 0)..).next() {
            self.remove(offset, size);
            self.put(offset + bytes, size - bytes);
            return Some(offset);
        }
        let tail = self.tail();
        let offset = tail.map_or(self.end, |tail| tail.offset);
        // Systems count offsets with a sign.
        let end = offset
            .checked_add(bytes)
            .filter(|&end| i64::try_from(end).is_ok())?;
        if let Some(tail) = tail {
            self.remove(tail.offset, tail.bytes);
        }
        self.end = end;
        Some(offset)
    }

    /// Makes a range free that was taken or live. False, and nothing is done, where it is not all of that.
    pub(super) fn give_back(&mut self, range: Range) -> bool {
        let Some(range_end) = range.offset.checked_add(range.bytes) else {
            return false;
        };
        let before = self.free.range(..range_end).next_back();
        let before = before.map(|(&offset, &bytes)| (offset, bytes));
        let is_live = before.is_none_or(|(offset, bytes)| offset + bytes <= range.offset);
        if !is_live || range.bytes == 0 || range.offset < self.begin || range_end > self.end {
            return false;
        }
        let (mut offset, mut bytes) = (range.offset, range.bytes);
        if let Some((at, size)) = before.filter(|(at, size)| at + size == offset) {
            self.remove(at, size);
            offset = at;
            bytes += size;
        }
        if let Some(&size) = self.free.get(&range_end) {
            self.remove(range_end, size);
            bytes += size;
        }
        self.put(offset, bytes);
        true
    }

    /// The free range that ends the file, if there is one.
    pub(super) fn tail(&self) -> Option<Range> {
        let (&offset, &bytes) = self.free.last_key_value()?;
        (offset + bytes == self.end).then_some(Range { offset, bytes })
    }

    /// Moves the end to `end`, if all after it is free.
    pub(super) fn cut(&mut self, end: u64) {
        let Some(tail) = self.tail().filter(|tail| tail.offset <= end) else {
            return;
        };
        if end < self.end {
            self.remove(tail.offset, tail.bytes);
            self.put(tail.offset, end - tail.offset);
            self.end = end;
        }
    }

    /// Where the last range ends, free or not.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes are not free.
    pub(super) fn live_bytes(&self) -> u64 {
        self.end - self.begin - self.free_bytes
    }

    fn put(&mut self, offset: u64, bytes: u64) {
        if bytes > 0 {
            self.free.insert(offset, bytes);
            self.by_size.insert((bytes, offset));
            self.free_bytes += bytes;
        }
    }

    fn remove(&mut self, offset: u64, bytes: u64) {
        self.free.remove(&offset);
        self.by_size.remove(&(bytes, offset));
        self.free_bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_random::Random;
    use super::*;

    fn range(offset: u64, bytes: u64) -> Range {
        Range { offset, bytes }
    }

    #[test]
    fn the_smallest_range_that_fits_is_taken_and_split() {
        let live = vec![range(20, 10), range(35, 5), range(50, 10)];
        let mut space = Space::new(0, 60, live).expect("apart");
        // Free: 0..20, 30..35, 40..50.
        assert_eq!(space.live_bytes(), 25);
        assert_eq!(space.take(6), Some(40));
        assert_eq!(space.take(4), Some(46));
        assert_eq!(space.take(5), Some(30));
        assert_eq!(space.take(21), Some(60));
        assert_eq!(space.end(), 81);
        assert_eq!(space.take(20), Some(0));
        assert_eq!(space.live_bytes(), 81);
    }

    #[test]
    fn what_ends_the_file_grows_instead_of_being_left() {
        let mut space = Space::new(8, 32, vec![range(8, 8)]).expect("apart");
        assert_eq!(space.take(40), Some(16));
        assert_eq!((space.end(), space.live_bytes()), (56, 48));
        assert_eq!(space.take(u64::MAX), None);
        assert_eq!(space.take(i64::MAX as u64), None);
        assert_eq!((space.end(), space.live_bytes()), (56, 48));
    }

    #[test]
    fn the_end_is_cut_only_where_all_is_free() {
        let mut space = Space::new(0, 32, vec![range(0, 8)]).expect("apart");
        space.cut(4);
        assert_eq!(space.end(), 32);
        space.cut(16);
        assert_eq!(space.tail(), Some(range(8, 8)));
        space.cut(8);
        assert_eq!((space.end(), space.tail()), (8, None));
    }

    #[test]
    fn live_ranges_that_cannot_be_are_refused() {
        let new = |live| Space::new(8, 64, live).map(|_| ());
        let (one, two) = (range(8, 16), range(16, 16));
        assert_eq!(new(vec![two, one]), Err(BadRange::Overlap(one, two)));
        assert_eq!(new(vec![one, one]), Err(BadRange::Overlap(one, one)));
        for bad in [
            range(0, 8),
            range(60, 8),
            range(16, 0),
            range(u64::MAX, 8),
            range(64, 1),
        ] {
            assert_eq!(new(vec![bad]), Err(BadRange::Outside(bad)));
        }
        assert_eq!(new(vec![range(8, 56)]), Ok(()));
    }

    #[test]
    fn what_is_not_live_cannot_be_given_back() {
        let mut space = Space::new(8, 64, vec![range(16, 32)]).expect("apart");
        for bad in [
            range(8, 8),
            range(8, 16),
            range(40, 16),
            range(40, 32),
            range(0, 8),
            range(16, 0),
            range(u64::MAX, 2),
        ] {
            assert!(!space.give_back(bad), "{bad:?}");
        }
        assert!(space.give_back(range(24, 8)));
        assert!(!space.give_back(range(16, 32)));
        assert_eq!(space.live_bytes(), 24);
    }

    /// Against a file of which each byte is known to be free or not.
    #[test]
    fn it_does_what_a_list_of_bytes_does() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut taken: Vec<Range> = Vec::new();
            let mut space = Space::new(4, 4, Vec::new()).expect("empty");
            let mut live = vec![true; 4];
            for _ in 0..200 {
                match random.below(10) {
                    0..5 => {
                        let size = 1 + random.below(12);
                        let offset = space.take(size).expect("room");
                        let end = usize::try_from(offset + size).expect("small");
                        // The best fit: no free run that has room is smaller than the one it was taken from.
                        let runs = free_runs(&live);
                        match runs
                            .iter()
                            .filter(|run| run.bytes >= size)
                            .min_by_key(|run| run.bytes)
                        {
                            Some(best) => assert!(
                                runs.iter()
                                    .any(|run| run.offset == offset && run.bytes == best.bytes)
                            ),
                            None => assert!(end > live.len()),
                        }
                        live.resize(live.len().max(end), false);
                        for byte in &mut live[usize::try_from(offset).expect("small")..end] {
                            assert!(!*byte, "seed {seed}: given out twice");
                            *byte = true;
                        }
                        taken.push(range(offset, size));
                    }
                    5..9 if !taken.is_empty() => {
                        let which =
                            usize::try_from(random.below(taken.len() as u64)).expect("small");
                        let it = taken.swap_remove(which);
                        assert!(space.give_back(it));
                        let begin = usize::try_from(it.offset).expect("small");
                        let end = begin + usize::try_from(it.bytes).expect("small");
                        live[begin..end].fill(false);
                    }
                    9 => {
                        if let Some(tail) = space.tail() {
                            space.cut(tail.offset + random.below(tail.bytes));
                            live.truncate(usize::try_from(space.end()).expect("small"));
                        }
                    }
                    _ => {}
                }
                let free: Vec<Range> = space.free.iter().map(|(&o, &b)| range(o, b)).collect();
                assert_eq!(free, free_runs(&live), "seed {seed}");
                let by_size: BTreeSet<_> = free.iter().map(|it| (it.bytes, it.offset)).collect();
                assert_eq!(space.by_size, by_size);
                assert_eq!(space.end(), live.len() as u64);
                let count = live[4..].iter().filter(|live| **live).count();
                assert_eq!(space.live_bytes(), count as u64);
                let again = Space::new(4, space.end(), taken.clone()).expect("apart");
                assert_eq!(again.free, space.free);
            }
        }
    }

    fn free_runs(live: &[bool]) -> Vec<Range> {
        let mut runs: Vec<Range> = Vec::new();
        for (at, live) in live.iter().enumerate() {
            let at = at as u64;
            match runs.last_mut() {
                _ if *live => {}
                Some(run) if run.offset + run.bytes == at => run.bytes += 1,
                _ => runs.push(range(at, 1)),
            }
        }
        runs
    }
}
