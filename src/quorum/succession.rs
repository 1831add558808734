//! Elects at once where the leader's process is gone, instead of waiting for its silence to last ([`super::timing`]): clients of a
//! dead broker wait for this election, because the leader of the quorum is what moves partitions elsewhere.
//!
//! Every controller holds a connection to the controller listener of the leader. When that closes and nobody listens there any more,
//! the voters stand for election one after the other, by their ids, so that they do not split the votes. Their requests for votes
//! are marked as those of a leader that hands over: nobody need honour the lease of a process that is dead. Whoever lacks records
//! leaves its turn to the next: it would be refused, and have used up the term that the next one stands in. A leader that does not
//! answer, or that was never reached from here, is left to the timeouts: something may stand in between. Each leadership is judged
//! so once at most.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use super::meta_log::Inner;
use super::types::{Vote, VoterNode, node_id};
use super::{RaftRequest, RaftResponse};
use crate::rpc;

/// Between the turns of two voters; more than an election takes.
const TURN: Duration = Duration::from_millis(100);

/// Watches whoever leads, until the node stops.
pub(super) async fn run(inner: Arc<Inner>) {
    inner.stop.run_until_cancelled(follow(&inner)).await;
}

async fn follow(inner: &Inner) {
    let mut metrics = inner.raft.server_metrics();
    loop {
        let (vote, leader) = {
            let now = metrics.borrow_watched();
            (now.vote, now.current_leader)
        };
        let changes = async {
            while metrics.changed().await.is_ok() {
                let now = metrics.borrow_watched();
                if (now.vote, now.current_leader) != (vote, leader) {
                    return Ok(());
                }
            }
            Err(())
        };
        tokio::select! {
            changed = changes => if changed.is_err() { return },
            never = succeed(inner, vote, leader) => match never {},
        }
    }
}

/// Waits for the leader's end and stands for election in this voter's turn. What comes of it changes the leadership.
async fn succeed(inner: &Inner, vote: Vote, leader: Option<u64>) -> Infallible {
    if let Some(leader) = leader
        && leader != inner.store.own_id()
        && let Some(at) = inner.endpoint(node_id(leader))
        && rpc::until_refused(&at.host, at.port).await
        && let Some(others) = other_voters(inner, leader)
    {
        let own_id = inner.store.own_id();
        let turns = others.range(..own_id).map(|_| TURN);
        tokio::time::sleep(turns.sum()).await;
        if !lacks_records(inner, vote, others).await {
            warn!(
                leader_id = node_id(leader),
                "nobody listens where the leader of the metadata quorum did, electing"
            );
            let request = TransferLeaderRequest::new(vote, own_id, None);
            // Refused if the vote has changed meanwhile, or if raft has ended.
            let _ = inner.raft.handle_transfer_leader(request).await;
        }
    }
    std::future::pending().await
}

/// Who votes besides this node and the leader that is gone; `None` if this node does not vote now.
fn other_voters(inner: &Inner, leader: u64) -> Option<BTreeMap<u64, VoterNode>> {
    let (members, _) = inner.members();
    let members = members.membership();
    let voters: BTreeSet<u64> = members.voter_ids().collect();
    let own_id = inner.store.own_id();
    let other = |(id, node): (&u64, &VoterNode)| {
        (*id != leader && *id != own_id && voters.contains(id)).then(|| (*id, node.clone()))
    };
    let others = members.nodes().filter_map(other).collect();
    voters.contains(&own_id).then_some(others)
}

/// Whether one of `others` says that its log is longer. Who does not answer within a turn is not waited for.
async fn lacks_records(inner: &Inner, vote: Vote, others: BTreeMap<u64, VoterNode>) -> bool {
    let own = inner.store.state().last_log_id();
    let stands = Vote::new(vote.leader_id.term + 1, inner.store.own_id());
    let mut answers: JoinSet<_> = others
        .into_iter()
        .map(|(id, node)| {
            // Changes nothing there; the answer to whether it would be granted heeds the dead leader's lease.
            let request = RaftRequest::PreVote(VoteRequest::new(stands, own));
            inner.transport.call(id, node, request)
        })
        .collect();
    let is_longer = async {
        while let Some(answer) = answers.join_next().await {
            if let Ok(Ok(RaftResponse::PreVote(theirs))) = answer
                && theirs.last_log_id > own
            {
                return true;
            }
        }
        false
    };
    timeout(TURN, is_longer).await.unwrap_or(false)
}
