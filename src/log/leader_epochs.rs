//! Where each leader epoch begins in a log (Kafka's `LeaderEpochFileCache`), kept in `leader-epoch-checkpoint`.

use std::path::Path;

use super::EpochEndOffset;
use super::checkpoint::{
    LEADER_EPOCH_CHECKPOINT, format_epochs, parse_epochs, read_file, replace_file,
};
use super::error::StorageError;
use crate::types::{LeaderEpoch, NO_LEADER_EPOCH, Offset};

/// Epochs with their start offsets, both strictly growing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochCache {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl LeaderEpochCache {
    /// `None` where the file is damaged: recovery finds the epochs in the batches.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, StorageError> {
        let mut cache = Self::default();
        if let Some(text) = read_file(&dir.join(LEADER_EPOCH_CHECKPOINT))? {
            let Some(entries) = parse_epochs(&text) else {
                return Ok(None);
            };
            for (epoch, offset) in entries {
                cache.assign(epoch, offset);
            }
        }
        Ok(Some(cache))
    }

    pub(super) fn store(&self, dir: &Path, sync: bool) -> Result<(), StorageError> {
        let text = format_epochs(&self.entries);
        replace_file(dir, LEADER_EPOCH_CHECKPOINT, text.as_bytes(), sync)
    }

    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    pub fn earliest(&self) -> Option<(LeaderEpoch, Offset)> {
        self.entries.first().copied()
    }

    /// The epoch that `offset` was written in.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        let at = self.entries.partition_point(|(_, start)| *start <= offset);
        Some(self.entries[at.checked_sub(1)?].0)
    }

    /// Begins `epoch` at `start_offset`; what contradicts it is dropped. Returns whether anything changed.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if epoch < 0 || start_offset < 0 {
            return false;
        }
        if let Some((last_epoch, last_start)) = self.entries.last()
            && epoch == *last_epoch
            && start_offset >= *last_start
        {
            return false;
        }
        while let Some((last_epoch, last_start)) = self.entries.last()
            && (*last_epoch >= epoch || *last_start >= start_offset)
        {
            self.entries.pop();
        }
        self.entries.push((epoch, start_offset));
        true
    }

    /// Largest epoch not above `epoch`, and where it ends (OffsetForLeaderEpoch).
    pub fn end_offset_for(&self, epoch: LeaderEpoch, next_offset: Offset) -> EpochEndOffset {
        let unknown = EpochEndOffset {
            leader_epoch: NO_LEADER_EPOCH,
            end_offset: -1,
        };
        if epoch < 0 {
            return unknown;
        }
        if self.latest_epoch() == Some(epoch) {
            return EpochEndOffset {
                leader_epoch: epoch,
                end_offset: next_offset,
            };
        }
        let at = self.entries.partition_point(|(e, _)| *e <= epoch);
        let Some((_, end_offset)) = self.entries.get(at).copied() else {
            return unknown;
        };
        EpochEndOffset {
            leader_epoch: match at.checked_sub(1) {
                Some(floor) => self.entries[floor].0,
                None => epoch,
            },
            end_offset,
        }
    }

    /// Drops epochs that begin at or behind `end_offset`. Returns whether anything changed.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(_, start)| *start < end_offset);
        before != self.entries.len()
    }

    /// Lets the log begin at `start_offset`: the epoch that it falls into begins there. Returns whether anything changed.
    pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
        let at = self
            .entries
            .partition_point(|(_, start)| *start <= start_offset);
        let Some(floor) = at.checked_sub(1) else {
            return false;
        };
        if floor == 0 && self.entries[0].1 == start_offset {
            return false;
        }
        self.entries.drain(..floor);
        self.entries[0].1 = start_offset;
        true
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}
