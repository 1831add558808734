//! OffsetCommit (key 8), v2-10. Stores how far a group has read.
//! Versions: v2-4 retention time - v6 leader epoch - v7 static members - v8 flexible - v9 GROUP_ID_NOT_FOUND and the
//! newer group protocol - v10 topic ids.

use indexmap::IndexMap;
use indexmap::map::Entry;
use kafka_protocol::protocol::StrBytes;

use crate::api::RequestContext;
use crate::protocol::ErrorCode;
use crate::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::types::Uuid;

/// Answered topics by name and id.
type Answers = IndexMap<(StrBytes, Uuid), OffsetCommitResponseTopic>;

pub async fn handle(
    context: RequestContext,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let mut answers = Answers::new();
    request.topics = resolve(&context, std::mem::take(&mut request.topics), &mut answers);
    if !request.topics.is_empty() {
        let groups = &context.services.groups;
        let committed = groups.offset_commit(context.version, request).await;
        committed
            .topics
            .into_iter()
            .for_each(|topic| merge(&mut answers, topic));
    }
    OffsetCommitResponse {
        throttle_time_ms: 0,
        topics: answers.into_values().collect(),
    }
}

/// The topics and partitions that exist, with name and id; what does not exist is answered.
fn resolve(
    context: &RequestContext,
    topics: Vec<OffsetCommitRequestTopic>,
    answers: &mut Answers,
) -> Vec<OffsetCommitRequestTopic> {
    let image = context.services.images.load();
    let mut existing = Vec::with_capacity(topics.len());
    for mut topic in topics {
        let known = match context.version {
            10.. => image.topics.by_id(topic.topic_id),
            _ => image.topics.by_name(&topic.name),
        };
        let Some(known) = known else {
            let code = match context.version {
                10.. => ErrorCode::UnknownTopicId,
                _ => ErrorCode::UnknownTopicOrPartition,
            };
            merge(answers, refused(&topic, |_| Some(code)));
            continue;
        };
        topic.name = known.name.to_string().into();
        topic.topic_id = known.id;
        let missing = refused(&topic, |partition| {
            let exists = known.partitions.contains_key(&partition);
            (!exists).then_some(ErrorCode::UnknownTopicOrPartition)
        });
        if !missing.partitions.is_empty() {
            merge(answers, missing);
            topic
                .partitions
                .retain(|p| known.partitions.contains_key(&p.partition_index));
        }
        if !topic.partitions.is_empty() {
            existing.push(topic);
        }
    }
    existing
}

/// The partitions for which there is an error.
fn refused(
    topic: &OffsetCommitRequestTopic,
    error: impl Fn(i32) -> Option<ErrorCode>,
) -> OffsetCommitResponseTopic {
    let partitions = topic.partitions.iter().filter_map(|partition| {
        Some(OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: error(partition.partition_index)?.code(),
        })
    });
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
    }
}

/// A topic is answered once, its refused partitions first.
fn merge(answers: &mut Answers, topic: OffsetCommitResponseTopic) {
    match answers.entry((topic.name.clone(), topic.topic_id)) {
        Entry::Occupied(entry) => entry.into_mut().partitions.extend(topic.partitions),
        Entry::Vacant(entry) => {
            entry.insert(topic);
        }
    }
}
