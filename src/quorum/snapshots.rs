//! Checkpoints of this voter's own making: written aside, entered in the sidecar, made visible; then the log before the oldest one
//! that is kept goes.

use std::io;

use tracing::info;

use super::SnapshotError;
use super::checkpoint;
use super::meta_log::Inner;
use super::sidecar::Checkpoint;
use super::types::leader_epoch;
use super::writer::Command;
use crate::protocol::metadata_records::MetadataRecord;
use crate::types::{LeaderEpoch, Offset};

/// Checkpoints that are kept: should the newest be damaged, the older one and the log behind it still serve.
const CHECKPOINTS_KEPT: usize = 2;

impl Inner {
    pub(super) async fn snapshot(
        &self,
        offset: Offset,
        epoch: LeaderEpoch,
        records: Vec<MetadataRecord>,
    ) -> Result<(), SnapshotError> {
        let store = &self.store;
        let held = store.checkpointing.lock().await;
        let (checkpoint, last_contained_ms) = self.describe_checkpoint(offset, epoch)?;
        let dir = store.dir.clone();
        let membership = checkpoint.membership.membership().clone();
        let part = tokio::task::spawn_blocking(move || {
            checkpoint::write_part(
                &dir,
                (offset, epoch),
                last_contained_ms,
                &membership,
                &records,
            )
        })
        .await
        .map_err(storage)?
        .map_err(storage)?;
        // The sidecar first: a checkpoint that is visible must have its raft index.
        let saved = {
            let mut state = store.state();
            state.sidecar.checkpoints.push(checkpoint);
            let sidecar = state.sidecar.clone();
            store
                .writer()
                .start(|reply| Command::Sidecar { sidecar, reply })
        };
        saved.await.map_err(storage)?;
        let path = store.dir.join(checkpoint::file_name(offset, epoch));
        tokio::task::spawn_blocking(move || publish(&part, &path))
            .await
            .map_err(storage)?
            .map_err(storage)?;
        let (retired, purge_upto) = {
            let mut state = store.state();
            state.published = offset;
            let checkpoints = &mut state.sidecar.checkpoints;
            let keep_from = checkpoints.len().saturating_sub(CHECKPOINTS_KEPT);
            let retired: Vec<Checkpoint> = checkpoints.drain(..keep_from).collect();
            let purge_upto =
                (checkpoints.len() == CHECKPOINTS_KEPT).then(|| checkpoints[0].last_log_id.index);
            (retired, purge_upto)
        };
        drop(held);
        for old in retired {
            let name = checkpoint::file_name(old.end_offset, old.epoch);
            let _ = std::fs::remove_file(store.dir.join(name));
        }
        info!(offset, epoch, "wrote a metadata snapshot");
        self.raft.trigger().snapshot().await.map_err(storage)?;
        if let Some(upto) = purge_upto {
            self.raft.trigger().purge_log(upto).await.map_err(storage)?;
        }
        Ok(())
    }

    fn describe_checkpoint(
        &self,
        offset: Offset,
        epoch: LeaderEpoch,
    ) -> Result<(Checkpoint, i64), SnapshotError> {
        let state = self.store.state();
        let (last_log_id, last_contained_ms) = state
            .entry_before(offset)
            .ok_or(SnapshotError::BadOffset(offset))?;
        let is_committed = state
            .applied()
            .0
            .is_some_and(|id| last_log_id.index <= id.index);
        let is_newer = state
            .sidecar
            .checkpoints
            .iter()
            .all(|it| it.end_offset < offset);
        if !is_committed || !is_newer || leader_epoch(last_log_id.leader_id.term) != epoch {
            return Err(SnapshotError::BadOffset(offset));
        }
        let checkpoint = Checkpoint {
            end_offset: offset,
            epoch,
            last_log_id,
            membership: state.membership_at(last_log_id.index),
        };
        Ok((checkpoint, last_contained_ms))
    }
}

fn storage(error: impl ToString) -> SnapshotError {
    SnapshotError::Storage(error.to_string().into())
}

fn publish(part: &std::path::Path, path: &std::path::Path) -> io::Result<()> {
    std::fs::rename(part, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
