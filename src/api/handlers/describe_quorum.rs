//! DescribeQuorum (key 55), v0-2. The state of the controller quorum (KIP-595).
//! Versions: v1 fetch and caught-up times (KIP-836) - v2 directory ids, nodes and error messages (KIP-853).

use std::time::Duration;

use kafka_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState as WireReplicaState, TopicData,
};
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, DescribeQuorumRequest, DescribeQuorumResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::api::RequestContext;
use crate::api::cluster_view::text;
use crate::protocol::ErrorCode;
use crate::quorum::{QuorumInfo, ReplicaState};
use crate::types::{BrokerId, CLUSTER_METADATA_TOPIC, TimestampMs};

/// How long the leader may take.
const TIMEOUT: Duration = Duration::from_secs(4);

pub async fn handle(
    context: RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let asks_for_quorum = match &request.topics[..] {
        [topic] => {
            let is_first = topic.partitions.len() == 1 && topic.partitions[0].partition_index == 0;
            topic.topic_name.as_str() == CLUSTER_METADATA_TOPIC && is_first
        }
        _ => false,
    };
    if !asks_for_quorum {
        return refuse(context.version, request);
    }
    let controller = context.controller();
    let elsewhere = controller.ask_quorum(context.version, &request, TIMEOUT);
    if let Some(response) = elsewhere.await {
        return response;
    }
    let info = context.services.quorum.describe();
    let version = context.version;
    let now_ms = context.services.clock.wall_ms();
    // Only the leader knows how far the others are.
    let is_known = info.leader_id == context.services.config().node_id;
    let state = |replica: &ReplicaState| replica_state(version, &info, replica, now_ms);
    let mut partition = PartitionData::default().with_partition_index(0);
    if is_known {
        partition = partition
            .with_leader_id(WireBrokerId(info.leader_id))
            .with_leader_epoch(info.leader_epoch)
            .with_high_watermark(info.high_watermark)
            .with_current_voters(info.voters.iter().map(state).collect())
            .with_observers(info.observers.iter().map(state).collect());
    } else {
        partition.error_code = ErrorCode::NotLeaderOrFollower.code();
        if version >= 2 {
            partition.error_message =
                Some(StrBytes::from_static_str("another node leads the quorum"));
        }
    }
    let topic = TopicData::default()
        .with_topic_name(TopicName(StrBytes::from_static_str(CLUSTER_METADATA_TOPIC)))
        .with_partitions(vec![partition]);
    let response = DescribeQuorumResponse::default().with_topics(vec![topic]);
    if version < 2 || !is_known {
        return response;
    }
    let nodes = info
        .voters
        .iter()
        .map(|voter| node(&context, voter.replica_id));
    response.with_nodes(nodes.collect())
}

fn refuse(version: i16, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let message = if version >= 2 {
        "the quorum has the metadata log, partition 0, and nothing else"
    } else {
        ""
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
                .with_error_message(Some(StrBytes::from_static_str(message)))
        });
        let partitions = partitions.collect();
        TopicData::default()
            .with_topic_name(topic.topic_name)
            .with_partitions(partitions)
    });
    DescribeQuorumResponse::default().with_topics(topics.collect())
}

fn replica_state(
    version: i16,
    info: &QuorumInfo,
    replica: &ReplicaState,
    now_ms: TimestampMs,
) -> WireReplicaState {
    let is_leader = replica.replica_id == info.leader_id;
    let leader_or = |time_ms: TimestampMs| if is_leader { now_ms } else { time_ms };
    let mut state = WireReplicaState::default()
        .with_replica_id(WireBrokerId(replica.replica_id))
        .with_log_end_offset(replica.log_end_offset);
    if version >= 1 {
        state.last_fetch_timestamp = leader_or(replica.last_fetch_timestamp_ms);
        state.last_caught_up_timestamp = leader_or(replica.last_caught_up_timestamp_ms);
    }
    if version >= 2 {
        state.replica_directory_id = replica.replica_directory_id;
    }
    state
}

/// Where a voter listens for controllers and brokers.
fn node(context: &RequestContext, id: BrokerId) -> Node {
    let image = context.services.image();
    let listener = |name: &str, host: &str, port: u16| {
        Listener::default()
            .with_name(text(name))
            .with_host(text(host))
            .with_port(port)
    };
    let config = context.services.config();
    let listeners = match image.cluster.controllers.get(&id) {
        Some(controller) => {
            let endpoints = controller.listeners.iter();
            let listeners = endpoints.map(|e| listener(&e.name, &e.host, e.port));
            listeners.collect()
        }
        // This node knows its own even before they are registered.
        None if id == config.node_id => {
            let endpoints = config.controller_listeners();
            let listeners = endpoints.map(|e| listener(&e.listener_name, &e.host, e.port));
            listeners.collect()
        }
        None => {
            let endpoint = context.services.quorum.endpoint(id).into_iter();
            let listeners = endpoint.map(|e| listener(&e.name, &e.host, e.port));
            listeners.collect()
        }
    };
    Node::default()
        .with_node_id(WireBrokerId(id))
        .with_listeners(listeners)
}
