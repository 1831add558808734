//! Asks the active controller on another node: the same requests, over its controller listener.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ParseResponseErrorCode;
use kafka_protocol::messages::{
    AllocateProducerIdsResponse, AlterConfigsResponse, AlterPartitionReassignmentsResponse,
    AlterPartitionResponse, AssignReplicasToDirsResponse, BrokerRegistrationResponse,
    ControllerRegistrationResponse, CreatePartitionsResponse, CreateTopicsResponse,
    DeleteTopicsResponse, ElectLeadersResponse, EnvelopeRequest, IncrementalAlterConfigsResponse,
    ListPartitionReassignmentsResponse, UnregisterBrokerResponse, UpdateFeaturesResponse,
};
use kafka_protocol::protocol::StrBytes;
use tracing::debug;

use crate::config::Config;
use crate::protocol::messages::broker_heartbeat::BrokerHeartbeatResponse;
use crate::protocol::principal::Principal;
use crate::protocol::{Error, ErrorCode};
use crate::quorum::{MetaLog, VoterEndpoint};
use crate::rpc::{self, Peer, Request, RpcError, Settings};
use crate::types::BrokerId;

const ENVELOPE_VERSION: i16 = 0;
/// Whoever leads is near, or somebody else leads soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Which connection a request takes: heartbeats must not wait behind the creation of many topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Lifecycle,
    Partitions,
    Administration,
}

fn lane(api_key: i16) -> Lane {
    match api_key {
        62 | 63 | 70 => Lane::Lifecycle,
        56 | 73 => Lane::Partitions,
        _ => Lane::Administration,
    }
}

/// A client that asks through this node.
#[derive(Clone, Debug)]
pub struct Caller {
    pub principal: Principal,
    pub address: IpAddr,
    pub client_id: Option<StrBytes>,
}

fn octets(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    }
}

/// The way to controllers on other nodes.
pub struct Remote {
    own_id: BrokerId,
    log: Arc<dyn MetaLog>,
    settings: Settings,
    /// `controller.socket.timeout.ms`
    answer_timeout: Duration,
    /// One connection a lane, to whoever led when it was last used.
    peers: Mutex<BTreeMap<Lane, (VoterEndpoint, Peer)>>,
}

impl Remote {
    pub fn new(config: &Config, log: Arc<dyn MetaLog>) -> Self {
        let timeout_ms = config.controller_socket_timeout_ms.max(1).unsigned_abs();
        Self {
            own_id: config.node_id,
            log,
            settings: Settings {
                client_id: config.node_id.to_string().into(),
                backoff_max: Duration::from_millis(200),
                ..Settings::of(config).connecting_within(CONNECT_TIMEOUT)
            },
            answer_timeout: Duration::from_millis(u64::from(timeout_ms)),
            peers: Mutex::default(),
        }
    }

    /// The active controller, if it is another node.
    pub(super) fn leader(&self) -> Option<BrokerId> {
        let leader = self.log.leader().borrow().leader_id;
        leader.filter(|id| *id != self.own_id)
    }

    /// How long the active controller may take to answer before it is asked again, on another connection, of the time that is left.
    pub(super) fn patience(&self, left: Duration) -> Duration {
        left.min(self.answer_timeout)
    }

    /// Waits until somebody else is said to lead, or for `longest`.
    pub(super) async fn rest(&self, longest: Duration) {
        let mut leader = self.log.leader();
        leader.mark_unchanged();
        let _ = tokio::time::timeout(longest, leader.changed()).await;
    }

    /// Asks on behalf of `caller`, or as this node itself. Code 41 when the leader could not be asked: somebody else may lead
    /// in a moment.
    pub(super) async fn call<R: Request>(
        &self,
        leader: BrokerId,
        caller: Option<&Caller>,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, Error> {
        let endpoint = self.log.endpoint(leader).ok_or(ErrorCode::NotController)?;
        let peer = self.peer(lane(R::KEY), endpoint);
        let unanswered = |error: RpcError| {
            debug!(leader, %error, "the active controller did not answer");
            Error::from(ErrorCode::NotController)
        };
        let Some(caller) = caller else {
            let answer = peer.call(version, request, timeout).await;
            return answer.map_err(unanswered);
        };
        let client_id = caller.client_id.as_deref();
        let inside = rpc::encode_request(request, version, client_id).map_err(unanswered)?;
        let envelope = EnvelopeRequest::default()
            .with_request_data(inside)
            .with_request_principal(Some(caller.principal.to_bytes()))
            .with_client_host_address(octets(caller.address));
        let answer = peer.call(ENVELOPE_VERSION, &envelope, timeout).await;
        let answer = answer.map_err(unanswered)?;
        if let Some(code) = answer.error_code.err() {
            return Err(code.into());
        }
        let inside = answer.response_data.unwrap_or_default();
        rpc::decode_response::<R>(inside, version).map_err(|reason| {
            debug!(
                leader,
                reason, "an answer in an envelope that cannot be read"
            );
            ErrorCode::UnknownServerError.into()
        })
    }

    fn peer(&self, lane: Lane, endpoint: VoterEndpoint) -> Peer {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, peer)) = peers.get(&lane)
            && *known == endpoint
        {
            return peer.clone();
        }
        let peer = Peer::new(&endpoint.host, endpoint.port, self.settings.clone());
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
    ControllerRegistrationResponse, ElectLeadersResponse, ListPartitionReassignmentsResponse, UnregisterBrokerResponse,
    UpdateFeaturesResponse,
}

answers_by_part! {
    AlterConfigsResponse: responses,
    CreatePartitionsResponse: results,
    CreateTopicsResponse: topics,
    DeleteTopicsResponse: responses,
    IncrementalAlterConfigsResponse: responses,
}
