//! The segment that cleaning writes: `.cleaned` files beside the log, indexes in memory until it is finished. Nobody else
//! knows of it before `swap.rs` puts it into the log.

use std::fs::{File, FileTimes};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::log::disk;
use crate::log::index::{Indexes, TimestampOffset};
use crate::log::paths::{INDEX, LOG, TIME_INDEX, TXN_INDEX, segment_file};
use crate::log::txn_index::{self, AbortedTxn};
use crate::protocol::batch::BatchHeader;
use crate::types::{NO_TIMESTAMP, Offset};

/// Suffix of files that cleaning has not finished.
pub const CLEANED: &str = "cleaned";
/// What a segment may have in files.
pub const SEGMENT_KINDS: [&str; 4] = [LOG, INDEX, TIME_INDEX, TXN_INDEX];

/// `00000000000000000042.log.cleaned`
pub fn suffixed(dir: &Path, base_offset: Offset, kind: &str, suffix: &str) -> PathBuf {
    segment_file(dir, base_offset, &format!("{kind}.{suffix}"))
}

/// A segment in the making.
#[derive(Debug)]
pub struct CleanedSegment {
    dir: PathBuf,
    pub base_offset: Offset,
    pub size: u64,
    file: File,
    /// Bytes for the file, at most one more batch than `buffer_bytes`.
    buffer: Vec<u8>,
    buffer_bytes: usize,
    index_interval_bytes: u64,
    bytes_since_index_entry: u64,
    indexes: Indexes,
    largest: TimestampOffset,
}

impl CleanedSegment {
    /// Begins the segment; files of an earlier attempt are replaced.
    pub fn create(
        dir: &Path,
        base_offset: Offset,
        index_interval_bytes: u64,
        buffer_bytes: usize,
    ) -> io::Result<Self> {
        remove(dir, base_offset)?;
        let file = disk::create(&suffixed(dir, base_offset, LOG, CLEANED))?;
        Ok(Self {
            dir: dir.to_owned(),
            base_offset,
            size: 0,
            file,
            buffer: Vec::with_capacity(buffer_bytes),
            buffer_bytes,
            index_interval_bytes,
            bytes_since_index_entry: 0,
            indexes: Indexes::new(base_offset),
            largest: TimestampOffset {
                timestamp: NO_TIMESTAMP,
                offset: base_offset,
            },
        })
    }

    /// The last time index entry that the segment gets.
    pub fn largest(&self) -> TimestampOffset {
        self.largest
    }

    /// Appends a whole batch. Fails if the segment would be longer than an index can tell.
    pub fn append(&mut self, header: &BatchHeader, batch: &[u8]) -> io::Result<()> {
        let size = batch.len() as u64;
        let last_offset = header.last_offset();
        let fits = i32::try_from(self.size + size).is_ok()
            && last_offset.saturating_sub(self.base_offset) <= i64::from(i32::MAX);
        if !fits {
            let text = "the cleaned segment grows beyond what an index can tell";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        if header.max_timestamp > self.largest.timestamp {
            self.largest = TimestampOffset {
                timestamp: header.max_timestamp,
                offset: last_offset,
            };
        }
        if self.bytes_since_index_entry > self.index_interval_bytes {
            self.indexes.append_offset(last_offset, self.size);
            self.indexes.maybe_append_time(self.largest);
            self.bytes_since_index_entry = 0;
        }
        self.size += size;
        self.bytes_since_index_entry += size;
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() >= self.buffer_bytes {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let at = self.size - self.buffer.len() as u64;
        disk::write_all_at(&self.file, &mut [IoSlice::new(&self.buffer)], at)?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the rest and the indexes and makes all of it durable. `modified` is the time of the newest file it replaces:
    /// retention of records without timestamps goes by it.
    pub fn finish(&mut self, aborted: &[AbortedTxn], modified: SystemTime) -> io::Result<()> {
        self.write()?;
        self.buffer = Vec::new();
        self.indexes.maybe_append_time(self.largest);
        self.file
            .set_times(FileTimes::new().set_modified(modified))?;
        disk::sync_data(&self.file)?;
        self.write_beside(INDEX, &self.indexes.offset_bytes(), modified)?;
        self.write_beside(TIME_INDEX, &self.indexes.time_bytes(), modified)?;
        if !aborted.is_empty() {
            self.write_beside(TXN_INDEX, &txn_index::encode(aborted), modified)?;
        }
        Ok(())
    }

    fn write_beside(&self, kind: &str, bytes: &[u8], modified: SystemTime) -> io::Result<()> {
        let path = suffixed(&self.dir, self.base_offset, kind, CLEANED);
        let file = disk::write_file(&path, bytes)?;
        file.set_times(FileTimes::new().set_modified(modified))?;
        disk::sync_data(&file)
    }

    /// Gives the attempt up.
    pub fn discard(self) -> io::Result<()> {
        remove(&self.dir, self.base_offset)
    }
}

fn remove(dir: &Path, base_offset: Offset) -> io::Result<()> {
    for kind in SEGMENT_KINDS {
        match disk::remove_file(&suffixed(dir, base_offset, kind, CLEANED)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
