//! FindCoordinator (key 10), v0-6. Where a group's coordinator is: the leader of its partition of
//! `__consumer_offsets`, which the first such request creates.
//! Transactional ids and share partitions have no coordinator in this broker: COORDINATOR_NOT_AVAILABLE.
//! Versions: v1 key types - v3 flexible - v4 many keys (KIP-699) - v6 share groups (KIP-932).

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::api::RequestContext;
use crate::api::cluster_view::ClusterView;
use crate::protocol::ErrorCode;
use crate::types::GROUP_METADATA_TOPIC;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// Node id, host and port.
type Node = (i32, StrBytes, i32);
const NO_NODE: Node = (-1, StrBytes::from_static_str(""), -1);

pub fn handle(
    context: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if context.version < 4 {
        let found = find(context, request.key_type, &request.key);
        let message = found.as_ref().err().map_or("NONE", |code| text(*code));
        let code = found.as_ref().err().map_or(0, ErrorCode::code);
        let (id, host, port) = found.unwrap_or(NO_NODE);
        return FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_error_message(Some(StrBytes::from_static_str(message)))
            .with_node_id(BrokerId(id))
            .with_host(host)
            .with_port(port);
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        let found = find(context, request.key_type, &key);
        let code = found.as_ref().err().map_or(0, ErrorCode::code);
        let (id, host, port) = found.unwrap_or(NO_NODE);
        // Kafka explains what fails the whole request only.
        let is_unknown_type = !(GROUP..=SHARE).contains(&request.key_type);
        let message = if is_unknown_type {
            text(ErrorCode::InvalidRequest)
        } else {
            ""
        };
        Coordinator::default()
            .with_key(key)
            .with_error_message(Some(StrBytes::from_static_str(message)))
            .with_error_code(code)
            .with_node_id(BrokerId(id))
            .with_host(host)
            .with_port(port)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

fn find(context: &RequestContext, key_type: i8, key: &str) -> Result<Node, ErrorCode> {
    match key_type {
        GROUP => find_group(context, key),
        SHARE if context.version < 6 => Err(ErrorCode::InvalidRequest),
        TRANSACTION | SHARE => Err(ErrorCode::CoordinatorNotAvailable),
        _ => Err(ErrorCode::InvalidRequest),
    }
}

fn find_group(context: &RequestContext, group_id: &str) -> Result<Node, ErrorCode> {
    let view = ClusterView::new(context);
    let Some(topic) = view.image.topics.by_name(GROUP_METADATA_TOPIC) else {
        // Clients try again until it is there.
        let topic = TopicName(StrBytes::from_static_str(GROUP_METADATA_TOPIC));
        let services = &context.services;
        services.topic_creation.start(&services.config(), &[topic]);
        return Err(ErrorCode::CoordinatorNotAvailable);
    };
    let partition = context.services.groups.partition_for(group_id);
    let leader = topic
        .partitions
        .get(&partition)
        .map(|registration| registration.leader);
    let broker = leader
        .and_then(|id| view.broker(id))
        .filter(|broker| !broker.fenced);
    let endpoint = broker.and_then(|broker| {
        let endpoint = broker.listener(&view.listener)?;
        Some((
            broker.id,
            StrBytes::from_string(endpoint.host.to_string()),
            i32::from(endpoint.port),
        ))
    });
    endpoint.ok_or(ErrorCode::CoordinatorNotAvailable)
}

fn text(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::CoordinatorNotAvailable => "The coordinator is not available.",
        ErrorCode::InvalidRequest => "The key type is not known in this version.",
        _ => "The coordinator cannot be found.",
    }
}
