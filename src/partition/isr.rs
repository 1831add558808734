//! The in-sync replicas of a partition as its leader sees them (Kafka's `PartitionState` classes).
//!
//! ```text
//!   Committed --expand/shrink--> Pending --accepted--> Committed (new ISR, new partition epoch)
//!                                   |-----rejected, never tried--> Committed (as before)
//!                                   |-----superseded-------------> Pending until the metadata tells more
//!                                   `-----unknown error----------> Pending, the same proposal again
//! ```
//!
//! The maximal ISR is what the high watermark must respect while a proposal is in flight: members that may have joined
//! count already, members that may have left still do.

use crate::protocol::ErrorCode;
use crate::types::{BrokerId, LeaderEpoch};

/// An ISR that the leader asks the controller for (AlterPartition).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    pub leader_epoch: LeaderEpoch,
    /// Which registration the proposal changes: the controller refuses any other.
    pub partition_epoch: i32,
    /// Members with the broker epochs of their fetches; -1 where none is known, and for the leader itself.
    pub isr: Vec<(BrokerId, i64)>,
}

/// What the controller made of an accepted proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedIsr {
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: i32,
    pub isr: Vec<BrokerId>,
}

/// The ISR of the last registration, and the proposal in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IsrState {
    committed: Vec<BrokerId>,
    pending: Option<Pending>,
    changes: IsrChanges,
}

/// Proposals that the controller accepted, since the partition was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IsrChanges {
    pub expands: u64,
    pub shrinks: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    proposal: IsrProposal,
    /// The member that an expansion adds.
    joining: Option<BrokerId>,
}

/// What a refusal means for the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The proposal is void: the ISR stays as it was, another proposal may follow.
    Void,
    /// The leader is behind: the metadata will tell.
    Superseded,
    /// Nobody knows what became of it: ask again.
    Retry,
}

impl IsrState {
    pub fn committed(&self) -> &[BrokerId] {
        &self.committed
    }

    pub fn is_in_flight(&self) -> bool {
        self.pending.is_some()
    }

    pub fn proposal(&self) -> Option<&IsrProposal> {
        self.pending.as_ref().map(|pending| &pending.proposal)
    }

    /// Whether `id` counts for the high watermark.
    pub fn maximal_contains(&self, id: BrokerId) -> bool {
        self.committed.contains(&id) || self.joining() == Some(id)
    }

    pub fn maximal_len(&self) -> usize {
        let joins = |id| !self.committed.contains(&id);
        self.committed.len() + usize::from(self.joining().is_some_and(joins))
    }

    pub fn changes(&self) -> IsrChanges {
        self.changes
    }

    fn joining(&self) -> Option<BrokerId> {
        self.pending.as_ref()?.joining
    }

    /// The controller's word: whatever was in flight is decided.
    pub fn commit(&mut self, isr: &[BrokerId]) {
        if let Some(pending) = &self.pending
            && pending.proposal.isr.iter().map(|(id, _)| id).eq(isr)
        {
            self.changes.expands += u64::from(pending.joining.is_some());
            self.changes.shrinks += u64::from(pending.joining.is_none());
        }
        self.committed.clear();
        self.committed.extend_from_slice(isr);
        self.pending = None;
    }

    pub fn expand(&mut self, joining: BrokerId, proposal: IsrProposal) {
        assert!(self.pending.is_none(), "one AlterPartition in flight");
        self.pending = Some(Pending {
            proposal,
            joining: Some(joining),
        });
    }

    pub fn shrink(&mut self, proposal: IsrProposal) {
        assert!(self.pending.is_none(), "one AlterPartition in flight");
        self.pending = Some(Pending {
            proposal,
            joining: None,
        });
    }

    /// Back to the committed ISR.
    pub fn reset(&mut self) {
        self.pending = None;
    }
}

/// What an error of AlterPartition means (`Partition.handleAlterPartitionError`).
pub fn refusal(code: ErrorCode) -> Refusal {
    match code {
        ErrorCode::OperationNotAttempted | ErrorCode::IneligibleReplica => Refusal::Void,
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::UnknownTopicId
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::InvalidUpdateVersion
        | ErrorCode::InvalidRequest
        | ErrorCode::NewLeaderElected => Refusal::Superseded,
        _ => Refusal::Retry,
    }
}
