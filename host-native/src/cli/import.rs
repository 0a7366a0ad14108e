//! `iii-stream import`: reads what was exported, an engine's directory or its Redis, or a data directory, and sets it in a
//! running server or writes it into a data directory.

use std::path::{Path, PathBuf};

use clap::Args;
use tokio::runtime::Handle;

use super::Failure;
use super::server_end::{ServerSink, url};
use super::source_file::SourceFile;
use crate::clock;
use crate::config::{Config, FileConfig, StoreConfig};
use crate::store::Durability;
use crate::transfer::copying::{OnDamage, Tally, copy, look_through};
use crate::transfer::data_directory::DataSink;
use crate::transfer::entry::ItemSink;
use crate::transfer::naming::Naming;
use crate::transfer::progress::Progress;

/// Room for what waits for the disk: more than an import sends at a time.
const QUEUE_BYTES_MIN: usize = 256 << 20;

/// How many names are told that could be understood in more than one way; the rest is counted.
const AMBIGUOUS_TOLD_MAX: usize = 100;

/// How an engine's data is read.
#[derive(Debug, Args)]
pub(super) struct NamingOptions {
    /// A stream whose name has a colon, in a directory or a Redis of an engine; can be given more than once.
    #[arg(long, value_name = "NAME")]
    stream_name: Vec<String>,
    /// The directory is of an engine's state: every file is a scope, whatever its name.
    #[arg(long)]
    state: bool,
}

/// What `iii-stream import` is asked.
#[derive(Debug, Args)]
#[command(
    after_help = "Everything is looked through before anything is written: if something cannot be read, nothing is imported, unless \
--skip-damaged is given. Standard input is the exception, because it comes only once.

With --data no server is asked: everything is written into the data directory of one that is stopped, or into a new one, and is \
on the disk when the command ends. Without it a running server takes it.

What is there already stays, except for items with the same names, which are replaced. So importing again does no harm. \
Items with a time to live start it anew in a running server, and keep it with --data; those whose time was over before the \
import are left out.

The source is only read. Stop the engine before you import its directory: what it has not written yet is not in there. Its Redis \
can be read while it runs; what it changes meanwhile comes along or not.

  iii-stream import --from ./kv_store_data.db --data data/stream_store
  iii-stream import --from redis://localhost:6379 --data data/stream_store
  iii-stream import --from backup.jsonl
  zcat backup.jsonl.gz | iii-stream import --from -"
)]
pub(super) struct ImportArguments {
    /// A file of JSON lines, - for standard input, the kv directory of an iii engine or its Redis as redis://HOST:PORT/DATABASE,
    /// or the data directory of a server that is stopped.
    #[arg(long, value_name = "SOURCE")]
    from: PathBuf,
    /// Where the server takes workers, as HOST:PORT or ws://…; III_TOKEN holds its token, if it has one.
    #[arg(
        long,
        visible_alias = "worker-url",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:49134"
    )]
    address: String,
    /// The data directory of a server that is stopped, or a new one, instead of a running server.
    #[arg(long, value_name = "DIR", conflicts_with = "address")]
    data: Option<PathBuf>,
    /// Import what can be read, and leave out what is damaged.
    #[arg(long)]
    skip_damaged: bool,
    #[command(flatten)]
    naming: NamingOptions,
}

impl NamingOptions {
    pub(super) fn naming(&self) -> Naming {
        Naming {
            is_state: self.state,
            streams: self.stream_name.clone(),
        }
    }
}

/// Sets everything in a server, or writes it into a data directory.
pub(super) fn import(
    runtime: &Handle,
    config: &Config,
    arguments: &ImportArguments,
) -> Result<(), Failure> {
    let naming = arguments.naming.naming();
    let file = SourceFile::find(&arguments.from, &naming, config.bounds.group)?;
    // First, so that nobody waits for a look through a large file to hear that there is no server.
    let mut sink = sink(runtime, config, arguments)?;
    tell_notes(&file);
    if file.is_repeatable() && !arguments.skip_damaged {
        let damaged = look(&file, "checked")?.damaged;
        if 0 < damaged {
            return Err(format!(
                "{} cannot be read, so nothing was imported. With --skip-damaged the rest is imported",
                places(damaged)
            )
            .into());
        }
    }
    let on_damage = if arguments.skip_damaged {
        OnDamage::Skip
    } else {
        OnDamage::Stop
    };
    let mut source = file.open()?;
    let mut progress = Progress::start("imported", file.bytes());
    let now_ms = clock::unix_ms();
    let copied = copy(&mut *source, &mut *sink, on_damage, now_ms, &mut progress);
    progress.finish(source.bytes_read());
    tell_ambiguous(&file);
    outcome(&copied?)
}

/// Where everything goes.
fn sink(
    runtime: &Handle,
    config: &Config,
    arguments: &ImportArguments,
) -> Result<Box<dyn ItemSink>, Failure> {
    let Some(data) = &arguments.data else {
        let sink = ServerSink::connect(runtime, &url(&arguments.address)).map_err(|error| {
            format!(
                "{error}. Start a server, or write into its data directory while it is stopped: --data {}",
                FileConfig::DIR
            )
        })?;
        return Ok(Box::new(sink));
    };
    let same = |path: &Path| std::fs::canonicalize(path).ok();
    if same(data).is_some() && same(data) == same(&arguments.from) {
        return Err(format!("{} cannot be imported into itself", data.display()).into());
    }
    let bare = Config::bare();
    let file = [&config.store, &bare.store]
        .into_iter()
        .find_map(|store| match store {
            StoreConfig::File(file) => Some(file),
            _ => None,
        })
        .ok_or("the configuration names no data directory")?;
    let mut options = file.options(config.bounds.group, config.bounds.history_total_bytes_max);
    options.durability = Durability::Fsync;
    options.queue_bytes_max = options.queue_bytes_max.max(QUEUE_BYTES_MIN);
    Ok(Box::new(DataSink::open(runtime, data, options)?))
}

pub(super) fn look(file: &SourceFile, verb: &'static str) -> Result<Tally, Failure> {
    let mut source = file.open()?;
    let mut progress = Progress::start(verb, file.bytes());
    let seen = look_through(&mut *source, &mut progress);
    progress.finish(source.bytes_read());
    Ok(seen?)
}

pub(super) fn tell_notes(file: &SourceFile) {
    for note in file.notes() {
        eprintln!("warning: {note}");
    }
}

/// Tells the names that could be understood in more than one way.
pub(super) fn tell_ambiguous(file: &SourceFile) {
    let ambiguous = file.ambiguous();
    for line in ambiguous.iter().take(AMBIGUOUS_TOLD_MAX) {
        eprintln!("ambiguous: {line}");
    }
    if let Some(rest @ 1..) = ambiguous.len().checked_sub(AMBIGUOUS_TOLD_MAX) {
        eprintln!("… and {rest} more ambiguous");
    }
}

/// What is wrong with an import that went through, if anything is.
fn outcome(tally: &Tally) -> Result<(), Failure> {
    if 0 < tally.expired {
        eprintln!("left out: {} whose time was over", items(tally.expired));
    }
    if 0 < tally.damaged {
        eprintln!("left out: {} that cannot be read", places(tally.damaged));
    }
    if 0 < tally.refused {
        let refused = items(tally.refused);
        return Err(format!("{refused} refused; the rest is imported").into());
    }
    Ok(())
}

fn items(count: u64) -> String {
    plural(count, "item", "items")
}

pub(super) fn places(count: u64) -> String {
    plural(count, "place", "places")
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
