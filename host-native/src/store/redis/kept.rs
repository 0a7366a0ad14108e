//! What a group's hash holds beside values: the group's meta and the heads of items, as text that the scripts write.

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
    pub(super) fn read(text: &[u8]) -> Result<Self, StoreError> {
        let read = || {
            let mut fields = std::str::from_utf8(text).ok()?.split(' ');
            let (epoch, replication_id) = (fields.next()?.into(), fields.next()?.into());
            let mut numbers = [0; 12];
            for number in &mut numbers {
                *number = fields.next()?.parse().ok()?;
            }
            let [seq, event_ms, _, sync_ms, items, _, _, _, first, ..] = numbers;
            fields.next().is_none().then_some(Self {
                epoch,
                replication_id,
                seq,
                event_ms,
                sync_ms,
                items,
                first,
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
    pub(super) fn read(text: &[u8]) -> Result<Self, StoreError> {
        let read = || {
            let mut fields = std::str::from_utf8(text).ok()?.split(' ');
            let mut number = || match fields.next()? {
                "-" => Some(None),
                field => field.parse::<u64>().ok().map(Some),
            };
            let (seq, created_seq, timestamp) = (number()??, number()??, number()??);
            let (_heard_ms, heard_seq) = (number()??, number()??);
            let (ttl_ms, expires_ms, _bytes) = (number()?, number()?, number()??);
            fields.next().is_none().then_some(Self {
                seq,
                created_seq,
                timestamp,
                heard_seq,
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

    #[test]
    fn what_a_script_writes_is_read() {
        let meta = Meta::read(b"e1 r1 7 100 90 80 2 30 5 4 6 0 320 0").expect("meta");
        assert_eq!((&*meta.epoch, meta.seq, meta.first), ("e1", 7, 6));
        assert_eq!((meta.latest_ms(), meta.items), (100, 2));
        let head = Head::read(b"7 5 100 101 8 - - 12").expect("a head");
        assert_eq!((head.seq, head.created_seq, head.heard_seq), (7, 5, 8));
        assert_eq!((head.ttl_ms, head.expires_ms), (None, None));
        let head = Head::read(b"7 5 100 101 8 50 150 12").expect("a head");
        assert_eq!((head.ttl_ms, head.expires_ms), (Some(50), Some(150)));
    }

    #[test]
    fn what_nobody_wrote_is_damage() {
        for text in [
            "",
            "e1",
            "e1 r1 7 100 90 80 2 30 5 4 6 0 320",
            "7 5 - - 8 - - 12",
        ] {
            let causes = [
                Meta::read(text.as_bytes()).map(|_| ()),
                Head::read(text.as_bytes()).map(|_| ()),
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
