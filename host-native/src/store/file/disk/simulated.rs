//! A disk in memory for crash tests: it loses what was not synced, tears writes, fills up and fails, all by a seed.
//!
//! Where systems differ it is as hard as any of them may be, and at times harder: a file's sync says nothing of its
//! name, sectors of one write come or not as they like, and a failed sync loses what it was to write. A test with one
//! thread gives the same result each time; with several, what they do has to come in the same order.

mod content;
mod fate;
mod faults;
mod names;
mod random;
mod state;
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use fate::Fate;
pub(crate) use faults::{Fault, Lasting, Moment, Operation};

use self::content::{Content, SECTOR_BYTES};
use self::faults::Faults;
use self::names::{FileId, Names};
use self::random::Random;
use self::state::{End, File, State, Trouble, index, no_room};
use super::{Disk, DiskFile};

/// The disk as one process sees it. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk that never fills up. The seed decides on what chance decides on.
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(State {
            files: BTreeMap::new(),
            next_file: 0,
            names: Names::default(),
            faults: Faults::default(),
            random: Random::new(seed),
            capacity: None,
            used: 0,
            done: [0; Operation::COUNT],
            written: BTreeMap::new(),
            ended: None,
        })
    }

    fn with(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// What is there when the power comes back; cuts it if it is still there. Other seeds leave something else.
    /// The capacity stays; faults and counts begin anew.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let whole = match random.below(8) {
            0 => Some(Fate::Nothing),
            1 => Some(Fate::Everything),
            _ => None,
        };
        self.left_by_power_cut(|random| whole.unwrap_or_else(|| Fate::any(random)), random)
    }

    /// As [`SimDisk::after_power_cut`], but the same fate for names and all files.
    pub(crate) fn after_power_cut_with(&self, fate: Fate, seed: u64) -> Self {
        self.left_by_power_cut(|_| fate, Random::new(seed))
    }

    fn left_by_power_cut(&self, fate: impl Fn(&mut Random) -> Fate, mut random: Random) -> Self {
        let mut state = self.state.lock();
        state.ended.get_or_insert(End::PowerCut);
        let names = state.names.after_power_cut(fate(&mut random), &mut random);
        let mut files = BTreeMap::new();
        for (name, id) in &names {
            let content = &state.files[id].content;
            let left = content.after_power_cut(fate(&mut random), &mut random);
            files.insert(*id, File::new(name, Content::new(left)));
        }
        Self::with(state.successor(files, Names::new(names), random))
    }

    /// What the next process finds when this one was killed: all that was written, though a power cut may still take
    /// what was not synced. The capacity stays; faults and counts begin anew.
    pub(crate) fn after_kill(&self) -> Self {
        let mut state = self.state.lock();
        state.ended.get_or_insert(End::Killed);
        let mut files = state.files.clone();
        for file in files.values_mut() {
            file.open = 0;
        }
        let names = state.names.clone();
        let random = Random::new(state.random.clone().next());
        Self::with(state.successor(files, names, random))
    }

    /// Cuts the power now: every operation fails from here on.
    pub(crate) fn cut_power(&self) {
        self.state.lock().ended.get_or_insert(End::PowerCut);
    }

    /// Whether the power was cut or the process killed.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().ended.is_some()
    }

    /// Adds a fault. A later power cut replaces an earlier one, and so do chances of short writes and reads.
    pub(crate) fn plan(&self, fault: Fault) {
        self.state.lock().faults.plan(fault);
    }

    /// Drops all planned faults, not what they did.
    pub(crate) fn clear_faults(&self) {
        self.state.lock().faults = Faults::default();
    }

    /// Sets the room for files in bytes; `None` never fills up. Only lengths count: writing over what is there needs no
    /// room, and lengthening by `set_len` does. What is there stays if it is more.
    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Room taken in bytes, also by files that have lost their name and are open.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.state.lock().used
    }

    /// Turns one bit over, wherever the byte is held. `bit` is 0 to 7. Panics where there is no such byte.
    pub(crate) fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        self.state.lock().damage(name, offset, &[1 << bit]);
    }

    /// Changes every byte of the 512-byte sector that holds the offset. Panics where there is no such byte.
    pub(crate) fn corrupt_sector(&self, name: &str, offset: u64) {
        let mut state = self.state.lock();
        let mask: [u8; SECTOR_BYTES] =
            std::array::from_fn(|_| u8::try_from(1 + state.random.below(255)).expect("below 256"));
        let start = offset - offset % SECTOR_BYTES as u64;
        state.damage(name, start, &mask);
    }

    /// Names and lengths in bytes, in the order of names.
    pub(crate) fn files(&self) -> Vec<(String, u64)> {
        let state = self.state.lock();
        let names = state.names.now().iter();
        names
            .map(|(name, id)| (name.clone(), state.files[id].length()))
            .collect()
    }

    /// What the process sees in a file.
    pub(crate) fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let id = state.names.now().get(name)?;
        Some(state.files[id].content.now().to_vec())
    }

    /// Bytes taken by writes to files whose name began so when they were written.
    pub(crate) fn written_bytes(&self, name_prefix: &str) -> u64 {
        let state = self.state.lock();
        let files = state.written.range(name_prefix.to_owned()..);
        files
            .take_while(|(name, _)| name.starts_with(name_prefix))
            .map(|(_, bytes)| bytes)
            .sum()
    }

    /// How often that was asked of the disk, with or without success, before it ended.
    pub(crate) fn count(&self, operation: Operation) -> u64 {
        self.state.lock().done[operation as usize]
    }

    /// How many operations there were that a power cut can be planned at. On a new disk, all boundaries are
    /// `1..=changes()`.
    pub(crate) fn changes(&self) -> u64 {
        let state = self.state.lock();
        let counts = Operation::CHANGING.map(|operation| state.done[operation as usize]);
        counts.into_iter().sum()
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let id = state.run(Operation::Open, name, |state, _| state.id_of(name))?;
        Ok(self.handle(&mut state, id))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        assert!(
            !name.contains(['/', '\\', '\0']) && !matches!(name, "" | "." | ".."),
            "a name has one part, not {name:?}"
        );
        let mut state = self.state.lock();
        let id = state.run(Operation::Create, name, |state, _| state.create(name))?;
        Ok(self.handle(&mut state, id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.state.lock().run(Operation::Rename, from, |state, _| {
            let id = state.id_of(from)?;
            let replaced = state.id_of(to).ok().filter(|replaced| *replaced != id);
            state.names.rename(from, to);
            if let Some(replaced) = replaced {
                state.take_name(replaced);
            }
            state.file(id).name = to.into();
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state.lock().run(Operation::Remove, name, |state, _| {
            let id = state.id_of(name)?;
            state.names.remove(name);
            state.take_name(id);
            Ok(())
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.state.lock().run(Operation::List, "", |state, _| {
            Ok(state.names.now().keys().cloned().collect())
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.state.lock().run(Operation::SyncNames, "", |state, _| {
            state.names.sync();
            state.files.retain(|_, file| file.named || file.open > 0);
            Ok(())
        })
    }

    fn path_of(&self, name: &str) -> String {
        format!("simulated/{name}")
    }
}

impl SimDisk {
    fn handle(&self, state: &mut State, file: FileId) -> Arc<dyn DiskFile> {
        state.file(file).open += 1;
        Arc::new(SimFile {
            state: self.state.clone(),
            file,
        })
    }
}

/// An open file.
struct SimFile {
    state: Arc<Mutex<State>>,
    file: FileId,
}

impl SimFile {
    fn run<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut State, Trouble) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        let name = state.file(self.file).name.clone();
        state.run(operation, &name, act)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.run(Operation::Read, |state, _| {
            let bytes = state.files[&self.file].content.now();
            let bytes = bytes.get(index(offset)..).unwrap_or_default();
            let most = bytes.len().min(buffer.len());
            let percent = state.faults.short_reads_percent;
            let count = state.random.shortened(most, percent);
            buffer[..count].copy_from_slice(&bytes[..count]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.run(Operation::Write, |state, trouble| {
            state.write(self.file, bytes, offset, trouble)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.run(Operation::Sync, |state, trouble| {
            if trouble.fails {
                let mut random = Random::new(state.random.next());
                state.file(self.file).content.fail_sync(&mut random);
            } else {
                state.file(self.file).content.sync();
            }
            Ok(())
        })
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.state.lock();
        state.check_reachable()?;
        Ok(state.files[&self.file].length())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.run(Operation::SetLen, |state, _| {
            let length = state.files[&self.file].length();
            if bytes.saturating_sub(length) > state.room() {
                return Err(no_room(&state.files[&self.file].name));
            }
            state.file(self.file).content.set_len(index(bytes));
            state.used = state.used - length + bytes;
            Ok(())
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.state.lock().close(self.file);
    }
}
