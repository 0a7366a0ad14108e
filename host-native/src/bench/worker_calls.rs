//! The calls of one load, encoded once: between two uses only the invocation id changes.

use super::frame;
use super::stream_medium::STREAM;

const HEAD: &str = r#"{"type":"invokefunction","invocation_id":""#;
/// A version 4 UUID whose last group carries the slot (4 digits) and a count (8 digits).
const ID: &str = "00000000-0000-4000-8000-000000000000";
const SLOT_AT: usize = 24;
const COUNT_AT: usize = 28;

/// One encoded call for every item.
pub struct Calls {
    /// Each with the place of its id.
    frames: Vec<(Vec<u8>, usize)>,
    /// What every good reply has.
    pub sign: &'static str,
}

impl Calls {
    /// A call of `function` for each of so many items; `data` gives the members of an item's call, without braces.
    pub fn new(
        function: &str,
        sign: &'static str,
        items: usize,
        data: impl Fn(usize) -> String,
    ) -> Self {
        let of_bench = |_| STREAM.to_owned();
        Self::in_streams(function, sign, items, of_bench, data)
    }

    /// The same with a stream of its own for each item that `stream` gives one.
    pub fn in_streams(
        function: &str,
        sign: &'static str,
        items: usize,
        stream: impl Fn(usize) -> String,
        data: impl Fn(usize) -> String,
    ) -> Self {
        let frames = (0..items)
            .map(|item| {
                let text = format!(
                    r#"{HEAD}{ID}","function_id":"{function}","data":{{"stream_name":"{}",{}}}}}"#,
                    stream(item),
                    data(item)
                );
                let mut frame = Vec::new();
                let start = frame::encode(frame::TEXT, text.as_bytes(), &mut frame);
                (frame, start + HEAD.len())
            })
            .collect();
        Self { frames, sign }
    }

    /// How many items there are.
    pub fn items(&self) -> usize {
        self.frames.len()
    }

    /// The frame for an item, as it would be sent with an id of zeros.
    pub fn frame(&self, item: usize) -> &[u8] {
        &self.frames[item].0
    }

    /// Appends the frame for an item with an id made of `slot` and `count`.
    pub fn append(&self, item: usize, slot: usize, count: u32, out: &mut Vec<u8>) {
        let (frame, id_at) = &self.frames[item];
        let id = out.len() + id_at;
        out.extend_from_slice(frame);
        write_hex(&mut out[id + SLOT_AT..id + COUNT_AT], slot as u32);
        write_hex(&mut out[id + COUNT_AT..id + ID.len()], count);
    }
}

/// Slot and count of an id at the start of `text`, if it is one of ours.
pub fn parse_id(text: &[u8]) -> Option<(usize, u32)> {
    let id = text.get(..ID.len())?;
    let digits = std::str::from_utf8(&id[SLOT_AT..]).ok()?;
    let (slot, count) = digits.split_at_checked(COUNT_AT - SLOT_AT)?;
    let prefix_is_ours = id[..SLOT_AT] == ID.as_bytes()[..SLOT_AT];
    prefix_is_ours.then_some((
        usize::from_str_radix(slot, 16).ok()?,
        u32::from_str_radix(count, 16).ok()?,
    ))
}

fn write_hex(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xF) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn calls() -> Calls {
        Calls::new("stream::set", "new_value", 9, |item| {
            format!(r#""group_id":"g","item_id":"item-{item}","data":{item}"#)
        })
    }

    #[test]
    fn an_id_survives_the_way() {
        let calls = calls();
        let mut out = Vec::new();
        calls.append(3, 31, 0xDEAD_BEEF, &mut out);
        assert_eq!(out.len(), calls.frame(3).len());
        assert_eq!(parse_id(&out[calls.frames[3].1..]), Some((31, 0xDEAD_BEEF)));
        assert_eq!(parse_id(b"11111111-0000-4000-8000-000000000000"), None);
    }

    #[test]
    fn a_call_is_the_documented_message() {
        let calls = calls();
        let payload = &calls.frame(5)[calls.frames[5].1 - HEAD.len()..];
        let message: Value = serde_json::from_slice(payload).expect("the payload is JSON");
        assert_eq!(message["function_id"], "stream::set");
        assert_eq!(message["data"]["stream_name"], "bench");
        assert_eq!(message["data"]["item_id"], "item-5");
    }
}
