//! FetchSnapshot (key 59), v0-1. Pieces of a metadata snapshot, for who follows the metadata log without a vote (KIP-630).
//! Versions: v1 directory id, where the leader listens (KIP-853).

use kafka_protocol::messages::fetch_snapshot_request::PartitionSnapshot as Wanted;
use kafka_protocol::messages::fetch_snapshot_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionSnapshot, SnapshotId, TopicSnapshot,
};
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, FetchSnapshotRequest, FetchSnapshotResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::api::RequestContext;
use crate::api::metadata_fetch::{is_of_cluster, known_leader, leader_endpoint};
use crate::protocol::ErrorCode;
use crate::types::CLUSTER_METADATA_TOPIC;

const ENDPOINTS_FROM: i16 = 1;

pub async fn handle(
    context: RequestContext,
    request: FetchSnapshotRequest,
) -> FetchSnapshotResponse {
    if !is_of_cluster(&context, request.cluster_id.as_ref()) {
        let code = ErrorCode::InconsistentClusterId.code();
        return FetchSnapshotResponse::default().with_error_code(code);
    }
    let wanted = match &request.topics[..] {
        [topic] if topic.name.as_str() == CLUSTER_METADATA_TOPIC => match &topic.partitions[..] {
            [wanted] if wanted.partition == 0 => Some(wanted),
            _ => None,
        },
        _ => None,
    };
    let Some(wanted) = wanted else {
        return refuse_strangers(&request);
    };
    let leader = known_leader(&context);
    let mut partition = PartitionSnapshot::default()
        .with_snapshot_id(
            SnapshotId::default()
                .with_end_offset(wanted.snapshot_id.end_offset)
                .with_epoch(wanted.snapshot_id.epoch),
        )
        .with_current_leader(
            LeaderIdAndEpoch::default()
                .with_leader_id(WireBrokerId(leader.leader_id.unwrap_or(-1)))
                .with_leader_epoch(leader.epoch),
        );
    match read(&context, wanted, request.max_bytes).await {
        Ok((size, bytes)) => {
            partition.size = i64::try_from(size).unwrap_or(i64::MAX);
            partition.position = wanted.position;
            partition.unaligned_records = bytes;
        }
        Err(code) => partition.error_code = code.code(),
    }
    let topic = TopicSnapshot::default()
        .with_name(TopicName(StrBytes::from_static_str(CLUSTER_METADATA_TOPIC)))
        .with_partitions(vec![partition]);
    let response = FetchSnapshotResponse::default().with_topics(vec![topic]);
    let endpoint = leader_endpoint(&context, leader).filter(|_| context.version >= ENDPOINTS_FROM);
    let endpoint = endpoint.map(|(node_id, host, port)| {
        NodeEndpoint::default()
            .with_node_id(WireBrokerId(node_id))
            .with_host(host)
            .with_port(port)
    });
    response.with_node_endpoints(endpoint.into_iter().collect())
}

async fn read(
    context: &RequestContext,
    wanted: &Wanted,
    bytes_max: i32,
) -> Result<(u64, bytes::Bytes), ErrorCode> {
    let voter = &context.services.voter;
    let voter = voter.as_ref().ok_or(ErrorCode::NotLeaderOrFollower)?;
    let snapshot = (wanted.snapshot_id.end_offset, wanted.snapshot_id.epoch);
    let bytes_max = bytes_max.max(0) as usize;
    let piece = voter.fetch_snapshot(
        wanted.current_leader_epoch,
        snapshot,
        wanted.position,
        bytes_max,
    );
    let piece = piece.await?;
    Ok((piece.size_bytes, piece.bytes))
}

/// Partitions that have no snapshots.
fn refuse_strangers(request: &FetchSnapshotRequest) -> FetchSnapshotResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            PartitionSnapshot::default()
                .with_index(wanted.partition)
                .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
        });
        let partitions = partitions.collect();
        TopicSnapshot::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions)
    });
    FetchSnapshotResponse::default().with_topics(topics.collect())
}
