//! A log that is moved into another log directory: a second one, the future log, follows it there (`-future` in its name) and
//! takes its place once it has caught up (AlterReplicaLogDirs, KIP-113).
//!
//! The future log is a follower of the current one: it truncates where their leader epochs part, begins anew where the current
//! one has lost what comes next, and gets the epochs that have no records when it takes over (KAFKA-20961).

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tracing::info;

use super::error::{AppendError, StorageError};
use super::paths::{future_dir_name, parse_future_dir};
use super::truncate::StartOffsetReason;
use super::unified::Log;
use super::{LogSlice, OpenParams, ReadError, disk, load};
use crate::types::{Offset, TimestampMs, TopicPartition, Uuid};

/// What a future log has to do next to become as the current one.
#[derive(Debug)]
pub enum CopyStep {
    /// It has what the current one does not, from this offset on.
    Truncate(Offset),
    /// What it needs next is gone: the log begins here now.
    Restart(Offset),
    /// Batches to append; the log start offset of the current log.
    Append(LogSlice, Offset),
    /// Nothing is left below this offset (compaction leaves gaps).
    Skip(Offset),
    CaughtUp,
}

impl Log {
    /// Opens the future log of a partition in `params.dir`: the one that is there, or a new one.
    pub fn open_future(params: OpenParams) -> Result<Log, StorageError> {
        let dir = params.dir.clone();
        dir.check_online()?;
        let tp = &params.topic_partition;
        let known = dir
            .future_dirs()?
            .into_iter()
            .find(|(found, _)| found == tp);
        let known = known.and_then(|(_, path)| Some(path.file_name()?.to_str()?.to_owned()));
        let Some(name) = known.or_else(|| future_dir_name(tp, Uuid::new_v4())) else {
            return Err(StorageError::Unusable {
                path: dir.path().join(tp.to_string()),
                reason: "the topic's name is too long to be moved".into(),
            });
        };
        load::load_named(params, &name)
    }

    /// Whether a future log of the partition could have a name.
    pub fn has_future_name(tp: &TopicPartition) -> bool {
        future_dir_name(tp, Uuid::nil()).is_some()
    }

    /// Whether this log is one on its way in.
    pub fn is_future(&self) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| parse_future_dir(name).is_some())
    }

    /// What `future` is to do next. `self` is the current log, under its partition's lock.
    pub fn copy_step(&self, future: &Log, size_bytes_max: usize) -> Result<CopyStep, StorageError> {
        let common_end = self.common_end(future);
        if common_end < future.next_offset {
            return Ok(CopyStep::Truncate(common_end));
        }
        if future.next_offset < self.log_start_offset {
            return Ok(CopyStep::Restart(self.log_start_offset));
        }
        if future.next_offset >= self.next_offset {
            return Ok(CopyStep::CaughtUp);
        }
        match self.read(future.next_offset, size_bytes_max, self.next_offset, true) {
            Ok(slice) if slice.is_empty() => Ok(CopyStep::Skip(self.next_offset)),
            Ok(slice) => Ok(CopyStep::Append(slice, self.log_start_offset)),
            Err(ReadError::OutOfRange { .. }) => Ok(CopyStep::Restart(self.log_start_offset)),
            Err(ReadError::Storage(error)) => Err(error),
        }
    }

    /// Up to where both logs have the same records, by their leader epochs.
    fn common_end(&self, future: &Log) -> Offset {
        let end = future.next_offset.min(self.next_offset);
        let Some(epoch) = future.leader_epochs.latest_epoch() else {
            return end;
        };
        let mine = self.leader_epochs.end_offset_for(epoch, self.next_offset);
        if mine.end_offset < 0 {
            return end;
        }
        if mine.leader_epoch == epoch {
            return end.min(mine.end_offset);
        }
        let theirs = future
            .leader_epochs
            .end_offset_for(mine.leader_epoch, future.next_offset);
        end.min(mine.end_offset).min(theirs.end_offset.max(0))
    }

    /// Appends what [`Log::copy_step`] of the current log gave. `self` is the future log.
    pub fn append_copied(
        &mut self,
        records: Bytes,
        log_start_offset: Offset,
        now_ms: TimestampMs,
    ) -> Result<(), AppendError> {
        match self.append_as_follower(records.clone(), now_ms) {
            Ok(_) => {}
            // The current log begins within a batch.
            Err(AppendError::UnexpectedOffset { found, .. })
                if self.next_offset == self.log_start_offset =>
            {
                self.truncate_fully_and_start_at(found)?;
                self.append_as_follower(records, now_ms)?;
            }
            Err(error) => return Err(error),
        }
        self.increment_log_start_offset(
            log_start_offset,
            StartOffsetReason::LeaderOffsetIncrement,
        )?;
        Ok(())
    }

    /// Goes on at `offset`, without records before it.
    pub fn skip_to(&mut self, offset: Offset) -> Result<(), StorageError> {
        if offset > self.next_offset {
            self.roll(offset)?;
            self.next_offset = offset;
        }
        Ok(())
    }

    /// Takes the place of `current`, which ends where `self` does. Returns where that one's directory is now, to be deleted.
    /// Everything is durable before the directory gets its name. The old one goes aside first: a process that ends in
    /// between leaves the partition once, as a future log that the next start makes the current one, and not twice.
    pub fn replace(&mut self, current: &mut Log) -> Result<PathBuf, StorageError> {
        assert_eq!(self.next_offset, current.next_offset, "it has caught up");
        self.increment_log_start_offset(
            current.log_start_offset,
            StartOffsetReason::LeaderOffsetIncrement,
        )?;
        self.leader_epochs = current.leader_epochs.clone();
        self.store_epochs(true)?;
        self.flush()?;
        let aside = current.rename_aside()?;
        let path = self.dir.path().join(self.topic_partition.to_string());
        let taken = disk::rename(&self.path, &path).and_then(|()| disk::sync_dir(self.dir.path()));
        if let Err(e) = taken {
            // Both are whole, and the old one is there to go on with; beside it there must not be another of its name. If it
            // cannot get its own back, its directory has failed.
            let _ = disk::rename(&path, &self.path);
            let back = disk::rename(&aside, &current.path)
                .and_then(|()| disk::sync_dir(current.dir.path()));
            if let Err(e) = back {
                current.io_error("rename", &aside, e);
            }
            return Err(self.io_error("rename", &self.path, e));
        }
        self.readers.clear();
        for deleted in &mut self.deleted {
            if let Some(name) = deleted.file_name() {
                *deleted = path.join(name);
            }
        }
        info!(tp = %self.topic_partition, from = %current.path.display(), to = %path.display(), "replaced log by the one in another log directory");
        self.path = path;
        // Flushes and cleanings of the old log do not count for this one.
        self.truncations = current.truncations + 1;
        self.config = current.config.clone();
        current.let_go();
        Ok(aside)
    }

    /// Gives a future log that lost its current one the partition's name.
    pub fn promote_dir(future: &Path, tp: &TopicPartition) -> Result<(), StorageError> {
        let current = future.with_file_name(tp.to_string());
        let failed = |e| StorageError::io("rename", future, e);
        disk::rename(future, &current).map_err(failed)?;
        current
            .parent()
            .map_or(Ok(()), disk::sync_dir)
            .map_err(failed)
    }
}
