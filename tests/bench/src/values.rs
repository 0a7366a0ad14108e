//! The items every benchmark writes.

use iii_stream::bench::events;
use serde_json::Value;

/// Items written, all in one group.
pub(crate) const ITEMS: usize = 1000;
/// JSON text of one value.
pub(crate) const VALUE_BYTES: usize = 256;
/// The group of both products.
pub(crate) const GROUP: &str = "group-1";

/// `item-0000` and so on.
pub(crate) fn item_id(item: usize) -> String {
    format!("item-{item:04}")
}

/// An object of exactly [`VALUE_BYTES`] bytes of text with a counter `n` at 0, different for every item.
pub(crate) fn value_text(item: usize) -> String {
    let head = format!(
        r#"{{"id":"{}","n":0,"done":false,"owner":"user-{}","tags":["a","b"]"#,
        item_id(item),
        item % 37
    );
    padded(head, VALUE_BYTES)
}

/// The same, parsed.
pub(crate) fn value(item: usize) -> Value {
    // Proof: `value_text` writes JSON, as a test of this module checks.
    serde_json::from_str(&value_text(item)).expect("value_text writes JSON")
}

/// A document of exactly `bytes` bytes of text, at least 300: a few fields and a list of small records.
pub(crate) fn document_text(bytes: usize) -> String {
    const RECORD_AND_PADDING_BYTES: usize = 130;
    let mut head =
        String::from(r#"{"id":"item-0000","n":0,"status":"open","cursor":{"x":0,"y":0},"rows":["#);
    let mut row = 0;
    while head.len() + RECORD_AND_PADDING_BYTES < bytes {
        let comma = if row == 0 { "" } else { "," };
        let done = row % 3 == 0;
        head.push_str(&format!(
            r#"{comma}{{"key":"row-{row}","left":{},"top":{}.5,"done":{done},"label":"a short label {row}"}}"#,
            row * 17,
            row * 3
        ));
        row += 1;
    }
    head.push(']');
    padded(head, bytes)
}

/// Ends an object with a text that fills it up to `bytes`.
fn padded(mut object: String, bytes: usize) -> String {
    object.push_str(r#","text":""#);
    events::padded(object, bytes, "\"}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_differ() {
        assert_eq!(value_text(0).len(), VALUE_BYTES);
        assert_eq!(value_text(999).len(), VALUE_BYTES);
        assert_ne!(value(1), value(2));
        assert_eq!(value(7)["n"], 0);
    }

    #[test]
    fn documents_have_their_size() {
        for bytes in [300, 1 << 10, 10 << 10] {
            let text = document_text(bytes);
            assert_eq!(text.len(), bytes);
            let document: Value = serde_json::from_str(&text).expect("a document is JSON");
            assert_eq!(document["status"], "open");
        }
    }
}
