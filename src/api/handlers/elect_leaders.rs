//! ElectLeaders (key 43), v0-2. The controller decides.
//! Versions: v1 unclean elections (KIP-460) and a code for the whole request - v2 flexible.

use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use crate::api::RequestContext;

pub async fn handle(context: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    context.controller().elect_leaders(request).await
}
