//! Reads a log without opening it: nothing is changed, and what is good before damage can be read.

use std::sync::Arc;

use super::super::Disk;
use super::error::LogError;
use super::format::StoreId;
use super::open::Opened;
use super::recover::scan_as_far;
use super::space::Shared;
use super::{LogOptions, LogReader, OnRecord};

/// A log as it is.
pub struct Looked {
    /// Reads the records that were handed over.
    pub reader: LogReader,
    /// What was found, up to the damage if there is any.
    pub opened: Opened,
    /// The lsn after the last good batch.
    pub end_lsn: u64,
    /// The segment that has it.
    pub end_segment: u64,
    /// Why it could not be read to its end.
    pub damage: Option<LogError>,
}

/// Hands over all records from `start_lsn` on, in order, up to the end or to the first damage.
pub fn look(
    disk: &Arc<dyn Disk>,
    store_id: StoreId,
    start_lsn: u64,
    start_segment: u64,
    on_record: &mut OnRecord<'_>,
) -> Looked {
    let (scanned, error) = scan_as_far(&**disk, &store_id, start_lsn, start_segment, on_record);
    // Nothing is written, so neither sizes nor spares matter.
    let shared = Shared::new(disk.clone(), store_id, LogOptions::default(), 1);
    shared
        .segments
        .write()
        .extend(scanned.segments.into_values());
    Looked {
        reader: LogReader(Arc::new(shared)),
        opened: scanned.opened,
        end_lsn: scanned.end.lsn,
        end_segment: scanned.end.segment,
        damage: error.map(|error| *error.error),
    }
}
