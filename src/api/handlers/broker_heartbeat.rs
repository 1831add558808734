//! BrokerHeartbeat (key 63), v0-2. From brokers to the controller.
//! Versions: v1 offline directories (KIP-858) - v2 cordoned directories (KIP-1066).

use crate::api::RequestContext;
use crate::protocol::messages::broker_heartbeat::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse,
};

pub async fn handle(
    context: RequestContext,
    request: BrokerHeartbeatRequest,
) -> BrokerHeartbeatResponse {
    context.controller().broker_heartbeat(request).await
}
