//! ElectLeaders (key 43), v0-2. The controller decides.
//! Versions: v1 unclean elections (KIP-460) and a code for the whole request - v2 flexible.

use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use crate::api::RequestContext;

pub async fn handle(context: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let mut response = context.controller().elect_leaders(request).await;
    if context.version == 0 {
        // The code stands with each partition.
        response.error_code = 0;
    }
    response
}
