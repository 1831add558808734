//! ListPartitionReassignments (key 46), v0. The controller knows.

use kafka_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let controller = context.controller();
    controller.list_partition_reassignments(request).await
}
