//! A value that is held as text, as a tree, or as both, so that a small update of a large value costs little. Knows no
//! items.

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde_json::Value;

use crate::apply::{Applied, apply};
use crate::error::OpError;
use crate::op::Ops;
use crate::text::Json;
use crate::tree::read_value;

/// How much longer the written form of JSON text can be than the text: a number like `1e15` becomes
/// `1000000000000000.0`. With the byte that parts it from the next, that is 19 bytes for 5; strings never grow,
/// because checked text holds no needless escapes.
const WRITTEN_FACTOR: usize = 4;

/// What operations can add beyond their own written text, in bytes: the brackets of an array that starts with a
/// value. The objects and keys that a path makes cost less than [`WRITTEN_FACTOR`] times its text, and a number that
/// is counted up grows by less than `{"type":"increment","by":1}` is long.
const OPS_EXTRA_BYTES: usize = 64;

/// A value, as text, as a tree, or as both. See the module.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Missing only while there is a tree.
    text: Option<Json>,
    tree: Option<Box<Value>>,
    /// The tree's text takes no more than this.
    tree_bytes_max: usize,
}

impl Held {
    pub(crate) fn from_text(text: Json) -> Self {
        Self {
            text: Some(text),
            tree: None,
            tree_bytes_max: 0,
        }
    }

    /// What the text takes, or at most takes where it was not written.
    pub(crate) fn bytes_max(&self) -> usize {
        match &self.text {
            Some(text) => text.as_str().len(),
            None => self.tree_bytes_max,
        }
    }

    /// What the text at most takes after `ops`.
    pub(crate) fn bytes_max_after(&self, ops: &Ops) -> usize {
        let before = match (&self.tree, &self.text) {
            (None, Some(text)) => written_bytes_max(text),
            _ => self.tree_bytes_max,
        };
        before + WRITTEN_FACTOR * ops.text().as_str().len() + OPS_EXTRA_BYTES
    }

    /// The text, if it was written.
    pub(crate) fn written(&self) -> Option<&Json> {
        self.text.as_ref()
    }

    pub(crate) fn has_tree(&self) -> bool {
        self.tree.is_some()
    }

    /// The text, written if it was not.
    pub(crate) fn text(&mut self) -> &Json {
        let (tree, bytes_max) = (&self.tree, &mut self.tree_bytes_max);
        self.text.get_or_insert_with(|| {
            let tree = tree.as_deref().unwrap_or(&Value::Null);
            let text = Json::from_checked_value(tree);
            debug_assert!(text.as_str().len() <= *bytes_max, "the bound was too low");
            *bytes_max = text.as_str().len();
            text
        })
    }

    /// Drops the tree.
    pub(crate) fn cool(&mut self) {
        self.text();
        self.tree = None;
    }

    /// Whether the text, if there is only that, can be read. Keeps what was read.
    pub(crate) fn is_readable(&mut self) -> bool {
        if let (None, Some(text)) = (&self.tree, &self.text) {
            let Ok(tree) = read_value(text.as_str()) else {
                return false;
            };
            self.tree_bytes_max = written_bytes_max(text);
            self.tree = Some(Box::new(tree));
        }
        true
    }

    /// Applies operations in place. With `undoes`, an operation that fails leaves the text as it was; that holds for one
    /// operation only, as those before a failed one stay applied.
    pub(crate) fn apply(&mut self, ops: &Ops, undoes: bool) -> Vec<OpError> {
        let bytes_max = self.bytes_max_after(ops);
        let tree = self.tree();
        let Applied { value, errors } = apply(Some(tree.take()), ops);
        *tree = value;
        if !undoes || errors.is_empty() {
            self.text = None;
            self.tree_bytes_max = bytes_max;
        }
        errors
    }

    /// What operations make of the value, which stays as it is. Costs as much as the value is large.
    pub(crate) fn applied(&mut self, ops: &Ops) -> (Self, Vec<OpError>) {
        let mut copy = Self {
            text: None,
            tree: Some(Box::new(self.tree().clone())),
            tree_bytes_max: self.tree_bytes_max,
        };
        let errors = copy.apply(ops, false);
        (copy, errors)
    }

    /// The tree, read if there was none.
    fn tree(&mut self) -> &mut Value {
        let (text, bytes_max) = (&self.text, &mut self.tree_bytes_max);
        self.tree.get_or_insert_with(|| {
            let tree = text.as_ref().map_or(Value::Null, |text| {
                *bytes_max = written_bytes_max(text);
                text.to_value()
            });
            Box::new(tree)
        })
    }
}

/// What a value at most takes when it is read from this text and written again.
fn written_bytes_max(text: &Json) -> usize {
    WRITTEN_FACTOR * (text.as_str().len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_texts_stay_within_the_bounds() {
        let numbers = "1e15,".repeat(500);
        let list = alloc::format!("[{numbers}-1e15]");
        let cases = [
            ("[]", alloc::format!(r#"[{{"type":"append","value":{list}}}]"#)),
            (&list, r#"[{"type":"append","value":1e15}]"#.into()),
            ("0", r#"[{"type":"increment","by":1}]"#.into()),
            ("1e308", r#"[{"type":"decrement","by":9}]"#.into()),
            ("{}", r#"[{"type":"append","path":["","","","","",""],"value":""}]"#.into()),
            ("{}", r#"[{"type":"merge","path":["","",""],"value":{"":1e15}},{"type":"remove","path":"x"}]"#.into()),
            ("1e15", "[]".into()),
            (r#""\u0001""#, r#"[{"type":"append","value":"\u0001\u001f\/\/"}]"#.into()),
        ];
        for (text, ops) in cases {
            let ops = Ops::from_text(&ops).expect("operations");
            let mut held = Held::from_text(Json::from_text(text).expect("JSON text"));
            for _ in 0..3 {
                let bound = held.bytes_max_after(&ops);
                held.apply(&ops, false);
                assert!(held.clone().text().as_str().len() <= bound, "{text}");
            }
            held.text();
        }
    }
}
