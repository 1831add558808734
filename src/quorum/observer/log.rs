//! An observer's copy of the metadata log on disk: Kafka's segments and checkpoints, and nothing of raft.
//!
//! Batches are appended as they come; they are synced with a snapshot and at the end, since whatever a crash takes can be
//! fetched again. Not async: the caller keeps it off the runtime's threads.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tracing::warn;

use super::super::checkpoint;
use super::super::entries::{membership_of, read};
use super::super::store::invalid;
use super::super::types::Membership;
use crate::log::{AppendError, Log, StartOffsetReason};
use crate::protocol::batch::{Batches, parse_header};
use crate::protocol::metadata_records::MetadataRecord;
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// Checkpoints that are kept, as a voter keeps them.
const CHECKPOINTS_KEPT: usize = 2;
const READ_BYTES_MAX: usize = 1 << 20;

/// End offset (exclusive) and epoch of a checkpoint.
pub(super) type CheckpointId = (Offset, LeaderEpoch);

#[derive(Debug)]
pub(super) struct ObserverLog {
    dir: PathBuf,
    log: Log,
    /// Whole ones, oldest first. Bound: two.
    checkpoints: VecDeque<CheckpointId>,
    /// The voters as of an offset and on, oldest first: those a checkpoint or a batch brought.
    voters: VecDeque<(Offset, Membership)>,
    /// Of the last record, or of the checkpoint before the first.
    last_epoch: LeaderEpoch,
}

impl ObserverLog {
    /// Takes up what is on disk. A log that its checkpoints do not reach begins anew: all of it can be fetched.
    pub(super) fn open(mut log: Log, dir: &Path) -> io::Result<Self> {
        let mut ids = checkpoint::list(dir)?;
        ids.retain(|id| checkpoint::is_valid(&dir.join(checkpoint::file_name(id.0, id.1))));
        let mut checkpoints = VecDeque::from(ids);
        while checkpoints.len() > CHECKPOINTS_KEPT {
            checkpoints.pop_front();
        }
        if let Some(oldest) = checkpoints.front() {
            checkpoint::remove_leftovers(dir, oldest.0)?;
        }
        let newest = checkpoints.back().copied().unwrap_or((0, 0));
        if log.next_offset() < newest.0 || log.log_start_offset() > newest.0 {
            log.truncate_fully_and_start_at(newest.0)
                .map_err(io::Error::other)?;
        }
        let mut opened = Self {
            dir: dir.to_owned(),
            log,
            checkpoints,
            voters: VecDeque::new(),
            last_epoch: newest.1,
        };
        opened.read_voters(newest)?;
        let mut at = newest.0;
        while at < opened.end_offset() {
            let bytes = opened.read(at, opened.end_offset())?;
            at = opened.take(&bytes, at)?;
        }
        Ok(opened)
    }

    fn read_voters(&mut self, newest: CheckpointId) -> io::Result<()> {
        let path = self.dir.join(checkpoint::file_name(newest.0, newest.1));
        self.voters.clear();
        if let Some(voters) = checkpoint::read_membership(&path)? {
            self.voters.push_back((newest.0, voters));
        }
        Ok(())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn end_offset(&self) -> Offset {
        self.log.next_offset()
    }

    /// Epoch of the last record.
    pub(super) fn last_epoch(&self) -> LeaderEpoch {
        self.last_epoch
    }

    pub(super) fn start_offset(&self) -> Offset {
        self.log.log_start_offset()
    }

    pub(super) fn newest_checkpoint(&self) -> Option<CheckpointId> {
        self.checkpoints.back().copied()
    }

    pub(super) fn path_of(&self, id: CheckpointId) -> PathBuf {
        self.dir.join(checkpoint::file_name(id.0, id.1))
    }

    /// The newest voters that the log names.
    pub(super) fn voters(&self) -> Option<&Membership> {
        self.voters.back().map(|(_, voters)| voters)
    }

    /// Appends batches from the leader, which must begin at the log's end. Returns the new end.
    pub(super) fn append(&mut self, records: Bytes, now_ms: TimestampMs) -> io::Result<Offset> {
        let base_offset = parse_header(&records)
            .map_err(|error| invalid(error.to_string()))?
            .base_offset;
        let end = self.end_offset();
        if base_offset != end {
            return Err(invalid(format!(
                "the leader sent offset {base_offset} where {end} was asked for"
            )));
        }
        let info = self
            .log
            .append_as_follower(records.clone(), now_ms)
            .map_err(|error| match error {
                AppendError::Storage(error) => io::Error::other(error),
                unsound => invalid(unsound.to_string()),
            })?;
        self.take(&records, end)?;
        Ok(info.last_offset + 1)
    }

    /// Notes epochs and voters of batches from `at` on; returns where they end.
    fn take(&mut self, records: &Bytes, mut at: Offset) -> io::Result<Offset> {
        for batch in Batches::new(records.clone()) {
            let Ok((header, batch)) = batch else {
                // Cut off: it was not appended either.
                break;
            };
            if header.base_offset != at {
                return Err(invalid(format!(
                    "the metadata log has a gap at offset {at}"
                )));
            }
            if let Some(voters) = membership_of(&header, &batch) {
                self.voters.push_back((header.base_offset, voters));
            }
            self.last_epoch = header.partition_leader_epoch;
            at = header.next_offset();
        }
        Ok(at)
    }

    /// Whole batches from `start` on and below `end`.
    pub(super) fn read(&self, start: Offset, end: Offset) -> io::Result<Bytes> {
        read(&self.log, start, end, READ_BYTES_MAX)
    }

    /// Cuts the log where the leader's differs: that one ends at `end_offset` in `epoch`, the newest epoch of ours that it knows.
    /// Fails rather than take back what is `committed`, and where nothing would be cut: the leader would only say it again.
    pub(super) fn truncate_to_epoch(
        &mut self,
        epoch: LeaderEpoch,
        end_offset: Offset,
        committed: Offset,
    ) -> io::Result<Offset> {
        let epochs = self.log.leader_epochs();
        let own = epochs.end_offset_for(epoch, self.end_offset());
        let cut = own.end_offset.min(end_offset).max(self.start_offset());
        if cut < committed || cut == self.end_offset() {
            return Err(invalid(format!(
                "the leader's log ends at {end_offset} in epoch {epoch}, which this one cannot follow: it has {} to {}, and \
                 everything before {committed} was committed",
                self.start_offset(),
                self.end_offset()
            )));
        }
        self.log.truncate_to(cut).map_err(io::Error::other)?;
        self.voters.retain(|(offset, _)| *offset < cut);
        let newest = self.newest_checkpoint().unwrap_or((0, 0));
        let latest = self.log.leader_epochs().latest_epoch();
        self.last_epoch = latest.unwrap_or(newest.1);
        Ok(cut)
    }

    /// Begins anew behind a checkpoint from the leader, which is at `part`, whole and durable.
    pub(super) fn install(&mut self, id: CheckpointId, part: &Path) -> io::Result<()> {
        if !checkpoint::is_valid(part) {
            return Err(invalid("the snapshot that the leader sent is damaged"));
        }
        fs::rename(part, self.path_of(id))?;
        self.log
            .truncate_fully_and_start_at(id.0)
            .map_err(io::Error::other)?;
        self.remove_deleted();
        let old = std::mem::replace(&mut self.checkpoints, VecDeque::from([id]));
        self.remove_checkpoints(old.into_iter().filter(|it| *it != id));
        self.last_epoch = id.1;
        self.read_voters(id)
    }

    /// Epoch and time of the batch that ends right before `offset`, if one does.
    pub(super) fn batch_before(&self, offset: Offset) -> io::Result<Option<CheckpointInfo>> {
        if offset <= self.start_offset() || offset > self.end_offset() {
            return Ok(None);
        }
        let bytes = read(&self.log, offset - 1, offset, 1)?;
        let header = parse_header(&bytes).map_err(io::Error::other)?;
        let voters = self.voters.iter().rev().find(|(at, _)| *at < offset);
        Ok((header.next_offset() == offset).then(|| CheckpointInfo {
            epoch: header.partition_leader_epoch,
            timestamp_ms: header.max_timestamp,
            voters: voters.map(|(_, voters)| voters.clone()).unwrap_or_default(),
        }))
    }

    /// Takes in a checkpoint of this node's own making, and drops the log before the one that is kept beside it.
    pub(super) fn publish(&mut self, id: CheckpointId, part: &Path) -> io::Result<()> {
        self.flush()?;
        fs::rename(part, self.path_of(id))?;
        fs::File::open(&self.dir)?.sync_all()?;
        self.checkpoints.push_back(id);
        if self.checkpoints.len() < CHECKPOINTS_KEPT {
            return Ok(());
        }
        let surplus = self.checkpoints.len() - CHECKPOINTS_KEPT;
        let retired: Vec<CheckpointId> = self.checkpoints.drain(..surplus).collect();
        self.remove_checkpoints(retired.into_iter());
        let oldest = self.checkpoints[0].0;
        self.log
            .increment_log_start_offset(oldest, StartOffsetReason::SnapshotGenerated)
            .and_then(|()| self.log.delete_segments_below_start())
            .map_err(io::Error::other)?;
        self.remove_deleted();
        while self.voters.get(1).is_some_and(|(at, _)| *at < oldest) {
            self.voters.pop_front();
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.log.flush().map_err(io::Error::other)
    }

    fn remove_checkpoints(&self, ids: impl Iterator<Item = CheckpointId>) {
        for id in ids {
            let path = self.path_of(id);
            if let Err(error) = fs::remove_file(&path) {
                warn!(path = %path.display(), %error, "an old metadata snapshot stays");
            }
        }
    }

    fn remove_deleted(&mut self) {
        for path in self.log.take_deleted_files() {
            // What stays does no harm: it is found and removed at the next start.
            let _ = fs::remove_file(path);
        }
    }
}

/// What a checkpoint says besides its records.
pub(super) struct CheckpointInfo {
    pub(super) epoch: LeaderEpoch,
    pub(super) timestamp_ms: TimestampMs,
    pub(super) voters: Membership,
}

impl CheckpointInfo {
    /// Writes the checkpoint under a temporary name.
    pub(super) fn write_part(
        &self,
        dir: &Path,
        end_offset: Offset,
        records: &[MetadataRecord],
    ) -> io::Result<PathBuf> {
        checkpoint::write_part(
            dir,
            (end_offset, self.epoch),
            self.timestamp_ms,
            &self.voters,
            records,
        )
    }
}
