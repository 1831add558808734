//! Reading a log: ranges of segment files, never bytes.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::LogSlice;
use super::error::{ReadError, StorageError};
use super::paths::{LOG, segment_file};
use super::reader::SegmentReader;
use super::unified::Log;
use crate::types::Offset;

impl Log {
    /// Whole batches from the one with `start` on, up to `max_offset` (exclusive) and `max_bytes` (the last batch may be cut).
    /// `min_one_batch` returns the first batch whole whatever its size. Never crosses a segment: a short answer is no end.
    pub fn read(
        &self,
        start: Offset,
        max_bytes: usize,
        max_offset: Offset,
        min_one_batch: bool,
    ) -> Result<LogSlice, ReadError> {
        self.check_open()?;
        if start < self.log_start_offset || start > self.next_offset {
            return Err(ReadError::OutOfRange {
                offset: start,
                log_start_offset: self.log_start_offset,
                next_offset: self.next_offset,
            });
        }
        let range = ReadRange {
            start,
            max_bytes,
            max_offset: max_offset.min(self.next_offset),
            min_one_batch,
        };
        if start >= range.max_offset {
            return Ok(LogSlice::EMPTY);
        }
        let first = self.closed.partition_point(|s| s.base_offset <= start);
        for at in first.saturating_sub(1)..self.closed.len() {
            if start >= self.active.base_offset || self.closed[at].base_offset >= range.max_offset {
                break;
            }
            if let Some(slice) = self.read_closed(at, &range)? {
                return Ok(slice);
            }
        }
        self.read_active(&range)
            .map_err(|e| self.segment_error("read", e).into())
    }

    fn read_active(&self, range: &ReadRange) -> io::Result<LogSlice> {
        let Some(first) = self.active.find(&self.path, range.start)? else {
            return Ok(LogSlice::EMPTY);
        };
        let end = if range.max_offset == self.next_offset {
            self.active.size
        } else {
            self.active
                .find(&self.path, range.max_offset)?
                .map_or(self.active.size, |place| place.position)
        };
        Ok(range.slice(
            self.active.base_offset,
            &self.active.file(&self.path)?,
            first.position,
            first.size,
            end,
        ))
    }

    /// `None` where the offset falls into a gap at the segment's end.
    fn read_closed(&self, at: usize, range: &ReadRange) -> Result<Option<LogSlice>, StorageError> {
        let segment = &self.closed[at];
        let path = segment_file(&self.path, segment.base_offset, LOG);
        let end_offset = self
            .closed
            .get(at + 1)
            .map_or(self.active.base_offset, |next| next.base_offset);
        let read = |reader: &mut SegmentReader| -> io::Result<Option<LogSlice>> {
            let Some(first) = reader.find(&self.path, range.start)? else {
                return Ok(None);
            };
            let end = if range.max_offset >= end_offset {
                segment.size
            } else {
                reader
                    .find(&self.path, range.max_offset)?
                    .map_or(segment.size, |place| place.position)
            };
            Ok(Some(range.slice(
                segment.base_offset,
                &reader.file,
                first.position,
                first.size,
                end,
            )))
        };
        self.largest_timestamp_of(segment)
            .and_then(|_| self.readers.with(&self.path, segment, read))
            .map_err(|e| self.io_error("read", &path, e))
    }

    /// Closes files that nobody has used since the last call. Tells whether others stay open: call it now and then while they do.
    pub fn release_idle_files(&self) -> bool {
        let durable = self.recovery_point >= self.next_offset;
        let read = self.readers.release_idle();
        self.active.release_idle_file(durable) || read
    }
}

struct ReadRange {
    start: Offset,
    max_bytes: usize,
    max_offset: Offset,
    min_one_batch: bool,
}

impl ReadRange {
    fn slice(
        &self,
        base_offset: Offset,
        file: &Arc<File>,
        position: u64,
        first_size: u64,
        end: u64,
    ) -> LogSlice {
        let first_size = first_size as usize;
        let available = end.saturating_sub(position) as usize;
        let too_small = self.max_bytes < first_size;
        if available == 0 || (too_small && !self.min_one_batch) {
            return LogSlice {
                first_batch_incomplete: available > 0,
                ..LogSlice::EMPTY
            };
        }
        LogSlice {
            file: Some(file.clone()),
            position,
            len: available.min(self.max_bytes.max(first_size)),
            base_offset,
            first_batch_incomplete: false,
        }
    }
}
