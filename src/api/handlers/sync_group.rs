//! SyncGroup (key 14), v0-5. The leader hands in the generation's assignment, everybody gets theirs.
//! Versions: v3 static members - v4 flexible - v5 protocol type and name.

use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use crate::api::RequestContext;
use crate::protocol::ErrorCode;

pub async fn handle(context: RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let is_complete = request.protocol_type.is_some() && request.protocol_name.is_some();
    if context.version >= 5 && !is_complete {
        return SyncGroupResponse::default()
            .with_error_code(ErrorCode::InconsistentGroupProtocol.code());
    }
    context.services.groups.sync_group(request).await
}
