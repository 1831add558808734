//! DeleteGroups (key 42), v0-2. Removes groups without members, with their offsets.
//! Versions: v2 flexible.

use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::api::RequestContext;

pub async fn handle(context: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups_names.len());
    for group in request.groups_names {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let results = context.services.groups.delete_groups(groups).await;
    DeleteGroupsResponse::default().with_results(results)
}
