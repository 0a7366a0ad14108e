//! The texts that carry a counter: written with a mark before it, found without reading JSON.

/// Stands before the counter and nowhere else in the texts that the bench writes.
const MARK: u8 = b'~';
const DIGITS: usize = 10;

/// `~0000000000` and so on: the counter as it stands in events.
pub fn counter_text(counter: u64) -> String {
    format!("{}{counter:0DIGITS$x}", char::from(MARK))
}

/// The last counter in a text.
pub fn find_counter(text: &[u8]) -> Option<u64> {
    let at = memchr::memrchr(MARK, text)? + 1;
    let mut counter = 0;
    for digit in text.get(at..at + DIGITS)? {
        counter = counter << 4 | u64::from(char::from(*digit).to_digit(16)?);
    }
    Some(counter)
}

/// A JSON object with a counter; `bytes` long, unless that is too short for it.
pub fn event_value(counter: u64, bytes: usize) -> String {
    padded(
        r#"{"text":""#.into(),
        bytes,
        &format!(r#"","n":"{}"}}"#, counter_text(counter)),
    )
}

/// `head`, words that fill it up, `tail`: `bytes` in all, unless `head` and `tail` are longer.
pub fn padded(mut head: String, bytes: usize, tail: &str) -> String {
    const WORDS: &str = "The quick brown fox jumps over the lazy dog. ";
    let mut missing = bytes.saturating_sub(head.len() + tail.len());
    while 0 < missing {
        let part = &WORDS[..missing.min(WORDS.len())];
        head.push_str(part);
        missing -= part.len();
    }
    head.push_str(tail);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_again() {
        for counter in [0, 1, 0xABCDE, (1 << 40) - 1] {
            let value = event_value(counter, 100);
            assert_eq!(value.len(), 100);
            assert_eq!(find_counter(value.as_bytes()), Some(counter));
        }
    }

    #[test]
    fn the_last_counter_counts() {
        let text = format!("{}x{}\"]", counter_text(1), counter_text(2));
        assert_eq!(find_counter(text.as_bytes()), Some(2));
    }

    #[test]
    fn what_is_cut_off_is_no_counter() {
        assert_eq!(find_counter(b"~00000"), None);
        assert_eq!(find_counter(b"~00000000zz"), None);
        assert_eq!(find_counter(b"nothing"), None);
    }
}
