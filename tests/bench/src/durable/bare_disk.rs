//! The bare disk: one thread that writes into a file written ahead with zeros, and syncs after each write.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use iii_stream::bench::histogram::Histogram;
use tempfile::NamedTempFile;

/// The file; writing starts again at its beginning when it is full.
const FILE_BYTES: u64 = 64 << 20;
const BLOCK_BYTES: usize = 1 << 20;
/// What is written; not zeros, of which the file is made.
const FILLING: u8 = 0x5A;

/// A file with room that needs no more of the file system than the bytes themselves.
pub(crate) struct BareDisk {
    file: NamedTempFile,
    offset: u64,
}

/// What a window of writes did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BareSample {
    pub(crate) writes_per_second: f64,
    pub(crate) p50_us: f64,
}

impl BareDisk {
    /// Makes the file and syncs it.
    pub(crate) fn new() -> io::Result<Self> {
        let file = NamedTempFile::new()?;
        let zeros = vec![0; BLOCK_BYTES];
        for block in 0..FILE_BYTES / BLOCK_BYTES as u64 {
            file.as_file()
                .write_all_at(&zeros, block * BLOCK_BYTES as u64)?;
        }
        file.as_file().sync_all()?;
        Ok(Self { file, offset: 0 })
    }

    /// Writes and syncs so many bytes at a time, one write after another.
    pub(crate) fn run(&mut self, bytes: usize, window: Duration) -> io::Result<BareSample> {
        let bytes = vec![FILLING; bytes.max(1)];
        let mut latency = Histogram::new();
        let start = Instant::now();
        while start.elapsed() < window {
            let from = Instant::now();
            self.write(&bytes)?;
            latency.record(from.elapsed());
        }
        Ok(BareSample {
            writes_per_second: latency.total() as f64 / start.elapsed().as_secs_f64(),
            p50_us: latency.quantile_us(0.5),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if FILE_BYTES < self.offset + length {
            self.offset = 0;
        }
        let file: &File = self.file.as_file();
        file.write_all_at(bytes, self.offset)?;
        self.offset += length;
        file.sync_data()
    }
}
