//! UnregisterBroker (key 64), v0. The controller decides.

use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    context.controller().unregister_broker(request).await
}
