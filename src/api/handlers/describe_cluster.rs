//! DescribeCluster (key 60), v0-2. The nodes of the cluster.
//! Versions: v1 endpoint type (KIP-919) - v2 fenced brokers (KIP-1073).

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, DescribeClusterRequest, DescribeClusterResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::api::RequestContext;
use crate::api::cluster_view::{CLUSTER_OPERATIONS, ClusterView, text};
use crate::protocol::ErrorCode;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub fn handle(
    context: &RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if context.connection.is_controller {
        return describe_controllers(context, &request);
    }
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => return refuse(ErrorCode::MismatchedEndpointType),
        _ => return refuse(ErrorCode::UnsupportedEndpointType),
    }
    let view = ClusterView::new(context);
    let with_fenced = request.include_fenced_brokers;
    let shown = view
        .brokers()
        .filter(|(broker, _)| with_fenced || !broker.fenced);
    let brokers: Vec<_> = shown
        .map(|(broker, endpoint)| {
            DescribeClusterBroker::default()
                .with_broker_id(WireBrokerId(broker.id))
                .with_host(text(&endpoint.host))
                .with_port(i32::from(endpoint.port))
                .with_rack(broker.rack.as_deref().map(text))
                .with_is_fenced(broker.fenced)
        })
        .collect();
    let controller_id = view.controller_id();
    let is_shown = brokers
        .iter()
        .any(|broker| broker.broker_id == controller_id);
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(text(&context.services.cluster_id))
        .with_controller_id(if is_shown {
            controller_id
        } else {
            WireBrokerId(-1)
        })
        .with_brokers(brokers);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// What a controller's own listener shows: the voters (KIP-919).
fn describe_controllers(
    context: &RequestContext,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    match request.endpoint_type {
        CONTROLLERS => {}
        BROKERS if context.version == 0 => return refuse(ErrorCode::InvalidRequest),
        BROKERS => return refuse(ErrorCode::MismatchedEndpointType),
        _ => return refuse(ErrorCode::UnsupportedEndpointType),
    }
    let quorum = &context.services.quorum;
    let info = quorum.describe();
    let voters = info.voters.iter().filter_map(|voter| {
        let endpoint = quorum.endpoint(voter.replica_id)?;
        let shown = DescribeClusterBroker::default()
            .with_broker_id(WireBrokerId(voter.replica_id))
            .with_host(text(&endpoint.host))
            .with_port(i32::from(endpoint.port));
        Some(shown)
    });
    let mut response = DescribeClusterResponse::default()
        .with_endpoint_type(CONTROLLERS)
        .with_cluster_id(text(&context.services.cluster_id))
        .with_controller_id(WireBrokerId(info.leader_id))
        .with_brokers(voters.collect());
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// Version 0 has no endpoint type, so it never gets here.
fn refuse(code: ErrorCode) -> DescribeClusterResponse {
    let message = "this listener knows of brokers, not of that type of endpoint";
    DescribeClusterResponse::default()
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_static_str(message)))
}
