//! What is where: an append-only file of edits. The highest-numbered `manifest-N` counts.
//!
//! A unit holds several edits and counts as a whole or not at all. A manifest gets its name only once it is safe
//! with all it was written with; from then on units are appended one by one, each safe before the next.

mod contents;
mod edit;
mod error;
mod layout;
mod open;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::disk::{Disk, DiskFile, write_all_at};
use edit::Encoder;
use error::says_disk_full;
use layout::{BEGIN, End, Header, UnitHead};

pub use contents::{Contents, LastOpened, LogStart};
pub use edit::{Durability, Edit, GroupKept};
pub use error::ManifestError;
pub use open::{Damage, Looked};

/// The longest edits of one unit.
const UNIT_BODY_BYTES_MAX: usize = 1 << 30;

/// How long the units of a full write become.
const BASE_UNIT_BYTES: usize = 256 << 10;

/// A manifest may grow to twice its size after the last full write and this.
const GROWTH_BYTES_MIN: u64 = 1 << 20;

const PREFIX: &str = "manifest-";

/// Of a manifest that is not finished.
const NEW_SUFFIX: &str = ".new";

/// The manifest of a directory, for the one who writes it.
pub struct Manifest {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    path: String,
    header: Header,
    end: End,
    /// The highest number that may be in the directory.
    number_max: u64,
    /// Whether it is known what the file holds.
    is_sound: bool,
}

/// What opening a manifest took off its end: a unit that was not finished when the process or the machine stopped.
/// The log still has what it was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub path: String,
    /// Where the unit began, in bytes.
    pub offset: u64,
    /// How many bytes were taken off.
    pub bytes: u64,
}

impl Manifest {
    /// Makes the first manifest of a directory that has none, and makes it lasting.
    ///
    /// Errors: what the system says.
    pub fn create(disk: &Arc<dyn Disk>, store_id: [u8; 16]) -> Result<Self, ManifestError> {
        let (file, header) = write_new(&**disk, store_id, 1, std::iter::empty())?;
        let path = install(&**disk, 1)?;
        Ok(Self::at_base(disk, file, path, header))
    }

    /// Appends a unit with these edits, and makes it lasting.
    ///
    /// Errors: the disk is full ([`ManifestError::is_disk_full`]), or the edits are more than 1 GiB: nothing of them
    /// counts, and a later unit may go well. Anything else the system says: whether the unit counts shows only at the next
    /// start, so nothing more can be appended, and no extent that the edits, or those before, refer to may be
    /// released, until [`Manifest::rewrite`] has gone well. [`Manifest::needs_rewrite`] tells one from the other.
    pub fn append<'a>(
        &mut self,
        edits: impl IntoIterator<Item = Edit<'a>>,
    ) -> Result<(), ManifestError> {
        if !self.is_sound {
            return Err(ManifestError::NeedsRewrite {
                path: self.path.clone(),
            });
        }
        let mut encoder = Encoder::default();
        for edit in edits {
            encoder.push(&edit);
        }
        if encoder.bytes.is_empty() {
            return Ok(());
        }
        if encoder.bytes.len() > UNIT_BODY_BYTES_MAX {
            return Err(ManifestError::UnitTooLarge {
                path: self.path.clone(),
                bytes: encoder.bytes.len(),
                bytes_max: UNIT_BODY_BYTES_MAX,
            });
        }
        let (unit, end) = unit(&encoder.bytes, self.end, self.header.seed());
        self.is_sound = false;
        if let Err(error) = write_all_at(&*self.file, &unit, self.end.offset) {
            // What is in the file of it goes away, and stays away: else it might count after a power cut.
            self.is_sound = says_disk_full(&error)
                && self.file.set_len(self.end.offset).is_ok()
                && self.file.sync().is_ok();
            return Err(ManifestError::io(&self.path, "write", error));
        }
        let synced = self.file.sync();
        synced.map_err(|error| ManifestError::io(&self.path, "sync", error))?;
        self.is_sound = true;
        self.end = end;
        Ok(())
    }

    /// Whether nothing can be appended before a rewrite.
    pub fn needs_rewrite(&self) -> bool {
        !self.is_sound
    }

    /// Whether the file holds so much that is outdated that it should be written anew.
    pub fn is_due_for_rewrite(&self) -> bool {
        self.end.offset > 2 * self.header.base.offset + GROWTH_BYTES_MIN
    }

    /// How long the file is, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.end.offset
    }

    /// Writes a manifest with the next number that holds these edits and nothing else, makes it lasting, and removes the
    /// one before.
    ///
    /// Errors: what the system says. The manifest before goes on as it was where the new one could not be written; where
    /// that could not be given its name, nothing can be appended until a rewrite goes well.
    pub fn rewrite<'a>(
        &mut self,
        edits: impl IntoIterator<Item = Edit<'a>>,
    ) -> Result<(), ManifestError> {
        let number = self.number_max + 1;
        let disk = self.disk.clone();
        let (file, header) = write_new(&*disk, self.header.store_id, number, edits)?;
        // From here on a start may find the one or the other.
        self.number_max = number;
        self.is_sound = false;
        let path = install(&*disk, number)?;
        *self = Self::at_base(&disk, file, path, header);
        open::remove_others(&*disk, number);
        Ok(())
    }

    fn at_base(
        disk: &Arc<dyn Disk>,
        file: Arc<dyn DiskFile>,
        path: String,
        header: Header,
    ) -> Self {
        Self {
            disk: disk.clone(),
            file,
            path,
            header,
            end: header.base,
            number_max: header.number,
            is_sound: true,
        }
    }
}

/// Writes a manifest under a name that does not count yet, and makes its bytes lasting.
fn write_new<'a>(
    disk: &dyn Disk,
    store_id: [u8; 16],
    number: u64,
    edits: impl IntoIterator<Item = Edit<'a>>,
) -> Result<(Arc<dyn DiskFile>, Header), ManifestError> {
    let name = new_name(number);
    let path = disk.path_of(&name);
    // One may be left of a try before. If there is none, or it stays, the next line says so.
    let _ = disk.remove(&name);
    let file = disk
        .create(&name)
        .map_err(|error| ManifestError::io(&path, "create", error))?;
    match write_base(&*file, &path, store_id, number, edits) {
        Ok(header) => Ok((file, header)),
        Err(error) => {
            drop(file);
            // A full disk gets its bytes back. If not, the next try or start removes it.
            let _ = disk.remove(&name);
            Err(error)
        }
    }
}

fn write_base<'a>(
    file: &dyn DiskFile,
    path: &str,
    store_id: [u8; 16],
    number: u64,
    edits: impl IntoIterator<Item = Edit<'a>>,
) -> Result<Header, ManifestError> {
    let mut header = Header {
        store_id,
        number,
        base: BEGIN,
    };
    let seed = header.seed();
    let failed = |error| ManifestError::io(path, "write", error);
    let mut encoder = Encoder::default();
    let mut edits = edits.into_iter().peekable();
    while let Some(edit) = edits.next() {
        encoder.push(&edit);
        if encoder.bytes.len() >= BASE_UNIT_BYTES || edits.peek().is_none() {
            let (unit, end) = unit(&encoder.bytes, header.base, seed);
            write_all_at(file, &unit, header.base.offset).map_err(failed)?;
            header.base = end;
            encoder.clear();
        }
    }
    write_all_at(file, &header.encode(), 0).map_err(failed)?;
    let synced = file.sync();
    synced.map_err(|error| ManifestError::io(path, "sync", error))?;
    Ok(header)
}

/// Gives a manifest that is safe the name by which it counts.
fn install(disk: &dyn Disk, number: u64) -> Result<String, ManifestError> {
    let (from, to) = (new_name(number), name(number));
    let path = disk.path_of(&to);
    disk.rename(&from, &to)
        .map_err(|error| ManifestError::io(&path, "rename to", error))?;
    disk.sync_names()
        .map_err(|error| ManifestError::io(&path, "sync the name of", error))?;
    Ok(path)
}

/// The bytes of a unit that follows `end`, and where the manifest ends then. The body is not longer than allowed.
fn unit(body: &[u8], end: End, seed: u32) -> (Vec<u8>, End) {
    let head = UnitHead {
        body_bytes: body.len() as u32,
        index: end.units,
        before: end.check,
        body_check: crc32fast::hash(body),
    };
    let (encoded, check) = head.encode(seed);
    let mut bytes = Vec::with_capacity(head.unit_bytes() as usize);
    bytes.extend_from_slice(&encoded);
    bytes.extend_from_slice(body);
    bytes.resize(head.unit_bytes() as usize, 0);
    let end = End {
        offset: end.offset + head.unit_bytes(),
        units: end.units + 1,
        check,
    };
    (bytes, end)
}

fn name(number: u64) -> String {
    format!("{PREFIX}{number:010}")
}

fn new_name(number: u64) -> String {
    format!("{PREFIX}{number:010}{NEW_SUFFIX}")
}
