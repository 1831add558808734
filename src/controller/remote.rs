//! Asks the active controller on another node: the same requests, over its controller listener.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::{
    AllocateProducerIdsResponse, AlterConfigsResponse, AlterPartitionReassignmentsResponse,
    AlterPartitionResponse, AssignReplicasToDirsResponse, BrokerHeartbeatResponse,
    BrokerRegistrationResponse, CreatePartitionsResponse, CreateTopicsResponse,
    DeleteTopicsResponse, ElectLeadersResponse, IncrementalAlterConfigsResponse,
    ListPartitionReassignmentsResponse, UnregisterBrokerResponse, UpdateFeaturesResponse,
};
use tracing::debug;

use crate::protocol::{Error, ErrorCode};
use crate::quorum::{MetaLog, VoterEndpoint};
use crate::rpc::{Peer, Request, Settings};
use crate::types::BrokerId;

/// Which connection a request takes: heartbeats must not wait behind the creation of many topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Lifecycle,
    Partitions,
    Administration,
}

fn lane(api_key: i16) -> Lane {
    match api_key {
        62 | 63 => Lane::Lifecycle,
        56 | 73 => Lane::Partitions,
        _ => Lane::Administration,
    }
}

/// The way to controllers on other nodes.
pub struct Remote {
    own_id: BrokerId,
    log: Arc<dyn MetaLog>,
    /// One connection a lane, to whoever led when it was last used.
    peers: Mutex<BTreeMap<Lane, (VoterEndpoint, Peer)>>,
}

impl Remote {
    pub fn new(own_id: BrokerId, log: Arc<dyn MetaLog>) -> Self {
        Self {
            own_id,
            log,
            peers: Mutex::default(),
        }
    }

    /// The active controller, if it is another node.
    pub(super) fn leader(&self) -> Option<BrokerId> {
        let leader = self.log.leader().borrow().leader_id;
        leader.filter(|id| *id != self.own_id)
    }

    /// Waits until somebody else is said to lead, or for `longest`.
    pub(super) async fn rest(&self, longest: Duration) {
        let mut leader = self.log.leader();
        leader.mark_unchanged();
        let _ = tokio::time::timeout(longest, leader.changed()).await;
    }

    /// Code 41 when the leader could not be asked: somebody else may lead in a moment.
    pub(super) async fn call<R: Request>(
        &self,
        leader: BrokerId,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, Error> {
        let endpoint = self.log.endpoint(leader).ok_or(ErrorCode::NotController)?;
        let peer = self.peer(lane(R::KEY), endpoint);
        let answer = peer.call(version, request, timeout).await;
        answer.map_err(|error| {
            debug!(leader, %error, "the active controller did not answer");
            ErrorCode::NotController.into()
        })
    }

    fn peer(&self, lane: Lane, endpoint: VoterEndpoint) -> Peer {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, peer)) = peers.get(&lane)
            && *known == endpoint
        {
            return peer.clone();
        }
        let settings = Settings {
            client_id: self.own_id.to_string().into(),
            connect_timeout: Duration::from_secs(1),
            backoff_max: Duration::from_millis(200),
            ..Settings::default()
        };
        let peer = Peer::new(&endpoint.host, endpoint.port, settings);
        peers.insert(lane, (endpoint, peer.clone()));
        peer
    }
}

/// A controller's response.
pub trait Answer {
    /// Whether it says that the node asked is not the active controller.
    fn is_not_controller(&self) -> bool;
}

/// Responses with a code for the whole request.
macro_rules! answers {
    ($($response:ty),* $(,)?) => {$(
        impl Answer for $response {
            fn is_not_controller(&self) -> bool {
                self.error_code == ErrorCode::NotController.code()
            }
        }
    )*};
}

/// Responses with codes for their parts only.
macro_rules! answers_by_part {
    ($($response:ty: $parts:ident),* $(,)?) => {$(
        impl Answer for $response {
            fn is_not_controller(&self) -> bool {
                let mut parts = self.$parts.iter();
                parts.any(|part| part.error_code == ErrorCode::NotController.code())
            }
        }
    )*};
}

answers! {
    AllocateProducerIdsResponse, AlterPartitionReassignmentsResponse, AlterPartitionResponse,
    AssignReplicasToDirsResponse, BrokerHeartbeatResponse, BrokerRegistrationResponse,
    ElectLeadersResponse, ListPartitionReassignmentsResponse, UnregisterBrokerResponse,
    UpdateFeaturesResponse,
}

answers_by_part! {
    AlterConfigsResponse: responses,
    CreatePartitionsResponse: results,
    CreateTopicsResponse: topics,
    DeleteTopicsResponse: responses,
    IncrementalAlterConfigsResponse: responses,
}
