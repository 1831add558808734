//! DeleteRecords (key 21), v0-2. Moves the log start offset of partitions; -1 means up to the high watermark. The answer waits
//! until all replicas that are alive have moved theirs, which they do by the leader's answers to their fetches.
//! Versions: v2 flexible.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use crate::api::RequestContext;
use crate::partition::Partition;
use crate::protocol::{Error, ErrorCode};
use crate::types::{Offset, is_internal_topic};

/// A partition that was asked for, and what became of it.
struct Asked {
    topic: StrBytes,
    index: i32,
    deleted: Result<Deleted, Error>,
}

/// Records that this leader deleted.
struct Deleted {
    partition: Arc<Partition>,
    /// Where the log of every replica is to start, or further on.
    before: Offset,
}

/// One result: the low watermark, or why it is not where it should be.
struct Answer {
    code: i16,
    low_watermark: Offset,
}

pub async fn handle(
    context: RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let context = Arc::new(context);
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms.max(0) as u64);
    // Files are removed here: off the thread that serves the connection.
    let deleting = Arc::clone(&context);
    let asked = tokio::task::spawn_blocking(move || delete(&deleting, request)).await;
    let mut topics: Vec<DeleteRecordsTopicResult> = Vec::new();
    for asked in asked.unwrap_or_default() {
        let answer = match asked.deleted {
            Ok(deleted) => deleted.by_all(deadline).await,
            Err(error) => error.into(),
        };
        let result = DeleteRecordsPartitionResult::default()
            .with_partition_index(asked.index)
            .with_error_code(answer.code)
            .with_low_watermark(answer.low_watermark);
        match topics.last_mut() {
            Some(topic) if *topic.name == asked.topic => topic.partitions.push(result),
            _ => topics.push(
                DeleteRecordsTopicResult::default()
                    .with_name(asked.topic.into())
                    .with_partitions(vec![result]),
            ),
        }
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

fn delete(context: &RequestContext, request: DeleteRecordsRequest) -> Vec<Asked> {
    let partitions = request.topics.into_iter().flat_map(|topic| {
        let name = topic.name.0;
        let partitions = topic.partitions.into_iter();
        partitions.map(move |partition| (name.clone(), partition))
    });
    let asked = partitions.map(|(topic, wanted)| {
        let index = wanted.partition_index;
        let deleted = delete_before(context, &topic, index, wanted.offset);
        Asked {
            topic,
            index,
            deleted,
        }
    });
    asked.collect()
}

fn delete_before(
    context: &RequestContext,
    topic: &str,
    partition: i32,
    offset: Offset,
) -> Result<Deleted, Error> {
    let partition = context.services.replicas.find(topic, partition)?;
    if is_internal_topic(topic) {
        return Err(ErrorCode::InvalidTopicException.into());
    }
    let policy = partition.config().cleanup_policy;
    // The empty policy keeps records until somebody deletes them (KIP-1161).
    if policy.compact && !policy.delete {
        return Err(ErrorCode::PolicyViolation.into());
    }
    let before = partition.delete_records_before(offset)?;
    Ok(Deleted { partition, before })
}

impl Deleted {
    /// Waits for the followers, which tell their log start with each fetch.
    async fn by_all(self, deadline: Instant) -> Answer {
        loop {
            let (low_watermark, moved) = match self.partition.low_watermark() {
                Ok(found) => found,
                Err(error) => return error.into(),
            };
            if low_watermark >= self.before {
                let code = 0;
                return Answer {
                    code,
                    low_watermark,
                };
            }
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                let code = ErrorCode::RequestTimedOut.code();
                return Answer {
                    code,
                    low_watermark,
                };
            }
        }
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        Self {
            code: error.code(),
            low_watermark: -1,
        }
    }
}
