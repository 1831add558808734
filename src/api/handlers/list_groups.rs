//! ListGroups (key 16), v0-5. The groups whose coordinator this broker is.
//! Versions: v3 flexible - v4 states and a filter for them (KIP-518) - v5 types and a filter for them (KIP-848).

use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use crate::api::RequestContext;

pub async fn handle(context: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    context.services.groups.list_groups(request).await
}
