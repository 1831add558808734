//! What a log has to offer to the cleaner: asked for every compacted log whenever a thread looks for work.

use std::io;
use std::sync::Arc;

use super::plan::{
    LogToClean, SourceSegment, compaction_delay_ms, first_dirty_offset, floor_index, measure,
};
use crate::log::error::StorageError;
use crate::log::segment::ClosedSegment;
use crate::log::{Log, paths};
use crate::types::{Offset, TimestampMs};

impl Log {
    /// Measures how dirty the log is; nothing at or above `last_stable_offset` may be cleaned. Reads files only where a lag
    /// is configured.
    pub fn log_to_clean(
        &self,
        last_stable_offset: Offset,
        now_ms: TimestampMs,
    ) -> Result<LogToClean, StorageError> {
        self.check_open()?;
        let segments = self.source_segments();
        let first_dirty = first_dirty_offset(
            self.cleaner_checkpoint,
            self.log_start_offset,
            self.next_offset,
        );
        let first_recent = self
            .first_recent_segment(&segments, first_dirty, now_ms)
            .map_err(|e| self.io_error("read time index in", &self.path, e))?;
        let delay_ms = self
            .compaction_delay_ms(&segments, first_dirty, now_ms)
            .map_err(|e| self.io_error("read", &self.path, e))?;
        let limit = first_recent.unwrap_or(Offset::MAX).min(last_stable_offset);
        let active = self.active.base_offset;
        Ok(measure(
            &segments,
            active,
            first_dirty,
            limit.min(active),
            delay_ms,
        ))
    }

    pub(super) fn source_segments(&self) -> Vec<SourceSegment> {
        self.closed
            .iter()
            .map(|segment| SourceSegment {
                base_offset: segment.base_offset,
                size: segment.size,
            })
            .collect()
    }

    /// The first dirty segment with a record younger than `min.compaction.lag.ms`.
    fn first_recent_segment(
        &self,
        segments: &[SourceSegment],
        first_dirty: Offset,
        now_ms: TimestampMs,
    ) -> io::Result<Option<Offset>> {
        let lag_ms = self.config.min_compaction_lag_ms;
        if lag_ms <= 0 {
            return Ok(None);
        }
        for segment in self.dirty_segments(segments, first_dirty) {
            let largest = self.largest_timestamp_of(segment)?.timestamp;
            let largest = if largest >= 0 {
                largest
            } else {
                modified_ms(&paths::segment_file(
                    &self.path,
                    segment.base_offset,
                    paths::LOG,
                ))?
            };
            if largest > now_ms.saturating_sub(lag_ms) {
                return Ok(Some(segment.base_offset));
            }
        }
        Ok(None)
    }

    /// The closed segments from the one with the first dirty offset on.
    pub(super) fn dirty_segments(
        &self,
        segments: &[SourceSegment],
        first_dirty: Offset,
    ) -> &[Arc<ClosedSegment>] {
        if first_dirty >= self.active.base_offset {
            return &[];
        }
        &self.closed[floor_index(segments, first_dirty)..]
    }

    fn compaction_delay_ms(
        &self,
        segments: &[SourceSegment],
        first_dirty: Offset,
        now_ms: TimestampMs,
    ) -> io::Result<i64> {
        let lag_ms = self.config.max_compaction_lag_ms;
        if lag_ms == i64::MAX {
            return Ok(0);
        }
        let mut firsts = Vec::new();
        for segment in self.dirty_segments(segments, first_dirty) {
            firsts.push(segment.first_timestamp(&self.path)?);
        }
        Ok(compaction_delay_ms(firsts, lag_ms, now_ms))
    }

    /// Up to where the log was cleaned, as `cleaner-offset-checkpoint` has it; `None` if it never was.
    pub fn cleaner_checkpoint(&self) -> Option<Offset> {
        self.cleaner_checkpoint
    }
}

fn modified_ms(path: &std::path::Path) -> io::Result<TimestampMs> {
    let modified = std::fs::metadata(path)?.modified()?;
    Ok(modified
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64))
}
