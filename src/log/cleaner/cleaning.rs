//! One cleaning of one log (Kafka's `Cleaner`), in steps that the caller runs without the partition's lock:
//!
//! 1. under the lock [`Log::begin_cleaning`] takes down what there is;
//! 2. [`Cleaning::build_map`] reads the dirty section: the last offset of every key;
//! 3. [`Cleaning::clean_group`] copies what stays of some segments into one `.cleaned` segment, which
//!    [`Log::replace_segments`] puts in their place, again under the lock; and so on to the last group;
//! 4. [`Log::finish_cleaning`] notes up to where the log is clean.
//!
//! The files are read while the log goes on: what is cleaned is closed. If the log loses segments meanwhile (truncation,
//! retention, deletion), the replacement finds them missing and nothing has happened.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::filter::{Counts, Filter, LastRecord, Outcome, inflate, read_marker};
use super::offset_map::OffsetMap;
use super::output::CleanedSegment;
use super::plan::{CleanableRange, SizedSegment, SourceSegment, floor_index, group_by_size};
use super::transactions::CleanedTransactions;
use super::{CleanerSettings, CleanerStats, CleaningError};
use crate::log::Log;
use crate::log::batch_io::{BatchAt, BatchScanner};
use crate::log::disk;
use crate::log::index::position_in_file;
use crate::log::paths::{INDEX, LOG, TIME_INDEX, TXN_INDEX, segment_file};
use crate::log::txn_index::{self, AbortedTxn};
use crate::protocol::batch::{RawRecords, check_crc};
use crate::types::{Offset, ProducerId, TimestampMs};

/// Told how many bytes were read or written since the last call; false ends the cleaning. May sleep: that is the throttle.
pub type Progress<'a> = dyn FnMut(u64) -> bool + 'a;

/// A cleaning under way.
pub struct Cleaning {
    pub(super) path: PathBuf,
    range: CleanableRange,
    settings: CleanerSettings,
    now_ms: TimestampMs,
    delete_retention_ms: i64,
    index_interval_bytes: u64,
    segment_bytes_max: u64,
    index_bytes_max: u64,
    /// Closed segments up to the first that stays.
    segments: Vec<SourceSegment>,
    last_records: HashMap<ProducerId, LastRecord>,
    /// Begins of all segments, the active one too: a transaction's marker may be behind what is cleaned.
    bases: Vec<Offset>,
    aborted: Vec<AbortedTxn>,
    /// Truncations of the log when the cleaning began.
    generation: u64,
    /// Set by `build_map`.
    map: Option<OffsetMap>,
    groups: VecDeque<Vec<SourceSegment>>,
    transactions: CleanedTransactions,
    stats: CleanerStats,
}

/// A cleaned segment and what it replaces.
#[derive(Debug)]
pub struct CleanedGroup {
    pub(super) segment: CleanedSegment,
    pub(super) sources: Vec<SourceSegment>,
}

impl Log {
    /// Takes down what cleaning `range` needs. `None` while the range is not durable (flush first): a record may only go
    /// because of a later one that a power cut leaves.
    pub fn begin_cleaning(
        &self,
        range: CleanableRange,
        settings: CleanerSettings,
        now_ms: TimestampMs,
    ) -> Option<Cleaning> {
        if self.check_open().is_err() || self.recovery_point < range.first_uncleanable_offset {
            return None;
        }
        let bytes = |value: i32| u64::try_from(value).unwrap_or(0);
        let mut segments = self.source_segments();
        // Where the first dirty offset is, its segment's index tells, without the lock.
        if let Some(first) = self
            .dirty_segments(&segments, range.first_dirty_offset)
            .first()
            && let Err(error) = self.largest_timestamp_of(first)
        {
            self.fail_cleaning(error);
            return None;
        }
        let mut bases: Vec<Offset> = segments.iter().map(|s| s.base_offset).collect();
        bases.push(self.active.base_offset);
        segments.retain(|s| s.base_offset < range.first_uncleanable_offset);
        Some(Cleaning {
            path: self.path.clone(),
            range,
            settings,
            now_ms,
            delete_retention_ms: self.config.delete_retention_ms,
            index_interval_bytes: bytes(self.config.index_interval_bytes),
            segment_bytes_max: bytes(self.config.segment_bytes),
            index_bytes_max: bytes(self.config.segment_index_bytes),
            segments,
            last_records: self.producers.last_records(),
            bases,
            aborted: Vec::new(),
            generation: self.truncations,
            map: None,
            groups: VecDeque::new(),
            transactions: CleanedTransactions::default(),
            stats: CleanerStats::default(),
        })
    }
}

impl Cleaning {
    pub fn stats(&self) -> &CleanerStats {
        &self.stats
    }

    /// For [`Log::is_generation`].
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes a replacement durable.
    pub fn sync_replaced(&self) -> Result<(), CleaningError> {
        match disk::sync_dir(&self.path) {
            // Deleted meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(CleaningError::Aborted),
            other => other.map_err(CleaningError::Io),
        }
    }

    /// Where the dirty section began, and the first offset that is not clean. The latter once the map is built.
    pub fn dirty_section(&self) -> (Offset, Offset) {
        let end = self.map.as_ref().map_or(-1, OffsetMap::latest_offset) + 1;
        (self.range.first_dirty_offset, end)
    }

    /// Reads the dirty section, up to where the map is full. `seed` is the key of its hash.
    pub fn build_map(
        &mut self,
        seed: u128,
        progress: &mut Progress<'_>,
    ) -> Result<(), CleaningError> {
        let CleanableRange {
            first_dirty_offset: start,
            first_uncleanable_offset: end,
        } = self.range;
        let keys_max = usize::try_from(end - start).unwrap_or(0);
        let CleanerSettings {
            dedupe_buffer_bytes,
            load_factor,
            ..
        } = self.settings;
        let mut map = OffsetMap::new(dedupe_buffer_bytes, load_factor, keys_max, seed);
        self.aborted = read_txn_indexes(&self.path, &self.bases)?;
        let concerned = |txn: &&AbortedTxn| txn.last_offset >= start && txn.first_offset < end;
        let mut transactions =
            CleanedTransactions::new(self.aborted.iter().filter(concerned).copied());
        for at in floor_index(&self.segments, start)..self.segments.len() {
            let next_base = self
                .segments
                .get(at + 1)
                .map_or(end, |next| next.base_offset);
            let segment = self.segments[at];
            if self.map_segment(&segment, &mut map, &mut transactions, progress)? {
                break;
            }
            map.update_latest_offset(next_base - 1);
        }
        self.stats.buffer_utilization = map.utilization();
        let clean_end = map.latest_offset() + 1;
        self.map = Some(map);
        self.plan_groups(clean_end)?;
        self.transactions = CleanedTransactions::new(self.aborted.iter().copied());
        Ok(())
    }

    /// Puts one segment's keys into the map; true if it is full.
    fn map_segment(
        &mut self,
        segment: &SourceSegment,
        map: &mut OffsetMap,
        transactions: &mut CleanedTransactions,
        progress: &mut Progress<'_>,
    ) -> Result<bool, CleaningError> {
        let start = self.range.first_dirty_offset;
        let source = Source::open(self, segment)?;
        let index = segment_file(&self.path, segment.base_offset, INDEX);
        let from =
            position_in_file(&index, segment.base_offset, start).map_err(CleaningError::Io)?;
        let mut scanner = source.scan(from, &self.settings);
        let mut told = from;
        while let Some(batch) = source.next(&mut scanner)? {
            let header = batch.header;
            let bytes = source.bytes(&mut scanner, &batch)?;
            self.stats.map_bytes_read += bytes.len() as u64;
            let is_aborted = if header.is_control() {
                let marker = read_marker(&header, bytes).map_err(|e| source.corrupt(&batch, e))?;
                transactions.on_marker(header.producer_id, marker, header.last_offset());
                true
            } else {
                let (id, transactional) = (header.producer_id, header.is_transactional());
                transactions.on_batch(id, transactional, header.last_offset())
            };
            if !is_aborted {
                let mut inflated = Vec::new();
                let payload = inflate(&header, bytes, &mut inflated)
                    .map_err(|e| source.corrupt(&batch, e))?;
                for record in RawRecords::new(payload) {
                    let record = record.map_err(|e| source.corrupt(&batch, e))?;
                    let offset = header.base_offset + i64::from(record.offset_delta);
                    let Some(key) = record.key.filter(|_| offset >= start) else {
                        continue;
                    };
                    if map.is_full() {
                        return Ok(true);
                    }
                    map.put(key, offset);
                }
            }
            if header.last_offset() >= start {
                map.update_latest_offset(header.last_offset());
            }
            tell(progress, &mut told, scanner.position(), &self.settings)?;
        }
        Ok(false)
    }

    fn plan_groups(&mut self, clean_end: Offset) -> Result<(), CleaningError> {
        let size_of = |segment: &SourceSegment, kind| -> Result<u64, CleaningError> {
            match fs::metadata(segment_file(&self.path, segment.base_offset, kind)) {
                Ok(found) => Ok(found.len()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
                Err(e) => Err(CleaningError::Io(e)),
            }
        };
        let mut sized = Vec::new();
        for segment in self.segments.iter().filter(|s| s.base_offset < clean_end) {
            sized.push(SizedSegment {
                source: *segment,
                index_bytes: size_of(segment, INDEX)?,
                time_index_bytes: size_of(segment, TIME_INDEX)?,
            });
        }
        self.groups = group_by_size(
            &sized,
            self.segment_bytes_max,
            self.index_bytes_max,
            self.range.first_uncleanable_offset,
        )
        .into();
        Ok(())
    }

    /// Cleans the next group of segments; `None` when all are done.
    pub fn clean_group(
        &mut self,
        progress: &mut Progress<'_>,
    ) -> Result<Option<CleanedGroup>, CleaningError> {
        let Some(sources) = self.groups.pop_front() else {
            return Ok(None);
        };
        let mut segment = CleanedSegment::create(
            &self.path,
            sources[0].base_offset,
            self.index_interval_bytes,
            self.settings.io_buffer_bytes,
        )
        .map_err(CleaningError::Io)?;
        match self.clean_into(&sources, &mut segment, progress) {
            Ok(()) => Ok(Some(CleanedGroup { segment, sources })),
            Err(error) => {
                // What is left over goes at the next attempt or start.
                let _ = segment.discard();
                Err(error)
            }
        }
    }

    fn clean_into(
        &mut self,
        sources: &[SourceSegment],
        target: &mut CleanedSegment,
        progress: &mut Progress<'_>,
    ) -> Result<(), CleaningError> {
        let mut modified = SystemTime::UNIX_EPOCH;
        for segment in sources {
            let source = Source::open(self, segment)?;
            modified = source.modified;
            self.clean_segment(&source, target, progress)?;
        }
        let aborted = self.transactions.take_retained();
        self.stats.bytes_written += target.size;
        target.finish(&aborted, modified).map_err(CleaningError::Io)
    }

    fn clean_segment(
        &mut self,
        source: &Source,
        target: &mut CleanedSegment,
        progress: &mut Progress<'_>,
    ) -> Result<(), CleaningError> {
        let map = self.map.as_ref().expect("groups are planned with the map");
        let filter = Filter {
            map,
            last_records: &self.last_records,
            round_end: self.range.first_uncleanable_offset,
            now_ms: self.now_ms,
            delete_retention_ms: self.delete_retention_ms,
        };
        let mut counts = Counts::default();
        let mut rewritten = Vec::new();
        let mut scanner = source.scan(0, &self.settings);
        let (mut told, mut written) = (0, 0);
        while let Some(batch) = source.next(&mut scanner)? {
            let bytes = source.bytes(&mut scanner, &batch)?;
            rewritten.clear();
            let outcome = filter
                .filter(
                    &batch.header,
                    bytes,
                    &mut self.transactions,
                    &mut counts,
                    &mut rewritten,
                )
                .map_err(|e| source.corrupt(&batch, e))?;
            let before = target.size;
            match outcome {
                Outcome::Dropped => Ok(()),
                Outcome::Original => target.append(&batch.header, bytes),
                Outcome::Rewritten => {
                    let header = crate::protocol::batch::parse_header(&rewritten)
                        .expect("the filter writes whole headers");
                    target.append(&header, &rewritten)
                }
            }
            .map_err(CleaningError::Io)?;
            written += target.size - before;
            tell(
                progress,
                &mut told,
                scanner.position() + written,
                &self.settings,
            )?;
        }
        self.stats.bytes_read += source.size;
        self.stats.messages_read += counts.read;
        self.stats.messages_written += counts.retained;
        self.stats.invalid_messages += counts.invalid;
        Ok(())
    }
}

/// The aborted transactions of all segments.
fn read_txn_indexes(dir: &Path, bases: &[Offset]) -> Result<Vec<AbortedTxn>, CleaningError> {
    let mut aborted = Vec::new();
    for base in bases {
        let path = segment_file(dir, *base, TXN_INDEX);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(CleaningError::Io)?,
        };
        let entries = txn_index::decode_growing(&bytes).ok_or_else(|| CleaningError::Corrupt {
            path,
            position: 0,
            reason: "no transaction index".into(),
        })?;
        aborted.extend(entries);
    }
    Ok(aborted)
}

/// Reports progress once a buffer's worth was done.
fn tell(
    progress: &mut Progress<'_>,
    told: &mut u64,
    done: u64,
    settings: &CleanerSettings,
) -> Result<(), CleaningError> {
    if done - *told < settings.io_buffer_bytes as u64 {
        return Ok(());
    }
    let more = done - *told;
    *told = done;
    if progress(more) {
        Ok(())
    } else {
        Err(CleaningError::Aborted)
    }
}

/// An open segment that is being read.
struct Source {
    path: PathBuf,
    file: File,
    size: u64,
    modified: SystemTime,
}

impl Source {
    fn open(cleaning: &Cleaning, segment: &SourceSegment) -> Result<Self, CleaningError> {
        let path = segment_file(&cleaning.path, segment.base_offset, LOG);
        let file = File::open(&path).map_err(CleaningError::Io)?;
        let modified = file
            .metadata()
            .and_then(|found| found.modified())
            .map_err(CleaningError::Io)?;
        Ok(Self {
            path,
            file,
            size: segment.size,
            modified,
        })
    }

    fn scan(&self, from: u64, settings: &CleanerSettings) -> BatchScanner<'_> {
        BatchScanner::new(&self.file, from, self.size, settings.io_buffer_bytes)
    }

    /// The next batch; bytes that are none are damage, for the log is closed here.
    fn next(&self, scanner: &mut BatchScanner<'_>) -> Result<Option<BatchAt>, CleaningError> {
        let found = scanner.next_header().map_err(CleaningError::Io)?;
        if found.is_none() && scanner.position() < self.size {
            return Err(CleaningError::Corrupt {
                path: self.path.clone(),
                position: scanner.position(),
                reason: "no whole batch".into(),
            });
        }
        Ok(found)
    }

    /// The whole batch, its checksum checked: what cleaning writes gets a new one, which must not hide damage.
    fn bytes<'a>(
        &self,
        scanner: &'a mut BatchScanner<'_>,
        batch: &BatchAt,
    ) -> Result<&'a [u8], CleaningError> {
        let bytes = scanner.batch_bytes(batch).map_err(CleaningError::Io)?;
        check_crc(&batch.header, bytes).map_err(|e| self.corrupt(batch, e))?;
        Ok(bytes)
    }

    fn corrupt(&self, batch: &BatchAt, reason: impl std::fmt::Display) -> CleaningError {
        CleaningError::Corrupt {
            path: self.path.clone(),
            position: batch.position,
            reason: reason.to_string(),
        }
    }
}
