//! The command line: what is asked, and how its outcome is shown.

mod call;
mod check;
mod export;
mod import;
mod serve;
mod server_end;
mod socket_client;
mod source_file;
mod verify;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::bench;
use crate::config::Config;

/// Durable streams for real-time data: JSON items, live to every subscriber.
#[derive(Debug, Parser)]
#[command(name = "iii-stream", version, about)]
struct Arguments {
    /// The YAML file to start from; without it the defaults are used.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// For the first minute on your own machine: let its programs and pages, and nobody else, subscribe and write without a
    /// permission.
    #[arg(long)]
    open: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve workers and subscribers (the default).
    Serve,
    /// Read the configuration and say what is wrong with it.
    Check,
    /// Call a function and print its result.
    Call {
        /// The function, for example stream::set.
        function: String,
        /// Its input as JSON.
        #[arg(default_value = "null")]
        data: String,
        /// Where the server takes workers.
        #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:49134")]
        worker_url: String,
    },
    /// Write what a running server or a data directory has, as JSON lines.
    Export(export::ExportArguments),
    /// Bring items into a running server or a data directory: from an export, or from the directory or the Redis of an iii engine.
    Import(import::ImportArguments),
    /// Read a data directory, an export, or the directory of an iii engine, and say what is damaged; repair a data directory.
    Verify(verify::VerifyArguments),
    /// Put load on a running server and measure it.
    Bench(bench::Arguments),
    /// Show a group, or one item of it, and then every change.
    Watch {
        /// The stream's name.
        stream: String,
        /// The group's id.
        group: String,
        /// The item's id.
        item: Option<String>,
        /// Where the server takes subscribers.
        #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:3112")]
        url: String,
        /// Print each frame as it comes.
        #[arg(long)]
        json: bool,
    },
}

/// Why a command failed, in words; causes follow after colons.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let config = arguments.config.as_deref();
    let command = arguments.command.unwrap_or(Command::Serve);
    if arguments.open && !matches!(command, Command::Serve | Command::Check) {
        eprintln!(
            "error: --open is about how a server starts: it goes with `serve` and `check` only"
        );
        return ExitCode::FAILURE;
    }
    let starting = || match config {
        _ if arguments.open => Config::read_open(config).map_err(Into::into),
        _ => configuration(config),
    };
    let outcome = match command {
        Command::Serve => runtime.block_on(serve::run(starting)),
        Command::Check => starting().map(|config| check::run(&config)),
        Command::Export(arguments) => configuration(config)
            .and_then(|config| export::export(runtime.handle(), &config, &arguments)),
        Command::Import(arguments) => configuration(config)
            .and_then(|config| import::import(runtime.handle(), &config, &arguments)),
        Command::Verify(arguments) => {
            configuration(config).and_then(|config| verify::verify(&config, &arguments))
        }
        Command::Bench(arguments) => bench::run(&arguments).map_err(Into::into),
        Command::Call {
            function,
            data,
            worker_url,
        } => runtime.block_on(call::run(&worker_url, &function, &data)),
        Command::Watch {
            stream,
            group,
            item,
            url,
            json,
        } => runtime.block_on(watch::run(&url, &stream, &group, item.as_deref(), json)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// What a server would be started with, for the bounds of groups.
fn configuration(path: Option<&Path>) -> Result<Config, Failure> {
    Ok(match path {
        Some(path) => Config::read(path)?,
        None => Config::bare(),
    })
}

/// An error with its causes, but for those that it tells of itself.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}
