//! The bytes of one file: as the process sees them, and as a power cut would leave them.

use super::fate::Fate;
use super::random::Random;

/// What a drive writes as a whole, in bytes.
pub(super) const SECTOR_BYTES: usize = 512;

/// What the page cache forgets as a whole, in bytes.
const PAGE_BYTES: usize = 4096;

#[derive(Clone, Default)]
pub(super) struct Content {
    /// What the process sees.
    now: Vec<u8>,
    /// What is sure to be there after a power cut, where nothing unsynced touches it.
    durable: Vec<u8>,
    /// What leads from `durable` to `now`, in order; after a failed sync it may lead elsewhere.
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Box<[u8]> },
    Length(usize),
}

/// A change, or the part of a write that falls into one sector.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Write { offset: usize, bytes: &'a [u8] },
    Length(usize),
}

impl Content {
    /// All durable.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            now: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> &[u8] {
        &self.now
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        Piece::Write { offset, bytes }.apply(&mut self.now);
        self.unsynced.push(Change::Write {
            offset,
            bytes: bytes.into(),
        });
    }

    pub(super) fn set_len(&mut self, bytes: usize) {
        self.now.resize(bytes, 0);
        self.unsynced.push(Change::Length(bytes));
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.whole().apply(&mut self.durable);
        }
    }

    /// Some of what was not synced reaches the drive; the rest counts as written but is not, and the process may see it
    /// still, or no longer. The length stays, and is made lasting by the next sync.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        let fate = Fate::any(random);
        self.durable = self.after_power_cut(fate, random);
        let forgotten_percent = [0, 50, 100][random.below(3)];
        for (page, seen) in self.now.chunks_mut(PAGE_BYTES).enumerate() {
            if random.chance(forgotten_percent) {
                let kept = self.durable.get(page * PAGE_BYTES..).unwrap_or_default();
                let kept = &kept[..kept.len().min(seen.len())];
                seen[..kept.len()].copy_from_slice(kept);
                seen[kept.len()..].fill(0);
            }
        }
        self.unsynced.clear();
        if self.durable.len() != self.now.len() {
            self.unsynced.push(Change::Length(self.now.len()));
        }
    }

    /// What is there when the power comes back.
    pub(super) fn after_power_cut(&self, fate: Fate, random: &mut Random) -> Vec<u8> {
        let mut left = self.durable.clone();
        if self.unsynced.is_empty() {
            return left;
        }
        match fate {
            Fate::Nothing => return left,
            Fate::LengthOnly => {
                left.resize(self.now.len().max(left.len()), 0);
                return left;
            }
            Fate::Everything => {
                apply_all(self.unsynced.iter().map(Change::whole), &mut left);
                return left;
            }
            Fate::Prefix => {
                let (whole, rest) = self.unsynced.split_at(random.below(self.unsynced.len()));
                apply_all(whole.iter().map(Change::whole), &mut left);
                let torn = rest[0].sectors();
                let reached = random.below(torn.len() + 1);
                apply_all(torn[..reached].iter().copied(), &mut left);
                return left;
            }
            Fate::Moments => self.apply_moments(&mut left, random),
            Fate::Subset => {
                let percent = any_share(random);
                let pieces = self.pieces().into_iter();
                apply_all(pieces.filter(|_| random.chance(percent)), &mut left);
            }
            Fate::AllButOne => {
                let mut pieces = self.pieces();
                pieces.remove(random.below(pieces.len()));
                apply_all(pieces.into_iter(), &mut left);
            }
            Fate::Reordered => {
                let percent = any_share(random);
                let mut pieces = self.pieces();
                random.shuffle(&mut pieces);
                pieces.retain(|_| random.chance(percent));
                apply_all(pieces.into_iter(), &mut left);
            }
        }
        // The length is kept elsewhere than the bytes, and need not come with them.
        match random.below(4) {
            0 => left.resize(self.now.len().max(left.len()), 0),
            1 => left.truncate(self.durable.len()),
            _ => {}
        }
        left
    }

    fn apply_moments(&self, left: &mut Vec<u8>, random: &mut Random) {
        let seed = random.next();
        // How many of the changes a sector has seen.
        let seen = |sector: usize| {
            let mut random =
                Random::new(seed ^ (sector as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
            random.below(self.unsynced.len() + 1)
        };
        let seen_by_length = random.below(self.unsynced.len() + 1);
        for (index, change) in self.unsynced.iter().enumerate() {
            for piece in change.sectors() {
                let there = match piece {
                    Piece::Write { offset, .. } => index < seen(offset / SECTOR_BYTES),
                    Piece::Length(_) => index < seen_by_length,
                };
                if there {
                    piece.apply(left);
                }
            }
        }
    }

    fn pieces(&self) -> Vec<Piece<'_>> {
        self.unsynced.iter().flat_map(Change::sectors).collect()
    }

    /// Changes bits wherever the bytes are held. Bytes beyond the end are left out.
    pub(super) fn damage(&mut self, offset: usize, mask: &[u8]) {
        let written = self.unsynced.iter_mut().filter_map(|change| match change {
            Change::Write { offset, bytes } => Some((*offset, &mut bytes[..])),
            Change::Length(_) => None,
        });
        let held = [(0, &mut self.now[..]), (0, &mut self.durable[..])];
        for (start, bytes) in held.into_iter().chain(written) {
            for (at, mask) in (offset..).zip(mask) {
                if let Some(byte) = at.checked_sub(start).and_then(|at| bytes.get_mut(at)) {
                    *byte ^= mask;
                }
            }
        }
    }
}

impl Change {
    fn whole(&self) -> Piece<'_> {
        match self {
            Self::Write { offset, bytes } => Piece::Write {
                offset: *offset,
                bytes,
            },
            Self::Length(bytes) => Piece::Length(*bytes),
        }
    }

    /// At least one.
    fn sectors(&self) -> Vec<Piece<'_>> {
        let (mut offset, mut rest) = match self {
            Self::Write { offset, bytes } => (*offset, &bytes[..]),
            Self::Length(bytes) => return vec![Piece::Length(*bytes)],
        };
        let mut pieces = Vec::with_capacity(rest.len() / SECTOR_BYTES + 2);
        while !rest.is_empty() {
            let count = (SECTOR_BYTES - offset % SECTOR_BYTES).min(rest.len());
            let (bytes, behind) = rest.split_at(count);
            pieces.push(Piece::Write { offset, bytes });
            (offset, rest) = (offset + count, behind);
        }
        pieces
    }
}

impl Piece<'_> {
    fn apply(self, target: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if target.len() < end {
                    target.resize(end, 0);
                }
                target[offset..end].copy_from_slice(bytes);
            }
            Self::Length(bytes) => target.resize(bytes, 0),
        }
    }
}

fn apply_all<'a>(pieces: impl Iterator<Item = Piece<'a>>, target: &mut Vec<u8>) {
    for piece in pieces {
        piece.apply(target);
    }
}

fn any_share(random: &mut Random) -> u8 {
    [10, 50, 90][random.below(3)]
}
