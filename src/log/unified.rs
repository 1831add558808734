//! One partition's log (Kafka's `UnifiedLog`): its state, rolls, flushes, the end of it. `load.rs` opens it; `append.rs`, `read.rs`,
//! `lookup.rs`, `truncate.rs` and `retention.rs` are the rest of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::info;

use super::checkpoint::{PARTITION_METADATA, format_partition_metadata, replace_file};
use super::error::StorageError;
use super::flush::FlushJob;
use super::paths::{INDEX, LOG, SNAPSHOT, TIME_INDEX, TXN_INDEX, segment_file};
use super::producer_snapshot;
use super::producer_state::ProducerState;
use super::reader::Readers;
use super::segment::{ActiveSegment, ClosedSegment};
use super::txn_index::TxnIndexes;
use super::{ActiveProducer, LeaderEpochCache, LogDir, OpenParams, disk, load};
use crate::config::TopicConfig;
use crate::types::{LeaderEpoch, Offset, TimestampMs, TopicPartition, Uuid};

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
    pub(super) closed: Vec<Arc<ClosedSegment>>,
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
                let path = self.path.clone();
                return Err(StorageError::OtherTopic { path });
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

    /// Closes the active segment and begins one at `base_offset`, or at the log's end where that is higher.
    pub(super) fn roll(&mut self, base_offset: Offset) -> Result<(), StorageError> {
        let base_offset = base_offset.max(self.next_offset);
        self.finish_active()?;
        self.producers.map_end_offset = base_offset;
        self.take_snapshot(false)?;
        let next = ActiveSegment::create(&self.path, base_offset, self.now_ms, &self.config)
            .map_err(|e| self.segment_error("roll", e))?;
        let last = std::mem::replace(&mut self.active, next);
        if last.size == 0 {
            self.delete_segment_files(last.base_offset)?;
        } else {
            self.closed_bytes += last.size;
            self.closed.push(Arc::new(last.into_closed()));
        }
        self.dir_dirty = true;
        self.rolled = true;
        info!(tp = %self.topic_partition, base_offset, "rolled new log segment");
        Ok(())
    }

    /// Leaves the active segment's files as those of a closed one. Tells whether the log file was cut to its size.
    fn finish_active(&mut self) -> Result<bool, StorageError> {
        let finished = self
            .active
            .finish_time_index(&self.path)
            .and_then(|()| write_index_files(&self.path, &mut self.active));
        finished.map_err(|e| self.segment_error("index", e))?;
        self.active
            .trim(&self.path)
            .map_err(|e| self.segment_error("trim", e))
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
            Some(file) => job.set_active(file, active_path),
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
        let trimmed = self.finish_active()?;
        self.take_snapshot(sync)?;
        if sync {
            if indexes_dirty || self.dir_dirty || trimmed {
                self.sync_active_indexes()?;
                self.dir_dirty = true;
                self.rolled = true;
            }
            self.flush()?;
        } else {
            self.recovery_point = self.next_offset;
        }
        self.is_closed = true;
        self.release_files();
        Ok(())
    }

    /// Closes all files: the log is closed, too.
    pub(super) fn release_files(&self) {
        self.readers.clear();
        self.active.close_file();
    }

    fn sync_active_indexes(&self) -> Result<(), StorageError> {
        for kind in [INDEX, TIME_INDEX] {
            let path = segment_file(&self.path, self.active.base_offset, kind);
            disk::sync_file(&path).map_err(|e| self.io_error("sync", &path, e))?;
        }
        Ok(())
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
