//! `iii-stream verify`: reads an export, an engine's directory or its Redis, or a data directory, and says what is wrong with it; repairs a data
//! directory if asked.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanCount;

use super::Failure;
use super::import::{NamingOptions, look, places, tell_ambiguous, tell_notes};
use super::source_file::SourceFile;
use crate::clock;
use crate::config::Config;
use crate::store::STATE_DIR;
use crate::store::file::looking::is_store;
use crate::store::file::repairing::{begin_new_era, repair};
use crate::store::file::verifying::{Counts, Verified, verify as verify_store};
use crate::transfer::progress::Progress;

/// What `iii-stream verify` is asked.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is changed unless --repair or --new-era is given, and no server is needed; one that uses a data directory must be \
stopped first. The command ends with 1 if something is damaged.

--repair cuts the log at the first place that cannot be read, takes damaged groups back to the last change that can be read, and \
drops those of which nothing can. What it drops it keeps in files whose names begin with lost-. A backup may lose less.

  iii-stream verify data/stream_store
  iii-stream verify --repair data/stream_store
  iii-stream verify backup.jsonl
  iii-stream verify ./kv_store_data.db
  iii-stream verify redis://localhost:6379"
)]
pub(super) struct VerifyArguments {
    /// A data directory, a file of JSON lines, - for standard input, or the kv directory of an iii engine or its Redis as
    /// redis://HOST:PORT/DATABASE.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Make a damaged data directory usable again.
    #[arg(long)]
    repair: bool,
    /// Give all histories of a data directory new names: do so once after it was restored from a backup or copied, so that
    /// subscribers who have seen more begin anew.
    #[arg(long)]
    new_era: bool,
    #[command(flatten)]
    naming: NamingOptions,
}

/// Reads everything, and says whether it is whole.
pub(super) fn verify(config: &Config, arguments: &VerifyArguments) -> Result<(), Failure> {
    let path = &arguments.path;
    if path.is_dir() && is_store(path) {
        return verify_data(config, arguments);
    }
    if arguments.repair || arguments.new_era {
        let path = path.display();
        return Err(format!("{path} is no data directory of iii-stream").into());
    }
    let file = SourceFile::find(path, &arguments.naming.naming(), config.bounds.group)?;
    tell_notes(&file);
    let seen = look(&file, "read")?;
    tell_ambiguous(&file);
    match seen.damaged {
        0 => {
            println!("ok");
            Ok(())
        }
        damaged => Err(format!("{} cannot be read", places(damaged)).into()),
    }
}

fn verify_data(config: &Config, arguments: &VerifyArguments) -> Result<(), Failure> {
    let path = &arguments.path;
    let state = path.join(STATE_DIR);
    let mut dirs = vec![path.clone()];
    dirs.extend(Some(state).filter(|state| is_store(state)));
    let mut damages = look_at_all(config, &dirs)?;
    if 0 < damages && arguments.repair {
        for dir in &dirs {
            let mut say = |line: &str| eprintln!("repair: {line}");
            repair(dir, config.bounds.group, clock::unix_ms(), &mut say)?;
        }
        damages = look_at_all(config, &dirs)?;
    }
    if 0 < damages {
        return Err(format!("{} damaged", places(damages)).into());
    }
    if arguments.new_era {
        begin_new_era(path, clock::unix_ms())?;
        eprintln!("all histories have new names: subscribers begin anew with a whole state");
    }
    println!("ok");
    Ok(())
}

/// Reads directories and tells what there is to tell. How many places are damaged.
fn look_at_all(config: &Config, dirs: &[PathBuf]) -> Result<u64, Failure> {
    let mut damages = 0;
    for dir in dirs {
        let verified = look_at(config, dir)?;
        damages += verified.findings.iter().filter(|one| one.is_damage).count() as u64;
    }
    Ok(damages)
}

fn look_at(config: &Config, dir: &Path) -> Result<Verified, Failure> {
    let mut progress = Progress::start("read", None);
    let mut bytes_read = 0;
    let mut on_group = |items: u64, bytes: u64| {
        bytes_read += bytes;
        for _ in 0..items {
            progress.item(bytes_read);
        }
    };
    let verified = verify_store(dir, config.bounds.group, &mut on_group);
    progress.finish(bytes_read);
    let verified = verified?;
    for finding in &verified.findings {
        let word = if finding.is_damage { "damaged" } else { "note" };
        eprintln!("{word}: {}. {}", finding.trouble, sentence(&finding.advice));
    }
    let Counts {
        streams,
        groups,
        items,
        records,
        ..
    } = verified.counts;
    let [streams, groups, items, records] = [streams, groups, items, records].map(HumanCount);
    eprintln!(
        "{}: streams {streams}, groups {groups}, items {items}, changes in the log {records}",
        dir.display()
    );
    Ok(verified)
}

/// Begins with a capital, unless a name comes first.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}
