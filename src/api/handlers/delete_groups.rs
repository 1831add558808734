//! DeleteGroups (key 42), v0-2. Removes groups without members, with their offsets.
//! Versions: v2 flexible.

use indexmap::IndexSet;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::api::RequestContext;

pub async fn handle(context: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let groups: IndexSet<_> = request.groups_names.into_iter().collect();
    let groups = groups.into_iter().collect();
    let results = context.services.groups.delete_groups(groups).await;
    DeleteGroupsResponse::default().with_results(results)
}
