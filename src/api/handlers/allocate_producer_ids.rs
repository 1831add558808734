//! AllocateProducerIds (key 67), v0. From brokers to the controller: a block of producer ids (KIP-730).

use kafka_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: AllocateProducerIdsRequest,
) -> AllocateProducerIdsResponse {
    context.controller().allocate_producer_ids(request).await
}
