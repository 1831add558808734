//! Open readers of the closed segments read last, so that a consumer that catches up does not open files for every Fetch.
//!
//! Each remembers where its last reads began: the next one of the same consumer is a batch or a few behind, and needs no
//! index. Bounds: two readers a log, a thousand in all (beyond that files are opened for each read); those nobody used
//! between two calls of [`Readers::release_idle`] are closed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::batch_io::BatchScanner;
use super::index::OffsetIndexReader;
use super::paths::{INDEX, LOG, segment_file};
use super::segment::{ClosedSegment, Place, SEARCH_CHUNK, find_batch};
use crate::types::Offset;

const READERS_PER_LOG_MAX: usize = 2;
const READERS_MAX: usize = 1000;
/// Consumers of one segment whose place is remembered.
const HINTS: usize = 8;
/// Batches passed from a remembered place before the index is asked instead.
const HOPS_MAX: usize = 4;

/// Readers that are kept, over all logs.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// The readers that one log keeps, last used last.
#[derive(Debug, Default)]
pub struct Readers(Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    reader: SegmentReader,
    used: bool,
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `read` with the segment's reader.
    pub fn with<R>(
        &self,
        dir: &Path,
        segment: &ClosedSegment,
        read: impl FnOnce(&mut SegmentReader) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut kept = self.lock();
        let base = segment.base_offset;
        if let Some(at) = kept.iter().position(|k| k.reader.base_offset == base) {
            kept[at].used = true;
            return read(&mut kept[at].reader);
        }
        let mut reader = SegmentReader::open(dir, segment)?;
        let result = read(&mut reader)?;
        if kept.len() == READERS_PER_LOG_MAX {
            kept.remove(0);
        }
        if KEPT.fetch_add(1, Ordering::Relaxed) < READERS_MAX {
            kept.push(Kept { reader, used: true });
        } else {
            KEPT.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(result)
    }

    /// Lets go of all: segments went away.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Closes those that were not used since the last call. Tells whether others stay.
    pub fn release_idle(&self) -> bool {
        let mut kept = self.lock();
        kept.retain_mut(|kept| std::mem::take(&mut kept.used));
        !kept.is_empty()
    }
}

/// An open closed segment.
#[derive(Debug)]
pub struct SegmentReader {
    base_offset: Offset,
    size: u64,
    pub file: Arc<File>,
    /// Opened when no remembered place is near.
    index: Option<OffsetIndexReader>,
    /// Offsets and the positions of the batches that hold them.
    hints: Vec<(Offset, u64)>,
    next_hint: usize,
}

impl SegmentReader {
    fn open(dir: &Path, segment: &ClosedSegment) -> io::Result<Self> {
        Ok(Self {
            base_offset: segment.base_offset,
            size: segment.size,
            file: Arc::new(File::open(segment_file(dir, segment.base_offset, LOG))?),
            index: None,
            hints: Vec::new(),
            next_hint: 0,
        })
    }

    /// The first batch that ends at or behind `offset`.
    pub fn find(&mut self, dir: &Path, offset: Offset) -> io::Result<Option<Place>> {
        let near = self.nearest_hint(offset);
        if let Some(at) = near
            && let Some(place) = self.hop(self.hints[at].1, offset)?
        {
            self.hints[at] = (offset, place.position);
            return Ok(Some(place));
        }
        let index = match &mut self.index {
            Some(index) => index,
            None => self.index.insert(OffsetIndexReader::open(
                &segment_file(dir, self.base_offset, INDEX),
                self.base_offset,
            )?),
        };
        let from = index.position_of(offset)?.min(self.size);
        let found = find_batch(&self.file, from, self.size, offset)?;
        if let Some(place) = found {
            let hint = (offset, place.position);
            if self.hints.len() < HINTS {
                self.hints.push(hint);
            } else {
                self.hints[self.next_hint] = hint;
                self.next_hint = (self.next_hint + 1) % HINTS;
            }
        }
        Ok(found)
    }

    fn nearest_hint(&self, offset: Offset) -> Option<usize> {
        (0..self.hints.len())
            .filter(|at| self.hints[*at].0 <= offset)
            .max_by_key(|at| self.hints[*at].0)
    }

    fn hop(&self, from: u64, offset: Offset) -> io::Result<Option<Place>> {
        let mut scanner = BatchScanner::new(&self.file, from, self.size, SEARCH_CHUNK);
        for _ in 0..=HOPS_MAX {
            match scanner.next_header()? {
                Some(batch) if batch.header.last_offset() >= offset => {
                    return Ok(Some(batch.into()));
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(None)
    }
}
