//! AddRaftVoter (key 80), v0-1. A controller becomes a voter of the metadata quorum (KIP-853); the leader decides.
//! Versions: v1 may be answered before the new voters are committed.

use std::time::Duration;

use crate::api::RequestContext;
use crate::api::voter_changes::{
    PATIENCE, check_cluster, check_leader, check_replica, message, refusal, voter_node,
};
use crate::protocol::Error;
use crate::protocol::messages::add_raft_voter::{AddRaftVoterRequest, AddRaftVoterResponse};
use crate::quorum::{VoterChange, VoterWait};

pub async fn handle(context: RequestContext, request: AddRaftVoterRequest) -> AddRaftVoterResponse {
    let timeout = Duration::from_millis(request.timeout_ms.max(0).unsigned_abs().into());
    let controller = context.controller();
    let elsewhere = controller.ask_quorum(context.version, &request, timeout + PATIENCE);
    if let Some(response) = elsewhere.await {
        return response;
    }
    let result = add(&context, request, timeout).await;
    AddRaftVoterResponse {
        error_code: result.as_ref().map_or_else(Error::code, |()| 0),
        error_message: message(&result),
        ..AddRaftVoterResponse::default()
    }
}

async fn add(
    context: &RequestContext,
    request: AddRaftVoterRequest,
    timeout: Duration,
) -> Result<(), Error> {
    check_cluster(context, request.cluster_id.as_ref())?;
    check_leader(context)?;
    check_replica(request.voter_id, request.voter_directory_id)?;
    let listeners = request.listeners.into_iter();
    let listeners = listeners.map(|it| (it.name, it.host, it.port));
    let node = voter_node(context, request.voter_directory_id, listeners)?;
    let change = VoterChange::Add {
        node_id: request.voter_id,
        node,
    };
    let wait = VoterWait {
        timeout,
        committed: request.ack_when_committed,
    };
    let changed = context.services.quorum.change_voters(change, wait).await;
    changed.map_err(refusal)
}
