//! Which stream and group a name stands for that an iii engine has joined with colons. Knows no files and no keys.

use std::sync::Arc;

use iii_stream_core::is_name;
use iii_stream_core::limits::NAME_BYTES_MAX;

/// How names are understood where there is a choice.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    /// All names are scopes of the state, also those that begin with `stream:`.
    pub is_state: bool,
    /// Streams that are known to be there; only those with a colon in their name matter. The longest one that fits is it.
    pub streams: Vec<String>,
}

/// What a joined name was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The stream's name.
    pub stream: Arc<str>,
    /// The group's id.
    pub group: Arc<str>,
    /// Another stream and group would have the same joined name, and nobody said which it is.
    pub is_ambiguous: bool,
}

impl Naming {
    /// Splits `<stream>:<group>`; `None` where there is no colon.
    ///
    /// Errors: what is wrong with one of the names, in words.
    pub fn split(&self, joined: &str) -> Option<Result<Split, String>> {
        let known = self
            .streams
            .iter()
            .filter_map(|stream| {
                Some((
                    stream.as_str(),
                    joined.strip_prefix(stream)?.strip_prefix(':')?,
                ))
            })
            .max_by_key(|(stream, _)| stream.len());
        let (stream, group) = known.or_else(|| joined.split_once(':'))?;
        let checked =
            named("the stream's name", stream).and_then(|()| named("the group's id", group));
        Some(checked.map(|()| Split {
            stream: stream.into(),
            group: group.into(),
            is_ambiguous: known.is_none() && group.contains(':'),
        }))
    }
}

/// Whether a name is within its bounds.
///
/// Errors: what is wrong with it, in words.
pub fn named(what: &str, name: &str) -> Result<(), String> {
    if is_name(name) {
        return Ok(());
    }
    let bytes = name.len();
    Err(format!(
        "{what} has {bytes} bytes, allowed are 1 to {NAME_BYTES_MAX}"
    ))
}
