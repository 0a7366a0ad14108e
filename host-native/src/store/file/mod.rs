//! The store that keeps groups in a directory: acknowledged is durable. See `docs/decisions/0017-durable-store.md`.

mod disk;
mod extent;
mod format_mark;
pub mod log;
mod manifest;
mod names;
mod space;
mod stream_file;
#[cfg(test)]
mod test_random;

pub use disk::{Disk, DiskFile, RealDisk, read_exact_at, write_all_at};
pub use extent::{EXTENT_PARTS_MAX, Extent};
pub use manifest::{
    Contents, Cut, Durability, Edit, GroupKept, LastOpened, LogStart, Manifest, ManifestError,
};
pub use names::{is_stream_file_name, stream_file_name};
pub use stream_file::{ExtentContent, StreamFile, StreamFileError, StreamReader};
