//! Where in an item an operation works: checked segments. Knows no values and no operations' effects.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::error::OpErrorKind;
use crate::fields::string_of;
use crate::limits::{PATH_SEGMENT_BYTES_MAX, PATH_SEGMENTS_MAX, PROTO_KEYS};
use crate::op_name::OpName;
use crate::raw::{Raw, members};

/// A checked path: no segments is the root.
///
/// Shape on the wire: a string is one segment, an array is one segment per element; absent, `null`, `""` and
/// `[]` are the root. Dots and slashes have no meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) segments: Vec<String>,
}

/// A path that the wire shape allows but the limits may not.
pub(crate) struct UncheckedPath {
    /// The first segments, at most one more than allowed.
    segments: Vec<String>,
    /// How many there were.
    count: usize,
    is_array: bool,
}

impl UncheckedPath {
    /// Reads the wire shape; `arrays` says whether this operation takes array paths.
    ///
    /// Errors: what the path must be instead.
    pub(crate) fn read(raw: Option<Raw<'_>>, arrays: bool) -> Result<Self, &'static str> {
        let Some(raw) = raw else {
            return Ok(Self {
                segments: Vec::new(),
                count: 0,
                is_array: false,
            });
        };
        if let Some(text) = string_of(raw) {
            let segments: Vec<String> = (!text.is_empty())
                .then(|| text.into_owned())
                .into_iter()
                .collect();
            return Ok(Self {
                count: segments.len(),
                segments,
                is_array: false,
            });
        }
        if arrays {
            if let Some((segments, count)) = read_segments(raw.get()) {
                return Ok(Self {
                    segments,
                    count,
                    is_array: true,
                });
            }
            return Err("a string, an array of strings, or absent");
        }
        Err("a string or absent")
    }

    /// Checks the limits: depth first, then segment by segment.
    ///
    /// Errors: `<op>.path.…`. Source: update operations, section 4.
    pub(crate) fn check(self, op: OpName) -> Result<Path, OpErrorKind> {
        if PATH_SEGMENTS_MAX < self.count {
            return Err(OpErrorKind::PathTooDeep {
                op,
                segments: self.count,
            });
        }
        for segment in &self.segments {
            if segment.is_empty() && self.is_array {
                return Err(OpErrorKind::EmptySegment { op });
            }
            if PATH_SEGMENT_BYTES_MAX < segment.len() {
                return Err(OpErrorKind::SegmentTooLong {
                    op,
                    bytes: segment.len(),
                });
            }
            if PROTO_KEYS.contains(&segment.as_str()) {
                return Err(OpErrorKind::SegmentProtoPolluted {
                    op,
                    segment: segment.clone(),
                });
            }
        }
        Ok(Path {
            segments: self.segments,
        })
    }
}

impl fmt::Display for Path {
    /// Shows single segments as they are, longer paths as a bracketed list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.segments.as_slice() {
            [] => Ok(()),
            [segment] => f.write_str(segment),
            [first, rest @ ..] => {
                write!(f, "[{first}")?;
                rest.iter()
                    .try_for_each(|segment| write!(f, ", {segment}"))?;
                f.write_str("]")
            }
        }
    }
}

/// Counts the segments of an array and gives the first ones, so that a path of millions costs no memory. `None` for anything
/// but an array of strings.
fn read_segments(text: &str) -> Option<(Vec<String>, usize)> {
    let mut segments = Vec::new();
    let mut count = 0;
    for raw in text.starts_with('[').then(|| members(text))? {
        let segment = string_of(raw)?;
        count += 1;
        if count <= PATH_SEGMENTS_MAX {
            segments.push(segment.into_owned());
        }
    }
    Some((segments, count))
}
