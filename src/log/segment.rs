//! Segments: closed ones are a name, a size and files opened when somebody reads; the active one holds its file and indexes.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::batch_io::{BatchAt, BatchScanner};
use super::disk;
use super::handles::Handle;
use super::index::{Indexes, TimestampOffset};
use super::paths::{INDEX, LOG, TIME_INDEX, segment_file};
use super::sanity;
use crate::config::TopicConfig;
use crate::protocol::batch::BatchHeader;
use crate::types::{NO_TIMESTAMP, Offset, TimestampMs, Uuid};

/// Read-ahead of a search for one batch: enough for a few small batches, one page of the page cache.
pub const SEARCH_CHUNK: usize = 1024;
/// Batches at the tail whose place is remembered, so that consumers at the tail cost no search.
const RECENT_MAX: usize = 32;

/// A segment that is no longer written to.
#[derive(Debug)]
pub struct ClosedSegment {
    pub base_offset: Offset,
    pub size: u64,
    /// Last entry of the time index. Read when first asked for, and the index files are checked with it.
    largest: OnceLock<TimestampOffset>,
}

impl ClosedSegment {
    pub fn new(base_offset: Offset, size: u64) -> Self {
        Self {
            base_offset,
            size,
            largest: OnceLock::new(),
        }
    }

    /// A segment whose last time index entry is known.
    pub fn with_largest(base_offset: Offset, size: u64, largest: TimestampOffset) -> Self {
        Self {
            base_offset,
            size,
            largest: OnceLock::from(largest),
        }
    }

    /// Largest timestamp of the first batch; -1 in an empty segment.
    pub fn first_timestamp(&self, dir: &Path) -> io::Result<TimestampMs> {
        let file = File::open(segment_file(dir, self.base_offset, LOG))?;
        let first = BatchScanner::new(&file, 0, self.size, SEARCH_CHUNK).next_header()?;
        Ok(first.map_or(NO_TIMESTAMP, |batch| batch.header.max_timestamp))
    }

    /// [`ClosedSegment::largest_timestamp`], where no file has to be read for it.
    pub fn largest_known(&self) -> Option<TimestampMs> {
        self.largest.get().map(|largest| largest.timestamp)
    }

    /// [`io::ErrorKind::InvalidData`] where an index file is damaged; [`super::Log`] mends it, under its lock.
    pub fn largest_timestamp(&self, dir: &Path) -> io::Result<TimestampOffset> {
        if let Some(known) = self.largest.get() {
            return Ok(*known);
        }
        sanity::check(dir, self.base_offset, self.size).map(|found| self.set_largest(found))
    }

    pub(super) fn set_largest(&self, found: TimestampOffset) -> TimestampOffset {
        *self.largest.get_or_init(|| found)
    }
}

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub position: u64,
    pub size: u64,
}

impl From<BatchAt> for Place {
    fn from(batch: BatchAt) -> Self {
        Self {
            base_offset: batch.header.base_offset,
            last_offset: batch.header.last_offset(),
            position: batch.position,
            size: batch.header.size_bytes() as u64,
        }
    }
}

/// The last batches that were appended, oldest overwritten first. Empty (and without memory) until the first append.
#[derive(Debug, Default)]
struct Recent {
    places: Vec<Place>,
    next: usize,
}

impl Recent {
    fn push(&mut self, place: Place) {
        if self.places.len() < RECENT_MAX {
            self.places.push(place);
        } else {
            self.places[self.next] = place;
            self.next = (self.next + 1) % RECENT_MAX;
        }
    }

    /// The batch that holds `offset`.
    fn find(&self, offset: Offset) -> Option<Place> {
        let found = |p: &&Place| p.base_offset <= offset && offset <= p.last_offset;
        self.places.iter().find(found).copied()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The segment that appends go to.
#[derive(Debug)]
pub struct ActiveSegment {
    pub base_offset: Offset,
    pub size: u64,
    file: Handle,
    /// Read from disk when first needed.
    indexes: OnceLock<Box<Indexes>>,
    /// The files differ from what is in memory.
    pub indexes_dirty: bool,
    largest: Option<TimestampOffset>,
    /// Largest timestamp of the first batch: `segment.ms` counts from it. `None` before it is read.
    first_timestamp: Option<TimestampMs>,
    created_ms: TimestampMs,
    /// How much sooner than `segment.ms` the segment is rolled, so that logs do not all roll at once.
    jitter_ms: i64,
    /// `index.interval.bytes` and `segment.index.bytes` of the time it was made: a change is for the segments to come.
    index_interval_bytes: u64,
    index_bytes_max: usize,
    /// The file is longer than what was appended (`preallocate`).
    preallocated: bool,
    bytes_since_index_entry: u64,
    recent: Recent,
}

impl ActiveSegment {
    /// A segment that is on disk already (`size` bytes).
    pub fn new(base_offset: Offset, size: u64, now_ms: TimestampMs, config: &TopicConfig) -> Self {
        Self {
            base_offset,
            size,
            file: Handle::default(),
            indexes: OnceLock::new(),
            indexes_dirty: false,
            largest: None,
            first_timestamp: None,
            created_ms: now_ms,
            jitter_ms: roll_jitter_ms(config),
            index_interval_bytes: u64::try_from(config.index_interval_bytes).unwrap_or(0),
            index_bytes_max: usize::try_from(config.segment_index_bytes).unwrap_or(0),
            preallocated: false,
            bytes_since_index_entry: 0,
            recent: Recent::default(),
        }
    }

    /// A new segment with an empty file, or, with `preallocate`, one of `segment.bytes` zeros that take no space yet.
    pub fn create(
        dir: &Path,
        base: Offset,
        now_ms: TimestampMs,
        config: &TopicConfig,
    ) -> io::Result<Self> {
        let file = disk::create(&segment_file(dir, base, LOG))?;
        if config.preallocate {
            disk::set_len(&file, u64::try_from(config.segment_bytes).unwrap_or(0))?;
        }
        let segment = Self::new(base, 0, now_ms, config);
        let _ = segment.indexes.set(Box::new(Indexes::new(base)));
        Ok(Self {
            indexes_dirty: true,
            preallocated: config.preallocate,
            ..segment
        })
    }

    /// Cuts off what was preallocated and not used. Tells whether there was something.
    pub fn trim(&mut self, dir: &Path) -> io::Result<bool> {
        if self.preallocated {
            disk::set_len(&*self.file(dir)?, self.size)?;
        }
        Ok(std::mem::take(&mut self.preallocated))
    }

    pub fn set_indexes(&mut self, indexes: Indexes) {
        self.indexes = OnceLock::from(Box::new(indexes));
        self.indexes_dirty = true;
        self.largest = None;
    }

    pub fn file(&self, dir: &Path) -> io::Result<Arc<File>> {
        self.file.open(|| segment_file(dir, self.base_offset, LOG))
    }

    /// The file, where it is open.
    pub fn open_file(&self) -> Option<Arc<File>> {
        self.file.get()
    }

    /// See [`Handle::release_idle`].
    pub fn release_idle_file(&self, durable: bool) -> bool {
        self.file.release_idle(durable)
    }

    pub fn close_file(&self) {
        self.file.close();
    }

    pub fn indexes(&self, dir: &Path) -> io::Result<&Indexes> {
        if let Some(indexes) = self.indexes.get() {
            return Ok(indexes);
        }
        let (base, size) = (self.base_offset, self.size);
        let index = segment_file(dir, base, INDEX);
        let time_index = segment_file(dir, base, TIME_INDEX);
        let load = |_| Indexes::load(&index, &time_index, base, size);
        let loaded = match sanity::check(dir, base, size).and_then(load) {
            Err(damage) if damage.kind() == io::ErrorKind::InvalidData => {
                sanity::rebuild(dir, base, size, self.index_interval_bytes, &damage)
            }
            other => other,
        };
        let loaded = Box::new(loaded?);
        Ok(self.indexes.get_or_init(|| loaded))
    }

    fn indexes_mut(&mut self, dir: &Path) -> io::Result<&mut Indexes> {
        self.indexes(dir)?;
        Ok(self.indexes.get_mut().expect("loaded above"))
    }

    /// Largest timestamp and its offset.
    pub fn largest_timestamp(&self, dir: &Path) -> io::Result<TimestampOffset> {
        match self.largest {
            Some(largest) => Ok(largest),
            None => Ok(self.indexes(dir)?.last_time()),
        }
    }

    /// Whether a batch must go to a new segment (`LogSegment.shouldRoll`).
    pub fn should_roll(
        &mut self,
        dir: &Path,
        config: &TopicConfig,
        batch: &BatchHeader,
        now_ms: TimestampMs,
    ) -> io::Result<bool> {
        let batch_size = batch.size_bytes() as u64;
        let size_max = u64::try_from(config.segment_bytes).unwrap_or(0);
        if batch.last_offset() - self.base_offset > i64::from(i32::MAX) {
            return Ok(true);
        }
        if self.size == 0 {
            return Ok(false);
        }
        if self.size + batch_size > size_max || self.size + batch_size > i32::MAX as u64 {
            return Ok(true);
        }
        let first = self.load_first_timestamp(dir)?;
        let waited = if first >= 0 {
            batch.max_timestamp.saturating_sub(first)
        } else {
            now_ms - self.created_ms
        };
        if waited > config.segment_ms_max().saturating_sub(self.jitter_ms) {
            return Ok(true);
        }
        Ok(self.indexes(dir)?.is_full(self.index_bytes_max))
    }

    fn load_first_timestamp(&mut self, dir: &Path) -> io::Result<TimestampMs> {
        if let Some(first) = self.first_timestamp {
            return Ok(first);
        }
        let file = self.file(dir)?;
        let first = BatchScanner::new(&file, 0, self.size, SEARCH_CHUNK)
            .next_header()?
            .map_or(NO_TIMESTAMP, |batch| batch.header.max_timestamp);
        self.first_timestamp = Some(first);
        Ok(first)
    }

    /// Takes note of a batch that is written (or about to be) at the end; `header` is final.
    pub fn append(&mut self, dir: &Path, header: &BatchHeader) -> io::Result<()> {
        let last_offset = header.last_offset();
        let position = self.size;
        let mut largest = self.largest_timestamp(dir)?;
        if header.max_timestamp > largest.timestamp {
            largest = TimestampOffset {
                timestamp: header.max_timestamp,
                offset: last_offset,
            };
        }
        self.largest = Some(largest);
        if self.size == 0 {
            self.first_timestamp = Some(header.max_timestamp);
        }
        if self.bytes_since_index_entry > self.index_interval_bytes {
            let indexes = self.indexes_mut(dir)?;
            indexes.append_offset(last_offset, position);
            indexes.maybe_append_time(largest);
            self.indexes_dirty = true;
            self.bytes_since_index_entry = 0;
        }
        let size = header.size_bytes() as u64;
        self.size += size;
        self.bytes_since_index_entry += size;
        self.recent.push(Place {
            base_offset: header.base_offset,
            last_offset,
            position,
            size,
        });
        Ok(())
    }

    /// The first batch that ends at or behind `offset`.
    pub fn find(&self, dir: &Path, offset: Offset) -> io::Result<Option<Place>> {
        if let Some(place) = self.recent.find(offset) {
            return Ok(Some(place));
        }
        if self.size == 0 {
            return Ok(None);
        }
        let from = self.indexes(dir)?.position_of(offset);
        find_batch(&*self.file(dir)?, from, self.size, offset)
    }

    /// The last time index entry that a closed segment has (`LogSegment.onBecomeInactiveSegment`).
    pub fn finish_time_index(&mut self, dir: &Path) -> io::Result<()> {
        if let Some(largest) = self.largest {
            let indexes = self.indexes_mut(dir)?;
            if largest.timestamp > indexes.last_time().timestamp {
                indexes.maybe_append_time(largest);
                self.indexes_dirty = true;
            }
        }
        Ok(())
    }

    pub fn into_closed(self) -> ClosedSegment {
        let closed = ClosedSegment::new(self.base_offset, self.size);
        let indexed = || self.indexes.get().map(|indexes| indexes.last_time());
        if let Some(largest) = self.largest.or_else(indexed) {
            closed.set_largest(largest);
        }
        closed
    }

    /// Cuts the segment off at `offset`.
    pub fn truncate_to(
        &mut self,
        dir: &Path,
        offset: Offset,
        now_ms: TimestampMs,
    ) -> io::Result<()> {
        let place = self.find(dir, offset)?;
        self.recent.clear();
        self.indexes_mut(dir)?.truncate_to(offset);
        self.indexes_dirty = true;
        if let Some(place) = place {
            disk::set_len(&*self.file(dir)?, place.position)?;
            self.size = place.position;
            self.preallocated = false;
        }
        self.bytes_since_index_entry = 0;
        if self.size == 0 {
            self.created_ms = now_ms;
            self.first_timestamp = None;
        }
        self.largest = Some(self.read_largest_timestamp(dir)?);
        Ok(())
    }

    /// Last time index entry, or a larger timestamp behind it.
    fn read_largest_timestamp(&self, dir: &Path) -> io::Result<TimestampOffset> {
        let indexes = self.indexes(dir)?;
        let mut largest = indexes.last_time();
        if self.size == 0 {
            return Ok(largest);
        }
        let from = indexes.position_of(largest.offset);
        let file = self.file(dir)?;
        let mut scanner = BatchScanner::new(&file, from, self.size, SEARCH_CHUNK);
        while let Some(batch) = scanner.next_header()? {
            if batch.header.max_timestamp > largest.timestamp {
                largest = TimestampOffset {
                    timestamp: batch.header.max_timestamp,
                    offset: batch.header.last_offset(),
                };
            }
        }
        Ok(largest)
    }
}

fn roll_jitter_ms(config: &TopicConfig) -> i64 {
    let bound = config.segment_jitter_ms.min(config.segment_ms);
    if bound <= 0 {
        return 0;
    }
    (Uuid::new_v4().as_u128() % bound as u128) as i64
}

/// The first batch that ends at or behind `offset`, searched from `from`. A position out of a damaged index (no batch
/// there, or one behind the offset) is given up for a search from the start.
pub fn find_batch(file: &File, from: u64, end: u64, offset: Offset) -> io::Result<Option<Place>> {
    let mut scanner = BatchScanner::new(file, from, end, SEARCH_CHUNK);
    let mut misled = from >= end;
    while let Some(batch) = scanner.next_header()? {
        if from > 0 && batch.position == from && batch.header.base_offset > offset {
            misled = true;
            break;
        }
        if batch.header.last_offset() >= offset {
            return Ok(Some(batch.into()));
        }
    }
    if from > 0 && (misled || scanner.position() < end) {
        return find_batch(file, 0, end, offset);
    }
    Ok(None)
}
