//! The calls of one benchmark, encoded once: between two uses only the invocation id changes.

use crate::frame;
use crate::values::{GROUP, ITEMS, item_id, value_text};

/// The stream every call addresses.
pub(crate) const STREAM: &str = "bench";

const HEAD: &str = r#"{"type":"invokefunction","invocation_id":""#;
/// A version 4 UUID whose last group carries the slot (4 digits) and a count (8 digits).
const ID: &str = "00000000-0000-4000-8000-000000000000";
const SLOT_AT: usize = 24;
const COUNT_AT: usize = 28;

/// One encoded call for every item.
pub(crate) struct Calls {
    frames: Vec<Vec<u8>>,
    id_at: usize,
}

impl Calls {
    /// `stream::set` of each item's value.
    pub(crate) fn set() -> Self {
        Self::new("stream::set", |item| {
            format!(r#""data":{}"#, value_text(item))
        })
    }

    /// `stream::update` of each item with one increment.
    pub(crate) fn update() -> Self {
        Self::new("stream::update", |_| {
            r#""ops":[{"type":"increment","path":"n","by":1}]"#.into()
        })
    }

    fn new(function: &str, rest: impl Fn(usize) -> String) -> Self {
        let mut id_at = 0;
        let frames = (0..ITEMS)
            .map(|item| {
                let data = format!(
                    r#"{{"stream_name":"{STREAM}","group_id":"{GROUP}","item_id":"{}",{}}}"#,
                    item_id(item),
                    rest(item)
                );
                let text = format!(r#"{HEAD}{ID}","function_id":"{function}","data":{data}}}"#);
                let mut frame = Vec::new();
                id_at = frame::encode(frame::TEXT, text.as_bytes(), &mut frame) + HEAD.len();
                frame
            })
            .collect();
        Self { frames, id_at }
    }

    /// The frame for an item, as it would be sent with an id of zeros.
    pub(crate) fn frame(&self, item: usize) -> &[u8] {
        &self.frames[item]
    }

    /// Appends the frame for an item with an id made of `slot` and `count`.
    pub(crate) fn append(&self, item: usize, slot: usize, count: u32, out: &mut Vec<u8>) {
        let id = out.len() + self.id_at;
        out.extend_from_slice(&self.frames[item]);
        write_hex(&mut out[id + SLOT_AT..id + COUNT_AT], slot as u32);
        write_hex(&mut out[id + COUNT_AT..id + ID.len()], count);
    }
}

/// Slot and count of an id at the start of `text`, if it is one of ours.
pub(crate) fn parse_id(text: &[u8]) -> Option<(usize, u32)> {
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

    #[test]
    fn an_id_survives_the_way() {
        let calls = Calls::set();
        let mut out = Vec::new();
        calls.append(3, 31, 0xDEAD_BEEF, &mut out);
        assert_eq!(out.len(), calls.frame(3).len());
        assert_eq!(parse_id(&out[calls.id_at..]), Some((31, 0xDEAD_BEEF)));
        assert_eq!(parse_id(b"11111111-0000-4000-8000-000000000000"), None);
    }

    #[test]
    fn a_call_is_the_documented_message() {
        let calls = Calls::update();
        let payload = &calls.frame(5)[calls.id_at - HEAD.len()..];
        let message: Value = serde_json::from_slice(payload).expect("the payload is JSON");
        assert_eq!(message["function_id"], "stream::update");
        assert_eq!(message["data"]["item_id"], "item-0005");
        assert_eq!(message["data"]["ops"][0]["by"], 1);
    }
}
