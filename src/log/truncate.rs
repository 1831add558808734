//! What takes bytes away from a log: a higher start, truncation, deletion. Files are renamed first and removed later.

use std::io;
use std::path::{Path, PathBuf};

use tracing::info;

use super::checkpoint::{Checkpoint, sync_dir};
use super::disk;
use super::error::StorageError;
use super::paths::{
    DELETED, INDEX, LOG, SNAPSHOT, TIME_INDEX, TXN_INDEX, delete_dir_name, segment_file,
};
use super::segment::ActiveSegment;
use super::unified::Log;
use crate::types::{Offset, Uuid};

/// Why a log start offset moves (Kafka's `LogStartOffsetIncrementReason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOffsetReason {
    SegmentDeletion,
    ClientRecordDeletion,
    LeaderOffsetIncrement,
    SnapshotGenerated,
}

impl StartOffsetReason {
    fn text(self) -> &'static str {
        match self {
            Self::SegmentDeletion => "segment deletion",
            Self::ClientRecordDeletion => "client delete records request",
            Self::LeaderOffsetIncrement => "leader offset increment",
            Self::SnapshotGenerated => "snapshot generated",
        }
    }
}

impl Log {
    /// Moves the log start offset up. Whole segments below it go with the next retention check. Lower offsets are ignored;
    /// the log's end is the limit.
    pub fn increment_log_start_offset(
        &mut self,
        offset: Offset,
        reason: StartOffsetReason,
    ) -> Result<(), StorageError> {
        self.check_open()?;
        let offset = offset.min(self.next_offset);
        if offset <= self.log_start_offset {
            return Ok(());
        }
        self.log_start_offset = offset;
        if self.leader_epochs.truncate_from_start(offset) {
            self.store_epochs(false)?;
        }
        info!(tp = %self.topic_partition, log_start_offset = offset, reason = reason.text(), "incremented log start offset");
        Ok(())
    }

    /// Drops everything from `offset` on. The recovery point is lowered with it.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<(), StorageError> {
        self.check_open()?;
        let first_base = self
            .closed
            .first()
            .map_or(self.active.base_offset, |s| s.base_offset);
        if offset < first_base {
            return self.truncate_fully_and_start_at(offset);
        }
        if self.leader_epochs.truncate_from_end(offset) {
            self.store_epochs(true)?;
        }
        if offset >= self.next_offset {
            return Ok(());
        }
        info!(tp = %self.topic_partition, offset, "truncating log");
        self.lower_checkpoints(offset)?;
        while self.active.base_offset > offset
            && let Some(last) = self.closed.pop()
        {
            self.closed_bytes -= last.size;
            self.delete_segment_files(self.active.base_offset)?;
            self.active =
                ActiveSegment::new(last.base_offset, last.size, self.now_ms, &self.config);
        }
        self.active
            .truncate_to(&self.path, offset, self.now_ms)
            .and_then(|()| disk::sync_data(&*self.active.file(&self.path)?))
            .map_err(|e| self.segment_error("truncate", e))?;
        let base_offset = self.active.base_offset;
        self.txn_indexes
            .truncate_to(&self.path, base_offset, offset)
            .map_err(|e| self.txn_index_error(base_offset, e))?;
        sync_dir(&self.path).map_err(|e| self.dir.fail(e))?;
        self.next_offset = offset;
        self.log_start_offset = self.log_start_offset.min(offset);
        self.truncations += 1;
        self.rebuild_producers(false, &[])
    }

    /// Drops everything; the next append gets `offset`. The recovery point is lowered with it.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset) -> Result<(), StorageError> {
        self.check_open()?;
        info!(tp = %self.topic_partition, offset, "truncating log fully");
        self.lower_checkpoints(offset)?;
        for segment in std::mem::take(&mut self.closed) {
            self.delete_segment_files(segment.base_offset)?;
        }
        self.closed_bytes = 0;
        self.delete_segment_files(self.active.base_offset)?;
        for snapshot in std::mem::take(&mut self.snapshots) {
            self.delete_file(snapshot, SNAPSHOT)?;
        }
        self.active = ActiveSegment::create(&self.path, offset, self.now_ms, &self.config)
            .map_err(|e| self.segment_error("create", e))?;
        sync_dir(&self.path).map_err(|e| self.dir.fail(e))?;
        self.leader_epochs.clear();
        self.store_epochs(true)?;
        self.producers.clear(offset);
        self.last_snapshot_offset = offset;
        self.next_offset = offset;
        self.log_start_offset = offset;
        self.truncations += 1;
        Ok(())
    }

    fn lower_checkpoints(&mut self, offset: Offset) -> Result<(), StorageError> {
        let tp = &self.topic_partition;
        if self.recovery_point > offset {
            self.dir
                .lower_checkpoint(Checkpoint::RecoveryPoint, tp, offset)?;
            self.recovery_point = offset;
        }
        // What comes again in its place is dirty.
        if self.cleaner_checkpoint > Some(offset) {
            self.dir.lower_checkpoint(Checkpoint::Cleaner, tp, offset)?;
            self.cleaner_checkpoint = Some(offset);
        }
        Ok(())
    }

    /// Renames a segment's files to `.deleted`.
    pub(super) fn delete_segment_files(&mut self, base_offset: Offset) -> Result<(), StorageError> {
        self.readers.clear();
        for kind in [LOG, INDEX, TIME_INDEX, TXN_INDEX, SNAPSHOT] {
            self.delete_file(base_offset, kind)?;
        }
        self.snapshots.retain(|offset| *offset != base_offset);
        self.txn_indexes.set_count(base_offset, 0);
        Ok(())
    }

    pub(super) fn delete_file(&mut self, offset: Offset, kind: &str) -> Result<(), StorageError> {
        let path = segment_file(&self.path, offset, kind);
        let renamed = segment_file(&self.path, offset, &format!("{kind}.{DELETED}"));
        match disk::rename(&path, &renamed) {
            Ok(()) => {
                self.deleted.push(renamed);
                self.dir_dirty = true;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(self.io_error("rename", &path, e)),
        }
    }

    /// Renames the directory to `<topic>-<partition>.<id>-delete` and returns the new path, for [`delete`] to remove after
    /// `file.delete.delay.ms`. The log is closed afterwards.
    pub fn rename_for_delete(&mut self) -> Result<PathBuf, StorageError> {
        let target = self.rename_aside()?;
        self.let_go();
        Ok(target)
    }

    /// The renaming alone, durable.
    pub(super) fn rename_aside(&self) -> Result<PathBuf, StorageError> {
        self.dir.check_online()?;
        let target = self
            .dir
            .path()
            .join(delete_dir_name(&self.topic_partition, Uuid::new_v4()));
        disk::rename(&self.path, &target).map_err(|e| self.io_error("rename", &self.path, e))?;
        sync_dir(self.dir.path()).map_err(|e| self.dir.fail(e))?;
        Ok(target)
    }

    /// The directory is somebody else's to remove.
    pub(super) fn let_go(&mut self) {
        self.dir.forget(&self.topic_partition);
        self.is_closed = true;
        self.release_files();
        self.deleted.clear();
    }
}

/// Removes a directory that [`Log::rename_for_delete`] left, or a file of [`Log::take_deleted_files`]. One that is gone
/// already (its directory went) is fine.
pub fn delete(path: &Path) -> Result<(), StorageError> {
    let removed = if path.is_dir() {
        disk::remove_dir_all(path)
    } else {
        disk::remove_file(path)
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StorageError::io("remove", path, e)),
        _ => Ok(()),
    }
}
