//! What an edit of the manifest says, and how it is written down.
//!
//! Shape: a tag (u8), then what belongs to it; numbers as LEB128, texts as their length and UTF-8. A group's edit leaves
//! out stream and epoch where they are those of the group's edit before, in the same unit.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashSet;

use super::super::extent::{ALIGNMENT_BYTES, Extent};

const GROUP: u8 = 1;
const GONE: u8 = 2;
const LOG: u8 = 3;
const FLOOR: u8 = 4;
const ERA: u8 = 5;
const OPENED: u8 = 6;
const CLOSED: u8 = 7;

const HAS_ITEMS: u8 = 1;
const HAS_CLIENTS: u8 = 1 << 1;
const HAS_IMAGE: u8 = 1 << 2;
const HAS_EXPIRY: u8 = 1 << 3;
const SAME_STREAM: u8 = 1 << 4;
const SAME_EPOCH: u8 = 1 << 5;
const FLAGS: u8 = (1 << 6) - 1;

/// What a group is known by while it is not in memory, as of the last fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupKept {
    /// Names the group's history.
    pub epoch: Arc<str>,
    /// The last change that is folded.
    pub seq: u64,
    /// Whether it has items.
    pub has_items: bool,
    /// Whether it knows clients that may repeat a command.
    pub has_clients: bool,
    /// Whether the first extent is an image.
    pub has_image: bool,
    /// When something of it expires next, in milliseconds since 1970.
    pub next_expiry_ms: Option<u64>,
    /// Where it is in the stream's file: the image, then the deltas in their order.
    pub extents: Vec<Extent>,
}

/// How lasting an acknowledged change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It survives the end of the process.
    Os,
    /// It survives a power cut.
    Fsync,
}

impl Durability {
    /// What it promises, in one sentence.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Fsync => "fsync: an acknowledged change survives a power cut",
            Self::Os => {
                "os: an acknowledged change survives a crash of the process, not a power cut"
            }
        }
    }
}

/// One change of what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit<'a> {
    /// How a group is kept from now on.
    Group {
        /// The stream's name.
        stream: &'a str,
        /// The group's id.
        group: &'a str,
        /// Replaces what was kept before.
        kept: Cow<'a, GroupKept>,
    },
    /// Nothing is kept of a group any more.
    Gone {
        /// The stream's name.
        stream: &'a str,
        /// The group's id.
        group: &'a str,
    },
    /// All before is folded.
    Log {
        /// The position of the first record that counts.
        start_lsn: u64,
        /// The segment that holds it.
        start_segment: u64,
    },
    /// Every timestamp of a group that is made anew is later.
    Floor {
        /// In milliseconds since 1970.
        ms: u64,
    },
    /// How often the store has been opened, or what else numbers its epochs.
    Era {
        /// Never goes back.
        n: u64,
    },
    /// A process has opened the store.
    Opened {
        /// Names the start of the machine.
        boot_id: &'a str,
        /// What the process promises.
        durability: Durability,
    },
    /// The process has written all it had.
    Closed,
}

/// Writes the edits of one unit.
#[derive(Default)]
pub(super) struct Encoder {
    pub(super) bytes: Vec<u8>,
    stream: Option<String>,
    epoch: Option<Arc<str>>,
}

impl Encoder {
    pub(super) fn push(&mut self, edit: &Edit<'_>) {
        match edit {
            Edit::Group {
                stream,
                group,
                kept,
            } => self.push_group(stream, group, kept),
            Edit::Gone { stream, group } => {
                self.bytes.push(GONE);
                self.push_text(stream);
                self.push_text(group);
            }
            Edit::Log {
                start_lsn,
                start_segment,
            } => {
                self.bytes.push(LOG);
                self.push_number(*start_lsn);
                self.push_number(*start_segment);
            }
            Edit::Floor { ms } => {
                self.bytes.push(FLOOR);
                self.push_number(*ms);
            }
            Edit::Era { n } => {
                self.bytes.push(ERA);
                self.push_number(*n);
            }
            Edit::Opened {
                boot_id,
                durability,
            } => {
                let durability = match durability {
                    Durability::Os => 0,
                    Durability::Fsync => 1,
                };
                self.bytes.extend_from_slice(&[OPENED, durability]);
                self.push_text(boot_id);
            }
            Edit::Closed => self.bytes.push(CLOSED),
        }
    }

    /// Begins the next unit.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.stream = None;
        self.epoch = None;
    }

    fn push_group(&mut self, stream: &str, group: &str, kept: &GroupKept) {
        let same_stream = self.stream.as_deref() == Some(stream);
        let same_epoch = self.epoch.as_deref() == Some(&*kept.epoch);
        let mut flags = 0;
        for (flag, is_set) in [
            (HAS_ITEMS, kept.has_items),
            (HAS_CLIENTS, kept.has_clients),
            (HAS_IMAGE, kept.has_image),
            (HAS_EXPIRY, kept.next_expiry_ms.is_some()),
            (SAME_STREAM, same_stream),
            (SAME_EPOCH, same_epoch),
        ] {
            if is_set {
                flags |= flag;
            }
        }
        self.bytes.extend_from_slice(&[GROUP, flags]);
        if !same_stream {
            self.push_text(stream);
            self.stream = Some(stream.to_owned());
        }
        self.push_text(group);
        if !same_epoch {
            self.push_text(&kept.epoch);
            self.epoch = Some(kept.epoch.clone());
        }
        self.push_number(kept.seq);
        if let Some(ms) = kept.next_expiry_ms {
            self.push_number(ms);
        }
        self.push_number(kept.extents.len() as u64);
        for extent in &kept.extents {
            debug_assert!(extent.offset.is_multiple_of(ALIGNMENT_BYTES));
            self.push_number(extent.offset / ALIGNMENT_BYTES);
            self.push_number(extent.bytes);
            self.bytes.extend_from_slice(&extent.check.to_le_bytes());
        }
    }

    fn push_number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn push_text(&mut self, text: &str) {
        self.push_number(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }
}

/// Reads the edits of one unit. What is wrong if they cannot be read: their checksum was right, so it is no damage.
pub(super) struct Decoder<'a, 'e> {
    rest: &'a [u8],
    stream: Option<&'a str>,
    epoch: Option<Arc<str>>,
    /// Many groups have the same epoch: they share one text.
    epochs: &'e mut HashSet<Arc<str>>,
}

impl<'a, 'e> Decoder<'a, 'e> {
    pub(super) fn new(unit: &'a [u8], epochs: &'e mut HashSet<Arc<str>>) -> Self {
        Self {
            rest: unit,
            stream: None,
            epoch: None,
            epochs,
        }
    }

    /// The next edit, or `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Edit<'a>>, &'static str> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let edit = match self.byte()? {
            GROUP => self.group()?,
            GONE => Edit::Gone {
                stream: self.text()?,
                group: self.text()?,
            },
            LOG => Edit::Log {
                start_lsn: self.number()?,
                start_segment: self.number()?,
            },
            FLOOR => Edit::Floor { ms: self.number()? },
            ERA => Edit::Era { n: self.number()? },
            OPENED => Edit::Opened {
                durability: match self.byte()? {
                    0 => Durability::Os,
                    1 => Durability::Fsync,
                    _ => return Err("an unknown durability"),
                },
                boot_id: self.text()?,
            },
            CLOSED => Edit::Closed,
            _ => return Err("an edit of an unknown kind"),
        };
        Ok(Some(edit))
    }

    fn group(&mut self) -> Result<Edit<'a>, &'static str> {
        let flags = self.byte()?;
        if flags & !FLAGS != 0 {
            return Err("unknown flags of a group");
        }
        if flags & SAME_STREAM == 0 {
            self.stream = Some(self.text()?);
        }
        let stream = self.stream.ok_or("a group without a stream")?;
        let group = self.text()?;
        if flags & SAME_EPOCH == 0 {
            let epoch = self.text()?;
            self.epoch = Some(
                self.epochs
                    .get_or_insert_with(epoch, |it| it.into())
                    .clone(),
            );
        }
        let epoch = self.epoch.clone().ok_or("a group without an epoch")?;
        let seq = self.number()?;
        let next_expiry_ms = match flags & HAS_EXPIRY {
            0 => None,
            _ => Some(self.number()?),
        };
        let count = self.number()?;
        // Each takes 6 bytes at least, so a wrong count takes no memory.
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > self.rest.len() / 6 {
            return Err("more extents than there is room for");
        }
        let mut extents = Vec::with_capacity(count);
        for _ in 0..count {
            let offset = self.number()?.checked_mul(ALIGNMENT_BYTES);
            extents.push(Extent {
                offset: offset.ok_or("an offset that is too large")?,
                bytes: self.number()?,
                check: self.check()?,
            });
        }
        let kept = GroupKept {
            epoch,
            seq,
            has_items: flags & HAS_ITEMS != 0,
            has_clients: flags & HAS_CLIENTS != 0,
            has_image: flags & HAS_IMAGE != 0,
            next_expiry_ms,
            extents,
        };
        Ok(Edit::Group {
            stream,
            group,
            kept: Cow::Owned(kept),
        })
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        let (&byte, rest) = self.rest.split_first().ok_or("an edit that ends early")?;
        self.rest = rest;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number that is too large")
    }

    fn check(&mut self) -> Result<u32, &'static str> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or("an edit that ends early")?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Result<&'a str, &'static str> {
        let bytes = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (text, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or("an edit that ends early")?;
        self.rest = rest;
        str::from_utf8(text).map_err(|_| "a text that is not UTF-8")
    }
}
