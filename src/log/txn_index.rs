//! The aborted transactions of a log, in one `.txnindex` file for each segment that holds an abort marker (Kafka's
//! `TransactionIndex`, `AbortedTxn` version 0). Read_committed fetches are told which producers' records to leave out.
//!
//! ```text
//! 0 version i16 (0) | 2 producer id i64 | 10 first offset i64 | 18 last offset i64 (the marker's) | 26 last stable offset i64
//! ```
//! Entries stand in the order of their markers. The last stable offset is that behind the marker: what aborts later cannot
//! reach below it, which ends a search. Most logs have no such file: then nothing here takes memory or time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::LogSlice;
use super::disk;
use super::error::StorageError;
use super::index::offset_at_position;
use super::paths::{INDEX, TXN_INDEX, segment_file};
use super::unified::Log;
use crate::types::{Offset, ProducerId};

const VERSION: i16 = 0;
pub const TXN_ENTRY: usize = 34;
/// Entries that one read of a search takes.
const ENTRIES_READ: u64 = 128;

/// A transaction that was aborted: its first record, its marker, and the last stable offset behind that.
/// Ordered by the first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbortedTxn {
    pub first_offset: Offset,
    pub last_offset: Offset,
    pub producer_id: ProducerId,
    pub last_stable_offset: Offset,
}

impl AbortedTxn {
    pub fn encode(&self) -> [u8; TXN_ENTRY] {
        let mut out = [0; TXN_ENTRY];
        out[..2].copy_from_slice(&VERSION.to_be_bytes());
        out[2..10].copy_from_slice(&self.producer_id.to_be_bytes());
        out[10..18].copy_from_slice(&self.first_offset.to_be_bytes());
        out[18..26].copy_from_slice(&self.last_offset.to_be_bytes());
        out[26..].copy_from_slice(&self.last_stable_offset.to_be_bytes());
        out
    }

    /// `None` for an entry of another version.
    pub fn decode(bytes: &[u8; TXN_ENTRY]) -> Option<Self> {
        let number = |at: usize| {
            let bytes = bytes[at..at + 8].try_into().expect("eight bytes");
            i64::from_be_bytes(bytes)
        };
        (i16::from_be_bytes([bytes[0], bytes[1]]) == VERSION).then(|| Self {
            producer_id: number(2),
            first_offset: number(10),
            last_offset: number(18),
            last_stable_offset: number(26),
        })
    }
}

/// Which segments have an index, and how many entries each.
#[derive(Debug, Default)]
pub struct TxnIndexes {
    counts: BTreeMap<Offset, u64>,
}

impl TxnIndexes {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub fn contains(&self, base_offset: Offset) -> bool {
        self.counts.contains_key(&base_offset)
    }

    /// A segment's index has this many entries; none where it is gone or empty.
    pub fn set_count(&mut self, base_offset: Offset, count: u64) {
        if count > 0 {
            self.counts.insert(base_offset, count);
        } else {
            self.counts.remove(&base_offset);
        }
    }

    /// Writes entries behind those that the segment's index has. Not durable before a sync.
    pub fn append(
        &mut self,
        dir: &Path,
        base_offset: Offset,
        entries: &[AbortedTxn],
    ) -> io::Result<()> {
        let path = segment_file(dir, base_offset, TXN_INDEX);
        let bytes = encode(entries);
        if let Some(count) = self.counts.get_mut(&base_offset) {
            let file = disk::open(&path)?;
            let end = *count * TXN_ENTRY as u64;
            disk::write_all_at(&file, &mut [IoSlice::new(&bytes)], end)?;
            *count += entries.len() as u64;
        } else {
            disk::write_file(&path, &bytes)?;
            self.set_count(base_offset, entries.len() as u64);
        }
        Ok(())
    }

    /// Drops the entries of a segment whose marker is at or above `offset`.
    pub fn truncate_to(
        &mut self,
        dir: &Path,
        base_offset: Offset,
        offset: Offset,
    ) -> io::Result<()> {
        let Some(count) = self.counts.get(&base_offset).copied() else {
            return Ok(());
        };
        let path = segment_file(dir, base_offset, TXN_INDEX);
        let file = disk::open(&path)?;
        let kept = first_at_or_behind(&file, count, offset)?;
        if kept < count {
            disk::set_len(&file, kept * TXN_ENTRY as u64)?;
            self.set_count(base_offset, kept);
        }
        Ok(())
    }

    /// Aborted transactions with records in `fetch_offset..upper_bound`, by first offset. `base_offset` is that of the
    /// segment that holds `fetch_offset`.
    pub fn search(
        &self,
        dir: &Path,
        base_offset: Offset,
        fetch_offset: Offset,
        upper_bound: Offset,
    ) -> io::Result<Vec<AbortedTxn>> {
        let mut found = Vec::new();
        for (base, count) in self.counts.range(base_offset..) {
            let file = File::open(segment_file(dir, *base, TXN_INDEX))?;
            if collect(&file, *count, fetch_offset, upper_bound, &mut found)? {
                break;
            }
        }
        found.sort_by_key(|txn| txn.first_offset);
        Ok(found)
    }
}

impl Log {
    /// Aborted transactions with records in `fetch_offset..upper_bound`, by first offset.
    pub fn aborted_transactions(
        &self,
        fetch_offset: Offset,
        upper_bound: Offset,
    ) -> Result<Vec<AbortedTxn>, StorageError> {
        if self.txn_indexes.is_empty() || upper_bound <= fetch_offset {
            return Ok(Vec::new());
        }
        let at = self
            .closed
            .partition_point(|s| s.base_offset <= fetch_offset);
        let base_offset = if fetch_offset >= self.active.base_offset {
            self.active.base_offset
        } else {
            at.checked_sub(1)
                .map_or(fetch_offset, |at| self.closed[at].base_offset)
        };
        self.txn_indexes
            .search(&self.path, base_offset, fetch_offset, upper_bound)
            .map_err(|e| self.txn_index_error(base_offset, e))
    }

    /// Those that a read from `fetch_offset` must be told with `slice`, which it got. No memory where there are none.
    pub fn aborted_in_slice(
        &self,
        fetch_offset: Offset,
        slice: &LogSlice,
    ) -> Result<Vec<AbortedTxn>, StorageError> {
        if self.txn_indexes.is_empty() || slice.is_empty() {
            return Ok(Vec::new());
        }
        let upper_bound = self
            .offset_behind(slice)
            .map_err(|e| self.txn_index_error(slice.base_offset, e))?;
        self.aborted_transactions(fetch_offset, upper_bound)
    }

    /// An offset at or behind a slice's end: the next one in the offset index, else the segment's end
    /// (`LogSegment.fetchUpperBoundOffset`).
    fn offset_behind(&self, slice: &LogSlice) -> io::Result<Offset> {
        let end = slice.position + slice.len as u64;
        if slice.base_offset == self.active.base_offset {
            let indexed = self.active.indexes(&self.path)?.offset_at_position(end);
            return Ok(indexed.unwrap_or(self.next_offset));
        }
        let index = segment_file(&self.path, slice.base_offset, INDEX);
        if let Some(offset) = offset_at_position(&index, slice.base_offset, end)? {
            return Ok(offset);
        }
        let next = self
            .closed
            .partition_point(|s| s.base_offset <= slice.base_offset);
        Ok(self
            .closed
            .get(next)
            .map_or(self.active.base_offset, |segment| segment.base_offset))
    }

    /// A segment got another transaction index, or none.
    pub(super) fn note_txn_index(&mut self, base_offset: Offset) -> Result<(), StorageError> {
        let path = segment_file(&self.path, base_offset, TXN_INDEX);
        let len = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            other => other
                .map_err(|e| self.txn_index_error(base_offset, e))?
                .len(),
        };
        self.txn_indexes
            .set_count(base_offset, len / TXN_ENTRY as u64);
        Ok(())
    }

    pub(super) fn txn_index_error(&self, base_offset: Offset, e: io::Error) -> StorageError {
        let path = segment_file(&self.path, base_offset, TXN_INDEX);
        self.io_error("use transaction index", &path, e)
    }
}

pub fn encode(entries: &[AbortedTxn]) -> Vec<u8> {
    entries.iter().flat_map(AbortedTxn::encode).collect()
}

/// All entries of a file, or `None` where one is torn, of another version, or cannot be of a segment with this base.
pub fn decode(bytes: &[u8], base_offset: Offset) -> Option<Vec<AbortedTxn>> {
    let (entries, []) = bytes.as_chunks::<TXN_ENTRY>() else {
        return None;
    };
    let mut below = base_offset;
    let sound = |entry: &[u8; TXN_ENTRY]| {
        let txn = AbortedTxn::decode(entry).filter(|txn| {
            txn.last_offset >= below && txn.first_offset < txn.last_offset && txn.first_offset >= 0
        })?;
        below = txn.last_offset + 1;
        Some(txn)
    };
    entries.iter().map(sound).collect()
}

/// The entries of a file that others write to: one that is cut off is on its way. `None` for entries of another version.
pub fn decode_growing(bytes: &[u8]) -> Option<Vec<AbortedTxn>> {
    let (entries, _) = bytes.as_chunks::<TXN_ENTRY>();
    entries.iter().map(AbortedTxn::decode).collect()
}

/// The first entry whose marker is at or behind `offset`; `count` where there is none.
fn first_at_or_behind(file: &File, count: u64, offset: Offset) -> io::Result<u64> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut entry = [0; TXN_ENTRY];
        file.read_exact_at(&mut entry, middle * TXN_ENTRY as u64)?;
        let txn = AbortedTxn::decode(&entry).ok_or(io::ErrorKind::InvalidData)?;
        if txn.last_offset < offset {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Adds what one index holds about the range. True where later segments cannot hold more.
fn collect(
    file: &File,
    count: u64,
    fetch_offset: Offset,
    upper_bound: Offset,
    found: &mut Vec<AbortedTxn>,
) -> io::Result<bool> {
    let mut at = first_at_or_behind(file, count, fetch_offset)?;
    while at < count {
        let entries = (count - at).min(ENTRIES_READ);
        let mut bytes = vec![0; entries as usize * TXN_ENTRY];
        file.read_exact_at(&mut bytes, at * TXN_ENTRY as u64)?;
        for entry in bytes.as_chunks::<TXN_ENTRY>().0 {
            let txn = AbortedTxn::decode(entry).ok_or(io::ErrorKind::InvalidData)?;
            if txn.first_offset < upper_bound {
                found.push(txn);
            }
            if txn.last_stable_offset >= upper_bound {
                return Ok(true);
            }
        }
        at += entries;
    }
    Ok(false)
}
