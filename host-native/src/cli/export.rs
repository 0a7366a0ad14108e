//! `iii-stream export`: writes what a running server or a data directory has as JSON lines.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::runtime::Handle;

use super::Failure;
use super::server_end::{ServerSource, url};
use crate::clock;
use crate::config::Config;
use crate::transfer::copying::{OnDamage, Tally, copy};
use crate::transfer::data_directory::DataDirectory;
use crate::transfer::entry::{ItemSink, ItemSource};
use crate::transfer::lines::LineSink;
use crate::transfer::progress::Progress;

/// How much is written at a time, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

const VERB: &str = "exported";

/// What `iii-stream export` is asked.
#[derive(Debug, Args)]
#[command(
    after_help = "One item per line, groups in the order their items were created, then the keys of the state. Read it back with: \
iii-stream import --from FILE

Each group is written as it is at one moment, different groups at different moments. For all at the same moment let nobody \
write meanwhile. The server and this program hold one group at a time in memory. With --data no server is asked: it must be \
stopped, and the directory is only read.

  iii-stream export backup.jsonl
  iii-stream export --data data/stream_store backup.jsonl
  iii-stream export --stream chat | gzip > chat.jsonl.gz"
)]
pub(super) struct ExportArguments {
    /// The file to write, which must not be there yet; without it, or as -, standard output.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only this stream, without the state; can be given more than once.
    #[arg(long, value_name = "NAME")]
    stream: Vec<String>,
    /// Where the server takes workers, as HOST:PORT or ws://…; III_TOKEN holds its token, if it has one.
    #[arg(
        long,
        visible_alias = "worker-url",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:49134"
    )]
    address: String,
    /// The data directory of a server that is stopped, instead of a running server.
    #[arg(long, value_name = "DIR", conflicts_with = "address")]
    data: Option<PathBuf>,
}

/// Writes everything, or these streams.
pub(super) fn export(
    runtime: &Handle,
    config: &Config,
    arguments: &ExportArguments,
) -> Result<(), Failure> {
    let path = arguments
        .file
        .as_deref()
        .filter(|path| *path != Path::new("-"));
    if let Some(path) = path.filter(|path| path.exists()) {
        return Err(format!("{} is there already: name another file", path.display()).into());
    }
    let (mut source, bytes) = source(runtime, config, arguments)?;
    let source = &mut *source;
    let Some(path) = path else {
        let mut sink = LineSink::new(BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()));
        let mut progress = Progress::start(VERB, bytes);
        if io::stdout().is_terminal() {
            progress = progress.without_bar();
        }
        let tally = write(source, &mut sink, progress)?;
        return complete(&tally, "what was written");
    };
    // Under another name until it is whole, so that nobody takes a part for everything.
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let cannot =
        |path: &Path, error: &io::Error| format!("cannot write {}: {error}", path.display());
    let file = File::create(&part).map_err(|error| cannot(&part, &error))?;
    let mut sink = LineSink::new(BufWriter::with_capacity(BUFFER_BYTES, file));
    let tally = write(source, &mut sink, Progress::start(VERB, bytes))?;
    let synced = sink
        .into_inner()
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all());
    synced.map_err(|error| cannot(&part, &error))?;
    complete(&tally, &part.display().to_string())?;
    fs::rename(&part, path).map_err(|error| cannot(path, &error))?;
    Ok(())
}

/// Where items come from, and how many bytes there are to read where that is known.
fn source(
    runtime: &Handle,
    config: &Config,
    arguments: &ExportArguments,
) -> Result<(Box<dyn ItemSource>, Option<u64>), Failure> {
    let streams = &arguments.stream;
    let Some(data) = &arguments.data else {
        let source = ServerSource::connect(runtime, &url(&arguments.address), streams)?;
        return Ok((Box::new(source), None));
    };
    let directory = DataDirectory::open(data, config.bounds.group)?;
    for missing in streams {
        if !directory.has_stream(missing) {
            return Err(format!("there is no stream `{missing}` in {}", data.display()).into());
        }
    }
    Ok((Box::new(directory.items(streams)), Some(directory.bytes)))
}

fn write(
    source: &mut dyn ItemSource,
    sink: &mut dyn ItemSink,
    mut progress: Progress,
) -> Result<Tally, Failure> {
    // A server deletes items whose time is over; in a directory they may still be.
    let now_ms = clock::unix_ms();
    let tally = copy(source, sink, OnDamage::Skip, now_ms, &mut progress);
    progress.finish(source.bytes_read());
    Ok(tally?)
}

/// Whether everything was had.
fn complete(tally: &Tally, written: &str) -> Result<(), Failure> {
    match tally.damaged {
        0 => Ok(()),
        1 => Err(format!("1 group could not be read: {written} is without it").into()),
        groups => {
            Err(format!("{groups} groups could not be read: {written} is without them").into())
        }
    }
}
