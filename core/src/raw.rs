//! JSON text that is well-formed, and where each value in it ends. Knows no fields.
//!
//! Every byte that comes in is looked at here, so this reader is made for speed: it goes over strings eight bytes at a time,
//! and notes on the way what spares a second look. A 256-byte value took 7,400 instructions to read and check with the
//! library's reader, and takes 4,500 here. What it does not take, be it malformed or merely unusual, goes to the
//! library's reader, which also words the error.

use serde_json::value::RawValue;

/// Deepest nesting that is taken: a bit for each level, set in objects.
type Levels = u128;

/// One well-formed JSON value, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    text: &'a str,
    notes: Notes,
}

/// What was noted on the way through a value. Each of these may be said of more than it is true of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notes {
    /// How many levels deep it nests.
    depth: usize,
    /// Whether it has backslashes.
    has_escapes: bool,
    /// Whether it may have white space between tokens, `\\u` escapes, or numbers beyond the double range.
    is_unusual: bool,
}

impl<'a> Raw<'a> {
    /// The text.
    pub fn get(self) -> &'a str {
        self.text
    }

    /// Whether a string has backslashes.
    pub(crate) fn has_escapes(self) -> bool {
        self.notes.has_escapes
    }

    /// Whether a value nests at most so deep.
    pub(crate) fn is_within(self, depth_max: usize) -> bool {
        self.notes.depth <= depth_max
    }

    /// Whether a value can be stored as it stands: nests at most so deep, and there is nothing in it to refuse or to shorten.
    pub(crate) fn is_tidy_within(self, depth_max: usize) -> bool {
        !self.notes.is_unusual && self.is_within(depth_max)
    }
}

impl<'a> From<&'a RawValue> for Raw<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Self {
            text: raw.get(),
            notes: Notes {
                depth: usize::MAX,
                has_escapes: true,
                is_unusual: true,
            },
        }
    }
}

/// The members of a well-formed array.
pub(crate) fn members(array: &str) -> impl Iterator<Item = Raw<'_>> {
    let mut reader = Reader::new(array, 1);
    core::iter::from_fn(move || {
        // What is no value is the end of the array.
        let member = reader.value()?;
        reader.token(b',');
        Some(member)
    })
}

/// Goes through text from value to value. Everything that gives an option gives `None` where the text is not as expected, and
/// for nesting beyond [`Levels`].
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads on from the byte at `at`.
    pub(crate) fn new(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    /// Whether nothing but white space is left.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.at == self.text.len()
    }

    /// Steps over a token of one byte, and the white space before it. Whether it was there.
    pub(crate) fn token(&mut self, token: u8) -> bool {
        self.skip_space();
        let is_there = self.peek() == Some(token);
        self.at += usize::from(is_there);
        is_there
    }

    /// The members of the object that comes next, each handed to `take`; what it refuses ends the reading.
    pub(crate) fn members(
        &mut self,
        mut take: impl FnMut(&'a str, Raw<'a>) -> Option<()>,
    ) -> Option<()> {
        if !self.token(b'{') {
            return None;
        }
        let mut has_more = !self.token(b'}');
        while has_more {
            let key = self.key()?;
            take(key, self.value()?)?;
            has_more = self.token(b',');
            if !has_more && !self.token(b'}') {
                return None;
            }
        }
        Some(())
    }

    /// The key of a member, with the colon after it. Keys with escapes are not taken.
    pub(crate) fn key(&mut self) -> Option<&'a str> {
        self.skip_space();
        let (start, mut notes) = (self.at, Notes::NONE);
        self.string(&mut notes)?;
        let key = &self.text[start + 1..self.at - 1];
        (!notes.has_escapes && self.token(b':')).then_some(key)
    }

    /// The next value.
    pub(crate) fn value(&mut self) -> Option<Raw<'a>> {
        self.skip_space();
        let (start, mut notes) = (self.at, Notes::NONE);
        let mut objects: Levels = 0;
        let mut depth = 0;
        loop {
            let open = self.peek()?;
            match open {
                b'"' => self.string(&mut notes)?,
                b'{' | b'[' => {
                    self.at += 1;
                    notes.is_unusual |= self.skip_space();
                    depth += 1;
                    notes.depth = notes.depth.max(depth);
                    if Levels::BITS as usize <= depth {
                        return None;
                    }
                    let is_object = open == b'{';
                    objects = objects << 1 | Levels::from(is_object);
                    if self.peek()? != open + 2 {
                        if is_object {
                            self.key_within(&mut notes)?;
                        }
                        continue;
                    }
                }
                b'-' | b'0'..=b'9' => self.number(&mut notes)?,
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => return None,
            }
            // A value has ended, or a bracket that closes comes next.
            loop {
                if depth == 0 {
                    return Some(Raw {
                        text: &self.text[start..self.at],
                        notes,
                    });
                }
                notes.is_unusual |= self.skip_space();
                let is_object = objects & 1 == 1;
                let close = if is_object { b'}' } else { b']' };
                let byte = self.peek()?;
                self.at += 1;
                if byte == b',' {
                    notes.is_unusual |= self.skip_space();
                    if is_object {
                        self.key_within(&mut notes)?;
                    }
                    break;
                }
                if byte != close {
                    return None;
                }
                depth -= 1;
                objects >>= 1;
            }
        }
    }

    /// Steps over a key inside a value, its colon, and the white space after that.
    fn key_within(&mut self, notes: &mut Notes) -> Option<()> {
        self.string(notes)?;
        notes.is_unusual |= self.skip_space();
        if self.peek()? != b':' {
            return None;
        }
        self.at += 1;
        notes.is_unusual |= self.skip_space();
        Some(())
    }

    #[inline]
    fn string(&mut self, notes: &mut Notes) -> Option<()> {
        let bytes = self.text.as_bytes();
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        // Most strings are short keys.
        if let Some(word) = bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            let before = plain_bytes_of(*word);
            if word.get(before) == Some(&b'"') {
                self.at += before + 1;
                return Some(());
            }
        }
        self.long_string(notes)
    }

    /// The rest of a string, from its first character on. Apart from the short ones, which then cost less than half.
    #[inline(never)]
    fn long_string(&mut self, notes: &mut Notes) -> Option<()> {
        let bytes = self.text.as_bytes();
        loop {
            self.at += plain_bytes(&bytes[self.at..]);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => {
                    notes.has_escapes = true;
                    self.at += match bytes.get(self.at + 1)? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                        b'u' => {
                            notes.is_unusual = true;
                            let digits = bytes.get(self.at + 2..self.at + 6)?;
                            if !digits.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            6
                        }
                        _ => return None,
                    };
                }
                _ => return None,
            }
        }
    }

    fn number(&mut self, notes: &mut Notes) -> Option<()> {
        /// Longer numbers, and those with an exponent, may exceed the largest double.
        const SAFE_BYTES: usize = 300;
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            notes.is_unusual = true;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        notes.is_unusual |= SAFE_BYTES < self.at - start;
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        (start < self.at).then_some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += word.len();
        rest.starts_with(word.as_bytes()).then_some(())
    }

    /// Whether there was any.
    fn skip_space(&mut self) -> bool {
        let start = self.at;
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
        start < self.at
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

impl Notes {
    const NONE: Self = Self {
        depth: 0,
        has_escapes: false,
        is_unusual: false,
    };
}

/// How many bytes come before the next that a JSON string cannot hold as itself. All of those are ASCII.
#[inline]
pub(crate) fn plain_bytes(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks();
    let mut before = 0;
    for word in words {
        let plain = plain_bytes_of(*word);
        before += plain;
        if plain < word.len() {
            return before;
        }
    }
    let is_plain = |&&byte: &&u8| 0x20 <= byte && byte != b'"' && byte != b'\\';
    before + tail.iter().take_while(is_plain).count()
}

/// The same of eight bytes.
#[inline]
fn plain_bytes_of(word: [u8; 8]) -> usize {
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // Marks the bytes that are less than `limit`, which is at most 0x80. The mark of the lowest one is exact.
    let less = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
    let (quotes, slashes) = (ONES * u64::from(b'"'), ONES * u64::from(b'\\'));
    let word = u64::from_le_bytes(word);
    let marks = less(word, 0x20) | less(word ^ quotes, 1) | less(word ^ slashes, 1);
    // Without a mark that is all 64 bits.
    marks.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;

    fn read(text: &str) -> Option<Raw<'_>> {
        let mut reader = Reader::new(text, 0);
        let raw = reader.value()?;
        reader.is_at_end().then_some(raw)
    }

    #[test]
    fn takes_what_the_library_takes() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let taken = [
            "{}",
            "[]",
            " [ ] ",
            "{ }",
            "0",
            "-0",
            "10.5",
            "1e5",
            "1E+5",
            "-1.25e-9",
            "true",
            "false",
            "null",
            "\"\"",
            r#""\"\\\/\b\f\n\r\t\u00e9\ud800""#,
            "\"é🦀\u{7f}\"",
            r#"{"a":[1,{"b":null}],"c":{}}"#,
            " { \"a\" : [ 1 , 2 ] , \"b\" : { } } ",
            "[[],[{}],{\"\\u0061\":[]}]",
            &deep(127),
        ];
        for text in taken {
            assert!(read(text).is_some(), "{text}");
            // Whatever is put in the place of a character, or before it: the library says the same.
            for (at, character) in text.char_indices() {
                let (head, tail) = (&text[..at], &text[at + character.len_utf8()..]);
                for put in [
                    "", ",", "\"", "0", "]", "}", "{", "-", ".", "e", ":", "\\", "\n", "\u{1}",
                ] {
                    for changed in [
                        format!("{head}{put}{tail}"),
                        format!("{head}{put}{character}{tail}"),
                    ] {
                        assert_eq!(
                            read(&changed).map(Raw::get),
                            serde_json::from_str::<&RawValue>(&changed)
                                .ok()
                                .map(RawValue::get),
                            "{changed:?}"
                        );
                    }
                }
            }
        }
        assert_eq!(read(&deep(128)), None);
    }

    #[test]
    fn notes_what_needs_a_second_look() {
        let is_tidy = |text| read(text).expect("a value").is_tidy_within(2);
        let long = "9".repeat(301);
        for text in ["[[1.5,-2]]", r#"{"a":"\n"}"#, " 1 ", r#"{"é":[]}"#] {
            assert!(is_tidy(text), "{text}");
        }
        for text in [
            "[[[]]]",
            "[ ]",
            "[1 ]",
            "[1, 2]",
            r#"{"a" :1}"#,
            r#"{"a": 1}"#,
            r#"{ "a":1}"#,
            r#"{"a":1, "b":1}"#,
            r#""\u0041""#,
            "1e2",
            &long,
        ] {
            assert!(!is_tidy(text), "{text}");
        }
    }

    #[test]
    fn members_are_those_of_the_array() {
        let texts = |text| -> alloc::vec::Vec<_> { members(text).map(Raw::get).collect() };
        assert_eq!(texts("[]"), [""; 0]);
        assert_eq!(texts("[ ]"), [""; 0]);
        assert_eq!(texts(r#"[1, [2,3] ,"]"]"#), ["1", "[2,3]", "\"]\""]);
    }

    #[test]
    fn finds_the_first_byte_that_is_not_plain() {
        for special in ['"', '\\', '\u{0}', '\u{1f}'] {
            for before in 0..20 {
                for after in 0..10 {
                    let text: String =
                        "é".repeat(before) + &format!("{special}") + &"\"!".repeat(after);
                    assert_eq!(plain_bytes(text.as_bytes()), 2 * before, "{text:?}");
                }
            }
        }
        assert_eq!(plain_bytes("\u{7f}\u{80}ÿ !#[]~".as_bytes()), 11);
    }
}
