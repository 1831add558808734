//! AlterPartition (key 56), v2-3. From leaders to the controller: the ISR has changed (KIP-497).

use kafka_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: AlterPartitionRequest,
) -> AlterPartitionResponse {
    // Kafka answers this without asking who leads.
    if request.topics.is_empty() {
        return AlterPartitionResponse::default();
    }
    context.controller().alter_partition(request).await
}
