//! Op scripts made at random: valid JSON texts that aim at limits, odd paths, the edges of 64 bits, and plain nonsense.

use std::fmt::Write as _;

use iii_stream_core::limits::{
    MERGE_VALUE_DEPTH_MAX, MERGE_VALUE_KEYS_MAX, OPS_MAX, PATH_SEGMENT_BYTES_MAX,
    PATH_SEGMENTS_MAX, VALUE_DEPTH_MAX,
};

use crate::random::Random;

/// One request, as JSON texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The stored value, or `None` where the item is missing.
    pub old: Option<String>,
    /// The ops.
    pub ops: String,
}

impl Script {
    /// The request number `index` of the run with the given seed: always the same one.
    pub fn at(seed: u64, index: u64) -> Self {
        let mut maker = Maker {
            random: Random::new(seed.wrapping_add(index.wrapping_mul(0xD134_2543_DE82_EF95))),
            text: String::new(),
        };
        maker.script()
    }
}

/// Keys that scripts use again and again, as JSON text, so that ops meet each other and what is stored.
const KEYS: [&str; 22] = [
    r#""a""#,
    r#""a""#,
    r#""b""#,
    r#""b""#,
    r#""n""#,
    r#""count""#,
    r#""text""#,
    r#""tags""#,
    r#""0""#,
    r#""""#,
    r#""a.b""#,
    r#""a/b""#,
    r#"" ""#,
    r#""ключ""#,
    r#""\u00e9""#,
    r#""e\u0301""#,
    r#""😀""#,
    r#""\ud83d\ude00""#,
    r#""\u0000\n\t\"\\\/""#,
    r#""__proto__""#,
    r#""constructor""#,
    r#""__Proto__""#,
];

const NUMBERS: [&str; 40] = [
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "7",
    "1.0",
    "1.5",
    "-2.5",
    "0.1",
    "0.30000000000000004",
    "1e3",
    "1E+3",
    "1e-7",
    "5e-324",
    "1e-400",
    "1.7976931348623157e308",
    "-1.7976931348623157e308",
    "1e21",
    "123456789012345680000",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740993",
    "9007199254740993.0",
    "9223372036854775806",
    "9223372036854775807",
    "9223372036854775808",
    "9223372036854775807.0",
    "-9223372036854775807",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551614",
    "18446744073709551615",
    "18446744073709551616",
    "-18446744073709551615",
    "100000000000000000000000000000000000000000",
    "2147483648",
    "4294967296",
    "3.141592653589793238462643383279",
];

const BYS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "2",
    "1000000",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775806",
    "-9223372036854775808",
    "-9223372036854775807",
    "4611686018427387904",
    "-4611686018427387904",
];

const STRINGS: [&str; 12] = [
    r#""""#,
    r#""x""#,
    r#""text""#,
    r#""two words""#,
    r#""\"quoted\" \\ \/ \b\f\n\r\t""#,
    r#""\u0000\u001f\u007f\u2028""#,
    r#""\ud83d\ude00 and 😀""#,
    r#""日本語""#,
    r#""e\u0301 é""#,
    r#""__proto__""#,
    r#""1""#,
    r#""null""#,
];

/// Valid JSON that no stored value may hold.
const UNSTORABLE: [&str; 5] = [
    r#""\ud800""#,
    r#""\udc00\ud800""#,
    "1e999",
    "-1e999",
    r#"{"\ud800":1}"#,
];

/// Ops that cannot be decoded, each for its own reason; some differ from a good op by one token.
const MALFORMED_OPS: [&str; 24] = [
    "null",
    "1",
    r#""set""#,
    "{}",
    r#"{"path":"a","value":1}"#,
    r#"{"type":"Set","path":"a","value":1}"#,
    r#"{"type":"replace","path":"a","value":1}"#,
    r#"{"type":null,"path":"a","value":1}"#,
    r#"{"type":"set","path":["a"],"value":1}"#,
    r#"{"type":"set","path":7,"value":1}"#,
    r#"{"type":"merge","path":"a"}"#,
    r#"{"type":"merge","path":["a",1],"value":{}}"#,
    r#"{"type":"merge","path":{},"value":{}}"#,
    r#"{"type":"append","path":"a"}"#,
    r#"{"type":"append","path":["a",null],"value":1}"#,
    r#"{"type":"increment","path":"a"}"#,
    r#"{"type":"increment","path":"a","by":null}"#,
    r#"{"type":"increment","path":"a","by":1.0}"#,
    r#"{"type":"increment","path":"a","by":"1"}"#,
    r#"{"type":"increment","path":"a","by":9223372036854775808}"#,
    r#"{"type":"decrement","path":"a","by":-9223372036854775809}"#,
    r#"{"type":"decrement","path":["a"],"by":1}"#,
    r#"{"type":"remove","path":["a"]}"#,
    r#"["remove","a"]"#,
];

const NOT_OPS: [&str; 6] = [
    "null",
    "{}",
    r#""set""#,
    "7",
    "true",
    r#"{"type":"set","path":"a","value":1}"#,
];

/// Levels of a value that is not made to be deep.
const USUAL_LEVELS: usize = 3;

struct Maker {
    random: Random,
    text: String,
}

impl Maker {
    fn script(&mut self) -> Script {
        let old = (!self.random.one_in(7)).then(|| {
            self.stored();
            std::mem::take(&mut self.text)
        });
        self.ops();
        Script {
            old,
            ops: std::mem::take(&mut self.text),
        }
    }

    /// The stored value: mostly an object, as in life.
    fn stored(&mut self) {
        match self.random.below(40) {
            0..28 => {
                let members = self.random.below(6);
                self.object(members, USUAL_LEVELS);
            }
            28..36 => self.value(USUAL_LEVELS),
            36 => self.push("null"),
            37 => {
                let levels = self
                    .random
                    .between(VALUE_DEPTH_MAX - 2, VALUE_DEPTH_MAX + 4);
                self.nested(levels);
            }
            38 => self.push(r#"{"a":1,"a":[],"b":{"a":1,"a":2},"a":"last"}"#),
            _ => {
                self.push_one_of(&UNSTORABLE);
            }
        }
    }

    fn ops(&mut self) {
        match self.random.below(2_000) {
            0 => {
                let count = self.random.between(OPS_MAX - 1, OPS_MAX + 1);
                let op = self
                    .random
                    .pick(&[r#"{"type":"remove"}"#, r#"{"type":"increment","by":1}"#]);
                self.list(count, |maker| maker.text.push_str(op));
            }
            1..20 => {
                self.push_one_of(&NOT_OPS);
            }
            _ => {
                let count = self.random.below(7);
                self.list(count, Self::op);
            }
        }
    }

    fn op(&mut self) {
        if self.random.one_in(80) {
            return self.push_one_of(&MALFORMED_OPS);
        }
        // A type, a path and an operand in any order, sometimes with a field that means nothing.
        let kind = self.random.pick(&[
            "set",
            "merge",
            "append",
            "append",
            "increment",
            "decrement",
            "remove",
        ]);
        let mut fields = vec!["type", "path"];
        match kind {
            "increment" | "decrement" => fields.push("by"),
            "remove" => {}
            _ => fields.push("value"),
        }
        if self.random.one_in(9) {
            fields.push("note");
        }
        let first = self.random.below(fields.len());
        fields.rotate_left(first);

        self.text.push('{');
        let empty_length = self.text.len();
        for field in fields {
            let start = self.text.len();
            if start != empty_length {
                self.text.push(',');
            }
            write!(self.text, "\"{field}\":").expect("a string takes any text");
            match field {
                "type" => write!(self.text, "\"{kind}\"").expect("a string takes any text"),
                "path" if self.random.one_in(12) => self.text.truncate(start),
                "path" => self.path(matches!(kind, "merge" | "append")),
                "by" => self.by(),
                "value" if kind == "merge" => self.merge_value(),
                "value" if kind == "set" && self.random.one_in(20) => self.text.truncate(start),
                _ => self.operand(),
            }
        }
        self.text.push('}');
    }

    fn path(&mut self, arrays: bool) {
        if !arrays || self.random.one_in(3) {
            return match self.random.below(12) {
                0 => self.push("null"),
                1 | 2 => self.push(r#""""#),
                _ => self.key(),
            };
        }
        let segments = match self.random.below(30) {
            0 => self
                .random
                .between(PATH_SEGMENTS_MAX - 1, PATH_SEGMENTS_MAX + 2),
            1 => 0,
            _ => self.random.between(1, 4),
        };
        self.list(segments, Self::key);
    }

    /// A key or path segment.
    fn key(&mut self) {
        if !self.random.one_in(60) {
            return self.push_one_of(&KEYS);
        }
        let unit = self.random.pick(&["x", "é", "語", "😀"]);
        let bytes = self
            .random
            .between(PATH_SEGMENT_BYTES_MAX - 4, PATH_SEGMENT_BYTES_MAX + 4);
        write!(self.text, "\"{}\"", unit.repeat(bytes / unit.len()))
            .expect("a string takes any text");
    }

    fn by(&mut self) {
        if self.random.one_in(3) {
            let by = self.random.bits() as i64 >> self.random.below(64);
            write!(self.text, "{by}").expect("a string takes any text");
        } else {
            self.push_one_of(&BYS);
        }
    }

    fn merge_value(&mut self) {
        match self.random.below(120) {
            0..6 => self.value(2),
            6..10 => {
                let levels = self
                    .random
                    .between(MERGE_VALUE_DEPTH_MAX - 1, MERGE_VALUE_DEPTH_MAX + 2);
                self.nested(levels);
            }
            10 => {
                let keys = self
                    .random
                    .between(MERGE_VALUE_KEYS_MAX - 1, MERGE_VALUE_KEYS_MAX + 2);
                self.text.push('{');
                for key in 0..keys {
                    let comma = if key == 0 { "" } else { "," };
                    write!(self.text, r#"{comma}"k{key}":{key}"#).expect("a string takes any text");
                }
                self.text.push('}');
            }
            _ => {
                let members = self.random.below(5);
                self.object(members, 2);
            }
        }
    }

    /// The value of `set` and `append`.
    fn operand(&mut self) {
        match self.random.below(200) {
            0 => {
                self.push_one_of(&UNSTORABLE);
            }
            1..4 => {
                let levels = self
                    .random
                    .between(VALUE_DEPTH_MAX - 4, VALUE_DEPTH_MAX + 3);
                self.nested(levels);
            }
            _ => self.value(USUAL_LEVELS),
        }
    }

    fn value(&mut self, levels: usize) {
        match self.random.below(if levels == 0 { 7 } else { 10 }) {
            0 => self.push("null"),
            1 => {
                self.push_one_of(&["true", "false"]);
            }
            2..5 => self.number(),
            5 | 6 => {
                self.push_one_of(&STRINGS);
            }
            7 => {
                let count = self.random.below(4);
                self.list(count, |maker| maker.value(levels - 1));
            }
            _ => {
                let members = self.random.below(4);
                self.object(members, levels);
            }
        }
    }

    fn number(&mut self) {
        match self.random.below(8) {
            0 => {
                let number = self.random.bits() as i64 >> self.random.below(64);
                write!(self.text, "{number}").expect("a string takes any text");
            }
            1 => {
                let number = self.random.bits();
                write!(self.text, "{number}").expect("a string takes any text");
            }
            2 => {
                let number = f64::from_bits(self.random.bits());
                if number.is_finite() {
                    write!(self.text, "{number:e}").expect("a string takes any text");
                } else {
                    self.push("0.5");
                }
            }
            _ => {
                self.push_one_of(&NUMBERS);
            }
        }
    }

    fn object(&mut self, members: usize, levels: usize) {
        self.text.push('{');
        for member in 0..members {
            if member != 0 {
                self.text.push(',');
            }
            self.key();
            self.text.push(':');
            if self.random.one_in(30) {
                self.text.push_str(" \n\t");
            }
            self.value(levels.saturating_sub(1));
        }
        self.text.push('}');
    }

    /// `levels` arrays and objects inside each other.
    fn nested(&mut self, levels: usize) {
        let mut closing = String::with_capacity(levels);
        for level in 0..levels {
            // The outermost is an object, so that the value may be merged, or reached by a path.
            if level == 0 || self.random.one_in(2) {
                self.text.push_str(r#"{"a":"#);
                closing.insert(0, '}');
            } else {
                self.text.push('[');
                closing.insert(0, ']');
            }
        }
        self.number();
        self.push(&closing);
    }

    fn list(&mut self, count: usize, mut element: impl FnMut(&mut Self)) {
        self.text.push('[');
        for index in 0..count {
            if index != 0 {
                self.text.push(',');
            }
            element(self);
        }
        self.text.push(']');
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn push_one_of(&mut self, texts: &[&str]) {
        self.text.push_str(texts[self.random.below(texts.len())]);
    }
}
