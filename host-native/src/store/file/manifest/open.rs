//! Reads a manifest, and tells a unit that was not finished from damage.

use std::io;
use std::sync::Arc;

use hashbrown::HashSet;

use super::super::disk::{Disk, DiskFile, read_exact_at, write_all_at};
use super::edit::Decoder;
use super::layout::{
    ALIGNMENT_BYTES, BEGIN, BadHeader, End, HEADER_BYTES, Header, UNIT_HEAD_BYTES, UnitHead,
    VERSION,
};
use super::{Contents, Cut, Manifest, ManifestError, NEW_SUFFIX, PREFIX, name};

/// How much is read at once.
const WINDOW_BYTES: u64 = 1 << 20;

impl Manifest {
    /// Opens the manifest of a directory, with what it says and what was taken off its end. `None` where there is none.
    /// Removes what is left of manifests that were not finished, and those that were replaced.
    ///
    /// Errors: it is damaged, was renamed, or is of a newer version; what the system says.
    pub fn open(
        disk: &Arc<dyn Disk>,
    ) -> Result<Option<(Self, Contents, Option<Cut>)>, ManifestError> {
        let Some(found) = Found::find(disk)? else {
            remove_others(&**disk, 0);
            return Ok(None);
        };
        let mut units = found.units();
        let (contents, end) = units.read()?;
        let failed = |doing, error| ManifestError::io(&found.path, doing, error);
        let file = &*found.file;
        // The last unit may only be in the system's cache, left there by a sync that failed before the restart; a sync alone
        // would not write it then.
        let last_at = units.last_at;
        let last = units.bytes(last_at, end.offset - last_at)?;
        write_all_at(file, last, last_at).map_err(|e| failed("write", e))?;
        let cut = found.cut(end);
        if cut.is_some() {
            file.set_len(end.offset).map_err(|e| failed("cut", e))?;
        }
        file.sync().map_err(|e| failed("sync", e))?;
        // So may the name be.
        disk.sync_names()
            .map_err(|e| failed("sync the name of", e))?;
        remove_others(&**disk, found.header.number);
        let mut manifest = Self::at_base(disk, found.file, found.path, found.header);
        manifest.end = end;
        Ok(Some((manifest, contents, cut)))
    }

    /// Whether a file of this name is a manifest.
    pub fn is_name(file: &str) -> bool {
        number_of(file).is_some()
    }

    /// Reads the manifest of a directory and changes nothing, also behind units that are damaged. `None` where there is none.
    ///
    /// Errors: its header is damaged, it was renamed, or is of a newer version; what the system says.
    pub fn look(disk: &Arc<dyn Disk>) -> Result<Option<Looked>, ManifestError> {
        let Some(found) = Found::find(disk)? else {
            return Ok(None);
        };
        let mut damages = Vec::new();
        let (contents, end) = found.units().read_past(&mut damages)?;
        Ok(Some(Looked {
            path: found.path.clone(),
            number: found.header.number,
            units: end.units,
            cut: found.cut(end),
            contents,
            damages,
        }))
    }

    /// The manifest of a directory, of which nothing is read but the header: only to be written anew.
    ///
    /// Errors: as [`Manifest::look`].
    pub fn to_replace(disk: &Arc<dyn Disk>) -> Result<Option<Self>, ManifestError> {
        Ok(Found::find(disk)?.map(|found| {
            let mut manifest = Self::at_base(disk, found.file, found.path, found.header);
            manifest.is_sound = false;
            manifest
        }))
    }
}

/// What a manifest says, whatever is damaged in it.
#[derive(Debug)]
pub struct Looked {
    /// The file.
    pub path: String,
    /// Its number.
    pub number: u64,
    /// How many units there are.
    pub units: u64,
    /// What the units say that can be read.
    pub contents: Contents,
    /// A unit at the end that was not finished.
    pub cut: Option<Cut>,
    /// Units that cannot be read, although they were safe once.
    pub damages: Vec<Damage>,
}

/// A place in a manifest where there should be a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In bytes.
    pub offset: u64,
    /// Bytes up to the next unit that can be read.
    pub bytes: u64,
    /// What is wrong.
    pub what: &'static str,
}

/// The manifest that counts in a directory.
struct Found {
    file: Arc<dyn DiskFile>,
    path: String,
    size: u64,
    header: Header,
}

impl Found {
    fn find(disk: &Arc<dyn Disk>) -> Result<Option<Self>, ManifestError> {
        let names = disk
            .list()
            .map_err(|error| ManifestError::io(&disk.path_of(""), "list", error))?;
        let Some(number) = names.iter().filter_map(|name| number_of(name)).max() else {
            return Ok(None);
        };
        let name = name(number);
        let path = disk.path_of(&name);
        let failed = |doing, error| ManifestError::io(&path, doing, error);
        let file = disk.open(&name).map_err(|e| failed("open", e))?;
        let size = file.size().map_err(|e| failed("measure", e))?;
        let header = read_header(&*file, &path, size, number)?;
        Ok(Some(Self {
            file,
            path,
            size,
            header,
        }))
    }

    fn units(&self) -> UnitReader<'_> {
        UnitReader {
            file: &*self.file,
            path: &self.path,
            size: self.size,
            header: self.header,
            window: Vec::new(),
            window_at: 0,
            last_at: BEGIN.offset,
        }
    }

    /// What is behind the last unit.
    fn cut(&self, end: End) -> Option<Cut> {
        (end.offset < self.size).then(|| Cut {
            path: self.path.clone(),
            offset: end.offset,
            bytes: self.size - end.offset,
        })
    }
}

/// Removes manifests that do not count. Those that stay do no harm, and the next rewrite or start tries again.
pub(super) fn remove_others(disk: &dyn Disk, number: u64) {
    for name in disk.list().unwrap_or_default() {
        let is_unfinished = name
            .strip_suffix(NEW_SUFFIX)
            .is_some_and(|name| number_of(name).is_some());
        if is_unfinished || number_of(&name).is_some_and(|other| other < number) {
            let _ = disk.remove(&name);
        }
    }
}

fn number_of(file: &str) -> Option<u64> {
    let number = file.strip_prefix(PREFIX)?.parse().ok()?;
    (name(number) == file).then_some(number)
}

fn read_header(
    file: &dyn DiskFile,
    path: &str,
    size: u64,
    number: u64,
) -> Result<Header, ManifestError> {
    let damaged = || ManifestError::DamagedHeader {
        path: path.to_owned(),
    };
    let mut bytes = [0; HEADER_BYTES as usize];
    if size < HEADER_BYTES {
        return Err(damaged());
    }
    read_exact_at(file, &mut bytes, 0).map_err(|e| ManifestError::io(path, "read", e))?;
    match Header::decode(&bytes) {
        Ok(header) if header.number == number => Ok(header),
        Ok(header) => Err(ManifestError::OtherNumber {
            path: path.to_owned(),
            found: header.number,
        }),
        Err(BadHeader::Damaged) => Err(damaged()),
        Err(BadHeader::Version(found)) => Err(ManifestError::OtherVersion {
            path: path.to_owned(),
            found,
            known: VERSION,
        }),
    }
}

struct UnitReader<'a> {
    file: &'a dyn DiskFile,
    path: &'a str,
    size: u64,
    header: Header,
    /// What is in memory of the file, and where it begins.
    window: Vec<u8>,
    window_at: u64,
    /// Where the last unit begins that was read.
    last_at: u64,
}

impl UnitReader<'_> {
    /// What it says, and where it ends.
    fn read(&mut self) -> Result<(Contents, End), ManifestError> {
        let mut contents = Contents {
            store_id: self.header.store_id,
            ..Contents::default()
        };
        let mut epochs = HashSet::new();
        let end = self.read_from(BEGIN, &mut contents, &mut epochs)?;
        Ok((contents, end))
    }

    /// Reads also behind damage.
    fn read_past(&mut self, damages: &mut Vec<Damage>) -> Result<(Contents, End), ManifestError> {
        let mut contents = Contents {
            store_id: self.header.store_id,
            ..Contents::default()
        };
        let mut epochs = HashSet::new();
        let mut begin = BEGIN;
        loop {
            let (offset, what) = match self.read_from(begin, &mut contents, &mut epochs) {
                Ok(end) => return Ok((contents, end)),
                Err(ManifestError::Damaged { offset, what, .. }) => (offset, what),
                Err(error) => return Err(error),
            };
            let next = self.find_whole_unit(offset + ALIGNMENT_BYTES)?;
            let to = next.map_or(self.size, |end| end.offset);
            damages.push(Damage {
                offset,
                bytes: to.saturating_sub(offset),
                what,
            });
            match next {
                Some(end) => begin = end,
                None => {
                    let units = begin.units;
                    let end = End {
                        offset: self.size,
                        units,
                        check: 0,
                    };
                    return Ok((contents, end));
                }
            }
        }
    }

    /// The end before the first unit at or behind `offset` that is whole.
    fn find_whole_unit(&mut self, offset: u64) -> Result<Option<End>, ManifestError> {
        let seed = self.header.seed();
        let mut at = offset;
        while at + UNIT_HEAD_BYTES <= self.size {
            let head = UnitHead::decode(self.bytes(at, UNIT_HEAD_BYTES)?, seed);
            if let Some((head, _)) = head {
                let end = End {
                    offset: at,
                    units: head.index,
                    check: head.before,
                };
                if self.next_head(end)?.is_some() {
                    return Ok(Some(end));
                }
            }
            at += ALIGNMENT_BYTES;
        }
        Ok(None)
    }

    fn read_from(
        &mut self,
        begin: End,
        contents: &mut Contents,
        epochs: &mut HashSet<Arc<str>>,
    ) -> Result<End, ManifestError> {
        let base = self.header.base;
        let mut end = begin;
        loop {
            if (end.units == base.units || end.offset == base.offset) && end != base {
                return Err(self.damaged(end, "it is not the end that its header tells of"));
            }
            let Some(head) = self.next_head(end)? else {
                self.check_that_nothing_follows(end)?;
                return Ok(end);
            };
            let body_at = end.offset + UNIT_HEAD_BYTES;
            let (head, check) = head;
            let body = self.bytes(body_at, u64::from(head.body_bytes))?;
            let mut decoder = Decoder::new(body, epochs);
            let what = loop {
                match decoder.next() {
                    Ok(Some(edit)) => contents.apply(edit),
                    Ok(None) => break None,
                    Err(what) => break Some(what),
                }
            };
            if let Some(what) = what {
                return Err(self.damaged(end, what));
            }
            self.last_at = end.offset;
            end = End {
                offset: end.offset + head.unit_bytes(),
                units: end.units + 1,
                check,
            };
        }
    }

    /// The head of the unit that follows `end`, and its checksum, if the unit is whole.
    fn next_head(&mut self, end: End) -> Result<Option<(UnitHead, u32)>, ManifestError> {
        let seed = self.header.seed();
        if self.size.saturating_sub(end.offset) < UNIT_HEAD_BYTES {
            return Ok(None);
        }
        let head = UnitHead::decode(self.bytes(end.offset, UNIT_HEAD_BYTES)?, seed);
        let Some((head, check)) = head else {
            return Ok(None);
        };
        let follows = head.index == end.units && head.before == end.check;
        if !follows || head.unit_bytes() > self.size - end.offset {
            return Ok(None);
        }
        let body = self.bytes(end.offset + UNIT_HEAD_BYTES, u64::from(head.body_bytes))?;
        Ok((crc32fast::hash(body) == head.body_check).then_some((head, check)))
    }

    /// A unit is appended only after the one before was safe. So if a later one has left its head, the one that cannot be
    /// read was safe once.
    fn check_that_nothing_follows(&mut self, end: End) -> Result<(), ManifestError> {
        if end.offset < self.header.base.offset {
            return Err(self.damaged(end, "what was there when it was written is not whole"));
        }
        let seed = self.header.seed();
        let mut at = end.offset;
        while at + UNIT_HEAD_BYTES <= self.size {
            let bytes = (self.size - at).min(WINDOW_BYTES);
            let window = self.bytes(at, bytes)?;
            let mut follows = false;
            for here in (0..window.len()).step_by(ALIGNMENT_BYTES as usize) {
                if let Some((head, _)) = UnitHead::decode(&window[here..], seed) {
                    let is_the_unfinished = at + here as u64 == end.offset
                        && head.index == end.units
                        && head.before == end.check;
                    follows |= !is_the_unfinished;
                }
            }
            if follows {
                return Err(self.damaged(end, "a later unit is whole, this one is not"));
            }
            if at + bytes == self.size {
                break;
            }
            at += bytes - UNIT_HEAD_BYTES;
        }
        Ok(())
    }

    /// Bytes that are in the file.
    fn bytes(&mut self, at: u64, bytes: u64) -> Result<&[u8], ManifestError> {
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + bytes > window_end {
            let ahead = bytes.max(WINDOW_BYTES).min(self.size.saturating_sub(at));
            self.window.resize(ahead as usize, 0);
            self.window_at = at;
            if let Err(error) = read_exact_at(self.file, &mut self.window, at) {
                return Err(self.failed(error));
            }
        }
        let begin = (at - self.window_at) as usize;
        match self.window.get(begin..begin + bytes as usize) {
            Some(bytes) => Ok(bytes),
            None => Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn failed(&self, error: io::Error) -> ManifestError {
        ManifestError::io(self.path, "read", error)
    }

    fn damaged(&self, end: End, what: &'static str) -> ManifestError {
        ManifestError::Damaged {
            path: self.path.to_owned(),
            offset: end.offset,
            what,
        }
    }
}
