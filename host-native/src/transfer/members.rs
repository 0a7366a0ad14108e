//! Reads a JSON object of any size member by member, and nothing behind it. Holds one member at a time.
//!
//! Where a member ends is found by its quotes and brackets; whether it is JSON says the core.

use std::io::{self, BufRead};

use iii_stream_core::Json;
use iii_stream_core::text::TextError;

/// Why a member cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The system cannot read on.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The text is over before the object is.
    #[error("the text ends at byte {offset}, in the middle of the object")]
    Ended {
        /// The length of the text.
        offset: u64,
    },
    /// Something else stands there.
    #[error("{expected} is expected at byte {offset}, and there is {got}")]
    Unexpected {
        /// Where in the text.
        offset: u64,
        /// What may stand there.
        expected: &'static str,
        /// The byte that does, for people.
        got: String,
    },
    /// A member is no JSON, so that nobody knows where the next one begins.
    #[error("what begins at byte {offset} is damaged: {reason}")]
    Damaged {
        /// Where in the text.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A member is too long.
    #[error("what begins at byte {offset} is longer than {bytes_max} bytes, which is the limit")]
    TooLong {
        /// Where in the text.
        offset: u64,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// A value is JSON and cannot be stored; the next member can be read.
    #[error("the value of `{key}` {error}")]
    Value {
        /// The member's key.
        key: String,
        /// Why not.
        error: TextError,
    },
}

/// See the module.
pub struct Members<R> {
    input: R,
    /// How many bytes were taken.
    offset: u64,
    state: State,
    /// The key or value that is read.
    bytes: Vec<u8>,
    bytes_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// After a member.
    Within,
    End,
}

impl<R: BufRead> Members<R> {
    /// Reads from the present place of `input`; keys and values may have so many bytes each.
    pub fn new(input: R, bytes_max: usize) -> Self {
        Self {
            input,
            offset: 0,
            state: State::Start,
            bytes: Vec::new(),
            bytes_max,
        }
    }

    /// How many bytes were read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next member; `None` after the last one.
    ///
    /// Errors: after [`MemberError::Value`] one can ask again, after any other there is nothing more.
    pub fn next_member(&mut self) -> Result<Option<(String, Json)>, MemberError> {
        let member = self.read();
        if !matches!(member, Ok(Some(_)) | Err(MemberError::Value { .. })) {
            self.state = State::End;
        }
        member
    }

    fn read(&mut self) -> Result<Option<(String, Json)>, MemberError> {
        let byte = match self.state {
            State::End => return Ok(None),
            State::Start => {
                self.expect(b'{', "an object")?;
                self.token()?
            }
            State::Within => match self.token()? {
                b',' => {
                    self.take();
                    // A key has to follow.
                    match self.token()? {
                        b'}' => return Err(self.unexpected("a key", b'}')),
                        byte => byte,
                    }
                }
                b'}' => b'}',
                byte => return Err(self.unexpected("a comma or the end of the object", byte)),
            },
        };
        if byte == b'}' {
            self.take();
            return Ok(None);
        }
        if byte != b'"' {
            return Err(self.unexpected("a key", byte));
        }
        let start = self.offset;
        self.collect()?;
        let key: String =
            serde_json::from_slice(&self.bytes).map_err(|error| MemberError::Damaged {
                offset: start,
                reason: error.to_string(),
            })?;
        self.expect(b':', "a colon")?;
        self.token()?;
        let start = self.offset;
        self.collect()?;
        self.state = State::Within;
        let damaged = |reason| MemberError::Damaged {
            offset: start,
            reason,
        };
        let text = str::from_utf8(&self.bytes).map_err(|error| damaged(error.to_string()))?;
        match Json::from_text(text) {
            Ok(value) => Ok(Some((key, value))),
            Err(TextError::Syntax { reason }) => Err(damaged(reason)),
            Err(error) => Err(MemberError::Value { key, error }),
        }
    }

    /// Steps over a byte that has to come next, after white space.
    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), MemberError> {
        match self.token()? {
            got if got == byte => {
                self.take();
                Ok(())
            }
            got => Err(self.unexpected(expected, got)),
        }
    }

    /// Reads a value up to its end into `bytes`: where a string closes, where the brackets are even, or where a number or a
    /// word is over.
    fn collect(&mut self) -> Result<(), MemberError> {
        self.bytes.clear();
        let start = self.offset;
        let mut scan = Scan::default();
        loop {
            let offset = self.offset;
            let chunk = fill(&mut self.input)?;
            if chunk.is_empty() {
                return Err(MemberError::Ended { offset });
            }
            let (taken, is_over) = scan.go_on(chunk);
            if self.bytes_max < self.bytes.len() + taken {
                return Err(MemberError::TooLong {
                    offset: start,
                    bytes_max: self.bytes_max,
                });
            }
            self.bytes.extend_from_slice(&chunk[..taken]);
            self.input.consume(taken);
            self.offset += taken as u64;
            if is_over {
                return Ok(());
            }
        }
    }

    /// The next byte that is no white space; it stays where it is.
    fn token(&mut self) -> Result<u8, MemberError> {
        loop {
            let chunk = fill(&mut self.input)?;
            match chunk.first() {
                None => {
                    return Err(MemberError::Ended {
                        offset: self.offset,
                    });
                }
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.take(),
                Some(&byte) => return Ok(byte),
            }
        }
    }

    fn take(&mut self) {
        self.input.consume(1);
        self.offset += 1;
    }

    fn unexpected(&self, expected: &'static str, got: u8) -> MemberError {
        MemberError::Unexpected {
            offset: self.offset,
            expected,
            got: match got {
                b'!'..=b'~' => format!("`{}`", char::from(got)),
                _ => format!("the byte {got:#04x}"),
            },
        }
    }
}

fn fill<R: BufRead>(input: &mut R) -> io::Result<&[u8]> {
    // Asked twice, because a borrow that is returned cannot be given up in a loop.
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    input.fill_buf()
}

/// Where in a value one is.
#[derive(Default)]
struct Scan {
    depth: u64,
    is_in_string: bool,
    is_escaped: bool,
    is_scalar: bool,
}

impl Scan {
    /// How many bytes of `chunk` belong to the value, and whether it ends with them.
    fn go_on(&mut self, chunk: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < chunk.len() {
            if self.is_in_string {
                if self.is_escaped {
                    self.is_escaped = false;
                    at += 1;
                    continue;
                }
                let Some(found) = memchr::memchr2(b'"', b'\\', &chunk[at..]) else {
                    return (chunk.len(), false);
                };
                at += found + 1;
                if chunk[at - 1] == b'\\' {
                    self.is_escaped = true;
                    continue;
                }
                self.is_in_string = false;
                if self.depth == 0 {
                    return (at, true);
                }
                continue;
            }
            match chunk[at] {
                b'"' if !self.is_scalar => self.is_in_string = true,
                b'{' | b'[' if !self.is_scalar => self.depth += 1,
                b'}' | b']' if 0 < self.depth => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => {
                    return (at, true);
                }
                _ if self.depth == 0 => self.is_scalar = true,
                _ => {}
            }
            at += 1;
        }
        (chunk.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads with a buffer of so many bytes.
    fn read(text: &[u8], capacity: usize) -> Result<Vec<(String, String)>, String> {
        let input = io::BufReader::with_capacity(capacity, text);
        let mut members = Members::new(input, 64);
        let mut all = Vec::new();
        while let Some((key, value)) = members.next_member().map_err(|error| error.to_string())? {
            all.push((key, value.as_str().to_owned()));
        }
        Ok(all)
    }

    #[test]
    fn gives_members_in_order_whatever_the_buffer() {
        let text = r#" {"b":{"x":["}",{"\"]":1}]} , "a":-1.5e3,"é🦀\n":"\\","":null,"t":true ,"l":[ ]} ]]"#;
        let expected = [
            ("b", r#"{"x":["}",{"\"]":1}]}"#),
            ("a", "-1.5e3"),
            ("é🦀\n", r#""\\""#),
            ("", "null"),
            ("t", "true"),
            ("l", "[]"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        for capacity in 1..100 {
            assert_eq!(
                read(text.as_bytes(), capacity).as_deref(),
                Ok(&expected[..])
            );
        }
        assert_eq!(read(b"{ }garbage", 4), Ok(vec![]));
    }

    #[test]
    fn reads_what_the_library_reads_and_nothing_else() {
        let text = r#"{"a":[1,{"b":"\"c\\"}],"d":tru"#.replace("tru", "true,\"e\":{}}");
        assert!(read(text.as_bytes(), 8).is_ok());
        for at in 0..text.len() {
            assert!(read(&text.as_bytes()[..at], 8).is_err(), "cut at {at}");
            for put in *br#"{}[]",:x0\ "# {
                let mut changed = text.clone().into_bytes();
                changed[at] = put;
                let mut reader = serde_json::Deserializer::from_slice(&changed)
                    .into_iter::<serde_json::Map<String, serde_json::Value>>();
                let library = reader.next().is_some_and(|object| object.is_ok());
                let ours = read(&changed, 8).is_ok();
                assert_eq!(ours, library, "{}", String::from_utf8_lossy(&changed));
            }
        }
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let long = format!(r#"{{"k":"{}"}}"#, "x".repeat(70));
        for (text, told) in [
            ("", "the text ends at byte 0"),
            (
                "\u{0}",
                "an object is expected at byte 0, and there is the byte 0x00",
            ),
            ("[1]", "an object is expected at byte 0, and there is `[`"),
            (r#"{"a":1"#, "the text ends at byte 6"),
            (r#"{"a":1;"b":2}"#, "begins at byte 5 is damaged"),
            (r#"{"a":[1}]}"#, "begins at byte 5 is damaged"),
            (r#"{"a" 1}"#, "a colon is expected at byte 5"),
            (r#"{"a":1,}"#, "a key is expected at byte 7"),
            (r#"{"a":1 "b"}"#, "a comma or the end of the object"),
            (&long, "begins at byte 5 is longer than 64 bytes"),
        ] {
            let error = read(text.as_bytes(), 8).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn goes_on_after_a_value_that_cannot_be_stored() {
        let mut members = Members::new(&br#"{"a":"\ud800","b":2}"#[..], 64);
        let told = members.next_member().expect_err("half a pair").to_string();
        assert!(told.starts_with("the value of `a` holds"), "{told}");
        let next = members.next_member().expect("a member");
        assert_eq!(next.map(|(key, _)| key).as_deref(), Some("b"));
        assert!(members.next_member().is_ok_and(|member| member.is_none()));
    }
}
