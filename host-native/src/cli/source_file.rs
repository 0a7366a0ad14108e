//! What `import` and `verify` can be given: JSON lines in a file or from standard input, an engine's directory or its Redis, or
//! a data directory of this program.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use iii_stream_core::GroupLimits;

use super::Failure;
use crate::transfer::data_directory::DataDirectory;
use crate::transfer::entry::ItemSource;
use crate::transfer::kv_directory::KvDirectory;
use crate::transfer::lines::LineSource;
use crate::transfer::naming::Naming;
use crate::transfer::redis_engine::{self, RedisEngine};

/// How much of a file is read at a time, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// See the module.
pub(super) enum SourceFile {
    Input,
    Lines { path: PathBuf, bytes: u64 },
    Kv(KvDirectory),
    Redis(RedisEngine),
    Data(DataDirectory),
}

impl SourceFile {
    /// Finds out what `path` is; `-` is standard input, and `redis://…` a Redis.
    pub(super) fn find(path: &Path, naming: &Naming, limits: GroupLimits) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::Input);
        }
        if let Some(address) = path.to_str().filter(|path| redis_engine::is_address(path)) {
            if naming.is_state {
                return Err(
                    "--state is for directories: in Redis, state is known by its keys".into(),
                );
            }
            return Ok(Self::Redis(RedisEngine::open(address, naming)?));
        }
        let about = std::fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
        if about.is_dir() && DataDirectory::is_one(path) {
            return Ok(Self::Data(DataDirectory::open(path, limits)?));
        }
        if about.is_dir() {
            return Ok(Self::Kv(KvDirectory::open(path, naming)?));
        }
        if path.extension().is_some_and(|extension| extension == "bin") {
            return Err(format!(
                "{} is a file of an engine's kv directory: give the directory",
                path.display()
            )
            .into());
        }
        Ok(Self::Lines {
            path: path.to_owned(),
            bytes: about.len(),
        })
    }

    /// Whether it can be read more than once.
    pub(super) fn is_repeatable(&self) -> bool {
        match self {
            Self::Input => false,
            // A pipe has no length.
            Self::Lines { bytes, .. } => 0 < *bytes,
            Self::Kv(_) | Self::Redis(_) | Self::Data(_) => true,
        }
    }

    /// How many bytes there are to read, where that is known.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            // A Redis would have to read everything to know.
            Self::Input | Self::Redis(_) => None,
            Self::Lines { bytes, .. } => Some(*bytes).filter(|&bytes| 0 < bytes),
            Self::Kv(directory) => Some(directory.bytes),
            Self::Data(directory) => Some(directory.bytes),
        }
    }

    /// What people should know before it is read.
    pub(super) fn notes(&self) -> &[String] {
        match self {
            Self::Kv(directory) => &directory.notes,
            Self::Redis(engine) => &engine.notes,
            Self::Input | Self::Lines { .. } | Self::Data(_) => &[],
        }
    }

    /// Names that could be understood in more than one way, with how they were, for the end.
    pub(super) fn ambiguous(&self) -> &[String] {
        match self {
            Self::Redis(engine) => &engine.ambiguous,
            // A directory's notes tell of them.
            Self::Input | Self::Lines { .. } | Self::Kv(_) | Self::Data(_) => &[],
        }
    }

    /// Reads it from the beginning.
    pub(super) fn open(&self) -> Result<Box<dyn ItemSource>, Failure> {
        Ok(match self {
            Self::Input => Box::new(LineSource::new(io::stdin().lock(), "standard input")),
            Self::Lines { path, .. } => {
                let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
                let input = BufReader::with_capacity(BUFFER_BYTES, file);
                Box::new(LineSource::new(input, path.display().to_string()))
            }
            Self::Kv(directory) => Box::new(directory.items()),
            Self::Redis(engine) => Box::new(engine.items()),
            Self::Data(directory) => Box::new(directory.items(&[])),
        })
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}
