//! What a group's hash holds beside values: the group's meta and the heads of items, as the scripts write them.

use std::sync::Arc;

use iii_stream_core::{Item, Json};

use crate::store::{StoreError, StoreErrorCause};

/// What is known of a group as a whole. Its field is `m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) epoch: Arc<str>,
    /// Which history of the server the epoch belongs to.
    pub(super) replication_id: Arc<str>,
    pub(super) seq: u64,
    pub(super) event_ms: u64,
    pub(super) sync_ms: u64,
    pub(super) items: u64,
    /// The sequence of the oldest change in the history; the one after the last where there is none.
    pub(super) first: u64,
}

impl Meta {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let read = || {
            let ([seq, event_ms, _, sync_ms, items, _, _, _, first, ..], names) =
                numbers::<12>(bytes)?;
            let (epoch, replication_id) = std::str::from_utf8(names).ok()?.split_once(' ')?;
            Some(Self {
                epoch: epoch.into(),
                replication_id: replication_id.into(),
                seq: seq?,
                event_ms: event_ms?,
                sync_ms: sync_ms?,
                items: items?,
                first: first?,
            })
        };
        read().ok_or_else(|| damaged("the field `m` of a group"))
    }

    /// The latest timestamp that was given out.
    pub(super) fn latest_ms(&self) -> u64 {
        self.event_ms.max(self.sync_ms)
    }
}

/// What is known of an item beside its value. Its field is `h` and the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) created_seq: u64,
    pub(super) timestamp: u64,
    /// The last change that the item's subscribers have seen.
    pub(super) heard_seq: u64,
    pub(super) ttl_ms: Option<u64>,
    pub(super) expires_ms: Option<u64>,
}

impl Head {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let read = || {
            let (
                [
                    seq,
                    created_seq,
                    timestamp,
                    _,
                    heard_seq,
                    ttl_ms,
                    expires_ms,
                    ..,
                ],
                rest,
            ) = numbers::<10>(bytes)?;
            rest.is_empty().then_some(Self {
                seq: seq?,
                created_seq: created_seq?,
                timestamp: timestamp?,
                heard_seq: heard_seq?,
                ttl_ms,
                expires_ms,
            })
        };
        read().ok_or_else(|| damaged("the head of an item"))
    }

    pub(super) fn with_value(&self, value: &[u8]) -> Result<Item, StoreError> {
        Ok(Item {
            value: value_of(value)?,
            seq: self.seq,
            created_seq: self.created_seq,
            timestamp: self.timestamp,
            ttl_ms: self.ttl_ms,
            expires_ms: self.expires_ms,
        })
    }
}

/// The first numbers of some bytes, and the rest. Scripts write them as they are in Lua; -1 is none.
fn numbers<const N: usize>(bytes: &[u8]) -> Option<([Option<u64>; N], &[u8])> {
    let mut rest = bytes;
    let mut numbers = [None; N];
    for number in &mut numbers {
        let (first, after) = rest.split_first_chunk()?;
        rest = after;
        let written = f64::from_be_bytes(*first);
        if written != -1.0 {
            // Whole numbers below 2^53 are exact.
            let is_whole =
                (0.0..9_007_199_254_740_992.0).contains(&written) && written.fract() == 0.0;
            *number = Some(is_whole.then_some(written as u64)?);
        }
    }
    Some((numbers, rest))
}

/// A value, as the field `v` and the id holds it. No checksum vouches for it, so it is checked again.
pub(super) fn value_of(text: &[u8]) -> Result<Json, StoreError> {
    let text = std::str::from_utf8(text).ok();
    let json = text.and_then(|text| Json::from_text(text).ok());
    json.ok_or_else(|| damaged("the value of an item"))
}

/// What is in Redis is not what was written.
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::new(
        StoreErrorCause::Damaged,
        format!("{what} in Redis cannot be read: something else writes there"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(numbers: &[f64], names: &str) -> Vec<u8> {
        let mut bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        bytes.extend_from_slice(names.as_bytes());
        bytes
    }

    #[test]
    fn what_a_script_writes_is_read() {
        let numbers = [
            7.0, 100.0, 90.0, 80.0, 2.0, 30.0, 5.0, 4.0, 6.0, 0.0, 320.0, 0.0,
        ];
        let meta = Meta::read(&written(&numbers, "e1 r1")).expect("meta");
        assert_eq!((&*meta.epoch, &*meta.replication_id), ("e1", "r1"));
        assert_eq!((meta.seq, meta.first), (7, 6));
        assert_eq!((meta.latest_ms(), meta.items), (100, 2));
        let head = written(
            &[7.0, 5.0, 100.0, 101.0, 8.0, -1.0, -1.0, 12.0, 7.0, 0.0],
            "",
        );
        let head = Head::read(&head).expect("a head");
        assert_eq!((head.seq, head.created_seq, head.heard_seq), (7, 5, 8));
        assert_eq!((head.ttl_ms, head.expires_ms), (None, None));
        let head = written(
            &[7.0, 5.0, 100.0, 101.0, 8.0, 50.0, 150.0, 12.0, 5.0, 90.0],
            "",
        );
        let head = Head::read(&head).expect("a head");
        assert_eq!((head.ttl_ms, head.expires_ms), (Some(50), Some(150)));
    }

    #[test]
    fn what_nobody_wrote_is_damage() {
        let wrong = [
            Vec::new(),
            b"e1 r1".to_vec(),
            written(&[7.0; 12], "e1"),
            written(&[-1.0; 12], "e1 r1"),
            written(&[0.5; 10], ""),
            written(&[-1.0; 10], ""),
        ];
        for bytes in wrong {
            let causes = [
                Meta::read(&bytes).map(|_| ()),
                Head::read(&bytes).map(|_| ()),
            ];
            for result in causes {
                assert_eq!(
                    result.map_err(|error| error.cause),
                    Err(StoreErrorCause::Damaged)
                );
            }
        }
        assert!(value_of(b"{").is_err());
    }
}
