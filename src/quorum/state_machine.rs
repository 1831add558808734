//! openraft's state machine: it only counts. What records mean is the subscribers' business, and so is what a snapshot
//! holds: [`super::MetaLog::write_snapshot`] brings the records, this file gives openraft the resulting file.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder, Snapshot};

use super::TypeConfig;
use super::checkpoint;
use super::sidecar::Checkpoint;
use super::store::Store;
use super::types::{LogId, SnapshotMeta, StoredMembership};
use super::writer::Command;
use crate::types::{LeaderEpoch, Offset};

type RaftSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, CheckpointFile>;

/// A checkpoint in a file, ours or one received from the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Where it is, complete and durable.
    pub path: PathBuf,
    /// Exclusive.
    pub end_offset: Offset,
    pub epoch: LeaderEpoch,
}

/// The state machine.
#[derive(Clone, Debug)]
pub(super) struct StateMachine(pub(super) Arc<Store>);

impl StateMachine {
    fn newest(&self) -> Option<RaftSnapshot> {
        let state = self.0.state();
        let newest = state.newest_checkpoint()?;
        Some(Snapshot {
            meta: SnapshotMeta {
                last_log_id: Some(newest.last_log_id),
                last_membership: newest.membership.clone(),
            },
            snapshot: CheckpointFile {
                path: self
                    .0
                    .dir
                    .join(checkpoint::file_name(newest.end_offset, newest.epoch)),
                end_offset: newest.end_offset,
                epoch: newest.epoch,
            },
        })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = CheckpointFile;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.0.state().applied())
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let applied = self.0.apply(&entry);
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Self> {
        let exists = self.0.state().newest_checkpoint().is_some();
        (force || exists).then(|| self.clone())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: CheckpointFile,
    ) -> Result<(), io::Error> {
        let last_log_id = meta
            .last_log_id
            .ok_or_else(|| io::Error::other("a snapshot of nothing"))?;
        let _held = self.0.checkpointing.lock().await;
        let name = checkpoint::file_name(snapshot.end_offset, snapshot.epoch);
        let path = self.0.dir.join(name);
        if path != snapshot.path {
            let part = path.with_extension("checkpoint.part");
            fs::copy(&snapshot.path, &part)?;
            fs::File::open(&part)?.sync_data()?;
            if !checkpoint::is_valid(&part) {
                return Err(io::Error::other("the received checkpoint is damaged"));
            }
            fs::rename(&part, &path)?;
        }
        let sidecar = self.0.install(Checkpoint {
            end_offset: snapshot.end_offset,
            epoch: snapshot.epoch,
            last_log_id,
            membership: meta.last_membership.clone(),
        });
        let writer = self.0.writer();
        writer
            .call(|reply| Command::Sidecar { sidecar, reply })
            .await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        Ok(self.newest())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = CheckpointFile;

    /// The newest checkpoint, which covers everything that was purged from the log.
    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        self.newest()
            .ok_or_else(|| io::Error::other("no checkpoint was written yet"))
    }
}
