//! AssignReplicasToDirs (key 73), v0. From brokers to the controller: where replicas are (KIP-858).

use kafka_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: AssignReplicasToDirsRequest,
) -> AssignReplicasToDirsResponse {
    context.controller().assign_replicas_to_dirs(request).await
}
