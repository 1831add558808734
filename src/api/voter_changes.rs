//! What AddRaftVoter, RemoveRaftVoter and UpdateRaftVoter have in common (`KafkaRaftClient`).

use std::time::Duration;

use kafka_protocol::protocol::StrBytes;

use super::context::RequestContext;
use super::metadata_fetch::is_of_cluster;
use crate::protocol::{Error, ErrorCode};
use crate::quorum::{VoterChangeError, VoterEndpoint, VoterNode};
use crate::types::{BrokerId, Uuid};

/// The least time to find the leader and to be answered.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How long a change may take whose request does not say it (`controller.quorum.request.timeout.ms`).
pub fn request_timeout(context: &RequestContext) -> Duration {
    let config = context.services.config();
    let timeout_ms = config.controller_quorum_request_timeout_ms.max(0);
    Duration::from_millis(timeout_ms.unsigned_abs().into())
}

/// Refuses a request that is meant for another cluster.
pub fn check_cluster(context: &RequestContext, cluster_id: Option<&StrBytes>) -> Result<(), Error> {
    if is_of_cluster(context, cluster_id) {
        return Ok(());
    }
    let why = format!("the cluster's id is {}", context.services.cluster_id);
    Err(Error::new(ErrorCode::InconsistentClusterId, why))
}

/// Refuses a request that came to another controller than the leader.
pub fn check_leader(context: &RequestContext) -> Result<(), ErrorCode> {
    let leader = *context.services.quorum.leader().borrow();
    if leader.leader_id == Some(context.services.config().node_id) {
        Ok(())
    } else {
        Err(ErrorCode::NotLeaderOrFollower)
    }
}

/// Refuses what cannot be a replica.
pub fn check_replica(node_id: BrokerId, directory_id: Uuid) -> Result<(), Error> {
    if node_id < 0 || directory_id.is_nil() {
        let why = "a voter has an id and a directory id";
        return Err(Error::new(ErrorCode::InvalidRequest, why));
    }
    Ok(())
}

/// A voter as a request describes it, its endpoint on the quorum's listener first.
pub fn voter_node(
    context: &RequestContext,
    directory_id: Uuid,
    listeners: impl Iterator<Item = (StrBytes, StrBytes, u16)>,
) -> Result<VoterNode, Error> {
    let config = context.services.config();
    let wanted = config.controller_listener_names.first();
    let mut endpoints: Vec<VoterEndpoint> = listeners
        .map(|(name, host, port)| VoterEndpoint {
            name: name.to_string(),
            host: host.to_string(),
            port,
        })
        .collect();
    let is_wanted = |it: &VoterEndpoint| wanted.is_some_and(|name| *name == it.name);
    endpoints.sort_by_key(|it| !is_wanted(it));
    if endpoints.first().is_some_and(is_wanted) {
        return Ok(VoterNode {
            directory_id,
            endpoints,
        });
    }
    let why = "the voter has no endpoint on the quorum's listener";
    Err(Error::new(ErrorCode::InvalidRequest, why))
}

/// The code of a change that did not happen.
pub fn refusal(error: VoterChangeError) -> Error {
    let code = match error {
        VoterChangeError::NotLeader => return ErrorCode::NotLeaderOrFollower.into(),
        VoterChangeError::TimedOut(_) => ErrorCode::RequestTimedOut,
        VoterChangeError::Unsupported => ErrorCode::UnsupportedVersion,
        VoterChangeError::Duplicate(_) => ErrorCode::DuplicateVoter,
        VoterChangeError::NotFound(..) => ErrorCode::VoterNotFound,
        VoterChangeError::Incompatible(_) => ErrorCode::InvalidRequest,
    };
    Error::new(code, error.to_string())
}

/// Text of an answer: of a failure its own; Kafka leaves it empty where only the code counts.
pub fn message(result: &Result<(), Error>) -> Option<StrBytes> {
    match result {
        Ok(()) => None,
        Err(error) => Some(error.text().unwrap_or_default()),
    }
}
