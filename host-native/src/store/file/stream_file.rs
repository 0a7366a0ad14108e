//! One stream's file: a header, and extents wherever there is space. Which of them are live is told from outside.
//!
//! Shape of the header, 4096 bytes, little-endian: a mark (`iiistrea` and the version), the store's id (16 bytes), the
//! length of the stream's name (u16), the name, zeros, and the CRC-32 of all before. Extents follow: see `extent.rs`.

mod error;
#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::ops;
use std::sync::Arc;

use super::disk::{Disk, DiskFile, read_exact_at, write_all_at};
use super::extent::{ALIGNMENT_BYTES, EXTENT_PARTS_MAX, Extent, HEAD_BYTES_MAX, Head};
use super::format_mark::{self, MARK_BYTES, Mark};
use super::names::stream_file_name;
use super::space::{BadRange, Space};

pub use error::StreamFileError;

/// The version of the format that is written.
const VERSION: u32 = 1;

const KIND: [u8; 8] = *b"iiistrea";

const HEADER_BYTES: u64 = 4096;

/// Where the stream's name begins.
const NAME_AT: usize = MARK_BYTES + 16 + 2;

/// Where the header's checksum is.
const CHECK_AT: usize = HEADER_BYTES as usize - 4;

/// The longest name that the header has room for.
const NAME_BYTES_MAX: usize = 1024;

/// Extents of up to so many bytes are copied together and written at once.
const COPIED_BYTES_MAX: u64 = 256 << 10;

/// Free space at the end is cut off once it is more than this, and than a quarter of the file.
const SHRINK_BYTES_MIN: u64 = 1 << 20;

/// A stream's file, for the one who writes it.
pub struct StreamFile {
    reader: StreamReader,
    space: Space,
}

/// Reads extents of a stream's file, also while it is written. Cheap to clone.
#[derive(Clone)]
pub struct StreamReader {
    file: Arc<dyn DiskFile>,
    path: Arc<str>,
}

/// What an extent holds.
#[derive(Debug)]
pub struct ExtentContent {
    /// As told when it was written.
    pub kind: u8,
    bytes: Vec<u8>,
    parts: Vec<ops::Range<usize>>,
}

impl ExtentContent {
    /// How many parts there are.
    pub fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// One part, if there are so many.
    pub fn part(&self, index: usize) -> Option<&[u8]> {
        Some(&self.bytes[self.parts.get(index)?.clone()])
    }
}

impl StreamFile {
    /// Makes the file of a stream of which nothing is live. One that is left from a fold that came to nothing is
    /// replaced. The file stays after a power cut once the caller has synced the directory.
    ///
    /// Errors: the file is another store's or another stream's, is damaged, or of a newer version; what the system says.
    pub fn create(
        disk: &dyn Disk,
        store_id: [u8; 16],
        stream: &str,
    ) -> Result<Self, StreamFileError> {
        let name = stream_file_name(stream);
        let path: Arc<str> = disk.path_of(&name).into();
        if stream.len() > NAME_BYTES_MAX {
            return Err(StreamFileError::NameTooLong {
                path: path.to_string(),
                bytes: stream.len(),
                bytes_max: NAME_BYTES_MAX,
            });
        }
        let failed = |doing, source| StreamFileError::io(&path, doing, source);
        let file = match disk.create(&name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let old = disk.open(&name).map_err(|e| failed("open", e))?;
                let size = old.size().map_err(|e| failed("measure", e))?;
                match check_header(&*old, &path, store_id, stream) {
                    // No extent is written before the header is safe, so nothing is lost with a shorter file.
                    Err(
                        StreamFileError::NotAStreamFile { .. }
                        | StreamFileError::DamagedHeader { .. },
                    ) if size <= HEADER_BYTES => {}
                    checked => checked?,
                }
                drop(old);
                disk.remove(&name).map_err(|e| failed("replace", e))?;
                disk.create(&name)
            }
            created => created,
        };
        let file = file.map_err(|e| failed("create", e))?;
        write_all_at(&*file, &header(store_id, stream), 0).map_err(|e| failed("write", e))?;
        file.sync().map_err(|e| failed("sync", e))?;
        Ok(Self {
            reader: StreamReader {
                file,
                path: path.clone(),
            },
            // Nothing is live in it, so nothing can overlap.
            space: Space::new(HEADER_BYTES, HEADER_BYTES, Vec::new())
                .map_err(|bad| StreamFileError::of_bad_range(&path, bad))?,
        })
    }

    /// Writes the header of a stream's file anew, which follows from its name, and makes it lasting.
    ///
    /// Errors: what the system says.
    pub fn restore_header(
        disk: &dyn Disk,
        store_id: [u8; 16],
        stream: &str,
    ) -> Result<(), StreamFileError> {
        let reader = StreamReader::open(disk, stream)?;
        let failed = |doing, source| StreamFileError::io(&reader.path, doing, source);
        write_all_at(&*reader.file, &header(store_id, stream), 0)
            .map_err(|e| failed("write", e))?;
        reader.file.sync().map_err(|e| failed("sync", e))
    }

    /// Opens the file of a stream. All but `live` is free for what is written next.
    ///
    /// Errors: the file is not there ([`StreamFileError::is_missing`]), is another store's or stream's, is damaged, or of
    /// a newer version; live extents overlap or reach out of the file; what the system says.
    pub fn open(
        disk: &dyn Disk,
        store_id: [u8; 16],
        stream: &str,
        live: impl Iterator<Item = Extent>,
    ) -> Result<Self, StreamFileError> {
        let name = stream_file_name(stream);
        let path: Arc<str> = disk.path_of(&name).into();
        let failed = |doing, source| StreamFileError::io(&path, doing, source);
        let file = disk.open(&name).map_err(|e| failed("open", e))?;
        check_header(&*file, &path, store_id, stream)?;
        let size = file.size().map_err(|e| failed("measure", e))?;
        let mut ranges = Vec::new();
        for extent in live {
            let Some(range) = extent.range() else {
                return Err(StreamFileError::outside(&path, extent.offset, extent.bytes));
            };
            ranges.push(range);
        }
        let space = Space::new(HEADER_BYTES, size.next_multiple_of(ALIGNMENT_BYTES), ranges)
            .map_err(|bad| StreamFileError::of_bad_range(&path, bad))?;
        Ok(Self {
            reader: StreamReader { file, path },
            space,
        })
    }

    /// Writes an extent into free space. It is lasting after the next [`StreamFile::sync`].
    ///
    /// Errors: more than [`EXTENT_PARTS_MAX`] parts; what the system says. The space is free again then, and the file as
    /// good as before, also where the disk is full ([`StreamFileError::is_disk_full`]).
    pub fn write(&mut self, kind: u8, parts: &[&[u8]]) -> Result<Extent, StreamFileError> {
        let path = &self.reader.path;
        if parts.len() > EXTENT_PARTS_MAX {
            return Err(StreamFileError::TooManyParts {
                path: path.to_string(),
                parts: parts.len(),
                parts_max: EXTENT_PARTS_MAX,
            });
        }
        let end_before = self.space.end();
        let head = Head::of(kind, parts);
        let full = || StreamFileError::io(path, "write", ErrorKind::FileTooLarge.into());
        let bytes = head.extent_bytes().ok_or_else(full)?;
        let mut extent = Extent {
            offset: 0,
            bytes,
            check: 0,
        };
        let mut range = extent.range().ok_or_else(full)?;
        range.offset = self.space.take(range.bytes).ok_or_else(full)?;
        extent.offset = range.offset;
        let (encoded, check) = head.encode(extent.offset);
        extent.check = check;
        match write_extent(&*self.reader.file, extent, encoded, parts) {
            Ok(()) => Ok(extent),
            Err(error) => {
                let given_back = self.space.give_back(range);
                debug_assert!(given_back, "it was taken");
                if self.space.end() > end_before {
                    self.space.cut(end_before);
                    // A full disk gets back what was written of it. If not, it is free space of the file.
                    let _ = self.reader.file.set_len(end_before);
                }
                Err(StreamFileError::io(path, "write", error))
            }
        }
    }

    /// Makes lasting what was written.
    ///
    /// Errors: what the system says. Then none of the extents that were written since the last success may be relied on.
    pub fn sync(&self) -> Result<(), StreamFileError> {
        let reader = &self.reader;
        reader
            .file
            .sync()
            .map_err(|error| StreamFileError::io(&reader.path, "sync", error))
    }

    /// Makes the space of extents free: the next write may take it. Those that were replaced are given back once the
    /// manifest that does not refer to them is lasting; those of a fold that failed, once it is sure that no manifest
    /// refers to them: see `Manifest::append`.
    pub fn release(&mut self, extents: impl IntoIterator<Item = Extent>) {
        for extent in extents {
            let range = extent.range();
            let given_back = range.is_some_and(|range| self.space.give_back(range));
            // Space that is not given back is free again after the next start; live space given out would be lost.
            debug_assert!(given_back, "{extent:?} was not live");
        }
    }

    /// Cuts free space off the end of the file if that is worth it, and says whether it was.
    ///
    /// Errors: what the system says. The file is as good as before.
    pub fn shrink(&mut self) -> Result<bool, StreamFileError> {
        let worth = SHRINK_BYTES_MIN.max(self.space.end() / 4);
        let Some(tail) = self.space.tail().filter(|tail| tail.bytes > worth) else {
            return Ok(false);
        };
        let reader = &self.reader;
        reader
            .file
            .set_len(tail.offset)
            .map_err(|error| StreamFileError::io(&reader.path, "shrink", error))?;
        self.space.cut(tail.offset);
        Ok(true)
    }

    /// Reads the file from anywhere.
    pub fn reader(&self) -> StreamReader {
        self.reader.clone()
    }

    /// How many bytes extents take that are live, or are written and not given back.
    pub fn live_bytes(&self) -> u64 {
        self.space.live_bytes()
    }

    /// How long the file is, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.space.end()
    }
}

impl StreamReader {
    /// Reads a file whatever its header says: extents are checked one by one.
    ///
    /// Errors: what the system says.
    pub fn open(disk: &dyn Disk, stream: &str) -> Result<Self, StreamFileError> {
        let name = stream_file_name(stream);
        let path: Arc<str> = disk.path_of(&name).into();
        match disk.open(&name) {
            Ok(file) => Ok(Self { file, path }),
            Err(error) => Err(StreamFileError::io(&path, "open", error)),
        }
    }

    /// The file, for people.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads an extent as a whole, and checks it.
    ///
    /// Errors: it is damaged, or was released and overwritten since `extent` was looked up; what the system says.
    pub fn read(&self, extent: Extent) -> Result<ExtentContent, StreamFileError> {
        let bytes = self.read_bytes(extent, 0, extent.bytes)?;
        let damaged = |what| StreamFileError::damaged(&self.path, extent, what);
        let head = Head::decode(extent, &bytes).map_err(damaged)?;
        let mut parts = Vec::with_capacity(head.parts.len());
        for (index, &(part_bytes, check)) in head.parts.iter().enumerate() {
            // The extent is in memory as a whole, and the head says that its parts fill it.
            let begin = head.part_begin(index) as usize;
            let part = begin..begin + part_bytes as usize;
            if crc32fast::hash(&bytes[part.clone()]) != check {
                return Err(damaged("the checksum of a part is wrong"));
            }
            parts.push(part);
        }
        Ok(ExtentContent {
            kind: head.kind,
            bytes,
            parts,
        })
    }

    /// Reads one part of an extent, and checks it: its kind, and the bytes.
    ///
    /// Errors: it has no such part; as [`StreamReader::read`].
    pub fn read_part(
        &self,
        extent: Extent,
        index: usize,
    ) -> Result<(u8, Vec<u8>), StreamFileError> {
        let head = self.read_bytes(extent, 0, extent.bytes.min(HEAD_BYTES_MAX as u64))?;
        let damaged = |what| StreamFileError::damaged(&self.path, extent, what);
        let head = Head::decode(extent, &head).map_err(damaged)?;
        let Some(&(part_bytes, check)) = head.parts.get(index) else {
            return Err(damaged("it has fewer parts"));
        };
        let part = self.read_bytes(extent, head.part_begin(index), part_bytes)?;
        if crc32fast::hash(&part) != check {
            return Err(damaged("the checksum of a part is wrong"));
        }
        Ok((head.kind, part))
    }

    fn read_bytes(
        &self,
        extent: Extent,
        begin: u64,
        bytes: u64,
    ) -> Result<Vec<u8>, StreamFileError> {
        let too_long = || StreamFileError::io(&self.path, "read", ErrorKind::OutOfMemory.into());
        let mut buffer = vec![0; usize::try_from(bytes).map_err(|_| too_long())?];
        let result = read_exact_at(&*self.file, &mut buffer, extent.offset + begin);
        match result {
            Ok(()) => Ok(buffer),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(
                StreamFileError::damaged(&self.path, extent, "the file ends before it does"),
            ),
            Err(error) => Err(StreamFileError::io(&self.path, "read", error)),
        }
    }
}

fn write_extent(
    file: &dyn DiskFile,
    extent: Extent,
    mut head: Vec<u8>,
    parts: &[&[u8]],
) -> io::Result<()> {
    if extent.bytes <= COPIED_BYTES_MAX {
        for part in parts {
            head.extend_from_slice(part);
        }
        return write_all_at(file, &head, extent.offset);
    }
    write_all_at(file, &head, extent.offset)?;
    let mut offset = extent.offset + head.len() as u64;
    for part in parts {
        write_all_at(file, part, offset)?;
        offset += part.len() as u64;
    }
    Ok(())
}

/// The name has been measured.
fn header(store_id: [u8; 16], stream: &str) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    header.extend_from_slice(&format_mark::encode(KIND, VERSION));
    header.extend_from_slice(&store_id);
    header.extend_from_slice(&(stream.len() as u16).to_le_bytes());
    header.extend_from_slice(stream.as_bytes());
    header.resize(CHECK_AT, 0);
    let check = crc32fast::hash(&header);
    header.extend_from_slice(&check.to_le_bytes());
    header
}

fn check_header(
    file: &dyn DiskFile,
    path: &str,
    store_id: [u8; 16],
    stream: &str,
) -> Result<(), StreamFileError> {
    let mut found = vec![0; HEADER_BYTES as usize];
    match read_exact_at(file, &mut found, 0) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
            return Err(StreamFileError::io(path, "read", error));
        }
        // What is missing stays zero, and is found out below.
        _ => {}
    }
    let path = || path.to_owned();
    match format_mark::decode(KIND, &found) {
        Mark::Version(VERSION) => {}
        Mark::Version(found) => {
            return Err(StreamFileError::OtherVersion {
                path: path(),
                found,
                known: VERSION,
            });
        }
        Mark::Unknown => return Err(StreamFileError::NotAStreamFile { path: path() }),
    }
    let name_bytes = usize::from(u16::from_le_bytes([found[NAME_AT - 2], found[NAME_AT - 1]]));
    let name = found.get(NAME_AT..NAME_AT + name_bytes.min(NAME_BYTES_MAX));
    let name = name.map(String::from_utf8_lossy).unwrap_or_default();
    if crc32fast::hash(&found[..CHECK_AT]).to_le_bytes() != found[CHECK_AT..] {
        Err(StreamFileError::DamagedHeader { path: path() })
    } else if found[MARK_BYTES..NAME_AT - 2] != store_id {
        Err(StreamFileError::OtherStore { path: path() })
    } else if found != header(store_id, stream) {
        Err(StreamFileError::OtherStream {
            path: path(),
            found: name.into_owned(),
            expected: stream.to_owned(),
        })
    } else {
        Ok(())
    }
}

impl StreamFileError {
    fn of_bad_range(path: &str, bad: BadRange) -> Self {
        match bad {
            BadRange::Overlap(one, other) => Self::Overlap {
                path: path.to_owned(),
                offset: one.offset,
                bytes: one.bytes,
                other_offset: other.offset,
            },
            BadRange::Outside(range) => Self::outside(path, range.offset, range.bytes),
        }
    }
}
