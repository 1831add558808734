//! DeleteRecords (key 21), v0-2. Moves the log start offset of partitions; -1 means up to the high watermark.
//! Versions: v2 flexible.

use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::api::RequestContext;
use crate::protocol::{Error, ErrorCode};
use crate::types::{Offset, is_internal_topic};

pub async fn handle(
    context: RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    // Files are removed here: off the thread that serves the connection.
    let answered = tokio::task::spawn_blocking(move || delete(&context, request)).await;
    answered.unwrap_or_default()
}

fn delete(context: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let deleted =
                delete_before(context, &topic.name, wanted.partition_index, wanted.offset);
            DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(deleted.as_ref().err().map_or(0, Error::code))
                .with_low_watermark(deleted.unwrap_or(-1))
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

fn delete_before(
    context: &RequestContext,
    topic: &str,
    partition: i32,
    offset: Offset,
) -> Result<Offset, Error> {
    let partition = context.services.replicas.find(topic, partition)?;
    if is_internal_topic(topic) {
        return Err(ErrorCode::InvalidTopicException.into());
    }
    let policy = partition.config().cleanup_policy;
    // The empty policy keeps records until somebody deletes them (KIP-1161).
    if policy.compact && !policy.delete {
        return Err(ErrorCode::PolicyViolation.into());
    }
    partition.delete_records_before(offset)
}
