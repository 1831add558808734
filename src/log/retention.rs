//! Retention: the oldest segments go when they are below the log start offset, when the log is larger than `retention.bytes`,
//! or when their records are older than `retention.ms` (Kafka's `UnifiedLog.deleteOldSegments`). The partition calls it on
//! a timer of the broker.
//!
//! A call deletes a bounded number of segments, so that a produce request that waits for the partition's lock waits for a few
//! renames, not for a thousand. Files are only renamed to `.deleted` here; somebody removes them later, without the lock.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use tracing::warn;

use super::disk;
use super::error::StorageError;
use super::paths::{LOG, segment_file};
use super::truncate::StartOffsetReason;
use super::unified::Log;
use crate::types::{Offset, TimestampMs};

/// Segments that one call deletes: a rename for each of their three to five files.
const SEGMENTS_PER_STEP: usize = 8;

/// A segment that retention took out of the log, for the log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedSegment {
    pub base_offset: Offset,
    pub size_bytes: u64,
    pub last_modified_ms: TimestampMs,
    /// -1 where no record has one.
    pub largest_timestamp_ms: TimestampMs,
    pub reason: DeletionReason,
}

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionReason {
    LogStartOffset(Offset),
    Size {
        retention_bytes: i64,
        left_bytes: u64,
    },
    /// The largest timestamp of its records.
    RecordTime {
        retention_ms: i64,
    },
    /// Its records have no timestamps: when its file was last written to.
    FileTime {
        retention_ms: i64,
    },
}

/// The text of Kafka's log line.
impl fmt::Display for DeletedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segment = format_args!(
            "LogSegment(baseOffset={}, size={}, lastModifiedTime={}, largestRecordTimestamp={})",
            self.base_offset, self.size_bytes, self.last_modified_ms, self.largest_timestamp_ms
        );
        match self.reason {
            DeletionReason::LogStartOffset(offset) => write!(
                f,
                "deleting segments due to log start offset {offset} breach: {segment}"
            ),
            DeletionReason::Size {
                retention_bytes,
                left_bytes,
            } => write!(
                f,
                "deleting segment {segment} due to log retention size {retention_bytes} breach. Log size after deletion \
                 will be {left_bytes}."
            ),
            DeletionReason::RecordTime { retention_ms } => write!(
                f,
                "deleting segment {segment} due to log retention time {retention_ms}ms breach based on the largest record \
                 timestamp in the segment"
            ),
            DeletionReason::FileTime { retention_ms } => write!(
                f,
                "deleting segment {segment} due to log retention time {retention_ms}ms breach based on the last modified \
                 time of the segment"
            ),
        }
    }
}

/// A segment that might go.
struct Candidate {
    base_offset: Offset,
    size: u64,
    /// Where the next one begins; the log's end for the active segment.
    end_offset: Offset,
    is_active: bool,
}

impl Log {
    /// One step of retention: deletes some of the oldest segments, never at or above `high_watermark`. Call it until it
    /// returns none. The log start offset moves with it; an active segment that goes is rolled first.
    pub fn delete_old_segments(
        &mut self,
        high_watermark: Offset,
        now_ms: TimestampMs,
    ) -> Result<Vec<DeletedSegment>, StorageError> {
        self.check_open()?;
        self.now_ms = now_ms;
        let mut deleted = self.below_log_start(high_watermark)?;
        // Without `delete` (compacted topics, and the empty policy of KIP-1161) only DeleteRecords deletes.
        if self.config.cleanup_policy.delete {
            if deleted.is_empty() {
                deleted = self.beyond_retention_bytes(high_watermark)?;
            }
            if deleted.is_empty() {
                deleted = self.beyond_retention_ms(high_watermark, now_ms)?;
            }
        }
        self.delete_oldest(deleted.len())?;
        Ok(deleted)
    }

    /// Deletes all whole segments below the log start offset.
    pub fn delete_segments_below_start(&mut self) -> Result<(), StorageError> {
        self.check_open()?;
        loop {
            let count = self.below_log_start(self.next_offset)?.len();
            if count == 0 {
                return Ok(());
            }
            self.delete_oldest(count)?;
        }
    }

    /// Deletes the `count` oldest segments, however many there are; the log start offset goes where they end.
    pub(super) fn delete_oldest(&mut self, count: usize) -> Result<(), StorageError> {
        if count > self.closed.len() {
            self.roll(self.next_offset)?;
            // The new file's name carries the log's end once the old ones are gone.
            disk::sync_dir(&self.path).map_err(|e| self.io_error("sync", &self.path, e))?;
        }
        let start = self.candidate(count).base_offset;
        self.increment_log_start_offset(start, StartOffsetReason::SegmentDeletion)?;
        let bases: Vec<Offset> = self
            .closed
            .drain(..count)
            .map(|segment| {
                self.closed_bytes -= segment.size;
                segment.base_offset
            })
            .collect();
        for base_offset in bases {
            self.delete_segment_files(base_offset)?;
        }
        Ok(())
    }

    fn below_log_start(&self, high_watermark: Offset) -> Result<Vec<DeletedSegment>, StorageError> {
        let start = self.log_start_offset;
        self.oldest_while(high_watermark, |candidate| {
            let below = !candidate.is_active && candidate.end_offset <= start;
            Ok(below.then_some(DeletionReason::LogStartOffset(start)))
        })
    }

    fn beyond_retention_bytes(
        &self,
        high_watermark: Offset,
    ) -> Result<Vec<DeletedSegment>, StorageError> {
        let retention_bytes = self.config.retention_bytes;
        let Ok(allowed) = u64::try_from(retention_bytes) else {
            return Ok(Vec::new());
        };
        let mut left_bytes = self.size_bytes();
        self.oldest_while(high_watermark, |candidate| {
            // What is left is never less than what the topic may keep.
            if left_bytes < allowed.saturating_add(candidate.size) {
                return Ok(None);
            }
            left_bytes -= candidate.size;
            Ok(Some(DeletionReason::Size {
                retention_bytes,
                left_bytes,
            }))
        })
    }

    fn beyond_retention_ms(
        &self,
        high_watermark: Offset,
        now_ms: TimestampMs,
    ) -> Result<Vec<DeletedSegment>, StorageError> {
        let retention_ms = self.config.retention_ms;
        if retention_ms < 0 {
            return Ok(Vec::new());
        }
        self.oldest_while(high_watermark, |candidate| {
            let recorded = self.largest_timestamp(candidate)?;
            let (time, reason) = if recorded >= 0 {
                (recorded, DeletionReason::RecordTime { retention_ms })
            } else {
                let modified = self.last_modified_ms(candidate)?;
                (modified, DeletionReason::FileTime { retention_ms })
            };
            if time > now_ms {
                warn!(tp = %self.topic_partition, base_offset = candidate.base_offset, timestamp = time,
                    "segment contains future timestamp(s), making it ineligible to be deleted");
            }
            Ok((now_ms.saturating_sub(time) > retention_ms).then_some(reason))
        })
    }

    /// The oldest segments up to the first that is not `breached`; never an empty active one.
    fn oldest_while(
        &self,
        high_watermark: Offset,
        mut breached: impl FnMut(&Candidate) -> Result<Option<DeletionReason>, StorageError>,
    ) -> Result<Vec<DeletedSegment>, StorageError> {
        let mut found = Vec::new();
        for at in 0..self.segments_count().min(SEGMENTS_PER_STEP) {
            let candidate = self.candidate(at);
            let is_empty = candidate.is_active && candidate.size == 0;
            if is_empty || candidate.end_offset > high_watermark {
                break;
            }
            let Some(reason) = breached(&candidate)? else {
                break;
            };
            found.push(DeletedSegment {
                base_offset: candidate.base_offset,
                size_bytes: candidate.size,
                last_modified_ms: self.last_modified_ms(&candidate)?,
                largest_timestamp_ms: self.largest_timestamp(&candidate)?,
                reason,
            });
        }
        Ok(found)
    }

    fn candidate(&self, at: usize) -> Candidate {
        let Some(segment) = self.closed.get(at) else {
            return Candidate {
                base_offset: self.active.base_offset,
                size: self.active.size,
                end_offset: self.next_offset,
                is_active: true,
            };
        };
        Candidate {
            base_offset: segment.base_offset,
            size: segment.size,
            end_offset: self
                .closed
                .get(at + 1)
                .map_or(self.active.base_offset, |next| next.base_offset),
            is_active: false,
        }
    }

    fn largest_timestamp(&self, candidate: &Candidate) -> Result<TimestampMs, StorageError> {
        let largest = if candidate.is_active {
            self.active.largest_timestamp(&self.path)
        } else {
            let at = self
                .closed
                .partition_point(|s| s.base_offset < candidate.base_offset);
            self.largest_timestamp_of(&self.closed[at])
        };
        largest
            .map(|largest| largest.timestamp)
            .map_err(|e| self.io_error("read time index in", &self.path, e))
    }

    fn last_modified_ms(&self, candidate: &Candidate) -> Result<TimestampMs, StorageError> {
        let path = segment_file(&self.path, candidate.base_offset, LOG);
        modified_ms(&path).map_err(|e| self.io_error("stat", &path, e))
    }
}

fn modified_ms(path: &Path) -> io::Result<TimestampMs> {
    let modified = path.metadata()?.modified()?;
    Ok(modified
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64))
}
