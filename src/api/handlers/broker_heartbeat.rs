//! BrokerHeartbeat (key 63), v0-1. From brokers to the controller.

use kafka_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: BrokerHeartbeatRequest,
) -> BrokerHeartbeatResponse {
    context.controller().broker_heartbeat(request).await
}
