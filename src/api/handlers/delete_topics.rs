//! DeleteTopics (key 20), v1-6. The controller decides.
//! Versions: v4 flexible - v5 error messages - v6 by id (KIP-516).

use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

use crate::api::RequestContext;
use crate::protocol::ErrorCode;

pub async fn handle(context: RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let mut response = context.controller().delete_topics(request).await;
    if context.version < 3 {
        // These versions do not know that deletion may be switched off.
        for topic in &mut response.responses {
            if topic.error_code == ErrorCode::TopicDeletionDisabled.code() {
                topic.error_code = ErrorCode::InvalidRequest.code();
            }
        }
    }
    response
}
