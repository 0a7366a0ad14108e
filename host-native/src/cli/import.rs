//! `iii-stream import` and `iii-stream verify`: read what was exported, or an engine's directory, and set it in a server.

use std::path::PathBuf;

use clap::Args;
use tokio::runtime::Handle;

use super::Failure;
use super::server_end::{ServerSink, url};
use super::source_file::SourceFile;
use crate::clock;
use crate::transfer::copying::{OnDamage, Tally, copy, look_through};
use crate::transfer::kv_directory::Naming;
use crate::transfer::progress::Progress;

/// How an engine's directory is read.
#[derive(Debug, Args)]
pub(super) struct NamingOptions {
    /// A stream whose name has a colon, in a directory of an engine; can be given more than once.
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

What is there already stays, except for items with the same names, which are replaced. So importing again does no harm. \
Items with a time to live start it anew; those whose time was over before the import are left out.

The source is only read. Stop the engine before you import its directory: what it has not written yet is not in there.

  iii-stream import --from ./kv_store_data.db
  iii-stream import --from backup.jsonl
  zcat backup.jsonl.gz | iii-stream import --from -"
)]
pub(super) struct ImportArguments {
    /// A file of JSON lines, - for standard input, or the kv directory of an iii engine.
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// Where the server takes workers, as HOST:PORT or ws://…; III_TOKEN holds its token, if it has one.
    #[arg(
        long,
        visible_alias = "worker-url",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:49134"
    )]
    address: String,
    /// Import what can be read, and leave out what is damaged.
    #[arg(long)]
    skip_damaged: bool,
    #[command(flatten)]
    naming: NamingOptions,
}

/// What `iii-stream verify` is asked.
#[derive(Debug, Args)]
#[command(after_help = "Nothing is changed and no server is needed.

  iii-stream verify backup.jsonl
  iii-stream verify ./kv_store_data.db")]
pub(super) struct VerifyArguments {
    /// A file of JSON lines, - for standard input, or the kv directory of an iii engine.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    #[command(flatten)]
    naming: NamingOptions,
}

impl NamingOptions {
    fn naming(&self) -> Naming {
        Naming {
            is_state: self.state,
            streams: self.stream_name.clone(),
        }
    }
}

/// Sets everything in a server.
pub(super) fn import(runtime: &Handle, arguments: &ImportArguments) -> Result<(), Failure> {
    let file = SourceFile::find(&arguments.from, &arguments.naming.naming())?;
    // First, so that nobody waits for a look through a large file to hear that there is no server.
    let mut sink = ServerSink::connect(runtime, &url(&arguments.address))?;
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
    let copied = copy(&mut *source, &mut sink, on_damage, now_ms, &mut progress);
    progress.finish(source.bytes_read());
    outcome(&copied?)
}

/// Reads everything, and says whether it can be imported.
pub(super) fn verify(arguments: &VerifyArguments) -> Result<(), Failure> {
    let file = SourceFile::find(&arguments.path, &arguments.naming.naming())?;
    tell_notes(&file);
    match look(&file, "read")?.damaged {
        0 => {
            println!("ok");
            Ok(())
        }
        damaged => Err(format!("{} cannot be read", places(damaged)).into()),
    }
}

fn look(file: &SourceFile, verb: &'static str) -> Result<Tally, Failure> {
    let mut source = file.open()?;
    let mut progress = Progress::start(verb, file.bytes());
    let seen = look_through(&mut *source, &mut progress);
    progress.finish(source.bytes_read());
    Ok(seen?)
}

fn tell_notes(file: &SourceFile) {
    for note in file.notes() {
        eprintln!("warning: {note}");
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
        return Err(format!("the server refused {refused}; the rest is imported").into());
    }
    Ok(())
}

fn items(count: u64) -> String {
    plural(count, "item", "items")
}

fn places(count: u64) -> String {
    plural(count, "place", "places")
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
