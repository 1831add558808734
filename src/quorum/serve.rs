//! The leader's side of following the log without a vote, as brokers do (KIP-595, KIP-630): what a Fetch and a FetchSnapshot
//! of an observer get. Only what is committed is told, so that an observer never has to take anything back.

use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;
use tracing::warn;

use super::checkpoint;
use super::meta_log::OpenraftMetaLog;
use super::store::lock;
use super::{LeaderAndEpoch, MetaLog};
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, LeaderEpoch, Offset, Uuid};

/// One answer, whatever the request allows.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// An observer's Fetch of the metadata log.
#[derive(Clone, Copy, Debug)]
pub struct ObserverFetch {
    /// Negative for somebody who only looks, and is not listed.
    pub replica_id: BrokerId,
    pub directory_id: Uuid,
    /// The epoch that it believes to be current.
    pub leader_epoch: LeaderEpoch,
    /// Where its log ends.
    pub fetch_offset: Offset,
    /// Of its last record.
    pub last_fetched_epoch: LeaderEpoch,
    pub bytes_max: usize,
    pub wait_max: Duration,
}

/// The answer to a fetch, with what every answer tells.
#[derive(Clone, Debug)]
pub struct ObserverAnswer {
    pub leader: LeaderAndEpoch,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
    pub outcome: FetchOutcome,
}

/// What there is for the observer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// Whole committed batches; none if nothing was committed in time.
    Records(Bytes),
    /// Its log is another one behind the end of that epoch here.
    Diverging {
        epoch: LeaderEpoch,
        end_offset: Offset,
    },
    /// What it lacks is in a snapshot only.
    Snapshot {
        end_offset: Offset,
        epoch: LeaderEpoch,
    },
    Refused(ErrorCode),
}

/// A piece of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotPiece {
    /// Of the whole snapshot.
    pub size_bytes: u64,
    pub bytes: Bytes,
}

impl OpenraftMetaLog {
    /// Answers an observer, at the latest after its `wait_max`.
    pub async fn fetch(&self, fetch: ObserverFetch) -> ObserverAnswer {
        let outcome = match self.check_fetch(&fetch) {
            Some(outcome) => outcome,
            None => self.committed_from(&fetch).await,
        };
        let (high_watermark, log_start_offset) = {
            let state = self.inner.store.state();
            (state.progress().high_watermark, state.start_offset())
        };
        ObserverAnswer {
            leader: self.known_leader(),
            high_watermark,
            log_start_offset,
            outcome,
        }
    }

    /// Reads a piece of the checkpoint that a fetch named.
    pub async fn fetch_snapshot(
        &self,
        leader_epoch: LeaderEpoch,
        snapshot: (Offset, LeaderEpoch),
        position: i64,
        bytes_max: usize,
    ) -> Result<SnapshotPiece, ErrorCode> {
        if let Some(code) = self.check_leader(leader_epoch) {
            return Err(code);
        }
        let path = self
            .dir()
            .join(checkpoint::file_name(snapshot.0, snapshot.1));
        let bytes_max = bytes_max.min(ANSWER_BYTES_MAX);
        let read = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::open(path)?;
            let size_bytes = file.metadata()?.len();
            let start = u64::try_from(position).ok().filter(|at| *at < size_bytes);
            let Some(start) = start else {
                return Ok(Err(ErrorCode::PositionOutOfRange));
            };
            let left = usize::try_from(size_bytes - start).unwrap_or(usize::MAX);
            let mut bytes = BytesMut::zeroed(left.min(bytes_max));
            file.read_exact_at(&mut bytes, start)?;
            let bytes = bytes.freeze();
            Ok(Ok(SnapshotPiece { size_bytes, bytes }))
        });
        match read.await.map_err(io::Error::other).flatten() {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ErrorCode::SnapshotNotFound)
            }
            Err(error) => {
                warn!(%error, "a metadata snapshot cannot be read");
                Err(ErrorCode::UnknownServerError)
            }
        }
    }

    /// Who leads, as far as observers may rely on it.
    pub fn known_leader(&self) -> LeaderAndEpoch {
        let leader = *self.inner.leader.borrow();
        if leader.leader_id != Some(self.inner.own_id) {
            return leader;
        }
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.membership().voter_ids().count();
        let silence = metrics.last_quorum_acked.as_ref();
        let silence = silence.map(|acked| acked.elapsed());
        // It may be deposed: observers had better look for a successor.
        let is_deposed =
            voters > 1 && silence.is_some_and(|it| it > self.inner.timing.majority_silence_max);
        LeaderAndEpoch {
            leader_id: leader.leader_id.filter(|_| !is_deposed),
            ..leader
        }
    }

    /// Why this node does not answer as the leader of `epoch`.
    fn check_leader(&self, epoch: LeaderEpoch) -> Option<ErrorCode> {
        let leader = self.known_leader();
        if epoch < leader.epoch {
            return Some(ErrorCode::FencedLeaderEpoch);
        }
        if epoch > leader.epoch {
            return Some(ErrorCode::UnknownLeaderEpoch);
        }
        let leads = leader.leader_id == Some(self.inner.own_id);
        (!leads).then_some(ErrorCode::NotLeaderOrFollower)
    }

    /// The answer, where it is not records.
    fn check_fetch(&self, fetch: &ObserverFetch) -> Option<FetchOutcome> {
        if let Some(code) = self.check_leader(fetch.leader_epoch) {
            return Some(FetchOutcome::Refused(code));
        }
        let now_ms = self.inner.clock.wall_ms();
        let state = self.inner.store.state();
        if fetch.replica_id >= 0 {
            lock(&self.inner.observers).note_fetch(
                fetch.leader_epoch,
                (fetch.replica_id, fetch.directory_id),
                fetch.fetch_offset,
                state.end_offset(),
                now_ms,
            );
        }
        let (start, offset, epoch) = (
            state.start_offset(),
            fetch.fetch_offset,
            fetch.last_fetched_epoch,
        );
        if start == 0 && offset == 0 {
            return None;
        }
        let start_epoch = state
            .purged()
            .map_or(0, |id| super::types::leader_epoch(id.leader_id.term));
        if let Some(newest) = state.newest_checkpoint()
            && start > 0
            && (offset < start || (offset == start && epoch != start_epoch) || epoch < start_epoch)
        {
            return Some(FetchOutcome::Snapshot {
                end_offset: newest.end_offset,
                epoch: newest.epoch,
            });
        }
        let (known_epoch, end_offset) = state.end_of_epoch(epoch);
        let diverges = known_epoch != epoch || end_offset < offset;
        diverges.then_some(FetchOutcome::Diverging {
            epoch: known_epoch,
            end_offset,
        })
    }

    /// Waits until something behind the fetch offset is committed, and reads it.
    async fn committed_from(&self, fetch: &ObserverFetch) -> FetchOutcome {
        let deadline = Instant::now() + fetch.wait_max;
        let store = &self.inner.store;
        let mut progress = store.progress();
        let mut leader = self.leader();
        let high_watermark = loop {
            let high_watermark = progress.borrow_and_update().high_watermark;
            if high_watermark > fetch.fetch_offset {
                break high_watermark;
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_err() {
                    return FetchOutcome::Refused(ErrorCode::NotLeaderOrFollower);
                },
                _ = leader.changed() => if let Some(code) = self.check_leader(fetch.leader_epoch) {
                    return FetchOutcome::Refused(code);
                },
                () = tokio::time::sleep_until(deadline) => return FetchOutcome::Records(Bytes::new()),
            }
        };
        let bytes_max = fetch.bytes_max.min(ANSWER_BYTES_MAX);
        let read = store.read_committed(fetch.fetch_offset, high_watermark, bytes_max);
        match read.await {
            Ok(records) => FetchOutcome::Records(records),
            Err(error) => {
                // Trimmed meanwhile, most likely: then there is a snapshot. Else the observer is to rest before it asks again.
                warn!(%error, offset = fetch.fetch_offset, "committed metadata cannot be read");
                let refused = FetchOutcome::Refused(ErrorCode::UnknownServerError);
                self.check_fetch(fetch).unwrap_or(refused)
            }
        }
    }
}
