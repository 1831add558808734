//! Writes the offset checkpoints of every log directory, on a timer and at a clean stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::error;

use super::ReplicaManager;
use crate::log::{Checkpoint, Log, LogDir, StorageError};
use crate::partition::Partition;
use crate::protocol::ErrorCode;
use crate::types::{Offset, TopicPartition};

type Offsets = BTreeMap<TopicPartition, Offset>;

impl ReplicaManager {
    /// `replication-offset-checkpoint`: high watermarks.
    pub fn checkpoint_high_watermarks(&self) {
        self.checkpoint(Checkpoint::HighWatermark, high_watermark);
    }

    /// `recovery-point-offset-checkpoint` and `log-start-offset-checkpoint`.
    pub fn checkpoint_logs(&self) {
        self.checkpoint(Checkpoint::RecoveryPoint, recovery_point);
        self.checkpoint(Checkpoint::LogStartOffset, log_start_offset);
        self.checkpoint_cleaner();
    }

    /// `cleaner-offset-checkpoint`: up to where logs were compacted.
    pub fn checkpoint_cleaner(&self) {
        self.checkpoint(Checkpoint::Cleaner, cleaner_checkpoint);
    }

    /// Rewrites the file only when an offset moved since.
    fn checkpoint(&self, kind: Checkpoint, offset: fn(&Partition) -> Option<Offset>) {
        let partitions = self.partitions();
        for dir in self.log_dirs().online() {
            let offsets = offsets(&in_dir(&partitions, dir), offset);
            let key = (dir.path().to_owned(), kind.file_name());
            let mut written = self
                .checkpointed
                .lock()
                .expect("the map is changed without panics");
            if written.get(&key) == Some(&offsets) {
                continue;
            }
            match dir.write_checkpoint(kind, &offsets) {
                Ok(()) => {
                    written.insert(key, offsets);
                }
                Err(error) => error!(dir = %dir.path().display(), %error, "checkpoint not written"),
            }
        }
    }

    /// Everything a clean stop leaves behind: flushed logs, checkpoints, and the file that says so.
    pub fn close(&self, broker_epoch: i64) {
        self.close_moves();
        let partitions = self.partitions();
        for dir in self.log_dirs().online() {
            if let Err(error) = close_dir(dir, &in_dir(&partitions, dir), broker_epoch) {
                error!(dir = %dir.path().display(), %error, "not stopped cleanly: recovery at the next start");
            }
        }
    }
}

fn close_dir(
    dir: &LogDir,
    partitions: &[Arc<Partition>],
    broker_epoch: i64,
) -> Result<(), StorageError> {
    let high_watermarks = offsets(partitions, high_watermark);
    let starts = offsets(partitions, log_start_offset);
    let cleaned = offsets(partitions, cleaner_checkpoint);
    let mut ends = Offsets::new();
    for partition in partitions {
        if let Some(mut log) = partition.take_log(ErrorCode::NotLeaderOrFollower) {
            ends.insert(partition.topic_partition.clone(), log.next_offset());
            log.close(false)?;
        }
    }
    dir.sync_file_system()?;
    dir.write_checkpoint(Checkpoint::HighWatermark, &high_watermarks)?;
    dir.write_checkpoint(Checkpoint::RecoveryPoint, &ends)?;
    dir.write_checkpoint(Checkpoint::LogStartOffset, &starts)?;
    dir.write_checkpoint(Checkpoint::Cleaner, &cleaned)?;
    dir.write_clean_shutdown(broker_epoch)
}

fn in_dir(partitions: &[Arc<Partition>], dir: &Arc<LogDir>) -> Vec<Arc<Partition>> {
    let is_here =
        |p: &&Arc<Partition>| p.with_log(|log| Arc::ptr_eq(log.log_dir(), dir)) == Ok(true);
    partitions.iter().filter(is_here).cloned().collect()
}

fn offsets(partitions: &[Arc<Partition>], offset: fn(&Partition) -> Option<Offset>) -> Offsets {
    let named = |p: &Arc<Partition>| Some((p.topic_partition.clone(), offset(p)?));
    partitions.iter().filter_map(named).collect()
}

fn high_watermark(partition: &Partition) -> Option<Offset> {
    partition
        .offsets()
        .ok()
        .map(|offsets| offsets.high_watermark)
}

fn recovery_point(partition: &Partition) -> Option<Offset> {
    partition
        .with_log(|log: &mut Log| log.recovery_point())
        .ok()
}

fn log_start_offset(partition: &Partition) -> Option<Offset> {
    partition
        .with_log(|log: &mut Log| log.log_start_to_checkpoint())
        .ok()?
}

fn cleaner_checkpoint(partition: &Partition) -> Option<Offset> {
    partition
        .with_log(|log: &mut Log| log.cleaner_checkpoint())
        .ok()?
}
