//! CreatePartitions (key 37), v0-3. The controller decides.
//! Versions: v2 flexible.

use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    context.controller().create_partitions(request).await
}
