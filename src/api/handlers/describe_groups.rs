//! DescribeGroups (key 15), v0-6. State and members of classic groups.
//! Versions: v3 authorized operations - v4 static members - v5 flexible - v6 GROUP_ID_NOT_FOUND (KIP-1043).

use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use crate::api::RequestContext;

/// Without an authorizer everything that exists for groups is allowed: READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and
/// ALTER_CONFIGS, each at the bit of its ACL code.
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

pub async fn handle(
    context: RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let groups = &context.services.groups;
    let mut described = groups
        .describe_groups(context.version, request.groups)
        .await;
    if context.version >= 3 && request.include_authorized_operations {
        for group in described.iter_mut().filter(|group| group.error_code == 0) {
            group.authorized_operations = ALL_OPERATIONS;
        }
    }
    DescribeGroupsResponse::default().with_groups(described)
}
