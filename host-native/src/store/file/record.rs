//! One record of the commit log: a step of the core with the name of its group, and what can be known of the group after it
//! without loading it. Knows no files.
//!
//! Layout: flags; stream, group and epoch, each a length and its bytes (the epoch only where a history begins); the
//! group's sequence; when an item may go, if the step says so; then the step. Numbers are LEB128.

use iii_stream_core::GroupRef;

/// The group's history begins here: whatever is known of it from before does not count.
const BEGINS: u8 = 1;
/// The group has items after this step.
const HAS_ITEMS: u8 = 2;
/// The group remembers mutation clients after this step.
const HAS_CLIENTS: u8 = 4;
/// The step sets a time to live.
const EXPIRES: u8 = 8;

/// A record, as it is written and as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) group: GroupRef<'a>,
    /// The name of the history that begins here.
    pub(super) epoch: Option<&'a str>,
    /// The group's sequence after the step.
    pub(super) seq: u64,
    pub(super) has_items: bool,
    pub(super) has_clients: bool,
    /// The group need not be looked at before, for items whose time has come, because of this step; in Unix milliseconds.
    pub(super) expires_ms: Option<u64>,
    /// What [`iii_stream_core::Group::restore`] reads.
    pub(super) step: &'a [u8],
}

/// Writes a record whose step `write_step` appends.
pub(super) fn push_record(
    out: &mut Vec<u8>,
    head: &Record<'_>,
    write_step: impl FnOnce(&mut Vec<u8>),
) {
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    out.push(
        flag(head.epoch.is_some(), BEGINS)
            | flag(head.has_items, HAS_ITEMS)
            | flag(head.has_clients, HAS_CLIENTS)
            | flag(head.expires_ms.is_some(), EXPIRES),
    );
    push_text(out, head.group.stream);
    push_text(out, head.group.group);
    if let Some(epoch) = head.epoch {
        push_text(out, epoch);
    }
    push_number(out, head.seq);
    if let Some(expires_ms) = head.expires_ms {
        push_number(out, expires_ms);
    }
    write_step(out);
}

/// Reads a record; `None` for bytes that are none.
pub(super) fn read_record(bytes: &[u8]) -> Option<Record<'_>> {
    let mut reader = Reader(bytes);
    let flags = reader.byte()?;
    let has = |flag| flags & flag != 0;
    let group = GroupRef {
        stream: reader.text()?,
        group: reader.text()?,
    };
    let epoch = if has(BEGINS) {
        Some(reader.text()?)
    } else {
        None
    };
    let seq = reader.number()?;
    let expires_ms = if has(EXPIRES) {
        Some(reader.number()?)
    } else {
        None
    };
    Some(Record {
        group,
        epoch,
        seq,
        has_items: has(HAS_ITEMS),
        has_clients: has(HAS_CLIENTS),
        expires_ms,
        step: reader.0,
    })
}

/// Adds a step to the steps of a delta.
pub(super) fn push_step(out: &mut Vec<u8>, step: &[u8]) {
    push_number(out, step.len() as u64);
    out.extend_from_slice(step);
}

/// The steps of a delta; `None` once, at what is no step.
pub(super) fn steps(delta: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut reader = Reader(delta);
    std::iter::from_fn(move || {
        if reader.0.is_empty() {
            return None;
        }
        let step = reader.bytes();
        if step.is_none() {
            reader.0 = &[];
        }
        Some(step)
    })
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while 0x80 <= number {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_no_part_of_it() {
        let record = Record {
            group: GroupRef {
                stream: "s\0",
                group: "🙂",
            },
            epoch: Some("k3"),
            seq: u64::MAX,
            has_items: true,
            has_clients: false,
            expires_ms: Some(1_700_000_000_000),
            step: b"step",
        };
        for epoch in [None, record.epoch] {
            let record = Record { epoch, ..record };
            let mut bytes = Vec::new();
            push_record(&mut bytes, &record, |out| out.extend_from_slice(b"step"));
            assert_eq!(read_record(&bytes), Some(record));
            for end in 0..bytes.len() - record.step.len() {
                assert_eq!(read_record(&bytes[..end]), None, "{end}");
            }
        }
    }

    #[test]
    fn a_delta_is_read_step_by_step() {
        let mut delta = Vec::new();
        for step in [&b"one"[..], b"", &[7; 300]] {
            push_step(&mut delta, step);
        }
        let read: Option<Vec<_>> = steps(&delta).collect();
        assert_eq!(read, Some(vec![&b"one"[..], b"", &[7; 300]]));
        assert!(steps(&delta[..delta.len() - 1]).any(|step| step.is_none()));
    }
}
