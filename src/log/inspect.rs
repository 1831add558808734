//! The small files of a segment as plain entries, for tools that show or check them (`ottla dump-log`, scrub). Reads only.

use std::fs;
use std::io;
use std::path::Path;

use super::index::{OFFSET_ENTRY, TIME_ENTRY, parse_offset_entry, parse_time_entry};
use super::producer_snapshot;
pub use super::producer_state::ProducerEntry;
use crate::types::{Offset, ProducerId, TimestampMs};

/// An entry of an `.index` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetPosition {
    pub offset: Offset,
    pub position: u64,
}

/// An entry of a `.timeindex` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampAt {
    pub timestamp: TimestampMs,
    pub offset: Offset,
}

/// The entries of an index file and its length, which may be no whole number of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile<T> {
    pub entries: Vec<T>,
    pub size_bytes: usize,
}

pub fn read_offset_index(
    path: &Path,
    base_offset: Offset,
) -> io::Result<IndexFile<OffsetPosition>> {
    let bytes = fs::read(path)?;
    let entry = |entry: &[u8]| {
        let (relative, position) = parse_offset_entry(entry);
        OffsetPosition {
            offset: base_offset.wrapping_add(i64::from(relative as i32)),
            position: u64::from(position),
        }
    };
    Ok(IndexFile {
        entries: bytes.chunks_exact(OFFSET_ENTRY).map(entry).collect(),
        size_bytes: bytes.len(),
    })
}

pub fn read_time_index(path: &Path, base_offset: Offset) -> io::Result<IndexFile<TimestampAt>> {
    let bytes = fs::read(path)?;
    let entry = |entry: &[u8]| {
        let (timestamp, relative) = parse_time_entry(entry);
        TimestampAt {
            timestamp,
            offset: base_offset.wrapping_add(i64::from(relative as i32)),
        }
    };
    Ok(IndexFile {
        entries: bytes.chunks_exact(TIME_ENTRY).map(entry).collect(),
        size_bytes: bytes.len(),
    })
}

/// The producers of a `.snapshot` file; the error says what is wrong with it, in Kafka's words.
pub fn read_producer_snapshot(
    path: &Path,
) -> io::Result<Result<Vec<(ProducerId, ProducerEntry)>, String>> {
    let bytes = fs::read(path)?;
    Ok(producer_snapshot::decode(&bytes).ok_or_else(|| producer_snapshot::fault(&bytes)))
}
