//! What a Fetch on a controller's listener gets: the metadata log, for who follows it without a vote. One partition, no session
//! (`KafkaRaftClient.handleFetchRequest`). Called by the handlers of Fetch and FetchSnapshot.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use crate::api::RequestContext;
use crate::api::cluster_view::text;
use crate::api::reply::{Chunk, Reply, ResponseFrame};
use crate::protocol::ErrorCode;
use crate::protocol::messages::fetch::{
    EpochEndOffset, FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse,
    LeaderIdAndEpoch, NodeEndpoint, PartitionData, SnapshotId,
};
use crate::protocol::wire::Records;
use crate::quorum::{FetchOutcome, LeaderAndEpoch, ObserverAnswer, ObserverFetch};
use crate::types::{CLUSTER_METADATA_TOPIC, CLUSTER_METADATA_TOPIC_ID};

const TOPIC_IDS_FROM: i16 = 13;
const REPLICA_STATE_FROM: i16 = 15;
const ENDPOINTS_FROM: i16 = 16;

type Response = FetchResponse<Bytes>;

pub fn handle(context: RequestContext, request: FetchRequest) -> Reply {
    Reply::Later(Box::pin(async move {
        let response = answer(&context, &request).await;
        let chunks: Vec<Chunk> = response.encode_chunks(context.version).ok()?;
        Some(ResponseFrame::from_chunks(context.framing, chunks))
    }))
}

async fn answer(context: &RequestContext, request: &FetchRequest) -> Response {
    if !is_of_cluster(context, request.cluster_id.as_ref()) {
        return failed(ErrorCode::InconsistentClusterId);
    }
    let Some(partition) = metadata_partition(context.version, request) else {
        return failed(ErrorCode::InvalidRequest);
    };
    let is_sound = request.max_wait_ms >= 0
        && partition.fetch_offset >= 0
        && partition.last_fetched_epoch >= 0
        && partition.current_leader_epoch >= 0;
    let replica_id = if context.version >= REPLICA_STATE_FROM {
        request.replica_state.replica_id
    } else {
        request.replica_id
    };
    let fetch = ObserverFetch {
        replica_id,
        directory_id: partition.replica_directory_id,
        leader_epoch: partition.current_leader_epoch,
        fetch_offset: partition.fetch_offset,
        last_fetched_epoch: partition.last_fetched_epoch,
        bytes_max: request.max_bytes.max(0) as usize,
        wait_max: Duration::from_millis(u64::from(request.max_wait_ms.unsigned_abs())),
    };
    let refused = |leader, code| ObserverAnswer {
        leader,
        high_watermark: -1,
        log_start_offset: -1,
        outcome: FetchOutcome::Refused(code),
    };
    let answer = match &context.services.voter {
        _ if !is_sound => refused(known_leader(context), ErrorCode::InvalidRequest),
        Some(voter) => voter.fetch(fetch).await,
        None => refused(known_leader(context), ErrorCode::NotLeaderOrFollower),
    };
    response(context, answer)
}

/// A cluster id that is given must be ours.
pub fn is_of_cluster(context: &RequestContext, cluster_id: Option<&StrBytes>) -> bool {
    cluster_id.is_none_or(|id| id.as_str() == &*context.services.cluster_id)
}

/// Who leads the quorum, as far as this node may say so.
pub fn known_leader(context: &RequestContext) -> LeaderAndEpoch {
    match &context.services.voter {
        Some(voter) => voter.known_leader(),
        None => *context.services.quorum.leader().borrow(),
    }
}

/// The one partition that may be asked for.
fn metadata_partition(version: i16, request: &FetchRequest) -> Option<&FetchPartition> {
    let [topic] = &request.topics[..] else {
        return None;
    };
    let is_named = if version >= TOPIC_IDS_FROM {
        topic.topic_id == CLUSTER_METADATA_TOPIC_ID
    } else {
        topic.topic.as_str() == CLUSTER_METADATA_TOPIC
    };
    match &topic.partitions[..] {
        [partition] if is_named && partition.partition == 0 => Some(partition),
        _ => None,
    }
}

fn failed(code: ErrorCode) -> Response {
    Response {
        error_code: code.code(),
        ..Response::default()
    }
}

fn response(context: &RequestContext, answer: ObserverAnswer) -> Response {
    let mut partition = PartitionData {
        high_watermark: answer.high_watermark,
        log_start_offset: answer.log_start_offset,
        current_leader: LeaderIdAndEpoch {
            leader_id: answer.leader.leader_id.unwrap_or(-1),
            leader_epoch: answer.leader.epoch,
        },
        ..PartitionData::default()
    };
    match answer.outcome {
        FetchOutcome::Records(records) => partition.records = Records(Some(records)),
        FetchOutcome::Diverging { epoch, end_offset } => {
            partition.diverging_epoch = EpochEndOffset { epoch, end_offset };
        }
        FetchOutcome::Snapshot { end_offset, epoch } => {
            partition.snapshot_id = SnapshotId { end_offset, epoch };
        }
        FetchOutcome::Refused(code) => partition.error_code = code.code(),
    }
    let endpoint = leader_endpoint(context, answer.leader).filter(|_| {
        // Older versions have no place for it.
        context.version >= ENDPOINTS_FROM
    });
    let endpoint = endpoint.map(|(node_id, host, port)| NodeEndpoint {
        node_id,
        host,
        port: i32::from(port),
        ..NodeEndpoint::default()
    });
    let topic = FetchableTopicResponse {
        topic: StrBytes::from_static_str(CLUSTER_METADATA_TOPIC),
        topic_id: CLUSTER_METADATA_TOPIC_ID,
        partitions: vec![partition],
    };
    Response {
        responses: vec![topic],
        node_endpoints: endpoint.into_iter().collect(),
        ..Response::default()
    }
}

/// Where the leader listens, if it is known.
pub fn leader_endpoint(
    context: &RequestContext,
    leader: LeaderAndEpoch,
) -> Option<(i32, StrBytes, u16)> {
    let leader_id = leader.leader_id?;
    let endpoint = context.services.quorum.endpoint(leader_id)?;
    Some((leader_id, text(&endpoint.host), endpoint.port))
}
