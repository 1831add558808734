//! LeaveGroup (key 13), v0-5. Ends memberships: one up to v2, many from v3 (KIP-345).
//! Versions: v3 many members, errors of their own - v4 flexible - v5 reason.

use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::api::RequestContext;

pub async fn handle(context: RequestContext, mut request: LeaveGroupRequest) -> LeaveGroupResponse {
    if context.version < 3 {
        request.members = vec![MemberIdentity::default().with_member_id(request.member_id.clone())];
    }
    let mut response = context.services.groups.leave_group(request).await;
    if context.version < 3 {
        let members = std::mem::take(&mut response.members);
        if response.error_code == 0 {
            response.error_code = members.first().map_or(0, |member| member.error_code);
        }
    }
    response
}
