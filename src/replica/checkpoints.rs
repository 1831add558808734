//! Writes the offset checkpoints of every log directory, on a timer and at a clean stop.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tracing::error;

use super::ReplicaManager;
use crate::log::{Checkpoint, Log, LogDir, StorageError};
use crate::partition::{Partition, Timer};
use crate::protocol::ErrorCode;
use crate::types::{Offset, TopicPartition};

type Offsets = BTreeMap<TopicPartition, Offset>;

impl ReplicaManager {
    /// The timer of [`ReplicaManager::write_high_watermarks`]; nobody else may take what was touched.
    pub fn checkpoint_high_watermarks(&self) {
        if self.touched().take_any(Timer::CheckpointHighWatermarks) {
            self.write_high_watermarks();
        }
    }

    /// The timer of `recovery-point-offset-checkpoint` and `cleaner-offset-checkpoint`.
    pub fn checkpoint_logs(&self) {
        if self.touched().take_any(Timer::CheckpointLogs) {
            self.write_recovery_points();
        }
    }

    /// The timer of `log-start-offset-checkpoint`.
    pub fn checkpoint_log_starts(&self) {
        if self.touched().take_any(Timer::CheckpointLogStarts) {
            self.write_log_starts();
        }
    }

    /// `replication-offset-checkpoint`: high watermarks.
    pub(super) fn write_high_watermarks(&self) {
        self.checkpoint(Checkpoint::HighWatermark, high_watermark);
    }

    /// `recovery-point-offset-checkpoint`, `log-start-offset-checkpoint` and `cleaner-offset-checkpoint`.
    pub(super) fn write_log_offsets(&self) {
        self.write_recovery_points();
        self.write_log_starts();
    }

    fn write_recovery_points(&self) {
        self.checkpoint(Checkpoint::RecoveryPoint, recovery_point);
        self.checkpoint_cleaner();
    }

    fn write_log_starts(&self) {
        self.checkpoint(Checkpoint::LogStartOffset, log_start_offset);
    }

    /// `cleaner-offset-checkpoint`: up to where logs were compacted.
    pub fn checkpoint_cleaner(&self) {
        self.checkpoint(Checkpoint::Cleaner, cleaner_checkpoint);
    }

    /// Rewrites the file only when an offset moved since.
    fn checkpoint(&self, kind: Checkpoint, offset: fn(&Partition) -> Option<Offset>) {
        // From the look at the offsets on: older ones, of somebody slower, would stay until something is touched.
        let mut checkpointed = self.checkpointed();
        let partitions = self.partitions();
        for dir in self.log_dirs().online() {
            let here = in_dir(&partitions, dir);
            let fingerprint = fingerprint(&here, offset);
            let key = (dir.path().to_owned(), kind.file_name());
            if checkpointed.get(&key) == Some(&fingerprint) {
                continue;
            }
            match dir.write_checkpoint(kind, &offsets(&here, offset)) {
                Ok(()) => {
                    checkpointed.insert(key, fingerprint);
                }
                Err(error) => error!(dir = %dir.path().display(), %error, "checkpoint not written"),
            }
        }
    }

    /// Everything a clean stop leaves behind: flushed logs, checkpoints, and the file that says so.
    pub fn close(&self, broker_epoch: i64) {
        self.close_moves();
        let partitions = self.partitions();
        let threads = self.threads_per_dir();
        for dir in self.log_dirs().online() {
            let here = in_dir(&partitions, dir);
            if let Err(error) = close_dir(dir, &here, threads, broker_epoch) {
                error!(dir = %dir.path().display(), %error, "not stopped cleanly: recovery at the next start");
            }
        }
    }
}

fn close_dir(
    dir: &LogDir,
    partitions: &[&Partition],
    threads: usize,
    broker_epoch: i64,
) -> Result<(), StorageError> {
    let high_watermarks = offsets(partitions, high_watermark);
    let starts = offsets(partitions, log_start_offset);
    let cleaned = offsets(partitions, cleaner_checkpoint);
    let ends = dir.close_logs(partitions, threads, &|partition| {
        let Some(mut log) = partition.take_log(ErrorCode::NotLeaderOrFollower) else {
            return Ok(None);
        };
        log.close(false)?;
        Ok(Some((partition.topic_partition.clone(), log.next_offset())))
    });
    let ends = ends.into_iter().filter_map(Result::transpose);
    let ends: Offsets = ends.collect::<Result<_, StorageError>>()?;
    dir.sync_file_system()?;
    dir.write_checkpoint(Checkpoint::HighWatermark, &high_watermarks)?;
    dir.write_checkpoint(Checkpoint::RecoveryPoint, &ends)?;
    dir.write_checkpoint(Checkpoint::LogStartOffset, &starts)?;
    dir.write_checkpoint(Checkpoint::Cleaner, &cleaned)?;
    dir.write_clean_shutdown(broker_epoch)
}

fn in_dir<'a>(partitions: &'a [Arc<Partition>], dir: &Arc<LogDir>) -> Vec<&'a Partition> {
    let is_here = |p: &&Partition| p.look_at_log(|log| Arc::ptr_eq(log.log_dir(), dir)) == Ok(true);
    partitions.iter().map(Arc::as_ref).filter(is_here).collect()
}

fn offsets(partitions: &[&Partition], offset: fn(&Partition) -> Option<Offset>) -> Offsets {
    let named = |p: &&Partition| Some((p.topic_partition.clone(), offset(p)?));
    partitions.iter().filter_map(named).collect()
}

/// Tells whether an offset moved, for a fraction of what a sorted map of thousands of partitions costs.
fn fingerprint(partitions: &[&Partition], offset: fn(&Partition) -> Option<Offset>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for partition in partitions {
        (&partition.topic_partition, offset(partition)).hash(&mut hasher);
    }
    hasher.finish()
}

fn high_watermark(partition: &Partition) -> Option<Offset> {
    partition
        .offsets()
        .ok()
        .map(|offsets| offsets.high_watermark)
}

fn recovery_point(partition: &Partition) -> Option<Offset> {
    partition.look_at_log(Log::recovery_point).ok()
}

fn log_start_offset(partition: &Partition) -> Option<Offset> {
    partition.look_at_log(Log::log_start_to_checkpoint).ok()?
}

fn cleaner_checkpoint(partition: &Partition) -> Option<Offset> {
    partition.look_at_log(Log::cleaner_checkpoint).ok()?
}
