//! A place in a group's history that a subscriber can come back to. Knows no changes.

use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

/// A place in one unbroken history. Shape as text: `EPOCH:SEQ`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Names the history: `[a-z0-9]+`, made by the host, another one whenever a sequence could be issued twice.
    pub epoch: Arc<str>,
    /// The last change that was seen; 0 is the beginning.
    pub seq: u64,
}

/// Why text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a position looks like `k3:57`: an epoch of a-z and 0-9, a colon, and a sequence")]
pub struct PositionError;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, seq) = text.split_once(':').ok_or(PositionError)?;
        let is_epoch = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        // `parse` takes a leading plus, which a position has not.
        if epoch.is_empty() || !epoch.bytes().all(is_epoch) || seq.starts_with('+') {
            return Err(PositionError);
        }
        let seq = seq.parse().map_err(|_| PositionError)?;
        Ok(Self {
            epoch: epoch.into(),
            seq,
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let position: Position = "k3:57".parse().expect("a position");
        assert_eq!((position.epoch.as_ref(), position.seq), ("k3", 57));
        assert_eq!(position.to_string(), "k3:57");
        for text in [
            "",
            "k3",
            ":57",
            "k3:",
            "K3:57",
            "k3:-1",
            "k3:+1",
            "k3:1.0",
            "k3:18446744073709551616",
        ] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
    }
}
