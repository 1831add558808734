//! Whether the index files of a segment can be true (Kafka's `OffsetIndex.sanityCheck` and `TimeIndex.sanityCheck`, and what their last
//! entries say held against the log), and new ones where they cannot. Asked when a segment is first read, not at start: a
//! start opens no more files than it must.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tracing::warn;

use super::batch_io::BatchScanner;
use super::disk;
use super::index::{
    Indexes, OFFSET_ENTRY, TIME_ENTRY, TimestampOffset, parse_offset_entry, parse_time_entry,
    position_in_file,
};
use super::paths::{INDEX, LOG, TIME_INDEX, segment_file};
use super::recovery::walk_segment;
use super::segment::{ClosedSegment, SEARCH_CHUNK};
use super::unified::Log;
use crate::protocol::batch::BatchHeader;
use crate::types::{NO_TIMESTAMP, Offset};

impl Log {
    /// [`ClosedSegment::largest_timestamp`]; index files that turn out to be damaged are built anew. Call it before anything
    /// else looks into the index files of a closed segment.
    pub(super) fn largest_timestamp_of(
        &self,
        segment: &ClosedSegment,
    ) -> io::Result<TimestampOffset> {
        match segment.largest_timestamp(&self.path) {
            Err(damage) if damage.kind() == ErrorKind::InvalidData => {
                let interval = u64::try_from(self.config.index_interval_bytes).unwrap_or(0);
                let (base, size) = (segment.base_offset, segment.size);
                let indexes = rebuild(&self.path, base, size, interval, &damage)?;
                Ok(segment.set_largest(indexes.last_time()))
            }
            other => other,
        }
    }
}

/// The last entry of the time index. [`ErrorKind::InvalidData`], with the file and what is wrong, where it or the offset index
/// cannot be true.
pub fn check(dir: &Path, base: Offset, size: u64) -> io::Result<TimestampOffset> {
    let log = File::open(segment_file(dir, base, LOG))?;
    let index = segment_file(dir, base, INDEX);
    check_offset_index(&log, &index, base, size)?;
    let path = segment_file(dir, base, TIME_INDEX);
    let Some((first, last)) = ends::<TIME_ENTRY>(&path)? else {
        return match header_at(&log, 0, size)? {
            Some(header) if header.max_timestamp >= 0 => {
                Err(damage(&path, "is empty, but records have timestamps"))
            }
            _ => Ok(TimestampOffset {
                timestamp: NO_TIMESTAMP,
                offset: base,
            }),
        };
    };
    let (timestamp, relative) = parse_time_entry(&last);
    if relative > i32::MAX as u32 || timestamp < parse_time_entry(&first).0 {
        return Err(damage(&path, "ends below where it begins"));
    }
    let offset = base + i64::from(relative);
    let from = position_in_file(&index, base, offset)?;
    match batch_of(&log, from, size, offset)? {
        Some(header) if header.max_timestamp == timestamp => {
            Ok(TimestampOffset { timestamp, offset })
        }
        _ => Err(damage(
            &path,
            "ends with a timestamp that is not its batch's",
        )),
    }
}

/// The batch that the last entry points at must be there, and not behind the entry's offset.
fn check_offset_index(log: &File, path: &Path, base: Offset, size: u64) -> io::Result<()> {
    let Some((first, last)) = ends::<OFFSET_ENTRY>(path)? else {
        return Ok(());
    };
    let first = parse_offset_entry(&first);
    let (relative, position) = parse_offset_entry(&last);
    if relative > i32::MAX as u32 || relative < first.0 || position < first.1 {
        return Err(damage(path, "ends below where it begins"));
    }
    match header_at(log, u64::from(position), size)? {
        Some(header) if header.base_offset <= base + i64::from(relative) => Ok(()),
        _ => Err(damage(path, "ends with a position where its batch is not")),
    }
}

fn damage(path: &Path, why: &str) -> io::Error {
    let text = format!("{} {why}", path.display());
    io::Error::new(ErrorKind::InvalidData, text)
}

/// First and last entry of an index file; `None` in one that is empty or missing.
fn ends<const N: usize>(path: &Path) -> io::Result<Option<([u8; N], [u8; N])>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let len = file.metadata()?.len();
    if len % N as u64 != 0 {
        let why = format!("is {len} bytes long, no multiple of {N}");
        return Err(damage(path, &why));
    }
    if len == 0 {
        return Ok(None);
    }
    let (mut first, mut last) = ([0; N], [0; N]);
    file.read_exact_at(&mut first, 0)?;
    file.read_exact_at(&mut last, len - N as u64)?;
    Ok(Some((first, last)))
}

fn header_at(log: &File, position: u64, size: u64) -> io::Result<Option<BatchHeader>> {
    let found = BatchScanner::new(log, position, size, SEARCH_CHUNK).next_header()?;
    Ok(found.map(|batch| batch.header))
}

/// The first batch from `from` on that ends at or behind `offset`.
fn batch_of(log: &File, from: u64, size: u64, offset: Offset) -> io::Result<Option<BatchHeader>> {
    let mut scanner = BatchScanner::new(log, from, size, SEARCH_CHUNK);
    while let Some(batch) = scanner.next_header()? {
        if batch.header.last_offset() >= offset {
            return Ok(Some(batch.header));
        }
    }
    Ok(None)
}

/// Builds both indexes from the batches of the segment and puts the files in the place of the damaged ones. Where the log is
/// damaged, too, the files stay: what they say of the batches behind the damage may be all that leads there.
pub fn rebuild(
    dir: &Path,
    base: Offset,
    size: u64,
    index_interval: u64,
    damage: &io::Error,
) -> io::Result<Indexes> {
    let log = File::open(segment_file(dir, base, LOG))?;
    let (indexes, valid) = walk_segment(&log, base, size, index_interval)?;
    if valid < size {
        warn!(%damage, valid, size, "damaged index file, and the log is damaged behind its valid bytes: left as it is");
        return Ok(indexes);
    }
    replace(&segment_file(dir, base, INDEX), &indexes.offset_bytes())?;
    replace(&segment_file(dir, base, TIME_INDEX), &indexes.time_bytes())?;
    warn!(%damage, "damaged index file: rebuilt both index files of the segment from its log");
    Ok(indexes)
}

/// Whole at any moment: searches read index files without the log's lock.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    disk::write_file(temporary.as_ref(), content)?;
    disk::rename(temporary.as_ref(), path)
}
