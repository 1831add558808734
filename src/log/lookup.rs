//! Finding offsets by timestamp (ListOffsets).

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::TimestampAndOffset;
use super::batch_io::{BatchAt, BatchScanner};
use super::error::StorageError;
use super::index::{TimestampOffset, lookup_time_in_file, position_in_file};
use super::paths::{INDEX, LOG, TIME_INDEX, segment_file};
use super::unified::Log;
use crate::protocol::batch::for_each_record;
use crate::types::{NO_TIMESTAMP, Offset, TimestampMs};

/// Read-ahead of the walk over batch headers.
const CHUNK: usize = 16 << 10;
/// What one stored batch may inflate to.
const INFLATED_BYTES_MAX: usize = 1 << 30;

/// One segment as the lookup sees it.
struct Candidate {
    base_offset: Offset,
    size: u64,
    largest: TimestampOffset,
    is_active: bool,
}

impl Log {
    /// First record at or above the log start whose timestamp is at least `timestamp`, below `max_offset` (exclusive).
    pub fn offset_for_timestamp(
        &self,
        timestamp: TimestampMs,
        max_offset: Offset,
    ) -> Result<Option<TimestampAndOffset>, StorageError> {
        self.check_open()?;
        for candidate in self.candidates()? {
            if candidate.largest.timestamp < timestamp || candidate.size == 0 {
                continue;
            }
            let found = self
                .search_segment(&candidate, timestamp, self.log_start_offset)
                .map_err(|e| self.lookup_error(&candidate, e))?;
            if found.is_some() {
                return Ok(found.filter(|found| found.offset < max_offset));
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp (ListOffsets -3); `None` in an empty log. As in Kafka it may be below the
    /// log start offset, while its segment is still there.
    pub fn offset_of_max_timestamp(&self) -> Result<Option<TimestampAndOffset>, StorageError> {
        self.check_open()?;
        let mut best: Option<Candidate> = None;
        for candidate in self.candidates()? {
            let largest = candidate.largest.timestamp;
            if largest > best.as_ref().map_or(NO_TIMESTAMP, |b| b.largest.timestamp) {
                best = Some(candidate);
            }
        }
        let Some(best) = best else {
            return Ok(None);
        };
        self.search_segment(&best, best.largest.timestamp, best.base_offset)
            .map_err(|e| self.lookup_error(&best, e))
    }

    fn lookup_error(&self, candidate: &Candidate, e: io::Error) -> StorageError {
        self.io_error(
            "read",
            &segment_file(&self.path, candidate.base_offset, LOG),
            e,
        )
    }

    fn candidates(&self) -> Result<Vec<Candidate>, StorageError> {
        let mut found = Vec::with_capacity(self.closed.len() + 1);
        for segment in &self.closed {
            found.push(Candidate {
                base_offset: segment.base_offset,
                size: segment.size,
                largest: segment
                    .largest_timestamp(&self.path)
                    .map_err(|e| self.io_error("read time index in", &self.path, e))?,
                is_active: false,
            });
        }
        found.push(Candidate {
            base_offset: self.active.base_offset,
            size: self.active.size,
            largest: self
                .active
                .largest_timestamp(&self.path)
                .map_err(|e| self.io_error("read time index in", &self.path, e))?,
            is_active: true,
        });
        Ok(found)
    }

    /// Where to begin: the last time index entry below the timestamp leads to an offset, the offset index to a position.
    fn search_from(
        &self,
        candidate: &Candidate,
        timestamp: TimestampMs,
        min_offset: Offset,
    ) -> io::Result<u64> {
        let base = candidate.base_offset;
        // The entry may be of the very batch that has the timestamp: one below it cannot be behind the first such record.
        let below = timestamp.saturating_sub(1);
        let (hint, position);
        if candidate.is_active {
            let indexes = self.active.indexes(&self.path)?;
            hint = indexes.lookup_time(below).offset;
            position = indexes.position_of(hint.max(min_offset));
        } else {
            let time_index = segment_file(&self.path, base, TIME_INDEX);
            hint = lookup_time_in_file(&time_index, base, below)?.offset;
            let index = segment_file(&self.path, base, INDEX);
            position = position_in_file(&index, base, hint.max(min_offset))?;
        }
        Ok(position)
    }

    fn search_segment(
        &self,
        candidate: &Candidate,
        timestamp: TimestampMs,
        min_offset: Offset,
    ) -> io::Result<Option<TimestampAndOffset>> {
        let opened;
        let file = if candidate.is_active {
            opened = self.active.file(&self.path)?;
            &*opened
        } else {
            opened = Arc::new(File::open(segment_file(
                &self.path,
                candidate.base_offset,
                LOG,
            ))?);
            &*opened
        };
        let from = self.search_from(candidate, timestamp, min_offset)?;
        let mut scanner = BatchScanner::new(file, from, candidate.size, CHUNK);
        while let Some(batch) = scanner.next_header()? {
            let ends_below = batch.header.last_offset() < min_offset;
            if batch.header.max_timestamp < timestamp || ends_below {
                continue;
            }
            if let Some(found) = Self::search_batch(&mut scanner, &batch, timestamp, min_offset)? {
                return Ok(Some(found));
            }
        }
        // A position out of a damaged index is no place to begin at.
        if from > 0 && scanner.position() < candidate.size {
            let mut scanner = BatchScanner::new(file, 0, candidate.size, CHUNK);
            while let Some(batch) = scanner.next_header()? {
                if batch.header.max_timestamp >= timestamp
                    && let Some(found) =
                        Self::search_batch(&mut scanner, &batch, timestamp, min_offset)?
                {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The first record of a batch that fits. A batch that cannot be read holds none.
    fn search_batch(
        scanner: &mut BatchScanner<'_>,
        batch: &BatchAt,
        timestamp: TimestampMs,
        min_offset: Offset,
    ) -> io::Result<Option<TimestampAndOffset>> {
        let header = batch.header;
        let bytes = scanner.batch_bytes(batch)?;
        let mut found = None;
        let _ = for_each_record(&header, bytes, INFLATED_BYTES_MAX, |view| {
            let record_timestamp = if header.is_log_append_time() {
                header.max_timestamp
            } else {
                header.base_timestamp.wrapping_add(view.timestamp_delta)
            };
            let offset = header
                .base_offset
                .wrapping_add(i64::from(view.offset_delta));
            if record_timestamp >= timestamp && offset >= min_offset {
                found = Some(TimestampAndOffset {
                    timestamp: record_timestamp,
                    offset,
                    leader_epoch: (header.partition_leader_epoch >= 0)
                        .then_some(header.partition_leader_epoch),
                });
            }
            found.is_none()
        });
        Ok(found)
    }
}
