//! The store that keeps groups in a directory: acknowledged is durable. See `docs/decisions/0017-durable-store.md`.

mod disk;
pub mod log;

pub use disk::{Disk, DiskFile, RealDisk, read_exact_at, write_all_at};
