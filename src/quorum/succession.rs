//! Elects at once where the leader's process is gone, instead of waiting for its silence to last ([`super::timing`]): clients of a
//! dead broker wait for this election, because the leader of the quorum is what moves partitions elsewhere.
//!
//! Every controller holds a connection to the controller listener of the leader. When that closes and nobody listens there any more,
//! the voters stand for election one after the other, by their ids, so that they do not split the votes. Their requests for votes
//! are marked as those of a leader that hands over: nobody need honour the lease of a process that is dead. Whoever lacks records
//! is refused, and the next one's turn comes. A leader that does not answer, or that was never reached from here, is left to the
//! timeouts: something may stand in between. Each leadership is judged so once at most.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use tracing::warn;

use super::meta_log::Inner;
use super::types::{Vote, node_id};
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
        && let Some(turn) = turn(inner, leader)
    {
        tokio::time::sleep(TURN * turn).await;
        warn!(
            leader_id = node_id(leader),
            "nobody listens where the leader of the metadata quorum did, electing"
        );
        let request = TransferLeaderRequest::new(vote, inner.store.own_id(), None);
        // Refused if the vote has changed meanwhile, or if raft has ended.
        let _ = inner.raft.handle_transfer_leader(request).await;
    }
    std::future::pending().await
}

/// How many voters have their turn before this one; `None` if it does not vote now.
fn turn(inner: &Inner, leader: u64) -> Option<u32> {
    let (members, _) = inner.members();
    let voters: BTreeSet<u64> = members.membership().voter_ids().collect();
    let own_id = inner.store.own_id();
    let before = voters.iter().filter(|id| **id != leader && **id < own_id);
    voters
        .contains(&own_id)
        .then(|| before.fold(0, |turns, _| turns + 1))
}
