//! Reads a segment from end to end and compares: the CRC of every batch, offsets that grow, and index entries that point to
//! batches which end where the entry says. Never changes anything. Used by the scrubber of the broker and by
//! `ottla dump-log --verify`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Log;
use super::batch_io::{BatchAt, BatchScanner};
use super::inspect::{OffsetPosition, TimestampAt, read_offset_index, read_time_index};
use super::paths::{INDEX, LOG, TIME_INDEX, segment_file};
use crate::protocol::batch::check_crc;
use crate::types::Offset;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;
/// Findings that are kept of one segment; one that is all damage needs no more.
const FINDINGS_MAX: usize = 20;

/// A closed segment as it was when the scrub began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubTarget {
    pub path: PathBuf,
    pub base_offset: Offset,
    pub size: u64,
}

/// What is wrong in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In the log file, also where an index is wrong.
    pub position: u64,
    pub offset: Offset,
    pub what: String,
}

/// The result for one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentCheck {
    pub batches: u64,
    pub bytes: u64,
    /// Zeros behind the batches of a last segment: room that was preallocated.
    pub unused_bytes: u64,
    /// At most [`FINDINGS_MAX`], the first ones.
    pub findings: Vec<Finding>,
    pub findings_count: u64,
}

impl SegmentCheck {
    pub fn is_sound(&self) -> bool {
        self.findings_count == 0
    }

    fn found(&mut self, position: u64, offset: Offset, what: String) {
        self.findings_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                position,
                offset,
                what,
            });
        }
    }
}

impl Log {
    /// The closed segments, oldest first.
    pub fn segments_to_scrub(&self) -> Vec<ScrubTarget> {
        self.closed
            .iter()
            .map(|segment| ScrubTarget {
                path: segment_file(&self.path, segment.base_offset, LOG),
                base_offset: segment.base_offset,
                size: segment.size,
            })
            .collect()
    }

    /// Whether the segment is still there as it was: retention, compaction and truncation replace or remove segments.
    pub fn still_has(&self, target: &ScrubTarget) -> bool {
        self.closed.iter().any(|segment| {
            segment.base_offset == target.base_offset
                && segment.size == target.size
                && target.path.starts_with(&self.path)
        })
    }
}

/// Checks the segment whose log file is `path`. `go_on` is told the bytes of each batch, and may sleep; `Ok(None)` where it
/// returned false. Missing indexes are not a finding: a start makes them. Nor are zeros at the end of the last segment of a
/// log: they are what `preallocate` reserved, or what a power cut left of a write, and a start cuts them off.
pub fn check_segment(
    path: &Path,
    base_offset: Offset,
    is_last: bool,
    mut go_on: impl FnMut(u64) -> bool,
) -> io::Result<Option<SegmentCheck>> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut indexes = Indexes::open(path, base_offset)?;
    let mut check = SegmentCheck::default();
    let mut scanner = BatchScanner::new(&file, 0, size, CHUNK);
    let mut next_offset = base_offset;
    while let Some(batch) = scanner.next_header()? {
        let header = &batch.header;
        let sound = check_crc(header, scanner.batch_bytes(&batch)?);
        if let Err(error) = sound {
            check.found(batch.position, header.base_offset, error.to_string());
        }
        if header.base_offset < next_offset {
            let what = format!("offset {} behind {next_offset}", header.base_offset);
            check.found(batch.position, header.base_offset, what);
        }
        next_offset = header.next_offset();
        indexes.check_batch(&batch, &mut check);
        check.batches += 1;
        check.bytes = batch.end();
        if !go_on(header.size_bytes() as u64) {
            return Ok(None);
        }
    }
    if scanner.position() < size {
        let rest = size - scanner.position();
        if is_last && is_zero(&file, scanner.position(), size)? {
            check.unused_bytes = rest;
        } else {
            let what = format!("{rest} bytes that are no batch");
            check.found(scanner.position(), next_offset, what);
        }
    }
    indexes.check_end(scanner.position(), next_offset, &mut check);
    Ok(Some(check))
}

/// The entries that are not yet met.
struct Indexes {
    offsets: std::iter::Peekable<std::vec::IntoIter<OffsetPosition>>,
    times: std::iter::Peekable<std::vec::IntoIter<TimestampAt>>,
}

impl Indexes {
    fn open(log: &Path, base_offset: Offset) -> io::Result<Self> {
        let mut offsets = Vec::new();
        let mut times = Vec::new();
        if let Some(index) = existing(log.with_extension(INDEX)) {
            offsets = read_offset_index(&index, base_offset)?.entries;
        }
        if let Some(index) = existing(log.with_extension(TIME_INDEX)) {
            times = read_time_index(&index, base_offset)?.entries;
        }
        // An index file of a broker that was killed has zeros behind its entries.
        offsets.truncate(used(&offsets, |entry| entry.position == 0));
        times.truncate(used(&times, |entry| entry.timestamp == 0));
        Ok(Self {
            offsets: offsets.into_iter().peekable(),
            times: times.into_iter().peekable(),
        })
    }

    fn check_batch(&mut self, batch: &BatchAt, check: &mut SegmentCheck) {
        let (position, header) = (batch.position, &batch.header);
        while let Some(entry) = self.offsets.next_if(|entry| entry.position < batch.end()) {
            if (entry.position, entry.offset) != (position, header.last_offset()) {
                let (at, offset) = (entry.position, entry.offset);
                let what = format!(
                    "the index has offset {offset} at position {at}, where the batch at {position} ends with {}",
                    header.last_offset()
                );
                check.found(position, header.base_offset, what);
            }
        }
        while let Some(entry) = self
            .times
            .next_if(|entry| entry.offset <= header.last_offset())
        {
            let (time, found) = (entry.timestamp, header.max_timestamp);
            if time > found || (time < found && entry.offset == header.last_offset()) {
                let what = format!(
                    "the time index has timestamp {time} at offset {}, whose batch has {found}",
                    entry.offset
                );
                check.found(position, header.base_offset, what);
            }
        }
    }

    fn check_end(self, position: u64, next_offset: Offset, check: &mut SegmentCheck) {
        for entry in self.offsets {
            let (at, offset) = (entry.position, entry.offset);
            let what = format!("the index has offset {offset} at position {at}, behind the end");
            check.found(position, next_offset, what);
        }
        for entry in self.times {
            let (time, offset) = (entry.timestamp, entry.offset);
            let what =
                format!("the time index has timestamp {time} at offset {offset}, behind the end");
            check.found(position, next_offset, what);
        }
    }
}

fn is_zero(file: &File, from: u64, end: u64) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK];
    let mut at = from;
    while at < end {
        let chunk = &mut buffer[..(end - at).min(CHUNK as u64) as usize];
        file.read_exact_at(chunk, at)?;
        if chunk.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += chunk.len() as u64;
    }
    Ok(true)
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}

/// How many entries there are before the zeros; a single entry may be zero.
fn used<T>(entries: &[T], is_zero: impl Fn(&T) -> bool) -> usize {
    let zeros = entries.iter().rev().take_while(|entry| is_zero(entry));
    let used = entries.len() - zeros.count();
    used.max(usize::from(entries.len() == 1))
}
