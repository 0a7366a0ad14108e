//! Tests of the log, on the simulated disk.

mod crash;
mod damage;
mod rules;
mod writing;

use std::sync::Arc;

use super::super::disk::simulated::SimDisk;
use super::{Batch, Log, LogError, LogOptions, Opened, RecordAt, StoreId, WriteError};

const STORE: StoreId = *b"a store's own id";

/// A record that was read or written.
type Record = (RecordAt, Vec<u8>);

/// Segments of 8 KiB, 16 KiB, and so on: each has a header's block.
fn options() -> LogOptions {
    LogOptions {
        first_segment_bytes: 8 << 10,
        segment_bytes: 16 << 10,
        spares_max: 2,
        os: false,
    }
}

fn create(disk: &SimDisk) -> Log {
    Log::create(Arc::new(disk.clone()), STORE, options()).expect("an empty disk")
}

fn open_from(
    disk: &SimDisk,
    (start_segment, start_lsn): (u64, u64),
) -> Result<(Log, Opened, Vec<Record>), LogError> {
    let mut records = Vec::new();
    let (log, opened) = Log::open(
        Arc::new(disk.clone()),
        STORE,
        start_lsn,
        start_segment,
        options(),
        &mut |at, record| {
            records.push((at, record.to_vec()));
            Ok(())
        },
    )?;
    Ok((log, opened, records))
}

fn open(disk: &SimDisk) -> Result<(Log, Opened, Vec<Record>), LogError> {
    open_from(disk, (Log::FIRST_SEGMENT, 0))
}

/// Writes one batch, not synced.
fn write(log: &mut Log, records: &[&[u8]]) -> Result<Vec<Record>, WriteError> {
    let mut batch = Batch::new(log.end_lsn());
    let written = records
        .iter()
        .map(|record| {
            let at = batch.push(|buffer| buffer.extend_from_slice(record));
            (at, record.to_vec())
        })
        .collect();
    log.write(&mut batch, 1_000)?;
    Ok(written)
}

/// Writes one batch and syncs it.
fn commit(log: &mut Log, records: &[&[u8]]) -> Vec<Record> {
    let written = write(log, records).expect("writes");
    log.sync().expect("syncs");
    written
}

/// Overwrites a part of a file, for good.
fn overwrite(disk: &SimDisk, name: &str, offset: u64, bytes: &[u8]) {
    use super::super::{Disk as _, write_all_at};
    let file = disk.open(name).expect("the file");
    write_all_at(&*file, bytes, offset).expect("writes");
    file.sync().expect("syncs");
}

/// Cuts a file off, for good.
fn truncate(disk: &SimDisk, name: &str, bytes: u64) {
    use super::super::Disk as _;
    let file = disk.open(name).expect("the file");
    file.set_len(bytes).expect("cuts");
    file.sync().expect("syncs");
}
