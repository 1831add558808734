//! Offset, time and transaction indexes, and producer snapshots.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::log_file::optional_long;
use super::{DumpError, DumpLogArgs, Findings, absolute, base_offset, reading};
use crate::log::BatchScanner;
use crate::log::inspect::{self, OffsetPosition};
use crate::types::{NO_TIMESTAMP, Offset};

/// Bytes read at a time where one batch is looked for.
const CHUNK: usize = 4096;
/// Version, producer id, first offset, last offset, last stable offset.
const ABORTED_TXN_SIZE: usize = 34;

pub(super) fn dump_index(
    path: &Path,
    args: &DumpLogArgs,
    findings: &mut Findings,
    out: &mut impl Write,
) -> Result<(), DumpError> {
    let base = base_offset(path)?;
    let log = path.with_extension("log");
    let file = File::open(&log).map_err(reading(&log))?;
    let size = file.metadata().map_err(reading(&log))?.len();
    let index = inspect::read_offset_index(path, base).map_err(reading(path))?;
    let Some(last) = index.entries.last() else {
        writeln!(out, "{} is empty.", path.display())?;
        return Ok(());
    };
    if args.index_sanity_check {
        if last.offset < base {
            return Err(DumpError::Refused(format!(
                "Corrupt index found, index file {} has non-zero size but the last offset is {} \
                 which is less than the base offset {base}",
                absolute(path).display(),
                last.offset
            )));
        }
        check_whole_entries("Index", path, index.size_bytes, 8)?;
        writeln!(out, "{} passed sanity check.", path.display())?;
        return Ok(());
    }
    for (at, entry) in index.entries.iter().enumerate() {
        if entry.offset == base && at > 0 {
            // Behind the entries of an open index file there are zeros.
            return Ok(());
        }
        let last_offset = last_offset_at(&log, &file, size, entry, args.max_message_size)?;
        if last_offset != entry.offset {
            let mismatches = findings.index_mismatches.entry(absolute(path)).or_default();
            mismatches.insert(std::cmp::Reverse(entry.offset), last_offset);
        }
        if !args.verify_index_only {
            writeln!(out, "offset: {} position: {}", entry.offset, entry.position)?;
        }
    }
    Ok(())
}

fn check_whole_entries(
    what: &str,
    path: &Path,
    size_bytes: usize,
    entry_size: usize,
) -> Result<(), DumpError> {
    if size_bytes.is_multiple_of(entry_size) {
        return Ok(());
    }
    Err(DumpError::Refused(format!(
        "{what} file {} is corrupt, found {size_bytes} bytes which is neither positive nor a multiple of {entry_size}",
        absolute(path).display()
    )))
}

/// Last offset of the batch that an index entry points to, if it ends within `max_message_size`.
fn last_offset_at(
    log: &Path,
    file: &File,
    size: u64,
    entry: &OffsetPosition,
    max_message_size: u32,
) -> Result<Offset, DumpError> {
    let end = size.min(entry.position + u64::from(max_message_size));
    let found = match entry.position.min(end) {
        position if position == entry.position => BatchScanner::new(file, position, end, CHUNK)
            .next_header()
            .map_err(reading(log))?,
        _ => None,
    };
    found
        .map(|batch| batch.header.last_offset())
        .ok_or_else(|| {
            DumpError::Refused(format!(
                "{}: no batch of at most {max_message_size} bytes at position {}, where the index has offset {}",
                log.display(),
                entry.position,
                entry.offset
            ))
        })
}

pub(super) fn dump_time_index(
    path: &Path,
    args: &DumpLogArgs,
    findings: &mut Findings,
    out: &mut impl Write,
) -> Result<(), DumpError> {
    let base = base_offset(path)?;
    let (log, index) = (path.with_extension("log"), path.with_extension("index"));
    let file = File::open(&log).map_err(reading(&log))?;
    let size = file.metadata().map_err(reading(&log))?.len();
    let offsets = inspect::read_offset_index(&index, base).map_err(reading(&index))?;
    let times = inspect::read_time_index(path, base).map_err(reading(path))?;
    if args.index_sanity_check {
        check_time_index(path, base, &times)?;
        writeln!(out, "{} passed sanity check.", path.display())?;
        return Ok(());
    }
    let zeros = |(at, entry): (usize, &OffsetPosition)| at > 0 && entry.offset == base;
    let used = offsets.entries.iter().enumerate().position(zeros);
    let offsets = &offsets.entries[..used.unwrap_or(offsets.entries.len())];
    let mut before = NO_TIMESTAMP;
    for (at, entry) in times.entries.iter().enumerate() {
        if entry.offset == base && at > 0 {
            return Ok(());
        }
        let at = offsets.partition_point(|known| known.offset <= entry.offset);
        let from = at.checked_sub(1).map_or(0, |at| offsets[at].position);
        let key = || absolute(path);
        match find_batch(&log, &file, size, from, entry.offset)? {
            Some((last_offset, max_timestamp)) if last_offset == entry.offset => {
                if max_timestamp != entry.timestamp {
                    let found = findings.time_mismatches.entry(key()).or_default();
                    found.push((entry.timestamp, max_timestamp));
                }
                if before >= entry.timestamp {
                    let found = findings.time_out_of_order.entry(key()).or_default();
                    found.push((entry.timestamp, before));
                }
            }
            other => {
                let last_offset = other.map_or(-1, |(last_offset, _)| last_offset);
                let found = findings.time_offsets_not_found.entry(key()).or_default();
                found.push((entry.offset, last_offset));
            }
        }
        if !args.verify_index_only {
            writeln!(
                out,
                "timestamp: {} offset: {}",
                entry.timestamp, entry.offset
            )?;
        }
        before = entry.timestamp;
    }
    Ok(())
}

fn check_time_index(
    path: &Path,
    base: Offset,
    times: &inspect::IndexFile<inspect::TimestampAt>,
) -> Result<(), DumpError> {
    if let (Some(first), Some(last)) = (times.entries.first(), times.entries.last()) {
        let corrupt = |what: String| {
            Err(DumpError::Refused(format!(
                "Corrupt time index found, time index file ({}) has non-zero size but {what}",
                absolute(path).display()
            )))
        };
        if last.timestamp < first.timestamp {
            return corrupt(format!(
                "the last timestamp is {} which is less than the first timestamp {}",
                last.timestamp, first.timestamp
            ));
        }
        if last.offset < base {
            return corrupt(format!(
                "the last offset is {} which is less than the first offset {base}",
                last.offset
            ));
        }
    }
    check_whole_entries("Time index", path, times.size_bytes, 12)
}

/// Last offset and largest timestamp of the first batch that ends at or behind `offset`.
fn find_batch(
    log: &Path,
    file: &File,
    size: u64,
    from: u64,
    offset: Offset,
) -> Result<Option<(Offset, i64)>, DumpError> {
    let mut scanner = BatchScanner::new(file, from.min(size), size, CHUNK);
    while let Some(batch) = scanner.next_header().map_err(reading(log))? {
        let last_offset = batch.header.last_offset();
        if last_offset >= offset {
            return Ok(Some((last_offset, batch.header.max_timestamp)));
        }
    }
    Ok(None)
}

pub(super) fn dump_txn_index(path: &Path, out: &mut impl Write) -> Result<(), DumpError> {
    let bytes = fs::read(path).map_err(reading(path))?;
    for entry in bytes.chunks_exact(ABORTED_TXN_SIZE) {
        let long = |at: usize| {
            let bytes = entry[at..at + 8].try_into().expect("within the entry");
            i64::from_be_bytes(bytes)
        };
        let version = i16::from_be_bytes([entry[0], entry[1]]);
        if version > 0 {
            return Err(DumpError::Refused(format!(
                "Unexpected aborted transaction version {version} in transaction index {}, current version is 0",
                absolute(path).display()
            )));
        }
        writeln!(
            out,
            "version: {version} producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
            long(2),
            long(10),
            long(18),
            long(26)
        )?;
    }
    Ok(())
}

pub(super) fn dump_producer_snapshot(path: &Path, out: &mut impl Write) -> Result<(), DumpError> {
    let producers = match inspect::read_producer_snapshot(path).map_err(reading(path))? {
        Ok(producers) => producers,
        Err(fault) => {
            out.flush()?;
            eprintln!("{fault}");
            return Ok(());
        }
    };
    for (id, entry) in producers {
        let open = entry.current_txn_first_offset;
        write!(
            out,
            "producerId: {id} producerEpoch: {} coordinatorEpoch: {} currentTxnFirstOffset: {} lastTimestamp: {}",
            entry.epoch,
            entry.coordinator_epoch,
            optional_long((open >= 0).then_some(open)),
            entry.last_timestamp
        )?;
        if let Some(batch) = entry.last_batch() {
            write!(
                out,
                " firstSequence: {} lastSequence: {} lastOffset: {} offsetDelta: {} timestamp: {}",
                batch.first_sequence(),
                batch.last_sequence,
                batch.last_offset,
                batch.offset_delta,
                batch.timestamp
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}
