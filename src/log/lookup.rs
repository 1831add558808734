//! Finding offsets by timestamp (ListOffsets). Under the log's lock only what is in memory is looked at; files are read without
//! it. Called by `partition`, which searches again with the lock where files went away meanwhile.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::TimestampAndOffset;
use super::batch_io::{BatchAt, BatchScanner};
use super::error::StorageError;
use super::index::{lookup_time_in_file, position_in_file};
use super::paths::{INDEX, LOG, TIME_INDEX, segment_file};
use super::segment::ClosedSegment;
use super::unified::Log;
use crate::protocol::batch::for_each_record;
use crate::types::{Offset, TimestampMs};

/// Read-ahead of the walk over batch headers.
const CHUNK: usize = 16 << 10;
/// What one stored batch may inflate to.
const INFLATED_BYTES_MAX: usize = 1 << 30;

/// Which record is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The first at or above the log start whose timestamp is at least this.
    AtLeast(TimestampMs),
    /// The first with the largest timestamp (ListOffsets -3). As in Kafka it may be below the log start offset, while its
    /// segment is still there. Records without timestamps have the largest one where there are no others.
    Largest,
}

/// A search that needs no lock, begun by [`Log::begin_timestamp_search`].
#[derive(Debug)]
pub struct TimestampSearch {
    /// The partition's directory.
    path: PathBuf,
    wanted: Wanted,
    log_start_offset: Offset,
    truncations: u64,
    /// Segments that may hold the record, oldest first.
    candidates: Vec<Candidate>,
    /// Where to go on if none of them does.
    rest: Option<Offset>,
}

#[derive(Debug)]
enum Candidate {
    Closed(Arc<ClosedSegment>),
    /// The active segment as it was: what is appended later is not searched.
    Active {
        base_offset: Offset,
        size: u64,
        file: Arc<File>,
        largest: TimestampMs,
        from: u64,
    },
}

impl Log {
    /// The whole search, with the lock. `None` where no record is like that.
    pub fn search_timestamp(
        &self,
        wanted: Wanted,
    ) -> Result<Option<TimestampAndOffset>, StorageError> {
        let mut first_base = Offset::MIN;
        loop {
            let search = self.begin_timestamp_search(wanted, first_base)?;
            let found = search.run().or_else(|_| self.mend(&search)?.run());
            match (found.map_err(|e| self.dir.fail(e))?, search.rest()) {
                (None, Some(rest)) => first_base = rest,
                (found, _) => return Ok(found),
            }
        }
    }

    /// Builds damaged index files anew, the most likely reason why a search failed.
    fn mend<'a>(&self, search: &'a TimestampSearch) -> Result<&'a TimestampSearch, StorageError> {
        for candidate in &search.candidates {
            if let Candidate::Closed(segment) = candidate {
                self.largest_timestamp_of(segment)
                    .map_err(|e| StorageError::io("index", &search.log_file(candidate), e))?;
            }
        }
        Ok(search)
    }

    /// Takes down which segments from `first_base` on a search has to look at: those whose largest timestamp says so or is
    /// not known yet.
    pub fn begin_timestamp_search(
        &self,
        wanted: Wanted,
        first_base: Offset,
    ) -> Result<TimestampSearch, StorageError> {
        self.check_open()?;
        let mut search = TimestampSearch {
            path: self.path.clone(),
            wanted,
            log_start_offset: self.log_start_offset,
            truncations: self.truncations,
            candidates: Vec::new(),
            rest: None,
        };
        let first = self.closed.partition_point(|s| s.base_offset < first_base);
        let mut largest = TimestampMs::MIN;
        for segment in &self.closed[first..] {
            if search.is_full() {
                search.rest = Some(segment.base_offset);
                return Ok(search);
            }
            let known = segment.largest_known();
            if known.is_none_or(|known| wanted.is_in(known, largest)) {
                largest = largest.max(known.unwrap_or(TimestampMs::MIN));
                search.candidates.push(Candidate::Closed(segment.clone()));
            }
        }
        if search.is_full() {
            search.rest = Some(self.active.base_offset);
            return Ok(search);
        }
        let active = self.active_candidate(wanted, largest);
        search
            .candidates
            .extend(active.map_err(|e| self.segment_error("read", e))?);
        Ok(search)
    }

    /// Whether all that `search` looked at is still there. Else what it found without the lock may be wrong: the time index of
    /// a segment that is replaced is missing for a moment, as if the segment had no timestamps, and where the active segment was
    /// cut other records may be by now.
    pub fn still_has_all_of(&self, search: &TimestampSearch) -> bool {
        let mut candidates = search.candidates.iter();
        self.truncations == search.truncations
            && candidates.all(|candidate| match candidate {
                Candidate::Closed(segment) => {
                    let base_offset = segment.base_offset;
                    let at = self
                        .closed
                        .binary_search_by_key(&base_offset, |s| s.base_offset);
                    at.is_ok_and(|at| Arc::ptr_eq(&self.closed[at], segment))
                }
                Candidate::Active { .. } => true,
            })
    }

    fn active_candidate(
        &self,
        wanted: Wanted,
        largest_before: TimestampMs,
    ) -> io::Result<Option<Candidate>> {
        let largest = self.active.largest_timestamp(&self.path)?.timestamp;
        if self.active.size == 0 || !wanted.is_in(largest, largest_before) {
            return Ok(None);
        }
        let (timestamp, min_offset) =
            wanted.place(largest, self.log_start_offset, self.active.base_offset);
        let indexes = self.active.indexes(&self.path)?;
        let hint = indexes.lookup_time(before(timestamp)).offset;
        Ok(Some(Candidate::Active {
            base_offset: self.active.base_offset,
            size: self.active.size,
            file: self.active.file(&self.path)?,
            largest,
            from: indexes.position_of(hint.max(min_offset)),
        }))
    }
}

impl Wanted {
    /// Whether to look into a segment, with the largest timestamps of itself and of all that are known before it.
    fn is_in(self, largest: TimestampMs, before: TimestampMs) -> bool {
        match self {
            Self::AtLeast(timestamp) => largest >= timestamp,
            Self::Largest => largest > before,
        }
    }

    /// The timestamp to find in a segment, and from which offset on.
    fn place(
        self,
        largest: TimestampMs,
        log_start_offset: Offset,
        base_offset: Offset,
    ) -> (TimestampMs, Offset) {
        match self {
            Self::AtLeast(timestamp) => (timestamp, log_start_offset),
            Self::Largest => (largest, base_offset),
        }
    }
}

/// A time index entry may be of the very batch that has the timestamp: one below it cannot be behind the first such record.
fn before(timestamp: TimestampMs) -> TimestampMs {
    timestamp.saturating_sub(1)
}

impl TimestampSearch {
    /// Nothing behind the first segment that is known to reach the timestamp needs to be looked at, but in rare cases.
    fn is_full(&self) -> bool {
        let known = match self.candidates.last() {
            Some(Candidate::Closed(segment)) => segment.largest_known().is_some(),
            Some(Candidate::Active { .. }) | None => false,
        };
        known && matches!(self.wanted, Wanted::AtLeast(_))
    }

    /// Base offset of the first segment that was left out. It has to be looked at if [`TimestampSearch::run`] found nothing:
    /// all that the segments before it had of the timestamp may be below the log start.
    pub fn rest(&self) -> Option<Offset> {
        self.rest
    }

    /// Reads files. What comes of it is final only under the lock, or if [`Log::still_has_all_of`] says so afterwards: without
    /// the lock files may be gone because they were deleted or replaced.
    pub fn run(&self) -> Result<Option<TimestampAndOffset>, StorageError> {
        let mut best: Option<(&Candidate, TimestampMs)> = None;
        for candidate in &self.candidates {
            let failed = |e| StorageError::io("search", &self.log_file(candidate), e);
            let largest = self.largest(candidate).map_err(failed)?;
            match self.wanted {
                Wanted::AtLeast(timestamp) if largest >= timestamp => {
                    let found = self.search(candidate, largest).map_err(failed)?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Wanted::Largest if largest > best.map_or(TimestampMs::MIN, |best| best.1) => {
                    best = Some((candidate, largest));
                }
                Wanted::AtLeast(_) | Wanted::Largest => {}
            }
        }
        let Some((candidate, largest)) = best else {
            return Ok(None);
        };
        self.search(candidate, largest)
            .map_err(|e| StorageError::io("search", &self.log_file(candidate), e))
    }

    fn log_file(&self, candidate: &Candidate) -> PathBuf {
        let base_offset = match candidate {
            Candidate::Closed(segment) => segment.base_offset,
            Candidate::Active { base_offset, .. } => *base_offset,
        };
        segment_file(&self.path, base_offset, LOG)
    }

    fn largest(&self, candidate: &Candidate) -> io::Result<TimestampMs> {
        Ok(match candidate {
            Candidate::Closed(segment) => segment.largest_timestamp(&self.path)?.timestamp,
            Candidate::Active { largest, .. } => *largest,
        })
    }

    fn search(
        &self,
        candidate: &Candidate,
        largest: TimestampMs,
    ) -> io::Result<Option<TimestampAndOffset>> {
        let place = |base| self.wanted.place(largest, self.log_start_offset, base);
        match candidate {
            Candidate::Closed(segment) => {
                let base = segment.base_offset;
                let (timestamp, min_offset) = place(base);
                let file = File::open(self.log_file(candidate))?;
                let time_index = segment_file(&self.path, base, TIME_INDEX);
                let hint = lookup_time_in_file(&time_index, base, before(timestamp))?.offset;
                let index = segment_file(&self.path, base, INDEX);
                let from = position_in_file(&index, base, hint.max(min_offset))?;
                // Compaction may have put a shorter file there since.
                let size = file.metadata()?.len().min(segment.size);
                search_file(&file, from, size, timestamp, min_offset)
            }
            Candidate::Active {
                base_offset,
                size,
                file,
                from,
                ..
            } => {
                let (timestamp, min_offset) = place(*base_offset);
                search_file(file, *from, *size, timestamp, min_offset)
            }
        }
    }
}

fn search_file(
    file: &File,
    from: u64,
    size: u64,
    timestamp: TimestampMs,
    min_offset: Offset,
) -> io::Result<Option<TimestampAndOffset>> {
    let mut scanner = BatchScanner::new(file, from, size, CHUNK);
    while let Some(batch) = scanner.next_header()? {
        let header = &batch.header;
        if header.max_timestamp < timestamp || header.last_offset() < min_offset {
            continue;
        }
        let found = search_batch(&mut scanner, &batch, timestamp, min_offset)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    // A position out of a damaged index is no place to begin at.
    if from > 0 && scanner.position() < size {
        return search_file(file, 0, size, timestamp, min_offset);
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
