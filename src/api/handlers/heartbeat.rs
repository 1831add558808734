//! Heartbeat (key 12), v0-4. Keeps a member's session, tells it that a rebalance began.
//! Versions: v3 static members - v4 flexible.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::api::RequestContext;

pub async fn handle(context: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    context.services.groups.heartbeat(request).await
}
