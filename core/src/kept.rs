//! Numbers and texts as bytes, and how they are read again. Knows no groups.
//!
//! Numbers are LEB128: seven bits a byte, the low ones first. A text is its length in bytes, then UTF-8. Whoever keeps the
//! bytes covers them with checksums; still, whatever they are, reading them neither panics nor takes more memory than a small
//! multiple of their length.

use alloc::vec::Vec;

/// Largest number that is read: two of them can be added without an overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// Why a group cannot be had from bytes. The group is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Steps are missing in between.
    #[error("step {got} came where step {expected} is next")]
    Gap {
        /// The sequence that is next. For a step that is only a mutation that was taken: how many the group took, and one.
        expected: u64,
        /// The sequence that came.
        got: u64,
    },
    /// The bytes are not what was written, or do not belong to this group.
    #[error("byte {at}: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where in the bytes, at most as far from their start as they are long.
        at: usize,
    },
}

/// Appends a number, at most [`NUMBER_MAX`].
#[inline]
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut rest = number;
    while 0x80 <= rest {
        // The low seven bits; the high bit says that more follow.
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a text.
#[inline]
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    push_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Goes through bytes from part to part.
pub(crate) struct Source<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Source<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Something is wrong with what was read last.
    pub(crate) fn wrong(&self, what: &'static str) -> RestoreError {
        RestoreError::Malformed { what, at: self.at }
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, RestoreError> {
        let byte = self.bytes.get(self.at);
        let &byte = byte.ok_or_else(|| self.wrong("the bytes end too early"))?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn number(&mut self) -> Result<u64, RestoreError> {
        let mut number = 0;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
            shift += 7;
            if 63 <= shift {
                return Err(self.wrong("a number is too large"));
            }
        }
        if NUMBER_MAX < number {
            return Err(self.wrong("a number is too large"));
        }
        Ok(number)
    }

    /// A number that is written as what it is above `base`.
    pub(crate) fn above(&mut self, base: u64) -> Result<u64, RestoreError> {
        let number = self.number()?.checked_add(base);
        number
            .filter(|number| *number <= NUMBER_MAX)
            .ok_or_else(|| self.wrong("a number is too large"))
    }

    /// A number that is written as what it is below `base`.
    pub(crate) fn below(&mut self, base: u64) -> Result<u64, RestoreError> {
        let number = base.checked_sub(self.number()?);
        number.ok_or_else(|| self.wrong("a number is below zero"))
    }

    #[inline]
    pub(crate) fn text(&mut self) -> Result<&'b str, RestoreError> {
        let length = self.number()?;
        let end = usize::try_from(length).ok();
        let end = end.and_then(|length| self.at.checked_add(length));
        let bytes = end.and_then(|end| self.bytes.get(self.at..end));
        let bytes = bytes.ok_or_else(|| self.wrong("a text is longer than the bytes"))?;
        let text = core::str::from_utf8(bytes).map_err(|_| self.wrong("a text is not UTF-8"))?;
        self.at += text.len();
        Ok(text)
    }

    /// How many things follow of which each takes at least `bytes_min`.
    pub(crate) fn count(&mut self, bytes_min: usize) -> Result<usize, RestoreError> {
        let count = usize::try_from(self.number()?).ok();
        count
            .filter(|count| *count <= (self.bytes.len() - self.at) / bytes_min)
            .ok_or_else(|| self.wrong("there are fewer bytes than that many things take"))
    }

    /// Makes sure that nothing follows.
    pub(crate) fn end(&self) -> Result<(), RestoreError> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.wrong("there are more bytes than belong here"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_come_back() {
        let numbers = [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            1_790_000_000_000,
            NUMBER_MAX,
        ];
        let mut out = Vec::new();
        for number in numbers {
            push_number(&mut out, number);
        }
        for text in ["", "é", &"x".repeat(200)] {
            push_text(&mut out, text);
        }
        let mut source = Source::new(&out);
        for number in numbers {
            assert_eq!(source.number(), Ok(number));
        }
        for text in ["", "é", &"x".repeat(200)] {
            assert_eq!(source.text(), Ok(text));
        }
        assert_eq!(source.end(), Ok(()));
        assert!(source.byte().is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_where_it_stands() {
        let malformed = |what, at| Err(RestoreError::Malformed { what, at });
        let too_large = "a number is too large";
        assert_eq!(Source::new(&[0xFF; 9]).number(), malformed(too_large, 9));
        let mut out = Vec::new();
        push_number(&mut out, NUMBER_MAX + 1);
        assert_eq!(Source::new(&out).number(), malformed(too_large, 9));
        assert_eq!(
            Source::new(&[0x80]).number(),
            malformed("the bytes end too early", 1)
        );
        let mut text = Source::new(&[2, b'a']);
        assert_eq!(
            text.text(),
            Err(text.wrong("a text is longer than the bytes"))
        );
        assert!(Source::new(&[1, 0xFF]).text().is_err());
        assert_eq!(Source::new(&[3, 0, 0, 0, 0, 0, 0]).count(2), Ok(3));
        assert!(Source::new(&[4, 0, 0, 0, 0, 0, 0, 0]).count(2).is_err());
        assert!(Source::new(&[1]).below(0).is_err());
    }
}
