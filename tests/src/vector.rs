//! The vector files: one request and its outcome a line, as said in section 8 of the rules for update operations.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The files whose requests are applied.
pub const APPLIED_FILES: [&str; 2] = ["update-ops.jsonl", "update-ops-added.jsonl"];

/// The files whose requests are refused as a whole.
pub const REFUSED_FILES: [&str; 2] = [
    "update-ops-rejected.jsonl",
    "update-ops-added-rejected.jsonl",
];

/// What a refused request finds, and must leave behind.
pub const REFUSED_ITEM: &str = r#"{"a":5}"#;

/// A request that is applied, perhaps in part.
#[derive(Debug, Deserialize)]
pub struct Applied {
    /// Names the case, for people.
    pub name: String,
    /// The stored value as JSON text, or `None` where the item is missing.
    #[serde(default, deserialize_with = "present")]
    pub old: Option<Box<RawValue>>,
    /// The ops as JSON text.
    pub ops: Box<RawValue>,
    /// The value that must be stored afterwards.
    pub new: Value,
    /// The errors that must be reported, in this order.
    pub errors: Vec<ExpectedError>,
}

/// Where and why an op failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExpectedError {
    /// Position of the op in the request, from 0.
    pub op_index: usize,
    /// The stable code.
    pub code: String,
}

/// A request that is refused as a whole.
#[derive(Debug, Deserialize)]
pub struct Refused {
    /// Names the case, for people.
    pub name: String,
    /// The ops as JSON text.
    pub ops: Box<RawValue>,
    /// The code of the refusal.
    pub code: String,
    /// Whether the product document accepts what the reference engine refuses; we follow the document.
    #[serde(default)]
    pub document_accepts: bool,
}

/// What came of a request, whoever ran it.
#[derive(Debug)]
pub enum Outcome {
    /// The ops ran; some may have failed.
    Applied {
        /// The new value.
        value: Value,
        /// The ops that failed.
        errors: Vec<ExpectedError>,
    },
    /// The whole request was refused with this code.
    Refused {
        /// The stable code.
        code: String,
    },
}

impl Applied {
    /// Says how `outcome` differs from what the vector asks for.
    ///
    /// Values are compared as JSON: key order does not count, integers are equal as integers and floats as doubles,
    /// so `1` and `1.0` differ.
    ///
    /// # Errors
    /// A text for people that names the vector.
    pub fn check(&self, outcome: &Outcome) -> Result<(), String> {
        match outcome {
            Outcome::Applied { value, errors } if *value == self.new && *errors == self.errors => {
                Ok(())
            }
            other => Err(format!(
                "{}: wanted {} with {:?}, got {other:?}",
                self.name, self.new, self.errors
            )),
        }
    }
}

impl Refused {
    /// Says how `outcome` differs from what the vector asks for.
    ///
    /// # Errors
    /// A text for people that names the vector.
    pub fn check(&self, outcome: &Outcome) -> Result<(), String> {
        match outcome {
            Outcome::Applied { .. } if self.document_accepts => Ok(()),
            Outcome::Refused { code } if !self.document_accepts && *code == self.code => Ok(()),
            other => Err(format!(
                "{}: wanted {}, got {other:?}",
                self.name,
                if self.document_accepts {
                    "an accepted request"
                } else {
                    &self.code
                }
            )),
        }
    }
}

/// The vectors of the given file of [`APPLIED_FILES`].
pub fn applied(file: &str) -> Vec<Applied> {
    lines(file)
}

/// The vectors of the given file of [`REFUSED_FILES`].
pub fn refused(file: &str) -> Vec<Refused> {
    lines(file)
}

/// Every vector of every file of [`APPLIED_FILES`].
pub fn all_applied() -> Vec<Applied> {
    APPLIED_FILES.into_iter().flat_map(applied).collect()
}

/// Every vector of every file of [`REFUSED_FILES`].
pub fn all_refused() -> Vec<Refused> {
    REFUSED_FILES.into_iter().flat_map(refused).collect()
}

fn lines<V: for<'de> Deserialize<'de>>(file: &str) -> Vec<V> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(file);
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{file}:{}: {error}", index + 1))
        })
        .collect()
}

/// Reads `null` as a present value: `Option` alone would make it the same as an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}
