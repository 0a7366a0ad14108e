//! The state of the simulated disk, and what an operation does to it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use super::content::Content;
use super::faults::{Faults, Moment, Operation};
use super::names::{FileId, Names};
use super::random::Random;

pub(super) struct State {
    pub(super) files: BTreeMap<FileId, File>,
    pub(super) next_file: FileId,
    pub(super) names: Names,
    pub(super) faults: Faults,
    pub(super) random: Random,
    /// Room for files in bytes.
    pub(super) capacity: Option<u64>,
    /// Room taken by files that have a name or are open, in bytes.
    pub(super) used: u64,
    pub(super) done: [u64; Operation::COUNT],
    /// Bytes taken by writes, by the name at that time.
    pub(super) written: BTreeMap<String, u64>,
    pub(super) ended: Option<End>,
}

#[derive(Clone)]
pub(super) struct File {
    pub(super) content: Content,
    /// The last name it had.
    pub(super) name: String,
    /// Whether it has that name still.
    pub(super) named: bool,
    pub(super) open: usize,
}

/// Why a process can no longer reach its disk.
#[derive(Clone, Copy)]
pub(super) enum End {
    PowerCut,
    Killed,
}

/// How an operation that began is to go wrong.
#[derive(Clone, Copy)]
pub(super) struct Trouble {
    pub(super) cut: Option<Moment>,
    /// Only writes and syncs begin to fail; others fail at once.
    pub(super) fails: bool,
}

impl File {
    pub(super) fn new(name: &str, content: Content) -> Self {
        Self {
            content,
            name: name.into(),
            named: true,
            open: 0,
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.content.now().len() as u64
    }
}

impl State {
    /// The state of a disk that starts with these files: faults and counts begin anew.
    pub(super) fn successor(
        &self,
        files: BTreeMap<FileId, File>,
        names: Names,
        random: Random,
    ) -> Self {
        let named = files.values().filter(|file| file.named);
        Self {
            used: named.map(File::length).sum(),
            files,
            next_file: self.next_file,
            names,
            faults: Faults::default(),
            random,
            capacity: self.capacity,
            done: [0; Operation::COUNT],
            written: BTreeMap::new(),
            ended: None,
        }
    }

    /// Runs an operation on the file of that name, unless what is planned keeps it from anything.
    pub(super) fn run<T>(
        &mut self,
        operation: Operation,
        name: &str,
        act: impl FnOnce(&mut Self, Trouble) -> io::Result<T>,
    ) -> io::Result<T> {
        self.check_reachable()?;
        self.done[operation as usize] += 1;
        let mut cut = self.faults.power_cut(operation);
        if cut == Some(Moment::Midway) && operation != Operation::Write && self.random.coin() {
            cut = Some(Moment::Before);
        }
        let fails = self.faults.fails(operation, name);
        let acts_though_failing = matches!(operation, Operation::Write | Operation::Sync);
        let mut result = None;
        if cut != Some(Moment::Before) && (!fails || acts_though_failing) {
            result = Some(act(self, Trouble { cut, fails }));
        }
        if cut.is_some() {
            self.ended = Some(End::PowerCut);
            self.check_reachable()?;
        }
        match result {
            Some(result) if !fails => result,
            _ => {
                let text = format!("simulated I/O error: {operation:?} {name}");
                Err(io::Error::other(text))
            }
        }
    }

    pub(super) fn check_reachable(&self) -> io::Result<()> {
        match self.ended {
            None => Ok(()),
            Some(End::PowerCut) => Err(io::Error::other("the power is cut")),
            Some(End::Killed) => Err(io::Error::other("the process was killed")),
        }
    }

    pub(super) fn id_of(&self, name: &str) -> io::Result<FileId> {
        self.names.now().get(name).copied().ok_or_else(|| {
            let text = format!("there is no file {name} on the simulated disk");
            io::Error::new(ErrorKind::NotFound, text)
        })
    }

    pub(super) fn file(&mut self, id: FileId) -> &mut File {
        self.files.get_mut(&id).expect("an open file is there")
    }

    pub(super) fn create(&mut self, name: &str) -> io::Result<FileId> {
        if self.names.now().contains_key(name) {
            let text = format!("{name} is on the simulated disk already");
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, File::new(name, Content::default()));
        self.names.create(name, id);
        Ok(id)
    }

    /// Writes as much as there is room for, or less where that is planned.
    pub(super) fn write(
        &mut self,
        id: FileId,
        bytes: &[u8],
        offset: u64,
        trouble: Trouble,
    ) -> io::Result<usize> {
        let length = self.files[&id].length();
        let fitting = length
            .saturating_add(self.room())
            .saturating_sub(offset)
            .min(bytes.len() as u64);
        if fitting == 0 && !bytes.is_empty() {
            return Err(no_room(&self.files[&id].name));
        }
        let count = if trouble.fails || trouble.cut == Some(Moment::Midway) {
            self.random.below(index(fitting))
        } else {
            let percent = self.faults.short_writes_percent;
            self.random.shortened(index(fitting), percent)
        };
        let file = self.file(id);
        file.content.write(&bytes[..count], index(offset));
        let grown = file.length() - length;
        let name = file.name.clone();
        self.used += grown;
        *self.written.entry(name).or_default() += count as u64;
        Ok(count)
    }

    pub(super) fn room(&self) -> u64 {
        self.capacity
            .map_or(u64::MAX, |bytes| bytes.saturating_sub(self.used))
    }

    /// The file has no name any more.
    pub(super) fn take_name(&mut self, id: FileId) {
        self.file(id).named = false;
        self.free_if_gone(id);
    }

    pub(super) fn close(&mut self, id: FileId) {
        self.file(id).open -= 1;
        self.free_if_gone(id);
    }

    /// Gives back the room of a file that nobody can reach. It stays as long as a power cut can bring it back.
    fn free_if_gone(&mut self, id: FileId) {
        let file = self.file(id);
        if file.named || file.open > 0 {
            return;
        }
        self.used -= self.files[&id].length();
        if self.names.all_synced() {
            self.files.remove(&id);
        }
    }

    /// Panics where there is no such byte.
    pub(super) fn damage(&mut self, name: &str, offset: u64, mask: &[u8]) {
        let id = self.id_of(name).expect("a file to damage");
        let content = &mut self.file(id).content;
        let offset = index(offset);
        assert!(offset < content.now().len(), "no byte {offset} in {name}");
        content.damage(offset, mask);
    }
}

pub(super) fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a simulated file is held in memory")
}

pub(super) fn no_room(name: &str) -> io::Error {
    let text = format!("no room on the simulated disk for {name}");
    io::Error::new(ErrorKind::StorageFull, text)
}
