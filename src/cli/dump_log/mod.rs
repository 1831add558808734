//! `ottla dump-log`: what kafka-dump-log (`DumpLogSegments`) prints of segments, indexes, producer snapshots and metadata
//! snapshots, with its flags; and `--verify`, which Kafka does not have.
//!
//! Reads only, batch by batch; nothing is created or repaired. A file that cannot be read ends the run with exit code 1,
//! as the tool's exceptions do; findings in indexes go to stderr at the end and leave the exit code 0, also as there.

mod decoder;
mod index_files;
mod log_file;
mod verify;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use self::decoder::Decoder;
use super::EXIT_FAILURE;
use crate::types::Offset;

const STRING_DECODER: &str = "org.apache.kafka.tools.api.StringDecoder";

/// Kafka's flags, and `--verify`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "Kafka's flags")]
pub(super) struct DumpLogArgs {
    /// The comma separated list of data and index log files to be dumped.
    #[arg(long, required = true, value_delimiter = ',', value_name = "FILE")]
    files: Vec<String>,
    /// Print each record's metadata, not only its batch. Set by --print-data-log.
    #[arg(long)]
    deep_iteration: bool,
    /// Print the messages' content. Set by every decoder option.
    #[arg(long)]
    print_data_log: bool,
    /// Just verify the index log without printing its content.
    #[arg(long)]
    verify_index_only: bool,
    /// Just check the index sanity without printing its content, as a start of the broker does.
    #[arg(long)]
    index_sanity_check: bool,
    /// Size of largest message.
    #[arg(long, default_value_t = 5 * 1024 * 1024, value_name = "BYTES")]
    max_message_size: u32,
    /// Limit the amount of total batches read in bytes, avoiding reading the whole .log file(s).
    #[arg(long, default_value_t = i32::MAX as u32, value_name = "BYTES")]
    max_bytes: u32,
    /// Skip metadata when printing records. This flag also skips control records.
    #[arg(long)]
    skip_record_metadata: bool,
    /// Parse the log data as cluster metadata records.
    #[arg(long)]
    cluster_metadata_decoder: bool,
    /// Parse the log data as offset data from the __consumer_offsets topic.
    #[arg(long)]
    offsets_decoder: bool,
    /// Parse the log data as transaction metadata from the __transaction_state topic.
    #[arg(long)]
    transaction_log_decoder: bool,
    /// Not supported: there is no tiered storage.
    #[arg(long)]
    remote_log_metadata_decoder: bool,
    /// Parse the log data as share group state from the __share_group_state topic.
    #[arg(long)]
    share_group_state_decoder: bool,
    /// Check the CRC of every batch, the indexes against the log, and producer snapshots, of files or directories. Exit
    /// code 1 if anything is damaged. Not one of Kafka's flags.
    #[arg(long)]
    verify: bool,
    /// Deserializes the values: Kafka's String-, Integer- or LongDecoder.
    #[arg(long, num_args = 0..=1, default_missing_value = STRING_DECODER, value_name = "CLASS")]
    value_decoder_class: Option<String>,
    /// Deserializes the keys: Kafka's String-, Integer- or LongDecoder.
    #[arg(long, num_args = 0..=1, default_missing_value = STRING_DECODER, value_name = "CLASS")]
    key_decoder_class: Option<String>,
}

impl DumpLogArgs {
    fn prints_data(&self) -> bool {
        self.print_data_log
            || self.cluster_metadata_decoder
            || self.offsets_decoder
            || self.transaction_log_decoder
            || self.share_group_state_decoder
            || self.value_decoder_class.is_some()
            || self.key_decoder_class.is_some()
    }
}

/// Why the tool stops.
#[derive(Debug, thiserror::Error)]
enum DumpError {
    #[error("{0}")]
    Refused(String),
    /// Whoever read the output went away, or the output's disk is full.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("{path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// Names the file that an error of reading belongs to.
fn reading(path: &Path) -> impl Fn(io::Error) -> DumpError + '_ {
    |source| DumpError::Read {
        path: path.to_owned(),
        source,
    }
}

/// What is told at the end, file by file.
#[derive(Debug, Default)]
struct Findings {
    /// Index entries whose batch ends elsewhere: entry, found.
    index_mismatches: BTreeMap<PathBuf, BTreeMap<std::cmp::Reverse<Offset>, Offset>>,
    time_mismatches: BTreeMap<PathBuf, Vec<(i64, i64)>>,
    time_out_of_order: BTreeMap<PathBuf, Vec<(i64, i64)>>,
    time_offsets_not_found: BTreeMap<PathBuf, Vec<(Offset, Offset)>>,
    non_consecutive: BTreeMap<PathBuf, BTreeMap<Offset, Offset>>,
}

impl Findings {
    fn print(&self) {
        for (path, pairs) in &self.index_mismatches {
            eprintln!("Mismatches in :{}", path.display());
            for (index, log) in pairs {
                eprintln!("  Index offset: {}, log offset: {log}", index.0);
            }
        }
        for (path, pairs) in &self.time_mismatches {
            eprintln!("Found timestamp mismatch in :{}", path.display());
            for (index, log) in pairs {
                eprintln!("  Index timestamp: {index}, log timestamp: {log}");
            }
        }
        for (path, pairs) in &self.time_out_of_order {
            eprintln!("Found out of order timestamp in :{}", path.display());
            for (index, before) in pairs {
                eprintln!("  Index timestamp: {index}, Previously indexed timestamp: {before}");
            }
        }
        for (path, pairs) in &self.time_offsets_not_found {
            eprintln!(
                "The following indexed offsets are not found in :{}",
                path.display()
            );
            for (index, log) in pairs {
                eprintln!("Indexed offset: {index}, found log offset: {log}");
            }
        }
        for (path, pairs) in &self.non_consecutive {
            eprintln!("Non-consecutive offsets in {}", path.display());
            for (before, offset) in pairs {
                eprintln!("  {before} is followed by {offset}");
            }
        }
    }
}

pub(super) fn run(args: &DumpLogArgs) -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let done = if args.verify {
        verify::verify(&args.files, &mut out).and_then(|code| {
            out.flush()?;
            Ok(code)
        })
    } else {
        dump(args, &mut out).and_then(|findings| {
            out.flush()?;
            findings.print();
            Ok(ExitCode::SUCCESS)
        })
    };
    match done {
        Ok(code) => code,
        Err(DumpError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // What was found before the failure is shown, like the tool's unbuffered output.
            let _ = out.flush();
            eprintln!("ottla dump-log: {error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn dump(args: &DumpLogArgs, out: &mut impl Write) -> Result<Findings, DumpError> {
    let decoder = Decoder::chosen(args)?;
    let mut findings = Findings::default();
    for name in &args.files {
        let name = java_path(name);
        let path = Path::new(&name);
        writeln!(out, "Dumping {name}")?;
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("log" | "checkpoint") => {
                log_file::dump(path, args, &decoder, &mut findings, out)?;
            }
            Some("index") => index_files::dump_index(path, args, &mut findings, out)?,
            Some("timeindex") => index_files::dump_time_index(path, args, &mut findings, out)?,
            Some("txnindex") => index_files::dump_txn_index(path, out)?,
            Some("snapshot") => index_files::dump_producer_snapshot(path, out)?,
            _ => {
                out.flush()?;
                eprintln!("Ignoring unknown file {name}");
            }
        }
    }
    Ok(findings)
}

/// The path as `java.io.File` shows it: no doubled or trailing slashes.
fn java_path(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for c in name.chars() {
        if c != '/' || !path.ends_with('/') {
            path.push(c);
        }
    }
    if path.len() > 1 && path.ends_with('/') {
        path.pop();
    }
    path
}

/// The offset that a segment's file is named after.
fn base_offset(path: &Path) -> Result<Offset, DumpError> {
    path.file_name()
        .and_then(|name| name.to_str()?.split('.').next()?.parse().ok())
        .ok_or_else(|| {
            DumpError::Refused(format!("{} is not named after an offset", path.display()))
        })
}

/// The path that a finding is told under.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests;
