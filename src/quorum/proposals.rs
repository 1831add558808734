//! Records on their way into the log: each proposal is given its offset when it is made, and goes to raft in that order.

use std::sync::Arc;

use openraft::errors::ClientWriteError;
use openraft::type_config::alias::OneshotReceiverOf;
use tokio::sync::mpsc;
use tracing::warn;

use super::membership::MembersStep;
use super::meta_log::{Answer, Inner, Responder, closed};
use super::store::lock;
use super::types::{AppliedEntry, CommittedLeaderId, Proposal};
use super::{ProposeError, RECORDS_PER_BATCH_MAX, TypeConfig};
use crate::protocol::metadata_records::MetadataRecord;
use crate::types::{LeaderEpoch, Offset};

/// Where the next proposal goes, while this node leads.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    pub(super) leading: bool,
    pub(super) epoch: LeaderEpoch,
    pub(super) next_offset: Offset,
    pub(super) failed: bool,
}

impl Proposals {
    pub(super) fn leads(&self, epoch: LeaderEpoch) -> bool {
        self.leading && self.epoch == epoch
    }
}

/// What is on its way to raft, in order.
pub(super) enum Forward {
    Records {
        proposal: Proposal,
        epoch: LeaderEpoch,
        responder: Responder,
    },
    /// Takes one offset, as was promised to whom comes behind.
    Members(MembersStep),
}

/// Hands proposals to raft one after the other, which keeps their order.
pub(super) async fn run_forwarder(inner: Arc<Inner>, mut queue: mpsc::UnboundedReceiver<Forward>) {
    while let Some(Some(next)) = inner.stop.run_until_cancelled(queue.recv()).await {
        match next {
            Forward::Records {
                proposal,
                epoch,
                responder,
            } => {
                let expected = CommittedLeaderId::from(u64::from(epoch.unsigned_abs()));
                let sent = inner
                    .raft
                    .write(proposal)
                    .with_leader(expected)
                    .responder(responder)
                    .await;
                if sent.is_err() {
                    return;
                }
            }
            Forward::Members(step) => step.carry_out(&inner).await,
        }
    }
}

impl Inner {
    /// Queues a proposal at the next offset.
    pub(super) fn queue(
        &self,
        epoch: LeaderEpoch,
        records: Vec<MetadataRecord>,
    ) -> Result<OneshotReceiverOf<TypeConfig, Answer>, ProposeError> {
        if records.is_empty() || records.len() > RECORDS_PER_BATCH_MAX {
            return Err(ProposeError::BadSize);
        }
        let mut proposals = lock(&self.proposals);
        if !proposals.leads(epoch) {
            return Err(ProposeError::NotLeader);
        }
        if proposals.failed {
            return Err(ProposeError::Superseded);
        }
        let base_offset = proposals.next_offset;
        proposals.next_offset += records.len() as Offset;
        let proposal = Proposal::new(base_offset, self.clock.wall_ms(), records);
        let (responder, answer) = Responder::complete_only();
        let forward = Forward::Records {
            proposal,
            epoch,
            responder,
        };
        self.forward
            .send(forward)
            .map_err(|_| closed("raft has stopped"))?;
        Ok(answer)
    }

    pub(super) async fn outcome(
        self: &Arc<Self>,
        epoch: LeaderEpoch,
        answer: OneshotReceiverOf<TypeConfig, Answer>,
    ) -> Result<Offset, ProposeError> {
        let answer = answer
            .await
            .map_err(|_| closed(self.failure().unwrap_or_else(|| "raft has stopped".into())))?;
        let failed = match answer.map(|response| response.data) {
            Ok(AppliedEntry {
                last_offset,
                rejected: false,
            }) => return Ok(last_offset),
            Ok(_) => ProposeError::Superseded,
            Err(
                ClientWriteError::ForwardToLeader(_)
                | ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => ProposeError::NotLeader,
            Err(error @ ClientWriteError::ChangeMembershipError(_)) => closed(error),
        };
        self.fail(epoch, &failed);
        Err(failed)
    }

    /// Raft refuses proposals, and leads on, when a majority was silent for longer than its lease. What comes behind a refused one
    /// builds on it, and on its offsets: it needs an epoch in which to begin anew.
    pub(super) fn fail(self: &Arc<Self>, epoch: LeaderEpoch, reason: &dyn std::error::Error) {
        let is_first = {
            let mut proposals = lock(&self.proposals);
            proposals.leads(epoch) && !std::mem::replace(&mut proposals.failed, true)
        };
        if is_first {
            warn!(leader_epoch = epoch, %reason, "a proposal was refused, another voter is to lead");
            let inner = Arc::clone(self);
            tokio::spawn(async move { inner.hand_over(epoch).await });
        }
    }
}
