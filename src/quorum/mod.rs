//! The replicated metadata log (`__cluster_metadata`): the seam between the controller, the
//! brokers' metadata loaders and consensus.
//!
//! [`MetaLog`] is all that the rest of the program knows about consensus. Nothing here knows
//! what the records mean.

mod bootstrap;
mod checkpoint;
mod control;
mod entries;
mod join;
mod log_storage;
mod membership;
mod meta_log;
mod network;
mod observer;
mod observers;
mod peers;
mod proposals;
mod search;
mod serve;
mod sidecar;
mod snapshots;
mod start;
mod state;
mod state_machine;
mod store;
mod subscriber;
mod succession;
mod timing;
mod transport;
mod types;
mod vote_file;
mod voters;
mod writer;

#[cfg(test)]
mod tests;

pub use bootstrap::{read_bootstrap, write_bootstrap, write_voters};
pub use join::Joining;
pub use meta_log::{MetaLogParams, OpenraftMetaLog, QuorumError};
pub use network::{NoTransport, RaftRequest, RaftResponse, Transport, TransportError};
pub use observer::Observer;
pub use serve::{FetchOutcome, ObserverAnswer, ObserverFetch, SnapshotPiece};
pub use start::{Member, own_voter};
pub use state_machine::CheckpointFile;
pub use timing::QuorumTiming;
pub use transport::{RAFT_API_KEY, RpcTransport};
pub use types::{AppliedEntry, Proposal, TypeConfig, VoterEndpoint, VoterNode, raft_id};
pub use voters::{VoterChange, VoterChangeError};

/// The rules themselves, for who runs them without raft: the simulator.
pub mod pure {
    pub use super::voters::Voters;
}

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::protocol::metadata_records::MetadataRecord;
use crate::types::{BrokerId, LeaderEpoch, Offset, TimestampMs, Uuid};

/// A future on the heap, as an object-safe trait has to return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Holds the end of a log; nothing where nobody else could move it.
pub type EndHeld<'a> = Option<MutexGuard<'a, ()>>;

/// The most records of one proposal, hence of one batch (`QuorumController.MAX_RECORDS_PER_USER_OP`).
pub const RECORDS_PER_BATCH_MAX: usize = 10_000;

/// The metadata log: propose records, follow what is committed, know who leads.
pub trait MetaLog: Send + Sync + 'static {
    /// Appends records as one batch. Resolves with the offset of the last record once committed.
    ///
    /// Calls are ordered: what is proposed first gets the lower offsets, whatever the order in
    /// which the futures are polled (or dropped: a proposal is on its way once this returns).
    /// After the first failed proposal of an epoch all later ones of that epoch fail too, because
    /// they may build on it; so a proposal's first offset is what [`MetaLog::end_offset`] was, if
    /// [`MetaLog::hold_end`] held it there.
    fn propose(
        &self,
        epoch: LeaderEpoch,
        records: Vec<MetadataRecord>,
    ) -> BoxFuture<'static, Result<Offset, ProposeError>>;

    /// The offset that the first record of the next proposal gets, while this node leads. The
    /// controller needs it in advance: a broker's epoch is the offset of its registration.
    fn end_offset(&self) -> Offset;

    /// While it is held, only [`MetaLog::propose`] moves the end: a change of the voters, which takes an offset too,
    /// waits. Whoever decides on the end holds it until what it decided is proposed, and for no longer than that takes.
    fn hold_end(&self) -> EndHeld<'_>;

    /// Who leads. This node is announced as the leader of an epoch only when the epoch's first
    /// batch is committed, so a subscriber that reached [`MetaLog::end_offset`] has then seen
    /// everything of older epochs.
    fn leader(&self) -> watch::Receiver<LeaderAndEpoch>;

    /// Committed batches from the newest snapshot on, in order. Any number of subscribers, each
    /// at its own pace; one that falls behind the trimmed log gets a newer snapshot in between.
    fn subscribe(&self) -> mpsc::Receiver<Committed>;

    /// Where a voter listens for brokers and other controllers. A log without a network knows nobody.
    fn endpoint(&self, _: BrokerId) -> Option<VoterEndpoint> {
        None
    }

    /// Has a voter come, go or move, if this node leads (KIP-853).
    fn change_voters(
        &self,
        _: VoterChange,
        _: VoterWait,
    ) -> BoxFuture<'static, Result<(), VoterChangeError>> {
        Box::pin(std::future::ready(Err(VoterChangeError::NotLeader)))
    }

    /// The level of kraft.version: 1 where the voters are in the log and can change.
    fn kraft_version(&self) -> i16 {
        1
    }

    /// The state of the quorum, for DescribeQuorum.
    fn describe(&self) -> QuorumInfo;

    /// Stores `records`, the whole state before `offset` (exclusive, a batch boundary, at most
    /// the high watermark), as Kafka's `<offset>-<epoch>.checkpoint`, and trims the log before it.
    fn write_snapshot(
        &self,
        offset: Offset,
        epoch: LeaderEpoch,
        records: Vec<MetadataRecord>,
    ) -> BoxFuture<'static, Result<(), SnapshotError>>;
}

/// Who leads the metadata quorum in which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderAndEpoch {
    /// `None` while an election runs, or before the new leader can commit.
    pub leader_id: Option<BrokerId>,
    pub epoch: LeaderEpoch,
}

/// How a change of the voters is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoterWait {
    /// How long, at most.
    pub timeout: Duration,
    /// Until the change is committed; else until the leader has written it.
    pub committed: bool,
}

/// What a subscriber receives.
#[derive(Clone, Debug)]
pub enum Committed {
    /// The whole state before `offset` (exclusive): replaces everything received before.
    Snapshot {
        offset: Offset,
        epoch: LeaderEpoch,
        records: Arc<[MetadataRecord]>,
    },
    /// One committed batch. `records` is empty for control batches, which take offsets too.
    Batch {
        base_offset: Offset,
        last_offset: Offset,
        epoch: LeaderEpoch,
        append_time_ms: TimestampMs,
        records: Arc<[MetadataRecord]>,
    },
}

/// Why a proposal did not take effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead in the proposal's epoch. It may still be committed when it was
    /// replicated before leadership was lost.
    #[error("this node is not the leader of the metadata quorum in that epoch")]
    NotLeader,
    /// An earlier proposal of the epoch failed, which this one may depend on.
    #[error("an earlier proposal of this epoch was not accepted")]
    Superseded,
    /// No records, or more than [`RECORDS_PER_BATCH_MAX`].
    #[error("a proposal must have 1 to {RECORDS_PER_BATCH_MAX} records")]
    BadSize,
    /// The log directory failed or the node is stopping; nothing will be committed any more.
    #[error("the metadata log is closed: {0}")]
    Closed(Arc<str>),
}

/// Why a snapshot was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not a committed batch boundary behind the newest snapshot.
    #[error("offset {0} is not the end of a committed batch behind the newest snapshot")]
    BadOffset(Offset),
    #[error("the snapshot could not be stored: {0}")]
    Storage(Arc<str>),
}

/// State of the quorum as DescribeQuorum reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumInfo {
    /// -1 when unknown.
    pub leader_id: BrokerId,
    pub leader_epoch: LeaderEpoch,
    pub high_watermark: Offset,
    pub voters: Vec<ReplicaState>,
    pub observers: Vec<ReplicaState>,
}

/// One voter or observer of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    pub replica_id: BrokerId,
    pub replica_directory_id: Uuid,
    /// -1 when unknown.
    pub log_end_offset: Offset,
    /// -1 when unknown.
    pub last_fetch_timestamp_ms: TimestampMs,
    /// -1 when unknown.
    pub last_caught_up_timestamp_ms: TimestampMs,
}

impl ReplicaState {
    /// One of whom no more is known than that it is a member.
    fn unheard(replica_id: BrokerId, replica_directory_id: Uuid) -> Self {
        Self {
            replica_id,
            replica_directory_id,
            log_end_offset: -1,
            last_fetch_timestamp_ms: -1,
            last_caught_up_timestamp_ms: -1,
        }
    }
}
