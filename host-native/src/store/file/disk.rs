//! The only door to the disk: what the durable store asks of files. Knows no formats.
//!
//! Names have one part and are made by this crate, so nothing outside the directory can be reached. The tests put a
//! simulated disk behind the same door.

mod real;
#[cfg(test)]
pub(crate) mod simulated;

use std::io::{self, ErrorKind};
use std::sync::Arc;

pub use real::RealDisk;

/// A directory of files.
pub trait Disk: Send + Sync {
    /// Opens a file that is there, for reading and writing.
    ///
    /// Errors: what the system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a file that is not there. It stays after a power cut once the directory was synced.
    ///
    /// Errors: what the system says; `AlreadyExists`.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, replacing the file that had it. Lasting once the directory was synced.
    ///
    /// Errors: what the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a file away. Lasting once the directory was synced.
    ///
    /// Errors: what the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, in no order.
    ///
    /// Errors: what the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes lasting what files there are and what they are called.
    ///
    /// Errors: what the system says.
    fn sync_names(&self) -> io::Result<()>;

    /// How to name a file to people.
    fn path_of(&self, name: &str) -> String;
}

/// A file that can be read and written anywhere, by several at once.
pub trait DiskFile: Send + Sync {
    /// Reads as many bytes as there are, at most as many as fit; 0 at the end.
    ///
    /// Errors: what the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of the bytes, and says how many.
    ///
    /// Errors: what the system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes lasting what was written so far, and the length.
    ///
    /// Errors: what the system says. After one nothing is known of what was written since the last success.
    fn sync(&self) -> io::Result<()>;

    /// The length of the file in bytes.
    ///
    /// Errors: what the system says.
    fn size(&self) -> io::Result<u64>;

    /// Cuts the file off, or lengthens it with zeros.
    ///
    /// Errors: what the system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}

/// Reads until the buffer is full.
///
/// Errors: `UnexpectedEof` where the file ends before.
pub fn read_exact_at(
    file: &dyn DiskFile,
    mut buffer: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of the bytes.
///
/// Errors: what the system says; `WriteZero` where a write takes nothing.
pub fn write_all_at(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
