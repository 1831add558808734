//! The command line: `ottla [server] server.properties [--override key=value]...`, `ottla storage ...` and
//! `ottla dump-log ...`.
//!
//! Exit codes: 0 done, 1 failed while running or wrong usage, 78 the settings are wrong (sysexits' EX_CONFIG).

mod dump_log;
mod logging;
mod server;
mod storage;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError};

/// Something went wrong at run time.
const EXIT_FAILURE: u8 = 1;
/// The settings must be changed first.
const EXIT_CONFIG: u8 = 78;

/// A broker that speaks Apache Kafka's protocol.
#[derive(Debug, Parser)]
#[command(name = "ottla", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node; the same as no command.
    Server(ServerArgs),
    /// Format log directories and look at them (kafka-storage).
    #[command(subcommand)]
    Storage(storage::Command),
    /// Show what is in the files of a data directory (kafka-dump-log).
    #[command(infer_long_args = true)]
    DumpLog(dump_log::DumpLogArgs),
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// Kafka's server.properties; without one, a single node on port 9092 with data in /tmp/kraft-combined-logs.
    #[arg(value_name = "server.properties")]
    config: Option<PathBuf>,
    /// Sets one key, over the file.
    #[arg(long = "override", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
    /// Refuse to start where there would be a warning about the settings.
    #[arg(long)]
    strict_config: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Runs the command that `args` ask for, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(with_tool_name(args.into_iter().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            let failed = error.use_stderr();
            // A closed pipe is no reason to complain about help.
            let _ = error.print();
            return ExitCode::from(if failed { EXIT_FAILURE } else { 0 });
        }
    };
    match cli.command {
        None => server::run(&cli.server),
        Some(Command::Server(args)) => server::run(&args),
        Some(Command::Storage(command)) => storage::run(&command),
        Some(Command::DumpLog(args)) => dump_log::run(&args),
    }
}

/// A link to this binary under the name of a Kafka script is that script: `kafka-storage.sh` is `ottla storage`.
fn with_tool_name(mut args: Vec<OsString>) -> Vec<OsString> {
    let tool = args
        .first()
        .and_then(|program| Path::new(program).file_name()?.to_str())
        .map(|name| name.trim_end_matches(".sh"));
    let command = match tool {
        Some("kafka-storage") => "storage",
        Some("kafka-dump-log") => "dump-log",
        Some("kafka-server-start") => "server",
        _ => return args,
    };
    args.insert(1, command.into());
    args
}

/// Prints why the settings are wrong.
fn config_failure(error: &ConfigError) -> ExitCode {
    eprintln!("ottla: {error}");
    ExitCode::from(EXIT_CONFIG)
}

/// Loads the settings; with `strict`, a warning is an error.
fn load(args: &ServerArgs) -> Result<Config, ConfigError> {
    let config = Config::load(args.config.as_deref(), &args.overrides)?;
    match config.warnings.first() {
        Some(warning) if args.strict_config => Err(ConfigError {
            what: warning.clone(),
            next_step: "remove the key, or start without --strict-config".to_owned(),
        }),
        _ => Ok(config),
    }
}

#[cfg(test)]
mod tests;
