//! UpdateRaftVoter (key 82), v0. A voter listens elsewhere or speaks other versions of the quorum's protocol (KIP-853); from one
//! controller to the leader.

use kafka_protocol::messages::update_raft_voter_response::CurrentLeader;
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, UpdateRaftVoterRequest, UpdateRaftVoterResponse,
};

use crate::api::RequestContext;
use crate::api::cluster_view::text;
use crate::api::voter_changes::{
    check_cluster, check_leader, check_replica, refusal, request_timeout, voter_node,
};
use crate::metadata::features::KRAFT_VERSION_LEVEL;
use crate::protocol::{Error, ErrorCode};
use crate::quorum::{VoterChange, VoterWait};

pub async fn handle(
    context: RequestContext,
    request: UpdateRaftVoterRequest,
) -> UpdateRaftVoterResponse {
    let result = update(&context, request).await;
    let response = UpdateRaftVoterResponse::default()
        .with_error_code(result.map_or_else(|error| error.code(), |()| 0));
    let quorum = &context.services.quorum;
    let leader = *quorum.leader().borrow();
    let Some(leader_id) = leader.leader_id else {
        return response;
    };
    let mut current = CurrentLeader::default()
        .with_leader_id(WireBrokerId(leader_id))
        .with_leader_epoch(leader.epoch);
    if let Some(endpoint) = quorum.endpoint(leader_id) {
        current = current
            .with_host(text(&endpoint.host))
            .with_port(endpoint.port.into());
    }
    response.with_current_leader(current)
}

async fn update(context: &RequestContext, request: UpdateRaftVoterRequest) -> Result<(), Error> {
    check_cluster(context, request.cluster_id.as_ref())?;
    let epoch = context.services.quorum.leader().borrow().epoch;
    match request.current_leader_epoch {
        old if old < epoch => return Err(ErrorCode::FencedLeaderEpoch.into()),
        new if new > epoch => return Err(ErrorCode::UnknownLeaderEpoch.into()),
        _ => check_leader(context)?,
    }
    check_replica(request.voter_id, request.voter_directory_id)?;
    let listeners = request.listeners.into_iter();
    let listeners = listeners.map(|it| (it.name, it.host, it.port));
    let node = voter_node(context, request.voter_directory_id, listeners)?;
    let range = &request.k_raft_version_feature;
    let (min, max) = (range.min_supported_version, range.max_supported_version);
    if min < 0 || !(min..=max).contains(&KRAFT_VERSION_LEVEL) {
        return Err(ErrorCode::InvalidRequest.into());
    }
    let wait = VoterWait {
        timeout: request_timeout(context),
        // As Kafka answers: once it is written.
        committed: false,
    };
    let change = VoterChange::Update {
        node_id: request.voter_id,
        node,
    };
    let changed = context.services.quorum.change_voters(change, wait).await;
    changed.map_err(refusal)
}
