//! AlterPartitionReassignments (key 45), v0-1. The controller decides.
//! Versions: v1 may forbid another replication factor (KIP-860).

use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let controller = context.controller();
    controller.alter_partition_reassignments(request).await
}
