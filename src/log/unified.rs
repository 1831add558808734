//! One partition's log (Kafka's `UnifiedLog`): appends, reads, rolls, truncates, flushes. `load.rs` opens it, `lookup.rs`
//! finds offsets by timestamp.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tracing::info;

use super::checkpoint::{PARTITION_METADATA, format_partition_metadata, replace_file};
use super::error::{AppendError, ReadError, StorageError};
use super::flush::FlushJob;
use super::paths::{INDEX, LOG, SNAPSHOT, TIME_INDEX, TXN_INDEX, segment_file};
use super::producer_snapshot;
use super::producer_state::{EndTxnMarker, ProducerState, Verdict};
use super::reader::{Readers, SegmentReader};
use super::segment::{ActiveSegment, ClosedSegment, RollLimits};
use super::txn_index::TxnIndexes;
use super::{
    AbortedTxn, ActiveProducer, AppendInfo, LeaderEpochCache, LogDir, LogSlice, OpenParams, disk,
    load,
};
use crate::config::TopicConfig;
use crate::protocol::batch::{
    AppendOrigin, BatchHeader, HEADER_SIZE, Records, ValidBatch, check_crc, parse_header,
};
use crate::protocol::{Error, ErrorCode};
use crate::types::{LeaderEpoch, NO_TIMESTAMP, Offset, TimestampMs, TopicPartition, Uuid};

/// A control record is a few bytes; more is no control record.
const CONTROL_BYTES_MAX: usize = 1 << 20;

/// More than this is flushed without being asked, so that the next start after a crash has little to read, and a roll little
/// to write at once.
const UNFLUSHED_BYTES_MAX: u64 = 256 << 20;

/// One partition's log. Owned by its partition, behind that one's mutex.
#[derive(Debug)]
#[allow(clippy::struct_field_names, reason = "Kafka says log start offset")]
pub struct Log {
    pub(super) dir: Arc<LogDir>,
    /// The partition's directory.
    pub(super) path: PathBuf,
    pub(super) topic_partition: TopicPartition,
    pub(super) topic_id: Option<Uuid>,
    pub(super) config: Arc<TopicConfig>,
    pub(super) producer_id_expiration_ms: i64,
    /// By base offset.
    pub(super) closed: Vec<ClosedSegment>,
    /// Size of all of them.
    pub(super) closed_bytes: u64,
    pub(super) readers: Readers,
    pub(super) active: ActiveSegment,
    pub(super) log_start_offset: Offset,
    pub(super) next_offset: Offset,
    pub(super) recovery_point: Offset,
    pub(super) leader_epochs: LeaderEpochCache,
    pub(super) producers: ProducerState,
    pub(super) txn_indexes: TxnIndexes,
    /// Offsets of the `.snapshot` files, growing.
    pub(super) snapshots: Vec<Offset>,
    pub(super) last_snapshot_offset: Offset,
    /// Files renamed to `.deleted` that the caller has not taken yet.
    pub(super) deleted: Vec<PathBuf>,
    /// The partition's directory, and its parent, have entries that no sync has covered.
    pub(super) dir_dirty: bool,
    pub(super) parent_dirty: bool,
    /// A segment was closed and not flushed.
    pub(super) rolled: bool,
    /// Appended since the last flush began.
    pub(super) unflushed_bytes: u64,
    /// Grows with every truncation, so that flushes begun before one do not count.
    pub(super) truncations: u64,
    /// The last time anybody told us: when segments are created.
    pub(super) now_ms: TimestampMs,
    pub(super) is_closed: bool,
    /// Up to where the log was cleaned; `None` if it never was.
    pub(super) cleaner_checkpoint: Option<Offset>,
}

/// Batches accepted for the active segment that the next write carries. Headers and small batches are gathered in a
/// buffer: copying a few hundred bytes costs less than another slice in the system call.
#[derive(Default)]
struct Pending<'a> {
    position: u64,
    buffer: Vec<u8>,
    /// Up to where the buffer goes before each large batch's records.
    large: Vec<(usize, &'a [u8])>,
    /// What the transaction index gets once the batches are written.
    aborted: Vec<AbortedTxn>,
}

/// Records up to this size are copied.
const COPIED_MAX: usize = 2048;

impl Log {
    /// Creates the log, or loads it and, after an unclean stop, recovers it.
    pub fn open(params: OpenParams) -> Result<Log, StorageError> {
        params.dir.check_online()?;
        load::load(params)
    }

    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// As `partition.metadata` has it.
    pub fn topic_id(&self) -> Option<Uuid> {
        self.topic_id
    }

    /// Writes `partition.metadata` of a log that has none. Another id than the one there is refused.
    pub fn set_topic_id(&mut self, topic_id: Uuid) -> Result<(), StorageError> {
        match self.topic_id {
            Some(known) if known == topic_id => return Ok(()),
            Some(_) => {
                return Err(StorageError::Unusable {
                    path: self.path.join(PARTITION_METADATA),
                    reason: "belongs to another topic of the same name".into(),
                });
            }
            None => {}
        }
        let text = format_partition_metadata(topic_id);
        replace_file(&self.path, PARTITION_METADATA, text.as_bytes(), false)
            .map_err(|e| self.dir.fail(e))?;
        self.dir_dirty = true;
        self.topic_id = Some(topic_id);
        Ok(())
    }

    pub fn log_dir(&self) -> &Arc<LogDir> {
        &self.dir
    }

    pub fn config(&self) -> &Arc<TopicConfig> {
        &self.config
    }

    pub fn update_config(&mut self, config: Arc<TopicConfig>) {
        self.config = config;
    }

    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// What `log-start-offset-checkpoint` has to hold: nothing where the first segment's name says it
    /// (`LogManager.checkpointLogStartOffsetsInDir`).
    pub fn log_start_to_checkpoint(&self) -> Option<Offset> {
        let first = self.closed.first().map(|segment| segment.base_offset);
        let first = first.unwrap_or(self.active.base_offset);
        (self.log_start_offset > first).then_some(self.log_start_offset)
    }

    /// Log end offset (LEO).
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Every offset below this one is durable.
    pub fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    /// Size of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.closed_bytes + self.active.size
    }

    pub fn segments_count(&self) -> usize {
        self.closed.len() + 1
    }

    pub fn leader_epochs(&self) -> &LeaderEpochCache {
        &self.leader_epochs
    }

    /// First offset of a transaction that is not decided; `None` without one.
    pub fn first_undecided_offset(&self) -> Option<Offset> {
        self.producers.first_undecided_offset()
    }

    /// Exclusive end of what read_committed consumers may see: the high watermark, or where a transaction begins that is
    /// open or whose marker is not below the high watermark yet.
    pub fn last_stable_offset(&mut self, high_watermark: Offset) -> Offset {
        self.producers.on_high_watermark(high_watermark);
        match self.producers.first_unstable_offset() {
            Some(offset) => offset.max(self.log_start_offset).min(high_watermark),
            None => high_watermark,
        }
    }

    /// Producers that are not expired, in no order.
    pub fn active_producers(&self) -> impl Iterator<Item = ActiveProducer> + '_ {
        self.producers.active()
    }

    /// Forgets producers that wrote nothing for `producer.id.expiration.ms`. Call it now and then.
    pub fn remove_expired_producers(&mut self, now_ms: TimestampMs) {
        self.producers
            .remove_expired(now_ms, self.producer_id_expiration_ms);
    }

    pub(super) fn io_error(&self, action: &'static str, path: &Path, e: io::Error) -> StorageError {
        self.dir.fail(StorageError::io(action, path, e))
    }

    pub(super) fn segment_error(&self, action: &'static str, e: io::Error) -> StorageError {
        let path = segment_file(&self.path, self.active.base_offset, LOG);
        self.io_error(action, &path, e)
    }

    pub(super) fn check_open(&self) -> Result<(), StorageError> {
        if self.is_closed {
            return Err(StorageError::Unusable {
                path: self.path.clone(),
                reason: "the log is closed".into(),
            });
        }
        self.dir.check_online()
    }

    /// Appends all batches with one write. The outer error takes the directory offline; an inner one refuses one batch
    /// (sequence, epoch) and leaves the others alone.
    pub fn append_as_leader(
        &mut self,
        batches: &[ValidBatch],
        leader_epoch: LeaderEpoch,
        now_ms: TimestampMs,
    ) -> Result<Vec<Result<AppendInfo, Error>>, StorageError> {
        self.check_open()?;
        self.now_ms = now_ms;
        let mut pending = Pending::with_capacity(batches.iter().map(ValidBatch::size_bytes));
        let mut results = Vec::with_capacity(batches.len());
        for batch in batches {
            let verdict = match self.judge(batch) {
                Ok(verdict) => verdict,
                Err(error) => {
                    results.push(Err(error));
                    continue;
                }
            };
            if let Verdict::Duplicate(original) = verdict {
                results.push(Ok(AppendInfo {
                    first_offset: original.first_offset(),
                    last_offset: original.last_offset,
                    log_append_time_ms: original.timestamp,
                    log_start_offset: self.log_start_offset,
                    duplicate: true,
                }));
                continue;
            }
            let mut header = batch.header;
            header.base_offset = self.next_offset;
            header.partition_leader_epoch = leader_epoch;
            self.accept(&header, &batch.bytes, &mut pending)?;
            results.push(Ok(self.append_info(&header)));
        }
        self.write(&mut pending)?;
        Ok(results)
    }

    fn judge(&self, batch: &ValidBatch) -> Result<Verdict, Error> {
        if let AppendOrigin::Marker(transaction_version) = batch.origin
            && let Some(marker) = parse_end_txn_marker(&batch.header, &batch.bytes)
        {
            self.producers
                .check_marker(&batch.header, marker, transaction_version)?;
        }
        self.producers.check(&batch.header, batch.origin)
    }

    /// Appends batches that carry their offsets and epochs already: from a leader, or from consensus. A torn batch at the
    /// end is left out; an empty answer has `last_offset` below `first_offset`.
    pub fn append_as_follower(
        &mut self,
        records: Bytes,
        now_ms: TimestampMs,
    ) -> Result<AppendInfo, AppendError> {
        self.check_open()?;
        self.now_ms = now_ms;
        let headers = self.check_replicated(&records)?;
        let mut pending = Pending::with_capacity(headers.iter().map(BatchHeader::size_bytes));
        let mut info = AppendInfo {
            first_offset: headers.first().map_or(self.next_offset, |h| h.base_offset),
            last_offset: self.next_offset - 1,
            log_append_time_ms: NO_TIMESTAMP,
            log_start_offset: self.log_start_offset,
            duplicate: false,
        };
        let mut at = 0;
        for header in &headers {
            let batch = &records[at..at + header.size_bytes()];
            at += header.size_bytes();
            self.accept(header, batch, &mut pending)?;
            info.last_offset = header.last_offset();
        }
        self.write(&mut pending)?;
        Ok(info)
    }

    /// Headers of whole, sound batches in growing order that begin at or behind the log's end.
    fn check_replicated(&self, records: &[u8]) -> Result<Vec<BatchHeader>, AppendError> {
        let invalid =
            |text: String| AppendError::Invalid(Error::new(ErrorCode::CorruptMessage, text));
        let mut headers = Vec::new();
        let mut next_offset = self.next_offset;
        let mut rest = records;
        while rest.len() >= HEADER_SIZE {
            let header = parse_header(rest).map_err(|e| invalid(e.to_string()))?;
            if header.size_bytes() > rest.len() {
                break;
            }
            let (batch, behind) = rest.split_at(header.size_bytes());
            rest = behind;
            check_crc(&header, batch).map_err(|e| invalid(e.to_string()))?;
            if header.last_offset_delta < 0 || header.next_offset() == i64::MAX {
                return Err(invalid("batch has an invalid offset range".into()));
            }
            if header.base_offset < next_offset {
                return Err(AppendError::UnexpectedOffset {
                    found: header.base_offset,
                    next_offset,
                });
            }
            next_offset = header.next_offset();
            headers.push(header);
        }
        Ok(headers)
    }

    fn append_info(&self, header: &BatchHeader) -> AppendInfo {
        AppendInfo {
            first_offset: header.base_offset,
            last_offset: header.last_offset(),
            log_append_time_ms: if header.is_log_append_time() {
                header.max_timestamp
            } else {
                NO_TIMESTAMP
            },
            log_start_offset: self.log_start_offset,
            duplicate: false,
        }
    }

    /// Queues one batch with its final header, after rolling where needed. State moves ahead of the write: a write that
    /// fails takes the directory offline, so nobody sees the difference.
    fn accept<'a>(
        &mut self,
        header: &BatchHeader,
        batch: &'a [u8],
        pending: &mut Pending<'a>,
    ) -> Result<(), StorageError> {
        if self.leader_epochs.latest_epoch() < Some(header.partition_leader_epoch) {
            self.assign_epoch(header.partition_leader_epoch, header.base_offset)?;
        }
        let limits = RollLimits {
            segment_bytes: self.config.segment_bytes,
            segment_ms: self.config.segment_ms_max(),
            index_bytes: usize::try_from(self.config.segment_index_bytes).unwrap_or(0),
        };
        let should_roll = self
            .active
            .should_roll(&self.path, &limits, header, self.now_ms)
            .map_err(|e| self.segment_error("read", e))?;
        if should_roll {
            self.write(pending)?;
            self.roll(header.base_offset)?;
        }
        if pending.buffer.is_empty() {
            pending.position = self.active.size;
        }
        pending.push(header, &batch[HEADER_SIZE..]);
        self.active
            .append(&self.path, header, self.config.index_interval_bytes)
            .map_err(|e| self.segment_error("index", e))?;
        if header.is_control() && header.has_producer_id() {
            if let Some(marker) = parse_end_txn_marker(header, batch) {
                pending
                    .aborted
                    .extend(self.producers.end_transaction(header, marker));
            }
        } else {
            self.producers.update(header);
        }
        self.producers.map_end_offset = header.next_offset();
        self.next_offset = header.next_offset();
        self.unflushed_bytes += header.size_bytes() as u64;
        Ok(())
    }

    fn write(&mut self, pending: &mut Pending<'_>) -> Result<(), StorageError> {
        if pending.buffer.is_empty() {
            return Ok(());
        }
        let written = self
            .active
            .file(&self.path)
            .and_then(|file| pending.write(file));
        pending.buffer.clear();
        pending.large.clear();
        written.map_err(|e| self.segment_error("append to", e))?;
        if pending.aborted.is_empty() {
            return Ok(());
        }
        let base_offset = self.active.base_offset;
        self.dir_dirty |= !self.txn_indexes.contains(base_offset);
        self.txn_indexes
            .append(&self.path, base_offset, &pending.aborted)
            .map_err(|e| self.txn_index_error(base_offset, e))?;
        pending.aborted.clear();
        Ok(())
    }

    /// Closes the active segment and begins one at `base_offset`, or at the log's end where that is higher.
    pub(super) fn roll(&mut self, base_offset: Offset) -> Result<(), StorageError> {
        let base_offset = base_offset.max(self.next_offset);
        self.finish_active()?;
        self.producers.map_end_offset = base_offset;
        self.take_snapshot(false)?;
        let jitter_ms = self.roll_jitter_ms();
        let next = ActiveSegment::create(&self.path, base_offset, self.now_ms, jitter_ms)
            .map_err(|e| self.segment_error("roll", e))?;
        let last = std::mem::replace(&mut self.active, next);
        if last.size == 0 {
            self.delete_segment_files(last.base_offset)?;
        } else {
            self.closed_bytes += last.size;
            self.closed.push(last.into_closed());
        }
        self.dir_dirty = true;
        self.rolled = true;
        info!(tp = %self.topic_partition, base_offset, "rolled new log segment");
        Ok(())
    }

    /// How much sooner than `segment.ms` a new segment is rolled, so that logs do not all roll at once.
    pub(super) fn roll_jitter_ms(&self) -> i64 {
        roll_jitter_ms(&self.config)
    }

    /// Brings the active segment's index files up to date.
    fn finish_active(&mut self) -> Result<(), StorageError> {
        let finished = self
            .active
            .finish_time_index(&self.path)
            .and_then(|()| write_index_files(&self.path, &mut self.active));
        finished.map_err(|e| self.segment_error("index", e))
    }

    /// Writes the producer state at the log's end, unless the last snapshot is of there.
    pub(super) fn take_snapshot(&mut self, sync: bool) -> Result<(), StorageError> {
        let offset = self.producers.map_end_offset;
        if offset <= self.last_snapshot_offset {
            return Ok(());
        }
        let path = segment_file(&self.path, offset, SNAPSHOT);
        disk::write_file(&path, &producer_snapshot::encode(&self.producers))
            .and_then(|file| if sync { disk::sync_data(&file) } else { Ok(()) })
            .map_err(|e| self.io_error("write", &path, e))?;
        self.last_snapshot_offset = offset;
        self.snapshots.push(offset);
        self.dir_dirty = true;
        Ok(())
    }

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
            self.active.file(&self.path)?,
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
        self.readers
            .with(&self.path, segment, read)
            .map_err(|e| self.io_error("read", &path, e))
    }

    /// Closes files that no read has used since the last call. Call it now and then.
    pub fn release_idle_readers(&self) {
        self.readers.release_idle();
    }

    /// Notes that `epoch` begins at `start_offset`.
    pub fn assign_epoch(
        &mut self,
        epoch: LeaderEpoch,
        start_offset: Offset,
    ) -> Result<(), StorageError> {
        if self.leader_epochs.assign(epoch, start_offset) {
            // An empty log can do without the sync: there is nothing that the epochs would have to explain.
            let sync = self.next_offset > self.log_start_offset;
            self.store_epochs(sync)?;
        }
        Ok(())
    }

    pub(super) fn store_epochs(&mut self, sync: bool) -> Result<(), StorageError> {
        self.dir_dirty |= !sync;
        self.leader_epochs
            .store(&self.path, sync)
            .map_err(|e| self.dir.fail(e))
    }

    /// Files that were renamed to `.deleted` and may be removed once `file.delete.delay.ms` has passed since.
    pub fn take_deleted_files(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.deleted)
    }

    /// Whether `flush.messages`, a roll or much unflushed data asks for a flush; `flush.ms` is the caller's timer.
    pub fn flush_due(&self) -> bool {
        self.checkpoint_due()
            || (self.next_offset - self.recovery_point) >= self.config.flush_messages.max(1)
    }

    /// Whether the flush to come is worth a new recovery point on disk: the next start has less to read.
    fn checkpoint_due(&self) -> bool {
        self.rolled || self.unflushed_bytes >= UNFLUSHED_BYTES_MAX
    }

    /// Starts a flush of everything appended so far; `None` if there is nothing to do. Group commit: take a job, release the
    /// lock, run it, lock again, finish it; appends go on in between.
    pub fn begin_flush(&mut self) -> Option<FlushJob> {
        if self.recovery_point >= self.next_offset && !self.rolled || self.check_open().is_err() {
            return None;
        }
        let mut job = FlushJob::new(self.dir.clone(), self.next_offset, self.truncations);
        job.checkpoint = self.checkpoint_due();
        let mut end = self.active.base_offset;
        for segment in self.closed.iter().rev() {
            if end <= self.recovery_point {
                break;
            }
            for kind in [LOG, INDEX, TIME_INDEX] {
                job.add_path(segment_file(&self.path, segment.base_offset, kind));
            }
            self.flush_txn_index(segment.base_offset, &mut job);
            job.add_path(segment_file(&self.path, end, SNAPSHOT));
            end = segment.base_offset;
        }
        let active_path = segment_file(&self.path, self.active.base_offset, LOG);
        match self.active.open_file() {
            Some(file) => job.set_active(file.clone(), active_path),
            None => job.add_path(active_path),
        }
        self.flush_txn_index(self.active.base_offset, &mut job);
        if std::mem::take(&mut self.dir_dirty) {
            job.add_dir(self.path.clone());
        }
        if std::mem::take(&mut self.parent_dirty) {
            job.add_dir(self.dir.path().to_owned());
        }
        self.rolled = false;
        self.unflushed_bytes = 0;
        Some(job)
    }

    fn flush_txn_index(&self, base_offset: Offset, job: &mut FlushJob) {
        if self.txn_indexes.contains(base_offset) {
            job.add_path(segment_file(&self.path, base_offset, TXN_INDEX));
        }
    }

    /// Moves the recovery point to where a job got that ran without error. Where it says so, follow with
    /// [`LogDir::write_recovery_points`], without the lock.
    pub fn finish_flush(&mut self, job: &FlushJob) {
        if job.truncations() == self.truncations {
            self.recovery_point = self.recovery_point.max(job.up_to());
            if job.checkpoint {
                self.dir
                    .raise_recovery_point(&self.topic_partition, self.recovery_point);
            }
        }
    }

    /// Flushes everything, holding the lock.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        self.check_open()?;
        if let Some(job) = self.begin_flush() {
            job.run()?;
            self.finish_flush(&job);
        }
        Ok(())
    }

    /// Leaves the files as Kafka leaves them at a clean stop. Without `sync` the caller makes the file system durable itself
    /// ([`LogDir::sync_file_system`]) before it writes checkpoints.
    pub fn close(&mut self, sync: bool) -> Result<(), StorageError> {
        if self.is_closed {
            return Ok(());
        }
        self.check_open()?;
        let indexes_dirty = self.active.indexes_dirty;
        self.finish_active()?;
        self.take_snapshot(sync)?;
        if sync {
            if indexes_dirty || self.dir_dirty {
                self.sync_active_indexes()?;
                self.dir_dirty = true;
                self.rolled = true;
            }
            self.flush()?;
        } else {
            self.recovery_point = self.next_offset;
        }
        self.is_closed = true;
        self.readers.clear();
        Ok(())
    }

    fn sync_active_indexes(&self) -> Result<(), StorageError> {
        for kind in [INDEX, TIME_INDEX] {
            let path = segment_file(&self.path, self.active.base_offset, kind);
            disk::sync_file(&path).map_err(|e| self.io_error("sync", &path, e))?;
        }
        Ok(())
    }
}

impl<'a> Pending<'a> {
    /// Room for batches of these sizes.
    fn with_capacity(sizes: impl Iterator<Item = usize>) -> Self {
        let copied = sizes.map(|size| {
            if size <= COPIED_MAX {
                size
            } else {
                HEADER_SIZE
            }
        });
        Self {
            position: 0,
            buffer: Vec::with_capacity(copied.sum()),
            large: Vec::new(),
            aborted: Vec::new(),
        }
    }

    fn push(&mut self, header: &BatchHeader, records: &'a [u8]) {
        self.buffer.extend_from_slice(&header.encode());
        if HEADER_SIZE + records.len() <= COPIED_MAX {
            self.buffer.extend_from_slice(records);
        } else {
            self.large.push((self.buffer.len(), records));
        }
    }

    fn write(&self, file: &File) -> io::Result<()> {
        if let [(end, records)] = self.large[..]
            && end == self.buffer.len()
        {
            let slices = &mut [IoSlice::new(&self.buffer), IoSlice::new(records)];
            return disk::write_all_at(file, slices, self.position);
        }
        let mut slices = Vec::with_capacity(2 * self.large.len() + 1);
        let mut from = 0;
        for (end, records) in &self.large {
            slices.push(IoSlice::new(&self.buffer[from..*end]));
            slices.push(IoSlice::new(records));
            from = *end;
        }
        slices.push(IoSlice::new(&self.buffer[from..]));
        disk::write_all_at(file, &mut slices, self.position)
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

/// Writes both index files of a segment whose indexes changed.
pub(super) fn write_index_files(dir: &Path, segment: &mut ActiveSegment) -> io::Result<()> {
    if segment.indexes_dirty {
        let base = segment.base_offset;
        let indexes = segment.indexes(dir)?;
        disk::write_file(&segment_file(dir, base, INDEX), &indexes.offset_bytes())?;
        disk::write_file(&segment_file(dir, base, TIME_INDEX), &indexes.time_bytes())?;
        segment.indexes_dirty = false;
    }
    Ok(())
}

pub(super) fn roll_jitter_ms(config: &TopicConfig) -> i64 {
    let bound = config.segment_jitter_ms.min(config.segment_ms);
    if bound <= 0 {
        return 0;
    }
    (Uuid::new_v4().as_u128() % bound as u128) as i64
}

/// The marker in a control batch; `None` for control records of other kinds.
pub(super) fn parse_end_txn_marker(header: &BatchHeader, batch: &[u8]) -> Option<EndTxnMarker> {
    let record = Records::new(header, batch, CONTROL_BYTES_MAX)
        .ok()?
        .next()?
        .ok()?;
    let key = record.key?;
    let kind = i16::from_be_bytes(key.get(2..4)?.try_into().ok()?);
    if !matches!(kind, 0 | 1) {
        return None;
    }
    let value = record.value?;
    Some(EndTxnMarker {
        commit: kind == 1,
        coordinator_epoch: i32::from_be_bytes(value.get(2..6)?.try_into().ok()?),
        timestamp: record.timestamp,
    })
}
