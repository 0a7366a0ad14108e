//! The arguments of a script call, in one buffer.

use std::io::Write as _;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Arguments {
    pub(super) fn push(&mut self, argument: impl AsRef<[u8]>) {
        self.write(|out| out.extend_from_slice(argument.as_ref()));
    }

    pub(super) fn push_number(&mut self, number: impl Into<u64>) {
        let number = number.into();
        // Writing to a vector cannot fail.
        self.write(|out| drop(write!(out, "{number}")));
    }

    /// A field of the group's hash: its kind and a name.
    pub(super) fn push_field(&mut self, kind: u8, name: &str) {
        self.write(|out| {
            out.push(kind);
            out.extend_from_slice(name.as_bytes());
        });
    }

    /// Appends what `write` writes, and gives what it gives.
    pub(super) fn write<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let written = write(&mut self.bytes);
        self.ends.push(self.bytes.len());
        written
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// How long all that was written is.
    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends all arguments of another list.
    pub(super) fn extend(&mut self, other: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }

    pub(super) fn as_slices(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let ends = self.ends.iter();
        ends.map(|end| &self.bytes[std::mem::replace(&mut start, *end)..*end])
            .collect()
    }
}
