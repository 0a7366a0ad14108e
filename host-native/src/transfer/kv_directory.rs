//! Reads the directory in which an iii engine with `store_method: file_based` keeps items. Opens files for reading only, and
//! leaves no trace in it.
//!
//! One file per group: `<name>.bin`, where the name is `stream:<stream>:<group>` for streams and the scope for state, every
//! byte outside `A–Z a–z 0–9 - _ .` written as `%XX`. The file begins with the JSON text of an object, item by id, in
//! order of creation; what follows it is filler. `*.bin.tmp` is left behind by a write that was interrupted.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Entry, ITEM_BYTES_MAX, ItemSource, Origin, Place, SourceError};
use super::members::{MemberError, Members};
use super::naming::{Naming, Split, named};

const SUFFIX: &str = ".bin";
const LEFTOVER_SUFFIX: &str = ".bin.tmp";
const STREAM_PREFIX: &str = "stream:";

/// How much of a file is read at a time, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Why a directory cannot be taken for one of an engine.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The system cannot list it.
    #[error("cannot read the directory {path}: {error}")]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// There is nothing of an engine in it.
    #[error(
        "{path} is no kv directory of an iii engine: it has no `.bin` files. Give the folder that `file_path` named in the engine's configuration"
    )]
    NotOne {
        /// The directory.
        path: PathBuf,
    },
}

/// What a directory holds, before any file is opened.
#[derive(Debug)]
pub struct KvDirectory {
    files: Vec<KvFile>,
    /// What people should know, in lines.
    pub notes: Vec<String>,
    /// The bytes of all `.bin` files.
    pub bytes: u64,
}

#[derive(Clone, Debug)]
struct KvFile {
    path: PathBuf,
    /// Its name, for people.
    name: Arc<str>,
    /// Whose items it holds, or why nobody knows.
    owner: Result<Owner, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Group { stream: Arc<str>, group: Arc<str> },
    Scope(Arc<str>),
}

impl KvDirectory {
    /// Lists a directory.
    ///
    /// Errors: [`KvError`].
    pub fn open(path: &Path, naming: &Naming) -> Result<Self, KvError> {
        let list = || -> io::Result<Vec<(OsString, PathBuf, u64)>> {
            fs::read_dir(path)?
                .map(|entry| {
                    let entry = entry?;
                    // Follows links, as opening does.
                    let bytes = fs::metadata(entry.path()).map_or(0, |about| about.len());
                    Ok((entry.file_name(), entry.path(), bytes))
                })
                .collect()
        };
        let mut entries = list().map_err(|error| KvError::List {
            path: path.to_owned(),
            error,
        })?;
        entries.sort();
        let mut directory = Self {
            files: Vec::new(),
            notes: Vec::new(),
            bytes: 0,
        };
        let (mut leftovers, mut others) = (Vec::new(), Vec::new());
        for (file_name, path, bytes) in entries {
            let name = file_name.to_string_lossy().into_owned();
            if let Some(stem) = name.strip_suffix(SUFFIX) {
                directory.bytes += bytes;
                directory.add(stem, &name, path, naming);
            } else if name.ends_with(LEFTOVER_SUFFIX) {
                leftovers.push(name);
            } else {
                others.push(name);
            }
        }
        if directory.files.is_empty() && leftovers.is_empty() {
            let path = path.to_owned();
            return Err(KvError::NotOne { path });
        }
        directory.tell_skipped(&leftovers, &others);
        Ok(directory)
    }

    fn add(&mut self, stem: &str, name: &str, path: PathBuf, naming: &Naming) {
        let owner = decode(stem).and_then(|index| {
            let (owner, note) = owner_of(&index, naming)?;
            self.notes
                .extend(note.map(|note| format!("{name}: {note}")));
            Ok(owner)
        });
        self.files.push(KvFile {
            path,
            name: name.into(),
            owner,
        });
    }

    fn tell_skipped(&mut self, leftovers: &[String], others: &[String]) {
        for name in leftovers {
            let whole = name.trim_end_matches(".tmp");
            let is_there = self.files.iter().any(|file| *file.name == *whole);
            let rest = if is_there {
                "it is skipped, the whole file is beside it"
            } else {
                "it is skipped although there is no whole file beside it: what the group held is lost, unless the rest of its text is in there"
            };
            self.notes.push(format!(
                "{name}: left behind by an interrupted write; {rest}"
            ));
        }
        if !others.is_empty() {
            self.notes.push(format!(
                "not of an engine and skipped: {}",
                others.join(", ")
            ));
        }
    }

    /// Reads the files one after the other, by name.
    pub fn items(&self) -> KvItems {
        KvItems {
            files: self.files.iter().cloned().collect(),
            open: None,
            bytes_read: 0,
        }
    }

    /// How many groups and scopes there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }
}

/// The items of a [`KvDirectory`]. A file that cannot be read is told, and the next one is read.
pub struct KvItems {
    files: VecDeque<KvFile>,
    open: Option<OpenFile>,
    /// The bytes of the files that were read before.
    bytes_read: u64,
}

struct OpenFile {
    members: Members<BufReader<File>>,
    origin: Origin,
    owner: Owner,
    /// The length of the file, in bytes.
    bytes: u64,
}

impl ItemSource for KvItems {
    fn next_item(&mut self) -> Result<Option<(Entry, Origin)>, SourceError> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(file) = self.files.pop_front() else {
                    return Ok(None);
                };
                self.open = Some(OpenFile::open(&file)?);
                continue;
            };
            let member = open.members.next_member();
            let is_over = !matches!(member, Ok(Some(_)) | Err(MemberError::Value { .. }));
            let entry = match member {
                Ok(None) => Ok(None),
                Ok(Some((key, value))) => open.entry(key, value).map(Some),
                Err(error) => Err(error.to_string()),
            };
            let origin = open.origin.clone();
            if is_over {
                self.bytes_read += open.bytes;
                self.open = None;
            }
            match entry {
                Ok(None) => {}
                Ok(Some(entry)) => return Ok(Some((entry, origin))),
                Err(reason) => return Err(SourceError::Damaged { origin, reason }),
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.members.offset());
        self.bytes_read + open
    }
}

impl OpenFile {
    fn open(file: &KvFile) -> Result<Self, SourceError> {
        let origin = Origin::Named(file.name.clone());
        let damaged = |reason| SourceError::Damaged {
            origin: origin.clone(),
            reason,
        };
        let owner = file.owner.clone().map_err(damaged)?;
        let cannot = |error: io::Error| damaged(format!("cannot be read: {error}"));
        let opened = File::open(&file.path).map_err(cannot)?;
        let bytes = opened.metadata().map_err(cannot)?.len();
        let input = BufReader::with_capacity(BUFFER_BYTES, opened);
        Ok(Self {
            members: Members::new(input, ITEM_BYTES_MAX),
            origin,
            owner,
            bytes,
        })
    }

    fn entry(&self, key: String, value: iii_stream_core::Json) -> Result<Entry, String> {
        named("an item's id", &key)?;
        let place = match &self.owner {
            Owner::Group { stream, group } => Place::Stream {
                stream: stream.clone(),
                group: group.clone(),
                item: key,
            },
            Owner::Scope(scope) => Place::State {
                scope: scope.clone(),
                key,
            },
        };
        Ok(Entry {
            place,
            value,
            ttl_ms: None,
            expires_ms: None,
        })
    }
}

/// What a file's name stands for.
fn decode(stem: &str) -> Result<String, String> {
    let not_one = |what: &str| Err(format!("the file's name is not one of an engine: {what}"));
    let mut bytes = Vec::with_capacity(stem.len());
    let mut rest = stem.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let digit = |at: usize| {
                    let digit = tail.get(at).copied().map(char::from);
                    digit.and_then(|digit| digit.to_digit(16))
                };
                let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                    return not_one("`%` stands without two hexadecimal digits");
                };
                // Two hexadecimal digits make a byte.
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => bytes.push(*first),
            _ => return not_one("it has characters that would be written as %XX"),
        }
    }
    String::from_utf8(bytes).or_else(|_| not_one("it is not UTF-8"))
}

/// Whose file it is, and what people should know about that.
fn owner_of(index: &str, naming: &Naming) -> Result<(Owner, Option<String>), String> {
    let joined = index
        .strip_prefix(STREAM_PREFIX)
        .filter(|_| !naming.is_state);
    let split = joined.and_then(|joined| Some((joined, naming.split(joined)?)));
    let Some((joined, split)) = split else {
        named("the scope", index)?;
        return Ok((Owner::Scope(index.into()), None));
    };
    let Split {
        stream,
        group,
        is_ambiguous,
    } = split?;
    let note = is_ambiguous.then(|| {
        format!(
            "`{joined}` can be split in more than one way; taken as stream `{stream}`, group `{group}`. If the stream's name has a colon, give it with --stream-name"
        )
    });
    Ok((Owner::Group { stream, group }, note))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as the engine writes it: short text with filler, or text, padding, its length and its place.
    fn archived(text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        if bytes.len() <= 8 {
            bytes.resize(8, 0xff);
            return bytes;
        }
        while !bytes.len().is_multiple_of(4) {
            bytes.push(0);
        }
        let place = -i32::try_from(bytes.len()).expect("short");
        bytes.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
        bytes.extend(place.to_le_bytes());
        bytes
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).expect("a file");
        }
        folder
    }

    fn read(directory: &KvDirectory) -> (Vec<String>, Vec<String>) {
        let (mut items, mut errors) = (Vec::new(), Vec::new());
        let mut source = directory.items();
        loop {
            match source.next_item() {
                Ok(None) => break,
                Ok(Some((entry, _))) => {
                    items.push(format!("{} = {}", entry.place, entry.value.as_str()));
                }
                Err(error) => errors.push(error.to_string()),
            }
        }
        assert_eq!(source.bytes_read(), directory.bytes);
        (items, errors)
    }

    #[test]
    fn reads_groups_in_order_and_ignores_what_follows_the_text() {
        let text = r#"{"z":{"text":"}\"{"},"a":1.50,"m/🦀":null}"#;
        let folder = folder(&[
            ("stream%3Achat%3Aroom%201.bin", archived(text)),
            (
                "stream%3Achat%3A%F0%9F%A6%80%2Fx.bin",
                archived(r#"{"a":1}"#),
            ),
            ("stream%3Achat%3Aempty.bin", archived("{}")),
            ("users.bin", archived(r#"{"u1":{"n":1}}"#)),
        ]);
        let directory = KvDirectory::open(folder.path(), &Naming::default()).expect("one");
        let (items, errors) = read(&directory);
        assert_eq!(
            items,
            [
                "item `a` of `chat`, group `🦀/x` = 1",
                "item `z` of `chat`, group `room 1` = {\"text\":\"}\\\"{\"}",
                "item `a` of `chat`, group `room 1` = 1.50",
                "item `m/🦀` of `chat`, group `room 1` = null",
                "state `u1` of scope `users` = {\"n\":1}",
            ]
        );
        assert_eq!((errors, directory.notes), (vec![], vec![]));
    }

    #[test]
    fn a_colon_too_many_is_told_and_can_be_settled() {
        let name = "stream%3Aa%3Ab%3Ac.bin";
        let folder = folder(&[(name, archived(r#"{"i":1}"#))]);
        let open = |naming: &Naming| {
            let directory = KvDirectory::open(folder.path(), naming).expect("one");
            (read(&directory).0, directory.notes)
        };
        let (items, notes) = open(&Naming::default());
        assert_eq!(items, ["item `i` of `a`, group `b:c` = 1"]);
        assert!(
            notes[0].starts_with(name) && notes[0].contains("more than one way"),
            "{notes:?}"
        );
        let known = Naming {
            streams: vec!["a".into(), "a:b".into(), "x".into()],
            ..Naming::default()
        };
        assert_eq!(
            open(&known),
            (vec!["item `i` of `a:b`, group `c` = 1".into()], vec![])
        );
        let state = Naming {
            is_state: true,
            ..Naming::default()
        };
        assert_eq!(
            open(&state),
            (vec!["state `i` of scope `stream:a:b:c` = 1".into()], vec![])
        );
    }

    #[test]
    fn damage_is_told_by_file_and_the_rest_is_read() {
        let long_id = "x".repeat(1_025);
        let folder = folder(&[
            ("cut.bin", br#"{"a":1,"b":{"c":"#.to_vec()),
            ("empty.bin", Vec::new()),
            ("good.bin", archived(r#"{"a":"long enough"}"#)),
            (
                "ids.bin",
                archived(&format!(r#"{{"":1,"{long_id}":2,"b":3}}"#)),
            ),
            ("nul.bin", vec![0; 64]),
            ("%GG.bin", archived("{}")),
            ("%FF.bin", archived("{}")),
            ("a b.bin", archived("{}")),
            ("stream%3Ax%3A.bin", archived("{}")),
            ("utf8.bin", b"{\"a\":\"\xff\"}".to_vec()),
        ]);
        fs::create_dir(folder.path().join("folder.bin")).expect("a folder");
        let directory = KvDirectory::open(folder.path(), &Naming::default()).expect("one");
        let (mut items, mut errors) = (Vec::new(), Vec::new());
        let mut source = directory.items();
        loop {
            match source.next_item() {
                Ok(None) => break,
                Ok(Some((entry, _))) => items.push(entry.place.to_string()),
                Err(error) => errors.push(error.to_string()),
            }
        }
        assert_eq!(
            items,
            [
                "state `a` of scope `cut`",
                "state `a` of scope `good`",
                "state `b` of scope `ids`"
            ]
        );
        for told in [
            "%FF.bin: the file's name is not one of an engine: it is not UTF-8",
            "%GG.bin: the file's name is not one of an engine: `%`",
            "a b.bin: the file's name is not one of an engine: it has",
            "cut.bin: the text ends at byte 16",
            "empty.bin: the text ends at byte 0",
            "folder.bin: ",
            "ids.bin: an item's id has 0 bytes",
            "ids.bin: an item's id has 1025 bytes",
            "nul.bin: an object is expected at byte 0, and there is the byte 0x00",
            "stream%3Ax%3A.bin: the group's id has 0 bytes",
            "utf8.bin: what begins at byte 5 is damaged",
        ] {
            let at = errors.iter().position(|error| error.starts_with(told));
            errors.remove(at.unwrap_or_else(|| panic!("{told}: {errors:?}")));
        }
        assert_eq!(errors, [""; 0]);
    }

    #[test]
    fn leftovers_and_strangers_are_told_and_skipped() {
        let folder = folder(&[
            ("a.bin", archived("{}")),
            ("a.bin.tmp", b"{".to_vec()),
            ("b.bin.tmp", b"{".to_vec()),
            ("notes.txt", Vec::new()),
        ]);
        let directory = KvDirectory::open(folder.path(), &Naming::default()).expect("one");
        assert_eq!((directory.files(), directory.notes.len()), (1, 3));
        assert!(directory.notes[0].contains("the whole file is beside it"));
        assert!(directory.notes[1].starts_with("b.bin.tmp") && directory.notes[1].contains("lost"));
        assert!(directory.notes[2].ends_with("skipped: notes.txt"));
    }

    #[test]
    fn an_empty_folder_or_another_one_is_refused() {
        for files in [&[][..], &[("notes.txt", Vec::new())]] {
            let folder = folder(files);
            let refused = KvDirectory::open(folder.path(), &Naming::default());
            assert!(matches!(refused, Err(KvError::NotOne { .. })));
        }
        let missing = KvDirectory::open(Path::new("does/not/exist"), &Naming::default());
        assert!(matches!(missing, Err(KvError::List { .. })));
    }
}
