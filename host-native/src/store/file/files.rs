//! The streams' files of a directory, opened when they are first needed.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::disk::Disk;
use super::extent::Extent;
use super::stream_file::{StreamFile, StreamFileError, StreamReader};
use crate::store::StoreError;

/// See the module.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    store_id: [u8; 16],
    by_stream: RwLock<HashMap<Arc<str>, Arc<Slot>>>,
}

struct Slot(Mutex<Place>);

enum Place {
    /// No fold has come to an end that wrote to it.
    Missing,
    /// Not opened yet, with what is live in it.
    Closed(Vec<Extent>),
    Open(StreamFile),
}

impl Files {
    pub(super) fn new(disk: Arc<dyn Disk>, store_id: [u8; 16]) -> Self {
        Self {
            disk,
            store_id,
            by_stream: RwLock::default(),
        }
    }

    /// Takes note of a file that is there, and what is live in it.
    pub(super) fn add(&self, stream: &Arc<str>, live: Vec<Extent>) {
        let slot = Arc::new(Slot(Mutex::new(Place::Closed(live))));
        self.by_stream.write().insert(stream.clone(), slot);
    }

    /// Reads a stream's file.
    ///
    /// Errors: it cannot be opened.
    pub(super) fn reader(&self, stream: &Arc<str>) -> Result<StreamReader, StoreError> {
        let slot = self.slot(stream);
        let mut place = slot.0.lock();
        let file = self.open(stream, &mut place).map_err(StoreError::damaged)?;
        let missing = || StoreError::damaged(format!("the file of stream {stream:?} is missing"));
        Ok(file.ok_or_else(missing)?.reader())
    }

    /// Writes to a stream's file, which is made if it is not there. `true` with the result if it was made: then the names of the
    /// directory have to be synced.
    ///
    /// Errors: it cannot be opened or made; what `write` says.
    pub(super) fn write<T>(
        &self,
        stream: &Arc<str>,
        write: impl FnOnce(&mut StreamFile) -> Result<T, StreamFileError>,
    ) -> Result<(T, bool), StreamFileError> {
        let slot = self.slot(stream);
        let mut place = slot.0.lock();
        let is_made = self.open(stream, &mut place)?.is_none();
        if is_made {
            *place = Place::Open(StreamFile::create(&*self.disk, self.store_id, stream)?);
        }
        match &mut *place {
            Place::Open(file) => Ok((write(file)?, is_made)),
            // Proof: both ways before have opened it.
            Place::Missing | Place::Closed(_) => unreachable!("the file is open"),
        }
    }

    /// Gives the space of extents free, and to the system what is not worth keeping.
    pub(super) fn release(&self, stream: &Arc<str>, extents: &[Extent]) {
        let slot = self.slot(stream);
        let mut place = slot.0.lock();
        match &mut *place {
            Place::Open(file) => {
                file.release(extents.iter().copied());
                if let Err(error) = file.shrink() {
                    tracing::warn!(%stream, "cannot shrink a stream's file: {error}");
                }
            }
            Place::Closed(live) => live.retain(|extent| !extents.contains(extent)),
            Place::Missing => {}
        }
    }

    /// Makes lasting which files there are.
    ///
    /// Errors: what the system says.
    pub(super) fn sync_names(&self) -> std::io::Result<()> {
        self.disk.sync_names()
    }

    fn slot(&self, stream: &Arc<str>) -> Arc<Slot> {
        if let Some(slot) = self.by_stream.read().get(stream) {
            return slot.clone();
        }
        let mut by_stream = self.by_stream.write();
        let slot = by_stream
            .entry(stream.clone())
            .or_insert_with(|| Arc::new(Slot(Mutex::new(Place::Missing))));
        slot.clone()
    }

    fn open<'p>(
        &self,
        stream: &str,
        place: &'p mut Place,
    ) -> Result<Option<&'p mut StreamFile>, StreamFileError> {
        if let Place::Closed(live) = place {
            let live = live.iter().copied();
            *place = Place::Open(StreamFile::open(&*self.disk, self.store_id, stream, live)?);
        }
        match place {
            Place::Open(file) => Ok(Some(file)),
            Place::Missing | Place::Closed(_) => Ok(None),
        }
    }
}
