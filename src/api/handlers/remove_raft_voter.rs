//! RemoveRaftVoter (key 81), v0. A voter leaves the metadata quorum and observes it from then on (KIP-853); the leader decides.
//! A leader that removes itself hands over to another voter once that is committed.

use std::time::Duration;

use kafka_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};

use crate::api::RequestContext;
use crate::api::voter_changes::{
    PATIENCE, check_cluster, check_leader, check_replica, message, refusal, request_timeout,
};
use crate::protocol::Error;
use crate::quorum::{VoterChange, VoterWait};

pub async fn handle(
    context: RequestContext,
    request: RemoveRaftVoterRequest,
) -> RemoveRaftVoterResponse {
    let timeout = request_timeout(&context);
    let controller = context.controller();
    let elsewhere = controller.ask_quorum(context.version, &request, timeout + PATIENCE);
    if let Some(response) = elsewhere.await {
        return response;
    }
    let result = remove(&context, &request, timeout).await;
    RemoveRaftVoterResponse::default()
        .with_error_code(result.as_ref().map_or_else(Error::code, |()| 0))
        .with_error_message(message(&result))
}

async fn remove(
    context: &RequestContext,
    request: &RemoveRaftVoterRequest,
    timeout: Duration,
) -> Result<(), Error> {
    check_cluster(context, request.cluster_id.as_ref())?;
    check_leader(context)?;
    check_replica(request.voter_id, request.voter_directory_id)?;
    let change = VoterChange::Remove {
        node_id: request.voter_id,
        directory_id: request.voter_directory_id,
    };
    let wait = VoterWait {
        timeout,
        committed: true,
    };
    let changed = context.services.quorum.change_voters(change, wait).await;
    changed.map_err(refusal)
}
