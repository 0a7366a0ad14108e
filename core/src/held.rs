//! A value that is held as text, as a tree, or as both, so that a small update of a large value costs little. Knows no
//! items.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Add, AddAssign, SubAssign};

use serde_json::Value;

use crate::apply::{Applied, apply};
use crate::error::OpError;
use crate::op::Ops;
use crate::text::Json;
use crate::tree::{memory_bytes, read_value};

/// How much longer the written form of JSON text can be than the text: a number like `1e15` becomes
/// `1000000000000000.0`. With the byte that parts it from the next, that is 19 bytes for 5; strings never grow,
/// because checked text holds no needless escapes.
const WRITTEN_FACTOR: usize = 4;

/// What operations can add beyond their own written text, in bytes: the brackets of an array that starts with a
/// value. The objects and keys that a path makes cost less than [`WRITTEN_FACTOR`] times its text, and a number that
/// is counted up grows by less than `{"type":"increment","by":1}` is long.
const OPS_EXTRA_BYTES: usize = 64;

/// What a tree at most takes in memory before it is measured for the first time, in bytes. Measuring many small ones would
/// cost more than it tells.
const MEASURED_BYTES_MIN: usize = 16 << 10;

/// What values take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Their texts, or what these at most take where they were not written.
    pub(crate) text_max: usize,
    /// All that is in memory, about.
    pub(crate) memory: usize,
}

impl Size {
    pub(crate) fn of_text(text: &str) -> Self {
        Self {
            text_max: text.len(),
            memory: text.len(),
        }
    }

    /// Stays true while one of the values changes.
    pub(crate) fn follow<T>(&mut self, value: &mut Held, work: impl FnOnce(&mut Held) -> T) -> T {
        *self -= value.size();
        let done = work(value);
        *self += value.size();
        done
    }
}

impl Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            text_max: self.text_max + other.text_max,
            memory: self.memory + other.memory,
        }
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Size {
    fn sub_assign(&mut self, other: Self) {
        self.text_max -= other.text_max;
        self.memory -= other.memory;
    }
}

/// How much more memory a tree takes than its text. A text takes as much, a list of short numbers twenty times as much.
const MEMORY_FACTOR: usize = 4;

/// A value, as text, as a tree, or as both. See the module.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Missing only while there is a tree.
    text: Option<Json>,
    tree: Option<Box<Tree>>,
}

#[derive(Clone, Debug, Default)]
struct Tree {
    value: Value,
    /// Its text takes no more than this.
    bytes_max: usize,
    /// What it takes in memory, about, in bytes.
    memory: usize,
    /// The same when it was measured.
    measured: usize,
}

impl Held {
    pub(crate) fn from_text(text: Json) -> Self {
        Self {
            text: Some(text),
            tree: None,
        }
    }

    /// What the text takes, or at most takes where it was not written.
    pub(crate) fn bytes_max(&self) -> usize {
        match &self.text {
            Some(text) => text.as_str().len(),
            None => self.tree.as_ref().map_or(0, |tree| tree.bytes_max),
        }
    }

    pub(crate) fn size(&self) -> Size {
        let text = self.text.as_ref().map_or(0, |text| text.as_str().len());
        let tree = self.tree.as_ref().map_or(0, |tree| tree.memory);
        Size {
            text_max: self.bytes_max(),
            memory: text + tree,
        }
    }

    /// What the text at most takes after `ops`.
    pub(crate) fn bytes_max_after(&self, ops: &Ops) -> usize {
        let before = match (&self.tree, &self.text) {
            (Some(tree), _) => tree.bytes_max,
            (None, text) => text.as_ref().map_or(0, written_bytes_max),
        };
        before + ops_bytes_max(ops)
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
        let tree = &mut self.tree;
        self.text
            .get_or_insert_with(|| tree.get_or_insert_default().write())
    }

    /// Drops the tree.
    pub(crate) fn cool(&mut self) {
        self.text();
        self.tree = None;
    }

    /// Whether the text, if there is only that, can be read. Keeps what was read.
    pub(crate) fn is_readable(&mut self) -> bool {
        if let (None, Some(text)) = (&self.tree, &self.text) {
            let Ok(value) = read_value(text.as_str()) else {
                return false;
            };
            self.tree = Some(Box::new(Tree::new(value, text)));
        }
        true
    }

    /// Applies operations in place. With `undoes`, an operation that fails leaves the text as it was; that holds for one
    /// operation only, as those before a failed one stay applied.
    pub(crate) fn apply(&mut self, ops: &Ops, undoes: bool) -> Vec<OpError> {
        let tree = self.tree();
        let Applied { value, errors } = apply(Some(tree.value.take()), ops);
        tree.value = value;
        tree.grow(ops.text());
        if !undoes || errors.is_empty() {
            tree.bytes_max += ops_bytes_max(ops);
            self.text = None;
        }
        errors
    }

    /// Applies operations; with `is_atomic`, one that fails undoes all. Costs as much as the value is large only where several
    /// are atomic.
    pub(crate) fn update(&mut self, ops: &Ops, is_atomic: bool) -> Vec<OpError> {
        if !is_atomic || ops.len() <= 1 {
            return self.apply(ops, is_atomic);
        }
        let (value, errors) = self.applied(ops);
        if errors.is_empty() {
            *self = value;
        }
        errors
    }

    /// What operations make of the value, which stays as it is. Costs as much as the value is large.
    pub(crate) fn applied(&mut self, ops: &Ops) -> (Self, Vec<OpError>) {
        let mut copy = Self {
            text: None,
            tree: Some(Box::new(self.tree().clone())),
        };
        let errors = copy.apply(ops, false);
        (copy, errors)
    }

    /// The tree, read if there was none.
    fn tree(&mut self) -> &mut Tree {
        let text = &self.text;
        self.tree.get_or_insert_with(|| {
            let tree = text.as_ref().map(|text| Tree::new(text.to_value(), text));
            Box::new(tree.unwrap_or_default())
        })
    }
}

impl Tree {
    /// The tree that a text was read as.
    fn new(value: Value, text: &Json) -> Self {
        let mut tree = Self {
            value,
            bytes_max: written_bytes_max(text),
            memory: 0,
            measured: 0,
        };
        tree.grow(text);
        tree
    }

    fn write(&mut self) -> Json {
        let text = Json::from_checked_value(&self.value);
        let bytes = text.as_str().len();
        debug_assert!(bytes <= self.bytes_max, "the bound was too low");
        self.bytes_max = bytes;
        text
    }

    /// Counts what a text may have added. A tree that may have doubled since it was measured is measured again, so that this
    /// costs in proportion to what is added.
    fn grow(&mut self, text: &Json) {
        self.memory += MEMORY_FACTOR * text.as_str().len();
        if MEASURED_BYTES_MIN.max(2 * self.measured) < self.memory {
            self.measured = memory_bytes(&self.value);
            self.memory = self.measured;
        }
    }
}

/// What operations at most add to a text.
fn ops_bytes_max(ops: &Ops) -> usize {
    WRITTEN_FACTOR * ops.text().as_str().len() + OPS_EXTRA_BYTES
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

    #[test]
    fn what_is_parsed_counts_and_what_is_appended_is_not_counted_for_ever() {
        let numbers = alloc::format!(r#"{{"list":[{}1],"text":""}}"#, "1,".repeat(10_000));
        let mut held = Held::from_text(Json::from_text(&numbers).expect("JSON text"));
        let mut size = held.size();
        assert_eq!(size.memory, numbers.len());
        let append = r#"[{"type":"append","path":"text","value":"x"}]"#;
        let ops = Ops::from_text(append).expect("operations");
        for _ in 0..50_000 {
            size.follow(&mut held, |held| held.apply(&ops, false));
        }
        let measured = held.tree.as_deref().map(|tree| memory_bytes(&tree.value));
        let measured = measured.expect("a tree");
        assert!(10_000 * size_of::<Value>() + 50_000 <= measured);
        assert!((measured / 2..=measured * 2).contains(&size.memory));
        size.follow(&mut held, Held::cool);
        assert_eq!(size, held.size());
        assert_eq!(size.memory, numbers.len() + 50_000);
    }
}
