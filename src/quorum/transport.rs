//! Raft's requests on the wire: one private API on the controller listener, in Kafka's framing and never advertised.
//!
//! ```text
//! request:   header bytes u32 | header: postcard of (target, cluster id, RaftRequest, checkpoint's id) | the checkpoint's bytes
//! response:  postcard of RaftResponse; empty when the voter cannot answer
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::StrBytes;
use serde::{Deserialize, Serialize};

use super::network::{RaftRequest, RaftResponse, Transport, TransportError};
use super::peers::Peers;
use super::state_machine::CheckpointFile;
use super::store::{invalid, lock};
use super::timing::QuorumTiming;
use super::types::{VoterEndpoint, VoterNode, node_id};
use super::{BoxFuture, OpenraftMetaLog};
use crate::metadata::features::KRAFT_VERSION;
use crate::rpc::{Peer, RawRequest, Settings};
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// Key of the private API. Kafka's own keys are far below.
pub const RAFT_API_KEY: i16 = 1_000;

/// A checkpoint travels whole; it is bounded by `socket.request.max.bytes` on the other side.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_mins(1);

/// Longest rest before a connection is made again.
const BACKOFF_MAX: Duration = Duration::from_millis(200);
/// Two changes of the voters.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The first version of ApiVersions that lists features whose least level is 0.
const API_VERSIONS_VERSION: i16 = 4;

/// Beside the request: which checkpoint its bytes are.
#[derive(Debug, Serialize, Deserialize)]
struct CheckpointId {
    end_offset: Offset,
    epoch: LeaderEpoch,
}

/// What stands in front of a checkpoint's bytes.
type Head = (u64, Option<String>, RaftRequest, Option<CheckpointId>);

/// Which connection a request takes: nobody votes behind an append, nothing waits behind a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Votes,
    Log,
    Checkpoints,
}

fn lane(request: &RaftRequest, timing: &QuorumTiming) -> (Lane, Duration) {
    match request {
        RaftRequest::AppendEntries(_) => (Lane::Log, timing.request_timeout),
        RaftRequest::Vote(_) | RaftRequest::PreVote(_) | RaftRequest::TransferLeader(_) => {
            (Lane::Votes, timing.vote_timeout)
        }
        RaftRequest::Join { .. } => (Lane::Votes, JOIN_TIMEOUT),
        RaftRequest::InstallSnapshot { .. } => (Lane::Checkpoints, SNAPSHOT_TIMEOUT),
    }
}

/// Reaches the other voters where their membership says that they listen.
#[derive(Debug, Default)]
pub struct RpcTransport {
    /// Of `meta.properties`. Who is of another cluster does not answer.
    cluster_id: Option<String>,
    /// Where the configuration says that static voters listen.
    addresses: BTreeMap<BrokerId, VoterEndpoint>,
    /// At most three connections a member.
    peers: Mutex<Peers<(u64, Lane)>>,
    timing: QuorumTiming,
}

impl RpcTransport {
    pub fn new(
        cluster_id: Option<String>,
        addresses: BTreeMap<BrokerId, VoterEndpoint>,
        timing: QuorumTiming,
    ) -> Self {
        Self {
            cluster_id,
            addresses,
            timing,
            peers: Mutex::default(),
        }
    }

    fn peer(&self, target: u64, lane: Lane, endpoint: &VoterEndpoint) -> Peer {
        let connect = || new_peer(&self.timing, endpoint);
        lock(&self.peers).of((target, lane), endpoint, connect)
    }
}

/// Where a member listens: what the configuration says of static voters, else what the member's record says.
pub(super) fn address<'a>(
    configured: &'a BTreeMap<BrokerId, VoterEndpoint>,
    node_id: BrokerId,
    node: Option<&'a VoterNode>,
) -> Option<&'a VoterEndpoint> {
    let recorded = node.and_then(|node| node.endpoints.first());
    match node {
        Some(node) if !node.directory_id.is_nil() => recorded,
        _ => configured.get(&node_id).or(recorded),
    }
}

impl Transport for RpcTransport {
    fn call(
        &self,
        target: u64,
        node: VoterNode,
        request: RaftRequest,
    ) -> BoxFuture<'static, Result<RaftResponse, TransportError>> {
        let failed = move |reason: String| TransportError {
            target: node_id(target),
            reason,
        };
        let Some(endpoint) = address(&self.addresses, node_id(target), Some(&node)) else {
            let error = failed("the voters' record has no address for it".into());
            return Box::pin(std::future::ready(Err(error)));
        };
        let (lane, timeout) = lane(&request, &self.timing);
        let peer = self.peer(target, lane, endpoint);
        let cluster_id = self.cluster_id.clone();
        Box::pin(async move {
            let body = encode_request(target, cluster_id.as_deref(), request)
                .await
                .map_err(|error| failed(error.to_string()))?;
            let raw = RawRequest {
                api_key: RAFT_API_KEY,
                api_version: 0,
                flexible: false,
                body,
            };
            let answer = peer
                .call_raw(raw, timeout)
                .await
                .map_err(|error| failed(error.to_string()))?;
            if answer.is_empty() {
                return Err(failed("it is stopping".into()));
            }
            match postcard::from_bytes(&answer) {
                Ok(RaftResponse::NotMeant { cluster_id: theirs }) if theirs == cluster_id => {
                    Err(failed("another replica is there".into()))
                }
                Ok(RaftResponse::NotMeant { cluster_id: theirs }) => {
                    let [own, theirs] = [cluster_id, theirs].map(Option::unwrap_or_default);
                    Err(failed(format!(
                        "it is of cluster {theirs}, but this node of {own}"
                    )))
                }
                answer => answer.map_err(|error| failed(error.to_string())),
            }
        })
    }

    fn kraft_versions(
        &self,
        target: BrokerId,
        endpoint: VoterEndpoint,
    ) -> BoxFuture<'static, Result<Option<(i16, i16)>, TransportError>> {
        let peer = new_peer(&self.timing, &endpoint);
        let timeout = self.timing.request_timeout;
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("ottla"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        Box::pin(async move {
            let answer = peer.call(API_VERSIONS_VERSION, &request, timeout).await;
            let answer = answer.map_err(|error| TransportError {
                target,
                reason: error.to_string(),
            })?;
            let mut features = answer.supported_features.iter();
            let range = features.find(|feature| &*feature.name == KRAFT_VERSION);
            Ok(range.map(|range| (range.min_version, range.max_version)))
        })
    }
}

fn new_peer(timing: &QuorumTiming, endpoint: &VoterEndpoint) -> Peer {
    let settings = Settings {
        client_id: "raft".into(),
        connect_timeout: timing.connect_timeout,
        connect_timeout_max: timing.connect_timeout,
        backoff_min: timing.retry_backoff,
        // A voter that is back is wanted at once.
        backoff_max: timing.retry_backoff.max(BACKOFF_MAX),
        ..Settings::default()
    };
    Peer::new(&endpoint.host, endpoint.port, settings)
}

async fn encode_request(
    target: u64,
    cluster_id: Option<&str>,
    request: RaftRequest,
) -> io::Result<Bytes> {
    let file = match &request {
        RaftRequest::InstallSnapshot { checkpoint, .. } => checkpoint.clone(),
        _ => None,
    };
    let id = file.as_ref().map(|file| CheckpointId {
        end_offset: file.end_offset,
        epoch: file.epoch,
    });
    let head = postcard::to_stdvec(&(target, cluster_id, request, id)).map_err(io::Error::other)?;
    let checkpoint = match file {
        Some(file) => tokio::task::spawn_blocking(move || std::fs::read(file.path))
            .await
            .map_err(io::Error::other)??,
        None => Vec::new(),
    };
    let mut body = BytesMut::with_capacity(4 + head.len() + checkpoint.len());
    body.put_u32(u32::try_from(head.len()).map_err(io::Error::other)?);
    body.put_slice(&head);
    body.put_slice(&checkpoint);
    Ok(body.freeze())
}

/// The request and, where one came with it, its checkpoint in a file of its own; `None` if it is of another cluster, or for
/// another replica, which only a request to join may be.
async fn decode_request(
    mut body: Bytes,
    voter: &OpenraftMetaLog,
) -> io::Result<Option<RaftRequest>> {
    let head_bytes = body.try_get_u32().map_err(io::Error::other)? as usize;
    if head_bytes > body.len() {
        return Err(invalid("a raft request ends in its header"));
    }
    let head = body.split_to(head_bytes);
    let (target, cluster_id, mut request, id): Head =
        postcard::from_bytes(&head).map_err(io::Error::other)?;
    // Who asks to join knows an address only.
    let is_target = matches!(request, RaftRequest::Join { .. }) || target == voter.raft_id();
    if !voter.is_of(cluster_id.as_deref()) || !is_target {
        return Ok(None);
    }
    if let (RaftRequest::InstallSnapshot { checkpoint, .. }, Some(id)) = (&mut request, id) {
        let name = format!("received-{}-{}.checkpoint.part", id.end_offset, id.epoch);
        let path = voter.dir().join(name);
        let file = path.clone();
        tokio::task::spawn_blocking(move || std::fs::write(file, &body))
            .await
            .map_err(io::Error::other)??;
        *checkpoint = Some(CheckpointFile {
            path,
            end_offset: id.end_offset,
            epoch: id.epoch,
        });
    }
    Ok(Some(request))
}

impl OpenraftMetaLog {
    /// Answers another voter's request, from body to body. Malformed bytes are an error, upon which the connection is
    /// closed; a voter that is stopping answers nothing.
    pub async fn handle_raft(&self, body: Bytes) -> io::Result<Bytes> {
        let Some(request) = decode_request(body, self).await? else {
            let cluster_id = self.cluster_id().map(str::to_owned);
            return encode_response(&RaftResponse::NotMeant { cluster_id });
        };
        let received = match &request {
            RaftRequest::InstallSnapshot { checkpoint, .. } => checkpoint.clone(),
            _ => None,
        };
        let response = self.handle(request).await;
        if let Some(file) = received {
            // It has been copied to its place, or refused.
            let _ = std::fs::remove_file(file.path);
        }
        response.map_or(Ok(Bytes::new()), |response| encode_response(&response))
    }
}

fn encode_response(response: &RaftResponse) -> io::Result<Bytes> {
    let bytes = postcard::to_stdvec(response).map_err(io::Error::other)?;
    Ok(bytes.into())
}
