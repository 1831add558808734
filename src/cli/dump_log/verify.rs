//! `--verify`: the check of the broker's scrubber for files, partition directories or whole data directories, with an exit code
//! for scripts: 0 all is sound, 1 something is damaged or cannot be read. Meant for directories that no broker has open.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{DumpError, base_offset, reading};
use crate::cli::EXIT_FAILURE;
use crate::log::inspect::read_producer_snapshot;
use crate::log::scrub::check_segment;

/// Checks everything below `names` and prints a line for each segment and each finding.
pub(super) fn verify(names: &[String], out: &mut impl Write) -> Result<ExitCode, DumpError> {
    let mut files = Vec::new();
    for name in names {
        collect(Path::new(name), true, &mut files)?;
    }
    let (mut batches, mut bytes, mut findings) = (0, 0, 0);
    for path in &files {
        if has_suffix(path, "snapshot") {
            if let Err(fault) = read_producer_snapshot(path).map_err(reading(path))? {
                findings += 1;
                writeln!(out, "{}: {fault}", path.display())?;
            }
            continue;
        }
        let base = base_offset(path)?;
        let is_last = is_last_segment(path).map_err(reading(path))?;
        let checked = check_segment(path, base, is_last, |_| true).map_err(reading(path))?;
        let check = checked.expect("nobody ends the check early");
        batches += check.batches;
        bytes += check.bytes;
        findings += check.findings_count;
        let result = if check.is_sound() { "ok" } else { "damaged" };
        let unused = match check.unused_bytes {
            0 => String::new(),
            zeros => format!(", {zeros} bytes preallocated"),
        };
        let (path, count) = (path.display(), check.batches);
        writeln!(
            out,
            "{path}: {count} batches, {} bytes{unused}, {result}",
            check.bytes
        )?;
        for finding in &check.findings {
            let (position, offset) = (finding.position, finding.offset);
            writeln!(
                out,
                "  position {position}, offset {offset}: {}",
                finding.what
            )?;
        }
        let untold = check.findings_count - check.findings.len() as u64;
        if untold > 0 {
            writeln!(out, "  and {untold} more")?;
        }
    }
    writeln!(
        out,
        "{} files, {batches} batches, {bytes} bytes: {findings} findings",
        files.len()
    )?;
    Ok(if findings == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILURE)
    })
}

/// Whether no segment of the same log has a higher base offset: names of equal length, in order.
fn is_last_segment(path: &Path) -> io::Result<bool> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    for entry in fs::read_dir(dir.unwrap_or(Path::new(".")))? {
        let other = PathBuf::from(entry?.file_name());
        if has_suffix(&other, "log") && Some(other.as_os_str()) > path.file_name() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.extension().is_some_and(|found| found == suffix)
}

/// A file that was named, or the segments and snapshots of a directory and of those below it, in order.
fn collect(path: &Path, named: bool, files: &mut Vec<PathBuf>) -> Result<(), DumpError> {
    if !path.is_dir() {
        let checked = has_suffix(path, "log") || has_suffix(path, "snapshot");
        if named && !checked {
            return Err(DumpError::Refused(format!(
                "{}: --verify takes .log and .snapshot files, and directories",
                path.display()
            )));
        }
        if checked {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(reading(path))?;
    let mut below = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(reading(path))?;
    below.sort();
    for path in below {
        collect(&path, false, files)?;
    }
    Ok(())
}
